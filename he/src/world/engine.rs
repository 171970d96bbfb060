//! What a world computes with: ciphertexts, or nothing but their levels.
//!
//! The world's code is generic over an [`Engine`]. The [`Evaluator`] runs it; the [`Ledger`] has
//! no data, checks the same rules, and counts what would be done. What the ledger predicts and
//! what the evaluator's context counts are obtained independently, and tests require them equal.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ckks::{Automorphism, Ciphertext, CkksError, Context, Counts, Degree, Evaluator, Meta};

type Result<T> = std::result::Result<T, CkksError>;

/// Operations on one ciphertext's worth of slots; as the methods of [`Evaluator`].
pub trait Engine: Send {
    /// A ciphertext, or what stands for one.
    type Ct: Clone + Send + Sync;

    /// The context.
    fn context(&self) -> &Arc<Context>;
    /// What follows belongs to the phase `name` of a plan; engines that run do not keep books.
    fn phase(&self, name: &str) {
        let _ = name;
    }
    /// Level, degree and parts.
    fn meta(&self, a: &Self::Ct) -> Meta;
    /// a + b.
    ///
    /// # Errors
    /// As [`Evaluator::add`].
    fn add(&self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct>;
    /// a − b.
    ///
    /// # Errors
    /// As [`Evaluator::sub`].
    fn sub(&self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct>;
    /// a + c.
    ///
    /// # Errors
    /// As [`Evaluator::add_scalar`].
    fn add_scalar(&self, a: &Self::Ct, c: f64) -> Result<Self::Ct>;
    /// k·a for an integer.
    ///
    /// # Errors
    /// As [`Evaluator::mul_integer`].
    fn mul_integer(&self, a: &Self::Ct, k: i64) -> Result<Self::Ct>;
    /// c·a, of degree two.
    ///
    /// # Errors
    /// As [`Evaluator::mul_scalar`].
    fn mul_scalar(&self, a: &Self::Ct, c: f64) -> Result<Self::Ct>;
    /// i·a.
    ///
    /// # Errors
    /// As [`Evaluator::mul_i`].
    fn mul_i(&self, a: &Self::Ct) -> Result<Self::Ct>;
    /// a times public slots, of degree two.
    ///
    /// # Errors
    /// As [`Evaluator::mul_plain`].
    fn mul_slots(&self, a: &Self::Ct, slots: &[f64]) -> Result<Self::Ct>;
    /// a plus public slots.
    ///
    /// # Errors
    /// As [`Evaluator::add_plain`].
    fn add_slots(&self, a: &Self::Ct, slots: &[f64]) -> Result<Self::Ct>;
    /// a·b before relinearization.
    ///
    /// # Errors
    /// As [`Evaluator::tensor`].
    fn tensor(&self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct>;
    /// To two parts, rescaled if asked.
    ///
    /// # Errors
    /// As [`Evaluator::relinearize`].
    fn relinearize(&self, a: &Self::Ct, rescale: bool) -> Result<Self::Ct>;
    /// To degree one, one level lower.
    ///
    /// # Errors
    /// As [`Evaluator::rescale`].
    fn rescale(&self, a: &Self::Ct) -> Result<Self::Ct>;
    /// c·a at a lower level, with the factor really applied.
    ///
    /// # Errors
    /// As [`Evaluator::level_down_by`].
    fn level_down_by(&self, a: &Self::Ct, level: usize, c: f64) -> Result<(Self::Ct, f64)>;
    /// Images under several automorphisms.
    ///
    /// # Errors
    /// As [`Evaluator::apply_each`].
    fn apply_each(&self, a: &Self::Ct, each: &[Automorphism]) -> Result<Vec<Self::Ct>>;
    /// a plus its images.
    ///
    /// # Errors
    /// As [`Evaluator::add_images`].
    fn add_images(&self, a: &Self::Ct, each: &[Automorphism]) -> Result<Self::Ct>;

    /// a·b, one level lower.
    ///
    /// # Errors
    /// As [`Evaluator::mul`].
    fn mul(&self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct> {
        self.relinearize(&self.tensor(a, b)?, true)
    }
}

impl Engine for Evaluator {
    type Ct = Ciphertext;

    fn context(&self) -> &Arc<Context> {
        self.context()
    }

    fn meta(&self, a: &Ciphertext) -> Meta {
        a.meta()
    }

    fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        self.add(a, b)
    }

    fn sub(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        self.sub(a, b)
    }

    fn add_scalar(&self, a: &Ciphertext, c: f64) -> Result<Ciphertext> {
        self.add_scalar(a, c)
    }

    fn mul_integer(&self, a: &Ciphertext, k: i64) -> Result<Ciphertext> {
        self.mul_integer(a, k)
    }

    fn mul_scalar(&self, a: &Ciphertext, c: f64) -> Result<Ciphertext> {
        self.mul_scalar(a, c)
    }

    fn mul_i(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.mul_i(a)
    }

    fn mul_slots(&self, a: &Ciphertext, slots: &[f64]) -> Result<Ciphertext> {
        self.mul_plain(a, &self.context().encode_factor(slots, a.level())?)
    }

    fn add_slots(&self, a: &Ciphertext, slots: &[f64]) -> Result<Ciphertext> {
        let plain = self.context().encode_as(slots, a.level(), a.meta().degree)?;
        self.add_plain(a, &plain)
    }

    fn tensor(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        self.tensor(a, b)
    }

    fn relinearize(&self, a: &Ciphertext, rescale: bool) -> Result<Ciphertext> {
        self.relinearize(a, rescale)
    }

    fn rescale(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.rescale(a)
    }

    fn level_down_by(&self, a: &Ciphertext, level: usize, c: f64) -> Result<(Ciphertext, f64)> {
        self.level_down_by(a, level, c)
    }

    fn apply_each(&self, a: &Ciphertext, each: &[Automorphism]) -> Result<Vec<Ciphertext>> {
        self.apply_each(a, each)
    }

    fn add_images(&self, a: &Ciphertext, each: &[Automorphism]) -> Result<Ciphertext> {
        self.add_images(a, each, false)
    }
}

/// What a plan says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Operations.
    pub counts: Counts,
    /// The automorphisms whose keys the circuit needs.
    pub automorphisms: BTreeSet<Automorphism>,
    /// Levels consumed: the fresh level less the lowest level reached.
    pub levels: usize,
    /// The same by phases, in their order; none where the world named none.
    pub phases: Vec<Phase>,
}

/// A part of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Operations.
    pub counts: Counts,
    /// Levels by which it went below what came before.
    pub levels: usize,
}

/// An engine without data: it checks and counts.
#[derive(Clone)]
pub struct Ledger {
    ctx: Arc<Context>,
    fresh: usize,
    state: Arc<Mutex<Planned>>,
}

impl Ledger {
    /// An empty ledger for fresh ciphertexts of the top level.
    #[must_use]
    pub fn new(ctx: Arc<Context>) -> Self {
        let fresh = ctx.top_level();
        Self::from_level(ctx, fresh)
    }

    /// An empty ledger for fresh ciphertexts of a level.
    #[must_use]
    pub fn from_level(ctx: Arc<Context>, fresh: usize) -> Self {
        Self { ctx, fresh, state: Arc::default() }
    }

    /// What was planned so far; phases in which nothing happened are left out.
    #[must_use]
    pub fn planned(&self) -> Planned {
        let mut planned = self.state().clone();
        planned.phases.retain(|p| p.counts != Counts::default());
        planned
    }

    fn state(&self) -> MutexGuard<'_, Planned> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, counts: Counts) {
        let mut state = self.state();
        state.counts += counts;
        if let Some(phase) = state.phases.last_mut() {
            phase.counts += counts;
        }
    }

    fn reached(&self, meta: Meta) -> Meta {
        let used = self.fresh.saturating_sub(meta.level);
        let mut state = self.state();
        let more = used.saturating_sub(state.levels);
        state.levels += more;
        if let Some(phase) = state.phases.last_mut() {
            phase.levels += more;
        }
        meta
    }

    /// A key switch at a level: decomposition, `groups` results, `keys` inner products.
    fn switch(&self, level: usize, groups: u64, keys: u64, rescale: bool) {
        let chain = self.ctx.chain();
        let digits = (level / chain.digit_len + 1) as u64;
        let rows = (level + 1 + chain.special.len()) as u64;
        self.count(Counts {
            decompositions: 1,
            key_switches: keys,
            rescales: u64::from(rescale),
            ntts: (digits + 2 * groups) * rows,
            ..Counts::default()
        });
    }

    fn divide(&self, meta: Meta) {
        let ntts = (meta.parts * (meta.level + 1)) as u64;
        self.count(Counts { rescales: 1, ntts, ..Counts::default() });
    }

    fn rotations(&self, each: &[Automorphism]) {
        self.count(Counts { rotations: each.len() as u64, ..Counts::default() });
        self.state().automorphisms.extend(each);
    }
}

impl Engine for Ledger {
    type Ct = Meta;

    fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    fn phase(&self, name: &str) {
        let (counts, levels) = (Counts::default(), 0);
        self.state().phases.push(Phase { name: name.into(), counts, levels });
    }

    fn meta(&self, a: &Meta) -> Meta {
        *a
    }

    fn add(&self, a: &Meta, b: &Meta) -> Result<Meta> {
        a.add(*b, "add")
    }

    fn sub(&self, a: &Meta, b: &Meta) -> Result<Meta> {
        a.add(*b, "sub")
    }

    fn add_scalar(&self, a: &Meta, _: f64) -> Result<Meta> {
        Ok(*a)
    }

    fn mul_integer(&self, a: &Meta, _: i64) -> Result<Meta> {
        Ok(*a)
    }

    fn mul_scalar(&self, a: &Meta, _: f64) -> Result<Meta> {
        a.times_plain("mul_scalar")
    }

    fn mul_i(&self, a: &Meta) -> Result<Meta> {
        Ok(*a)
    }

    fn mul_slots(&self, a: &Meta, _: &[f64]) -> Result<Meta> {
        let ntts = (a.level + 1) as u64;
        self.count(Counts { plain_products: 1, ntts, ..Counts::default() });
        a.times_plain("mul_plain")
    }

    fn add_slots(&self, a: &Meta, _: &[f64]) -> Result<Meta> {
        self.count(Counts { ntts: (a.level + 1) as u64, ..Counts::default() });
        Ok(*a)
    }

    fn tensor(&self, a: &Meta, b: &Meta) -> Result<Meta> {
        self.count(Counts { products: 1, ..Counts::default() });
        a.tensor(*b, "multiply")
    }

    fn relinearize(&self, a: &Meta, rescale: bool) -> Result<Meta> {
        if a.parts == 2 {
            return if rescale { self.rescale(a) } else { Ok(*a) };
        }
        let out = if rescale { a.rescale("relinearize")? } else { *a };
        self.switch(a.level, 1, 1, rescale);
        Ok(self.reached(Meta { parts: 2, ..out }))
    }

    fn rescale(&self, a: &Meta) -> Result<Meta> {
        let out = a.rescale("rescale")?;
        self.divide(*a);
        Ok(self.reached(out))
    }

    fn level_down_by(&self, a: &Meta, level: usize, c: f64) -> Result<(Meta, f64)> {
        let out = a.lower(level, "level_down")?;
        let (unit, k) = self.ctx.level_factor(a.level, level, c)?;
        self.divide(Meta { level: level + 1, degree: Degree::Two, ..*a });
        Ok((self.reached(out), k as f64 / unit))
    }

    fn apply_each(&self, a: &Meta, each: &[Automorphism]) -> Result<Vec<Meta>> {
        a.need_two_parts("rotate")?;
        self.rotations(each);
        self.switch(a.level, each.len() as u64, each.len() as u64, false);
        Ok(vec![*a; each.len()])
    }

    fn add_images(&self, a: &Meta, each: &[Automorphism]) -> Result<Meta> {
        a.need_two_parts("add_images")?;
        self.rotations(each);
        self.switch(a.level, 1, each.len() as u64, false);
        Ok(*a)
    }
}
