//! Parameter sets: what is chosen, what follows from it, and what it may claim.
//!
//! A set is plain data ([`Params`]). The prime chain, the key modulus and its size follow from it
//! deterministically, so both ends derive the same ring from the same few numbers.

use sha2::{Digest, Sha256};

use super::arith::is_prime;

/// How the secret key's coefficients are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretDistribution {
    /// Each of −1, 0, 1 with probability ⅓.
    UniformTernary,
}

/// What a parameter set claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// 128 bits against classical attacks: logQP must stay below [`BOUNDS_128`].
    Classical128,
    /// No claim at all. For tests.
    Insecure,
}

/// Largest logQP at 128-bit classical security, by log₂N, for a uniform ternary secret and an
/// error of standard deviation 3.2.
///
/// N = 2¹² … 2¹⁵: Albrecht et al., *Homomorphic Encryption Standard* (2018), table 1. The standard
/// stops at 2¹⁵; 2¹⁶ has 1,747, the lower of the values in use (others allow about 1,760).
pub const BOUNDS_128: [(u32, f64); 5] =
    [(12, 109.0), (13, 218.0), (14, 438.0), (15, 881.0), (16, 1747.0)];

/// Standard deviation of the encryption error.
pub const ERROR_STD: f64 = 3.2;

/// A choice of CKKS parameters.
///
/// ```
/// use undertone_he::ckks::{Params, Security};
/// let chain = Params::N15_LEVELS14.chain()?;
/// assert_eq!(chain.primes.len(), 15);
/// assert!(chain.log_qp < 881.0);
/// let greedy = Params { levels: 30, ..Params::N15_LEVELS14 };
/// assert!(greedy.chain().is_err(), "beyond 128 bits");
/// # Ok::<(), undertone_he::ckks::ParamsError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// What messages call this set.
    pub name: &'static str,
    /// log₂ of the ring degree N; there are N/2 slots.
    pub log_n: u32,
    /// Bits of the first prime, at most 50 (the prime itself stays below 2⁵⁰). It bounds the
    /// values at level 0: |value| < 2^(first_bits − scale_bits − 1).
    pub first_bits: u32,
    /// log₂ of the scale Δ.
    pub scale_bits: u32,
    /// Rescalings available to a fresh ciphertext.
    pub levels: usize,
    /// Digits of a key switch at the top level.
    pub digits: usize,
    /// Distribution of the secret key.
    pub secret: SecretDistribution,
    /// What the set claims.
    pub security: Security,
}

const fn set(
    name: &'static str,
    log_n: u32,
    first_bits: u32,
    scale_bits: u32,
    levels: usize,
    digits: usize,
) -> Params {
    Params {
        name,
        log_n,
        first_bits,
        scale_bits,
        levels,
        digits,
        secret: SecretDistribution::UniformTernary,
        security: Security::Classical128,
    }
}

const fn insecure(p: Params) -> Params {
    Params { security: Security::Insecure, ..p }
}

impl Params {
    /// N = 2¹³, two or three products.
    pub const N13_LEVELS3: Self = set("n13-levels3", 13, 48, 38, 3, 4);
    /// N = 2¹⁴, six products.
    pub const N14_LEVELS6: Self = set("n14-levels6", 14, 50, 40, 6, 3);
    /// N = 2¹⁴, seven products.
    pub const N14_LEVELS7: Self = set("n14-levels7", 14, 50, 40, 7, 4);
    /// N = 2¹⁵, eleven products of high precision: a head of Power-Softmax attention.
    pub const N15_LEVELS11: Self = set("n15-levels11", 15, 50, 46, 11, 2);
    /// N = 2¹⁵, twelve products: such a head whose row sums range further.
    pub const N15_LEVELS12: Self = set("n15-levels12", 15, 50, 46, 12, 3);
    /// N = 2¹⁵, thirteen products: further yet.
    pub const N15_LEVELS13: Self = set("n15-levels13", 15, 50, 45, 13, 3);
    /// N = 2¹⁵, fourteen products, three digits: the usual yardstick.
    pub const N15_LEVELS14: Self = set("n15-levels14", 15, 50, 40, 14, 3);
    /// N = 2¹⁵, fifteen products, four digits.
    pub const N15_LEVELS15: Self = set("n15-levels15", 15, 50, 40, 15, 4);
    /// N = 2¹⁶, twenty-seven products, two digits: a transformer of two layers.
    pub const N16_LEVELS27: Self = set("n16-levels27", 16, 50, 40, 27, 2);
    /// N = 2¹⁶, thirty products.
    pub const N16_LEVELS30: Self = set("n16-levels30", 16, 50, 40, 30, 3);
    /// N = 2¹⁶, thirty-four products.
    pub const N16_LEVELS34: Self = set("n16-levels34", 16, 50, 40, 34, 5);
    /// Small and insecure: for tests.
    pub const TEST_N12: Self = insecure(set("test-n12", 12, 50, 42, 5, 3));
    /// Small, insecure and deep: for tests of whole circuits.
    pub const TEST_N12_DEEP: Self = insecure(set("test-n12-deep", 12, 50, 46, 12, 3));
    /// Small, insecure and deeper: for tests of two layers.
    pub const TEST_N12_DEEPER: Self = insecure(set("test-n12-deeper", 12, 50, 42, 24, 3));
    /// All named sets.
    pub const ALL: [Self; 14] = [
        Self::N13_LEVELS3,
        Self::N14_LEVELS6,
        Self::N14_LEVELS7,
        Self::N15_LEVELS11,
        Self::N15_LEVELS12,
        Self::N15_LEVELS13,
        Self::N15_LEVELS14,
        Self::N15_LEVELS15,
        Self::N16_LEVELS27,
        Self::N16_LEVELS30,
        Self::N16_LEVELS34,
        Self::TEST_N12,
        Self::TEST_N12_DEEP,
        Self::TEST_N12_DEEPER,
    ];

    /// The set with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name == name)
    }

    /// Ring degree N.
    #[must_use]
    pub const fn n(&self) -> usize {
        1 << self.log_n
    }

    /// Slots of a ciphertext, N/2.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.n() / 2
    }

    /// The prime chain that follows from the choice.
    ///
    /// # Errors
    /// [`ParamsError`] where a number is out of range, the primes run out, or the set claims more
    /// security than its key modulus allows.
    pub fn chain(&self) -> Result<Chain, ParamsError> {
        let chain = self.unchecked_chain()?;
        if self.security == Security::Classical128 {
            let bound = BOUNDS_128
                .iter()
                .find(|(log_n, _)| *log_n == self.log_n)
                .map_or(0.0, |(_, bound)| *bound);
            if chain.log_qp > bound {
                return Err(ParamsError::TooLarge {
                    name: self.name,
                    log_n: self.log_n,
                    log_qp: chain.log_qp,
                    bound,
                });
            }
        }
        Ok(chain)
    }

    fn unchecked_chain(&self) -> Result<Chain, ParamsError> {
        let range = |what, value: usize, least, most| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ParamsError::OutOfRange { what, value, least, most })
            }
        };
        range("log_n", self.log_n as usize, 12, 16)?;
        range("scale_bits", self.scale_bits as usize, 34, 49)?;
        range("first_bits", self.first_bits as usize, self.scale_bits as usize + 1, 50)?;
        range("levels", self.levels, 1, 40)?;
        range("digits", self.digits, 1, 8.min(self.levels + 1))?;

        let step = 2 * self.n() as u64;
        let mut used = Vec::new();
        let out_of_primes = ParamsError::OutOfPrimes { name: self.name };
        let first = below(step, 1 << self.first_bits, &used).ok_or(out_of_primes)?;
        used.push(first);

        // Choose q_l so that the scale after the rescale, s_l^2/q_l, is nearest to 2^scale_bits.
        let ideal = (self.scale_bits as f64).exp2();
        let mut scale = ideal;
        let (mut primes, mut scales) = (Vec::new(), vec![scale]);
        for _ in 0..self.levels {
            let q = nearest(step, scale * scale / ideal, &used)
                .ok_or(ParamsError::OutOfPrimes { name: self.name })?;
            used.push(q);
            primes.push(q);
            scale = scale * scale / q as f64;
            scales.push(scale);
        }
        primes.push(first);
        primes.reverse();
        scales.reverse();

        let digit_len = primes.len().div_ceil(self.digits);
        let largest = primes
            .chunks(digit_len)
            .map(|digit| digit.iter().map(|&q| (q as f64).log2()).sum::<f64>())
            .fold(0.0, f64::max);
        let count = (largest / 49.9).ceil() as usize;
        // The row kernels sum at most sixteen products: a digit, or the special primes and one
        // more, and the correction.
        range("digit_len", digit_len.max(count + 1), 1, 15)?;
        let mut special = Vec::new();
        // The special modulus must exceed the largest digit, the first prime's included.
        let mut at = (largest / count as f64).exp2() as u64;
        for _ in 0..count {
            let p = above(step, at, &used)
                .filter(|&p| p < 1 << 50)
                .ok_or(ParamsError::OutOfPrimes { name: self.name })?;
            used.push(p);
            special.push(p);
            at = p;
        }
        let log_qp = used.iter().map(|&q| (q as f64).log2()).sum();
        Ok(Chain { primes, special, scales, digit_len, log_qp })
    }

    /// SHA-256 over everything that two ends must agree on; `chain` is this set's.
    #[must_use]
    pub fn hash(&self, chain: &Chain) -> [u8; 32] {
        let mut h = Sha256::new();
        h.update(b"undertone ckks parameters 1");
        for x in [self.log_n, self.first_bits, self.scale_bits] {
            h.update(x.to_le_bytes());
        }
        for x in [self.levels, self.digits, chain.digit_len, chain.special.len()] {
            h.update((x as u64).to_le_bytes());
        }
        for q in chain.primes.iter().chain(&chain.special) {
            h.update(q.to_le_bytes());
        }
        h.update(match self.secret {
            SecretDistribution::UniformTernary => b"ternary",
        });
        h.update(match self.security {
            Security::Classical128 => [128],
            Security::Insecure => [0],
        });
        h.finalize().into()
    }
}

/// What follows from a parameter set.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// q₀ … q_L. A ciphertext at level ℓ has residues modulo q₀ … q_ℓ.
    pub primes: Vec<u64>,
    /// The special primes of the key modulus.
    pub special: Vec<u64>,
    /// The canonical scale at each level: s_L = 2^scale_bits and s_{ℓ−1} = s_ℓ²/q_ℓ.
    pub scales: Vec<f64>,
    /// Primes in a digit.
    pub digit_len: usize,
    /// log₂ of the whole key modulus.
    pub log_qp: f64,
}

/// Why a parameter set is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParamsError {
    /// A number outside what the implementation supports.
    #[error("CKKS parameters: {what} is {value}, must be within {least}..={most}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: usize,
        /// Least allowed.
        least: usize,
        /// Most allowed.
        most: usize,
    },
    /// Not enough primes of the wanted size.
    #[error("CKKS parameters {name}: no more primes near the scale; choose other sizes")]
    OutOfPrimes {
        /// The set.
        name: &'static str,
    },
    /// The key modulus exceeds what 128-bit security allows.
    #[error(
        "CKKS parameters {name}: logQP {log_qp:.1} exceeds {bound} bits, the 128-bit bound at \
         N = 2^{log_n}; use fewer levels or a larger ring"
    )]
    TooLarge {
        /// The set.
        name: &'static str,
        /// log₂N.
        log_n: u32,
        /// The set's logQP.
        log_qp: f64,
        /// The bound.
        bound: f64,
    },
}

fn usable(p: u64, used: &[u64]) -> bool {
    p > 1 << 32 && p < 1 << 50 && !used.contains(&p) && is_prime(p)
}

/// The largest usable prime ≡ 1 mod `step` below `limit`.
fn below(step: u64, limit: u64, used: &[u64]) -> Option<u64> {
    let start = (limit - 2) / step * step + 1;
    (0..20_000).map(|i| start.wrapping_sub(i * step)).find(|&p| usable(p, used))
}

fn above(step: u64, least: u64, used: &[u64]) -> Option<u64> {
    let start = least.div_ceil(step) * step + 1;
    (0..20_000).map(|i| start + i * step).find(|&p| usable(p, used))
}

fn nearest(step: u64, target: f64, used: &[u64]) -> Option<u64> {
    let centre = (target / step as f64).round() as u64 * step + 1;
    (0..20_000u64)
        .flat_map(|i| [centre.wrapping_add(i * step), centre.wrapping_sub(i * step)])
        .find(|&p| usable(p, used))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_set_stands_and_keeps_its_scale() {
        for p in Params::ALL {
            let c = p.chain().unwrap();
            for s in &c.scales {
                let drift = (s / (p.scale_bits as f64).exp2() - 1.0).abs();
                assert!(drift < 1e-3, "{}: scale drifts by {drift}", p.name);
            }
            let special: f64 = c.special.iter().map(|&q| (q as f64).log2()).sum();
            for digit in c.primes.chunks(c.digit_len) {
                assert!(special > digit.iter().map(|&q| (q as f64).log2()).sum::<f64>());
            }
            let step = 2 * p.n() as u64;
            for q in c.primes.iter().chain(&c.special) {
                assert!(*q < 1 << 50 && q % step == 1 && is_prime(*q));
            }
        }
    }

    #[test]
    fn a_set_beyond_its_bound_is_refused_unless_named_insecure() {
        let p = Params { levels: 9, ..Params::N13_LEVELS3 };
        assert!(matches!(p.chain(), Err(ParamsError::TooLarge { .. })));
        assert!(Params { security: Security::Insecure, ..p }.chain().is_ok());
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let p = Params { scale_bits: 60, ..Params::N13_LEVELS3 };
        assert!(matches!(p.chain(), Err(ParamsError::OutOfRange { what: "scale_bits", .. })));
    }

    #[test]
    fn hashes_differ_between_sets() {
        let mut all: Vec<_> = Params::ALL.iter().map(|p| p.hash(&p.chain().unwrap())).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), Params::ALL.len());
    }
}
