//! Products of secrets, and sums, in the packed layouts.

use rayon::prelude::*;
use undertone_core::{Bound, Fault, Form, Made, Mask, Multiply, Shape};

use super::tensor::{Held, Value};
use super::{Ckks, Engine, HeError, Layout, Packed, Packing};
use crate::ckks::{Automorphism, CkksError};

impl<E: Engine + Sync> Multiply for Ckks<E> {
    fn mul(&mut self, a: Packed<E::Ct>, b: &Packed<E::Ct>, _: Bound) -> Made<Self> {
        let shapes = (a.shape, b.shape);
        let rows = shapes.1.cols == 1 && shapes.0.cols != 1;
        let fits = a.packing == b.packing
            && (shapes.0 == shapes.1 || (rows && shapes.0 == shapes.1.with_cols(shapes.0.cols)));
        if !fits {
            return Err(Fault::Shape { op: "mul", left: a.shape, right: b.shape }.into());
        }
        let (shape, packing) = (a.shape, a.packing);
        if let (Value::Waiting(x), Value::Waiting(y)) = (&a.value, &b.value)
            && let Some(square) = x.as_square(y)
        {
            let root = self.compute(&square.root, &packing, Layout::Sparse)?;
            let cts = self.each(&root.cts, |e, x| e.mul(x, x))?;
            let held = Held { factor: root.factor * root.factor, cts, ..root };
            let mut out = Packed::held(shape, packing, held).affine("mul")?;
            out = out.scaled(|c| square.factors[c]);
            out.add_bias(&square.offset);
            return Ok(Packed { shape, packing, value: Value::Waiting(out) });
        }
        let (a, b) = rayon::join(|| self.operand(&a, "mul"), || self.operand(b, "mul"));
        let (a, b) = (a?, b?);
        let same = |x: Layout| if x == Layout::Spread { Layout::Sparse } else { x };
        if same(a.layout) != same(b.layout) && b.layout != Layout::Rows {
            return Err(HeError::Layout { op: "mul", found: b.layout, wanted: a.layout });
        }
        let (la, lb) = (self.held_level(&a), self.held_level(&b));
        let level = la.min(lb);
        // The operand with levels to spare takes both public factors on its way down, so that
        // the product carries the value itself.
        let both = a.factor * b.factor;
        let (a, b) = if la > lb {
            let a = self.brought(&Held { factor: both, ..a }, level, 1.0)?;
            (a, Held { factor: 1.0, ..b })
        } else {
            let target = if lb > la { 1.0 } else { both };
            let b = self.brought(&Held { factor: both, ..b }, level, target)?;
            (Held { factor: 1.0, ..a }, b)
        };
        // What is valid once only makes its product so.
        let layout = if a.layout == b.layout { a.layout } else { same(a.layout) };
        let factor = a.factor * b.factor;
        let cts = self.pairwise(&a.cts, &b.cts, |e, x, y| e.mul(x, y))?;
        Ok(Packed::held(shape, packing, Held { layout, factor, cts }))
    }

    fn square(&mut self, a: Packed<E::Ct>, _: Bound) -> Made<Self> {
        let (shape, packing) = (a.shape, a.packing);
        let a = self.operand(&a, "square")?;
        let cts = self.each(&a.cts, |e, x| e.mul(x, x))?;
        Ok(Packed::held(shape, packing, Held { factor: a.factor * a.factor, cts, ..a }))
    }

    fn matmul(&mut self, a: &Packed<E::Ct>, b: &Packed<E::Ct>, form: Form, _: Bound) -> Made<Self> {
        let fault = Fault::Shape { op: "matmul", left: a.shape, right: b.shape };
        let shape = a.shape.product(b.shape, form).ok_or(fault)?;
        let p = a.packing;
        if p != b.packing || a.shape.batch != p.heads || b.columns() != p.features {
            return Err(fault.into());
        }
        match form {
            Form::Nt => self.scores(a, b, shape),
            Form::Nn => self.weighted(a, b, shape),
            Form::Tn => {
                Self::unsupported("matmul with the left operand transposed", "power attention")
            }
        }
    }
}

impl<E: Engine + Sync> Ckks<E> {
    /// What an elementwise product works on.
    pub(super) fn operand(
        &self,
        a: &Packed<E::Ct>,
        op: &'static str,
    ) -> Result<Held<E::Ct>, HeError> {
        match &a.value {
            Value::Held(held) => Ok(held.clone()),
            Value::Waiting(_) => self.laid(a, Layout::Sparse, op),
        }
    }

    /// f of every ciphertext.
    pub(super) fn each(
        &self,
        cts: &[E::Ct],
        f: impl Fn(&E, &E::Ct) -> Result<E::Ct, CkksError> + Sync,
    ) -> Result<Vec<E::Ct>, CkksError> {
        cts.par_iter().map(|x| f(&self.engine, x)).collect()
    }

    /// f of ciphertexts in pairs; a single right one serves all.
    pub(super) fn pairwise(
        &self,
        a: &[E::Ct],
        b: &[E::Ct],
        f: impl Fn(&E, &E::Ct, &E::Ct) -> Result<E::Ct, CkksError> + Sync,
    ) -> Result<Vec<E::Ct>, CkksError> {
        let each = |(k, x): (usize, &E::Ct)| f(&self.engine, x, &b[k.min(b.len() - 1)]);
        a.par_iter().enumerate().map(each).collect()
    }

    /// Keys or values in every shift, two in one as complex numbers.
    fn shifted(&self, x: &Packed<E::Ct>, op: &'static str) -> Result<Held<E::Ct>, HeError> {
        let p = x.packing;
        if let Value::Held(held) = &x.value
            && (held.layout == Layout::ShiftedPairs || !p.rolls())
        {
            let (found, wanted) = (held.layout, Layout::ShiftedPairs);
            return if found == wanted {
                Ok(held.clone())
            } else {
                Err(HeError::Layout { op, found, wanted })
            };
        }
        let e = &self.engine;
        let rolling = self.laid(x, Layout::Rolling, op)?;
        let turn = |ct: &E::Ct, steps: usize| {
            Ok::<_, CkksError>(
                e.apply_each(ct, &[Automorphism::Rotate(steps as i64)])?.swap_remove(0),
            )
        };
        let first = &rolling.cts[0];
        let mut cts = vec![if p.ciphertexts > 1 {
            e.add(first, &e.mul_i(&turn(first, p.copies * p.pairs())?)?)?
        } else {
            first.clone()
        }];
        // One key for all of them; what hoisting would save is less than what keys would cost.
        for t in 1..p.pairs() {
            cts.push(turn(&cts[t - 1], p.copies)?);
        }
        Ok(Held { layout: Layout::ShiftedPairs, factor: rolling.factor, cts })
    }

    /// Q·Kᵀ: one product for each pair of shifts, and one sum over a head's features.
    fn scores(&self, q: &Packed<E::Ct>, k: &Packed<E::Ct>, shape: Shape) -> Made<Self> {
        let p = q.packing;
        let paired = p.ciphertexts > 1;
        let (q, k) =
            rayon::join(|| self.laid(q, Layout::Spread, "scores"), || self.shifted(k, "scores"));
        let (q, k) = (q?, k?);
        let level = self.held_level(&q).min(self.held_level(&k));
        let (q, k) = (self.brought(&q, level, q.factor)?, self.brought(&k, level, k.factor)?);
        let one = |e: &E, pair: &E::Ct| {
            let product = e.mul(&q.cts[0], pair)?;
            let sum = self.cyclic_sum(&product, p.heads * p.block(), p.head_features())?;
            if !paired {
                return Ok([sum.clone(), sum]);
            }
            // Twice the real part and twice the imaginary part.
            let conjugate = e.apply_each(&sum, &[Automorphism::Conjugate])?.swap_remove(0);
            Ok([e.add(&sum, &conjugate)?, e.mul_i(&e.sub(&conjugate, &sum)?)?])
        };
        let both: Vec<[E::Ct; 2]> = k
            .cts
            .par_iter()
            .map(|pair| one(&self.engine, pair))
            .collect::<Result<_, CkksError>>()?;
        let (mut cts, mut second): (Vec<_>, Vec<_>) = both.into_iter().map(|[a, b]| (a, b)).unzip();
        cts.append(&mut second);
        cts.truncate(p.ciphertexts);
        let factor = q.factor * k.factor * if paired { 0.5 } else { 1.0 };
        Ok(Packed::held(shape, p, Held { layout: Layout::Scores, factor, cts }))
    }

    /// Weights times V: (a − i·b)·(v + i·w) has the real part a·v + b·w, so one product serves
    /// two shifts, and all of them share one relinearization. Then a sum over copies.
    fn weighted(&self, a: &Packed<E::Ct>, v: &Packed<E::Ct>, shape: Shape) -> Made<Self> {
        let p = a.packing;
        let a = self.weights(a, "weighted sum")?;
        let v = self.shifted(v, "weighted sum")?;
        let e = &self.engine;
        let level = self.held_level(a).min(self.held_level(&v));
        let (a, v) = (self.brought(a, level, a.factor)?, self.brought(&v, level, v.factor)?);
        let product = |(t, v): (usize, &E::Ct)| {
            let first = &a.cts[t];
            match a.cts.get(t + p.pairs()) {
                Some(second) => e.tensor(&e.sub(first, &e.mul_i(second)?)?, v),
                None => e.tensor(first, v),
            }
        };
        let products: Vec<E::Ct> =
            v.cts.par_iter().enumerate().map(product).collect::<Result<_, CkksError>>()?;
        let sum = self.total(&products, shape)?;
        let mut sum = self.over_copies(&e.relinearize(&sum, true)?, &p)?;
        let mut factor = a.factor * v.factor;
        if p.ciphertexts > 1 {
            sum = e.add_images(&sum, &[Automorphism::Conjugate])?;
            factor *= 0.5;
        }
        Ok(Packed::held(shape, p, Held { layout: Layout::Sparse, factor, cts: vec![sum] }))
    }

    fn weights<'a>(
        &self,
        a: &'a Packed<E::Ct>,
        op: &'static str,
    ) -> Result<&'a Held<E::Ct>, HeError> {
        match &a.value {
            Value::Held(held) if held.layout == Layout::Scores => Ok(held),
            Value::Held(Held { layout: found, .. }) => {
                Err(HeError::Layout { op, found: *found, wanted: Layout::Scores })
            }
            Value::Waiting(_) => {
                Err(HeError::Layout { op, found: Layout::Sparse, wanted: Layout::Scores })
            }
        }
    }

    fn total(&self, cts: &[E::Ct], shape: Shape) -> Result<E::Ct, HeError> {
        let (first, rest) = cts.split_first().ok_or(Fault::Empty { op: "sum", shape })?;
        let sum = rest.iter().try_fold(first.clone(), |sum, ct| self.engine.add(&sum, ct))?;
        Ok(sum)
    }

    fn over_copies(&self, ct: &E::Ct, p: &Packing) -> Result<E::Ct, CkksError> {
        self.cyclic_sum(ct, p.query_period, p.distinct_copies())
    }

    /// The sum of each row.
    pub(super) fn sum_columns(&self, a: &Packed<E::Ct>) -> Made<Self> {
        let p = a.packing;
        let shape = a.shape.with_cols(1);
        let (ct, factor) = if a.layout() == Some(Layout::Scores) {
            let a = self.weights(a, "sum")?;
            (self.over_copies(&self.total(&a.cts, shape)?, &p)?, a.factor)
        } else {
            let held = self.laid(a, Layout::Sparse, "sum")?;
            if a.shape.cols != p.head_features() {
                let right = a.shape.with_cols(p.head_features());
                return Err(Fault::Shape { op: "sum", left: a.shape, right }.into());
            }
            (self.cyclic_sum(&held.cts[0], p.heads * p.block(), p.head_features())?, held.factor)
        };
        Ok(Packed::held(shape, p, Held { layout: Layout::Rows, factor, cts: vec![ct] }))
    }

    /// Zeros where the mask hides a key: one level.
    pub(super) fn mask_scores(&self, a: Packed<E::Ct>, mask: &Mask<'_>) -> Made<Self> {
        let (shape, p) = (a.shape, a.packing);
        let held = self.weights(&a, "mask")?;
        if !mask.fits(shape) {
            return Err(Fault::Shape { op: "mask", left: shape, right: shape }.into());
        }
        let e = &self.engine;
        let one = |(t, ct): (usize, &E::Ct)| {
            let slots = p.fill(Layout::Scores, 0.0, |f, r, i| {
                let seen = mask.visible(shape, f % p.heads, i);
                f64::from(u8::from(p.key(t, r, i).is_some_and(|key| key < seen)))
            });
            e.rescale(&e.mul_slots(ct, &slots)?)
        };
        let cts = held.cts.par_iter().enumerate().map(one).collect::<Result<_, CkksError>>()?;
        Ok(Packed::held(shape, p, Held { cts, ..held.clone() }))
    }
}
