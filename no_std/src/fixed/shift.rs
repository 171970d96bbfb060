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

/// 2^(-d·2^-F) with 24 fraction bits, rounded half up; `d` is at most 65,535.
#[inline]
#[must_use]
pub const fn pow2_neg<const F: u32>(d: u32) -> u32 {
    const {
        assert!(
            F >= SEGMENT_BITS && F <= 11,
            "6 to 11 fraction bits: a 16-bit distance must span the segments and 25 octaves"
        );
    }
    let step = F - SEGMENT_BITS;
    // The mask proves the index to the compiler: no bound check is left.
    let segment = ((d >> step) & (SEGMENTS as u32 - 1)) as usize;
    let (a, b) = (POW2_NEG[segment], POW2_NEG[segment + 1]);
    let within = d & ((1 << step) - 1);
    let octaves = d >> F;
    if octaves > WEIGHT_FRAC + 1 {
        0
    } else {
        // Half up: thousands of small weights would lose half a unit each to a floor, all in one direction.
        ((((a - (((a - b) * within) >> step)) << 1) >> octaves) + 1) >> 1
    }
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
    pub const fn weight(self, x: i32) -> u32 {
        weight::<F>(self.max, x)
    }

    /// Adds a logit.
    #[inline]
    pub const fn push(&mut self, x: i32) {
        let max = self.max_with(x);
        if max > self.max {
            self.raise(max);
        }
        self.sum += self.weight(x) as u64;
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

#[inline]
const fn weight<const F: u32>(max: i32, x: i32) -> u32 {
    let x = if x > RowSum::<F>::TOP { RowSum::<F>::TOP } else { x };
    let d = (max << F).saturating_sub(x);
    // A negative distance would be a logit that never was pushed: it counts as the maximum.
    let d = if d < 0 { 0 } else { d };
    pow2_neg::<F>(if d > 0xFFFF { 0xFFFF } else { d as u32 })
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

    /// The probability of a pushed logit with `frac` ≤ 24 fraction bits, rounded half up. Exactly 1 is possible.
    #[inline]
    #[must_use]
    pub const fn probability(self, x: i32, frac: u32) -> u32 {
        let e = weight::<F>(self.max, x) as u64;
        // 25 bits times 32; the sum has at least 23 bits, so the shift lies between 31 and 95.
        let shift = (-self.recip.exponent) as u32 - frac;
        let wide = e * self.recip.mantissa as u64;
        if shift >= 33 && shift < 65 {
            // The upper word decides.
            let twice = (wide >> 32) as u32 >> (shift - 33);
            (twice >> 1) + (twice & 1)
        } else if shift < 64 {
            ((wide + (1 << (shift - 1))) >> shift) as u32
        } else {
            0
        }
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
    for &v in x {
        row.push(v);
    }
    let normaliser =
        row.normaliser().ok_or(KernelError::EmptyRow { kernel: "shift::softmax", row: 0 })?;
    let mut saturated = 0;
    for (o, &v) in out.iter_mut().zip(x) {
        let (p, sat) = O::narrow(normaliser.probability(v, frac).into());
        *o = p;
        saturated += u64::from(sat);
    }
    Ok(saturated)
}

#[cfg(test)]
#[path = "shift_tests.rs"]
mod tests;
