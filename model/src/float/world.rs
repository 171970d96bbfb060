//! The float world: f32 tensors, or none at all for plans.

use undertone_core::check;
use undertone_core::{
    Approximate, Axis, Bound, Compare, Counts, Fault, Form, Function, Made, Mask, Multiply, Num,
    Op, Role, Shape, Width, World,
};

use crate::domains::Calibration;
use crate::float::kernels::{self, KernelError, View, ViewMut};
use crate::host::{Host, Weight};

/// What a float tensor holds: values, or nothing in a plan.
pub trait Data: Sized + Send + Sync {
    /// `len` zeros for `fill` to overwrite.
    fn make(len: usize, fill: impl FnOnce(&mut [f32])) -> Self;
    /// The values; empty where there are none.
    fn values(&self) -> &[f32];
    /// The values; empty where there are none.
    fn values_mut(&mut self) -> &mut [f32];
    /// Whether values are there.
    const REAL: bool;
}

impl Data for Vec<f32> {
    const REAL: bool = true;
    fn make(len: usize, fill: impl FnOnce(&mut [f32])) -> Self {
        let mut values = vec![0.0; len];
        fill(&mut values);
        values
    }
    fn values(&self) -> &[f32] {
        self
    }
    fn values_mut(&mut self) -> &mut [f32] {
        self
    }
}

/// No data: the world is its own ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absent;

impl Data for Absent {
    const REAL: bool = false;
    fn make(_: usize, _: impl FnOnce(&mut [f32])) -> Self {
        Self
    }
    fn values(&self) -> &[f32] {
        &[]
    }
    fn values_mut(&mut self) -> &mut [f32] {
        &mut []
    }
}

/// A tensor of the float world. Heads that were split stay interleaved in memory: splitting and
/// merging move nothing.
#[derive(Debug)]
pub struct Tensor<D> {
    pub(super) shape: Shape,
    /// Heads that share a row of memory.
    pub(super) heads: usize,
    pub(super) data: D,
}

impl<D: Data> Tensor<D> {
    /// Distance between rows of a matrix in memory.
    pub(super) const fn stride(&self) -> usize {
        self.heads * self.shape.cols
    }

    /// Where a matrix of the batch starts in memory.
    pub(super) const fn start(&self, batch: usize) -> usize {
        let (image, head) = (batch / self.heads, batch % self.heads);
        image * self.shape.rows * self.stride() + head * self.shape.cols
    }

    fn row(&self, batch: usize, row: usize) -> &[f32] {
        let at = self.start(batch) + row * self.stride();
        &self.data.values()[at..at + self.shape.cols]
    }

    fn row_mut(&mut self, batch: usize, row: usize) -> &mut [f32] {
        let at = self.start(batch) + row * self.stride();
        let cols = self.shape.cols;
        &mut self.data.values_mut()[at..at + cols]
    }

    pub(super) fn view(&self, batch: usize) -> Result<View<'_>, KernelError> {
        let values = self.data.values().get(self.start(batch)..).unwrap_or_default();
        View::new(values, (1, 0), (self.shape.rows, self.stride()), (self.shape.cols, 1))
    }

    pub(super) fn view_mut(&mut self, batch: usize) -> Result<ViewMut<'_>, KernelError> {
        let (start, stride) = (self.start(batch), self.stride());
        let values = self.data.values_mut().get_mut(start..).unwrap_or_default();
        ViewMut::new(values, (1, 0), (self.shape.rows, stride), (self.shape.cols, 1))
    }

    /// A tensor made row by row; the callback gets the batch, the row and zeros to fill.
    pub(super) fn build(
        shape: Shape,
        heads: usize,
        mut f: impl FnMut(usize, usize, &mut [f32]),
    ) -> Self {
        // Interleaved heads need a whole number of them.
        let heads = if shape.batch.is_multiple_of(heads) { heads } else { 1 };
        let mut made = Self { shape, heads, data: D::make(shape.len(), |_| {}) };
        if D::REAL {
            for batch in 0..shape.batch {
                for row in 0..shape.rows {
                    f(batch, row, made.row_mut(batch, row));
                }
            }
        }
        made
    }

    /// The same matrices, each in one piece.
    fn contiguous(&self) -> Self {
        Self::build(self.shape, 1, |b, row, out| out.copy_from_slice(self.row(b, row)))
    }

    /// Each row of `self` with the row of `b` that broadcasts to it.
    fn zip(&mut self, b: &Self, mut f: impl FnMut(&mut f32, f32)) {
        let same = self.shape == b.shape && self.heads == b.heads;
        if same {
            for (x, &y) in self.data.values_mut().iter_mut().zip(b.data.values()) {
                f(x, y);
            }
            return;
        }
        for batch in 0..self.shape.batch {
            for row in 0..self.shape.rows {
                let other = b.row(batch.min(b.shape.batch - 1), row.min(b.shape.rows - 1));
                let own = self.row_mut(batch, row);
                match other {
                    [single] if own.len() != 1 => own.iter_mut().for_each(|x| f(x, *single)),
                    _ => own.iter_mut().zip(other).for_each(|(x, &y)| f(x, y)),
                }
            }
        }
    }
}

/// A prepared public operand.
#[derive(Debug)]
pub enum Operand<D> {
    /// A linear weight.
    Linear {
        /// Number of inputs.
        inputs: usize,
        /// Number of outputs.
        outputs: usize,
        /// Row-major `[outputs, inputs]`.
        weight: D,
        /// `[outputs]`
        bias: Option<D>,
    },
    /// A tensor that broadcasts.
    Vector(Tensor<D>),
}

/// The float world: the yardstick of the others, and what `infer` uses by default. Over
/// [`Absent`] data it is its own ledger.
///
/// ```
/// use undertone_core::{Bound, Role, Shape, Site, World};
/// use undertone_model::{float::Float, host::Host};
/// let mut w = Float::new();
/// let on = Bound::unknown(Site::outside(Role::Input));
/// let x = w.secret(Shape::new(1, 1, 2), &[1.0, 2.0], on)?;
/// let y = w.copy(&x)?;
/// let sum = w.add(x, &y, on)?;
/// assert_eq!(w.reveal(&sum)?, [2.0, 4.0]);
/// # Ok::<(), undertone_core::Fault>(())
/// ```
#[derive(Debug)]
pub struct Float<D = Vec<f32>> {
    counts: Counts,
    watch: Watch,
    data: std::marker::PhantomData<fn() -> D>,
}

/// What is done with the bounds that operations carry.
#[derive(Debug)]
enum Watch {
    /// Nothing.
    Ignore,
    /// A value outside a known range is an error.
    Enforce,
    /// Ranges are recorded.
    Record(Calibration),
}

impl Float<Vec<f32>> {
    /// A float world that ignores declared ranges.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Watch::Ignore)
    }

    /// A float world in which a value outside its declared range, or not finite, is
    /// [`Fault::OutOfDomain`]. Only [`Full`](undertone_core::Full) shows every site to the world.
    #[must_use]
    pub fn strict() -> Self {
        Self::over(Watch::Enforce)
    }

    /// A float world that records the range of every site: run it with the
    /// [`Full`](undertone_core::Full) menu over calibration data. A value that is not finite is
    /// [`Fault::OutOfDomain`].
    #[must_use]
    pub fn recording() -> Self {
        Self::over(Watch::Record(Calibration::default()))
    }
}

impl Default for Float<Vec<f32>> {
    fn default() -> Self {
        Self::new()
    }
}

impl Float<Absent> {
    /// The ledger: counts what a run would count.
    #[must_use]
    pub fn ledger() -> Self {
        Self::over(Watch::Ignore)
    }
}

impl<D: Data> Float<D> {
    fn over(watch: Watch) -> Self {
        Self { counts: Counts::default(), watch, data: std::marker::PhantomData }
    }

    /// Operations counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What [`Float::recording`] has recorded.
    #[must_use]
    pub fn recorded(&self) -> Option<&Calibration> {
        match &self.watch {
            Watch::Record(calibration) => Some(calibration),
            _ => None,
        }
    }

    pub(super) fn count(&mut self, op: Op, n: usize) {
        self.counts.add(op, Width::F32, n as u64);
    }

    pub(super) fn count_macs(&mut self, n: usize) {
        self.counts.mac(Width::F32, n as u64);
    }

    /// Looks at a result that claims a bound.
    pub(super) fn bounded(&mut self, x: Tensor<D>, on: Bound) -> Made<Self> {
        if D::REAL && !matches!(self.watch, Watch::Ignore) && on.site.role != Role::Inner {
            let (lo, hi) = x.data.values().iter().fold((f64::MAX, f64::MIN), |(lo, hi), &v| {
                (lo.min(f64::from(v)), hi.max(f64::from(v)))
            });
            // NaN lies in no range, and `min` and `max` pass over it.
            if x.data.values().iter().any(|v| !v.is_finite()) {
                return Err(Fault::OutOfDomain { site: on.site });
            }
            match (&mut self.watch, on.range) {
                (Watch::Record(calibration), _) => calibration.observe(on.site, lo, hi),
                (Watch::Enforce, Some(range)) => {
                    // Ranges are written with six digits, values are f32: as far as both agree.
                    let (min, max) = (range.lo.to_f64(), range.hi.to_f64());
                    let slack = 1e-5 * (max - min).max(min.abs().max(max.abs()));
                    if lo < min - slack || hi > max + slack {
                        return Err(Fault::OutOfDomain { site: on.site });
                    }
                }
                _ => {}
            }
        }
        Ok(x)
    }

    fn elementwise(
        &mut self,
        op: Op,
        mut a: Tensor<D>,
        on: Bound,
        f: impl Fn(f32) -> f32,
    ) -> Made<Self> {
        self.count(op, a.shape.len());
        a.data.values_mut().iter_mut().for_each(|x| *x = f(*x));
        self.bounded(a, on)
    }

    fn zipped(
        &mut self,
        name: &'static str,
        op: Op,
        mut a: Tensor<D>,
        b: &Tensor<D>,
        on: Bound,
        f: impl Fn(&mut f32, f32),
    ) -> Made<Self> {
        check::broadcast(name, a.shape, b.shape)?;
        self.count(op, a.shape.len());
        if D::REAL {
            a.zip(b, f);
        }
        self.bounded(a, on)
    }

    pub(super) fn vector<'p>(op: &'static str, p: &'p Operand<D>) -> Result<&'p Tensor<D>, Fault> {
        match p {
            Operand::Vector(v) => Ok(v),
            Operand::Linear { inputs, outputs, .. } => {
                let shape = Shape::new(1, *inputs, *outputs);
                Err(Fault::Shape { op, left: shape, right: shape })
            }
        }
    }
}

impl<D: Data> World for Float<D> {
    const NAME: &'static str = "float";
    type Secret = Tensor<D>;
    type Public = Operand<D>;
    type Error = Fault;

    fn shape(&self, x: &Tensor<D>) -> Shape {
        x.shape
    }

    fn copy(&mut self, x: &Tensor<D>) -> Made<Self> {
        self.count(Op::Move, x.shape.len());
        let data = D::make(x.shape.len(), |out| out.copy_from_slice(x.data.values()));
        Ok(Tensor { shape: x.shape, heads: x.heads, data })
    }

    fn add(&mut self, a: Tensor<D>, b: &Tensor<D>, on: Bound) -> Made<Self> {
        self.zipped("add", Op::Add, a, b, on, |x, y| *x += y)
    }

    fn sub(&mut self, a: Tensor<D>, b: &Tensor<D>, on: Bound) -> Made<Self> {
        self.zipped("sub", Op::Add, a, b, on, |x, y| *x -= y)
    }

    fn scale(&mut self, a: Tensor<D>, k: Num, on: Bound) -> Made<Self> {
        let k = k.to_f64() as f32;
        self.elementwise(Op::Mul, a, on, |x| x * k)
    }

    fn offset(&mut self, a: Tensor<D>, k: Num, on: Bound) -> Made<Self> {
        let k = k.to_f64() as f32;
        self.elementwise(Op::Add, a, on, |x| x + k)
    }

    fn add_public(&mut self, a: Tensor<D>, p: &Operand<D>, on: Bound) -> Made<Self> {
        let p = Self::vector("add_public", p)?;
        self.zipped("add_public", Op::Add, a, p, on, |x, y| *x += y)
    }

    fn mul_public(&mut self, a: Tensor<D>, p: &Operand<D>, on: Bound) -> Made<Self> {
        let p = Self::vector("mul_public", p)?;
        self.zipped("mul_public", Op::Mul, a, p, on, |x, y| *x *= y)
    }

    fn matmul_public(&mut self, x: &Tensor<D>, w: &Operand<D>, on: Bound) -> Made<Self> {
        let Operand::Linear { inputs, outputs, weight, bias } = w else {
            let right = Self::vector("matmul_public", w)?.shape;
            return Err(Fault::Shape { op: "matmul_public", left: x.shape, right });
        };
        let shape = check::linear(x.shape, *inputs, *outputs)?;
        self.count_macs(shape.len() * inputs);
        if bias.is_some() {
            self.count(Op::Add, shape.len());
        }
        let flat;
        let x = if x.heads == 1 {
            x
        } else {
            flat = x.contiguous();
            &flat
        };
        let mut made = Ok(());
        let data = D::make(shape.len(), |out| {
            let bias = bias.as_ref().map(Data::values);
            let (x, weight) = (x.data.values(), weight.values());
            made = kernels::linear(out, x, *inputs, weight, bias);
        });
        made.map_err(fault)?;
        self.bounded(Tensor { shape, heads: 1, data }, on)
    }

    fn sum(&mut self, a: &Tensor<D>, axis: Axis, on: Bound) -> Made<Self> {
        self.count(Op::Add, a.shape.len());
        let shape = match axis {
            Axis::Rows => a.shape.with_rows(1),
            Axis::Cols => a.shape.with_cols(1),
        };
        let made = Tensor::build(shape, a.heads, |batch, row, out| match axis {
            Axis::Cols => out[0] = a.row(batch, row).iter().sum(),
            Axis::Rows => {
                for row in 0..a.shape.rows {
                    out.iter_mut().zip(a.row(batch, row)).for_each(|(s, x)| *s += x);
                }
            }
        });
        self.bounded(made, on)
    }

    fn rows(&mut self, a: &Tensor<D>, from: usize, len: usize) -> Made<Self> {
        let shape = check::slice("rows", a.shape, from, len, Axis::Rows)?;
        self.count(Op::Move, shape.len());
        Ok(Tensor::build(shape, a.heads, |b, row, out| out.copy_from_slice(a.row(b, from + row))))
    }

    fn repeat_rows(&mut self, a: &Tensor<D>, n: usize) -> Made<Self> {
        let shape = check::broadcast("repeat_rows", a.shape.with_rows(n), a.shape)?;
        self.count(Op::Move, shape.len());
        Ok(Tensor::build(shape, a.heads, |b, _, out| out.copy_from_slice(a.row(b, 0))))
    }

    fn columns(&mut self, a: &Tensor<D>, from: usize, len: usize) -> Made<Self> {
        let shape = check::slice("columns", a.shape, from, len, Axis::Cols)?;
        self.count(Op::Move, shape.len());
        Ok(Tensor::build(shape, a.heads, |b, row, out| {
            out.copy_from_slice(&a.row(b, row)[from..from + len]);
        }))
    }

    fn concat(&mut self, a: Tensor<D>, b: &Tensor<D>, on: Bound) -> Made<Self> {
        let shape = check::beside(a.shape, b.shape)?;
        self.count(Op::Move, shape.len());
        let made = Tensor::build(shape, 1, |batch, row, out| {
            let (left, right) = out.split_at_mut(a.shape.cols);
            left.copy_from_slice(a.row(batch, row));
            right.copy_from_slice(b.row(batch, row));
        });
        self.bounded(made, on)
    }

    fn split_heads(&mut self, a: Tensor<D>, heads: usize) -> Made<Self> {
        let shape = check::split(a.shape, heads)?;
        let a = if a.heads == 1 { a } else { a.contiguous() };
        Ok(Tensor { shape, heads, data: a.data })
    }

    fn merge_heads(&mut self, a: Tensor<D>, heads: usize) -> Made<Self> {
        let shape = check::merge(a.shape, heads)?;
        if a.heads == heads {
            return Ok(Tensor { shape, heads: 1, data: a.data });
        }
        self.count(Op::Move, shape.len());
        let cols = a.shape.cols;
        Ok(Tensor::build(shape, 1, |image, row, out| {
            for (head, part) in out.chunks_exact_mut(cols).enumerate() {
                part.copy_from_slice(a.row(image * heads + head, row));
            }
        }))
    }

    fn mask(&mut self, mut a: Tensor<D>, mask: &Mask<'_>, fill: Num) -> Made<Self> {
        check::mask(a.shape, a.shape.cols, mask)?;
        if D::REAL && !mask.is_none() {
            let (shape, fill) = (a.shape, fill.to_f64() as f32);
            for batch in 0..shape.batch {
                for row in 0..shape.rows {
                    let visible = mask.visible(shape, batch, row);
                    a.row_mut(batch, row)[visible..].fill(fill);
                }
            }
        }
        Ok(a)
    }

    fn divide_by_count(
        &mut self,
        mut a: Tensor<D>,
        mask: &Mask<'_>,
        keys: usize,
        on: Bound,
    ) -> Made<Self> {
        check::mask(a.shape, keys, mask)?;
        self.count(Op::Mul, a.shape.len());
        if D::REAL {
            let scores = a.shape.with_cols(keys);
            for batch in 0..scores.batch {
                for row in 0..scores.rows {
                    let inverse = 1.0 / mask.visible(scores, batch, row) as f32;
                    a.row_mut(batch, row).iter_mut().for_each(|x| *x *= inverse);
                }
            }
        }
        self.bounded(a, on)
    }
}

impl<D: Data> Multiply for Float<D> {
    fn mul(&mut self, a: Tensor<D>, b: &Tensor<D>, on: Bound) -> Made<Self> {
        self.zipped("mul", Op::Mul, a, b, on, |x, y| *x *= y)
    }

    fn square(&mut self, a: Tensor<D>, on: Bound) -> Made<Self> {
        self.elementwise(Op::Mul, a, on, |x| x * x)
    }

    fn matmul(&mut self, a: &Tensor<D>, b: &Tensor<D>, form: Form, on: Bound) -> Made<Self> {
        let shape = check::product(a.shape, b.shape, form)?;
        let inner = if form == Form::Tn { a.shape.rows } else { a.shape.cols };
        self.count_macs(shape.len() * inner);
        // Scores keep a matrix of their own for each head; d-wide results interleave as V does.
        let heads = match form {
            Form::Nt | Form::Tn => 1,
            Form::Nn => b.heads.max(a.heads),
        };
        let mut made = Tensor::<D>::build(shape, heads, |_, _, _| {});
        if D::REAL {
            for batch in 0..shape.batch {
                let (x, y) = (a.view(batch), b.view(batch));
                let (x, y) = (x.map_err(fault)?, y.map_err(fault)?);
                let (x, y) = match form {
                    Form::Nn => (x, y),
                    Form::Nt => (x, y.transposed()),
                    Form::Tn => (x.transposed(), y),
                };
                let out = made.view_mut(batch).map_err(fault)?;
                kernels::matmul(out, x, y).map_err(fault)?;
            }
        }
        self.bounded(made, on)
    }
}

impl<D: Data> Approximate for Float<D> {
    fn map(&mut self, mut a: Tensor<D>, f: Function, _: Bound, on: Bound) -> Made<Self> {
        self.count(Op::Function, a.shape.len());
        apply(f, a.data.values_mut());
        self.bounded(a, on)
    }
}

impl<D: Data> Compare for Float<D> {
    fn relu(&mut self, a: Tensor<D>, on: Bound) -> Made<Self> {
        self.elementwise(Op::Compare, a, on, |x| x.max(0.0))
    }

    fn max(&mut self, a: &Tensor<D>) -> Made<Self> {
        self.count(Op::Compare, a.shape.len());
        Ok(Tensor::build(a.shape.with_cols(1), a.heads, |batch, row, out| {
            out[0] = a.row(batch, row).iter().fold(f32::MIN, |m, &x| m.max(x));
        }))
    }
}

impl<D: Data> Host for Float<D> {
    fn linear(&mut self, w: Weight<'_>) -> Result<Operand<D>, Fault> {
        let weight = own::<D>("linear", Shape::new(1, w.outputs, w.inputs), w.weight)?;
        let bias = match w.bias {
            Some(bias) => Some(own::<D>("linear bias", Shape::new(1, 1, w.outputs), bias)?),
            None => None,
        };
        Ok(Operand::Linear { inputs: w.inputs, outputs: w.outputs, weight, bias })
    }

    fn vector(&mut self, shape: Shape, values: &[f32]) -> Result<Operand<D>, Fault> {
        Ok(Operand::Vector(Tensor { shape, heads: 1, data: own::<D>("vector", shape, values)? }))
    }

    fn secret(&mut self, shape: Shape, values: &[f32], on: Bound) -> Made<Self> {
        if shape.is_empty() {
            return Err(Fault::Empty { op: "input", shape });
        }
        let data = own::<D>("input", shape, values)?;
        self.bounded(Tensor { shape, heads: 1, data }, on)
    }

    fn reveal(&mut self, x: &Tensor<D>) -> Result<Vec<f32>, Fault> {
        if !D::REAL {
            return Err(Fault::Stale { op: "reveal" });
        }
        let mut out = Vec::with_capacity(x.shape.len());
        for batch in 0..x.shape.batch {
            for row in 0..x.shape.rows {
                out.extend_from_slice(x.row(batch, row));
            }
        }
        Ok(out)
    }
}

fn own<D: Data>(op: &'static str, shape: Shape, values: &[f32]) -> Result<D, Fault> {
    if D::REAL && values.len() != shape.len() {
        return Err(Fault::Shape { op, left: Shape::new(1, 1, values.len()), right: shape });
    }
    Ok(D::make(values.len(), |out| out.copy_from_slice(values)))
}

/// A function elementwise.
fn apply(f: Function, values: &mut [f32]) {
    let each = |values: &mut [f32], f: fn(f32) -> f32| values.iter_mut().for_each(|x| *x = f(*x));
    match f {
        Function::Exp => kernels::exp(values),
        Function::Gelu => kernels::gelu(values),
        Function::Reciprocal => each(values, |x| 1.0 / x),
        Function::Rsqrt => each(values, |x| 1.0 / x.sqrt()),
        Function::Sigmoid => each(values, |x| 1.0 / (1.0 + libm::expf(-x))),
        Function::Softplus => each(values, |x| x.max(0.0) + libm::log1pf(libm::expf(-x.abs()))),
        Function::Tanh => each(values, libm::tanhf),
        Function::Silu => each(values, |x| x / (1.0 + libm::expf(-x))),
    }
}

/// A kernel's refusal in the core's terms. The world has checked the shapes before, so this is
/// for lengths of operands that a caller prepared wrongly.
pub(super) fn fault(error: KernelError) -> Fault {
    let wrong = |got, expected| Fault::Shape {
        op: "float kernel",
        left: Shape::new(1, 1, got),
        right: Shape::new(1, 1, expected),
    };
    match error {
        KernelError::Length { found, expected, .. } => wrong(found, expected),
        KernelError::OutOfBounds { last, len } => wrong(len, last + 1),
        _ => Fault::Stale { op: "float kernel" },
    }
}
