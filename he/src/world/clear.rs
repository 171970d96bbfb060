//! The circuit in the clear: the same operations on slots of `f64`, with the same levels.
//!
//! What an encrypted run differs from this by is the scheme's own error; what this differs from
//! the exact function by is the approximation's.

use std::sync::Arc;

use super::Engine;
use crate::ckks::{Automorphism, CkksError, Complex, Context, Degree, Meta};

type Result<T> = std::result::Result<T, CkksError>;

/// Slots that are not encrypted.
#[derive(Clone)]
pub struct Slots {
    meta: Meta,
    values: Arc<[Complex]>,
}

impl Slots {
    /// Values as a fresh ciphertext at a level would hold them; the rest are zero.
    #[must_use]
    pub fn new(ctx: &Context, values: &[Complex], level: usize) -> Self {
        let zeros = std::iter::repeat_n(Complex::default(), ctx.slots() - values.len());
        Self {
            meta: Meta { level, degree: Degree::One, parts: 2 },
            values: values.iter().copied().chain(zeros).collect(),
        }
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[Complex] {
        &self.values
    }

    fn with(&self, meta: Meta, f: impl Fn(Complex) -> Complex) -> Self {
        Self { meta, values: self.values.iter().map(|&x| f(x)).collect() }
    }

    fn zip(&self, b: &Self, meta: Meta, f: impl Fn(Complex, Complex) -> Complex) -> Self {
        let values = self.values.iter().zip(b.values.iter()).map(|(&x, &y)| f(x, y)).collect();
        Self { meta, values }
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

    fn image(&self, a: &Slots, what: Automorphism) -> Vec<Complex> {
        let n = self.ctx.slots();
        match what {
            Automorphism::Conjugate => a.values.iter().map(|x| Complex::new(x.re, -x.im)).collect(),
            Automorphism::Rotate(k) => {
                let mut out = a.values.to_vec();
                out.rotate_left(k.rem_euclid(n as i64) as usize);
                out
            }
        }
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

impl Engine for Clear {
    type Ct = Slots;

    fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    fn meta(&self, a: &Slots) -> Meta {
        a.meta
    }

    fn add(&self, a: &Slots, b: &Slots) -> Result<Slots> {
        Ok(a.zip(b, a.meta.add(b.meta, "add")?, sum))
    }

    fn sub(&self, a: &Slots, b: &Slots) -> Result<Slots> {
        Ok(a.zip(b, a.meta.add(b.meta, "sub")?, |x, y| sum(x, scaled(y, -1.0))))
    }

    fn add_scalar(&self, a: &Slots, c: f64) -> Result<Slots> {
        Ok(a.with(a.meta, |x| Complex::new(x.re + c, x.im)))
    }

    fn mul_integer(&self, a: &Slots, k: i64) -> Result<Slots> {
        Ok(a.with(a.meta, |x| scaled(x, k as f64)))
    }

    fn mul_scalar(&self, a: &Slots, c: f64) -> Result<Slots> {
        Ok(a.with(a.meta.times_plain("mul_scalar")?, |x| scaled(x, c)))
    }

    fn mul_i(&self, a: &Slots) -> Result<Slots> {
        Ok(a.with(a.meta, |x| Complex::new(-x.im, x.re)))
    }

    fn mul_slots(&self, a: &Slots, slots: &[f64]) -> Result<Slots> {
        let meta = a.meta.times_plain("mul_plain")?;
        let values = a.values.iter().zip(slots).map(|(&x, &k)| scaled(x, k)).collect();
        Ok(Slots { meta, values })
    }

    fn add_slots(&self, a: &Slots, slots: &[f64]) -> Result<Slots> {
        let values =
            a.values.iter().zip(slots).map(|(x, k)| Complex::new(x.re + k, x.im)).collect();
        Ok(Slots { meta: a.meta, values })
    }

    fn tensor(&self, a: &Slots, b: &Slots) -> Result<Slots> {
        Ok(a.zip(b, a.meta.tensor(b.meta, "multiply")?, times))
    }

    fn relinearize(&self, a: &Slots, rescale: bool) -> Result<Slots> {
        let meta = if rescale { a.meta.rescale("relinearize")? } else { a.meta };
        Ok(Slots { meta: Meta { parts: 2, ..meta }, values: a.values.clone() })
    }

    fn rescale(&self, a: &Slots) -> Result<Slots> {
        Ok(Slots { meta: a.meta.rescale("rescale")?, values: a.values.clone() })
    }

    fn level_down_by(&self, a: &Slots, level: usize, c: f64) -> Result<(Slots, f64)> {
        let (unit, k) = self.ctx.level_factor(a.meta.level, level, c)?;
        let applied = k as f64 / unit;
        Ok((a.with(a.meta.lower(level, "level_down")?, |x| scaled(x, applied)), applied))
    }

    fn apply_each(&self, a: &Slots, each: &[Automorphism]) -> Result<Vec<Slots>> {
        a.meta.need_two_parts("rotate")?;
        let image = |&what| Slots { meta: a.meta, values: self.image(a, what).into() };
        Ok(each.iter().map(image).collect())
    }

    fn add_images(&self, a: &Slots, each: &[Automorphism]) -> Result<Slots> {
        a.meta.need_two_parts("add_images")?;
        let mut out = a.values.to_vec();
        for &what in each {
            for (x, y) in out.iter_mut().zip(self.image(a, what)) {
                *x = sum(*x, y);
            }
        }
        Ok(Slots { meta: a.meta, values: out.into() })
    }
}
