//! Back from an accumulator to a tensor's format: multiply, shift, round, saturate.

/// `x · 2^-shift`, rounded half up; a negative `shift` multiplies, wrapping only beyond `i64`.
///
/// ```
/// use undertone_core::fixed::requant::round_shift;
/// assert_eq!([round_shift(5, 1), round_shift(-5, 1), round_shift(3, -2)], [3, -2, 12]);
/// ```
#[inline]
#[must_use]
pub const fn round_shift(x: i64, shift: i32) -> i64 {
    if shift > 63 {
        0
    } else if shift > 0 {
        // Half up without an addition that could overflow, and with one wide shift.
        let twice = x >> (shift - 1);
        (twice >> 1) + (twice & 1)
    } else if shift > -64 {
        x << -shift
    } else {
        0
    }
}

/// `a · b · 2^-shift`, rounded half up and clamped to `i64`, exact in between.
#[inline]
#[must_use]
pub const fn mul_shift(a: i64, b: i64, shift: i32) -> i64 {
    if b == 1 && shift >= 0 {
        // Most calls, and a small core has no 128-bit product.
        return round_shift(a, shift);
    }
    let p = a as i128 * b as i128;
    let r = if shift > 126 {
        0
    } else if shift > 0 {
        (p >> shift) + ((p >> (shift - 1)) & 1)
    } else if shift > -64 {
        // |p| < 2^127, so a left shift may overflow: clamp first.
        let limit = i128::MAX >> -shift;
        let c = if p > limit {
            limit
        } else if p < -limit {
            -limit
        } else {
            p
        };
        c << -shift
    } else {
        p.signum() * i128::MAX
    };
    if r > i64::MAX as i128 {
        i64::MAX
    } else if r < i64::MIN as i128 {
        i64::MIN
    } else {
        r as i64
    }
}

/// The public factor between an accumulator's format and its output's: `multiplier · 2^-shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requant {
    /// The multiplier; 1 for a pure shift.
    pub multiplier: i32,
    /// How far to shift right; negative shifts left.
    pub shift: i32,
}

impl Requant {
    /// From `from` fraction bits to `to` fraction bits.
    #[must_use]
    pub const fn fractions(from: u32, to: u32) -> Self {
        Self { multiplier: 1, shift: from as i32 - to as i32 }
    }

    /// `factor · 2^-shift` for a factor in Q1.62, kept to 31 bits: what a scale such as log2(e)/√d becomes.
    #[must_use]
    pub const fn scaled(factor_q62: i64, from: u32, to: u32) -> Self {
        Self { multiplier: round_shift(factor_q62, 33) as i32, shift: 29 + from as i32 - to as i32 }
    }

    /// Applies it, rounding half up and clamping to `i64`.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, x: i64) -> i64 {
        // A 32-bit sum is the rule, and its product fits: the wide paths cost a small core dearly.
        let narrow = x as i32;
        if narrow as i64 != x || self.shift < 0 {
            return self.apply_wide(x);
        }
        if self.multiplier == 1 && self.shift < 32 {
            return half_up(narrow, self.shift) as i64;
        }
        let product = narrow as i64 * self.multiplier as i64;
        if self.shift > 32 && self.shift <= 64 {
            // The upper word decides.
            return half_up((product >> 32) as i32, self.shift - 32) as i64;
        }
        round_shift(product, self.shift)
    }

    #[inline(never)]
    const fn apply_wide(self, x: i64) -> i64 {
        match x.checked_mul(self.multiplier as i64) {
            Some(p) if self.shift >= 0 => round_shift(p, self.shift),
            _ => mul_shift(x, self.multiplier as i64, self.shift),
        }
    }
}

/// `x · 2^-shift`, rounded half up; `shift` from 0 to 32.
#[inline(always)]
const fn half_up(x: i32, shift: i32) -> i32 {
    if shift == 0 {
        return x;
    }
    let twice = x >> (shift - 1);
    (twice >> 1) + (twice & 1)
}

/// Public offsets with a format of their own, brought to the accumulator's as they are added.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// The offset of each column.
    pub data: &'a [i16],
    /// Their fraction bits.
    pub frac: i32,
}

impl Bias<'_> {
    /// The offset of a column with `frac` fraction bits; zero beyond the last.
    #[inline]
    #[must_use]
    pub fn at(&self, column: usize, frac: i32) -> i64 {
        let raw = self.data.get(column).copied().unwrap_or(0);
        let up = frac - self.frac;
        if (0..16).contains(&up) {
            return i64::from(i32::from(raw) << up);
        }
        round_shift(raw.into(), -up)
    }
}

/// What follows a sum of small weights: the scale of its row, a bias, a shift to 16 bits.
#[derive(Clone, Copy, Debug)]
pub struct Scaled<'a> {
    /// The scale of each row of the weight.
    pub scale: &'a [i16],
    /// The bias of each row, and the fraction bits of a scaled sum.
    pub bias: Option<(Bias<'a>, i32)>,
    /// How far to shift a scaled sum right; negative shifts left.
    pub shift: i32,
}

impl Scaled<'_> {
    /// Finishes the sum of a row, below 2^47 in magnitude; whether it saturated.
    #[inline]
    pub(super) fn one(&self, row: usize, sum: i64, out: &mut i16) -> bool {
        let scale = self.scale.get(row).copied().unwrap_or(0);
        let narrow = sum as i32;
        let product = if i64::from(narrow) == sum {
            i64::from(narrow) * i64::from(scale)
        } else {
            sum * i64::from(scale)
        };
        let bias = self.bias.map_or(0, |(bias, frac)| bias.at(row, frac));
        let wide = product.saturating_add(bias);
        let (value, saturated) = i16::narrow(if self.shift >= 0 {
            round_shift(wide, self.shift)
        } else {
            mul_shift(wide, 1, self.shift)
        });
        *out = value;
        saturated
    }
}

/// An element type that a wide value can be saturated into.
pub trait Narrow: Copy + sealed::Sealed {
    /// The nearest representable value, and whether that differs from `x`.
    fn narrow(x: i64) -> (Self, bool);
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! narrow {
    ($($t:ty)*) => {$(
        impl sealed::Sealed for $t {}
        impl Narrow for $t {
            #[inline]
            fn narrow(x: i64) -> (Self, bool) {
                let clamped = x.clamp(<$t>::MIN as i64, <$t>::MAX as i64);
                (clamped as $t, clamped != x)
            }
        }
    )*};
}
narrow!(i8 u8 i16 u16 i32 u32 i64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_goes_up() {
        assert_eq!([-3, -1, 1, 3].map(|x| round_shift(x, 1)), [-1, 0, 1, 2]);
        assert_eq!(round_shift(i64::MAX, 1), 1 << 62);
        assert_eq!(<i16 as Narrow>::narrow(40_000), (i16::MAX, true));
        assert_eq!(<u16 as Narrow>::narrow(-1), (0, true));
    }

    proptest! {
        #[test]
        fn requantization_is_the_rounded_product(x in -(1i64 << 47)..1 << 47, m: i32, shift in 0i32..60) {
            let r = Requant { multiplier: m, shift }.apply(x);
            let exact = i128::from(x) * i128::from(m);
            let want = (exact + ((1i128 << shift) >> 1)).div_euclid(1i128 << shift);
            prop_assert_eq!(i128::from(r), want.clamp(i64::MIN.into(), i64::MAX.into()));
        }

        /// Every way through `apply` gives the clamped 128-bit product.
        #[test]
        fn ways_agree(wide: i64, narrow: i32, m: i32, shift in -70i32..70, frac in 0i32..40, raw: i16) {
            for x in [wide, wide >> 17, narrow.into(), i64::from(narrow) >> 9] {
                for multiplier in [m, 1, -1] {
                    let r = Requant { multiplier, shift };
                    // Not mul_shift's own short cut.
                    let want = mul_shift(multiplier.into(), x, shift);
                    prop_assert_eq!(r.apply(x), if x == 1 { r.apply_wide(x) } else { want });
                }
            }
            let bias = Bias { data: &[raw], frac };
            prop_assert_eq!(bias.at(0, 20), round_shift(raw.into(), frac - 20));
        }

        #[test]
        fn scaling_keeps_the_factor(x in -(1i64 << 40)..1 << 40, factor in 1i64 << 50..i64::MAX / 2) {
            let r = Requant::scaled(factor, 24, 12).apply(x) as f64;
            let want = x as f64 * (factor as f64 / libm::exp2(62.0)) / 4096.0;
            prop_assert!((r - want).abs() <= 0.51 + x.abs() as f64 * libm::exp2(-30.0 - 12.0));
        }
    }
}
