//! Matrix products and functions on f32, on the `gemm` crate.

use undertone_core::{Form, Function};

/// A matrix in memory: rows `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    stride: usize,
}

/// A matrix to write.
pub(super) struct ViewMut<'a> {
    values: &'a mut [f32],
    stride: usize,
}

impl<'a> View<'a> {
    pub(super) const fn new(values: &'a [f32], stride: usize) -> Self {
        Self { values, stride }
    }
}

impl<'a> ViewMut<'a> {
    pub(super) const fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self { values, stride }
    }
}

/// out = A·B in the given form; sizes are (rows, inner, cols) of the product.
pub(super) fn product(
    form: Form,
    (m, k, n): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    out: ViewMut<'_>,
) {
    let reach = |rows: usize, cols: usize, stride: usize| (rows - 1) * stride + cols;
    let ((ar, ac), (br, bc)) = match form {
        Form::Nn => ((m, k), (k, n)),
        Form::Nt => ((m, k), (n, k)),
        Form::Tn => ((k, m), (k, n)),
    };
    assert!(
        m > 0
            && k > 0
            && n > 0
            && a.values.len() >= reach(ar, ac, a.stride)
            && b.values.len() >= reach(br, bc, b.stride)
            && out.values.len() >= reach(m, n, out.stride)
            && n <= out.stride,
        "operands reach over their slices"
    );
    let (one, a_stride, b_stride) = (1isize, a.stride as isize, b.stride as isize);
    let (a_col, a_row) = if form == Form::Tn { (a_stride, one) } else { (one, a_stride) };
    let (b_col, b_row) = if form == Form::Nt { (b_stride, one) } else { (one, b_stride) };
    // SAFETY: the assertion above bounds every element that the strides reach, and `out` is
    // borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.values.as_mut_ptr(),
            one,
            out.stride as isize,
            false,
            a.values.as_ptr(),
            a_col,
            a_row,
            b.values.as_ptr(),
            b_col,
            b_row,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// out = x·weightᵀ + bias for `rows` rows.
pub(super) fn linear(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let sizes = (rows, inputs, outputs);
    let view = View::new(weight, inputs);
    product(Form::Nt, sizes, View::new(x, inputs), view, ViewMut::new(out, outputs));
    if let Some(bias) = bias {
        for row in out.chunks_exact_mut(outputs) {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
    }
}

/// A function elementwise.
pub(super) fn map(f: Function, values: &mut [f32]) {
    let apply = |values: &mut [f32], f: fn(f32) -> f32| values.iter_mut().for_each(|x| *x = f(*x));
    match f {
        Function::Exp => apply(values, libm::expf),
        Function::Reciprocal => apply(values, |x| 1.0 / x),
        Function::Rsqrt => apply(values, |x| 1.0 / x.sqrt()),
        Function::Gelu => {
            apply(values, |x| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)));
        }
        Function::Sigmoid => apply(values, |x| 1.0 / (1.0 + libm::expf(-x))),
        Function::Softplus => apply(values, |x| x.max(0.0) + libm::log1pf(libm::expf(-x.abs()))),
        Function::Tanh => apply(values, libm::tanhf),
        Function::Silu => apply(values, |x| x / (1.0 + libm::expf(-x))),
    }
}
