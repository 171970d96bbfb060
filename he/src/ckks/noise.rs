//! How large the scheme's error is, predicted.
//!
//! Each operation adds an error that is independent of the message; these are its variances in
//! one real component of a slot, in units of the value. A coefficient error of variance v has
//! slot variance N·v/2 over the square of the scale. (Coefficient variances as in Costache, Curtis,
//! Hales, Murphy, Ogilvie, Player 2022, *On the Precision Loss in Approximate Homomorphic
//! Encryption*, for a ternary secret: var(s) = ⅔.)

use super::cipher::Degree;
use super::context::Context;
use super::params::ERROR_STD;

const SECRET: f64 = 2.0 / 3.0;
/// Of rounding to an integer.
const ROUNDING: f64 = 1.0 / 12.0;

impl Context {
    /// From the variance of a coefficient's error to that of a slot's.
    fn slot(&self, coefficient: f64, scale: f64) -> f64 {
        self.n() as f64 / 2.0 * coefficient / (scale * scale)
    }

    /// Rounding both parts after a division.
    fn division(&self) -> f64 {
        ROUNDING * (1.0 + self.n() as f64 * SECRET)
    }

    /// Error variance of a fresh ciphertext of the secret key.
    #[must_use]
    pub fn fresh_variance(&self, level: usize) -> f64 {
        self.slot(ERROR_STD * ERROR_STD + ROUNDING, self.scale(level, Degree::One))
    }

    /// Error variance of a fresh ciphertext of the public key.
    #[must_use]
    pub fn public_fresh_variance(&self, level: usize) -> f64 {
        let error = ERROR_STD * ERROR_STD;
        let products = 2.0 * self.n() as f64 * SECRET * error;
        self.slot(products + error + ROUNDING, self.scale(level, Degree::One))
    }

    /// Error variance that a rescaling from this level adds.
    #[must_use]
    pub fn rescale_variance(&self, level: usize) -> f64 {
        self.slot(self.division(), self.scale(level - 1, Degree::One))
    }

    /// Error variance that a sum of `keys` key switches adds, for a ciphertext of this level and
    /// degree, rescaled with it or not.
    #[must_use]
    pub fn switch_variance(&self, level: usize, degree: Degree, keys: usize, rescale: bool) -> f64 {
        let log = |primes: &[u64]| primes.iter().map(|&q| (q as f64).log2()).sum::<f64>();
        let special = log(&self.chain.special);
        let digits: f64 = self.chain.primes[..=level]
            .chunks(self.chain.digit_len)
            .map(|digit| (2.0 * (log(digit) - special)).exp2())
            .sum();
        let switch = keys as f64 * self.n() as f64 * ERROR_STD * ERROR_STD * ROUNDING * digits;
        let scale = self.scale(level, degree);
        if rescale {
            self.slot(switch, scale) + self.rescale_variance(level)
        } else {
            self.slot(switch + self.division(), scale)
        }
    }

    /// Error variance of an encoded plaintext.
    #[must_use]
    pub fn encoding_variance(&self, level: usize, degree: Degree) -> f64 {
        self.slot(ROUNDING, self.scale(level, degree))
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{party, values};
    use super::super::*;
    use super::*;

    /// Measured error of a component, root mean square, over its prediction, in bits.
    fn off(found: &[Complex], wanted: impl Fn(usize) -> Complex, variance: f64) -> f64 {
        let square: f64 = found
            .iter()
            .enumerate()
            .map(|(i, f)| (f.re - wanted(i).re).powi(2) + (f.im - wanted(i).im).powi(2))
            .sum();
        let measured = (square / (2 * found.len()) as f64).sqrt();
        (measured / variance.sqrt()).log2()
    }

    #[test]
    fn predictions_hold_within_half_a_bit_for_single_operations() {
        // A scale at which the scheme's error stands clear of f64 encoding.
        let params = Params { scale_bits: 36, first_bits: 46, ..Params::TEST_N12 };
        let p = party(params, &[Automorphism::Rotate(1)]);
        let (ctx, level) = (&p.ctx, 4);
        let slots = ctx.slots();
        let x = values(30, slots);
        let plain = ctx.encode_as(&x, level, Degree::One).unwrap();
        let fresh = p.secret.encrypt(&plain).unwrap().expand(ctx).unwrap();
        let public = p.secret.public_key().unwrap().encrypt(ctx, &plain).unwrap();
        let rotated = p.ev.rotate(&fresh, 1).unwrap();
        let f = ctx.fresh_variance(level);
        let decrypt = |c: &Ciphertext| p.secret.decrypt(c).unwrap();
        let mut all = vec![
            ("secret key", off(&decrypt(&fresh), |i| x[i], f)),
            ("public key", off(&decrypt(&public), |i| x[i], ctx.public_fresh_variance(level))),
            (
                "rotation",
                off(
                    &decrypt(&rotated),
                    |i| x[(i + 1) % slots],
                    f + ctx.switch_variance(level, Degree::One, 1, false),
                ),
            ),
        ];
        // A square: 2·x·e, |x|² is 2/3 on average over the unit square's complex values.
        let square = p.ev.square(&fresh).unwrap();
        let mean = x.iter().map(|z| z.re * z.re + z.im * z.im).sum::<f64>() / slots as f64;
        let wanted =
            |i: usize| Complex::new(x[i].re * x[i].re - x[i].im * x[i].im, 2.0 * x[i].re * x[i].im);
        let variance = 4.0 * mean * f + ctx.switch_variance(level, Degree::Two, 1, true);
        all.push(("square", off(&decrypt(&square), wanted, variance)));
        let low = p.ev.level_down(&fresh, 1).unwrap();
        let variance = f + ctx.rescale_variance(2);
        all.push(("level_down", off(&decrypt(&low), |i| x[i], variance)));
        for (what, bits) in all {
            assert!(bits.abs() < 0.5, "{what}: measured is {bits:+.2} bits from predicted");
        }
    }
}
