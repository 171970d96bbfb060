//! The shared world: the core's operators and encoders between two parties.
//!
//! [`Mpc`] implements the world traits in each of its roles, so an encoder is planned, dealt for
//! and run by one piece of code. The client (party 0) brings the input and learns the output; the
//! server (party 1) brings the weights. Both know the architecture and the calibrated ranges.
//!
//! A tensor is shares, with what was opened of it kept beside: opening happens when a product, a
//! comparison or a function needs it, once, and truncation as late as the ring allows.

mod fused;
mod host;

pub use fused::Fused;

use crate::mpc::{Mpc, Shared, Wire};
use crate::protocol::fit;
use crate::ring::Product;
use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use undertone_core::{
    Approximate, Axis, Bound, Compare, Form, Function, Made, Mask, Multiply, Num, Shape, World,
    check,
};

/// log₂ of the magnitude assumed where no range is known.
const UNKNOWN: i32 = 6;
/// log₂ of the greatest magnitude assumed anywhere: what operands could reach in theory grows from
/// layer to layer, what they do reach does not.
const LARGEST: i32 = 20;
/// log₂ of the least magnitude that is made use of: smaller tensors keep more fraction bits.
const SMALLEST: i32 = -12;
/// Bits of a public factor that is no power of two.
const FACTOR: u32 = 14;
/// Absolute error asked of functions with tails.
const TOLERANCE: f64 = 4e-5;
/// Relative error asked of inverses.
const INVERSE: f64 = 2e-5;
/// Bits that an operand is opened with beyond what its first use needs, for the next.
const SPARE: u32 = 8;
/// Calibrated domains of inverses are widened by this factor at both ends.
const MARGIN: f64 = 1.5;

/// What was made of a tensor so far, by the branch that made it. A branch sees what its ancestors
/// made before and what it made itself: that does not depend on how branches are scheduled.
#[derive(Default)]
struct Cache {
    settled: Vec<(u64, Arc<Shared>)>,
    wires: Vec<(u64, Arc<Wire>)>,
}

/// A secret tensor.
pub struct Secret {
    value: Arc<Shared>,
    /// |x| ≤ 2^range
    range: i32,
    cache: Arc<Mutex<Cache>>,
}

impl Secret {
    fn new(value: Shared, range: i32) -> Self {
        Self { value: Arc::new(value), range, cache: Arc::default() }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn same(&self) -> Self {
        let (value, cache) = (Arc::clone(&self.value), Arc::clone(&self.cache));
        Self { value, range: self.range, cache }
    }
}

/// A weight that the server holds, open under its mask for the whole session.
pub struct Held {
    wire: Wire,
    bias: Option<Shared>,
    range: i32,
}

/// Whether what branch `made` has made is visible to branch `here`.
const fn visible(made: u64, here: u64) -> bool {
    let (a, b) = (made.leading_zeros(), here.leading_zeros());
    a >= b && here >> (a - b) == made
}

/// log₂ of the magnitude: the declared range with a factor of two to spare, or what the operands
/// say where that is less.
fn magnitude(on: Bound, derived: i32) -> i32 {
    let declared = on.range.map_or(LARGEST, |r| i32::from(r.ceil_log2()) + 1);
    derived.min(declared).clamp(SMALLEST, LARGEST)
}

fn log2_ceil(n: usize) -> i32 {
    n.next_power_of_two().trailing_zeros() as i32
}

impl Mpc {
    /// The coarsest known form of a tensor.
    fn best(&self, x: &Secret) -> Arc<Shared> {
        let here = self.path();
        let cache = x.cache();
        let settled = cache.settled.iter().find(|(made, _)| visible(*made, here));
        settled.map_or_else(|| Arc::clone(&x.value), |(_, s)| Arc::clone(s))
    }

    /// Bits that a tensor of this range takes at a scale.
    fn room(scale: u32, range: i32) -> u32 {
        (scale as i32 + range + 2).max(4) as u32
    }

    /// The scale at which a tensor is settled: a small one keeps as many significant bits as one
    /// of magnitude one.
    fn target(&self, x: &Secret) -> u32 {
        self.format().fraction + (-x.range).max(0) as u32
    }

    /// Bits that the product of two tensors takes.
    fn product_room(&self, a: &Secret, b: &Secret, range: i32) -> u32 {
        Self::room(self.target(a) + self.target(b), range)
    }

    /// Tensors at their settled scale modulo 2^64, in one exchange for those that are not yet.
    fn settled(&mut self, tensors: &[&Secret]) -> Result<Vec<Arc<Shared>>> {
        let forms: Vec<Arc<Shared>> = tensors.iter().map(|x| self.best(x)).collect();
        let done = |x: &Secret, s: &Shared| s.scale <= self.target(x) && s.bits == 64;
        let todo: Vec<bool> = tensors.iter().zip(&forms).map(|(x, s)| !done(x, s)).collect();
        let pending: Vec<(&Shared, u32)> = tensors
            .iter()
            .zip(&forms)
            .zip(&todo)
            .filter(|(_, todo)| **todo)
            .map(|((x, s), _)| (&**s, self.target(x).min(s.scale)))
            .collect();
        let mut fresh = Vec::new();
        if !pending.is_empty() {
            fresh = self.settle_to(&pending)?;
        }
        let mut fresh = fresh.into_iter();
        let mut out = Vec::with_capacity(forms.len());
        for ((x, form), todo) in tensors.iter().zip(&forms).zip(todo) {
            match if todo { fresh.next() } else { None } {
                Some(new) => {
                    let new = Arc::new(new);
                    x.cache().settled.push((self.path(), Arc::clone(&new)));
                    out.push(new);
                }
                None => out.push(Arc::clone(form)),
            }
        }
        Ok(out)
    }

    /// Tensors open at the settled scale, each with at least `needed` bits: one exchange, or one
    /// more where some must be settled first, or none where all were open.
    fn operands(&mut self, tensors: &[&Secret], needed: u32) -> Result<Vec<Arc<Wire>>> {
        let (fraction, here) = (self.format().fraction, self.path());
        let target = |x: &Secret| fraction + (-x.range).max(0) as u32;
        let open = |x: &Secret| {
            let cache = x.cache();
            let fits = |w: &Wire| w.bits >= needed && w.scale <= target(x);
            let wire = cache.wires.iter().find(|(made, w)| visible(*made, here) && fits(w));
            wire.map(|(_, w)| Arc::clone(w))
        };
        // A tensor may be given twice.
        let mut todo: Vec<&Secret> = Vec::new();
        for x in tensors {
            if open(x).is_none() && !todo.iter().any(|t| Arc::ptr_eq(&t.cache, &x.cache)) {
                todo.push(x);
            }
        }
        let direct = |x: &Secret, s: &Shared| s.bits >= needed + s.scale.saturating_sub(target(x));
        let tight: Vec<&Secret> =
            todo.iter().filter(|x| !direct(x, &self.best(x))).copied().collect();
        self.settled(&tight)?;
        let forms: Vec<Shared> = todo
            .iter()
            .map(|x| {
                let form = self.best(x);
                let drop = form.scale.saturating_sub(target(x));
                let bits = (needed + drop).max(Self::room(form.scale, x.range)) + SPARE;
                self.narrow(&form, bits)
            })
            .collect();
        if !forms.is_empty() {
            let wires = self.open(&forms.iter().collect::<Vec<_>>())?;
            for (x, wire) in todo.iter().zip(wires) {
                let by = wire.scale.saturating_sub(target(x));
                let wire = if by == 0 { wire } else { self.reduce(&wire, by)? };
                x.cache().wires.push((here, Arc::new(wire)));
            }
        }
        let lost = || Error::shape("operands", "an open tensor", "none");
        tensors.iter().map(|x| open(x).ok_or_else(lost)).collect()
    }

    /// Both at one scale with room for a result of `range`; settled where there is none.
    fn aligned(&mut self, a: &Secret, b: &Secret, range: i32) -> Result<[Arc<Shared>; 2]> {
        let (x, y) = (self.best(a), self.best(b));
        let scale = x.scale.max(y.scale);
        if x.bits.min(y.bits) >= Self::room(scale, range) {
            return Ok([x, y]);
        }
        let mut both = self.settled(&[a, b])?;
        let y = both.pop();
        let x = both.pop();
        match (x, y) {
            (Some(x), Some(y)) => Ok([x, y]),
            _ => Err(Error::shape("align", 2, 0)),
        }
    }

    /// A tensor with room for `more` fraction bits and a result of `range`.
    fn roomy(&mut self, a: &Secret, more: u32, range: i32) -> Result<Arc<Shared>> {
        let x = self.best(a);
        if x.bits >= Self::room(x.scale + more, range) {
            return Ok(x);
        }
        let mut x = self.settled(&[a])?;
        x.pop().ok_or_else(|| Error::shape("settle", 1, 0))
    }

    fn moved(&self, x: &Secret, shape: Shape, from: impl Iterator<Item = usize>) -> Secret {
        Secret::new(self.best(x).gather(shape, from), x.range)
    }

    /// Shows only the column of each row's maximum, and only to the client.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn reveal_argmax(&mut self, x: &Secret) -> Result<Option<Vec<usize>>> {
        let settled = self.settled(&[x])?;
        let bits = Self::room(settled[0].scale, x.range + 1);
        let narrow = self.narrow(&settled[0], bits);
        let index = self.argmax_rows(&narrow)?;
        let shown = self.reveal(&index, 0)?;
        Ok(shown.map(|v| v.iter().map(|x| *x as usize).collect()))
    }
}

impl World for Mpc {
    const NAME: &'static str = "shared";
    type Secret = Secret;
    type Public = Held;
    type Error = Error;

    fn shape(&self, x: &Secret) -> Shape {
        x.value.shape
    }

    fn copy(&mut self, x: &Secret) -> Made<Self> {
        Ok(x.same())
    }

    fn add(&mut self, a: Secret, b: &Secret, on: Bound) -> Made<Self> {
        check::broadcast("add", a.value.shape, b.value.shape)?;
        let range = magnitude(on, a.range.max(b.range) + 1);
        let [x, y] = self.aligned(&a, b, range)?;
        Ok(Secret::new(x.plus(&y), range))
    }

    fn sub(&mut self, a: Secret, b: &Secret, on: Bound) -> Made<Self> {
        check::broadcast("sub", a.value.shape, b.value.shape)?;
        let range = magnitude(on, a.range.max(b.range) + 1);
        let [x, y] = self.aligned(&a, b, range)?;
        Ok(Secret::new(x.minus(&y), range))
    }

    fn scale(&mut self, a: Secret, k: Num, on: Bound) -> Made<Self> {
        let k = k.to_f64();
        let grow = if k == 0.0 { 0 } else { libm::ceil(libm::log2(k.abs())) as i32 };
        let range = magnitude(on, a.range + grow);
        // What the scale gains at most, less what the value loses.
        let more = FACTOR + (-grow).max(0) as u32 + 1;
        let x = self.roomy(&a, more, range.max(a.range + grow))?;
        Ok(Secret::new(self.scaled(&x, k, FACTOR), range))
    }

    fn offset(&mut self, a: Secret, k: Num, on: Bound) -> Made<Self> {
        let k = k.to_f64();
        let grown = if k == 0.0 { a.range } else { libm::ceil(libm::log2(k.abs())) as i32 };
        let range = magnitude(on, a.range.max(grown) + 1);
        let x = self.roomy(&a, 0, range)?;
        Ok(Secret::new(self.offset_real(&x, k), range))
    }

    fn add_public(&mut self, a: Secret, p: &Held, on: Bound) -> Made<Self> {
        check::broadcast("add_public", a.value.shape, p.wire.shape)?;
        let range = magnitude(on, a.range.max(p.range) + 1);
        let x = self.roomy(&a, 0, range)?;
        Ok(Secret::new(x.plus(&self.share(&p.wire)), range))
    }

    fn mul_public(&mut self, a: Secret, p: &Held, on: Bound) -> Made<Self> {
        check::broadcast("mul_public", a.value.shape, p.wire.shape)?;
        let range = magnitude(on, a.range + p.range);
        let needed = Self::room(self.target(&a) + p.wire.scale, range);
        let x = self.operands(&[&a], needed)?;
        Ok(Secret::new(Self::mul(self, &x[0], &p.wire)?, range))
    }

    fn matmul_public(&mut self, x: &Secret, w: &Held, on: Bound) -> Made<Self> {
        let Shape { rows: inputs, cols: outputs, .. } = w.wire.shape;
        let shape = check::linear(x.value.shape, inputs, outputs)?;
        let range = magnitude(on, x.range + w.range + log2_ceil(inputs));
        let needed = Self::room(self.target(x) + w.wire.scale, range);
        let wire = self.operands(&[x], needed)?;
        let of = Product {
            batch: 1,
            n: shape.batch * shape.rows,
            k: inputs,
            m: outputs,
            form: Form::Nn,
            shared: true,
        };
        let product = Self::matmul(self, &of, &wire[0], &w.wire)?;
        let product = Shared::new(shape, product.bits, product.scale, product.into_lane());
        let product = match &w.bias {
            Some(bias) => product.plus(bias),
            None => product,
        };
        Ok(Secret::new(product, range))
    }

    fn sum(&mut self, a: &Secret, axis: Axis, on: Bound) -> Made<Self> {
        let shape = a.value.shape;
        let terms = if axis == Axis::Cols { shape.cols } else { shape.rows };
        let derived = a.range + log2_ceil(terms);
        let range = magnitude(on, derived);
        let x = self.roomy(a, 0, range)?;
        Ok(Secret::new(x.total(axis), range))
    }

    fn rows(&mut self, a: &Secret, from: usize, len: usize) -> Made<Self> {
        let s = a.value.shape;
        let shape = check::slice("rows", s, from, len, Axis::Rows)?;
        let at = (0..s.batch).flat_map(|b| {
            let start = (b * s.rows + from) * s.cols;
            start..start + len * s.cols
        });
        Ok(self.moved(a, shape, at))
    }

    fn repeat_rows(&mut self, a: &Secret, n: usize) -> Made<Self> {
        let s = a.value.shape;
        if s.rows != 1 {
            return Err(Error::shape("repeat_rows", "one row", s.rows));
        }
        let shape = s.with_rows(n);
        Ok(Secret::new(self.best(a).broadcast_to(shape), a.range))
    }

    fn columns(&mut self, a: &Secret, from: usize, len: usize) -> Made<Self> {
        let s = a.value.shape;
        let shape = check::slice("columns", s, from, len, Axis::Cols)?;
        let at = (0..s.batch * s.rows).flat_map(|r| {
            let start = r * s.cols + from;
            start..start + len
        });
        Ok(self.moved(a, shape, at))
    }

    fn concat(&mut self, a: Secret, b: &Secret, on: Bound) -> Made<Self> {
        check::beside(a.value.shape, b.value.shape)?;
        let range = magnitude(on, a.range.max(b.range));
        let [x, y] = self.aligned(&a, b, range)?;
        Ok(Secret::new(self.beside(&x, &y), range))
    }

    fn split_heads(&mut self, a: Secret, heads: usize) -> Made<Self> {
        let s = a.value.shape;
        let to = check::split(s, heads)?;
        let at = (0..to.batch).flat_map(|b| {
            let (image, head) = (b / heads, b % heads);
            (0..s.rows).flat_map(move |r| {
                let start = (image * s.rows + r) * s.cols + head * to.cols;
                start..start + to.cols
            })
        });
        Ok(self.moved(&a, to, at))
    }

    fn merge_heads(&mut self, a: Secret, heads: usize) -> Made<Self> {
        let s = a.value.shape;
        let to = check::merge(s, heads)?;
        let at = (0..to.batch * to.rows).flat_map(|row| {
            let (image, r) = (row / to.rows, row % to.rows);
            (0..heads).flat_map(move |head| {
                let start = ((image * heads + head) * s.rows + r) * s.cols;
                start..start + s.cols
            })
        });
        Ok(self.moved(&a, to, at))
    }

    fn mask(&mut self, a: Secret, mask: &Mask<'_>, fill: Num) -> Made<Self> {
        let s = a.value.shape;
        check::mask(s, s.cols, mask)?;
        if mask.is_none() {
            return Ok(a);
        }
        let k = fill.to_f64();
        let grown = if k == 0.0 { a.range } else { libm::ceil(libm::log2(k.abs())) as i32 };
        let range = a.range.max(grown);
        let x = self.roomy(&a, 0, range)?;
        let filled = self.offset_real(&self.zeros(s, x.bits, x.scale), k);
        let hidden = move |i: usize| {
            let (row, col) = (i / s.cols, i % s.cols);
            col >= mask.visible(s, row / s.rows, row % s.rows)
        };
        Ok(Secret::new(x.choose(&filled, hidden), range))
    }

    fn divide_by_count(
        &mut self,
        a: Secret,
        mask: &Mask<'_>,
        keys: usize,
        on: Bound,
    ) -> Made<Self> {
        let s = a.value.shape;
        check::mask(s, keys, mask)?;
        let range = magnitude(on, a.range);
        // 1/count keeps its significant bits.
        let gain = FACTOR + log2_ceil(keys) as u32;
        let x = self.roomy(&a, gain, a.range)?;
        let of = s.with_cols(keys);
        let factor = |i: usize| {
            let row = i / s.cols;
            let count = mask.visible(of, row / s.rows, row % s.rows).max(1);
            libm::rint(libm::ldexp(1.0 / count as f64, gain as i32)) as i64
        };
        Ok(Secret::new(x.times_each(factor).halved(gain), range))
    }

    fn join<A, B>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<A> + Send,
        g: impl FnOnce(&mut Self) -> Result<B> + Send,
    ) -> Result<(A, B)>
    where
        A: Send,
        B: Send,
    {
        Self::join(self, f, g)
    }

    /// The encoder names the halves of its layers in turn; here they get the layer's number, and
    /// each is a chunk of streamed preprocessing.
    fn phase(&mut self, name: &'static str) {
        self.due = true;
        match (name, self.layer) {
            ("embedding", _) => self.layer = None,
            ("attention", layer) => self.layer = Some(layer.map_or(0, |l| l + 1)),
            ("head", _) => self.layer = None,
            _ => {}
        }
        match self.layer {
            Some(layer) => Self::phase(self, &format!("layer {layer} {name}")),
            None => Self::phase(self, name),
        }
    }
}

impl Multiply for Mpc {
    fn mul(&mut self, a: Secret, b: &Secret, on: Bound) -> Made<Self> {
        check::broadcast("mul", a.value.shape, b.value.shape)?;
        let range = magnitude(on, a.range + b.range);
        let needed = self.product_room(&a, b, range);
        let wires = self.operands(&[&a, b], needed)?;
        Ok(Secret::new(Self::mul(self, &wires[0], &wires[1])?, range))
    }

    fn square(&mut self, a: Secret, on: Bound) -> Made<Self> {
        let range = magnitude(on, 2 * a.range);
        let needed = self.product_room(&a, &a, range);
        let wire = self.operands(&[&a], needed)?;
        Ok(Secret::new(Self::square(self, &wire[0])?, range))
    }

    fn matmul(&mut self, a: &Secret, b: &Secret, form: Form, on: Bound) -> Made<Self> {
        let (x, y) = (a.value.shape, b.value.shape);
        let shape = check::product(x, y, form)?;
        let inner = if form == Form::Tn { x.rows } else { x.cols };
        let range = magnitude(on, a.range + b.range + log2_ceil(inner));
        let needed = self.product_room(a, b, range);
        let wires = self.operands(&[a, b], needed)?;
        let of = Product {
            batch: shape.batch,
            n: shape.rows,
            k: inner,
            m: shape.cols,
            form,
            shared: false,
        };
        Ok(Secret::new(Self::matmul(self, &of, &wires[0], &wires[1])?, range))
    }
}

impl Approximate for Mpc {
    fn map(&mut self, a: Secret, f: Function, domain: Bound, on: Bound) -> Made<Self> {
        let ends = domain.range.map(|r| (r.lo.to_f64(), r.hi.to_f64()));
        match f {
            Function::Exp => {
                let top = ends.map_or(0.0, |(_, hi)| hi) + 0.25;
                // The window must fit as well as the value.
                let range = a.range.max(4) + 1;
                let x = self.roomy(&a, 0, range)?;
                let x = self.narrow(&x, Self::room(x.scale, range));
                let y = self.exp(&x, top)?;
                let grown = libm::ceil(top.max(0.0) * std::f64::consts::LOG2_E) as i32;
                self.finish(y, magnitude(on, grown))
            }
            Function::Reciprocal | Function::Rsqrt => {
                let (lo, hi) = ends.filter(|(lo, _)| *lo > 0.0).map_or_else(
                    || {
                        let wide = f64::from(a.range.clamp(1, 24));
                        (libm::exp2(-10.0), libm::exp2(wide))
                    },
                    |(lo, hi)| (lo / MARGIN, hi * MARGIN),
                );
                let settled = self.settled(&[&a])?;
                let y = self.inverse(&settled[0], f, (lo, hi), INVERSE)?;
                let most =
                    if f == Function::Rsqrt { libm::exp2(-0.5 * libm::log2(lo)) } else { 1.0 / lo };
                let derived = libm::ceil(libm::log2(most)) as i32 + 1;
                Ok(Secret::new(y, magnitude(on, derived)))
            }
            _ => {
                let series = fit(f, TOLERANCE)?;
                let range = a.range.max(series.period);
                let x = self.roomy(&a, 0, range)?;
                let x = self.narrow(&x, Self::room(x.scale, range));
                let y = self.apply(&x, &series)?;
                let derived = if series.right.0 { a.range.max(0) + 1 } else { 1 };
                self.finish(y, magnitude(on, derived))
            }
        }
    }
}

impl Mpc {
    /// A result of many fraction bits, settled.
    fn finish(&mut self, y: Shared, range: i32) -> Result<Secret> {
        Ok(Secret::new(self.settle(&y)?, range))
    }
}

impl Compare for Mpc {
    fn relu(&mut self, a: Secret, on: Bound) -> Made<Self> {
        let fraction = self.format().fraction;
        let x = self.best(&a);
        // Wide enough for a product to follow without settling first.
        let bits = Self::room(x.scale.max(2 * fraction), a.range + 4);
        let x = self.narrow(&x, bits);
        Ok(Secret::new(Self::relu(self, &x)?, magnitude(on, a.range)))
    }

    fn max(&mut self, a: &Secret) -> Made<Self> {
        let x = self.settled(&[a])?;
        let bits = Self::room(x[0].scale, a.range.max(4) + 1);
        let x = self.narrow(&x[0], bits);
        Ok(Secret::new(self.max_rows(&x)?, a.range))
    }
}
