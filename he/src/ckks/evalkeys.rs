//! Keys that a server may hold: public, relinearization and Galois keys.
//!
//! Each has a uniformly random half that a 32-byte seed expands to, so only the other half
//! travels.

use std::collections::BTreeMap;

use super::buffer::Rows;
use super::cipher::KeyId;
use super::context::{Automorphism, Context};
use super::sample::{Seed, stream, uniform};

/// Switches from one secret to another: for each digit j a pair (bⱼ, aⱼ) modulo the whole key
/// modulus with bⱼ = −aⱼ·s_to + eⱼ + P·gⱼ·s_from; gⱼ is 1 modulo the primes of digit j, else 0.
/// All rows are transformed and in Montgomery form.
#[derive(Clone)]
pub(crate) struct SwitchingKey {
    pub(crate) seed: Seed,
    pub(crate) b: Vec<Rows>,
    pub(crate) a: Vec<Rows>,
}

impl SwitchingKey {
    /// Completes a key from its travelling half.
    pub(crate) fn expand(ctx: &Context, seed: Seed, b: Vec<Rows>) -> Self {
        let a = (0..b.len()).map(|digit| expand_digit(ctx, &seed, digit)).collect();
        Self { seed, b, a }
    }
}

/// The uniform half of one digit.
pub(crate) fn expand_digit(ctx: &Context, seed: &Seed, digit: usize) -> Rows {
    expand_rows(ctx, seed, digit as u64 + 1, ctx.primes.len())
}

/// Uniform rows modulo the first `count` primes.
pub(crate) fn expand_rows(ctx: &Context, seed: &Seed, purpose: u64, count: usize) -> Rows {
    let mut rows = Rows::scratch(ctx.n(), count);
    for (prime, row) in rows.rows_mut().enumerate() {
        uniform(&mut stream(seed, purpose << 32 | prime as u64), ctx.modulus(prime).p, row);
    }
    rows
}

/// Encrypts: (−a·s + e, a) modulo the ciphertext primes, in Montgomery form.
#[derive(Clone)]
pub struct PublicKey {
    pub(crate) key: KeyId,
    pub(crate) parameters: [u8; 32],
    pub(crate) seed: Seed,
    pub(crate) b: Rows,
    pub(crate) a: Rows,
}

impl PublicKey {
    pub(crate) fn expand(ctx: &Context, key: KeyId, seed: Seed, b: Rows) -> Self {
        let a = expand_rows(ctx, &seed, 0, b.count());
        Self { key, parameters: ctx.hash, seed, b, a }
    }

    /// The key it belongs to.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key
    }
}

/// What a server needs to compute: relinearization and the rotations of the circuit.
#[derive(Clone)]
pub struct EvaluationKeys {
    pub(crate) key: KeyId,
    pub(crate) parameters: [u8; 32],
    pub(crate) relinearization: Option<SwitchingKey>,
    /// By Galois element.
    pub(crate) galois: BTreeMap<usize, SwitchingKey>,
}

impl EvaluationKeys {
    /// The key they belong to.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key
    }

    /// Number of switching keys.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.relinearization.is_some()) + self.galois.len()
    }

    /// Bytes of the expanded keys in memory.
    #[must_use]
    pub fn size_bytes(&self, ctx: &Context) -> usize {
        self.count() * switching_key_bytes(ctx)
    }

    pub(crate) fn galois(&self, ctx: &Context, what: Automorphism) -> Option<&SwitchingKey> {
        self.galois.get(&ctx.galois_element(what))
    }
}

/// Bytes of one expanded switching key.
#[must_use]
pub fn switching_key_bytes(ctx: &Context) -> usize {
    2 * ctx.digits.len() * ctx.primes.len() * ctx.n() * 8
}
