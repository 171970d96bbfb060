//! The client's side: the secret key, and what only its holder can do.
//!
//! This module exists with the feature `client` only. A server builds without it and then has no
//! type that could hold a secret key.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngCore;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::buffer::Rows;
use super::cipher::{Ciphertext, KeyId, Plaintext, SeededCiphertext};
use super::context::{Automorphism, Context};
use super::encode::Complex;
use super::encrypt::{check_message, small_row};
use super::error::CkksError;
use super::evalkeys::{EvaluationKeys, PublicKey, SwitchingKey, expand_digit, expand_rows};
use super::kernels::{Add, MulMontgomery, MulShoup, Negate, PermuteAdd, Sub};
use super::sample::{Gaussian, from_os, os_seed, ternary};
use super::wire::{CHECKSUM_BYTES, HEADER_BYTES, Kind, WireError, header, open};

type Result<T, E = CkksError> = std::result::Result<T, E>;

/// The secret key: zeroized when dropped, never printed.
pub struct SecretKey {
    ctx: Arc<Context>,
    key: KeyId,
    pub(crate) coefficients: Zeroizing<Vec<i8>>,
    /// The transformed key modulo every prime, in Montgomery form.
    rows: Zeroizing<Vec<u64>>,
}

impl SecretKey {
    /// Draws a key with the operating system's randomness.
    ///
    /// # Errors
    /// [`CkksError::Randomness`].
    pub fn generate(ctx: &Arc<Context>) -> Result<Self> {
        let mut rng = from_os()?;
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let mut coefficients = Zeroizing::new(vec![0; ctx.n()]);
        ternary(&mut rng, &mut coefficients);
        Ok(Self::from_coefficients(ctx, KeyId(id), coefficients))
    }

    pub(crate) fn from_coefficients(
        ctx: &Arc<Context>,
        key: KeyId,
        coefficients: Zeroizing<Vec<i8>>,
    ) -> Self {
        let n = ctx.n();
        let mut rows = Zeroizing::new(vec![0; n * ctx.primes.len()]);
        for (prime, row) in rows.chunks_exact_mut(n).enumerate() {
            small_row(ctx, prime, &coefficients, row);
            to_montgomery(ctx, prime, row);
        }
        Self { ctx: ctx.clone(), key, coefficients, rows }
    }

    /// Its public identifier.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key
    }

    /// The key in its envelope, in memory that is zeroized. Store it where only its owner reads.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        let n = self.ctx.n();
        // At full size from the start: growing would leave copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + n + CHECKSUM_BYTES));
        out.extend_from_slice(&header(&self.ctx, Kind::SecretKey, self.key, n));
        out.extend(self.coefficients.iter().map(|&x| (x + 1) as u8));
        let checksum = Sha256::digest(&*out);
        out.extend_from_slice(&checksum);
        out
    }

    /// From such an envelope.
    ///
    /// # Errors
    /// [`WireError`], by what is wrong; never with the contents.
    pub fn from_secret_bytes(ctx: &Arc<Context>, mut bytes: &[u8]) -> Result<Self, WireError> {
        let key = Self::read_secret(ctx, &mut bytes)?;
        if bytes.is_empty() { Ok(key) } else { Err(WireError::Malformed { what: "secret key" }) }
    }

    /// From such an envelope on a reader; give it one that does not buffer.
    ///
    /// # Errors
    /// [`WireError`], by what is wrong; never with the contents.
    pub fn read_secret(
        ctx: &Arc<Context>,
        reader: &mut impl std::io::Read,
    ) -> Result<Self, WireError> {
        let (key, payload) = open(ctx, None, Kind::SecretKey, ctx.n(), reader)?;
        if payload.len() != ctx.n() || payload.iter().any(|&x| x > 2) {
            return Err(WireError::Malformed { what: "secret key" });
        }
        let mut coefficients = Zeroizing::new(vec![0; ctx.n()]);
        for (c, &x) in coefficients.iter_mut().zip(&*payload) {
            *c = x as i8 - 1;
        }
        Ok(Self::from_coefficients(ctx, key, coefficients))
    }

    fn row(&self, prime: usize) -> &[u64] {
        let n = self.ctx.n();
        &self.rows[prime * n..(prime + 1) * n]
    }

    /// The public encryption key.
    ///
    /// # Errors
    /// [`CkksError::Randomness`].
    pub fn public_key(&self) -> Result<PublicKey> {
        let (ctx, n) = (&self.ctx, self.ctx.n());
        let seed = os_seed()?;
        let mut error = Zeroizing::new(vec![0; n]);
        Gaussian::new().fill(&mut from_os()?, &mut error);
        let a = expand_rows(ctx, &seed, 0, ctx.q_count());
        let mut b = Rows::scratch(n, ctx.q_count());
        for (prime, dst) in b.rows_mut().enumerate() {
            let m = ctx.modulus(prime);
            small_row(ctx, prime, &error, dst);
            to_montgomery(ctx, prime, dst);
            let mut product = Zeroizing::new(vec![0; n]);
            let s = self.row(prime);
            ctx.backend.run(MulMontgomery { dst: &mut product, a: a.row(prime), b: s, m });
            ctx.backend.run(Sub { dst, b: &product, m });
        }
        Ok(PublicKey::expand(ctx, self.key, seed, b))
    }

    /// Keys for relinearization and the given automorphisms.
    ///
    /// # Errors
    /// [`CkksError::Randomness`].
    pub fn evaluation_keys(&self, automorphisms: &[Automorphism]) -> Result<EvaluationKeys> {
        let (ctx, n) = (&self.ctx, self.ctx.n());
        // s·s in Montgomery form, and s itself.
        let square = self.map_rows(|prime, row, m| {
            let mut out = vec![0; n];
            ctx.backend.run(MulMontgomery { dst: &mut out, a: row, b: self.row(prime), m });
            out
        });
        let relinearization = self.switching_key(&square, &self.rows)?;
        let mut galois = BTreeMap::new();
        for &what in automorphisms {
            let g = ctx.galois_element(what);
            if g == 1 || galois.contains_key(&g) {
                continue;
            }
            // The key switches to the image of s under the inverse automorphism, so that the
            // automorphism is applied once, after the inner product.
            let inverse = match what {
                Automorphism::Rotate(k) => Automorphism::Rotate(-k),
                Automorphism::Conjugate => Automorphism::Conjugate,
            };
            let by = ctx.permutation(ctx.galois_element(inverse));
            let image = self.map_rows(|_, src, m| {
                let mut out = vec![0; n];
                ctx.backend.run(PermuteAdd { dst: &mut out, src, by: &by, add: false, m });
                out
            });
            galois.insert(g, self.switching_key(&self.rows, &image)?);
        }
        Ok(EvaluationKeys {
            key: self.key,
            parameters: ctx.hash,
            relinearization: Some(relinearization),
            galois,
        })
    }

    fn map_rows(
        &self,
        f: impl Fn(usize, &[u64], &super::arith::Modulus) -> Vec<u64>,
    ) -> Zeroizing<Vec<u64>> {
        let n = self.ctx.n();
        let mut out = Zeroizing::new(Vec::with_capacity(self.rows.len()));
        for (prime, row) in self.rows.chunks_exact(n).enumerate() {
            out.extend_from_slice(&Zeroizing::new(f(prime, row, self.ctx.modulus(prime))));
        }
        out
    }

    fn switching_key(&self, from: &[u64], to: &[u64]) -> Result<SwitchingKey> {
        let (ctx, n) = (&self.ctx, self.ctx.n());
        let seed = os_seed()?;
        let mut rng = from_os()?;
        let gaussian = Gaussian::new();
        let mut error = Zeroizing::new(vec![0; n]);
        let mut product = Zeroizing::new(vec![0; n]);
        let mut b = Vec::with_capacity(ctx.digits.len());
        for digit in 0..ctx.digits.len() {
            gaussian.fill(&mut rng, &mut error);
            let a = expand_digit(ctx, &seed, digit);
            let mut rows = Rows::scratch(n, ctx.primes.len());
            for (prime, dst) in rows.rows_mut().enumerate() {
                let m = ctx.modulus(prime);
                let at = prime * n..(prime + 1) * n;
                small_row(ctx, prime, &error, dst);
                to_montgomery(ctx, prime, dst);
                let s = &to[at.clone()];
                ctx.backend.run(MulMontgomery { dst: &mut product, a: a.row(prime), b: s, m });
                ctx.backend.run(Sub { dst, b: &product, m });
                if prime < ctx.q_count() && prime / ctx.chain.digit_len == digit {
                    let p = ctx.chain.special.iter().fold(1, |acc, &p| m.mul(acc, p % m.p));
                    let (src, by) = (&from[at], m.shoup(p));
                    ctx.backend.run(MulShoup { dst: &mut product, src, by, m });
                    ctx.backend.run(Add { dst, b: &product, m });
                }
            }
            b.push(rows);
        }
        Ok(SwitchingKey::expand(ctx, seed, b))
    }

    /// Decrypts to complex slots.
    ///
    /// The result carries the scheme's error, which depends on the key: give it to nobody who
    /// might also hold the ciphertext (CKKS is not IND-CPA-D).
    ///
    /// # Errors
    /// [`CkksError::WrongKey`], [`CkksError::WrongParameters`].
    pub fn decrypt(&self, x: &Ciphertext) -> Result<Vec<Complex>> {
        let coefficients = self.decrypt_coefficients(x)?;
        Ok(self.ctx.decode_coefficients(&coefficients, self.ctx.scale(x.level, x.degree)))
    }

    /// Decrypts the real parts.
    ///
    /// # Errors
    /// As [`SecretKey::decrypt`].
    pub fn decrypt_real(&self, x: &Ciphertext) -> Result<Vec<f64>> {
        Ok(self.decrypt(x)?.into_iter().map(|c| c.re).collect())
    }

    pub(crate) fn decrypt_coefficients(&self, x: &Ciphertext) -> Result<Vec<i128>> {
        let ctx = &self.ctx;
        if x.parameters != ctx.hash {
            return Err(CkksError::WrongParameters { operation: "decrypt" });
        }
        if x.key != self.key {
            return Err(CkksError::WrongKey { operation: "decrypt" });
        }
        // The message is far below q0·q1: two primes determine it.
        let count = 2.min(x.level + 1);
        let mut sum = Rows::scratch(ctx.n(), count);
        for (prime, dst) in sum.rows_mut().enumerate() {
            let m = ctx.modulus(prime);
            let s = self.row(prime);
            // Horner in s.
            dst.copy_from_slice(x.parts[x.parts.len() - 1].row(prime));
            for part in x.parts.iter().rev().skip(1) {
                let a = dst.to_vec();
                ctx.backend.run(MulMontgomery { dst, a: &a, b: s, m });
                ctx.backend.run(Add { dst, b: part.row(prime), m });
            }
        }
        let coefficients = ctx.lift(&mut sum);
        for row in sum.rows_mut() {
            row.fill(0);
        }
        Ok(coefficients)
    }

    /// Encrypts with the secret key: the second part is uniform and expands from a seed.
    ///
    /// # Errors
    /// [`CkksError::ScaleMismatch`], [`CkksError::WrongParameters`], [`CkksError::Randomness`].
    pub fn encrypt(&self, message: &Plaintext) -> Result<SeededCiphertext> {
        let ctx = &self.ctx;
        check_message(ctx, message)?;
        let seed = os_seed()?;
        let mut error = Zeroizing::new(vec![0; ctx.n()]);
        Gaussian::new().fill(&mut from_os()?, &mut error);
        let count = message.level + 1;
        let a = expand_rows(ctx, &seed, 0, count);
        let mut c0 = Rows::scratch(ctx.n(), count);
        for (prime, dst) in c0.rows_mut().enumerate() {
            let m = ctx.modulus(prime);
            ctx.backend.run(MulMontgomery { dst, a: a.row(prime), b: self.row(prime), m });
            ctx.backend.run(Negate { dst, m });
            let mut e = Zeroizing::new(vec![0; ctx.n()]);
            small_row(ctx, prime, &error, &mut e);
            ctx.backend.run(Add { dst, b: &e, m });
            ctx.backend.run(Add { dst, b: message.rows.row(prime), m });
        }
        Ok(SeededCiphertext { seed, c0, level: message.level, key: self.key, parameters: ctx.hash })
    }
}

fn to_montgomery(ctx: &Context, prime: usize, row: &mut [u64]) {
    let m = ctx.modulus(prime);
    let src = Zeroizing::new(row.to_vec());
    ctx.backend.run(MulShoup { dst: row, src: &src, by: m.shoup(m.one), m });
}
