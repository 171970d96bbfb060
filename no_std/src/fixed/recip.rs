//! Reciprocal and reciprocal square root, as a normalised mantissa and an exponent.
//!
//! Both start from a linear seed and take Newton steps in 32-bit words: no division, no table, so the same few
//! multiplications serve a core without a divider and a circuit. They finish row sums (softmax, Power-Softmax,
//! ReLU-softmax) and layer norm.

use super::requant::mul_shift;

/// A positive number `mantissa · 2^exponent` with `2^31 ≤ mantissa < 2^32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// The mantissa; its top bit is set.
    pub mantissa: u32,
    /// The power of two.
    pub exponent: i32,
}

impl Scaled {
    /// For 32-bit arguments and `frac` fraction bits of the result, where the shift is from 33 to 64.
    #[inline]
    pub(super) const fn narrow(self, frac: i32) -> Option<Narrow> {
        let shift = self.exponent.saturating_add(frac).saturating_neg();
        if shift >= 33 && shift <= 64 {
            Some(Narrow { mantissa: self.mantissa, shift: (shift - 33) as u32 })
        } else {
            None
        }
    }

    /// `x · self · 2^frac`, rounded half up and clamped to `i64`.
    #[inline]
    #[must_use]
    pub const fn apply(self, x: i64, frac: i32) -> i64 {
        let shift = self.exponent.saturating_add(frac).saturating_neg();
        if x as i32 as i64 == x
            && let Some(narrow) = self.narrow(frac)
        {
            return narrow.apply(x as i32) as i64;
        }
        if shift >= 33 && shift <= 95 {
            // The lower word of the 96-bit product is never looked at.
            let low = (x as u32 as u64 * self.mantissa as u64) >> 32;
            let high = (x >> 32) * self.mantissa as i64 + low as i64;
            let twice = high >> (shift - 33);
            return (twice >> 1) + (twice & 1);
        }
        mul_shift(x, self.mantissa as i64, shift)
    }
}

/// A [`Scaled`] for 32-bit arguments, whose products end in their upper word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow {
    mantissa: u32,
    shift: u32,
}

impl Narrow {
    #[inline(always)]
    pub(super) const fn apply(self, x: i32) -> i32 {
        let twice = ((x as i64 * self.mantissa as i64) >> 32) as i32 >> self.shift;
        (twice >> 1) + (twice & 1)
    }
}

/// The 32 leading bits of `x << lead`, rounded half up, clamped where the carry would leave the word.
const fn leading_word(x: u64, lead: u32) -> u64 {
    let rounded = (((x << lead) >> 31) + 1) >> 1;
    if rounded > u32::MAX as u64 { u32::MAX as u64 } else { rounded }
}

/// Clamps to a word whose top bit is set: Newton's last step may end one unit outside.
const fn mantissa(x: u64) -> u32 {
    if x > u32::MAX as u64 {
        u32::MAX
    } else if x < 1 << 31 {
        1 << 31
    } else {
        x as u32
    }
}

/// 1/x, or `None` for 0. The relative error is at most 2^-30.
///
/// ```
/// use undertone_core::fixed::recip::recip;
/// let third = recip(3).unwrap();
/// assert_eq!(third.apply(1, 16), 21845); // 1/3 with 16 fraction bits
/// ```
#[inline]
#[must_use]
pub const fn recip(x: u64) -> Option<Scaled> {
    if x == 0 {
        return None;
    }
    let lead = x.leading_zeros();
    let d = leading_word(x, lead);
    // d/2^32 lies in [1/2, 1); r/2^31 approximates its reciprocal, in (1, 2]. The seed 48/17 − 32/17·d is off by at
    // most 1/17, which three steps square to 2^-32.
    let mut r = 6_063_400_418 - ((d * 4_042_266_945) >> 32);
    let mut step = 0;
    while step < 3 {
        let error = (1u64 << 63).wrapping_sub(d * r) as i64;
        r = r.wrapping_add_signed((r as i64 * (error >> 31)) >> 32);
        step += 1;
    }
    Some(Scaled { mantissa: mantissa(r), exponent: lead as i32 - 95 })
}

/// 1/√x, or `None` for 0. The relative error is at most 2^-29.
#[inline]
#[must_use]
pub const fn rsqrt(x: u64) -> Option<Scaled> {
    if x == 0 {
        return None;
    }
    // An even shift, so that the exponent halves.
    let lead = x.leading_zeros() & !1;
    let d = leading_word(x, lead);
    // d/2^32 lies in [1/4, 1); y/2^31 approximates 1/√d, in (1, 2]. The seed 2.1 − 1.2·d is off by at most 0.1; each
    // step y(3 − d·y²)/2 takes an error e to 1.5·e², from below.
    let mut y = 4_509_715_661 - ((d * 2_576_980_378) >> 32);
    let mut step = 0;
    while step < 4 {
        let square = (y * y) >> 32; // y² with 30 fraction bits
        y = (y * ((3 << 30) - ((square * d) >> 32))) >> 31;
        step += 1;
    }
    Some(Scaled { mantissa: mantissa(y), exponent: (lead / 2) as i32 - 63 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn value(s: Scaled) -> f64 {
        f64::from(s.mantissa) * libm::exp2(f64::from(s.exponent))
    }

    fn worst(f: fn(u64) -> Option<Scaled>, want: fn(f64) -> f64) -> f64 {
        let mut worst = 0f64;
        // Every 16-bit argument, then every leading word's upper 16 bits with hostile tails at every magnitude.
        let small = 1..=65_535u64;
        let wide = (0x8000..=0xFFFF_u64).flat_map(|top| {
            [0, 1, 0x7FFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF].into_iter().flat_map(move |tail| {
                [0u32, 1, 17, 32].into_iter().map(move |s| ((top << 48) | tail) >> s)
            })
        });
        for x in small.chain(wide) {
            let w = want(x as f64);
            worst = worst.max(((value(f(x).unwrap()) - w) / w).abs());
        }
        worst
    }

    #[test]
    fn reciprocal_within_its_bound() {
        let w = worst(recip, |x| 1.0 / x);
        assert!(w <= libm::exp2(-30.0), "{w:e}");
        assert_eq!(recip(0), None);
    }

    #[test]
    fn root_within_its_bound() {
        let w = worst(rsqrt, |x| 1.0 / libm::sqrt(x));
        assert!(w <= libm::exp2(-29.0), "{w:e}");
        assert_eq!(rsqrt(0), None);
    }

    proptest! {
        /// Both ways through `apply` are the rounded 128-bit product.
        #[test]
        fn apply_is_the_rounded_product(x: i64, of in 1u64.., frac in -90i32..90) {
            let r = recip(of).unwrap();
            for x in [x, x >> 20, x >> 33, x >> 50] {
                let want = mul_shift(x, r.mantissa.into(), -(r.exponent + frac));
                prop_assert_eq!(r.apply(x, frac), want);
            }
        }

        #[test]
        fn any_argument(x in 1u64..) {
            let (r, s) = (value(recip(x).unwrap()), value(rsqrt(x).unwrap()));
            prop_assert!((r * x as f64 - 1.0).abs() <= libm::exp2(-30.0));
            prop_assert!((s * libm::sqrt(x as f64) - 1.0).abs() <= libm::exp2(-29.0));
        }
    }
}
