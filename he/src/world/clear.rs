//! The circuit in the clear: the same operations on slots of `f64`, with the same levels.
//!
//! What an encrypted run differs from this by is the scheme's own error; what this differs from
//! the exact function by is the approximation's. Beside each value goes the predicted variance of
//! the error that its ciphertext would carry, so a run on representative public data predicts
//! precision.

use std::sync::Arc;

use super::Engine;
use crate::ckks::{Automorphism, CkksError, Complex, Context, Degree, Meta};

type Result<T> = std::result::Result<T, CkksError>;

/// Slots that are not encrypted.
#[derive(Clone)]
pub struct Slots {
    meta: Meta,
    values: Arc<[Complex]>,
    /// Predicted error variance of a slot's real component.
    variances: Arc<[f64]>,
}

impl Slots {
    /// Values as a fresh ciphertext of the secret key at a level would hold them; the rest are
    /// zero.
    #[must_use]
    pub fn new(ctx: &Context, values: &[Complex], level: usize) -> Self {
        let zeros = std::iter::repeat_n(Complex::default(), ctx.slots() - values.len());
        Self {
            meta: Meta { level, degree: Degree::One, parts: 2 },
            values: values.iter().copied().chain(zeros).collect(),
            variances: vec![ctx.fresh_variance(level); ctx.slots()].into(),
        }
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[Complex] {
        &self.values
    }

    /// Predicted variance of the scheme's error in each slot's real component.
    #[must_use]
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// The real parts.
    #[must_use]
    pub fn real(&self) -> Vec<f64> {
        self.values.iter().map(|x| x.re).collect()
    }

    /// `f` of each value, whose error grows `gain`-fold in variance.
    fn with(&self, meta: Meta, gain: f64, f: impl Fn(Complex) -> Complex) -> Self {
        Self {
            meta,
            values: self.values.iter().map(|&x| f(x)).collect(),
            variances: self.variances.iter().map(|v| v * gain).collect(),
        }
    }

    fn at(self, meta: Meta, more: f64) -> Self {
        let variances = self.variances.iter().map(|v| v + more).collect();
        Self { meta, variances, ..self }
    }

    fn added(&self, b: &Self, meta: Meta, sign: f64) -> Self {
        let values = self.values.iter().zip(b.values.iter());
        let variances = self.variances.iter().zip(b.variances.iter());
        Self {
            meta,
            values: values.map(|(&x, &y)| sum(x, scaled(y, sign))).collect(),
            variances: variances.map(|(v, w)| v + w).collect(),
        }
    }
}

/// An engine on slots that are not encrypted.
#[derive(Clone)]
pub struct Clear {
    ctx: Arc<Context>,
}

impl Clear {
    /// An engine with a context's slots and levels.
    #[must_use]
    pub fn new(ctx: Arc<Context>) -> Self {
        Self { ctx }
    }

    fn image(&self, a: &Slots, what: Automorphism) -> Slots {
        let mut out = a.clone();
        match what {
            Automorphism::Conjugate => {
                out.values = a.values.iter().map(|x| Complex::new(x.re, -x.im)).collect();
            }
            Automorphism::Rotate(k) => {
                let k = k.rem_euclid(self.ctx.slots() as i64) as usize;
                let turn = |i: usize| (i + k) % a.values.len();
                out.values = (0..a.values.len()).map(|i| a.values[turn(i)]).collect();
                out.variances = (0..a.values.len()).map(|i| a.variances[turn(i)]).collect();
            }
        }
        out
    }
}

fn times(a: Complex, b: Complex) -> Complex {
    Complex::new(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)
}

fn scaled(a: Complex, k: f64) -> Complex {
    Complex::new(a.re * k, a.im * k)
}

fn sum(a: Complex, b: Complex) -> Complex {
    Complex::new(a.re + b.re, a.im + b.im)
}

fn square(a: Complex) -> f64 {
    a.re * a.re + a.im * a.im
}

impl Engine for Clear {
    type Ct = Slots;

    fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    fn meta(&self, a: &Slots) -> Meta {
        a.meta
    }

    fn add(&self, a: &Slots, b: &Slots) -> Result<Slots> {
        Ok(a.added(b, a.meta.add(b.meta, "add")?, 1.0))
    }

    fn sub(&self, a: &Slots, b: &Slots) -> Result<Slots> {
        Ok(a.added(b, a.meta.add(b.meta, "sub")?, -1.0))
    }

    fn add_scalar(&self, a: &Slots, c: f64) -> Result<Slots> {
        Ok(a.with(a.meta, 1.0, |x| Complex::new(x.re + c, x.im)))
    }

    fn mul_integer(&self, a: &Slots, k: i64) -> Result<Slots> {
        let k = k as f64;
        Ok(a.with(a.meta, k * k, |x| scaled(x, k)))
    }

    fn mul_scalar(&self, a: &Slots, c: f64) -> Result<Slots> {
        Ok(a.with(a.meta.times_plain("mul_scalar")?, c * c, |x| scaled(x, c)))
    }

    fn mul_i(&self, a: &Slots) -> Result<Slots> {
        Ok(a.with(a.meta, 1.0, |x| Complex::new(-x.im, x.re)))
    }

    fn mul_slots(&self, a: &Slots, slots: &[f64]) -> Result<Slots> {
        let meta = a.meta.times_plain("mul_plain")?;
        let encoding = self.ctx.encoding_variance(a.meta.level, Degree::One);
        let all = a.values.iter().zip(a.variances.iter()).zip(slots);
        Ok(Slots {
            meta,
            values: a.values.iter().zip(slots).map(|(&x, &k)| scaled(x, k)).collect(),
            variances: all.map(|((&x, v), k)| v * k * k + square(x) * encoding).collect(),
        })
    }

    fn add_slots(&self, a: &Slots, slots: &[f64]) -> Result<Slots> {
        let values =
            a.values.iter().zip(slots).map(|(x, k)| Complex::new(x.re + k, x.im)).collect();
        let encoding = self.ctx.encoding_variance(a.meta.level, a.meta.degree);
        Ok(Slots { values, ..a.clone() }.at(a.meta, encoding))
    }

    fn tensor(&self, a: &Slots, b: &Slots) -> Result<Slots> {
        let meta = a.meta.tensor(b.meta, "multiply")?;
        // The error of a square is 2·a·e: not two independent ones.
        let gain = if Arc::ptr_eq(&a.values, &b.values) { 2.0 } else { 1.0 };
        let left = a.values.iter().zip(a.variances.iter());
        let right = b.values.iter().zip(b.variances.iter());
        Ok(Slots {
            meta,
            values: a.values.iter().zip(b.values.iter()).map(|(&x, &y)| times(x, y)).collect(),
            variances: left
                .zip(right)
                .map(|((&x, v), (&y, w))| gain * (square(x) * w + square(y) * v))
                .collect(),
        })
    }

    fn relinearize(&self, a: &Slots, rescale: bool) -> Result<Slots> {
        if a.meta.parts == 2 {
            return if rescale { self.rescale(a) } else { Ok(a.clone()) };
        }
        let meta = if rescale { a.meta.rescale("relinearize")? } else { a.meta };
        let more = self.ctx.switch_variance(a.meta.level, a.meta.degree, 1, rescale);
        Ok(a.clone().at(Meta { parts: 2, ..meta }, more))
    }

    fn rescale(&self, a: &Slots) -> Result<Slots> {
        let meta = a.meta.rescale("rescale")?;
        Ok(a.clone().at(meta, self.ctx.rescale_variance(a.meta.level)))
    }

    fn level_down_by(&self, a: &Slots, level: usize, c: f64) -> Result<(Slots, f64)> {
        let meta = a.meta.lower(level, "level_down")?;
        let (unit, k) = self.ctx.level_factor(a.meta.level, level, c)?;
        let applied = k as f64 / unit;
        let out = a.with(meta, applied * applied, |x| scaled(x, applied));
        Ok((out.at(meta, self.ctx.rescale_variance(level + 1)), applied))
    }

    fn apply_each(&self, a: &Slots, each: &[Automorphism]) -> Result<Vec<Slots>> {
        a.meta.need_two_parts("rotate")?;
        let more = self.ctx.switch_variance(a.meta.level, a.meta.degree, 1, false);
        Ok(each.iter().map(|&what| self.image(a, what).at(a.meta, more)).collect())
    }

    fn add_images(&self, a: &Slots, each: &[Automorphism]) -> Result<Slots> {
        a.meta.need_two_parts("add_images")?;
        let mut out = a.clone();
        for &what in each {
            out = out.added(&self.image(a, what), a.meta, 1.0);
        }
        let more = self.ctx.switch_variance(a.meta.level, a.meta.degree, each.len(), false);
        Ok(out.at(a.meta, more))
    }
}
