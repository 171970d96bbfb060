//! Matrix products over strided, batched views.

use super::{KernelError, add_bias, length};

/// A batch of matrices inside a slice: element (b, i, j) stands at
/// `b·batch_stride + i·row_stride + j·col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    shape: Shape,
}

/// A [`View`] that can be written; its elements do not overlap.
#[derive(Debug)]
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    batch: usize,
    rows: usize,
    cols: usize,
    batch_stride: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Shape {
    /// The last index must be inside. Empty shapes reach nothing.
    fn check(self, len: usize) -> Result<Self, KernelError> {
        if self.batch == 0 || self.rows == 0 || self.cols == 0 {
            return Ok(self);
        }
        let reach = |count: usize, stride: usize| (count - 1).checked_mul(stride);
        let last = reach(self.batch, self.batch_stride)
            .and_then(|x| x.checked_add(reach(self.rows, self.row_stride)?))
            .and_then(|x| x.checked_add(reach(self.cols, self.col_stride)?))
            .unwrap_or(usize::MAX);
        if last >= len || last > isize::MAX as usize {
            return Err(KernelError::OutOfBounds { last, len });
        }
        Ok(self)
    }

    /// Whether all elements are apart: sorted by stride, each stride must step over all that
    /// the smaller ones reach.
    fn check_apart(self) -> Result<Self, KernelError> {
        if self.batch == 0 || self.rows == 0 || self.cols == 0 {
            return Ok(self);
        }
        let mut axes = [
            (self.batch_stride, self.batch),
            (self.row_stride, self.rows),
            (self.col_stride, self.cols),
        ];
        axes.sort_unstable();
        let mut reached = 0;
        for (stride, count) in axes.into_iter().filter(|(_, count)| *count > 1) {
            if stride <= reached {
                let Self { rows, cols, row_stride, col_stride, batch_stride, .. } = self;
                return Err(KernelError::Overlap {
                    rows,
                    cols,
                    row_stride,
                    col_stride,
                    batch_stride,
                });
            }
            reached += stride * (count - 1);
        }
        Ok(self)
    }
}

impl<'a> View<'a> {
    /// A batch of matrices; strides are in values.
    ///
    /// # Errors
    /// [`KernelError::OutOfBounds`] if an element would lie beyond the slice.
    pub fn new(
        data: &'a [f32],
        (batch, batch_stride): (usize, usize),
        (rows, row_stride): (usize, usize),
        (cols, col_stride): (usize, usize),
    ) -> Result<Self, KernelError> {
        let shape = Shape { batch, rows, cols, batch_stride, row_stride, col_stride };
        Ok(Self { data, shape: shape.check(data.len())? })
    }

    /// One row-major matrix with `cols` columns and as many rows as the slice has.
    ///
    /// # Errors
    /// [`KernelError::Length`] unless the slice is whole rows.
    pub fn rows(data: &'a [f32], cols: usize) -> Result<Self, KernelError> {
        let rows = data.len().checked_div(cols).unwrap_or(0);
        length("View::rows", "data", data.len(), rows * cols)?;
        Self::new(data, (1, 0), (rows, cols), (cols, 1))
    }

    /// Each matrix transposed; nothing moves.
    pub fn transposed(self) -> Self {
        let Shape { rows, cols, row_stride, col_stride, .. } = self.shape;
        let shape = Shape {
            rows: cols,
            cols: rows,
            row_stride: col_stride,
            col_stride: row_stride,
            ..self.shape
        };
        Self { shape, ..self }
    }
}

impl<'a> ViewMut<'a> {
    /// A batch of matrices to write; strides are in values.
    ///
    /// # Errors
    /// [`KernelError::OutOfBounds`] if an element would lie beyond the slice and
    /// [`KernelError::Overlap`] if two would share a place.
    pub fn new(
        data: &'a mut [f32],
        (batch, batch_stride): (usize, usize),
        (rows, row_stride): (usize, usize),
        (cols, col_stride): (usize, usize),
    ) -> Result<Self, KernelError> {
        let shape = Shape { batch, rows, cols, batch_stride, row_stride, col_stride };
        let shape = shape.check(data.len())?.check_apart()?;
        Ok(Self { data, shape })
    }

    /// One row-major matrix with `cols` columns and as many rows as the slice has.
    ///
    /// # Errors
    /// [`KernelError::Length`] unless the slice is whole rows.
    pub fn rows(data: &'a mut [f32], cols: usize) -> Result<Self, KernelError> {
        let rows = data.len().checked_div(cols).unwrap_or(0);
        length("ViewMut::rows", "data", data.len(), rows * cols)?;
        Self::new(data, (1, 0), (rows, cols), (cols, 1))
    }
}

/// out = A·B for each matrix of the batch. An operand with one matrix serves the whole batch.
///
/// ```
/// use undertone_model::float::kernels::{View, ViewMut, matmul};
///
/// let a = [1.0, 2.0, 3.0, 4.0];
/// let mut out = [0.0; 4];
/// let view = View::rows(&a, 2)?;
/// let target = ViewMut::rows(&mut out, 2)?;
/// matmul(target, view, view.transposed())?;
/// assert_eq!(out, [5.0, 11.0, 11.0, 25.0]);
/// # Ok::<(), undertone_model::float::kernels::KernelError>(())
/// ```
///
/// # Errors
/// [`KernelError::Shape`] if the shapes do not match.
pub fn matmul(out: ViewMut<'_>, a: View<'_>, b: View<'_>) -> Result<(), KernelError> {
    let (sa, sb, so) = (a.shape, b.shape, out.shape);
    let serves = |batch: usize| batch == so.batch || batch == 1;
    let matches = sa.cols == sb.rows && sa.rows == so.rows && sb.cols == so.cols;
    if !(matches && serves(sa.batch) && serves(sb.batch)) {
        return Err(KernelError::Shape {
            batch_a: sa.batch,
            m: sa.rows,
            k_a: sa.cols,
            batch_b: sb.batch,
            k_b: sb.rows,
            n: sb.cols,
            batch_out: so.batch,
            rows: so.rows,
            cols: so.cols,
        });
    }
    let start = |shape: Shape, index: usize| {
        if shape.batch == 1 { 0 } else { index * shape.batch_stride }
    };
    for index in 0..so.batch {
        if so.rows == 0 || so.cols == 0 {
            break;
        }
        // An empty sum: with k = 0 no operand is read, and `get` must not see an empty slice.
        let (a, b) = match sa.cols {
            0 => (a.data, b.data),
            _ => (&a.data[start(sa, index)..], &b.data[start(sb, index)..]),
        };
        let out = &mut out.data[start(so, index)..];
        // SAFETY: `Shape::check` has shown that the last element of each operand lies inside
        // its slice, and it grows with every index, so all elements do (for k = 0 none is
        // read). `out` is borrowed mutably, so it does not alias `a` or `b`, and
        // `Shape::check_apart` has shown that its elements do not alias each other. Strides
        // fit isize because the last index does. The slices are initialised f32.
        unsafe {
            gemm::gemm(
                so.rows,
                so.cols,
                sa.cols,
                out.as_mut_ptr(),
                so.col_stride as isize,
                so.row_stride as isize,
                false,
                a.as_ptr(),
                sa.col_stride as isize,
                sa.row_stride as isize,
                b.as_ptr(),
                sb.col_stride as isize,
                sb.row_stride as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
    Ok(())
}

/// out = x·weightᵀ + bias for rows x `[rows, inputs]`, weight `[outputs, inputs]` and out
/// `[rows, outputs]`, which is overwritten.
///
/// # Errors
/// [`KernelError`] if lengths do not match.
pub fn linear(
    out: &mut [f32],
    x: &[f32],
    inputs: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Result<(), KernelError> {
    let outputs = weight.len().checked_div(inputs).unwrap_or(0);
    let target = ViewMut::rows(out, outputs)?;
    let (x, weight) = (View::rows(x, inputs)?, View::rows(weight, inputs)?);
    matmul(target, x, weight.transposed())?;
    match bias {
        Some(bias) => add_bias(out, bias),
        None => Ok(()),
    }
}
