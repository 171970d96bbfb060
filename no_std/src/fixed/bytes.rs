//! Products of 16-bit activations with 8-bit weights that have a scale a row.
//!
//! Weights lie in blocks of four rows and four columns, in the order that `undertone_dsp::mixed`
//! reads: half the flash of 16-bit weights. Sums are exact, so the order changes no result.

use super::linear::{DOT_BLOCK, Dims};
use super::requant::Scaled;
use super::{Block, KernelError, Quad, check_len};
use undertone_dsp::{LANES, ROWS, mixed};

/// Blocks that a matrix of so many rows and columns takes.
#[must_use]
pub const fn blocks(rows: usize, cols: usize) -> usize {
    rows.div_ceil(ROWS) * mixed::words(cols)
}

/// Block number `at` of a row-major matrix of `cols` columns; zeros beyond its rows and columns.
///
/// ```
/// use undertone_core::fixed::bytes;
/// let w = [1i8, 2, 3, 4, 5, 6, 7, 8, 9, 10]; // two rows of five
/// assert_eq!(bytes::blocks(2, 5), 2);
/// assert_eq!(bytes::block(&w, 5, 0).0[1].0, [6, 8, 7, 9]);
/// assert_eq!(bytes::block(&w, 5, 1).0[0].0, [5, 0, 0, 0]);
/// ```
#[must_use]
pub fn block(w: &[i8], cols: usize, at: usize) -> Block {
    let words = mixed::words(cols).max(1);
    let (first_row, first_col) = (at / words * ROWS, at % words * LANES);
    let mut out = Block([Quad([0; LANES]); ROWS]);
    for (r, quad) in out.0.iter_mut().enumerate() {
        let row = w.get((first_row + r) * cols..).unwrap_or_default();
        let row = row.get(..cols).unwrap_or_default();
        for (c, &value) in row.iter().skip(first_col).take(LANES).enumerate() {
            quad.0[mixed::place(c)] = value;
        }
    }
    out
}

/// `out = A·Bᵀ` of an m×k matrix of halfwords and n rows of k bytes in blocks, each column finished
/// by its scale. Returns how many elements saturated.
///
/// # Errors
/// [`KernelError::Length`] names the operand that does not fit `dims`.
pub fn matmul(
    dims: Dims,
    a: &[i16],
    b: &[Block],
    finish: Scaled<'_>,
    out: &mut [i16],
) -> Result<u64, KernelError> {
    const NAME: &str = "bytes::matmul";
    let Dims { m, k, n } = dims;
    check_len(NAME, "a", m.checked_mul(k), a.len())?;
    check_len(NAME, "b", Some(blocks(n, k)), b.len())?;
    check_len(NAME, "out", m.checked_mul(n), out.len())?;
    check_len(NAME, "scale", Some(n), finish.scale.len())?;
    if m == 0 || n == 0 || k == 0 {
        return Ok(0);
    }
    // Products of 22 bits.
    let finish = finish.finish(23 + k.ilog2());
    let words = mixed::words(k);
    let mut saturated = 0;
    for (a, row) in a.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
        for (i, (rows, out)) in b.chunks_exact(words).zip(row.chunks_mut(ROWS)).enumerate() {
            let mut sums = [0i64; ROWS];
            let columns = a.chunks(DOT_BLOCK).zip(rows.chunks(DOT_BLOCK / LANES));
            for (a, rows) in columns {
                let mut part = [0i32; ROWS];
                mixed::products(rows, a, &mut part);
                sums.iter_mut().zip(part).for_each(|(sum, p)| *sum += i64::from(p));
            }
            for (r, (o, sum)) in out.iter_mut().zip(sums).enumerate() {
                saturated += u64::from(finish.one(ROWS * i + r, sum, o));
            }
        }
    }
    Ok(saturated)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;
    use crate::fixed::Bias;
    use crate::fixed::testing::{Gauss, finished};
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        /// Every element is the definition's, exact in i128 and rounded once.
        #[test]
        fn equals_the_definition(m in 1usize..4, k in 1usize..600, n in 1usize..11, seed: u64, extreme: bool, shift in -2i32..24) {
            let mut g = Gauss::new(seed);
            let mut halves = |len: usize| -> Vec<i16> {
                (0..len).map(|_| if extreme { i16::MIN } else { g.bits() as i16 }).collect()
            };
            let a = halves(m * k);
            let w: Vec<i8> = halves(n * k).iter().map(|x| (x >> 8) as i8).collect();
            let (scale, bias) = (halves(n), halves(n));
            let packed: Vec<Block> = (0..blocks(n, k)).map(|at| block(&w, k, at)).collect();
            let finish = Scaled {
                scale: &scale,
                bias: Some((Bias { data: &bias, frac: 3 }, 9)),
                shift,
            };
            let mut out = std::vec![0; m * n];
            let saturated = matmul(Dims { m, k, n }, &a, &packed, finish, &mut out).unwrap();
            let mut clamped = 0;
            for i in 0..m {
                for j in 0..n {
                    let sum: i128 =
                        (0..k).map(|c| i128::from(a[i * k + c]) * i128::from(w[j * k + c])).sum();
                    let wide = sum * i128::from(scale[j]) + (i128::from(bias[j]) << 6);
                    let (want, near) = finished(wide, shift);
                    clamped += u64::from(near != want);
                    prop_assert_eq!(i128::from(out[i * n + j]), near);
                }
            }
            prop_assert_eq!(saturated, clamped);
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let finish = Scaled { scale: &[1; 4], bias: None, shift: 0 };
        let (dims, mut out) = (Dims { m: 1, k: 5, n: 4 }, [0i16; 4]);
        let b = [Block([Quad([0; LANES]); ROWS]); 2];
        assert_eq!(matmul(dims, &[0; 5], &b, finish, &mut out), Ok(0));
        assert!(matmul(dims, &[0; 5], &b[..1], finish, &mut out).is_err());
        assert!(matmul(dims, &[0; 4], &b, finish, &mut out).is_err());
        let short = Scaled { scale: &[1; 3], ..finish };
        assert!(matmul(dims, &[0; 5], &b, short, &mut out).is_err());
    }
}
