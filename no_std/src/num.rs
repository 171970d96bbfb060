//! Public numbers without floating point: `mantissa · 2^exponent`.

use core::fmt;

/// A public constant `mantissa · 2^exponent`.
///
/// Operators carry their constants (scales, thresholds, domains) as `Num` so that nothing in a
/// kernel pulls floating-point code onto a core that has none. Constants written in the source
/// come from [`Num::of`], which is `const`.
///
/// ```
/// use undertone_core::Num;
/// const HALF: Num = const { Num::of(0.5) };
/// assert_eq!(HALF, Num::new(1, -1));
/// assert_eq!(HALF.to_f64(), 0.5);
/// assert_eq!(HALF.to_fixed(8), 128);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Num {
    mantissa: i64,
    exponent: i16,
}

impl Num {
    /// Zero.
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0 };
    /// One.
    pub const ONE: Self = Self { mantissa: 1, exponent: 0 };

    /// `mantissa · 2^exponent`, normalised so that equal numbers compare equal.
    #[must_use]
    pub const fn new(mantissa: i64, exponent: i16) -> Self {
        if mantissa == 0 {
            return Self::ZERO;
        }
        let zeros = mantissa.trailing_zeros();
        Self { mantissa: mantissa >> zeros, exponent: exponent + zeros as i16 }
    }

    /// An integer.
    #[must_use]
    pub const fn int(value: i64) -> Self {
        Self::new(value, 0)
    }

    /// The exact value of a finite `f64`; not-a-number and infinities become zero.
    #[must_use]
    pub const fn of(value: f64) -> Self {
        let bits = value.to_bits();
        let biased = ((bits >> 52) & 0x7ff) as i16;
        let fraction = (bits & ((1 << 52) - 1)) as i64;
        if biased == 0x7ff {
            return Self::ZERO;
        }
        let (mantissa, exponent) =
            if biased == 0 { (fraction, -1074) } else { (fraction | (1 << 52), biased - 1075) };
        Self::new(if bits >> 63 == 1 { -mantissa } else { mantissa }, exponent)
    }

    /// The nearest `f64`. For hosts and tests; no kernel calls it.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        // Two factors, so that neither leaves the range of normal numbers for representable values.
        let e = i32::from(self.exponent);
        let half = e / 2;
        self.mantissa as f64 * power_of_two(half) * power_of_two(e - half)
    }

    /// The mantissa: odd, or zero.
    #[must_use]
    pub const fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// The exponent of two.
    #[must_use]
    pub const fn exponent(self) -> i16 {
        self.exponent
    }

    /// Whether this is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Whether this is negative.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// The negated number.
    #[must_use]
    pub const fn neg(self) -> Self {
        Self { mantissa: -self.mantissa, exponent: self.exponent }
    }

    /// `self · 2^by`, exactly.
    #[must_use]
    pub const fn shift(self, by: i16) -> Self {
        if self.mantissa == 0 {
            self
        } else {
            Self { mantissa: self.mantissa, exponent: self.exponent + by }
        }
    }

    /// The sum: exact where 62 bits hold it, rounded down where they do not.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let (mut a, mut b) = (self, other);
        if a.mantissa == 0 {
            return b;
        }
        if b.mantissa == 0 {
            return a;
        }
        if a.exponent < b.exponent {
            (a, b) = (b, a);
        }
        // `a` has the greater exponent: shift it left as far as it goes, then `b` right.
        let room = a.mantissa.unsigned_abs().leading_zeros() as i16 - 2;
        let gap = a.exponent.saturating_sub(b.exponent);
        let left = if gap < room { gap } else { room };
        let right = gap - left;
        let small = if right > 63 { b.mantissa >> 63 } else { b.mantissa >> right };
        Self::new((a.mantissa << left) + small, a.exponent - left)
    }

    /// 1/self to 31 significant bits or more, rounded towards zero; zero for zero. Integer
    /// arithmetic only.
    #[must_use]
    pub const fn inverse(self) -> Self {
        let bits = 64 - self.mantissa.unsigned_abs().leading_zeros() as i16;
        let drop = if bits > 31 { bits - 31 } else { 0 };
        let short = self.mantissa >> drop;
        if short == 0 {
            return Self::ZERO;
        }
        Self::new((1i64 << 62) / short, -62 - drop - self.exponent)
    }

    /// The smallest `e` with `|self| ≤ 2^e`; −4096 for zero, below any number of interest and far
    /// enough from overflow.
    #[must_use]
    pub const fn ceil_log2(self) -> i16 {
        let magnitude = self.mantissa.unsigned_abs();
        if magnitude == 0 {
            return -4096;
        }
        let floor = 63 - magnitude.leading_zeros() as i16;
        self.exponent + if magnitude.is_power_of_two() { floor } else { floor + 1 }
    }

    /// The number in fixed point with `frac` fraction bits, rounded half up and saturated to `i64`.
    #[must_use]
    pub const fn to_fixed(self, frac: i16) -> i64 {
        let shift = self.exponent + frac;
        if self.mantissa == 0 || shift <= -63 {
            0
        } else if shift < 0 {
            // Adding half before the floor; mantissas have at most 53 significant bits.
            (self.mantissa + (1i64 << (-shift - 1))) >> -shift
        } else {
            let room = self.mantissa.unsigned_abs().leading_zeros() as i16 - 1;
            if shift > room {
                if self.mantissa < 0 { i64::MIN } else { i64::MAX }
            } else {
                self.mantissa << shift
            }
        }
    }
}

/// `2^e` for `e` in the range of normal numbers, by its bits; clamped outside.
fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((e.clamp(-1022, 1023) + 1023) as u64) << 52)
}

impl fmt::Debug for Num {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}·2^{}", self.mantissa, self.exponent)
    }
}

impl fmt::Display for Num {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_f64(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_round_trip() {
        for x in [0.0, 1.0, -1.5, 1e-3, 3.0e8, f64::MIN_POSITIVE, f64::MAX, 5e-324] {
            assert_eq!(Num::of(x).to_f64(), x);
        }
        assert_eq!(Num::of(f64::NAN), Num::ZERO);
    }

    #[test]
    fn fixed_point_rounds_half_up_and_saturates() {
        assert_eq!(Num::of(0.5).to_fixed(0), 1);
        assert_eq!(Num::of(-0.5).to_fixed(0), 0);
        assert_eq!(Num::of(1.25).to_fixed(4), 20);
        assert_eq!(Num::of(1e300).to_fixed(10), i64::MAX);
        assert_eq!(Num::of(-1e300).to_fixed(10), i64::MIN);
        assert_eq!(Num::of(1e-300).to_fixed(10), 0);
    }

    #[test]
    fn sums_and_inverses() {
        for (a, b) in [(1.5, 2.25), (1e-3, 13.0), (-4.0, 4.0), (1e12, 1e-12), (0.0, 3.0)] {
            let sum = Num::of(a).plus(Num::of(b)).to_f64();
            assert!((sum - (a + b)).abs() <= 1e-9 * (a + b).abs(), "{a} + {b} = {sum}");
        }
        for x in [3.0, 49.0, 1e-5, 0.75, -7.0, 123456.789] {
            let inverse = Num::of(x).inverse().to_f64();
            assert!((inverse * x - 1.0).abs() < 1e-9, "1/{x} = {inverse}");
        }
    }

    #[test]
    fn logarithm_is_the_smallest_sufficient_power() {
        assert_eq!(Num::of(1.0).ceil_log2(), 0);
        assert_eq!(Num::of(1.1).ceil_log2(), 1);
        assert_eq!(Num::of(-8.0).ceil_log2(), 3);
        assert_eq!(Num::of(0.3).ceil_log2(), -1);
    }
}
