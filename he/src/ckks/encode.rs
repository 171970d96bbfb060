//! The canonical embedding: N/2 complex slots to one integer polynomial and back.
//!
//! Slot j is the value at ζ^(5^j), ζ a primitive 2N-th root of unity (Cheon, Kim, Kim, Song 2017,
//! *Homomorphic Encryption for Arithmetic of Approximate Numbers*). The transform over the orbit
//! of 5 is a Fourier transform with its own twiddles. In `f64` it is good for about 42 bits at
//! scale 2⁵⁰.

use std::f64::consts::PI;

use super::buffer::Rows;
use super::cipher::{Degree, Plaintext};
use super::context::Context;
use super::error::CkksError;
use super::kernels::MulShoup;

/// A complex number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Complex {
    /// Real part.
    pub re: f64,
    /// Imaginary part.
    pub im: f64,
}

impl Complex {
    /// re + i·im.
    #[must_use]
    pub const fn new(re: f64, im: f64) -> Self {
        Self { re, im }
    }

    /// e^(i·angle).
    fn unit(angle: f64) -> Self {
        Self { re: angle.cos(), im: angle.sin() }
    }

    #[inline]
    fn add(self, b: Self) -> Self {
        Self { re: self.re + b.re, im: self.im + b.im }
    }

    #[inline]
    fn sub(self, b: Self) -> Self {
        Self { re: self.re - b.re, im: self.im - b.im }
    }

    #[inline]
    fn mul(self, b: Self) -> Self {
        Self { re: self.re * b.re - self.im * b.im, im: self.re * b.im + self.im * b.re }
    }

    #[inline]
    fn conj(self) -> Self {
        Self { re: self.re, im: -self.im }
    }
}

impl From<f64> for Complex {
    fn from(re: f64) -> Self {
        Self { re, im: 0.0 }
    }
}

/// Twiddles of the embedding.
pub(crate) struct Embedding {
    slots: usize,
    /// Stage by stage: at `len/2 + j`, ζ^(5^j mod 4·len) scaled to order 4·len.
    twiddles: Vec<Complex>,
}

impl Embedding {
    pub(crate) fn new(n: usize) -> Self {
        let slots = n / 2;
        let mut twiddles = vec![Complex::default(); slots];
        let mut len = 2;
        while len <= slots {
            let order = 4 * len;
            let mut power = 1usize;
            for j in 0..len / 2 {
                twiddles[len / 2 + j] = Complex::unit(2.0 * PI * power as f64 / order as f64);
                power = power * 5 % order;
            }
            len *= 2;
        }
        Self { slots, twiddles }
    }

    fn bit_reverse(&self, v: &mut [Complex]) {
        let shift = usize::BITS - self.slots.trailing_zeros();
        for i in 0..v.len() {
            let j = i.reverse_bits() >> shift;
            if i < j {
                v.swap(i, j);
            }
        }
    }

    /// Polynomial (coefficient k + i·coefficient k + N/2) to slots.
    fn to_slots(&self, v: &mut [Complex]) {
        self.bit_reverse(v);
        let mut len = 2;
        while len <= self.slots {
            let half = len / 2;
            let w = &self.twiddles[half..len];
            for block in v.chunks_exact_mut(len) {
                let (lo, hi) = block.split_at_mut(half);
                for ((x, y), &w) in lo.iter_mut().zip(hi).zip(w) {
                    let t = y.mul(w);
                    *y = x.sub(t);
                    *x = x.add(t);
                }
            }
            len *= 2;
        }
    }

    /// Slots to polynomial.
    fn to_coefficients(&self, v: &mut [Complex]) {
        let mut len = self.slots;
        while len >= 2 {
            let half = len / 2;
            let w = &self.twiddles[half..len];
            for block in v.chunks_exact_mut(len) {
                let (lo, hi) = block.split_at_mut(half);
                for ((x, y), &w) in lo.iter_mut().zip(hi).zip(w) {
                    let difference = x.sub(*y);
                    *x = x.add(*y);
                    *y = difference.mul(w.conj());
                }
            }
            len /= 2;
        }
        self.bit_reverse(v);
        let scale = 1.0 / self.slots as f64;
        for x in v {
            x.re *= scale;
            x.im *= scale;
        }
    }
}

impl Context {
    /// Encodes real values into the first slots; the rest are zero.
    ///
    /// # Errors
    /// [`CkksError::TooManyValues`], [`CkksError::ValueTooLarge`], [`CkksError::NoSuchLevel`].
    pub fn encode(&self, values: &[f64], level: usize) -> Result<Plaintext, CkksError> {
        self.encode_as(values, level, Degree::One)
    }

    /// As [`Context::encode`], for addition to ciphertexts of the given scale degree.
    ///
    /// # Errors
    /// As [`Context::encode`].
    pub fn encode_as<T: Copy + Into<Complex>>(
        &self,
        values: &[T],
        level: usize,
        degree: Degree,
    ) -> Result<Plaintext, CkksError> {
        if level > self.top_level() {
            return Err(CkksError::NoSuchLevel { level, top: self.top_level() });
        }
        let scale = self.scale(level, degree);
        let rows = self.encode_rows(values, level, scale, false)?;
        Ok(Plaintext { rows, level, degree, parameters: self.hash })
    }

    /// s_ℓ or s_ℓ².
    pub(crate) fn scale(&self, level: usize, degree: Degree) -> f64 {
        let s = self.chain.scales[level];
        match degree {
            Degree::One => s,
            Degree::Two => s * s,
        }
    }

    /// Transformed rows of round(scale·polynomial), in Montgomery form if `montgomery`.
    pub(crate) fn encode_rows<T: Copy + Into<Complex>>(
        &self,
        values: &[T],
        level: usize,
        scale: f64,
        montgomery: bool,
    ) -> Result<Rows, CkksError> {
        let slots = self.slots();
        if values.len() > slots {
            return Err(CkksError::TooManyValues { found: values.len(), slots });
        }
        let mut v = vec![Complex::default(); slots];
        for (x, &y) in v.iter_mut().zip(values) {
            *x = y.into();
        }
        self.embedding.to_coefficients(&mut v);
        let mut coefficients = vec![0i128; self.n()];
        let mut largest = 0.0f64;
        for (k, x) in v.iter().enumerate() {
            let (re, im) = ((x.re * scale).round(), (x.im * scale).round());
            largest = largest.max(re.abs()).max(im.abs());
            // NaN survives neither comparison.
            if !(re.abs() < 1e36 && im.abs() < 1e36) {
                largest = f64::INFINITY;
                break;
            }
            coefficients[k] = re as i128;
            coefficients[k + slots] = im as i128;
        }
        let limit: f64 =
            self.chain.primes[..=level].iter().map(|&q| (q as f64).log2()).sum::<f64>() - 1.0;
        if !largest.is_finite() || largest.max(1.0).log2() > limit {
            return Err(CkksError::ValueTooLarge { bits: largest.log2(), limit });
        }
        let mut rows = Rows::scratch(self.n(), level + 1);
        for i in 0..=level {
            let m = self.modulus(i);
            let row = rows.row_mut(i);
            if largest < m.p as f64 {
                for (r, &c) in row.iter_mut().zip(&coefficients) {
                    let c = c as i64;
                    *r = (c + ((c >> 63) & m.p as i64)) as u64;
                }
            } else {
                for (r, &c) in row.iter_mut().zip(&coefficients) {
                    *r = m.reduce_i128(c);
                }
            }
            self.forward(i, row);
            if montgomery {
                let src = row.to_vec();
                self.backend.run(MulShoup { dst: row, src: &src, by: m.shoup(m.one), m });
            }
        }
        Ok(rows)
    }

    /// The slots of centred coefficients at a scale.
    pub(crate) fn decode_coefficients(&self, coefficients: &[i128], scale: f64) -> Vec<Complex> {
        let slots = self.slots();
        let mut v: Vec<Complex> = (0..slots)
            .map(|k| {
                let (re, im) = (coefficients[k], coefficients[k + slots]);
                Complex { re: re as f64 / scale, im: im as f64 / scale }
            })
            .collect();
        self.embedding.to_slots(&mut v);
        v
    }

    /// Centred coefficients from the first one or two rows of a transformed polynomial.
    pub(crate) fn lift(&self, rows: &mut Rows) -> Vec<i128> {
        self.inverse(0, rows.row_mut(0));
        let m0 = *self.modulus(0);
        if rows.count() == 1 {
            let half = m0.p / 2;
            return rows
                .row(0)
                .iter()
                .map(|&x| if x > half { x as i128 - m0.p as i128 } else { x as i128 })
                .collect();
        }
        self.inverse(1, rows.row_mut(1));
        let m1 = *self.modulus(1);
        let inv = m1.inv(m0.p % m1.p);
        let product = m0.p as i128 * m1.p as i128;
        rows.row(0)
            .iter()
            .zip(rows.row(1))
            .map(|(&x0, &x1)| {
                // Garner: x = x0 + q0·((x1 − x0)/q0 mod q1).
                let k = m1.mul(x1 + m1.p - x0 % m1.p, inv);
                let x = x0 as i128 + m0.p as i128 * k as i128;
                if x > product / 2 { x - product } else { x }
            })
            .collect()
    }

    /// The slots of a plaintext.
    #[must_use]
    pub fn decode(&self, plaintext: &Plaintext) -> Vec<Complex> {
        let mut rows = plaintext.rows.clone();
        rows.truncate(2);
        let coefficients = self.lift(&mut rows);
        self.decode_coefficients(&coefficients, self.scale(plaintext.level, plaintext.degree))
    }
}
