//! Matrix products and sums in the packed layouts.

use undertone_core::{Bound, Fault, Form, Made, Mask, Multiply, Shape};

use super::{Ckks, Engine, HeError, Layout, Packed, PublicMatrix};
use crate::ckks::Automorphism;

impl<E: Engine + Sync> Multiply for Ckks<E> {
    fn mul(&mut self, a: Packed<E::Ct>, b: &Packed<E::Ct>, _: Bound) -> Made<Self> {
        let rows = b.layout == Layout::Rows && b.shape.cols == 1;
        if a.shape.batch != b.shape.batch
            || a.shape.rows != b.shape.rows
            || a.packing != b.packing
            || (a.shape.cols != b.shape.cols && !rows)
        {
            return Err(Fault::Shape { op: "mul", left: a.shape, right: b.shape }.into());
        }
        if a.layout != b.layout && !rows {
            return Err(HeError::Layout { op: "mul", found: b.layout, wanted: a.layout });
        }
        let (la, lb) = (self.level(&a), self.level(b));
        let level = la.min(lb);
        // The operand with levels to spare takes both public factors on its way down, so that
        // the product carries the value itself.
        let (a, b) = if la > lb {
            let both = a.factor * b.factor;
            let a = self.brought(&Packed { factor: both, ..a }, level, 1.0)?;
            (
                a,
                self.brought(
                    &Packed { factor: 1.0, members: b.members.clone(), ..*b },
                    level,
                    1.0,
                )?,
            )
        } else {
            let both = a.factor * b.factor;
            let b = Packed { factor: both, members: b.members.clone(), ..*b };
            let target = if lb > la { 1.0 } else { both };
            (Packed { factor: 1.0, ..a }, self.brought(&b, level, target)?)
        };
        let factor = a.factor * b.factor;
        let out = self.zip(a, &b, |e, x, y| e.mul(x, y))?;
        Ok(Packed { factor, ..out })
    }

    fn square(&mut self, a: Packed<E::Ct>, _: Bound) -> Made<Self> {
        let factor = a.factor * a.factor;
        let out = self.each(a, |e, x| e.mul(x, x))?;
        Ok(Packed { factor, ..out })
    }

    fn matmul(&mut self, a: &Packed<E::Ct>, b: &Packed<E::Ct>, form: Form, _: Bound) -> Made<Self> {
        let fault = Fault::Shape { op: "matmul", left: a.shape, right: b.shape };
        let shape = a.shape.product(b.shape, form).ok_or(fault)?;
        if a.packing != b.packing {
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
    /// Q·Kᵀ: one product for each pair of shifts, and one sum over features.
    fn scores(&self, q: &Packed<E::Ct>, k: &Packed<E::Ct>, shape: Shape) -> Made<Self> {
        if q.layout != Layout::Spread {
            return Err(HeError::Layout { op: "scores", found: q.layout, wanted: Layout::Spread });
        }
        if k.layout != Layout::ShiftedPairs {
            let (found, wanted) = (k.layout, Layout::ShiftedPairs);
            return Err(HeError::Layout { op: "scores", found, wanted });
        }
        let packing = q.packing;
        let paired = packing.ciphertexts() > 1;
        let e = &self.engine;
        let level = self.level(q).min(self.level(k));
        let q = self.brought(q, level, q.factor)?;
        let k = self.brought(k, level, k.factor)?;
        let mut members = Vec::with_capacity(q.members.len());
        for (q, k) in q.members.iter().zip(&k.members) {
            let mut scores = Vec::with_capacity(packing.ciphertexts());
            for pair in k {
                let product = e.mul(&q[0], pair)?;
                let sum = self.cyclic_sum(&product, packing.stride(), packing.features)?;
                if paired {
                    // Twice the real part and twice the imaginary part.
                    let conjugate = e.apply_each(&sum, &[Automorphism::Conjugate])?.swap_remove(0);
                    scores.push(e.add(&sum, &conjugate)?);
                    scores.push(e.mul_i(&e.sub(&conjugate, &sum)?)?);
                } else {
                    scores.push(sum);
                }
            }
            members.push(scores);
        }
        let factor = q.factor * k.factor * if paired { 0.5 } else { 1.0 };
        Ok(Packed { shape, packing, layout: Layout::Scores, factor, members })
    }

    /// Weights times V: the products of all shifts share one relinearization, then a sum over the
    /// shifts within the ciphertext.
    fn weighted(&self, a: &Packed<E::Ct>, v: &Packed<E::Ct>, shape: Shape) -> Made<Self> {
        if a.layout != Layout::Scores {
            return Err(HeError::Layout {
                op: "weighted sum",
                found: a.layout,
                wanted: Layout::Scores,
            });
        }
        if v.layout != Layout::Shifted {
            let (found, wanted) = (v.layout, Layout::Shifted);
            return Err(HeError::Layout { op: "weighted sum", found, wanted });
        }
        let packing = a.packing;
        let e = &self.engine;
        let level = self.level(a).min(self.level(v));
        let a = self.brought(a, level, a.factor)?;
        let v = self.brought(v, level, v.factor)?;
        let mut members = Vec::with_capacity(a.members.len());
        for (a, v) in a.members.iter().zip(&v.members) {
            let mut sum: Option<E::Ct> = None;
            for (a, v) in a.iter().zip(v) {
                let product = e.tensor(a, v)?;
                sum = Some(match sum {
                    None => product,
                    Some(sum) => e.add(&sum, &product)?,
                });
            }
            let sum = sum.ok_or(Fault::Empty { op: "weighted sum", shape })?;
            let sum = e.relinearize(&sum, true)?;
            members.push(vec![self.cyclic_sum(&sum, packing.tokens, packing.distinct_shifts())?]);
        }
        let factor = a.factor * v.factor;
        Ok(Packed { shape, packing, layout: Layout::Sparse, factor, members })
    }

    /// The sum of each row.
    pub(super) fn sum_columns(&self, a: &Packed<E::Ct>) -> Made<Self> {
        let packing = a.packing;
        let (stride, count) = match a.layout {
            Layout::Scores => (packing.tokens, packing.distinct_shifts()),
            Layout::Spread => (packing.stride(), packing.features),
            found => return Err(HeError::Layout { op: "sum", found, wanted: Layout::Spread }),
        };
        let mut members = Vec::with_capacity(a.members.len());
        for member in &a.members {
            let mut rest = member.iter();
            let empty = Fault::Empty { op: "sum", shape: a.shape };
            let mut sum = rest.next().ok_or(empty)?.clone();
            for ct in rest {
                sum = self.engine.add(&sum, ct)?;
            }
            members.push(vec![self.cyclic_sum(&sum, stride, count)?]);
        }
        let shape = a.shape.with_cols(1);
        Ok(Packed { shape, packing, layout: Layout::Rows, factor: a.factor, members })
    }

    /// Zeros where the mask hides a key: one level.
    pub(super) fn mask_scores(&self, mut a: Packed<E::Ct>, mask: &Mask<'_>) -> Made<Self> {
        if a.layout != Layout::Scores {
            return Err(HeError::Layout { op: "mask", found: a.layout, wanted: Layout::Scores });
        }
        if !mask.fits(a.shape) {
            return Err(Fault::Shape { op: "mask", left: a.shape, right: a.shape }.into());
        }
        let (n, shifts) = (a.packing.tokens, a.packing.shifts());
        for (batch, member) in a.members.iter_mut().enumerate() {
            for (t, ct) in member.iter_mut().enumerate() {
                let slots: Vec<f64> = (0..a.packing.slots)
                    .map(|at| {
                        let (s, i) = (at % a.packing.stride() / n, at % n);
                        let key = (i + t * shifts + s) % n;
                        f64::from(u8::from(key < mask.visible(a.shape, batch, i)))
                    })
                    .collect();
                *ct = self.engine.rescale(&self.engine.mul_slots(ct, &slots)?)?;
            }
        }
        Ok(a)
    }

    /// x·W for a square W, by its diagonals in baby and giant steps (Halevi and Shoup 2014,
    /// *Algorithms in HElib*): 2√d rotations, one level.
    pub(super) fn product_public(&self, x: &Packed<E::Ct>, w: &PublicMatrix) -> Made<Self> {
        let d = x.packing.features;
        if x.layout != Layout::Spread {
            let (found, wanted) = (x.layout, Layout::Spread);
            return Err(HeError::Layout { op: "matmul_public", found, wanted });
        }
        if w.shape != Shape::new(1, d, d) || w.values.len() != d * d {
            let (left, right) = (x.shape, w.shape);
            return Err(Fault::Shape { op: "matmul_public", left, right }.into());
        }
        let stride = x.packing.stride();
        let baby = 1 << d.ilog2().div_ceil(2);
        let e = &self.engine;
        let rotate = |k: usize| Automorphism::Rotate((k * stride) as i64);
        let mut members = Vec::with_capacity(x.members.len());
        for member in &x.members {
            let each: Vec<_> = (1..baby).map(rotate).collect();
            let mut babies = vec![member[0].clone()];
            babies.extend(e.apply_each(&member[0], &each)?);
            let mut total: Option<E::Ct> = None;
            for giant in (0..d).step_by(baby) {
                let mut sum: Option<E::Ct> = None;
                for (b, rotated) in babies.iter().enumerate() {
                    let slots: Vec<f64> = (0..x.packing.slots)
                        .map(|at| {
                            let c = at / stride;
                            x.factor * w.values[(c + b) % d * d + (c + d - giant) % d]
                        })
                        .collect();
                    let term = e.mul_slots(rotated, &slots)?;
                    sum = Some(match sum {
                        None => term,
                        Some(sum) => e.add(&sum, &term)?,
                    });
                }
                let sum = sum.ok_or(Fault::Empty { op: "matmul_public", shape: x.shape })?;
                let sum = if giant == 0 {
                    sum
                } else {
                    e.apply_each(&sum, &[rotate(giant)])?.swap_remove(0)
                };
                total = Some(match total {
                    None => sum,
                    Some(total) => e.add(&total, &sum)?,
                });
            }
            let total = total.ok_or(Fault::Empty { op: "matmul_public", shape: x.shape })?;
            members.push(vec![e.rescale(&total)?]);
        }
        Ok(Packed { factor: 1.0, members, ..*x })
    }
}
