//! Elementwise maps.

use super::vector::{Kernel, dispatch, exp_one, gelu_one};
use super::{KernelError, length};

/// x ← eˣ, to 2 units in the last place between −87.33 and 88.37; below it is 0, above it stays
/// at e^88.37.
pub fn exp(x: &mut [f32]) {
    struct Exp<'a>(&'a mut [f32]);
    impl Kernel for Exp<'_> {
        type Output = ();
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            for x in self.0 {
                *x = exp_one::<FMA>(*x);
            }
        }
    }
    dispatch(Exp(x));
}

/// x ← x·Φ(x) (erf form), within 1e-6·max(1, |x|).
pub fn gelu(x: &mut [f32]) {
    struct Gelu<'a>(&'a mut [f32]);
    impl Kernel for Gelu<'_> {
        type Output = ();
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            for x in self.0 {
                *x = gelu_one::<FMA>(*x);
            }
        }
    }
    dispatch(Gelu(x));
}

/// x ← x + bias for rows of `bias.len()`.
///
/// # Errors
/// [`KernelError::Length`] unless `x` is whole rows.
pub fn add_bias(x: &mut [f32], bias: &[f32]) -> Result<(), KernelError> {
    struct Add<'a>(&'a mut [f32], &'a [f32]);
    impl Kernel for Add<'_> {
        type Output = ();
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            for row in self.0.chunks_exact_mut(self.1.len()) {
                for (x, b) in row.iter_mut().zip(self.1) {
                    *x += b;
                }
            }
        }
    }
    whole_rows("add_bias", x, bias)?;
    dispatch(Add(x, bias));
    Ok(())
}

/// `x` must be rows of `row.len()` values; an empty row has no such rows.
pub(super) fn whole_rows(
    operation: &'static str,
    x: &[f32],
    row: &[f32],
) -> Result<(), KernelError> {
    let rows = x.len().checked_div(row.len()).unwrap_or(0);
    let expected = if row.is_empty() { 1 } else { rows * row.len() };
    length(operation, "x", x.len(), expected)
}
