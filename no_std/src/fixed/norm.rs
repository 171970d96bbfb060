//! Layer norm with exact mean and variance.
//!
//! Multiplying through by n leaves no division: with S = Σx and V = n·Σx² − S², both exact integers,
//! (x − μ)/√(σ² + ε) = (n·x − S) / √(V + ε·n²). One [`rsqrt`] a row. As V is exact, one pass over the row gives what
//! two passes would.

use super::recip::rsqrt;
use super::requant::{Bias, Narrow, mul_shift, round_shift};
use super::{KernelError, check_len};

/// Fraction bits of a normalised element before the affine part.
pub const UNIT_FRAC: u32 = 20;
/// The longest row: n·x − S stays within 33 bits, a normalised element within 28.
pub const MAX_COLS: usize = 1 << 15;

/// Layer norm's public side.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// ε in units of 2^-48, relative to real values (1e-6 is 281,474,977).
    pub eps_q48: u64,
    /// Fraction bits of the input.
    pub in_frac: u32,
    /// The scale of each column.
    pub gamma: &'a [i16],
    /// Fraction bits of `gamma`.
    pub gamma_frac: u32,
    /// The offset of each column.
    pub beta: Bias<'a>,
    /// Fraction bits of the output.
    pub out_frac: u32,
}

impl LayerNorm<'_> {
    /// Normalises rows of `gamma.len()` elements; returns how many outputs saturated.
    ///
    /// ```
    /// use undertone_core::fixed::{Bias, norm::LayerNorm};
    /// let beta = Bias { data: &[0, 0], frac: 8 };
    /// let norm = LayerNorm {
    ///     eps_q48: 0, in_frac: 8, gamma: &[256, 256], gamma_frac: 8, beta, out_frac: 8,
    /// };
    /// let mut out = [0i16; 4];
    /// norm.apply(&[100, 300, -7, -9], &mut out)?;
    /// assert_eq!(out, [-256, 256, 256, -256]); // two elements are always one deviation from their mean
    /// # Ok::<(), undertone_core::fixed::KernelError>(())
    /// ```
    ///
    /// # Errors
    /// [`KernelError::Length`] where a slice does not fit; [`KernelError::Domain`] for more than [`MAX_COLS`] columns
    /// an `in_frac` above 24, another fraction above 40 or an ε above 1.
    pub fn apply<O: Narrow>(&self, x: &[i16], out: &mut [O]) -> Result<u64, KernelError> {
        const NAME: &str = "norm::LayerNorm";
        let cols = self.gamma.len();
        check_len(NAME, "beta", Some(cols), self.beta.data.len())?;
        check_len(NAME, "out", Some(x.len()), out.len())?;
        if cols == 0 || cols > MAX_COLS {
            return Err(KernelError::Domain {
                kernel: NAME,
                what: "columns",
                got: cols as i64,
                lo: 1,
                hi: MAX_COLS as i64,
            });
        }
        for (what, got, hi) in [
            ("in_frac", u64::from(self.in_frac), 24),
            ("gamma_frac", u64::from(self.gamma_frac), 40),
            ("out_frac", u64::from(self.out_frac), 40),
            ("eps_q48", self.eps_q48, 1 << 48),
        ] {
            if got > hi {
                return Err(KernelError::Domain {
                    kernel: NAME,
                    what,
                    got: i64::try_from(got).unwrap_or(i64::MAX),
                    lo: 0,
                    hi: hi as i64,
                });
            }
        }
        check_len(NAME, "x", Some(x.len() / cols * cols), x.len())?;
        let n = cols as i64;
        // With 48 fraction bits, as V below: at most 2^(48 + 30 + 48).
        let eps = (u128::from(self.eps_q48) * (n * n) as u128) << (2 * self.in_frac);
        let shift = (self.gamma_frac + UNIT_FRAC) as i32 - self.out_frac as i32;
        let wide_frac = (self.gamma_frac + UNIT_FRAC) as i32;
        let mut saturated = 0;
        for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
            let (mut sum, mut squares) = (0i64, 0i64);
            for &v in x {
                sum += i64::from(v);
                squares += i64::from(i32::from(v) * i32::from(v));
            }
            // n·Σx² ≤ 2^60 and S² is no greater, by Cauchy–Schwarz.
            let spread = (((n * squares - sum * sum) as u128) << 48) + eps;
            // Down to 64 bits by an even shift, which the root halves.
            let cut = (64u32.saturating_sub(spread.leading_zeros()) + 1) & !1;
            // A constant row with ε = 0 has no scale; its deviations are all zero, so any scale serves.
            let scale = rsqrt(((spread >> cut) as u64).max(1));
            let frac = UNIT_FRAC as i32 + 24 - (cut / 2) as i32;
            let narrow = scale.and_then(|s| s.narrow(frac));
            // n·(x − mean) is at most n·2^16: 32 bits up to 2^15 columns.
            let (n, sum) = (n as i32, sum as i32);
            for (column, ((&v, o), &gamma)) in x.iter().zip(out).zip(self.gamma).enumerate() {
                let deviation = i32::from(v) * n - sum;
                let unit = match (narrow, scale) {
                    // 28 bits, as a deviation is at most √n standard deviations.
                    (Some(narrow), _) => narrow.apply(deviation),
                    (None, Some(scale)) => scale.apply(deviation.into(), frac) as i32,
                    (None, None) => 0,
                };
                let beta = self.beta.at(column, wide_frac);
                // 44 bits and an offset of at most 56.
                let wide = (i64::from(unit) * i64::from(gamma)).saturating_add(beta);
                let (value, sat) = O::narrow(round_shift(wide, shift));
                *o = value;
                saturated += u64::from(sat);
            }
        }
        Ok(saturated)
    }
}

/// An affine norm (batch norm folded): `x·gamma + beta` by column, from `from` fraction bits (those of `x` and `gamma`
/// together) to `to`. Returns how many outputs saturated.
///
/// # Errors
/// [`KernelError::Length`] where a slice does not fit.
pub fn affine<O: Narrow>(
    x: &[i16],
    gamma: &[i16],
    beta: Bias<'_>,
    from: i32,
    to: i32,
    out: &mut [O],
) -> Result<u64, KernelError> {
    const NAME: &str = "norm::affine";
    let cols = gamma.len();
    check_len(NAME, "beta", Some(cols), beta.data.len())?;
    check_len(NAME, "out", Some(x.len()), out.len())?;
    check_len(NAME, "x", (x.len().checked_div(cols)).map(|r| r * cols), x.len())?;
    let shift = from - to;
    let mut saturated = 0;
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
        for (column, ((&v, o), &g)) in x.iter().zip(out).zip(gamma).enumerate() {
            let wide = i64::from(i32::from(v) * i32::from(g)) + beta.at(column, from);
            let (value, sat) = O::narrow(mul_shift(wide, 1, shift));
            *o = value;
            saturated += u64::from(sat);
        }
    }
    Ok(saturated)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;
    use crate::fixed::testing::Gauss;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn reference(x: &[i16], norm: &LayerNorm<'_>) -> Vec<f64> {
        let f = |v: f64, bits: u32| v * libm::exp2(-f64::from(bits));
        let x: Vec<f64> = x.iter().map(|&v| f(v.into(), norm.in_frac)).collect();
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let var =
            x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n + f(norm.eps_q48 as f64, 48);
        let scale = if var == 0.0 { 0.0 } else { 1.0 / libm::sqrt(var) };
        x.iter()
            .zip(norm.gamma.iter().zip(norm.beta.data))
            .map(|(v, (&g, &b))| {
                (v - mean) * scale * f(g.into(), norm.gamma_frac)
                    + f(b.into(), norm.beta.frac as u32)
            })
            .collect()
    }

    fn worst(x: &[i16], norm: &LayerNorm<'_>) -> f64 {
        let mut out = std::vec![0i32; x.len()];
        assert_eq!(norm.apply(x, &mut out), Ok(0));
        let unit = libm::exp2(f64::from(norm.out_frac));
        x.chunks(norm.gamma.len())
            .flat_map(|r| reference(r, norm))
            .zip(&out)
            .map(|(w, &o)| (w * unit - f64::from(o)).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn within_six_tenths_of_a_unit() {
        let mut g = Gauss::new(3);
        for (n, sigma, in_frac, out_frac) in
            [(64, 1.0, 10, 12), (192, 30.0, 8, 11), (384, 0.01, 12, 12), (768, 2.0, 9, 12)]
        {
            let gamma: Vec<i16> = g.i16s(n, 1.0, 12);
            let beta: Vec<i16> = g.i16s(n, 0.5, 14);
            let norm = LayerNorm {
                eps_q48: 281_474_977,
                in_frac,
                gamma: &gamma,
                gamma_frac: 12,
                beta: Bias { data: &beta, frac: 14 },
                out_frac,
            };
            let x = g.i16s(n * 50, sigma, in_frac);
            let w = worst(&x, &norm);
            std::println!("n={n}: {w:.3} of an output unit");
            assert!(w <= 0.6, "n={n}: {w}");
        }
    }

    #[test]
    fn hostile_rows() {
        let gamma = [1 << 12; 4];
        let mut norm = LayerNorm {
            eps_q48: 0,
            in_frac: 10,
            gamma: &gamma,
            gamma_frac: 12,
            beta: Bias { data: &[0; 4], frac: 12 },
            out_frac: 12,
        };
        for eps in [0, 281, 281_474_977] {
            norm.eps_q48 = eps;
            for v in [i16::MIN, -1, 0, 1, i16::MAX] {
                assert!(worst(&[v; 4], &norm) <= 0.6);
            }
            assert!(worst(&[i16::MIN, i16::MIN, i16::MAX, i16::MAX], &norm) <= 0.6);
            assert!(worst(&[5, 5, 5, 6], &norm) <= 0.6);
        }
        let one = LayerNorm { gamma: &gamma[..1], beta: Bias { data: &[0], frac: 12 }, ..norm };
        assert!(worst(&[77, -5, 0], &one) <= 0.6);
        let mut out = [0i16; 4];
        assert!(matches!(
            norm.apply(&[1, 2, 3], &mut out[..3]),
            Err(KernelError::Length { operand: "x", .. })
        ));
        let empty = Bias { data: &[], frac: 0 };
        let none = LayerNorm { gamma: &[], beta: empty, ..norm };
        assert!(matches!(none.apply(&[], &mut out[..0]), Err(KernelError::Domain { .. })));
        assert!(affine(&[1i16, 2], &[], empty, 8, 8, &mut out[..2]).is_err());
    }

    proptest! {
        #[test]
        fn shift_of_the_row_cancels(x in proptest::collection::vec(-1000i16..1000, 8), by in -30_000i16..30_000) {
            let gamma = [1i16 << 12; 8];
            let norm =
                LayerNorm { eps_q48: 281_474_977, in_frac: 10, gamma: &gamma, gamma_frac: 12, beta: Bias { data: &[0; 8], frac: 0 }, out_frac: 12 };
            let moved: Vec<i16> = x.iter().map(|v| v + by).collect();
            let (mut a, mut b) = ([0i16; 8], [0i16; 8]);
            norm.apply(&x, &mut a).unwrap();
            norm.apply(&moved, &mut b).unwrap();
            prop_assert_eq!(a, b);
        }

        #[test]
        fn affine_is_the_rounded_line(x: [i16; 3], g: [i16; 3], b: [i16; 3]) {
            let mut out = [0i64; 3];
            affine(&x, &g, Bias { data: &b, frac: 6 }, 20, 12, &mut out).unwrap();
            for i in 0..3 {
                let exact = i64::from(x[i]) * i64::from(g[i]) + (i64::from(b[i]) << 14);
                prop_assert_eq!(out[i], (exact + 128).div_euclid(256));
            }
        }
    }
}
