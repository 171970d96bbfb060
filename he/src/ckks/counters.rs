//! What was really executed: counted where the work is done.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that threads add to.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, k: u64) {
        self.0.fetch_add(k, Ordering::Relaxed);
    }
}

/// Running counts of a [`Context`](super::Context).
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) products: Count,
    pub(crate) plain_products: Count,
    pub(crate) rotations: Count,
    pub(crate) key_switches: Count,
    pub(crate) decompositions: Count,
    pub(crate) rescales: Count,
    pub(crate) ntts: Count,
}

impl Counters {
    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> Counts {
        let get = |c: &Count| c.0.load(Ordering::Relaxed);
        Counts {
            products: get(&self.products),
            plain_products: get(&self.plain_products),
            rotations: get(&self.rotations),
            key_switches: get(&self.key_switches),
            decompositions: get(&self.decompositions),
            rescales: get(&self.rescales),
            ntts: get(&self.ntts),
        }
    }
}

/// Counted operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ciphertext × ciphertext, squares included.
    pub products: u64,
    /// Ciphertext × plaintext polynomial.
    pub plain_products: u64,
    /// Rotations and conjugations.
    pub rotations: u64,
    /// Inner products with a switching key: one for each relinearization and each rotation.
    pub key_switches: u64,
    /// Digit decompositions: rotations of one ciphertext taken together share one.
    pub decompositions: u64,
    /// Divisions by a prime of the chain.
    pub rescales: u64,
    /// Number-theoretic transforms of one row.
    pub ntts: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        Self {
            products: self.products - b.products,
            plain_products: self.plain_products - b.plain_products,
            rotations: self.rotations - b.rotations,
            key_switches: self.key_switches - b.key_switches,
            decompositions: self.decompositions - b.decompositions,
            rescales: self.rescales - b.rescales,
            ntts: self.ntts - b.ntts,
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, b: Self) {
        self.products += b.products;
        self.plain_products += b.plain_products;
        self.rotations += b.rotations;
        self.key_switches += b.key_switches;
        self.decompositions += b.decompositions;
        self.rescales += b.rescales;
        self.ntts += b.ntts;
    }
}
