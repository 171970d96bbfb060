use crate::ring::low;

/// A real function of a mask r, given as fixed point.
///
/// Where f(x̂ − r) is a sum of products φ(x̂)·ψ(r), opening x̂ and sharing ψ(r) is all the
/// interaction that f needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kernel {
    /// exp((r mod 2^`window`)·2^−`fraction` − `minus`)
    Exp {
        /// Bits of the window.
        window: u32,
        /// Fraction bits of the mask.
        fraction: u32,
        /// Subtracted from the exponent.
        minus: f64,
        /// Fraction bits of the result.
        scale: u32,
    },
    /// cos(2π·`k`·r/2^`period`)
    Cos {
        /// Harmonic.
        k: u32,
        /// Bits of one period.
        period: u32,
        /// Fraction bits of the result.
        scale: u32,
    },
    /// sin(2π·`k`·r/2^`period`)
    Sin {
        /// Harmonic.
        k: u32,
        /// Bits of one period.
        period: u32,
        /// Fraction bits of the result.
        scale: u32,
    },
}

impl Kernel {
    /// The value at a mask, modulo 2^64.
    #[must_use]
    pub fn at(self, r: u64) -> u64 {
        let (value, scale) = match self {
            Self::Exp { window, fraction, minus, scale } => {
                let x = libm::ldexp((r & low(window)) as f64, -(fraction as i32));
                (libm::exp(x - minus), scale)
            }
            Self::Cos { k, period, scale } => (libm::cos(angle(k, period, r)), scale),
            Self::Sin { k, period, scale } => (libm::sin(angle(k, period, r)), scale),
        };
        libm::rint(libm::ldexp(value, scale as i32)) as i64 as u64
    }
}

/// The angle of the k-th harmonic at `x`, reduced exactly to one turn before rounding.
pub(crate) fn angle(k: u32, period: u32, x: u64) -> f64 {
    let turn = u64::from(k).wrapping_mul(x) & low(period);
    libm::ldexp(turn as f64, -(period as i32)) * std::f64::consts::TAU
}
