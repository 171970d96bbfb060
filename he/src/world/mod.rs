//! The CKKS world: `undertone-core`'s operators on ciphertexts.
//!
//! A [`Ckks`] world computes through an [`Engine`]: with an [`Evaluator`](crate::ckks::Evaluator)
//! it runs, with a [`Ledger`] it plans. Both go through the same code.
//!
//! Public affine maps are composed in the clear and computed only where a product of secrets
//! needs them: see [`Packed`].

mod clear;
mod engine;
mod error;
mod function;
mod head;
mod menu;
mod packing;
mod products;
mod settle;
mod tensor;
#[cfg(all(test, feature = "client"))]
mod tests;

pub use clear::{Clear, Slots};
pub use engine::{Engine, Ledger, Phase, Planned};
pub use error::HeError;
pub(crate) use function::value as function_value;
pub use function::{Accuracy, Doubling};
pub use head::{Head, HeadInputs, HeadSlots};
pub use menu::Encrypted;
pub use packing::{Layout, Packing};
pub use tensor::Packed;

use std::sync::Arc;

use undertone_core::{Axis, Bound, Fault, Made, Mask, Num, Shape, World, check};

use self::tensor::{Affine, Base, Bias, Held, Value};
use crate::ckks::{Automorphism, CkksError};

/// A prepared public operand, kept as numbers: it is encoded when the level is known.
#[derive(Clone, Debug)]
pub struct PublicMatrix {
    /// Its shape.
    pub shape: Shape,
    /// Its elements, row by row.
    pub values: Vec<f64>,
    /// What a linear layer adds to every row.
    pub bias: Option<Vec<f64>>,
}

/// The world.
pub struct Ckks<E: Engine> {
    engine: Arc<E>,
    accuracy: Accuracy,
    layer: Option<usize>,
}

impl<E: Engine + Sync> Ckks<E> {
    /// A world over an engine.
    #[must_use]
    pub fn new(engine: Arc<E>, accuracy: Accuracy) -> Self {
        Self { engine, accuracy, layer: None }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<E> {
        &self.engine
    }

    /// Takes in an encrypted matrix of all heads side by side. Decrypted slots times `factor`
    /// are the values.
    ///
    /// # Errors
    /// [`Fault::Shape`] where the number of ciphertexts is not the layout's.
    pub fn admit(
        &self,
        packing: Packing,
        layout: Layout,
        factor: f64,
        cts: Vec<E::Ct>,
    ) -> Result<Packed<E::Ct>, HeError> {
        let shape = Shape::new(1, packing.tokens, packing.features);
        let wanted = packing.count(layout);
        if cts.len() != wanted {
            let (left, right) = (Shape::new(1, 1, cts.len()), Shape::new(1, 1, wanted));
            return Err(Fault::Shape { op: "admit: ciphertexts", left, right }.into());
        }
        Ok(Packed::held(shape, packing, Held { layout, factor, cts }))
    }

    /// Takes in a matrix of few columns that stands in one ciphertext twice: with the queries'
    /// period as real part, with the keys' as imaginary part, each column in as many adjacent
    /// blocks as there is room for ([`Packing::pack_input`]).
    ///
    /// # Errors
    /// A missing key for conjugation, more columns than blocks.
    pub fn admit_input(
        &self,
        packing: Packing,
        columns: usize,
        ct: &E::Ct,
    ) -> Result<Packed<E::Ct>, HeError> {
        let replicas = packing.replicas(columns)?;
        let e = &self.engine;
        let conjugate = e.apply_each(ct, &[Automorphism::Conjugate])?.swap_remove(0);
        let real = e.add(ct, &conjugate)?;
        let imaginary = e.mul_i(&e.sub(&conjugate, ct)?)?;
        let base = Base {
            once: vec![real],
            repeats: true,
            rolling: Some(vec![imaginary]),
            columns,
            replicas,
            factor: 0.5,
            cache: Default::default(),
        };
        let shape = Shape::new(1, packing.tokens, columns);
        Ok(Packed { shape, packing, value: Value::Waiting(Affine::of(base)) })
    }

    /// The sum over `count` positions that are `stride` slots apart, cyclically: up to five at a
    /// time, which costs least in key switches and keys together.
    fn cyclic_sum(&self, a: &E::Ct, stride: usize, count: usize) -> Result<E::Ct, CkksError> {
        let (mut sum, mut done) = (a.clone(), 1);
        while done < count {
            let rest = count / done;
            let radix = [4, 3, 2, 5].into_iter().find(|r| rest.is_multiple_of(*r)).unwrap_or(rest);
            let each: Vec<_> =
                (1..radix).map(|k| Automorphism::Rotate((stride * done * k) as i64)).collect();
            sum = self.engine.add_images(&sum, &each)?;
            done *= radix;
        }
        Ok(sum)
    }

    /// Brings a ciphertext to a level, times c if that is free; returns the factor applied.
    fn lower(&self, a: &E::Ct, level: usize, c: f64) -> Result<(E::Ct, f64), CkksError> {
        if self.engine.meta(a).level == level {
            Ok((a.clone(), 1.0))
        } else {
            self.engine.level_down_by(a, level, c)
        }
    }

    fn held_level(&self, a: &Held<E::Ct>) -> usize {
        a.cts.iter().map(|c| self.engine.meta(c).level).min().unwrap_or(0)
    }

    /// Both operands with one factor and level, for addition.
    fn aligned(
        &self,
        a: &Held<E::Ct>,
        b: &Held<E::Ct>,
        op: &'static str,
    ) -> Result<[Held<E::Ct>; 2], HeError> {
        let (la, lb) = (self.held_level(a), self.held_level(b));
        let mut level = la.min(lb);
        let same_factor = (a.factor / b.factor - 1.0).abs() < 1e-12;
        if la == lb && !same_factor {
            level = level.checked_sub(1).ok_or(CkksError::LevelExhausted {
                operation: op,
                needed: 1,
                available: 0,
            })?;
        }
        // The higher operand takes the other's factor on its way down.
        let factor = if la > lb || (la == lb && !same_factor) { b.factor } else { a.factor };
        Ok([self.brought(a, level, factor)?, self.brought(b, level, factor)?])
    }

    /// At a level, with a factor if a level lies between.
    fn brought(&self, a: &Held<E::Ct>, level: usize, factor: f64) -> Result<Held<E::Ct>, HeError> {
        let mut applied = 1.0;
        let mut cts = Vec::with_capacity(a.cts.len());
        for ct in &a.cts {
            let (ct, f) = self.lower(ct, level, a.factor / factor)?;
            applied = f;
            cts.push(ct);
        }
        Ok(Held { cts, factor: a.factor / applied, ..*a })
    }

    /// Public values in the slots of held ciphertexts, for each of them.
    fn public_slots(
        p: &PublicMatrix,
        like: &Packed<E::Ct>,
        held: &Held<E::Ct>,
        op: &'static str,
    ) -> Result<Vec<Vec<f64>>, HeError> {
        let (shape, packing, right) = (like.shape, like.packing, p.shape);
        let fits = right.batch == 1
            && right.broadcasts_to(Shape { batch: 1, ..shape })
            && p.values.len() == right.len();
        if !fits {
            return Err(Fault::Shape { op, left: shape, right }.into());
        }
        if !matches!(held.layout, Layout::Spread | Layout::Sparse) {
            return Err(HeError::Layout { op, found: held.layout, wanted: Layout::Sparse });
        }
        let slots = |ct: usize| {
            packing.fill(held.layout, 0.0, |f, _, i| {
                let c = ct * packing.features + packing.column_of(f);
                let column = if right.cols == 1 { 0 } else { c % shape.cols };
                let row = if right.rows == 1 { 0 } else { i };
                if c < like.columns() { p.values[row * right.cols + column] } else { 0.0 }
            })
        };
        Ok((0..held.cts.len()).map(slots).collect())
    }

    fn unsupported<T>(operator: &'static str, instead: &'static str) -> Result<T, HeError> {
        Err(Fault::Unsupported(undertone_core::Unsupported {
            operator,
            needs: "a change of layout",
            world: Self::NAME,
            instead,
        })
        .into())
    }

    fn same(&self, x: &Packed<E::Ct>) -> Packed<E::Ct> {
        let value = match &x.value {
            Value::Held(held) => Value::Held(held.clone()),
            Value::Waiting(affine) => Value::Waiting(affine.clone()),
        };
        Packed { shape: x.shape, packing: x.packing, value }
    }

    /// The tensor's affine image changed by f, with a new shape.
    fn map_affine(
        x: Packed<E::Ct>,
        shape: Shape,
        op: &'static str,
        f: impl FnOnce(Affine<E::Ct>) -> Affine<E::Ct>,
    ) -> Made<Self> {
        let packing = x.packing;
        Ok(Packed { shape, packing, value: Value::Waiting(f(x.affine(op)?)) })
    }

    fn sum_of(
        &self,
        a: Packed<E::Ct>,
        b: &Packed<E::Ct>,
        sign: f64,
        op: &'static str,
    ) -> Made<Self> {
        if !b.shape.broadcasts_to(a.shape) || a.packing != b.packing {
            return Err(Fault::Shape { op, left: a.shape, right: b.shape }.into());
        }
        let (shape, packing) = (a.shape, a.packing);
        if let (Value::Held(x), Value::Held(y)) = (&a.value, &b.value)
            && a.shape == b.shape
            && x.layout == y.layout
        {
            let [x, y] = self.aligned(x, y, op)?;
            let cts =
                self.pairwise(
                    &x.cts,
                    &y.cts,
                    |e, x, y| {
                        if sign < 0.0 { e.sub(x, y) } else { e.add(x, y) }
                    },
                )?;
            return Ok(Packed::held(shape, packing, Held { cts, ..x }));
        }
        let shapes = [a.shape, b.shape];
        let sum = a.affine(op)?.plus(&self.same(b).affine(op)?, sign, op, shapes)?;
        Ok(Packed { shape, packing, value: Value::Waiting(sum) })
    }
}

impl<E: Engine + Sync> World for Ckks<E> {
    const NAME: &'static str = "ckks";
    type Secret = Packed<E::Ct>;
    type Public = PublicMatrix;
    type Error = HeError;

    fn shape(&self, x: &Self::Secret) -> Shape {
        x.shape
    }

    fn copy(&mut self, x: &Self::Secret) -> Made<Self> {
        Ok(self.same(x))
    }

    fn add(&mut self, a: Self::Secret, b: &Self::Secret, _: Bound) -> Made<Self> {
        self.sum_of(a, b, 1.0, "add")
    }

    fn sub(&mut self, a: Self::Secret, b: &Self::Secret, _: Bound) -> Made<Self> {
        self.sum_of(a, b, -1.0, "sub")
    }

    fn scale(&mut self, mut a: Self::Secret, k: Num, _: Bound) -> Made<Self> {
        let k = k.to_f64();
        match &mut a.value {
            Value::Held(held) => held.factor *= k,
            Value::Waiting(_) => {
                let shape = a.shape;
                return Self::map_affine(a, shape, "scale", |x| x.scaled(|_| k));
            }
        }
        Ok(a)
    }

    fn offset(&mut self, mut a: Self::Secret, k: Num, _: Bound) -> Made<Self> {
        let (k, columns) = (k.to_f64(), a.columns());
        match &mut a.value {
            Value::Held(held) => {
                let stored = k / held.factor;
                held.cts = self.each(&held.cts, |e, x| e.add_scalar(x, stored))?;
            }
            Value::Waiting(x) => x.add_bias(&Bias { rows: 1, values: vec![k; columns] }),
        }
        Ok(a)
    }

    fn add_public(&mut self, mut a: Self::Secret, p: &Self::Public, _: Bound) -> Made<Self> {
        if let Value::Held(held) = &a.value {
            let slots = Self::public_slots(p, &a, held, "add_public")?;
            let stored = slots
                .iter()
                .map(|s| s.iter().map(|x| x / held.factor).collect())
                .collect::<Vec<Vec<_>>>();
            let sums = held.cts.iter().zip(&stored).map(|(ct, s)| self.engine.add_slots(ct, s));
            let held = Held { cts: sums.collect::<Result<_, _>>()?, ..*held };
            return Ok(Packed::held(a.shape, a.packing, held));
        }
        let shape = Shape { batch: 1, rows: a.shape.rows, cols: a.columns() };
        if !p.shape.broadcasts_to(shape) || p.values.len() != p.shape.len() {
            return Err(Fault::Shape { op: "add_public", left: a.shape, right: p.shape }.into());
        }
        let mut values = p.values.clone();
        if p.shape.cols == 1 && shape.cols > 1 {
            values = values.iter().flat_map(|&x| std::iter::repeat_n(x, shape.cols)).collect();
        }
        if let Value::Waiting(x) = &mut a.value {
            x.add_bias(&Bias { rows: p.shape.rows, values });
        }
        Ok(a)
    }

    fn mul_public(&mut self, a: Self::Secret, p: &Self::Public, _: Bound) -> Made<Self> {
        let shape = a.shape;
        if p.shape.batch == 1 && p.shape.rows == 1 && shape.batch == 1 {
            check::broadcast("mul_public", shape, p.shape)?;
            let by = |c: usize| p.values[if p.shape.cols == 1 { 0 } else { c }];
            return Self::map_affine(a, shape, "mul_public", |x| x.scaled(by));
        }
        let a = self.settle(a)?;
        let Value::Held(held) = &a.value else {
            return Err(Fault::Stale { op: "mul_public" }.into());
        };
        let slots = Self::public_slots(p, &a, held, "mul_public")?;
        let e = &self.engine;
        let one = |(ct, slots): (&E::Ct, Vec<f64>)| {
            // The factor rides along.
            let slots: Vec<f64> = slots.iter().map(|x| x * held.factor).collect();
            e.rescale(&e.mul_slots(ct, &slots)?)
        };
        let cts = held.cts.iter().zip(slots).map(one).collect::<Result<_, CkksError>>()?;
        Ok(Packed::held(shape, a.packing, Held { factor: 1.0, cts, ..*held }))
    }

    fn matmul_public(&mut self, x: &Self::Secret, w: &Self::Public, _: Bound) -> Made<Self> {
        let shape = check::linear(x.shape, w.shape.rows, w.shape.cols)?;
        if x.shape.batch != 1 || w.shape.len() != w.values.len() {
            let (left, right) = (x.shape, w.shape);
            return Err(Fault::Shape { op: "matmul_public", left, right }.into());
        }
        let mut out = Self::map_affine(self.same(x), shape, "matmul_public", |x| {
            x.times(&w.values, w.shape.cols)
        })?;
        if let (Value::Waiting(out), Some(bias)) = (&mut out.value, &w.bias) {
            out.add_bias(&Bias { rows: 1, values: bias.clone() });
        }
        Ok(out)
    }

    fn sum(&mut self, a: &Self::Secret, axis: Axis, _: Bound) -> Made<Self> {
        match axis {
            Axis::Cols => self.sum_columns(a),
            Axis::Rows => {
                let (shape, rows) = (a.shape.with_rows(1), a.shape.rows);
                if rows != a.packing.tokens {
                    return Ok(self.same(a));
                }
                Self::map_affine(self.same(a), shape, "sum over tokens", |x| x.summed(rows))
            }
        }
    }

    fn rows(&mut self, _: &Self::Secret, _: usize, _: usize) -> Made<Self> {
        Self::unsupported("rows", "mean pooling")
    }

    fn repeat_rows(&mut self, _: &Self::Secret, _: usize) -> Made<Self> {
        Self::unsupported("repeat_rows", "a model without class token")
    }

    fn columns(&mut self, _: &Self::Secret, _: usize, _: usize) -> Made<Self> {
        Self::unsupported("several kinds of attention in a layer", "one kind")
    }

    fn concat(&mut self, _: Self::Secret, _: &Self::Secret, _: Bound) -> Made<Self> {
        Self::unsupported("several kinds of attention in a layer", "one kind")
    }

    fn split_heads(&mut self, mut a: Self::Secret, heads: usize) -> Made<Self> {
        if heads != a.packing.heads {
            return Err(Fault::Parameter { what: "heads of a packing", got: heads as i64 }.into());
        }
        a.shape = check::split(a.shape, heads)?;
        Ok(a)
    }

    fn merge_heads(&mut self, mut a: Self::Secret, heads: usize) -> Made<Self> {
        a.shape = check::merge(a.shape, heads)?;
        Ok(a)
    }

    fn mask(&mut self, a: Self::Secret, mask: &Mask<'_>, fill: Num) -> Made<Self> {
        if mask.is_none() {
            return Ok(a);
        }
        if !fill.is_zero() {
            return Self::unsupported("mask with a value", "multiplicative masks");
        }
        self.mask_scores(a, mask)
    }

    fn divide_by_count(
        &mut self,
        a: Self::Secret,
        mask: &Mask<'_>,
        keys: usize,
        on: Bound,
    ) -> Made<Self> {
        if !mask.is_none() {
            return Self::unsupported("divide_by_count under a mask", "a row sum");
        }
        self.scale(a, Num::of(1.0 / keys as f64), on)
    }

    /// The encoder names the halves of its layers in turn; here they get the layer's number. What
    /// waits belongs to the phase that computes it.
    fn phase(&mut self, name: &'static str) {
        self.layer = match (name, self.layer) {
            ("attention", layer) => Some(layer.map_or(0, |l| l + 1)),
            ("mlp", layer) => layer,
            _ => None,
        };
        match self.layer {
            Some(layer) => self.engine.phase(&format!("layer {layer} {name}")),
            None => self.engine.phase(name),
        }
    }
}
