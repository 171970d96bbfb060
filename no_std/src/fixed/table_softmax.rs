//! Softmax of 8-bit rows through one table of exponentials: for cores without a wide multiplier or a divider.
//!
//! A row of `i8` logits has at most 256 distances to its maximum, so every exponential is looked up. The table is laid
//! out so that the maximum of a row selects a window of 256 entries in which the logit itself is the index: no
//! subtraction and no bound check are left in the loops. One 32-bit division a row; each probability is one
//! multiply-add and a shift:
//!
//! ```text
//! e_j = round(65535 · 2^-(max − x_j)·u)     r = min(⌊2^32 / Σe⌉, 65408)     p_j = (e_j·r + 2^23) >> 24
//! ```
//!
//! The table keeps 16 more bits of e_j, and they are added up too: otherwise a long tail of small weights would vanish
//! from the sum. Probabilities have the unit 1/256 and come as `i8` with zero point −128,
//! the convention of 8-bit inference libraries. The error is that of rounding, half a unit, plus at most 0.006 of a
//! unit from table, sum and reciprocal; the one probability that would be 256 saturates to 255.

use core::num::NonZeroU32;

use super::{KernelError, check_len, math};
use undertone_dsp::lookup;

/// Entries of the table: 256 distances, and 255 that only complete the windows.
const ENTRIES: usize = 511;
/// Half a weight's unit in the table.
const HALF: u32 = 1 << 15;
/// The longest row: sums stay within 32 bits.
pub const MAX_COLS: usize = 1 << 16;
/// The greatest reciprocal for which `65535·r + 2^23` stays within 32 bits: the sum is then one weight to within half
/// a unit, and its probability saturates.
const MAX_RECIP: u32 = (u32::MAX - (1 << 23)) / 65_535;

/// A table for one scale of the logits.
///
/// ```
/// use undertone_core::fixed::table_softmax::TableSoftmax;
/// // Logits whose unit is 1/16: log2(e)/16 octaves.
/// static SOFTMAX: TableSoftmax = TableSoftmax::new(TableSoftmax::octaves_q24(1, 16));
/// let mut out = [0i8; 3];
/// SOFTMAX.rows(&[0, 16, 32], 3, &mut out)?;
/// assert_eq!(out, [-105, -65, 42]); // 0.0900, 0.2447, 0.6652 in units of 1/256, less 128
/// # Ok::<(), undertone_core::fixed::KernelError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSoftmax {
    /// Entry `255 − d` holds the exponential of distance `d` with 16 bits below a weight's unit, and half a unit more:
    /// the upper half is the weight, rounded. The entries after 255 are never read.
    exponentials: [u32; ENTRIES],
}

impl TableSoftmax {
    /// One unit of natural logits `numerator/denominator` in octaves with 24 fraction bits: times log2(e). Zero for a
    /// zero denominator.
    #[must_use]
    pub const fn octaves_q24(numerator: u32, denominator: u32) -> u32 {
        let wide = (numerator as u128 * math::LOG2_E_Q62 as u128) >> 37;
        match wide.checked_div(denominator as u128) {
            // 25 fraction bits, rounded to 24.
            Some(q) => q.div_ceil(2) as u32,
            None => 0,
        }
    }

    /// The table for logits whose unit is `octaves_q24 · 2^-24` octaves (natural logits times log2(e)).
    #[must_use]
    pub const fn new(octaves_q24: u32) -> Self {
        let mut exponentials = [u32::MAX; ENTRIES];
        let mut distance = 0;
        while distance < 256 {
            let d = distance as u64 * octaves_q24 as u64;
            let (whole, fraction) = (d >> 24, (d & 0xFF_FFFF) << 40);
            // With 16 fraction bits, rounded half up; nothing is left beyond 34 octaves.
            let wide = if whole < 34 {
                let e = math::exp2_neg_q63(fraction) as u128 * 65_535;
                ((e + (1 << (46 + whole))) >> (47 + whole)) as u32
            } else {
                0
            };
            exponentials[255 - distance] = wide + HALF;
            distance += 1;
        }
        Self { exponentials }
    }

    /// Softmax of rows of `cols` logits. Returns how many probabilities saturated: at most one a row, where one logit
    /// holds all but 1/512 of the mass.
    ///
    /// # Errors
    /// [`KernelError::Length`] unless `x` is whole rows and `out` as long; [`KernelError::EmptyRow`] for rows without
    /// columns, [`KernelError::Domain`] for more than [`MAX_COLS`] of them.
    pub fn rows(&self, x: &[i8], cols: usize, out: &mut [i8]) -> Result<u64, KernelError> {
        const NAME: &str = "table_softmax";
        check_len(NAME, "out", Some(x.len()), out.len())?;
        if cols == 0 {
            return Err(KernelError::EmptyRow { kernel: NAME, row: 0 });
        }
        if cols > MAX_COLS {
            return Err(KernelError::Domain {
                kernel: NAME,
                what: "columns",
                got: cols as i64,
                lo: 1,
                hi: MAX_COLS as i64,
            });
        }
        let mut saturated = 0;
        let (mut rest, mut room) = (x, out);
        while !rest.is_empty() {
            // Rows are taken off the front, which needs no division by `cols`.
            let (Some((row, next)), Some((to, after))) =
                (rest.split_at_checked(cols), room.split_at_mut_checked(cols))
            else {
                let whole = x.len() - rest.len();
                return check_len(NAME, "x", Some(whole), x.len()).map(|()| saturated);
            };
            saturated += u64::from(self.row(row, to));
            (rest, room) = (next, after);
        }
        Ok(saturated)
    }

    /// One row, `x` and `out` of one length; whether a probability saturated.
    #[inline]
    fn row(&self, x: &[i8], out: &mut [i8]) -> bool {
        let max = lookup::greatest(x);
        let Some(window) = window(&self.exponentials, (127 - i32::from(max)) as usize) else {
            return false;
        };
        let wide = lookup::total(window, x);
        // Without the halves, but for the one that rounds. At most 2^16 weights of 16 bits.
        let sum = ((wide - (x.len() as u64 * u64::from(HALF)) + u64::from(HALF)) >> 16) as u32;
        // The maximum weighs 65,535; the 1 only tells the compiler that the sum is not zero.
        let sum = NonZeroU32::new(sum).unwrap_or(NonZeroU32::MIN);
        // 2^32/Σ, rounded half up: ⌊(2^32 − 1)/Σ⌋ misses a whole quotient only where Σ divides 2^32.
        let half = sum.get() >> 1;
        let quotient = u32::MAX / sum;
        let remainder = u32::MAX - quotient * sum.get();
        let exact = quotient + u32::from(remainder >= half);
        let recip = exact.min(MAX_RECIP);
        lookup::scale(window, recip, x, out);
        exact > MAX_RECIP
    }
}

/// 256 entries from `start` ≤ 255 on, so that any byte is a valid index. Never `None` for those.
#[inline]
fn window(table: &[u32; ENTRIES], start: usize) -> Option<&[u32; 256]> {
    table.get(start..)?.first_chunk()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;
    use crate::fixed::testing::Gauss;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The worst error in units of 1/256 against the definition, 256 counting as 255.
    fn worst(x: &[i8], cols: usize, unit: f64, softmax: &TableSoftmax) -> f64 {
        let mut out = std::vec![0i8; x.len()];
        let saturated = softmax.rows(x, cols, &mut out).unwrap();
        let mut worst = 0f64;
        let mut expected = 0;
        for (x, out) in x.chunks(cols).zip(out.chunks(cols)) {
            let max = *x.iter().max().unwrap();
            let e: Vec<f64> =
                x.iter().map(|&v| libm::exp((f64::from(v) - f64::from(max)) * unit)).collect();
            let sum: f64 = e.iter().sum();
            expected += u64::from(256.0 / sum >= 255.5);
            for (e, &o) in e.iter().zip(out) {
                let want = (256.0 * e / sum).min(255.0);
                worst = worst.max((want - (f64::from(o) + 128.0)).abs());
            }
        }
        assert!(saturated.abs_diff(expected) <= 1, "{saturated} saturated, {expected} expected");
        worst
    }

    const UNITS: [(u32, u32); 5] = [(1, 16), (1, 4), (1, 64), (1, 1), (37, 1000)];

    #[test]
    fn random_rows_are_within_rounding() {
        let mut g = Gauss::new(5);
        for (a, b) in UNITS {
            let (unit, softmax) =
                (f64::from(a) / f64::from(b), TableSoftmax::new(TableSoftmax::octaves_q24(a, b)));
            for cols in [1, 2, 3, 49, 64, 197, 1024] {
                let x: Vec<i8> = (0..cols * 40).map(|_| (g.bits() >> 24) as i8).collect();
                let w = worst(&x, cols, unit, &softmax);
                assert!(w <= 0.506, "{cols} columns of unit {unit}: {w}");
            }
        }
    }

    #[test]
    fn hostile_rows() {
        for (a, b) in UNITS {
            let (unit, softmax) =
                (f64::from(a) / f64::from(b), TableSoftmax::new(TableSoftmax::octaves_q24(a, b)));
            for n in [1, 2, 64, 255, 256, 257, 65_536] {
                for v in [i8::MIN, 0, i8::MAX] {
                    assert!(worst(&std::vec![v; n], n, unit, &softmax) <= 0.506);
                    let mut spike = std::vec![i8::MIN; n];
                    spike[n / 2] = i8::MAX;
                    assert!(worst(&spike, n, unit, &softmax) <= 0.506);
                    spike.fill(i8::MAX);
                    spike[n / 2] = i8::MIN;
                    assert!(worst(&spike, n, unit, &softmax) <= 0.506);
                }
            }
        }
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let softmax = TableSoftmax::new(TableSoftmax::octaves_q24(1, 16));
        let mut out = [0i8; 6];
        assert!(matches!(softmax.rows(&[0; 6], 0, &mut out), Err(KernelError::EmptyRow { .. })));
        assert!(matches!(softmax.rows(&[0; 6], 3, &mut out[..5]), Err(KernelError::Length { .. })));
        assert!(matches!(
            softmax.rows(&[0; 6], 4, &mut out),
            Err(KernelError::Length { operand: "x", .. })
        ));
        assert!(matches!(
            softmax.rows(&[], MAX_COLS + 1, &mut []),
            Err(KernelError::Domain { .. })
        ));
        assert_eq!(softmax.rows(&[], 4, &mut []), Ok(0));
    }

    proptest! {
        #[test]
        fn order_and_offset_do_not_matter(mut x in proptest::collection::vec(-60i8..60, 1..90), by in -60i8..60) {
            let softmax = TableSoftmax::new(TableSoftmax::octaves_q24(1, 16));
            let n = x.len();
            let (mut a, mut b) = (std::vec![0; n], std::vec![0; n]);
            softmax.rows(&x, n, &mut a).unwrap();
            x.reverse();
            x.iter_mut().for_each(|v| *v += by);
            softmax.rows(&x, n, &mut b).unwrap();
            b.reverse();
            prop_assert_eq!(a, b);
        }
    }
}
