//! Operations on ciphertexts: everything a server does. Nothing here can name a secret key.

use std::sync::Arc;

use super::buffer::Rows;
use super::cipher::{Ciphertext, Degree, Factor, Plaintext};
use super::context::{Automorphism, Context};
use super::encode::Complex;
use super::error::CkksError;
use super::evalkeys::{EvaluationKeys, SwitchingKey};
use super::kernels::{Add, MulMontgomery, MulShoup, Negate, Product, Sub, TensorPair};
use super::switch::{Group, Inside, Job};

type Result<T> = std::result::Result<T, CkksError>;

/// Computes on ciphertexts with a client's evaluation keys.
///
/// Levels and scales are checked: a misuse is a [`CkksError`] that says what to do instead.
#[derive(Clone)]
pub struct Evaluator {
    ctx: Arc<Context>,
    keys: Arc<EvaluationKeys>,
}

impl Evaluator {
    /// An evaluator over these keys.
    ///
    /// # Errors
    /// [`CkksError::WrongParameters`] if the keys were made under other parameters.
    pub fn new(ctx: Arc<Context>, keys: Arc<EvaluationKeys>) -> Result<Self> {
        if keys.parameters != ctx.hash {
            return Err(CkksError::WrongParameters { operation: "evaluator" });
        }
        Ok(Self { ctx, keys })
    }

    /// The context.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Arc<EvaluationKeys> {
        &self.keys
    }

    fn check(&self, x: &Ciphertext, operation: &'static str) -> Result<()> {
        if x.parameters != self.ctx.hash {
            return Err(CkksError::WrongParameters { operation });
        }
        if x.key != self.keys.key {
            return Err(CkksError::WrongKey { operation });
        }
        Ok(())
    }

    fn with_parts(
        &self,
        like: &Ciphertext,
        parts: Vec<Rows>,
        level: usize,
        degree: Degree,
    ) -> Ciphertext {
        Ciphertext { parts, level, degree, key: like.key, parameters: like.parameters }
    }

    /// a + b.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`], wrong key or parameters.
    pub fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        let mut out = a.clone();
        self.add_assign(&mut out, b)?;
        Ok(out)
    }

    /// a += b.
    ///
    /// # Errors
    /// As [`Evaluator::add`].
    pub fn add_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<()> {
        self.check(a, "add")?;
        self.check(b, "add")?;
        a.meta().add(b.meta(), "add")?;
        for (k, part) in b.parts.iter().enumerate() {
            if k == a.parts.len() {
                a.parts.push(part.clone());
                continue;
            }
            for (i, (dst, b)) in a.parts[k].rows_mut().zip(part.rows()).enumerate() {
                self.ctx.backend.run(Add { dst, b, m: self.ctx.modulus(i) });
            }
        }
        Ok(())
    }

    /// a − b.
    ///
    /// # Errors
    /// As [`Evaluator::add`].
    pub fn sub(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        self.check(a, "sub")?;
        self.check(b, "sub")?;
        a.meta().add(b.meta(), "sub")?;
        let mut out = a.clone();
        for (k, part) in b.parts.iter().enumerate() {
            if k == out.parts.len() {
                let mut negated = part.clone();
                self.negate_rows(&mut negated);
                out.parts.push(negated);
                continue;
            }
            for (i, (dst, b)) in out.parts[k].rows_mut().zip(part.rows()).enumerate() {
                self.ctx.backend.run(Sub { dst, b, m: self.ctx.modulus(i) });
            }
        }
        Ok(out)
    }

    fn negate_rows(&self, rows: &mut Rows) {
        for (i, dst) in rows.rows_mut().enumerate() {
            self.ctx.backend.run(Negate { dst, m: self.ctx.modulus(i) });
        }
    }

    /// −a.
    #[must_use]
    pub fn negate(&self, a: &Ciphertext) -> Ciphertext {
        let mut out = a.clone();
        for part in &mut out.parts {
            self.negate_rows(part);
        }
        out
    }

    /// a + plaintext.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`], wrong key or parameters.
    pub fn add_plain(&self, a: &Ciphertext, b: &Plaintext) -> Result<Ciphertext> {
        self.check(a, "add_plain")?;
        if b.parameters != self.ctx.hash {
            return Err(CkksError::WrongParameters { operation: "add_plain" });
        }
        a.meta().same_level(super::Meta { level: b.level, ..a.meta() }, "add_plain")?;
        a.meta().need_degree(b.degree, "add_plain")?;
        let mut out = a.clone();
        for (i, (dst, b)) in out.parts[0].rows_mut().zip(b.rows.rows()).enumerate() {
            self.ctx.backend.run(Add { dst, b, m: self.ctx.modulus(i) });
        }
        Ok(out)
    }

    /// a + c in every slot, for a real c: no level, no transform.
    ///
    /// # Errors
    /// [`CkksError::ValueTooLarge`], wrong key or parameters.
    pub fn add_scalar(&self, a: &Ciphertext, c: f64) -> Result<Ciphertext> {
        self.check(a, "add_scalar")?;
        let k = scaled_integer(c, self.ctx.scale(a.level, a.degree))?;
        let mut out = a.clone();
        for (i, row) in out.parts[0].rows_mut().enumerate() {
            let m = self.ctx.modulus(i);
            let c = m.reduce_i128(k);
            for x in row {
                let sum = *x + c;
                *x = sum.min(sum.wrapping_sub(m.p));
            }
        }
        Ok(out)
    }

    /// k·a for an integer k, at the same scale.
    ///
    /// # Errors
    /// Wrong key or parameters.
    pub fn mul_integer(&self, a: &Ciphertext, k: i64) -> Result<Ciphertext> {
        self.check(a, "mul_integer")?;
        Ok(self.times(a, i128::from(k), a.degree))
    }

    /// c·a for a real c: raises the degree, so a rescaling follows.
    ///
    /// # Errors
    /// [`CkksError::ScaleMismatch`], [`CkksError::ValueTooLarge`], wrong key or parameters.
    pub fn mul_scalar(&self, a: &Ciphertext, c: f64) -> Result<Ciphertext> {
        self.check(a, "mul_scalar")?;
        a.meta().times_plain("mul_scalar")?;
        let k = scaled_integer(c, self.ctx.scale(a.level, Degree::One))?;
        Ok(self.times(a, k, Degree::Two))
    }

    fn times(&self, a: &Ciphertext, k: i128, degree: Degree) -> Ciphertext {
        let mut parts = Vec::with_capacity(a.parts.len());
        for part in &a.parts {
            let mut out = Rows::scratch(self.ctx.n(), part.count());
            for (i, (dst, src)) in out.rows_mut().zip(part.rows()).enumerate() {
                let m = self.ctx.modulus(i);
                self.ctx.backend.run(MulShoup { dst, src, by: m.shoup(m.reduce_i128(k)), m });
            }
            parts.push(out);
        }
        self.with_parts(a, parts, a.level, degree)
    }

    /// a times a plaintext factor: raises the degree, so a rescaling follows.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`], wrong key or parameters.
    pub fn mul_plain(&self, a: &Ciphertext, b: &Factor) -> Result<Ciphertext> {
        self.check(a, "mul_plain")?;
        if b.parameters != self.ctx.hash {
            return Err(CkksError::WrongParameters { operation: "mul_plain" });
        }
        a.meta().same_level(super::Meta { level: b.level, ..a.meta() }, "mul_plain")?;
        a.meta().times_plain("mul_plain")?;
        self.ctx.counters.plain_products.add(1);
        Ok(self.times_rows(a, &b.rows, Degree::Two))
    }

    fn times_rows(&self, a: &Ciphertext, by: &Rows, degree: Degree) -> Ciphertext {
        let mut parts = Vec::with_capacity(a.parts.len());
        for part in &a.parts {
            let mut out = Rows::scratch(self.ctx.n(), part.count());
            for (i, (dst, a)) in out.rows_mut().zip(part.rows()).enumerate() {
                let m = self.ctx.modulus(i);
                self.ctx.backend.run(MulMontgomery { dst, a, b: by.row(i), m });
            }
            parts.push(out);
        }
        self.with_parts(a, parts, a.level, degree)
    }

    /// i·a in every slot: exact, no level.
    ///
    /// # Errors
    /// Wrong key or parameters.
    pub fn mul_i(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.check(a, "mul_i")?;
        let mut out = a.clone();
        for (part, from) in out.parts.iter_mut().zip(&a.parts) {
            for (i, (dst, src)) in part.rows_mut().zip(from.rows()).enumerate() {
                let (m, unit) = (self.ctx.modulus(i), self.ctx.units[i]);
                // X^(N/2) takes the exponents 1 mod 4, which fill the first half of a
                // transformed row, to the unit, and the others to its negative.
                let half = dst.len() / 2;
                for (at, w) in [(0..half, unit), (half..2 * half, m.p - unit)] {
                    let (dst, src, by) = (&mut dst[at.clone()], &src[at], m.shoup(w));
                    self.ctx.backend.run(MulShoup { dst, src, by, m });
                }
            }
        }
        Ok(out)
    }

    /// a·b before relinearization: three parts, degree two. Sums of such products share one
    /// relinearization.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`],
    /// [`CkksError::NotRelinearized`], wrong key or parameters.
    pub fn tensor(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        self.check(a, "multiply")?;
        self.check(b, "multiply")?;
        let meta = a.meta().tensor(b.meta(), "multiply")?;
        self.ctx.counters.products.add(1);
        let count = meta.level + 1;
        let mut d: [Rows; 3] = std::array::from_fn(|_| Rows::scratch(self.ctx.n(), count));
        for i in 0..count {
            let ([d0, d1, d2], m) = (&mut d, self.ctx.modulus(i));
            let [a, b] = [a, b].map(|x| [x.parts[0].row(i), x.parts[1].row(i)]);
            let out = [d0.row_mut(i), d1.row_mut(i)];
            self.ctx.backend.run(TensorPair { out, a, b, m });
            self.ctx.backend.run(Product { dst: d2.row_mut(i), a: a[1], b: b[1], m });
        }
        Ok(self.with_parts(a, d.into(), meta.level, meta.degree))
    }

    fn relinearization_key(&self, operation: &'static str) -> Result<&SwitchingKey> {
        self.keys
            .relinearization
            .as_ref()
            .ok_or_else(|| CkksError::MissingKey { operation, wanted: "relinearization".into() })
    }

    /// From three parts to two; also rescales if asked, for less than the two apart.
    ///
    /// # Errors
    /// [`CkksError::MissingKey`], [`CkksError::LevelExhausted`], wrong key or parameters.
    pub fn relinearize(&self, a: &Ciphertext, rescale: bool) -> Result<Ciphertext> {
        self.check(a, "relinearize")?;
        if a.parts.len() == 2 {
            return if rescale { self.rescale(a) } else { Ok(a.clone()) };
        }
        let (mut level, mut degree) = (a.level, a.degree);
        if rescale {
            let meta = a.meta().rescale("relinearize")?;
            (level, degree) = (meta.level, meta.degree);
        }
        let key = self.relinearization_key("relinearize")?;
        let group = Group {
            jobs: vec![Job { key, by: None }],
            inside: Inside::Both([&a.parts[0], &a.parts[1]]),
            outside: None,
        };
        let mut out = self.ctx.switch(&a.parts[2], a.level, &[group], rescale);
        // One group in, one result out.
        let parts = out.pop().map(Vec::from).unwrap_or_default();
        Ok(self.with_parts(a, parts, level, degree))
    }

    /// a·b, relinearized and rescaled: one level lower. The same as [`Evaluator::tensor`] and
    /// [`Evaluator::relinearize`], for less: only the third part of the product is stored.
    ///
    /// # Errors
    /// As [`Evaluator::tensor`] and [`Evaluator::relinearize`].
    pub fn mul(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        self.check(a, "multiply")?;
        self.check(b, "multiply")?;
        let tensor = a.meta().tensor(b.meta(), "multiply")?;
        let meta = tensor.rescale("multiply")?;
        let key = self.relinearization_key("multiply")?;
        self.ctx.counters.products.add(1);
        let mut third = Rows::scratch(self.ctx.n(), a.level + 1);
        for (i, dst) in third.rows_mut().enumerate() {
            let (a, b, m) = (a.parts[1].row(i), b.parts[1].row(i), self.ctx.modulus(i));
            self.ctx.backend.run(Product { dst, a, b, m });
        }
        let group = Group {
            jobs: vec![Job { key, by: None }],
            inside: Inside::Product([&a.parts, &b.parts]),
            outside: None,
        };
        let mut out = self.ctx.switch(&third, a.level, &[group], true);
        // One group in, one result out.
        let parts = out.pop().map(Vec::from).unwrap_or_default();
        Ok(self.with_parts(a, parts, meta.level, meta.degree))
    }

    /// a², relinearized and rescaled.
    ///
    /// # Errors
    /// As [`Evaluator::mul`].
    pub fn square(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.mul(a, a)
    }

    /// Divides by q_ℓ: from degree two to one, one level lower.
    ///
    /// # Errors
    /// [`CkksError::ScaleMismatch`], [`CkksError::LevelExhausted`], wrong key or parameters.
    pub fn rescale(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.check(a, "rescale")?;
        let meta = a.meta().rescale("rescale")?;
        Ok(self.divided(a, meta.degree))
    }

    fn divided(&self, a: &Ciphertext, degree: Degree) -> Ciphertext {
        let (n, level) = (self.ctx.n(), a.level);
        let down = &self.ctx.down[level - 1];
        self.ctx.counters.rescales.add(1);
        let mut scratch = Rows::scratch(n, 1);
        let parts = a
            .parts
            .iter()
            .map(|part| {
                let prepared = down.prepare(&self.ctx, std::iter::once(part.row(level)));
                let mut out = Rows::scratch(n, level);
                for i in 0..level {
                    let (part, scratch) = (part.row(i), scratch.row_mut(0));
                    down.divide(&self.ctx, &prepared, i, part, scratch, out.row_mut(i));
                }
                out
            })
            .collect();
        self.with_parts(a, parts, level - 1, degree)
    }

    /// The same value at a lower level, at that level's canonical scale.
    ///
    /// # Errors
    /// [`CkksError::ScaleMismatch`], [`CkksError::LevelExhausted`] if `level` is higher, wrong
    /// key or parameters.
    pub fn level_down(&self, a: &Ciphertext, level: usize) -> Result<Ciphertext> {
        self.check(a, "level_down")?;
        if level == a.level {
            a.meta().need_degree(Degree::One, "level_down")?;
            return Ok(a.clone());
        }
        Ok(self.level_down_by(a, level, 1.0)?.0)
    }

    /// c·a at a strictly lower level, for the price of going there; also returns the factor that
    /// was really applied, which differs from c by the rounding of one integer.
    ///
    /// # Errors
    /// As [`Evaluator::level_down`], and [`CkksError::ValueTooLarge`].
    pub fn level_down_by(&self, a: &Ciphertext, level: usize, c: f64) -> Result<(Ciphertext, f64)> {
        self.check(a, "level_down")?;
        a.meta().lower(level, "level_down")?;
        let (unit, k) = self.ctx.level_factor(a.level, level, c)?;
        let mut cut = a.clone();
        for part in &mut cut.parts {
            part.truncate(level + 2);
        }
        cut.level = level + 1;
        let lifted = self.times(&cut, k, Degree::Two);
        Ok((self.divided(&lifted, Degree::One), k as f64 / unit))
    }

    fn galois_key(&self, operation: &'static str, what: Automorphism) -> Result<&SwitchingKey> {
        self.keys
            .galois(&self.ctx, what)
            .ok_or_else(|| CkksError::MissingKey { operation, wanted: format!("{what:?}") })
    }

    fn job(&self, operation: &'static str, what: Automorphism) -> Result<Job<'_>> {
        let key = self.galois_key(operation, what)?;
        Ok(Job { key, by: Some(self.ctx.permutation(self.ctx.galois_element(what))) })
    }

    /// Slot i receives slot i + steps, cyclically.
    ///
    /// # Errors
    /// [`CkksError::MissingKey`], [`CkksError::NotRelinearized`], wrong key or parameters.
    pub fn rotate(&self, a: &Ciphertext, steps: i64) -> Result<Ciphertext> {
        if steps.rem_euclid(self.ctx.slots() as i64) == 0 {
            self.check(a, "rotate")?;
            return Ok(a.clone());
        }
        self.apply(a, Automorphism::Rotate(steps))
    }

    /// Complex conjugation in every slot.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`].
    pub fn conjugate(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.apply(a, Automorphism::Conjugate)
    }

    fn apply(&self, a: &Ciphertext, what: Automorphism) -> Result<Ciphertext> {
        let mut out = self.apply_each(a, &[what])?;
        Ok(out.swap_remove(0))
    }

    /// Several automorphisms of one ciphertext, which share its decomposition.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`].
    pub fn apply_each(&self, a: &Ciphertext, each: &[Automorphism]) -> Result<Vec<Ciphertext>> {
        self.check(a, "rotate")?;
        a.meta().need_two_parts("rotate")?;
        let groups = each
            .iter()
            .map(|&what| {
                Ok(Group {
                    jobs: vec![self.job("rotate", what)?],
                    inside: Inside::First(&a.parts[0]),
                    outside: None,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        self.ctx.counters.rotations.add(each.len() as u64);
        let out = self.ctx.switch(&a.parts[1], a.level, &groups, false);
        Ok(out.into_iter().map(|p| self.with_parts(a, p.into(), a.level, a.degree)).collect())
    }

    /// a plus its images under `each`, with one decomposition and one division for all of them;
    /// rescaled as well if asked.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`], and [`CkksError::LevelExhausted`].
    pub fn add_images(
        &self,
        a: &Ciphertext,
        each: &[Automorphism],
        rescale: bool,
    ) -> Result<Ciphertext> {
        self.check(a, "add_images")?;
        a.meta().need_two_parts("add_images")?;
        let (mut level, mut degree) = (a.level, a.degree);
        if rescale {
            let meta = a.meta().rescale("add_images")?;
            (level, degree) = (meta.level, meta.degree);
        }
        let jobs = each.iter().map(|&w| self.job("add_images", w)).collect::<Result<Vec<_>>>()?;
        self.ctx.counters.rotations.add(each.len() as u64);
        let group = Group {
            jobs,
            inside: Inside::First(&a.parts[0]),
            outside: Some([&a.parts[0], &a.parts[1]]),
        };
        let mut out = self.ctx.switch(&a.parts[1], a.level, &[group], rescale);
        let parts = out.pop().map(Vec::from).unwrap_or_default();
        Ok(self.with_parts(a, parts, level, degree))
    }
}

fn scaled_integer(c: f64, scale: f64) -> Result<i128> {
    let k = (c * scale).round();
    // NaN fails the comparison too.
    if k.abs() < 1e36 {
        Ok(k as i128)
    } else {
        Err(CkksError::ValueTooLarge { bits: k.abs().log2(), limit: 119.0 })
    }
}

impl Context {
    /// The integer that takes a value from one level to a lower one, times c: the integer for
    /// c = 1 before rounding, and the rounded one.
    pub(crate) fn level_factor(&self, from: usize, to: usize, c: f64) -> Result<(f64, i128)> {
        // value·s_from·k/q = c·value·s_to.
        let q = self.chain.primes[to + 1] as f64;
        let unit = self.chain.scales[to] * q / self.chain.scales[from];
        Ok((unit, scaled_integer(c, unit)?))
    }

    /// Encodes values to multiply ciphertexts of this level by.
    ///
    /// # Errors
    /// As [`Context::encode`].
    pub fn encode_factor<T: Copy + Into<Complex>>(
        &self,
        values: &[T],
        level: usize,
    ) -> Result<Factor> {
        if level > self.top_level() {
            return Err(CkksError::NoSuchLevel { level, top: self.top_level() });
        }
        let rows = self.encode_rows(values, level, self.scale(level, Degree::One), true)?;
        Ok(Factor { rows, level, parameters: self.hash })
    }
}
