//! The engine on ciphertexts of the `tfhe` crate.

use rayon::prelude::*;
use tfhe::core_crypto::prelude::{
    Cleartext, Plaintext, lwe_ciphertext_add_assign, lwe_ciphertext_cleartext_mul_assign,
    lwe_ciphertext_plaintext_add_assign, lwe_ciphertext_sub_assign,
};
use tfhe::shortint::parameters::v1_8::{
    V1_8_PARAM_MESSAGE_2_CARRY_2_KS_PBS_GAUSSIAN_2M128,
    V1_8_PARAM_MESSAGE_3_CARRY_3_KS_PBS_GAUSSIAN_2M128,
    V1_8_PARAM_MESSAGE_4_CARRY_4_KS_PBS_GAUSSIAN_2M128,
};
use tfhe::shortint::{Ciphertext, ClassicPBSParameters, ServerKey};

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Engine, TfheError};

/// Entries of a table, and with them the parameter set. All are the `tfhe` crate's, at 128 bits of
/// security.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Sixteen entries: two bits of message, two of carry.
    Four,
    /// Sixty-four.
    Six,
    /// Two hundred and fifty-six.
    Eight,
}

impl Precision {
    /// log₂ of the entries.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Six => 6,
            Self::Eight => 8,
        }
    }

    /// The set with these table bits.
    #[must_use]
    pub const fn of(bits: u32) -> Option<Self> {
        match bits {
            4 => Some(Self::Four),
            6 => Some(Self::Six),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    const fn parameters(self) -> ClassicPBSParameters {
        match self {
            Self::Four => V1_8_PARAM_MESSAGE_2_CARRY_2_KS_PBS_GAUSSIAN_2M128,
            Self::Six => V1_8_PARAM_MESSAGE_3_CARRY_3_KS_PBS_GAUSSIAN_2M128,
            Self::Eight => V1_8_PARAM_MESSAGE_4_CARRY_4_KS_PBS_GAUSSIAN_2M128,
        }
    }

    /// The largest Σ|kᵢ| for which the failure probability is stated.
    #[must_use]
    pub const fn noise_limit(self) -> u32 {
        self.parameters().max_noise_level.get() as u32
    }

    /// log₂ of the probability that one bootstrap of the noisiest allowed input is wrong.
    #[must_use]
    pub const fn log2_failure(self) -> f64 {
        self.parameters().log2_p_fail
    }
}

/// Evaluates tables on ciphertexts, on rayon's threads. Holds no secret.
pub struct Evaluator {
    key: ServerKey,
    precision: Precision,
    count: AtomicU64,
}

impl Evaluator {
    fn delta(&self) -> u64 {
        1 << (63 - self.precision.bits())
    }

    /// The parameter set.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

impl Engine for Evaluator {
    type Ct = Ciphertext;

    fn bits(&self) -> u32 {
        self.precision.bits()
    }

    fn noise_limit(&self) -> u32 {
        self.precision.noise_limit()
    }

    fn constant(&self, k: i64) -> Ciphertext {
        let mut zero = self.key.create_trivial(0);
        self.offset(&mut zero, k);
        zero
    }

    fn offset(&self, a: &mut Ciphertext, k: i64) {
        let k = Plaintext((k as u64).wrapping_mul(self.delta()));
        lwe_ciphertext_plaintext_add_assign(&mut a.ct, k);
    }

    fn scale(&self, a: &mut Ciphertext, k: i64) {
        lwe_ciphertext_cleartext_mul_assign(&mut a.ct, Cleartext(k as u64));
    }

    fn add(&self, a: &mut Ciphertext, b: &Ciphertext, k: i64) {
        if k < 0 {
            lwe_ciphertext_sub_assign(&mut a.ct, &b.ct);
        } else {
            lwe_ciphertext_add_assign(&mut a.ct, &b.ct);
        }
    }

    fn look_up(
        &self,
        xs: Vec<Ciphertext>,
        lo: i64,
        table: &[i64],
    ) -> Result<Vec<Ciphertext>, TfheError> {
        let most = 1 << self.bits();
        if table.len() > most {
            let (steps, most) = (table.len() as u64, most as u64);
            return Err(TfheError::TooWide { op: "table", steps, most });
        }
        // Negative entries are integers modulo 2^(bits + 1), as the linear operations take them.
        let entry = |i: u64| table.get(i as usize).copied().unwrap_or(0) as u64;
        let prepared = self.key.generate_lookup_table(entry);
        Ok(xs
            .into_par_iter()
            .map(|mut x| {
                self.offset(&mut x, -lo);
                // The world tracks intervals and noise; constants take the same path as the rest.
                x.set_noise_level_to_nominal();
                self.key.apply_lookup_table_assign(&mut x, &prepared);
                self.count.fetch_add(1, Ordering::Relaxed);
                x
            })
            .collect())
    }

    fn bootstraps(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "client")]
mod keys {
    use tfhe::shortint::{Ciphertext, ClientKey, ServerKey};

    use super::super::{Engine, HeadInputs, Integers, TfheError};
    use super::{AtomicU64, Evaluator, Precision};

    /// The client's secret key. It has no `Debug`; the library wipes no memory, so end the process
    /// that held it.
    pub struct Keys {
        secret: ClientKey,
        precision: Precision,
    }

    impl Keys {
        /// Draws keys with the operating system's randomness, and makes the server's engine.
        #[must_use]
        pub fn generate(precision: Precision) -> (Self, Evaluator) {
            let secret = ClientKey::new(precision.parameters());
            let key = ServerKey::new(&secret);
            (Self { secret, precision }, Evaluator { key, precision, count: AtomicU64::new(0) })
        }

        /// Encrypts an integer of the declared interval.
        ///
        /// # Errors
        /// [`TfheError::Undeclared`], [`TfheError::TooWide`].
        pub fn encrypt(
            &self,
            server: &Evaluator,
            x: i64,
            (lo, hi): (i64, i64),
        ) -> Result<Ciphertext, TfheError> {
            if !(lo..=hi).contains(&x) {
                return Err(TfheError::Undeclared { what: "encrypt" });
            }
            let most = 1u64 << self.precision.bits();
            if hi.abs_diff(lo) >= most {
                let steps = hi.abs_diff(lo).saturating_add(1);
                return Err(TfheError::TooWide { op: "encrypt", steps, most });
            }
            let mut out = self.secret.unchecked_encrypt(x.abs_diff(lo));
            server.offset(&mut out, lo);
            Ok(out)
        }

        /// Encrypts the inputs of a head.
        ///
        /// # Errors
        /// As [`Keys::encrypt`].
        pub fn encrypt_head(
            &self,
            server: &Evaluator,
            x: &HeadInputs<i64>,
            interval: (i64, i64),
        ) -> Result<HeadInputs<Ciphertext>, TfheError> {
            let of = |x: &[i64]| -> Result<Vec<_>, TfheError> {
                x.iter().map(|&x| self.encrypt(server, x, interval)).collect()
            };
            Ok(HeadInputs { q: of(&x.q)?, k: of(&x.k)?, v: of(&x.v)? })
        }

        /// The integers of a result.
        #[must_use]
        pub fn decrypt(&self, server: &Evaluator, x: &Integers<Ciphertext>) -> Vec<i64> {
            let (lo, _) = x.interval();
            let one = |c: &Ciphertext| {
                let mut c = c.clone();
                server.offset(&mut c, -lo);
                self.secret.decrypt_message_and_carry(&c) as i64 + lo
            };
            x.cells().iter().map(one).collect()
        }
    }
}

#[cfg(feature = "client")]
pub use keys::Keys;
