//! The TFHE world: exact integers, with a look-up table for everything that is not linear.
//!
//! Tensors are [`Integers`] in a proven interval with a public unit 2^u. Sums and public products
//! are linear and free; squares, reciprocals, comparisons and products of secrets are programmable
//! bootstraps of 2^b entries (Chillotti, Gama, Georgieva, Izabachène 2020; b = 4, 6 or 8 by
//! parameter set). What would leave a table is rounded first, by a table. So the result is the same
//! function of the inputs in every engine, integer by integer:
//!
//! | engine | computes on |
//! |---|---|
//! | `Evaluator` (feature `tfhe`) | ciphertexts of the `tfhe` crate |
//! | [`Clear`] | the integers: the reference, and the oracle of the tests |
//! | [`Ledger`] | nothing: counts bootstraps |
//!
//! ```
//! use std::sync::Arc;
//! use undertone_he::tfhe::{Clear, Engine, Head, Ledger, Products};
//!
//! let head = Head {
//!     tokens: 2,
//!     features: 2,
//!     exponent: 2,
//!     input: (-2, 1),
//!     unit: 0,
//!     row_sums: (1.0, 48.0),
//! };
//! let (q, k, v) = ([1, -2, 0, 1], [1, 1, -2, 0], [1, 0, -2, 1]);
//! let clear = Arc::new(Clear::new(6, 9));
//! let out = head.run(&clear, Products::Tables, head.admit(q.to_vec(), k.to_vec(), v.to_vec())?)?;
//! let ledger = Arc::new(Ledger::new(6, 9));
//! head.run(&ledger, Products::Tables, head.planned_inputs())?;
//! assert_eq!(ledger.bootstraps(), clear.bootstraps());
//! assert_eq!(out.cells().len(), 4);
//! # Ok::<(), undertone_he::tfhe::TfheError>(())
//! ```

mod compare;
mod engine;
mod head;
mod products;
#[cfg(feature = "tfhe")]
mod shortint;
mod tensor;
#[cfg(test)]
mod tests;

pub use engine::{Clear, Engine, Ledger};
pub use head::{Head, HeadInputs};
pub use products::Products;
#[cfg(all(feature = "tfhe", feature = "client"))]
pub use shortint::Keys;
#[cfg(feature = "tfhe")]
pub use shortint::{Evaluator, Precision};
pub use tensor::Integers;

use std::sync::Arc;

use undertone_core::{
    Approximate, Axis, Bound, Fault, Function, Made, Mask, Num, Shape, Unsupported, World,
};

use products::widened;
use tensor::in_units;

/// Why the TFHE world refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TfheError {
    /// Shapes, ranges or operators.
    #[error(transparent)]
    Core(#[from] Fault),
    /// More values than a table has entries.
    #[error("{op}: {steps} different values, a table has {most}; use coarser inputs or more bits")]
    TooWide {
        /// The operation.
        op: &'static str,
        /// Different values.
        steps: u64,
        /// Entries of a table.
        most: u64,
    },
    /// An input outside the interval that was declared for it. Which value stays untold.
    #[error("{what}: the value is outside the declared interval; quantize inputs with saturation")]
    Undeclared {
        /// Which input.
        what: &'static str,
    },
}

/// A public operand: integers that stand for x·2^unit.
#[derive(Clone, Debug)]
pub struct PublicIntegers {
    /// Its shape.
    pub shape: Shape,
    /// log₂ of what the integer one stands for.
    pub unit: i16,
    /// Its elements, row by row.
    pub values: Vec<i64>,
}

/// The world.
pub struct Tfhe<E: Engine> {
    engine: Arc<E>,
    products: Products,
}

impl<E: Engine> Tfhe<E> {
    /// A world over an engine.
    #[must_use]
    pub fn new(engine: Arc<E>, products: Products) -> Self {
        Self { engine, products }
    }

    /// Takes in integers of a declared interval.
    ///
    /// # Errors
    /// [`Fault::Shape`] where the number of cells is not the shape's, [`TfheError::TooWide`] where
    /// the interval exceeds a table.
    pub fn admit(
        &self,
        shape: Shape,
        (lo, hi): (i64, i64),
        unit: i16,
        cells: Vec<E::Ct>,
    ) -> Result<Integers<E::Ct>, TfheError> {
        if cells.len() != shape.len() {
            let found = Shape::new(1, 1, cells.len());
            return Err(Fault::Shape { op: "admit", left: found, right: shape }.into());
        }
        let most = self.most() as u64;
        let steps = hi.checked_sub(lo).and_then(|w| u64::try_from(w).ok()).unwrap_or(u64::MAX);
        if steps >= most {
            return Err(TfheError::TooWide { op: "admit", steps: steps.saturating_add(1), most });
        }
        Ok(Integers { shape, lo, hi, unit, noise: 1, cells })
    }

    /// Element-wise with public integers at the tensor's shape.
    fn public<'a>(
        &self,
        a: Shape,
        p: &'a PublicIntegers,
        op: &'static str,
    ) -> Result<impl Fn(usize) -> i64 + use<'a, E>, TfheError> {
        let s = p.shape;
        if !s.broadcasts_to(a) || p.values.len() != s.len() || s.is_empty() {
            return Err(Fault::Shape { op, left: a, right: s }.into());
        }
        Ok(move |at: usize| {
            let (b, i, j) = (at / (a.rows * a.cols), at / a.cols % a.rows, at % a.cols);
            let pick = |i: usize, len: usize| if len == 1 { 0 } else { i };
            let row = pick(b, s.batch) * s.rows + pick(i, s.rows);
            p.values[row * s.cols + pick(j, s.cols)]
        })
    }

    fn unsupported<T>(operator: &'static str, instead: &'static str) -> Result<T, TfheError> {
        let needs = "counts that differ between rows";
        Err(Fault::Unsupported(Unsupported { operator, needs, world: Self::NAME, instead }).into())
    }
}

impl<E: Engine> World for Tfhe<E> {
    const NAME: &'static str = "tfhe";
    type Secret = Integers<E::Ct>;
    type Public = PublicIntegers;
    type Error = TfheError;

    fn shape(&self, x: &Self::Secret) -> Shape {
        x.shape
    }

    fn copy(&mut self, x: &Self::Secret) -> Made<Self> {
        Ok(x.clone())
    }

    fn add(&mut self, a: Self::Secret, b: &Self::Secret, _: Bound) -> Made<Self> {
        self.combine(a, b, 1, "add")
    }

    fn sub(&mut self, a: Self::Secret, b: &Self::Secret, _: Bound) -> Made<Self> {
        self.combine(a, b, -1, "sub")
    }

    fn scale(&mut self, a: Self::Secret, k: Num, _: Bound) -> Made<Self> {
        let unit = a.unit + k.exponent();
        if let Some(product) = self.times(&a, k.mantissa()) {
            return Ok(Integers { unit, ..product });
        }
        // A table, in the finest unit in which the result takes half a table.
        let k = k.to_f64();
        let width = (a.steps() - 1) as f64 * k.abs() / (self.most() / 2 - 1) as f64;
        let by = width.log2().ceil();
        self.tabulate(&a, a.unit + by as i16, |x| (x as f64 * k * (-by).exp2()).round() as i64)
    }

    /// The constant is rounded to the tensor's unit.
    fn offset(&mut self, mut a: Self::Secret, k: Num, _: Bound) -> Made<Self> {
        let k = k.to_fixed(-a.unit);
        a.cells.iter_mut().for_each(|c| self.engine.offset(c, k));
        (a.lo, a.hi) = (a.lo + k, a.hi + k);
        Ok(a)
    }

    /// Public values are rounded to the tensor's unit.
    fn add_public(&mut self, mut a: Self::Secret, p: &Self::Public, _: Bound) -> Made<Self> {
        let value = self.public(a.shape, p, "add_public")?;
        loop {
            let at = |i: usize| Num::new(value(i), p.unit).to_fixed(-a.unit);
            let all = (0..a.shape.len()).map(at);
            let (lo, hi) = all.fold((i64::MAX, i64::MIN), |(lo, hi), x| (lo.min(x), hi.max(x)));
            if a.steps() + (hi - lo) > self.most() {
                a = self.coarsen(&a, 1)?;
                continue;
            }
            let unit = a.unit;
            for (i, cell) in a.cells.iter_mut().enumerate() {
                self.engine.offset(cell, Num::new(value(i), p.unit).to_fixed(-unit));
            }
            (a.lo, a.hi) = (a.lo + lo, a.hi + hi);
            return Ok(a);
        }
    }

    fn mul_public(&mut self, mut a: Self::Secret, p: &Self::Public, _: Bound) -> Made<Self> {
        let value = self.public(a.shape, p, "mul_public")?;
        let largest = p.values.iter().map(|x| x.unsigned_abs()).max().unwrap_or(0);
        if u64::from(self.engine.noise_limit()) < largest {
            let most = u64::from(self.engine.noise_limit());
            return Err(TfheError::TooWide { op: "mul_public: factors", steps: largest, most });
        }
        while u64::from(a.noise) * largest > u64::from(self.engine.noise_limit()) {
            a = self.coarsen(&a, 0)?;
        }
        loop {
            let ends = p.values.iter().flat_map(|k| [a.lo * k, a.hi * k]);
            let (lo, hi) = ends.fold((i64::MAX, i64::MIN), |(lo, hi), x| (lo.min(x), hi.max(x)));
            if hi - lo >= self.most() {
                a = self.coarsen(&a, 1)?;
                continue;
            }
            for (i, cell) in a.cells.iter_mut().enumerate() {
                self.engine.scale(cell, value(i));
            }
            (a.lo, a.hi, a.unit) = (lo, hi, a.unit + p.unit);
            a.noise *= largest as u32;
            return Ok(a);
        }
    }

    fn matmul_public(&mut self, x: &Self::Secret, w: &Self::Public, on: Bound) -> Made<Self> {
        let (left, right) = (x.shape, w.shape);
        if right.batch != 1 || left.cols != right.rows || right.len() != w.values.len() {
            return Err(Fault::Shape { op: "matmul_public", left, right }.into());
        }
        let shape = left.with_cols(right.cols);
        let mut terms = Vec::with_capacity(right.rows);
        for (k, row) in w.values.chunks_exact(right.cols.max(1)).enumerate() {
            let column = self.gather(x, shape, |b, i, _| (b, i, k));
            let shape = Shape::new(1, 1, right.cols);
            let factors = PublicIntegers { shape, unit: w.unit, values: row.to_vec() };
            terms.push(self.mul_public(column, &factors, on)?);
        }
        self.total(terms, Bound { range: None, ..on }, "matmul_public")
    }

    fn sum(&mut self, a: &Self::Secret, axis: Axis, on: Bound) -> Made<Self> {
        let s = a.shape;
        let terms = match axis {
            Axis::Cols => {
                (0..s.cols).map(|j| self.gather(a, s.with_cols(1), |b, i, _| (b, i, j))).collect()
            }
            Axis::Rows => {
                (0..s.rows).map(|i| self.gather(a, s.with_rows(1), |b, _, j| (b, i, j))).collect()
            }
        };
        self.total(terms, widened(on, true), "sum")
    }

    fn rows(&mut self, a: &Self::Secret, from: usize, len: usize) -> Made<Self> {
        let shape = a.shape.with_rows(len);
        if from + len > a.shape.rows {
            return Err(Fault::Shape { op: "rows", left: a.shape, right: shape }.into());
        }
        Ok(self.gather(a, shape, |b, i, j| (b, from + i, j)))
    }

    fn repeat_rows(&mut self, a: &Self::Secret, n: usize) -> Made<Self> {
        self.spread(a, a.shape.with_rows(n), "repeat_rows")
    }

    fn columns(&mut self, a: &Self::Secret, from: usize, len: usize) -> Made<Self> {
        let shape = a.shape.with_cols(len);
        if from + len > a.shape.cols {
            return Err(Fault::Shape { op: "columns", left: a.shape, right: shape }.into());
        }
        Ok(self.gather(a, shape, |b, i, j| (b, i, from + j)))
    }

    fn concat(&mut self, a: Self::Secret, b: &Self::Secret, _: Bound) -> Made<Self> {
        let (s, t) = (a.shape, b.shape);
        if s.with_cols(0) != t.with_cols(0) || a.unit != b.unit {
            return Err(Fault::Shape { op: "concat", left: s, right: t }.into());
        }
        let mut cells = Vec::with_capacity(s.len() + t.len());
        for i in 0..s.batch * s.rows {
            cells.extend_from_slice(&a.cells[i * s.cols..(i + 1) * s.cols]);
            cells.extend_from_slice(&b.cells[i * t.cols..(i + 1) * t.cols]);
        }
        let (lo, hi) = (a.lo.min(b.lo), a.hi.max(b.hi));
        if hi - lo >= self.most() {
            let (steps, most) = ((hi - lo + 1) as u64, self.most() as u64);
            return Err(TfheError::TooWide { op: "concat", steps, most });
        }
        let shape = s.with_cols(s.cols + t.cols);
        Ok(Integers { shape, lo, hi, noise: a.noise.max(b.noise), cells, ..a })
    }

    fn split_heads(&mut self, a: Self::Secret, heads: usize) -> Made<Self> {
        let shape =
            a.shape.split(heads).ok_or(Fault::Parameter { what: "heads", got: heads as i64 })?;
        Ok(self.gather(&a, shape, |b, i, j| (b / heads, i, b % heads * shape.cols + j)))
    }

    fn merge_heads(&mut self, a: Self::Secret, heads: usize) -> Made<Self> {
        let shape =
            a.shape.merge(heads).ok_or(Fault::Parameter { what: "heads", got: heads as i64 })?;
        let d = a.shape.cols;
        Ok(self.gather(&a, shape, |b, i, j| (b * heads + j / d, i, j % d)))
    }

    fn mask(&mut self, mut a: Self::Secret, mask: &Mask<'_>, fill: Num) -> Made<Self> {
        if mask.is_none() {
            return Ok(a);
        }
        if !mask.fits(a.shape) {
            return Err(Fault::Shape { op: "mask", left: a.shape, right: a.shape }.into());
        }
        let integer = fill.to_fixed(-a.unit);
        let (lo, hi) = (a.lo.min(integer), a.hi.max(integer));
        if hi.saturating_sub(lo) >= self.most() {
            let a = self.coarsen(&a, 1)?;
            return self.mask(a, mask, fill);
        }
        let s = a.shape;
        for (at, cell) in a.cells.iter_mut().enumerate() {
            let (b, i, j) = (at / (s.rows * s.cols), at / s.cols % s.rows, at % s.cols);
            if j >= mask.visible(s, b, i) {
                *cell = self.engine.constant(integer);
            }
        }
        (a.lo, a.hi) = (lo, hi);
        Ok(a)
    }

    fn divide_by_count(
        &mut self,
        mut a: Self::Secret,
        mask: &Mask<'_>,
        keys: usize,
        on: Bound,
    ) -> Made<Self> {
        if !mask.is_none() {
            return Self::unsupported("divide_by_count under a mask", "a row sum");
        }
        if keys.is_power_of_two() {
            a.unit -= keys.ilog2() as i16;
            return Ok(a);
        }
        self.scale(a, Num::of(1.0 / keys as f64), on)
    }
}

impl<E: Engine> Approximate for Tfhe<E> {
    /// One table. Arguments outside the domain are taken as its nearest end; the result has the
    /// finest unit in which its range takes half a table.
    fn map(&mut self, a: Self::Secret, f: Function, domain: Bound, on: Bound) -> Made<Self> {
        let (lo, hi) = match domain.range {
            Some(range) => in_units(range, a.unit),
            None => (a.lo, a.hi),
        };
        let (lo, hi) = (lo.clamp(a.lo, a.hi), hi.clamp(a.lo, a.hi));
        let positive = matches!(f, Function::Reciprocal | Function::Rsqrt);
        if positive && hi < 1 {
            let got = hi;
            return Err(Fault::Parameter { what: "upper end of a positive domain", got }.into());
        }
        let lo = if positive { lo.max(1) } else { lo };
        let real = f64::from(a.unit).exp2();
        let y = |x: i64| crate::world::function_value(f, x.clamp(lo, hi) as f64 * real);
        let ends = match on.range {
            Some(range) => (range.lo.to_f64(), range.hi.to_f64()),
            None => (lo..=hi).map(y).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v))),
        };
        let unit = ((ends.1 - ends.0) / (self.most() / 2 - 1) as f64).log2().ceil().max(-64.0);
        let fit = |y: f64| (y * (-unit).exp2()).round() as i64;
        let (least, most) = (fit(ends.0), fit(ends.1));
        self.tabulate(&a, unit as i16, |x| fit(y(x)).clamp(least, most))
    }
}
