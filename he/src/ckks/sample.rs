//! Randomness: seeds from the operating system, expanded by ChaCha20.

use rand::{RngCore, SeedableRng, TryRngCore, rngs::OsRng};
use rand_chacha::ChaCha20Rng;

use super::error::CkksError;
use super::params::ERROR_STD;

/// A 256-bit seed.
pub(crate) type Seed = [u8; 32];

/// A generator seeded by the operating system.
pub(crate) fn from_os() -> Result<ChaCha20Rng, CkksError> {
    Ok(ChaCha20Rng::from_seed(os_seed()?))
}

pub(crate) fn os_seed() -> Result<Seed, CkksError> {
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed).map_err(|_| CkksError::Randomness)?;
    Ok(seed)
}

/// One of the independent streams of a public seed: `stream` names the row it fills.
pub(crate) fn stream(seed: &Seed, stream: u64) -> ChaCha20Rng {
    let mut rng = ChaCha20Rng::from_seed(*seed);
    rng.set_stream(stream);
    rng
}

/// Fills a row with uniform residues below p, by rejection.
pub(crate) fn uniform(rng: &mut impl RngCore, p: u64, row: &mut [u64]) {
    let mask = u64::MAX >> p.leading_zeros();
    for r in row {
        *r = loop {
            let x = rng.next_u64() & mask;
            if x < p {
                break x;
            }
        };
    }
}

/// Fills with −1, 0, 1, each with probability ⅓, by rejection from two bits.
pub(crate) fn ternary(rng: &mut impl RngCore, out: &mut [i8]) {
    let (mut bits, mut left) = (0u64, 0);
    for x in out {
        *x = loop {
            if left == 0 {
                (bits, left) = (rng.next_u64(), 32);
            }
            let two = (bits & 3) as i8;
            bits >>= 2;
            left -= 1;
            if two < 3 {
                break two - 1;
            }
        };
    }
}

/// Errors reach 13 standard deviations at most.
const TAIL: usize = 42;

/// Rounded Gaussians of standard deviation [`ERROR_STD`] by inversion: a table of 63-bit
/// cumulative probabilities of |x|, scanned whole so that timing does not depend on the value.
pub(crate) struct Gaussian {
    below: [u64; TAIL],
}

impl Gaussian {
    pub(crate) fn new() -> Self {
        let weight = |k: usize| (-((k * k) as f64) / (2.0 * ERROR_STD * ERROR_STD)).exp();
        let total = 1.0 + 2.0 * (1..TAIL).map(weight).sum::<f64>();
        // From the tail inwards, so that small probabilities keep their precision.
        let mut tail = 0.0;
        let mut below = [0; TAIL];
        for k in (0..TAIL).rev() {
            below[k] = (1u64 << 63) - (tail * (63f64).exp2()).round() as u64;
            tail += 2.0 * weight(k) / total;
        }
        Self { below }
    }

    pub(crate) fn fill(&self, rng: &mut impl RngCore, out: &mut [i8]) {
        for x in out {
            let r = rng.next_u64();
            let (u, sign) = (r >> 1, (r & 1) as i8);
            // |x| is the number of k with P(|x| <= k) <= u.
            let size: i8 = self.below.iter().map(|&t| i8::from(u >= t)).sum();
            *x = (size ^ -sign) + sign;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const COUNT: usize = 1 << 18;

    fn test_rng() -> ChaCha20Rng {
        stream(&[7; 32], 3)
    }

    /// χ² of counts against expectations, as standard deviations from its mean.
    fn chi_squared(found: &[f64], expected: &[f64]) -> f64 {
        let chi: f64 = found.iter().zip(expected).map(|(f, e)| (f - e).powi(2) / e).sum();
        let freedom = (found.len() - 1) as f64;
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn uniform_fills_its_range_evenly() {
        let p = (1u64 << 40) + 0x1234_5679;
        let mut row = vec![0; COUNT];
        uniform(&mut test_rng(), p, &mut row);
        let mut found = vec![0.0; 64];
        for x in row {
            assert!(x < p);
            found[(x as u128 * 64 / p as u128) as usize] += 1.0;
        }
        assert!(chi_squared(&found, &[COUNT as f64 / 64.0; 64]) < 5.0);
    }

    #[test]
    fn ternary_is_even() {
        let mut out = vec![0; COUNT];
        ternary(&mut test_rng(), &mut out);
        let found: Vec<f64> =
            [-1, 0, 1].iter().map(|k| out.iter().filter(|x| *x == k).count() as f64).collect();
        assert!(chi_squared(&found, &[COUNT as f64 / 3.0; 3]) < 5.0);
    }

    #[test]
    fn gaussian_has_the_wanted_distribution() {
        let mut out = vec![0; COUNT];
        Gaussian::new().fill(&mut test_rng(), &mut out);
        let mean = out.iter().map(|&x| f64::from(x)).sum::<f64>() / COUNT as f64;
        let var = out.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / COUNT as f64;
        assert!(mean.abs() < 5.0 * ERROR_STD / (COUNT as f64).sqrt());
        assert!((var.sqrt() / ERROR_STD - 1.0).abs() < 0.01, "standard deviation {}", var.sqrt());
        let weight = |k: i32| (-f64::from(k * k) / (2.0 * ERROR_STD * ERROR_STD)).exp();
        let total: f64 = (-42..=42).map(weight).sum();
        let range = -11..=11;
        let expected: Vec<f64> = range.clone().map(|k| weight(k) / total * COUNT as f64).collect();
        let found: Vec<f64> =
            range.map(|k| out.iter().filter(|&&x| i32::from(x) == k).count() as f64).collect();
        assert!(chi_squared(&found, &expected) < 5.0);
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |s| stream(&[1; 32], s).next_u64();
        assert_eq!(draw(4), draw(4));
        assert_ne!(draw(4), draw(5));
        assert_ne!(os_seed().unwrap(), os_seed().unwrap());
    }
}
