//! Row operations: norms, and attention weights with their denominators.

use super::map::whole_rows;
use super::vector::{Kernel, dispatch, exp_one, map_sum, max, sum};
use super::{KernelError, length};
use undertone_core::attention::{Kind, Variant};

/// Layer norm of each row of `x` into `out`: (x − mean)/√(variance + eps)·weight + bias.
///
/// # Errors
/// [`KernelError::Length`] unless `x` and `out` are the same whole rows of `weight.len()`.
pub fn layer_norm_rows(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    struct LayerNorm<'a> {
        x: &'a [f32],
        weight: &'a [f32],
        bias: &'a [f32],
        eps: f32,
        out: &'a mut [f32],
    }
    impl Kernel for LayerNorm<'_> {
        type Output = ();
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            let width = self.weight.len();
            let n = width as f32;
            for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
                let mean = sum(x, |x| x) / n;
                let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
                let scale = 1.0 / (variance + self.eps).sqrt();
                let learned = self.weight.iter().zip(self.bias);
                for ((out, x), (w, b)) in out.iter_mut().zip(x).zip(learned) {
                    *out = (x - mean) * scale * w + b;
                }
            }
        }
    }
    check_norm("layer_norm_rows", x, weight, bias, out)?;
    dispatch(LayerNorm { x, weight, bias, eps, out });
    Ok(())
}

/// x·weight + bias of each row of `x` into `out`.
///
/// # Errors
/// As [`layer_norm_rows`].
pub fn affine_rows(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
) -> Result<(), KernelError> {
    struct Affine<'a>(&'a [f32], &'a [f32], &'a [f32], &'a mut [f32]);
    impl Kernel for Affine<'_> {
        type Output = ();
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            let width = self.1.len();
            for (x, out) in self.0.chunks_exact(width).zip(self.3.chunks_exact_mut(width)) {
                for ((out, x), (w, b)) in out.iter_mut().zip(x).zip(self.1.iter().zip(self.2)) {
                    *out = x * w + b;
                }
            }
        }
    }
    check_norm("affine_rows", x, weight, bias, out)?;
    dispatch(Affine(x, weight, bias, out));
    Ok(())
}

/// Rows of scores to rows of attention weights, in place, and 1/denominator of each row into
/// `inverse`: the division is left for after the product with V.
///
/// Of each `stride` values the first `n` are scores and the rest is set to 0, so a stride that
/// is a multiple of 16 lets whole vectors run over it. `mask` has an entry a key; masked keys
/// get weight 0 and do not count in N.
///
/// # Errors
/// [`KernelError::Length`] unless the rows are whole, `1 <= n <= stride`, `inverse` has an
/// entry a row and `mask` one a key.
pub fn weigh_rows(
    kind: Kind,
    x: &mut [f32],
    n: usize,
    stride: usize,
    mask: Option<&[bool]>,
    inverse: &mut [f32],
) -> Result<(), KernelError> {
    check_rows("weigh_rows", x, n, stride)?;
    length("weigh_rows", "inverse", inverse.len(), x.len() / stride)?;
    let mask = mask.filter(|mask| mask.iter().any(|kept| !kept));
    if let Some(mask) = mask {
        length("weigh_rows", "mask", mask.len(), n)?;
    }
    dispatch(Weigh { kind, x, n, stride, mask, inverse });
    Ok(())
}

struct Weigh<'a> {
    kind: Kind,
    x: &'a mut [f32],
    n: usize,
    stride: usize,
    mask: Option<&'a [bool]>,
    inverse: &'a mut [f32],
}

impl Weigh<'_> {
    /// Applies `prepare` (row → shift) and `weight` (score, shift → weight) to each row and
    /// stores 1/`denominator(Σw)`.
    #[inline(always)]
    fn each(
        self,
        shift: impl Fn(&[f32]) -> f32,
        weight: impl Fn(f32, f32) -> f32,
        denominator: impl Fn(f32) -> f32,
    ) {
        for (row, inverse) in self.x.chunks_exact_mut(self.stride).zip(self.inverse) {
            // −∞ has weight 0 for softmax; the other kinds are cleared after the map.
            row[self.n..].fill(f32::NEG_INFINITY);
            if let Some(mask) = self.mask {
                for (x, _) in row.iter_mut().zip(mask).filter(|(_, kept)| !**kept) {
                    *x = f32::NEG_INFINITY;
                }
            }
            let shift = shift(row);
            let total = map_sum(row, |s| {
                let w = weight(s, shift);
                if s == f32::NEG_INFINITY { 0.0 } else { w }
            });
            *inverse = 1.0 / denominator(total);
        }
    }
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let kept = self.mask.map_or(self.n, |mask| mask.iter().filter(|kept| **kept).count());
        let n = kept as f32;
        let none = |_: &[f32]| 0.0;
        match self.kind {
            Kind::ReluSoftmax { eps } => {
                let eps = eps.to_f64() as f32;
                self.each(none, |s, _| if s > 0.0 { s } else { 0.0 }, |sum| eps + sum);
            }
            Kind::Power { p, variant } => {
                let eps = match variant {
                    // The maximum cancels in the division.
                    Variant::Plain | Variant::Stable { .. } => 0.0,
                    Variant::Lipschitz { eps } => eps.to_f64() as f32,
                    // (Σw/N·v)/(eps + Σw/N) = Σw·v/(N·eps + Σw): one form for both.
                    Variant::LengthAgnostic { eps } => eps.to_f64() as f32 * n,
                };
                match p {
                    2 => self.each(none, |s, _| s * s, |sum| eps + sum),
                    4 => self.each(none, |s, _| (s * s) * (s * s), |sum| eps + sum),
                    _ => self.each(none, |s, _| power(s, p.into()), |sum| eps + sum),
                }
            }
            Kind::Scaling => self.each(none, |s, _| s, |_| n),
            Kind::TwoQuad { c, eps } => {
                let (c, eps) = (c.to_f64() as f32, eps.to_f64() as f32);
                self.each(none, |s, _| (s + c) * (s + c), |sum| eps + sum);
            }
            Kind::ReluSquared => {
                self.each(none, |s, _| if s > 0.0 { s * s } else { 0.0 }, |_| n);
            }
            Kind::Uniform => self.each(none, |_, _| 1.0, |_| n),
            _ => self.each(max, |s, top| exp_one::<FMA>(s - top), |sum| sum),
        }
    }
}

/// s^p by squaring.
#[inline(always)]
fn power(s: f32, p: u32) -> f32 {
    let (mut base, mut left, mut product) = (s, p, 1.0);
    while left > 0 {
        if left & 1 == 1 {
            product *= base;
        }
        base *= base;
        left >>= 1;
    }
    product
}

fn check_norm(
    operation: &'static str,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    out: &[f32],
) -> Result<(), KernelError> {
    whole_rows(operation, x, weight)?;
    length(operation, "bias", bias.len(), weight.len())?;
    length(operation, "out", out.len(), x.len())
}

fn check_rows(
    operation: &'static str,
    x: &[f32],
    n: usize,
    stride: usize,
) -> Result<(), KernelError> {
    if n == 0 || n > stride {
        return Err(KernelError::Length { operation, operand: "row", found: n, expected: stride });
    }
    length(operation, "x", x.len(), x.len() / stride * stride)
}
