//! A parameter set made ready: transforms, automorphisms and the constants of base conversion.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tfhe_ntt::prime64::Plan;

use super::arith::{Modulus, Shoup};
use super::convert::BaseConversion;
use super::counters::Counters;
use super::encode::Embedding;
use super::kernels::{Backend, MulShoup, Permutation};
use super::params::{Chain, Params, ParamsError};

/// One prime of the chain with its transform.
pub(crate) struct Prime {
    pub(crate) m: Modulus,
    plan: Plan,
    /// N⁻¹: the inverse transform leaves a factor N.
    n_inv: Shoup,
}

/// Everything that depends on the parameters alone. Shared by all keys and ciphertexts of a set.
pub struct Context {
    pub(crate) params: Params,
    pub(crate) chain: Chain,
    pub(crate) hash: [u8; 32],
    pub(crate) backend: Backend,
    /// q₀ … q_L, then the special primes.
    pub(crate) primes: Vec<Prime>,
    /// `digits[j][r − 1]`: conversion of the first r primes of digit j to all other primes.
    pub(crate) digits: Vec<Vec<BaseConversion>>,
    /// Division by the special modulus.
    pub(crate) down_special: BaseConversion,
    /// `[ℓ − 1]`: division by the special modulus and q_ℓ.
    pub(crate) down_special_and: Vec<BaseConversion>,
    /// `[ℓ − 1]`: division by q_ℓ.
    pub(crate) down: Vec<BaseConversion>,
    pub(crate) embedding: Embedding,
    pub(crate) counters: Counters,
    /// For each prime the image of X^(N/2) at ψ: a square root of −1.
    pub(crate) units: Vec<u64>,
    automorphisms: Mutex<HashMap<usize, Arc<Permutation>>>,
}

impl Context {
    /// Prepares a parameter set, with the fastest row kernels this processor has.
    ///
    /// # Errors
    /// [`ParamsError`] where the set is refused.
    pub fn new(params: Params) -> Result<Arc<Self>, ParamsError> {
        Self::with_backend(params, Backend::detect())
    }

    /// As [`Context::new`], with a chosen backend for the row kernels.
    ///
    /// # Errors
    /// [`ParamsError`] where the set is refused.
    pub fn with_backend(params: Params, backend: Backend) -> Result<Arc<Self>, ParamsError> {
        let chain = params.chain()?;
        let n = params.n();
        let mut primes = Vec::new();
        for &p in chain.primes.iter().chain(&chain.special) {
            let m = Modulus::new(p);
            let plan = Plan::try_new(n, p).ok_or(ParamsError::OutOfPrimes { name: params.name })?;
            primes.push(Prime { m, plan, n_inv: m.shoup(m.inv(n as u64)) });
        }
        let moduli: Vec<Modulus> = primes.iter().map(|p| p.m).collect();
        let units = primes
            .iter()
            .map(|p| {
                let mut row = vec![0; n];
                row[n / 2] = 1;
                p.plan.fwd(&mut row);
                row[0]
            })
            .collect();
        let (q, all) = (chain.primes.len(), primes.len());
        let special: Vec<usize> = (q..all).collect();
        let conversion = |sources: &[usize]| BaseConversion::new(&moduli, n, sources);
        let digits = (0..q)
            .step_by(chain.digit_len)
            .map(|start| {
                let end = (start + chain.digit_len).min(q);
                (start + 1..=end).map(|e| conversion(&(start..e).collect::<Vec<_>>())).collect()
            })
            .collect();
        let down_special_and = (1..q)
            .map(|l| conversion(&special.iter().copied().chain([l]).collect::<Vec<_>>()))
            .collect();
        Ok(Arc::new(Self {
            hash: params.hash(&chain),
            digits,
            down_special: conversion(&special),
            down_special_and,
            down: (1..q).map(|l| conversion(&[l])).collect(),
            embedding: Embedding::new(n),
            counters: Counters::default(),
            units,
            automorphisms: Mutex::default(),
            params,
            chain,
            backend,
            primes,
        }))
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Primes, scales and key modulus.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The row kernels in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// SHA-256 of the parameters, carried by every artefact.
    #[must_use]
    pub fn parameter_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What was executed on this context.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The highest level.
    #[must_use]
    pub fn top_level(&self) -> usize {
        self.params.levels
    }

    /// Slots of a ciphertext, N/2.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.params.slots()
    }

    pub(crate) fn n(&self) -> usize {
        self.params.n()
    }

    /// Number of ciphertext primes, L + 1; the index of the first special prime.
    pub(crate) fn q_count(&self) -> usize {
        self.chain.primes.len()
    }

    pub(crate) fn modulus(&self, prime: usize) -> &Modulus {
        &self.primes[prime].m
    }

    /// Coefficients (below 4p) to values (below p), in place.
    pub(crate) fn forward(&self, prime: usize, row: &mut [u64]) {
        self.primes[prime].plan.fwd(row);
        self.counters.ntts.add(1);
    }

    /// Values to N times the coefficients, in place.
    pub(crate) fn inverse_scaled(&self, prime: usize, row: &mut [u64]) {
        self.primes[prime].plan.inv(row);
        self.counters.ntts.add(1);
    }

    /// Values to coefficients, in place.
    pub(crate) fn inverse(&self, prime: usize, row: &mut [u64]) {
        self.inverse_scaled(prime, row);
        let p = &self.primes[prime];
        let src = row.to_vec();
        self.backend.run(MulShoup { dst: row, src: &src, by: p.n_inv, m: &p.m });
    }

    /// The Galois element 5^steps mod 2N of a rotation to the left, and 2N − 1 of conjugation.
    pub(crate) fn galois_element(&self, what: Automorphism) -> usize {
        let two_n = 2 * self.n();
        match what {
            Automorphism::Conjugate => two_n - 1,
            Automorphism::Rotate(steps) => {
                let steps = steps.rem_euclid(self.slots() as i64) as u64;
                let (mut g, mut base, mut e) = (1usize, 5usize, steps);
                while e > 0 {
                    if e & 1 == 1 {
                        g = g * base % two_n;
                    }
                    base = base * base % two_n;
                    e >>= 1;
                }
                g
            }
        }
    }

    /// How X ↦ X^g permutes transformed rows.
    ///
    /// Value i of a transformed row is a(ψ^(2·rev(i)+1)), so value i of the image is the value at
    /// the exponent g·(2·rev(i)+1).
    pub(crate) fn permutation(&self, g: usize) -> Arc<Permutation> {
        let mut map = self.automorphisms.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(g).or_insert_with(|| Arc::new(permutation(self.n(), g))).clone()
    }
}

/// An automorphism of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Automorphism {
    /// Slot i receives slot i + steps, cyclically over all N/2 slots.
    Rotate(i64),
    /// Complex conjugation in every slot.
    Conjugate,
}

fn permutation(n: usize, g: usize) -> Permutation {
    let bits = n.trailing_zeros();
    let rev = |i: usize| i.reverse_bits() >> (usize::BITS - bits);
    let source = |i: usize| rev((g * (2 * rev(i) + 1) % (2 * n) - 1) / 2);
    let mut patterns: Vec<[u64; 8]> = Vec::new();
    let blocks = (0..n / 8)
        .map(|b| {
            let base = source(8 * b) & !7;
            let pattern: [u64; 8] = std::array::from_fn(|r| (source(8 * b + r) - base) as u64);
            let k = patterns.iter().position(|p| *p == pattern).unwrap_or_else(|| {
                patterns.push(pattern);
                patterns.len() - 1
            });
            (base | k) as u32
        })
        .collect();
    // The three top bits of the exponent move by a multiple of N/4 within a block, which leaves
    // eight orders at most.
    assert!(patterns.len() <= 8, "automorphisms take blocks of eight to blocks of eight");
    patterns.resize(8, [0; 8]);
    let mut table = [[0; 8]; 8];
    table.copy_from_slice(&patterns);
    Permutation { blocks, patterns: table }
}
