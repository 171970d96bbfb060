//! What the world computes with: ciphertexts, integers in the clear, or nothing at all.

use std::sync::atomic::{AtomicU64, Ordering};

use undertone_core::Fault;

use super::TfheError;

/// Linear operations on one integer and look-up tables on many.
///
/// An engine's tables have 2^[`bits`](Engine::bits) entries. Linear operations work modulo
/// 2^(bits + 1); the world sees to it that every input of a table lies within the table.
pub trait Engine: Send + Sync {
    /// An encrypted integer, or what stands for one.
    type Ct: Clone + Send + Sync;

    /// log₂ of the entries of a table.
    fn bits(&self) -> u32;

    /// The largest Σ|kᵢ| of a linear combination Σ kᵢ·xᵢ of bootstrapped xᵢ that a table may take.
    fn noise_limit(&self) -> u32;

    /// An integer that everybody knows.
    fn constant(&self, k: i64) -> Self::Ct;

    /// a + k.
    fn offset(&self, a: &mut Self::Ct, k: i64);

    /// k·a.
    fn scale(&self, a: &mut Self::Ct, k: i64);

    /// a + k·b, k = ±1.
    fn add(&self, a: &mut Self::Ct, b: &Self::Ct, k: i64);

    /// table[x − lo] for each x: one programmable bootstrap each.
    ///
    /// # Errors
    /// Engines that see the integers refuse one outside the table.
    fn look_up(
        &self,
        xs: Vec<Self::Ct>,
        lo: i64,
        table: &[i64],
    ) -> Result<Vec<Self::Ct>, TfheError>;

    /// Bootstraps so far.
    fn bootstraps(&self) -> u64;
}

/// Integers in the clear: the reference of the encrypted run.
pub struct Clear {
    bits: u32,
    noise_limit: u32,
    count: AtomicU64,
}

impl Clear {
    /// With tables of 2^bits entries and a noise limit, as the parameters to imitate have.
    #[must_use]
    pub fn new(bits: u32, noise_limit: u32) -> Self {
        Self { bits, noise_limit, count: AtomicU64::new(0) }
    }
}

impl Engine for Clear {
    type Ct = i64;

    fn bits(&self) -> u32 {
        self.bits
    }

    fn noise_limit(&self) -> u32 {
        self.noise_limit
    }

    fn constant(&self, k: i64) -> i64 {
        k
    }

    fn offset(&self, a: &mut i64, k: i64) {
        *a += k;
    }

    fn scale(&self, a: &mut i64, k: i64) {
        *a *= k;
    }

    fn add(&self, a: &mut i64, b: &i64, k: i64) {
        *a += k * b;
    }

    fn look_up(&self, xs: Vec<i64>, lo: i64, table: &[i64]) -> Result<Vec<i64>, TfheError> {
        self.count.fetch_add(xs.len() as u64, Ordering::Relaxed);
        let most = 1 << self.bits;
        if table.len() > most {
            return Err(TfheError::TooWide {
                op: "table",
                steps: table.len() as u64,
                most: most as u64,
            });
        }
        let at = |x: i64| usize::try_from(x - lo).ok().and_then(|i| table.get(i)).copied();
        // The world's intervals are proven, so a miss is an input that breaks its declared range.
        xs.into_iter()
            .map(|x| {
                at(x).ok_or(Fault::Parameter { what: "an input's declared range", got: x }.into())
            })
            .collect()
    }

    fn bootstraps(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// No integers: counts what a run would do.
pub struct Ledger(Clear);

impl Ledger {
    /// As [`Clear::new`].
    #[must_use]
    pub fn new(bits: u32, noise_limit: u32) -> Self {
        Self(Clear::new(bits, noise_limit))
    }
}

impl Engine for Ledger {
    type Ct = ();

    fn bits(&self) -> u32 {
        self.0.bits
    }

    fn noise_limit(&self) -> u32 {
        self.0.noise_limit
    }

    fn constant(&self, _: i64) {}

    fn offset(&self, (): &mut (), _: i64) {}

    fn scale(&self, (): &mut (), _: i64) {}

    fn add(&self, (): &mut (), (): &(), _: i64) {}

    fn look_up(&self, xs: Vec<()>, _: i64, _: &[i64]) -> Result<Vec<()>, TfheError> {
        self.0.count.fetch_add(xs.len() as u64, Ordering::Relaxed);
        Ok(xs)
    }

    fn bootstraps(&self) -> u64 {
        self.0.bootstraps()
    }
}
