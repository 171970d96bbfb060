//! References and distributions shared by the kernels' tests.
extern crate std;
use std::vec::Vec;

/// Standard normal numbers from a seed.
pub(crate) struct Gauss(u64);

impl Gauss {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) * libm::exp2(-53.0)
    }

    /// Box–Muller.
    pub(crate) fn next(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(core::f64::consts::TAU * v)
    }

    pub(crate) fn i16s(&mut self, n: usize, sigma: f64, frac: u32) -> Vec<i16> {
        (0..n).map(|_| spread(self.next() * sigma, frac).clamp(-32768, 32767) as i16).collect()
    }
}

/// Rounds to `frac` fraction bits.
pub(crate) fn spread(x: f64, frac: u32) -> i32 {
    libm::round(x * libm::exp2(f64::from(frac))) as i32
}

/// Softmax to the base 2 of raw logits, in f64, with the maximum subtracted first.
pub(crate) fn softmax_octaves(x: &[i32], frac: u32) -> Vec<f64> {
    let max = *x.iter().max().expect("a row has elements");
    let scale = libm::exp2(-f64::from(frac));
    let w: Vec<f64> =
        x.iter().map(|&v| libm::exp2((f64::from(v) - f64::from(max)) * scale)).collect();
    let sum: f64 = w.iter().sum();
    w.iter().map(|v| v / sum).collect()
}

/// `wide`·2^−`shift`, rounded half up, and the same within 16 bits.
pub(crate) fn finished(wide: i128, shift: i32) -> (i128, i128) {
    let exact = if shift > 0 { ((wide >> (shift - 1)) + 1) >> 1 } else { wide << -shift };
    (exact, exact.clamp(i16::MIN.into(), i16::MAX.into()))
}
