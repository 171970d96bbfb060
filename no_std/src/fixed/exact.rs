//! The order-independent softmax sum: no maximum, no rescaling.
//!
//! Each logit adds 2^x to one 128-bit accumulator, as an integer. Integer addition is associative and commutative, so
//! tiles, threads and a circuit agree bit for bit whatever the order. The price is a declared range: logits in octaves
//! between -[`RANGE`] and [`RANGE`] (27.7 natural units either way); one above is an error, one below adds what is left
//! of it, possibly nothing.

use super::KernelError;
use super::recip::{Scaled, recip};
use super::shift::pow2_neg;

/// Octaves on either side of 0.
pub const RANGE: i32 = 40;

/// Σ 2^x over a row, in units of 2^-([`RANGE`] + 24). 2^22 elements fit.
///
/// ```
/// use undertone_core::fixed::exact::ExactSum;
/// let (mut a, mut b) = (ExactSum::<10>::EMPTY, ExactSum::<10>::EMPTY);
/// a.push(1024)?;
/// b.push(0)?;
/// b.push(2048)?;
/// let row = a.merge(b)?.finish().unwrap();
/// assert_eq!(row.probability(2048, 16), 37_449); // 4/7 · 65,536
/// # Ok::<(), undertone_core::fixed::KernelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExactSum<const F: u32> {
    sum: u128,
}

/// The term of a logit, at most 2^(24 + 2·RANGE).
#[inline]
const fn term<const F: u32>(x: i32) -> u128 {
    // x = up − below/2^F with 0 ≤ below < 2^F.
    let up = (x >> F) + ((x & ((1 << F) - 1)) != 0) as i32;
    let below = ((up as i64) << F) - x as i64;
    let mantissa = pow2_neg::<F>(below as u32) as u128;
    let shift = up + RANGE;
    if shift >= 0 {
        mantissa << shift
    } else if shift > -32 {
        mantissa >> -shift
    } else {
        0
    }
}

impl<const F: u32> ExactSum<F> {
    /// No element yet.
    pub const EMPTY: Self = Self { sum: 0 };

    /// Adds a logit in octaves with `F` fraction bits.
    ///
    /// # Errors
    /// [`KernelError::Domain`] for a logit above [`RANGE`] octaves, [`KernelError::Overflow`] when the sum is full; the
    /// sum is then unchanged.
    #[inline]
    pub const fn push(&mut self, x: i32) -> Result<(), KernelError> {
        if x > RANGE << F {
            return Err(KernelError::Domain {
                kernel: "exact::ExactSum",
                what: "a logit",
                got: x as i64,
                lo: i32::MIN as i64,
                hi: (RANGE as i64) << F,
            });
        }
        match self.sum.checked_add(term::<F>(x)) {
            Some(sum) => {
                self.sum = sum;
                Ok(())
            }
            None => Err(KernelError::Overflow { kernel: "exact::ExactSum", index: 0 }),
        }
    }

    /// The sum of both rows, in whatever order they were made.
    ///
    /// # Errors
    /// [`KernelError::Overflow`] when the sum is full.
    pub const fn merge(self, other: Self) -> Result<Self, KernelError> {
        match self.sum.checked_add(other.sum) {
            Some(sum) => Ok(Self { sum }),
            None => Err(KernelError::Overflow { kernel: "exact::ExactSum", index: 0 }),
        }
    }

    /// The accumulator.
    #[must_use]
    pub const fn raw(self) -> u128 {
        self.sum
    }

    /// What turns logits into probabilities; `None` while nothing has been added.
    #[must_use]
    pub const fn finish(self) -> Option<ExactRow<F>> {
        let cut = 64u32.saturating_sub(self.sum.leading_zeros());
        match recip((self.sum >> cut) as u64) {
            Some(r) => Some(ExactRow {
                recip: Scaled { mantissa: r.mantissa, exponent: r.exponent - cut as i32 },
            }),
            None => None,
        }
    }
}

/// A finished row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExactRow<const F: u32> {
    recip: Scaled,
}

impl<const F: u32> ExactRow<F> {
    /// The probability of a logit that was pushed, with `frac` ≤ 24 fraction bits, rounded half up.
    #[inline]
    #[must_use]
    pub const fn probability(self, x: i32, frac: u32) -> u32 {
        let t = term::<F>(x);
        // To at most 64 bits, then one product of 64 by 32 bits.
        let cut = 64u32.saturating_sub(t.leading_zeros());
        let product = (t >> cut) * self.recip.mantissa as u128;
        let shift = -(self.recip.exponent + cut as i32) - frac as i32;
        if shift <= 0 || shift > 126 {
            return 0;
        }
        (((product >> (shift - 1)) + 1) >> 1) as u32
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;
    use crate::fixed::testing::{Gauss, softmax_octaves, spread};
    use proptest::prelude::*;
    use std::vec::Vec;

    const F: u32 = 10;
    const TOP: i32 = RANGE << F;

    fn fold<'a>(x: impl IntoIterator<Item = &'a i32>) -> ExactSum<F> {
        let mut s = ExactSum::EMPTY;
        x.into_iter().for_each(|&v| s.push(v).unwrap());
        s
    }

    fn error(x: &[i32]) -> f64 {
        let row = fold(x).finish().unwrap();
        x.iter()
            .zip(softmax_octaves(x, F))
            .map(|(&v, w)| (f64::from(row.probability(v, 16)) / 65_536.0 - w).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn close_to_f64() {
        let mut g = Gauss::new(4);
        for (sigma, n) in [(3.0, 197), (1.0, 1024), (1.0, 49), (3.0, 4096)] {
            for _ in 0..100 {
                let x: Vec<i32> = (0..n)
                    .map(|_| spread(g.next() * sigma * core::f64::consts::LOG2_E, F))
                    .collect();
                let e = error(&x);
                assert!(e <= 1.5e-5, "sigma {sigma} n {n}: {e:e}");
            }
        }
        // What the shift form may lose: thousands of elements just under its least weight.
        let mut x = std::vec![-(25 * 1024 + 1); 4096];
        x[17] = 0;
        assert!(error(&x) <= 1.5e-5);
        for v in [TOP, 0, -TOP] {
            for n in [1, 2, 4096] {
                assert!(error(&std::vec![v; n]) <= 1.5e-5, "{v} {n}");
            }
        }
    }

    #[test]
    fn range_is_guarded() {
        let mut s = ExactSum::<F>::EMPTY;
        assert!(matches!(s.push(TOP + 1), Err(KernelError::Domain { .. })));
        s.push(i32::MIN).unwrap();
        assert_eq!((s.raw(), s.finish()), (0, None));
        s.push(TOP).unwrap();
        for _ in 0..23 {
            s = s.merge(s).unwrap();
        }
        assert!(matches!(s.merge(s), Err(KernelError::Overflow { .. })));
        assert!(s.finish().is_some());
    }

    proptest! {
        #[test]
        fn order_and_cuts_do_not_matter(x in proptest::collection::vec(-TOP..=TOP, 1..300), cut in 0usize..300) {
            let (a, b) = x.split_at(cut % x.len());
            let whole = fold(&x);
            prop_assert_eq!(whole, fold(x.iter().rev()));
            prop_assert_eq!(whole, fold(a).merge(fold(b)).unwrap());
            prop_assert_eq!(whole, fold(b).merge(fold(a)).unwrap());
        }
    }
}
