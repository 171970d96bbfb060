//! Fixed-point kernels: plain functions and small structs on slices of integers.
//!
//! Nothing here allocates, panics or touches a float. Lengths are checked once, at the door, and a wrong one is a
//! [`KernelError`]. A tensor is a slice of raw integers with a *fraction*: raw value `r` with `f` fraction bits stands
//! for `r · 2^-f`. Rounding is *half up* (add one half, floor) wherever a kernel rounds; where the published algorithm
//! floors, so does its reproduction. Values that leave their format saturate, and every kernel that can saturate
//! returns how often it did: zero is the expected answer for a calibrated model.
//!
//! | module | what | source |
//! |---|---|---|
//! | [`shift`] | single-pass softmax without a multiplier in its recurrence | this project |
//! | [`exact`] | order-independent softmax sum | this project |
//! | [`edge_moe`] | single-pass softmax and table GELU as published | Edge-MoE, arXiv 2305.18691 |
//! | [`table_softmax`] | 8-bit softmax by one table | this project |
//! | [`recip`] | reciprocal and reciprocal square root as mantissa and exponent | Newton–Raphson |
//! | [`table`] | exp, sigmoid, tanh, softplus, GELU over a declared domain | |
//! | [`linear`] | matrix products with exact accumulation | |
//! | [`bytes`] | products with 8-bit weights, a scale a row | |
//! | [`signs`] | products with one-bit weights, BiViT's attention | BiViT, arXiv 2211.07091 |
//! | [`norm`] | layer norm with exact mean and variance | Ba et al. 2016 |
//! | [`attention`] | fused online attention of one head | Milakov & Gimelshein 2018; Dao 2022 |
//! | [`pixels`] | 8-bit images to rows of patches | |
//! | [`attention8`] | attention of one head of bytes | |
//! | [`math`] | integer evaluation of the functions behind the tables, in `const fn` | |

pub mod attention;
pub mod attention8;
pub mod bytes;
pub mod edge_moe;
pub mod exact;
pub mod linear;
pub mod math;
mod memory;
mod menu;
pub mod norm;
mod operations;
pub mod pixels;
pub mod recip;
pub mod requant;
pub mod shift;
pub mod signs;
pub mod table;
pub mod table_softmax;
#[cfg(test)]
mod testing;
mod world;

pub use memory::{Absent, Arena, Buffers, Flash, Inline, Memory, Needed, Operand, Storage};
pub use memory::{Tensor, Weight, frac_for};
pub use menu::Online;
pub use requant::{Bias, Narrow, Requant, Scaled};
pub use undertone_dsp::{Block, Quad};
pub use world::Fixed;

/// Why a kernel refused to run. Nothing has been written when one of these comes back, unless the kernel says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice does not have the length its dimensions ask for.
    #[error(
        "{kernel}: `{operand}` holds {got} elements, its dimensions need {expected}; pass a slice of that length"
    )]
    Length {
        /// The kernel that refused.
        kernel: &'static str,
        /// Which of its operands.
        operand: &'static str,
        /// The length that the dimensions ask for.
        expected: usize,
        /// The length that was passed.
        got: usize,
    },
    /// A row without elements, or masked entirely: it has no normaliser.
    #[error(
        "{kernel}: row {row} has no unmasked element, so it has no normaliser; give it at least one"
    )]
    EmptyRow {
        /// The kernel that refused.
        kernel: &'static str,
        /// The row, counted from 0.
        row: usize,
    },
    /// An accumulator would leave its format.
    #[error(
        "{kernel}: the accumulator overflows at element {index}; use a wider format or a shorter row"
    )]
    Overflow {
        /// The kernel that refused.
        kernel: &'static str,
        /// The element at which it would overflow, counted from 0.
        index: usize,
    },
    /// A value lies outside what the kernel is defined on.
    #[error("{kernel}: {what} is {got}, outside [{lo}, {hi}]; recalibrate the domain")]
    Domain {
        /// The kernel that refused.
        kernel: &'static str,
        /// Which quantity.
        what: &'static str,
        /// Its value, raw.
        got: i64,
        /// The least value allowed, raw.
        lo: i64,
        /// The greatest value allowed, raw.
        hi: i64,
    },
}

/// Checks a slice against the length its dimensions ask for.
pub(crate) const fn check_len(
    kernel: &'static str,
    operand: &'static str,
    expected: Option<usize>,
    got: usize,
) -> Result<(), KernelError> {
    match expected {
        Some(e) if e == got => Ok(()),
        // A product of dimensions that leaves usize cannot be the length of any slice.
        _ => Err(KernelError::Length {
            kernel,
            operand,
            expected: match expected {
                Some(e) => e,
                None => usize::MAX,
            },
            got,
        }),
    }
}
