//! Edge-MoE's fixed-point softmax and GELU, as published (Sarkar et al., arXiv 2305.18691): Q10.22 words with the
//! defaults of `ap_fixed`, floor on assignment and wrap on overflow.
//!
//! ```text
//! s = 0; b = -512                         for x: d = b − x; e = exp(−|d|)
//! d < 0: s = floor(s·e) + 1; b = x        otherwise: s = s + e
//! p = floor(exp(x − b) · floor(1/s))
//! ```
//!
//! Two points that the publication leaves to its vendor's library are fixed here: exp and the reciprocal are the floor
//! of the true value. And exp is only ever taken of numbers in [-512, 0]: a spread of logits that wraps the argument
//! into the positive range is a [`KernelError::Domain`].
//!
//! The sum of 512 equal logits is 512, which Q10.22 does not hold. [`SinglePass::push`] reports that;
//! [`SinglePass::push_wrapping`] does what the circuit does.

use fixed::FixedI32;
use fixed::types::extra::U22;

use super::requant::round_shift;
use super::{KernelError, check_len, math};

/// The activation format: 10 integer bits with the sign, 22 fraction bits.
pub type Q10p22 = FixedI32<U22>;

const FRAC: u32 = 22;
const ONE: i32 = 1 << FRAC;

/// e^-n for whole n, and e^-(i·2^-b) for the groups of 6, 6, 5 and 5 fraction bits, in Q1.63.
struct ExpTables {
    whole: [u64; 16],
    first: [u64; 64],
    second: [u64; 64],
    third: [u64; 32],
    fourth: [u64; 32],
}

const fn fractions<const N: usize>(bits: u32) -> [u64; N] {
    let mut t = [0; N];
    let mut i = 0;
    while i < N {
        t[i] = math::exp_neg_q63(0, (i as u64) << (64 - bits));
        i += 1;
    }
    t
}

static EXP: ExpTables = ExpTables {
    whole: {
        let mut t = [0; 16];
        let mut n = 0;
        while n < 16 {
            t[n] = math::exp_neg_q63(n as u64, 0);
            n += 1;
        }
        t
    },
    first: fractions(6),
    second: fractions(12),
    third: fractions(17),
    fourth: fractions(22),
};

/// e^(-t·2^-22) in Q1.63, off by at most 16 units; `t` below 2^26.
#[inline]
fn exp_neg_wide(t: u32) -> u64 {
    let mul = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 63) as u64;
    let e = &EXP;
    // The masks prove the indices.
    let coarse = mul(e.whole[(t >> 22 & 15) as usize], e.first[(t >> 16 & 63) as usize]);
    let middle = mul(e.second[(t >> 10 & 63) as usize], e.third[(t >> 5 & 31) as usize]);
    mul(coarse, mul(middle, e.fourth[(t & 31) as usize]))
}

/// floor(e^-t) with 22 fraction bits for t ≥ 0 with 22 fraction bits: exact, as the test over all arguments shows that
/// none comes within the evaluation's error of a whole unit.
#[inline]
#[must_use]
pub fn exp_neg_floor(t: u32) -> u32 {
    if t >= 1 << 26 {
        0 // e^-16 is half a unit
    } else {
        (exp_neg_wide(t) >> 41) as u32
    }
}

/// The running sum and the maximum it refers to ("bias").
///
/// ```
/// use undertone_core::fixed::edge_moe::{Q10p22, SinglePass};
/// let mut row = SinglePass::EMPTY;
/// for (i, x) in [0.0, 1.0, -1.0].into_iter().enumerate() {
///     row.push(i, Q10p22::from_num(x))?;
/// }
/// let p = row.finish()?.probability(Q10p22::from_num(1.0))?;
/// assert!((p.to_num::<f64>() - 0.665_241).abs() < 1e-6);
/// # Ok::<(), undertone_core::fixed::KernelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinglePass {
    /// Σ e^(x − bias).
    pub sum: Q10p22,
    /// The greatest logit so far.
    pub bias: Q10p22,
}

impl SinglePass {
    /// No logit yet.
    pub const EMPTY: Self = Self { sum: Q10p22::ZERO, bias: Q10p22::MIN };

    /// The state after `x`, its sum exact.
    fn next(self, x: Q10p22) -> Result<(i64, Q10p22), KernelError> {
        let (sum, x_raw) = (i64::from(self.sum.to_bits()), x.to_bits());
        let d = i64::from(self.bias.to_bits()) - i64::from(x_raw);
        if d < 0 {
            // Nothing has been summed before the first logit: whatever its argument wraps to multiplies zero.
            let scaled =
                if sum == 0 { 0 } else { (sum * i64::from(exp_neg_floor(distance(d)?))) >> FRAC };
            Ok((scaled + i64::from(ONE), x))
        } else {
            Ok((sum + i64::from(exp_neg_floor(distance(d)?)), self.bias))
        }
    }

    /// Adds the logit number `index` of its row.
    ///
    /// # Errors
    /// [`KernelError::Overflow`] where the sum reaches 512, [`KernelError::Domain`] where logits lie more than 512
    /// apart; the state is then unchanged.
    pub fn push(&mut self, index: usize, x: Q10p22) -> Result<(), KernelError> {
        let (sum, bias) = self.next(x)?;
        let sum = i32::try_from(sum)
            .map_err(|_| KernelError::Overflow { kernel: "edge_moe::SinglePass", index })?;
        *self = Self { sum: Q10p22::from_bits(sum), bias };
        Ok(())
    }

    /// Adds a logit as the circuit does: a sum that reaches 512 wraps to -512.
    ///
    /// # Errors
    /// [`KernelError::Domain`] where logits lie more than 512 apart.
    pub fn push_wrapping(&mut self, x: Q10p22) -> Result<(), KernelError> {
        let (sum, bias) = self.next(x)?;
        // Truncation is the wrap.
        *self = Self { sum: Q10p22::from_bits(sum as i32), bias };
        Ok(())
    }

    /// The reciprocal of the sum, floored and wrapped into its word.
    ///
    /// # Errors
    /// [`KernelError::EmptyRow`] if the sum is zero.
    pub fn finish(self) -> Result<Finished, KernelError> {
        let recip = (1i64 << (2 * FRAC))
            .checked_div_euclid(self.sum.to_bits().into())
            .ok_or(KernelError::EmptyRow { kernel: "edge_moe::SinglePass", row: 0 })?;
        // Euclidean division rounds towards positive for a negative divisor; a floor does not.
        let exact = recip * i64::from(self.sum.to_bits()) == 1i64 << (2 * FRAC);
        let floor = if self.sum < 0 && !exact { recip - 1 } else { recip };
        Ok(Finished { recip: Q10p22::from_bits(floor as i32), bias: self.bias })
    }
}

/// The word that exp is taken of, as a distance; the circuit's would have wrapped beyond 512.
#[inline]
fn distance(d: i64) -> Result<u32, KernelError> {
    let size = d.unsigned_abs();
    if size > 1 << 31 {
        return Err(KernelError::Domain {
            kernel: "edge_moe::SinglePass",
            what: "the distance of two logits",
            got: size as i64,
            lo: 0,
            hi: 1 << 31,
        });
    }
    Ok(size as u32)
}

/// A finished row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// 1/sum.
    pub recip: Q10p22,
    /// The greatest logit.
    pub bias: Q10p22,
}

impl Finished {
    /// The probability of a logit that was pushed.
    ///
    /// # Errors
    /// [`KernelError::Domain`] for a logit above the maximum or more than 512 below it.
    pub fn probability(self, x: Q10p22) -> Result<Q10p22, KernelError> {
        let d = i64::from(self.bias.to_bits()) - i64::from(x.to_bits());
        if d < 0 {
            return Err(KernelError::Domain {
                kernel: "edge_moe::Finished",
                what: "a logit",
                got: x.to_bits().into(),
                lo: i32::MIN.into(),
                hi: self.bias.to_bits().into(),
            });
        }
        let p = i64::from(exp_neg_floor(distance(d)?)) * i64::from(self.recip.to_bits());
        Ok(Q10p22::from_bits((p >> FRAC) as i32))
    }
}

/// Softmax of one row; overflow is an error.
///
/// # Errors
/// [`KernelError::Length`], [`KernelError::EmptyRow`], and those of [`SinglePass::push`]. Nothing is written before
/// the sum is known to be good.
pub fn softmax(x: &[Q10p22], out: &mut [Q10p22]) -> Result<(), KernelError> {
    let mut row = SinglePass::EMPTY;
    for (i, &v) in x.iter().enumerate() {
        row.push(i, v)?;
    }
    emit(row, x, out)
}

/// Softmax of one row as the circuit computes it, wrapped sums and all: from 512 equal logits on its answers are wrong.
///
/// # Errors
/// [`KernelError::Length`], [`KernelError::EmptyRow`] (also where the sum wrapped to zero) and [`KernelError::Domain`].
pub fn softmax_wrapping(x: &[Q10p22], out: &mut [Q10p22]) -> Result<(), KernelError> {
    let mut row = SinglePass::EMPTY;
    for &v in x {
        row.push_wrapping(v)?;
    }
    emit(row, x, out)
}

fn emit(row: SinglePass, x: &[Q10p22], out: &mut [Q10p22]) -> Result<(), KernelError> {
    check_len("edge_moe::softmax", "out", Some(x.len()), out.len())?;
    let row = row.finish()?;
    for (o, &v) in out.iter_mut().zip(x) {
        *o = row.probability(v)?;
    }
    Ok(())
}

/// Entries of the GELU table.
pub const GELU_ENTRIES: usize = 177;

/// δ(x) = x·(1 − Φ(x)) at 0, 1/32, …, 5.5 with 22 fraction bits; the last entry, where δ is taken as zero, is 0.
pub static GELU_GAP: [u32; GELU_ENTRIES] = {
    let mut t = [0; GELU_ENTRIES];
    let mut i = 0;
    while i < GELU_ENTRIES - 1 {
        let gap = math::gelu_gap((i as i64) << (math::FRAC - 5));
        t[i] = round_shift(gap, (math::FRAC - FRAC) as i32) as u32;
        i += 1;
    }
    t
};

/// δ between the entries `index` and `index + 1`, with `bits` fraction bits of position, 22 of value and `round` of
/// 2^-`bits` units added before the floor; 0 from 5.5 on.
#[inline]
fn gap(index: u32, within: u32, bits: u32, round: i64) -> i64 {
    let pair = GELU_GAP.get(index as usize..).and_then(<[u32]>::first_chunk::<2>);
    pair.map_or(0, |&[a, b]| {
        let rise = (i64::from(b) - i64::from(a)) * i64::from(within);
        i64::from(a) + ((rise + round) >> bits)
    })
}

/// GELU as published: relu(x) − δ(|x|) by linear interpolation and a floor, δ = 0 for |x| ≥ 5.5. Off by at most
/// 9.764e-5. (The circuit mistakes -512, whose negation wraps; here it is 0 like its neighbours.)
#[must_use]
pub fn gelu(x: Q10p22) -> Q10p22 {
    gelu_q22(x, 0)
}

/// The same with the interpolated δ rounded half up, not floored: off by at most 9.76e-5.
#[must_use]
pub fn gelu_rounded(x: Q10p22) -> Q10p22 {
    gelu_q22(x, 1 << (FRAC - 6))
}

fn gelu_q22(x: Q10p22, round: i64) -> Q10p22 {
    let raw = x.to_bits();
    let size = raw.unsigned_abs();
    let step = FRAC - 5;
    let delta = gap(size >> step, size & ((1 << step) - 1), step, round);
    Q10p22::from_bits((i64::from(raw.max(0)) - delta) as i32)
}

/// The same GELU on 16-bit words with `frac` ≤ 15 fraction bits in and out, rounded half up: off by at most 9.76e-5
/// and half a unit.
#[inline]
#[must_use]
pub fn gelu16(x: i16, frac: u32) -> i16 {
    let frac = frac.min(15);
    let size = u32::from(x.unsigned_abs());
    let delta = match frac.checked_sub(5) {
        Some(step) => gap(size >> step, size & ((1 << step) - 1), step, (1 << step) >> 1),
        None => gap(size << (5 - frac), 0, 0, 0),
    };
    let wide = (i64::from(x.max(0)) << (FRAC - frac)) - delta;
    round_shift(wide, (FRAC - frac) as i32) as i16
}

#[cfg(test)]
#[path = "edge_moe_tests.rs"]
mod tests;
