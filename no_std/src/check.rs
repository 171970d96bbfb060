//! Shape rules of the world operations, for the worlds to share.
//!
//! Each function returns the shape of the result or the [`Fault`] that every world reports.

use crate::{Axis, Fault, Form, Mask, Shape};

/// The shape of `a ∘ b` where `b` broadcasts to `a`.
///
/// # Errors
/// Fails unless `b` broadcasts to `a`.
pub const fn broadcast(op: &'static str, a: Shape, b: Shape) -> Result<Shape, Fault> {
    if b.broadcasts_to(a) { Ok(a) } else { Err(Fault::Shape { op, left: a, right: b }) }
}

/// The shape of a slice of rows or columns.
///
/// # Errors
/// [`Fault::Shape`] when they do not go together.
pub const fn slice(
    op: &'static str,
    of: Shape,
    from: usize,
    len: usize,
    axis: Axis,
) -> Result<Shape, Fault> {
    let (there, shape) = match axis {
        Axis::Rows => (of.rows, of.with_rows(len)),
        Axis::Cols => (of.cols, of.with_cols(len)),
    };
    if len > 0 && from.saturating_add(len) <= there {
        Ok(shape)
    } else {
        Err(Fault::Shape { op, left: of, right: shape })
    }
}

/// The shape of `x·W`.
///
/// # Errors
/// [`Fault::Shape`] when they do not go together.
pub const fn linear(x: Shape, inputs: usize, outputs: usize) -> Result<Shape, Fault> {
    if x.cols == inputs {
        Ok(x.with_cols(outputs))
    } else {
        Err(Fault::Shape { op: "matmul_public", left: x, right: Shape::new(1, inputs, outputs) })
    }
}

/// The shape of a product of secrets.
///
/// # Errors
/// [`Fault::Shape`] when they do not go together.
pub fn product(a: Shape, b: Shape, form: Form) -> Result<Shape, Fault> {
    a.product(b, form).ok_or(Fault::Shape { op: "matmul", left: a, right: b })
}

/// The shape of two tensors side by side.
///
/// # Errors
/// [`Fault::Shape`] when they do not go together.
pub const fn beside(a: Shape, b: Shape) -> Result<Shape, Fault> {
    if a.batch == b.batch && a.rows == b.rows {
        Ok(a.with_cols(a.cols + b.cols))
    } else {
        Err(Fault::Shape { op: "concat", left: a, right: b })
    }
}

/// The shape after heads moved into the batch.
///
/// # Errors
/// [`Fault::Parameter`] when the columns are not a multiple of the heads.
pub fn split(of: Shape, heads: usize) -> Result<Shape, Fault> {
    of.split(heads).ok_or(Fault::Parameter { what: "heads", got: heads as i64 })
}

/// The shape after heads moved out of the batch.
///
/// # Errors
/// [`Fault::Parameter`] when the batch is not a multiple of the heads.
pub fn merge(of: Shape, heads: usize) -> Result<Shape, Fault> {
    of.merge(heads).ok_or(Fault::Parameter { what: "heads", got: heads as i64 })
}

/// Checks that a mask fits a tensor: of keys in its columns, or of rows alone when dividing by
/// counts, where `keys` is the number of keys.
///
/// # Errors
/// [`Fault::Shape`] when it does not.
pub fn mask(of: Shape, keys: usize, mask: &Mask<'_>) -> Result<(), Fault> {
    if mask.fits(of.with_cols(keys)) {
        Ok(())
    } else {
        Err(Fault::Shape { op: "mask", left: of, right: of.with_cols(keys) })
    }
}
