//! Single-pass softmax whose recurrence is a shift and an addition.
//!
//! Logits come in octaves: natural logits times log2(e), a factor that is folded upstream into the scale of QKᵀ
//! (see [`super::math::LOG2_E_Q62`]), raw `i32` with `F` fraction bits. The running maximum is kept as a whole number
//! of octaves, m = ⌈max x⌉, so moving to a new maximum multiplies the sum by a power of two:
//!
//! ```text
//! m' = max(m, ⌈x⌉)     d = sat16(m'·2^F − x)     s = (s >> (m' − m)) + (2^-frac(d) >> int(d))
//! ```
//!
//! 2^-frac comes from 64 segments with linear interpolation (relative error at most 1.5e-5, which largely cancels in
//! the quotient) and carries [`WEIGHT_FRAC`] = 16 + 8 fraction bits: 8 guard bits below a 16-bit probability. Weights
//! are rounded, so those under 2^-25 of the maximum count as nothing and a hostile row of n elements can lose up to
//! n·2^-25 of its mass; the [`super::exact`] form keeps that too.

use super::recip::{Scaled, recip};
use super::requant::Narrow;
use super::{KernelError, check_len, math};

/// Fraction bits of a weight.
pub const WEIGHT_FRAC: u32 = 24;
/// Segments of the table of 2^-f, a power of two.
pub const SEGMENTS: usize = 64;
const SEGMENT_BITS: u32 = SEGMENTS.trailing_zeros();
/// Bits of a distance beyond its fraction: from 2^5 octaves on a weight is nothing.
pub const OCTAVE_BITS: u32 = 5;

/// 2^(-i/64) with 24 fraction bits.
pub const POW2_NEG: [u32; SEGMENTS + 1] = {
    let mut t = [1 << (WEIGHT_FRAC - 1); SEGMENTS + 1];
    let mut i = 0;
    while i < SEGMENTS {
        let q63 = math::exp2_neg_q63((i as u64) << (64 - SEGMENT_BITS));
        t[i] = ((q63 + (1 << 38)) >> 39) as u32;
        i += 1;
    }
    t
};

/// The table for distances of `F` fraction bits.
#[derive(Clone, Copy)]
struct Segments<const F: u32> {
    /// Where a segment starts, in units of its steps, and just below one more: a floor then rounds what has fallen down.
    starts: &'static [u32; SEGMENTS],
    /// How far it falls.
    falls: &'static [u32; SEGMENTS],
}

impl<const F: u32> Segments<F> {
    /// Fraction bits within a segment.
    const STEP: u32 = {
        assert!(
            F >= SEGMENT_BITS && F <= 11,
            "6 to 11 fraction bits: a 16-bit distance must span the segments and 25 octaves"
        );
        F - SEGMENT_BITS
    };
    const TABLE: Self = Self {
        starts: &{
            let mut t = [0; SEGMENTS];
            let mut i = 0;
            while i < SEGMENTS {
                t[i] = ((POW2_NEG[i] + 1) << Self::STEP) - 1;
                i += 1;
            }
            t
        },
        falls: &{
            let mut t = [0; SEGMENTS];
            let mut i = 0;
            while i < SEGMENTS {
                t[i] = POW2_NEG[i] - POW2_NEG[i + 1];
                i += 1;
            }
            t
        },
    };

    /// The table for a loop.
    #[inline(always)]
    fn kept() -> Self {
        Self {
            starts: undertone_dsp::keep(Self::TABLE.starts),
            falls: undertone_dsp::keep(Self::TABLE.falls),
        }
    }

    /// 2^-frac(d) with 24 + `STEP` fraction bits; [`Self::STEP`] bits are below a weight's last.
    #[inline(always)]
    const fn mantissa(self, d: u32) -> u32 {
        // The mask proves the index to the compiler: it is not checked.
        let segment = ((d >> Self::STEP) & (SEGMENTS as u32 - 1)) as usize;
        self.starts[segment] - self.falls[segment] * (d & ((1 << Self::STEP) - 1))
    }

    /// 2^-d with 24 fraction bits, rounded half up; `d` below 2^[`OCTAVE_BITS`] octaves.
    #[inline(always)]
    const fn weight(self, d: u32) -> u32 {
        // Half up: thousands of small weights would lose half a unit each to a floor, all in one direction.
        ((((self.mantissa(d) >> Self::STEP) << 1) >> octaves::<F>(d)) + 1) >> 1
    }
}

/// The whole octaves of a distance below 2^[`OCTAVE_BITS`] of them.
#[inline(always)]
const fn octaves<const F: u32>(d: u32) -> u32 {
    // The mask tells the compiler that they can be shifted by.
    (d >> F) & ((1 << OCTAVE_BITS) - 1)
}

/// 2^(-d·2^-F) with 24 fraction bits, rounded half up. From 2^[`OCTAVE_BITS`] octaves on it is nothing.
#[inline]
#[must_use]
pub const fn pow2_neg<const F: u32>(d: u32) -> u32 {
    let most = (1 << (F + OCTAVE_BITS)) - 1;
    Segments::<F>::TABLE.weight(if d > most { most } else { d })
}

/// The state of a row: the maximum in whole octaves and the sum of weights relative to it.
///
/// ```
/// use undertone_core::fixed::shift::RowSum;
/// let mut row = RowSum::<10>::EMPTY;
/// for x in [0, 1024, 2048] {
///     row.push(x); // 2^0, 2^1, 2^2
/// }
/// let normaliser = row.normaliser().unwrap();
/// assert_eq!(normaliser.probability(2048, 16), 37_449); // 4/7 · 65,536
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSum<const F: u32> {
    /// The maximum, rounded up to whole octaves.
    pub max: i32,
    /// Σ 2^(x − max) with 24 fraction bits. 2^39 elements fit.
    pub sum: u64,
}

impl<const F: u32> RowSum<F> {
    /// No element yet.
    pub const EMPTY: Self = Self { max: i32::MIN >> F, sum: 0 };
    /// The greatest logit; greater ones count as this one, so that rounding up cannot overflow.
    const TOP: i32 = i32::MAX - (1 << F);

    /// The maximum after `x`, in whole octaves.
    #[inline]
    #[must_use]
    pub const fn max_with(self, x: i32) -> i32 {
        let x = if x > Self::TOP { Self::TOP } else { x };
        let c = (x + ((1 << F) - 1)) >> F;
        if c > self.max { c } else { self.max }
    }

    /// Moves to a maximum that is not below the present one; returns how far sums must be shifted right (at most 63).
    #[inline]
    pub const fn raise(&mut self, max: i32) -> u32 {
        let by = (max - self.max) as u32;
        let by = if by > 63 { 63 } else { by };
        self.sum >>= by;
        self.max = max;
        by
    }

    /// The weight of a logit relative to the present maximum, with 24 fraction bits: at most 2^24.
    #[inline]
    #[must_use]
    pub fn weight(self, x: i32) -> u32 {
        weight::<F>(Segments::TABLE, self.max << F, if x > Self::TOP { Self::TOP } else { x })
    }

    /// Adds a logit.
    #[inline]
    pub fn push(&mut self, x: i32) {
        let max = self.max_with(x);
        if max > self.max {
            self.raise(max);
        }
        self.sum += u64::from(self.weight(x));
    }

    /// Adds logits: the same as [`RowSum::push`] of each.
    #[inline]
    pub fn extend(&mut self, x: &[i32]) {
        let table = Segments::<F>::kept();
        let mut x = x.iter();
        while !x.as_slice().is_empty() {
            // Below the top nothing moves, and nothing needs the greatest logit's limit.
            let top = self.max << F;
            let mut sum = self.sum;
            let reached = x.by_ref().find(|&&x| {
                if x < top {
                    sum += u64::from(weight(table, top, x));
                }
                x >= top
            });
            self.sum = sum;
            if let Some(&x) = reached {
                self.push(x);
            }
        }
    }

    /// The state of both rows together. Commutative; associative but for the bits that shifts drop (within one unit of
    /// 2^-24 for each merge).
    #[inline]
    #[must_use]
    pub const fn merge(mut self, mut other: Self) -> Self {
        let max = if self.max > other.max { self.max } else { other.max };
        self.raise(max);
        other.raise(max);
        self.sum += other.sum;
        self
    }

    /// What turns logits into probabilities; `None` while the row is empty.
    #[inline]
    #[must_use]
    pub const fn normaliser(self) -> Option<Normaliser<F>> {
        match recip(self.sum) {
            Some(recip) => Some(Normaliser { max: self.max, recip }),
            None => None,
        }
    }
}

/// The weight of a logit below the maximum, which comes as a logit. A logit above it, which never was pushed, counts
/// as the maximum.
#[inline(always)]
fn weight<const F: u32>(table: Segments<F>, top: i32, x: i32) -> u32 {
    table.weight(undertone_dsp::distance::<F, OCTAVE_BITS>(top, x))
}

/// A finished row: its maximum and the reciprocal of its sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normaliser<const F: u32> {
    max: i32,
    recip: Scaled,
}

impl<const F: u32> Normaliser<F> {
    /// The reciprocal of the sum of weights, whose unit is 2^-24.
    #[must_use]
    pub const fn recip(self) -> Scaled {
        self.recip
    }

    /// How far a mantissa of the table times the reciprocal's must move for `frac` ≤ 24 fraction bits: 31 to 100.
    const fn shift(self, frac: u32) -> u32 {
        Segments::<F>::STEP + (-self.recip.exponent) as u32 - frac
    }

    /// The probability of a pushed logit with `frac` ≤ 24 fraction bits, rounded half up once. Exactly 1 is possible.
    #[inline]
    #[must_use]
    pub fn probability(self, x: i32, frac: u32) -> u32 {
        let top = RowSum::<F>::TOP;
        let x = if x > top { top } else { x };
        let d = undertone_dsp::distance::<F, OCTAVE_BITS>(self.max << F, x);
        let wide = u64::from(Segments::<F>::TABLE.mantissa(d)) * u64::from(self.recip.mantissa);
        let shift = self.shift(frac) + octaves::<F>(d);
        if shift < 64 { (((wide >> (shift - 1)) + 1) >> 1) as u32 } else { 0 }
    }

    /// What is to be added to the maximum, as a logit, so that a distance's octaves are how far the upper word of a
    /// product must move, but for the last bit. `None` for rare rows: very long ones, those at the end of the logits'
    /// range, or very fine probabilities.
    fn lift(self, frac: u32) -> Option<i32> {
        let top = self.max << F;
        let octaves = self.shift(frac).checked_sub(33).filter(|&o| o < 1 << OCTAVE_BITS)?;
        if top <= RowSum::<F>::TOP { top.checked_add((octaves << F) as i32) } else { None }
    }
}

/// Softmax of one row of logits in octaves with `F` fraction bits into probabilities with `frac` ≤ 24 fraction bits.
/// Returns how many saturated (only 1.0 in a format that lacks it, such as `u16` with 16 bits).
///
/// # Errors
/// [`KernelError::EmptyRow`] and [`KernelError::Length`].
pub fn softmax<const F: u32, O: Narrow>(
    x: &[i32],
    frac: u32,
    out: &mut [O],
) -> Result<u64, KernelError> {
    check_len("shift::softmax", "out", Some(x.len()), out.len())?;
    if frac > WEIGHT_FRAC {
        return Err(KernelError::Domain {
            kernel: "shift::softmax",
            what: "frac",
            got: frac.into(),
            lo: 0,
            hi: WEIGHT_FRAC.into(),
        });
    }
    let mut row = RowSum::<F>::EMPTY;
    row.extend(x);
    let normaliser =
        row.normaliser().ok_or(KernelError::EmptyRow { kernel: "shift::softmax", row: 0 })?;
    let Some(lifted) = normaliser.lift(frac) else {
        return Ok(rare(normaliser, x, frac, out));
    };
    // The same, for logits that do not need the greatest one's limit, and with one shift of a word.
    let (table, mantissa) = (Segments::<F>::kept(), u64::from(normaliser.recip.mantissa));
    Ok(fill(x, out, |v| {
        let d = undertone_dsp::distance::<F, OCTAVE_BITS>(lifted, v);
        let high = ((u64::from(table.mantissa(d)) * mantissa) >> 32) as u32;
        let twice = high >> octaves::<F>(d);
        (twice >> 1) + (twice & 1)
    }))
}

#[cold]
#[inline(never)]
fn rare<const F: u32, O: Narrow>(by: Normaliser<F>, x: &[i32], frac: u32, out: &mut [O]) -> u64 {
    fill(x, out, |v| by.probability(v, frac))
}

/// Fills a row; returns how many elements saturated.
#[inline(always)]
fn fill<O: Narrow>(x: &[i32], out: &mut [O], probability: impl Fn(i32) -> u32) -> u64 {
    let mut saturated = 0;
    for (o, &v) in out.iter_mut().zip(x) {
        let (p, sat) = O::narrow(probability(v).into());
        *o = p;
        saturated += u64::from(sat);
    }
    saturated
}

#[cfg(test)]
#[path = "shift_tests.rs"]
mod tests;
