//! The CKKS world: `undertone-core`'s operators on ciphertexts.
//!
//! A [`Ckks`] world computes through an [`Engine`]: with an [`Evaluator`](crate::ckks::Evaluator)
//! it runs, with a [`Ledger`] it plans. Both go through the same code.

mod clear;
mod engine;
mod error;
mod function;
mod head;
mod packing;
mod products;
#[cfg(all(test, feature = "client"))]
mod tests;

pub use clear::{Clear, Slots};
pub use engine::{Engine, Ledger, Planned};
pub use error::HeError;
pub(crate) use function::value as function_value;
pub use head::{Head, HeadInputs, HeadSlots};
pub use packing::{Layout, Packing};

use std::sync::Arc;

use undertone_core::{Axis, Bound, Fault, Made, Mask, Num, Shape, World};

use crate::ckks::{Automorphism, CkksError};

/// A matrix (or one for each member of the batch) in ciphertexts.
pub struct Packed<C> {
    shape: Shape,
    packing: Packing,
    layout: Layout,
    /// What the slots are to be multiplied by: public factors wait here for a free ride.
    factor: f64,
    /// For each member of the batch, its ciphertexts.
    members: Vec<Vec<C>>,
}

impl<C> Packed<C> {
    /// The layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The packing.
    #[must_use]
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// What decrypted slots are to be multiplied by.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// For each member of the batch, its ciphertexts.
    #[must_use]
    pub fn members(&self) -> &[Vec<C>] {
        &self.members
    }
}

/// A prepared public operand, kept as numbers: it is encoded when the level is known.
#[derive(Clone, Debug)]
pub struct PublicMatrix {
    /// Its shape.
    pub shape: Shape,
    /// Its elements, row by row.
    pub values: Vec<f64>,
}

/// The world.
pub struct Ckks<E: Engine> {
    engine: Arc<E>,
    /// Wanted relative error of approximated functions.
    tolerance: f64,
}

impl<E: Engine + Sync> Ckks<E> {
    /// A world over an engine. `tolerance` is the relative error that approximations may have.
    #[must_use]
    pub fn new(engine: Arc<E>, tolerance: f64) -> Self {
        Self { engine, tolerance }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<E> {
        &self.engine
    }

    /// Takes in encrypted matrices: for each member of the batch the ciphertexts of its layout.
    /// Decrypted slots times `factor` are the values.
    ///
    /// # Errors
    /// [`Fault::Shape`] where the number of ciphertexts is not the layout's.
    pub fn admit(
        &self,
        packing: Packing,
        layout: Layout,
        factor: f64,
        members: Vec<Vec<E::Ct>>,
    ) -> Result<Packed<E::Ct>, HeError> {
        let shape = Shape::new(members.len(), packing.tokens, packing.features);
        let wanted = packing.count(layout);
        if let Some(wrong) = members.iter().find(|m| m.len() != wanted) {
            let (left, right) = (Shape::new(1, 1, wrong.len()), Shape::new(1, 1, wanted));
            return Err(Fault::Shape { op: "admit: ciphertexts", left, right }.into());
        }
        Ok(Packed { shape, packing, layout, factor, members })
    }

    /// Applies `f` to every ciphertext.
    fn each(
        &self,
        mut a: Packed<E::Ct>,
        f: impl Fn(&E, &E::Ct) -> Result<E::Ct, CkksError>,
    ) -> Result<Packed<E::Ct>, HeError> {
        for member in &mut a.members {
            for ct in member {
                *ct = f(&self.engine, ct)?;
            }
        }
        Ok(a)
    }

    /// The sum over `count` positions that are `stride` slots apart, cyclically: four at a time,
    /// which costs least in key switches and keys together.
    fn cyclic_sum(&self, a: &E::Ct, stride: usize, count: usize) -> Result<E::Ct, CkksError> {
        let (mut sum, mut done) = (a.clone(), 1);
        while done < count {
            let radix = (count / done).min(4);
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

    fn level(&self, a: &Packed<E::Ct>) -> usize {
        a.members.iter().flatten().map(|c| self.engine.meta(c).level).min().unwrap_or(0)
    }

    /// Both operands with one factor and level, for addition.
    fn aligned(
        &self,
        a: Packed<E::Ct>,
        b: &Packed<E::Ct>,
        op: &'static str,
    ) -> Result<[Packed<E::Ct>; 2], HeError> {
        let fits = a.shape == b.shape
            || (b.layout == Layout::Rows && b.shape.rows == a.shape.rows && b.shape.cols == 1);
        if !fits || a.packing != b.packing || a.members.len() != b.members.len() {
            return Err(Fault::Shape { op, left: a.shape, right: b.shape }.into());
        }
        if a.layout != b.layout && b.layout != Layout::Rows {
            return Err(HeError::Layout { op, found: b.layout, wanted: a.layout });
        }
        let (la, lb) = (self.level(&a), self.level(b));
        let mut level = la.min(lb);
        let same_factor = (a.factor / b.factor - 1.0).abs() < 1e-15;
        if !same_factor && la == lb {
            // No free ride: one level for the factor.
            level = level.checked_sub(1).ok_or(CkksError::LevelExhausted {
                operation: op,
                needed: 1,
                available: 0,
            })?;
        }
        // The higher operand takes the other's factor on its way down.
        let factor = if la > lb || (la == lb && !same_factor) { b.factor } else { a.factor };
        Ok([self.brought(&a, level, factor)?, self.brought(b, level, factor)?])
    }

    /// At a level, with a factor if a level lies between.
    fn brought(
        &self,
        a: &Packed<E::Ct>,
        level: usize,
        factor: f64,
    ) -> Result<Packed<E::Ct>, HeError> {
        let mut applied = 1.0;
        let mut members = Vec::with_capacity(a.members.len());
        for member in &a.members {
            let mut out = Vec::with_capacity(member.len());
            for ct in member {
                let (ct, f) = self.lower(ct, level, a.factor / factor)?;
                applied = f;
                out.push(ct);
            }
            members.push(out);
        }
        Ok(Packed { members, factor: a.factor / applied, ..*a })
    }

    /// Public values in the slots of a layout.
    fn spread_public(
        &self,
        p: &PublicMatrix,
        like: &Packed<E::Ct>,
        op: &'static str,
    ) -> Result<Vec<f64>, HeError> {
        let packing = like.packing;
        let right = p.shape;
        let fits = p.shape.batch == 1
            && (p.shape.rows == 1 || p.shape.rows == packing.tokens)
            && (p.shape.cols == 1 || p.shape.cols == packing.features)
            && p.values.len() == p.shape.len();
        if !fits {
            return Err(Fault::Shape { op, left: like.shape, right }.into());
        }
        if !matches!(like.layout, Layout::Spread | Layout::Sparse) {
            return Err(HeError::Layout { op, found: like.layout, wanted: Layout::Spread });
        }
        let mut slots = vec![0.0; packing.slots];
        for (at, slot) in slots.iter_mut().enumerate() {
            let c = if p.shape.cols == 1 { 0 } else { at / packing.stride() };
            let i = if p.shape.rows == 1 { 0 } else { at % packing.tokens };
            *slot = p.values[i * p.shape.cols + c];
        }
        Ok(slots)
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
        Ok(Packed { members: x.members.clone(), ..*x })
    }

    fn add(&mut self, a: Self::Secret, b: &Self::Secret, _: Bound) -> Made<Self> {
        let [a, b] = self.aligned(a, b, "add")?;
        self.zip(a, &b, |e, x, y| e.add(x, y))
    }

    fn sub(&mut self, a: Self::Secret, b: &Self::Secret, _: Bound) -> Made<Self> {
        let [a, b] = self.aligned(a, b, "sub")?;
        self.zip(a, &b, |e, x, y| e.sub(x, y))
    }

    fn scale(&mut self, mut a: Self::Secret, k: Num, _: Bound) -> Made<Self> {
        a.factor *= k.to_f64();
        Ok(a)
    }

    fn offset(&mut self, a: Self::Secret, k: Num, _: Bound) -> Made<Self> {
        let k = k.to_f64() / a.factor;
        self.each(a, |e, x| e.add_scalar(x, k))
    }

    fn add_public(&mut self, a: Self::Secret, p: &Self::Public, _: Bound) -> Made<Self> {
        let mut slots = self.spread_public(p, &a, "add_public")?;
        slots.iter_mut().for_each(|x| *x /= a.factor);
        self.each(a, |e, x| e.add_slots(x, &slots))
    }

    fn mul_public(&mut self, a: Self::Secret, p: &Self::Public, _: Bound) -> Made<Self> {
        let mut slots = self.spread_public(p, &a, "mul_public")?;
        // The factor rides along.
        slots.iter_mut().for_each(|x| *x *= a.factor);
        let a = self.each(a, |e, x| e.rescale(&e.mul_slots(x, &slots)?))?;
        Ok(Packed { factor: 1.0, ..a })
    }

    fn matmul_public(&mut self, x: &Self::Secret, w: &Self::Public, _: Bound) -> Made<Self> {
        self.product_public(x, w)
    }

    fn sum(&mut self, a: &Self::Secret, axis: Axis, _: Bound) -> Made<Self> {
        match axis {
            Axis::Cols => self.sum_columns(a),
            Axis::Rows => Self::unsupported("sum over rows", "pooling after decryption"),
        }
    }

    fn rows(&mut self, _: &Self::Secret, _: usize, _: usize) -> Made<Self> {
        Self::unsupported("rows", "mean pooling after decryption")
    }

    fn repeat_rows(&mut self, _: &Self::Secret, _: usize) -> Made<Self> {
        Self::unsupported("repeat_rows", "a model without class token")
    }

    fn columns(&mut self, _: &Self::Secret, _: usize, _: usize) -> Made<Self> {
        Self::unsupported("columns", "separate weights")
    }

    fn concat(&mut self, _: Self::Secret, _: &Self::Secret, _: Bound) -> Made<Self> {
        Self::unsupported("concat", "separate weights")
    }

    fn split_heads(&mut self, a: Self::Secret, heads: usize) -> Made<Self> {
        if heads == 1 { Ok(a) } else { Self::unsupported("split_heads", "one matrix a head") }
    }

    fn merge_heads(&mut self, a: Self::Secret, heads: usize) -> Made<Self> {
        if heads == 1 { Ok(a) } else { Self::unsupported("merge_heads", "one matrix a head") }
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
        mut a: Self::Secret,
        mask: &Mask<'_>,
        keys: usize,
        _: Bound,
    ) -> Made<Self> {
        if !mask.is_none() {
            return Self::unsupported("divide_by_count under a mask", "a row sum");
        }
        a.factor /= keys as f64;
        Ok(a)
    }
}

impl<E: Engine + Sync> Ckks<E> {
    /// Elementwise over equal layouts; rows broadcast.
    fn zip(
        &self,
        mut a: Packed<E::Ct>,
        b: &Packed<E::Ct>,
        f: impl Fn(&E, &E::Ct, &E::Ct) -> Result<E::Ct, CkksError>,
    ) -> Result<Packed<E::Ct>, HeError> {
        for (x, y) in a.members.iter_mut().zip(&b.members) {
            for (k, x) in x.iter_mut().enumerate() {
                *x = f(&self.engine, x, &y[k.min(y.len() - 1)])?;
            }
        }
        Ok(a)
    }
}
