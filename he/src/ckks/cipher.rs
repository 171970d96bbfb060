//! Plaintexts, ciphertexts, and the rules for their levels and scales.
//!
//! A ciphertext at level ℓ has residues modulo q₀ … q_ℓ and the scale s_ℓ (degree one) or s_ℓ²
//! (degree two: a product that awaits its rescaling). The scales are canonical, fixed by the
//! parameters, so two ciphertexts of equal level and degree always agree and nothing drifts.

use super::buffer::Rows;
use super::error::CkksError;

/// Which power of the level's canonical scale a value carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degree {
    /// s_ℓ: an operand.
    One,
    /// s_ℓ²: a product before its rescaling.
    Two,
}

/// What is known of a ciphertext without its data; the rules of the operations work on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Rescalings left.
    pub level: usize,
    /// The power of the canonical scale.
    pub degree: Degree,
    /// Two, or three before relinearization.
    pub parts: usize,
}

impl Meta {
    pub(crate) fn same_level(self, b: Self, operation: &'static str) -> Result<(), CkksError> {
        if self.level == b.level {
            Ok(())
        } else {
            Err(CkksError::LevelMismatch { operation, left: self.level, right: b.level })
        }
    }

    pub(crate) fn need_degree(self, d: Degree, operation: &'static str) -> Result<(), CkksError> {
        if self.degree == d {
            Ok(())
        } else {
            Err(CkksError::ScaleMismatch { operation, expected: d, found: self.degree })
        }
    }

    pub(crate) fn need_two_parts(self, operation: &'static str) -> Result<(), CkksError> {
        if self.parts == 2 { Ok(()) } else { Err(CkksError::NotRelinearized { operation }) }
    }

    pub(crate) fn need_levels(
        self,
        needed: usize,
        operation: &'static str,
    ) -> Result<(), CkksError> {
        if self.level >= needed {
            Ok(())
        } else {
            Err(CkksError::LevelExhausted { operation, needed, available: self.level })
        }
    }

    /// The sum of two ciphertexts.
    pub(crate) fn add(self, b: Self, operation: &'static str) -> Result<Self, CkksError> {
        self.same_level(b, operation)?;
        b.need_degree(self.degree, operation)?;
        Ok(Self { parts: self.parts.max(b.parts), ..self })
    }

    /// The product before relinearization.
    pub(crate) fn tensor(self, b: Self, operation: &'static str) -> Result<Self, CkksError> {
        self.same_level(b, operation)?;
        for x in [self, b] {
            x.need_degree(Degree::One, operation)?;
            x.need_two_parts(operation)?;
        }
        Ok(Self { degree: Degree::Two, parts: 3, ..self })
    }

    /// After multiplication by a plaintext factor.
    pub(crate) fn times_plain(self, operation: &'static str) -> Result<Self, CkksError> {
        self.need_degree(Degree::One, operation)?;
        Ok(Self { degree: Degree::Two, ..self })
    }

    /// At a strictly lower level.
    pub(crate) fn lower(self, level: usize, operation: &'static str) -> Result<Self, CkksError> {
        self.need_degree(Degree::One, operation)?;
        if level < self.level {
            Ok(Self { level, ..self })
        } else {
            let available = self.level;
            Err(CkksError::LevelExhausted { operation, needed: level + 1, available })
        }
    }

    /// After division by q_ℓ.
    pub(crate) fn rescale(self, operation: &'static str) -> Result<Self, CkksError> {
        self.need_degree(Degree::Two, operation)?;
        self.need_levels(1, operation)?;
        Ok(Self { level: self.level - 1, degree: Degree::One, ..self })
    }
}

/// An encoded polynomial, to encrypt or to add.
#[derive(Clone)]
pub struct Plaintext {
    pub(crate) rows: Rows,
    pub(crate) level: usize,
    pub(crate) degree: Degree,
    pub(crate) parameters: [u8; 32],
}

impl Plaintext {
    /// Its level.
    #[must_use]
    pub fn level(&self) -> usize {
        self.level
    }
}

/// An encoded polynomial to multiply by (kept in Montgomery form).
#[derive(Clone)]
pub struct Factor {
    pub(crate) rows: Rows,
    pub(crate) level: usize,
    pub(crate) parameters: [u8; 32],
}

/// Identifies the secret key that an artefact belongs to. Public and random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 16]);

/// An encrypted vector of N/2 complex slots.
#[derive(Clone)]
pub struct Ciphertext {
    pub(crate) parts: Vec<Rows>,
    pub(crate) level: usize,
    pub(crate) degree: Degree,
    pub(crate) key: KeyId,
    pub(crate) parameters: [u8; 32],
}

impl Ciphertext {
    /// Level, degree and number of parts.
    #[must_use]
    pub fn meta(&self) -> Meta {
        Meta { level: self.level, degree: self.degree, parts: self.parts.len() }
    }

    /// Rescalings left.
    #[must_use]
    pub fn level(&self) -> usize {
        self.level
    }

    /// The key it was encrypted under.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key
    }

    /// Bytes of its residues in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.parts.iter().map(|p| p.rows().map(|r| r.len() * 8).sum::<usize>()).sum()
    }
}

/// A fresh ciphertext of the secret key in half the space: its second part is a seed.
#[derive(Clone)]
pub struct SeededCiphertext {
    pub(crate) seed: super::sample::Seed,
    pub(crate) c0: Rows,
    pub(crate) level: usize,
    pub(crate) key: KeyId,
    pub(crate) parameters: [u8; 32],
}

impl SeededCiphertext {
    /// The whole ciphertext.
    ///
    /// # Errors
    /// [`CkksError::WrongParameters`].
    pub fn expand(&self, ctx: &super::Context) -> Result<Ciphertext, CkksError> {
        if self.parameters != ctx.hash {
            return Err(CkksError::WrongParameters { operation: "expand" });
        }
        let a = super::evalkeys::expand_rows(ctx, &self.seed, 0, self.c0.count());
        Ok(Ciphertext {
            parts: vec![self.c0.clone(), a],
            level: self.level,
            degree: Degree::One,
            key: self.key,
            parameters: self.parameters,
        })
    }
}
