//! f32 kernels: matrix products over strided views, and maps over rows.
//!
//! Products go to the `gemm` crate. The maps are plain loops over fixed lanes that the compiler
//! turns into the widest vectors the processor has; which those are is found at run time, so
//! one binary serves all. Kernels check shapes once per call and do not allocate.

mod map;
mod product;
mod rows;
mod vector;

pub use map::{add_bias, exp, gelu};
pub use product::{View, ViewMut, linear, matmul};
pub use rows::{affine_rows, layer_norm_rows, weigh_rows};

/// Operands that do not fit together; a fault of the caller, never of the data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A length is not what the other operands ask for.
    #[error("{operation}: {operand} has {found} values; expected {expected}")]
    Length {
        /// The kernel.
        operation: &'static str,
        /// The operand.
        operand: &'static str,
        /// Values found.
        found: usize,
        /// Values expected.
        expected: usize,
    },
    /// A view reaches beyond its slice.
    #[error("a view reaches index {last} of a slice of {len} values")]
    OutOfBounds {
        /// The last index the view reaches.
        last: usize,
        /// Length of the slice.
        len: usize,
    },
    /// An output view would write one value twice.
    #[error(
        "an output view of {rows}×{cols} with strides {row_stride} and {col_stride} and batch stride {batch_stride} overlaps itself"
    )]
    Overlap {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Distance of rows.
        row_stride: usize,
        /// Distance of columns.
        col_stride: usize,
        /// Distance of matrices.
        batch_stride: usize,
    },
    /// The shapes of a product do not match.
    #[error(
        "product of [{batch_a}; {m}×{k_a}] and [{batch_b}; {k_b}×{n}] into [{batch_out}; {rows}×{cols}]"
    )]
    Shape {
        /// Matrices of the left operand.
        batch_a: usize,
        /// Rows of the left operand.
        m: usize,
        /// Columns of the left operand.
        k_a: usize,
        /// Matrices of the right operand.
        batch_b: usize,
        /// Rows of the right operand.
        k_b: usize,
        /// Columns of the right operand.
        n: usize,
        /// Matrices of the result.
        batch_out: usize,
        /// Rows of the result.
        rows: usize,
        /// Columns of the result.
        cols: usize,
    },
}

pub(crate) fn length(
    operation: &'static str,
    operand: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), KernelError> {
    if found == expected {
        return Ok(());
    }
    Err(KernelError::Length { operation, operand, found, expected })
}

#[cfg(test)]
mod tests;
