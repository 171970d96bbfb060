//! Matrix products of small integers with exact accumulation.
//!
//! Sums are exact for every input: products of two `i16` are taken in `i32` and added in two halves, low 16 bits and
//! the rest, so a block of 32,768 of them cannot overflow a 32-bit lane; blocks are added in `i64`. Compilers turn
//! this into 16-bit vector multiplications. Order therefore never matters, and tiles agree bit for bit.

use super::requant::{Bias, Narrow, Requant};
use super::{KernelError, check_len};

/// Which operands are transposed in a product of an m×k and a k×n matrix, all stored row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A is m×k, B is k×n.
    NN,
    /// A is m×k, B is stored n×k: rows against rows, as in QKᵀ or a weight stored [out, in].
    NT,
    /// A is stored k×m, B is k×n.
    TN,
}

/// The dimensions of a product: m×k times k×n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Rows of the result.
    pub m: usize,
    /// The summed dimension.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
}

/// An element of the right operand: `i16`, or `i8` for weights.
pub trait Operand: Copy + sealed::Sealed {
    /// Whether several rows together are cheaper than each by itself.
    const BLOCKS: bool = false;

    /// Its value.
    fn widen(self) -> i16;

    /// Σ aᵢ·bᵢ over at most [`DOT_BLOCK`] elements.
    fn dot_block(a: &[i16], b: &[Self]) -> i64;

    /// One vector against rows that are `stride` apart; see [`dots`].
    #[inline]
    fn dots(a: &[i16], b: &[Self], stride: usize, sums: &mut [i64]) {
        for (r, sum) in sums.iter_mut().enumerate() {
            let start = r.saturating_mul(stride);
            *sum = dot(a, b.get(start..start.saturating_add(a.len())).unwrap_or_default());
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for i8 {}
    impl Sealed for i16 {}
}

impl Operand for i8 {
    #[inline]
    fn widen(self) -> i16 {
        self.into()
    }

    #[inline]
    fn dot_block(a: &[i16], b: &[Self]) -> i64 {
        let mut sum = 0i32;
        for (&x, &y) in a.iter().zip(b) {
            sum = sum.wrapping_add(i32::from(x) * i32::from(y));
        }
        sum.into()
    }
}

impl Operand for i16 {
    const BLOCKS: bool = undertone_dsp::SMALL;

    #[inline]
    fn widen(self) -> i16 {
        self
    }

    #[inline]
    fn dots(a: &[i16], b: &[Self], stride: usize, sums: &mut [i64]) {
        if undertone_dsp::SMALL && a.len() <= BLOCK {
            return undertone_dsp::dots16(a, b, stride, sums);
        }
        for (r, sum) in sums.iter_mut().enumerate() {
            let start = r.saturating_mul(stride);
            *sum = dot(a, b.get(start..start.saturating_add(a.len())).unwrap_or_default());
        }
    }

    #[inline]
    fn dot_block(a: &[i16], b: &[Self]) -> i64 {
        if undertone_dsp::SMALL {
            return undertone_dsp::dot16(a, b);
        }
        // Halves of 8 bits are what vector units of a host multiply.
        let (mut high, mut low) = (0i32, 0i32);
        for (&x, &y) in a.iter().zip(b) {
            high = high.wrapping_add(i32::from(x) * i32::from(y >> 8));
            low = low.wrapping_add(i32::from(x) * i32::from(y & 0xFF));
        }
        (i64::from(high) << 8) + i64::from(low)
    }
}

/// Products of an `i16` and a byte that a 32-bit lane holds without overflow: each is below 2^23.
pub const DOT_BLOCK: usize = 1 << 8;
/// Products that a pair of 32-bit lanes holds without overflow: their low halves are below 2^16.
const BLOCK: usize = 1 << 15;
/// Columns that are accumulated together.
const TILE: usize = 16;

/// Σ aᵢ·bᵢ, exact. The shorter slice decides the length.
#[inline]
#[must_use]
pub fn dot<B: Operand>(a: &[i16], b: &[B]) -> i64 {
    if a.len() <= DOT_BLOCK {
        return B::dot_block(a, b);
    }
    let mut total = 0i64;
    for (a, b) in a.chunks(DOT_BLOCK).zip(b.chunks(DOT_BLOCK)) {
        total += B::dot_block(a, b);
    }
    total
}

/// The products of one vector with rows that are `stride` apart, one for each of `sums`: what [`dot`] gives for each.
#[inline]
pub fn dots<B: Operand>(a: &[i16], b: &[B], stride: usize, sums: &mut [i64]) {
    B::dots(a, b, stride, sums);
}

/// Rows of B that a row of A meets at once.
const ROWS: usize = 8;

/// `out = requant(A·B + bias)`. Returns how many elements saturated.
///
/// `bias` has n entries and comes with the accumulator's fraction bits (the sum of both operands'); `requant` has one
/// entry for all columns or one for each, as per-channel weights want.
///
/// ```
/// use undertone_core::fixed::{Requant, linear::{Dims, Form, matmul}};
/// let (a, b) = ([1i16, 2, 3, 4], [5i16, 6, 7, 8]);
/// let mut out = [0i16; 4];
/// let dims = Dims { m: 2, k: 2, n: 2 };
/// matmul(Form::NT, dims, &a, &b, None, &[Requant::fractions(0, 0)], &mut out)?;
/// assert_eq!(out, [17, 23, 39, 53]);
/// # Ok::<(), undertone_core::fixed::KernelError>(())
/// ```
///
/// # Errors
/// [`KernelError::Length`] names the operand that does not fit `dims`.
pub fn matmul<B: Operand, O: Narrow>(
    form: Form,
    dims: Dims,
    a: &[i16],
    b: &[B],
    bias: Option<(Bias<'_>, i32)>,
    requant: &[Requant],
    out: &mut [O],
) -> Result<u64, KernelError> {
    const NAME: &str = "linear::matmul";
    let Dims { m, k, n } = dims;
    check_len(NAME, "a", m.checked_mul(k), a.len())?;
    check_len(NAME, "b", k.checked_mul(n), b.len())?;
    check_len(NAME, "out", m.checked_mul(n), out.len())?;
    check_len(NAME, "bias", Some(n), bias.map_or(n, |(b, _)| b.data.len()))?;
    if requant.len() != 1 {
        check_len(NAME, "requant", Some(n), requant.len())?;
    }
    if m == 0 || n == 0 {
        return Ok(0);
    }
    let finish = Finish { bias, requant };
    let mut saturated = 0;
    match form {
        Form::NT => {
            for (i, row) in out.chunks_exact_mut(n).enumerate() {
                let a = a.get(i * k..(i + 1) * k).unwrap_or_default();
                if !B::BLOCKS {
                    let mut rest = b;
                    for (j, o) in row.iter_mut().enumerate() {
                        let (b, next) = rest.split_at_checked(k).unwrap_or_default();
                        rest = next;
                        saturated += finish.one(j, dot(a, b), o);
                    }
                    continue;
                }
                for (block, row) in row.chunks_mut(ROWS).enumerate() {
                    let first = block * ROWS;
                    let mut sums = [0; ROWS];
                    let sums = sums.get_mut(..row.len()).unwrap_or_default();
                    dots(a, b.get(first * k..).unwrap_or_default(), k, sums);
                    for (c, (o, &sum)) in row.iter_mut().zip(sums.iter()).enumerate() {
                        saturated += finish.one(first + c, sum, o);
                    }
                }
            }
        }
        Form::NN | Form::TN => {
            let (row_step, k_step) = if form == Form::NN { (k, 1) } else { (1, m) };
            // Tile by tile: one strip of B serves all rows of A in turn.
            for first in (0..n).step_by(TILE) {
                let b = b.get(first..).unwrap_or_default();
                for (i, row) in out.chunks_exact_mut(n).enumerate() {
                    let a = a.get(i * row_step..).unwrap_or_default();
                    let sums = tile(a.iter().step_by(k_step).take(k), b, n);
                    let row = row.get_mut(first..).unwrap_or_default();
                    for (c, (o, sum)) in row.iter_mut().zip(sums).enumerate() {
                        saturated += finish.one(first + c, sum, o);
                    }
                }
            }
        }
    }
    Ok(saturated)
}

/// What follows an accumulator.
struct Finish<'a> {
    bias: Option<(Bias<'a>, i32)>,
    requant: &'a [Requant],
}

impl Finish<'_> {
    #[inline(always)]
    fn one<O: Narrow>(&self, column: usize, sum: i64, out: &mut O) -> u64 {
        let bias = self.bias.map_or(0, |(b, frac)| b.at(column, frac));
        let requant = self.requant.get(column).or(self.requant.first());
        let wide = sum.saturating_add(bias);
        let (value, saturated) = O::narrow(requant.map_or(wide, |r| r.apply(wide)));
        *out = value;
        saturated.into()
    }
}

/// One row of A against [`TILE`] columns of B, whose rows are `stride` apart. Where fewer columns are left, the sums
/// beyond them hold whatever follows in memory: the caller drops them.
#[inline]
fn tile<'a, B: Operand>(a: impl Iterator<Item = &'a i16>, b: &[B], stride: usize) -> [i64; TILE] {
    let mut total = [0i64; TILE];
    let (mut low, mut high) = ([0i32; TILE], [0i32; TILE]);
    let mut room = BLOCK;
    for (&x, b) in a.zip(b.chunks(stride)) {
        if let Some(b) = b.first_chunk::<TILE>() {
            for c in 0..TILE {
                let p = i32::from(x) * i32::from(b[c].widen());
                low[c] = low[c].wrapping_add(p & 0xFFFF);
                high[c] = high[c].wrapping_add(p >> 16);
            }
        } else {
            for ((low, high), b) in low.iter_mut().zip(&mut high).zip(b) {
                let p = i32::from(x) * i32::from(b.widen());
                *low = low.wrapping_add(p & 0xFFFF);
                *high = high.wrapping_add(p >> 16);
            }
        }
        room -= 1;
        if room == 0 {
            flush(&mut total, &mut low, &mut high);
            room = BLOCK;
        }
    }
    flush(&mut total, &mut low, &mut high);
    total
}

#[inline]
fn flush(total: &mut [i64; TILE], low: &mut [i32; TILE], high: &mut [i32; TILE]) {
    for c in 0..TILE {
        total[c] += (i64::from(high[c]) << 16) + i64::from(low[c] as u32);
        (low[c], high[c]) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;
    use crate::fixed::testing::Gauss;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The definition, element by element, in i128.
    fn reference(form: Form, d: Dims, a: &[i16], b: &[i16]) -> Vec<i64> {
        let mut out = Vec::new();
        for i in 0..d.m {
            for j in 0..d.n {
                let sum: i128 = (0..d.k)
                    .map(|p| {
                        let x = if form == Form::TN { a[p * d.m + i] } else { a[i * d.k + p] };
                        let y = if form == Form::NT { b[j * d.k + p] } else { b[p * d.n + j] };
                        i128::from(x) * i128::from(y)
                    })
                    .sum();
                out.push(sum as i64);
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_form_is_exact(m in 0usize..6, k in 0usize..70, n in 0usize..40, seed: u64, extreme: bool) {
            let mut g = Gauss::new(seed);
            let mut draw = |len: usize| -> Vec<i16> {
                (0..len).map(|_| {
                    let r = g.bits();
                    if extreme { if r & 1 == 0 { i16::MIN } else { i16::MAX } } else { r as i16 }
                }).collect()
            };
            let d = Dims { m, k, n };
            let (a, b) = (draw(m * k), draw(k * n));
            let bias: Vec<i16> = (0..n as i16).map(|j| j * 100 - 7).collect();
            let b8: Vec<i8> = b.iter().map(|&x| (x >> 8) as i8).collect();
            let b8w: Vec<i16> = b8.iter().map(|&x| x.into()).collect();
            for form in [Form::NN, Form::NT, Form::TN] {
                let mut out = std::vec![0i64; m * n];
                let offsets = Some((Bias { data: &bias, frac: 3 }, 5));
                matmul(form, d, &a, &b, offsets, &[Requant::fractions(0, 0)], &mut out).unwrap();
                let want: Vec<i64> = reference(form, d, &a, &b).iter().enumerate()
                    .map(|(i, x)| x + (i64::from(bias[i % n]) << 2)).collect();
                prop_assert_eq!(&out, &want);
                matmul(form, d, &a, &b8, None, &[Requant::fractions(0, 0)], &mut out).unwrap();
                prop_assert_eq!(&out, &reference(form, d, &a, &b8w));
            }
        }
    }

    #[test]
    fn long_and_extreme_rows_do_not_overflow() {
        for n in [BLOCK - 1, BLOCK, 2 * BLOCK + 3] {
            for (x, y) in
                [(i16::MIN, i16::MIN), (i16::MIN, i16::MAX), (-1, 1), (i16::MAX, i16::MAX)]
            {
                let (a, b) = (std::vec![x; n], std::vec![y; n]);
                let want = n as i64 * i64::from(x) * i64::from(y);
                assert_eq!(dot(&a, &b), want);
                let mut out = [0i64];
                let d = Dims { m: 1, k: n, n: 1 };
                matmul(Form::NN, d, &a, &b, None, &[Requant::fractions(0, 0)], &mut out).unwrap();
                assert_eq!(out, [want]);
            }
        }
    }

    #[test]
    fn saturation_is_counted_and_lengths_are_checked() {
        let d = Dims { m: 1, k: 2, n: 2 };
        let mut out = [0i16; 2];
        let r = [Requant::fractions(8, 0), Requant::fractions(0, 8)];
        let a = [300i16, 300];
        assert_eq!(matmul(Form::NN, d, &a, &[1i8, 1, 1, 1], None, &r, &mut out), Ok(1));
        assert_eq!(out, [2, i16::MAX]); // 600/256 = 2.34; 600·256 saturates
        let short = matmul(Form::NN, d, &a, &[1i8; 3], None, &r, &mut out);
        assert_eq!(
            short,
            Err(KernelError::Length {
                kernel: "linear::matmul",
                operand: "b",
                expected: 4,
                got: 3
            })
        );
        let huge = Dims { m: usize::MAX, k: 2, n: 2 };
        assert!(matmul(Form::NN, huge, &a, &[1i8; 4], None, &r, &mut out).is_err());
    }
}
