//! The functions behind the tables, evaluated in integers by `const fn`.
//!
//! One evaluation serves constant tables in flash and tables built when a model is loaded, so a table has the same
//! bits on every machine: no float library takes part. Arguments and results are `i64` in Q15.48 ([`ONE`] is 1.0),
//! accurate to a few units of 2^-48. These are builders of tables, not fast paths.

/// Fraction bits of every argument and result in this module.
pub const FRAC: u32 = 48;
/// 1.0 in Q15.48.
pub const ONE: i64 = 1 << FRAC;
/// ln 2 in Q0.64.
pub const LN2_Q64: u64 = 0xB172_17F7_D1CF_79AC;
/// log2(e) in Q1.62, the factor that turns a natural logit into one in octaves.
pub const LOG2_E_Q62: i64 = 0x5C55_1D94_AE0B_F85E;
/// 2/√π in Q1.62.
const TWO_OVER_SQRT_PI_Q62: i128 = 0x4837_5D41_0A6D_B447;
/// 1/√2 in Q1.62.
const FRAC_1_SQRT_2_Q62: i128 = 0x2D41_3CCC_FE77_9921;

const Q62: i128 = 1 << 62;

/// `(a · b) >> 64` for a 128-bit `a`.
const fn mul_hi(a: u128, b: u64) -> u128 {
    (a >> 64) * b as u128 + (((a & u64::MAX as u128) * b as u128) >> 64)
}

/// e^-(n + f·2^-64) in Q1.63, for n ≤ 15, within 2 units of 2^-63.
///
/// The series is summed for the positive exponent, where no term cancels another, and inverted once.
pub(crate) const fn exp_neg_q63(n: u64, f: u64) -> u64 {
    let mut term: u128 = 1 << 100;
    let mut sum: u128 = 0;
    let mut j = 1;
    while term != 0 {
        sum += term;
        term = (term * n as u128 + mul_hi(term, f)) / j;
        j += 1;
    }
    // The sum is at least 1; `checked_div` says so to the compiler, which then leaves no panic path.
    match (1u128 << 127).checked_div(sum >> 36) {
        Some(q) => q as u64,
        None => 0,
    }
}

/// 2^-(f·2^-64) in Q1.63.
pub(crate) const fn exp2_neg_q63(f: u64) -> u64 {
    exp_neg_q63(0, ((f as u128 * LN2_Q64 as u128) >> 64) as u64)
}

/// e^x; x ≤ 10.3 (beyond, the result saturates at `i64::MAX`).
#[must_use]
pub const fn exp(x: i64) -> i64 {
    // x = k·ln 2 − r with 0 ≤ r < ln 2, so e^x = 2^k · e^-r.
    let ln2 = (LN2_Q64 >> 1) as i128; // Q63
    let xw = (x as i128) << 15; // Q63
    let k = -((-xw).div_euclid(ln2));
    let r = k * ln2 - xw; // Q63
    let m = exp_neg_q63(0, (r as u64) << 1) as i128; // Q63
    let shift = 15 - k; // from Q63 to Q48, times 2^k
    if shift >= 100 {
        0
    } else if shift >= 0 {
        let r = (m + ((1i128 << shift) >> 1)) >> shift;
        if r > i64::MAX as i128 { i64::MAX } else { r as i64 }
    } else {
        i64::MAX
    }
}

/// e^-t in Q62 for t ≥ 0 in Q48.
const fn exp_neg_q62(t: i64) -> i128 {
    let ln2 = (LN2_Q64 >> 1) as i128;
    let xw = (t as i128) << 15;
    let k = xw / ln2;
    let r = xw - k * ln2;
    if k > 62 {
        return 0;
    }
    (exp_neg_q63(0, (r as u64) << 1) as i128) >> (k + 1)
}

/// a/b for a denominator that is never zero, without a panic path.
const fn quotient(a: i128, b: i128) -> i128 {
    match a.checked_div(b) {
        Some(q) => q,
        None => 0,
    }
}

/// The logistic function 1/(1 + e^-x).
#[must_use]
pub const fn sigmoid(x: i64) -> i64 {
    let e = exp_neg_q62(x.saturating_abs());
    let num = if x < 0 { e } else { Q62 };
    quotient((num << FRAC) + ((Q62 + e) >> 1), Q62 + e) as i64
}

/// The hyperbolic tangent.
#[must_use]
pub const fn tanh(x: i64) -> i64 {
    let e = exp_neg_q62(x.saturating_abs().saturating_mul(2));
    let t = quotient(((Q62 - e) << FRAC) + ((Q62 + e) >> 1), Q62 + e) as i64;
    if x < 0 { -t } else { t }
}

/// ln(1 + e^x).
#[must_use]
pub const fn softplus(x: i64) -> i64 {
    // ln(1+u) = 2·atanh(u/(2+u)); with u ≤ 1 the argument is at most 1/3.
    let u = exp_neg_q62(x.saturating_abs());
    let z = quotient(u << 62, 2 * Q62 + u);
    let z2 = (z * z) >> 62;
    let mut power = z;
    let mut sum = 0;
    let mut k = 1;
    while power != 0 {
        sum += quotient(power, k);
        power = (power * z2) >> 62;
        k += 2;
    }
    let tail = (2 * sum + (1 << 13)) >> 14;
    (if x > 0 { x } else { 0 }) + tail as i64
}

/// erf in Q62 for 0 ≤ t < 5.7 in Q62.
const fn erf_q62(t: i128) -> i128 {
    // erf t = 2/√π · e^-t² · Σ 2^k t^(2k+1)/(2k+1)!!: every term is positive, the sum below 2^47.
    let t2 = ((t >> 4) * (t >> 4)) >> 58; // Q58
    let mut term = t as u128; // Q62
    let mut sum: u128 = 0;
    let mut k = 1;
    while term != 0 {
        sum += term;
        term = (mul_hi(term, t2 as u64) << 7) / (2 * k + 1);
        k += 1;
    }
    let mut e = exp_neg_q100(t2);
    // Both factors to 62 bits, so that their product fits.
    let mut scale = 162;
    while sum >= 1 << 62 {
        sum >>= 1;
        scale -= 1;
    }
    while e >= 1 << 62 {
        e >>= 1;
        scale -= 1;
    }
    let product = sum as i128 * e;
    let q = if scale > 62 { product >> (scale - 62) } else { product << (62 - scale) };
    let r = (q * TWO_OVER_SQRT_PI_Q62) >> 62;
    if r > Q62 { Q62 } else { r }
}

/// e^-t in Q100 for t ≥ 0 in Q58.
const fn exp_neg_q100(t: i128) -> i128 {
    let k = (t << 6) / LN2_Q64 as i128;
    let r = ((t << 6) - k * LN2_Q64 as i128) as u64;
    if k > 99 { 0 } else { ((exp_neg_q63(0, r) as i128) << 37) >> k }
}

/// δ(|x|) = |x|·(1 − Φ(|x|)), by which GELU falls short of ReLU: `gelu(x) = relu(x) − gelu_gap(x)`. 0 from 8 on.
#[must_use]
pub const fn gelu_gap(x: i64) -> i64 {
    let a = x.saturating_abs();
    if a >= 8 * ONE {
        return 0;
    }
    let t = (((a as i128) << 14) * (FRAC_1_SQRT_2_Q62 >> 2)) >> 60; // Q62
    let upper = (Q62 - erf_q62(t)) >> 1;
    ((a as i128 * upper + (1 << 61)) >> 62) as i64
}

/// GELU(x) = x·Φ(x), with the Gaussian integral itself and not its tanh approximation.
#[must_use]
pub const fn gelu(x: i64) -> i64 {
    (if x > 0 { x } else { 0 }) - gelu_gap(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(x: f64) -> i64 {
        (x * ONE as f64).round() as i64
    }
    fn f(x: i64) -> f64 {
        x as f64 / ONE as f64
    }

    #[test]
    fn functions_match_f64() {
        let mut worst = [0f64; 5];
        for i in -4000..=4000 {
            let x = f64::from(i) / 400.0;
            let xq = q(x);
            let got = [exp(xq), sigmoid(xq), tanh(xq), softplus(xq), gelu(xq)].map(f);
            let want = [
                libm::exp(x),
                1.0 / (1.0 + libm::exp(-x)),
                libm::tanh(x),
                libm::log1p(libm::exp(-x.abs())) + x.max(0.0),
                x * 0.5 * libm::erfc(-x / core::f64::consts::SQRT_2),
            ];
            for (w, (g, t)) in worst.iter_mut().zip(got.iter().zip(want)) {
                *w = w.max((g - t).abs() / t.abs().max(1.0));
            }
        }
        for w in worst {
            assert!(w < 2e-13, "{worst:?}");
        }
    }

    #[test]
    fn ends_are_exact() {
        assert_eq!(exp(0), ONE);
        assert_eq!(exp(20 * ONE), i64::MAX);
        assert_eq!(exp(-100 * ONE), 0);
        assert_eq!(sigmoid(0), ONE / 2);
        assert_eq!(sigmoid(i64::MIN), 0);
        assert_eq!(tanh(i64::MAX), ONE);
        assert_eq!(tanh(0), 0);
        assert_eq!(gelu(0), 0);
        assert_eq!(gelu(100 * ONE), 100 * ONE);
    }
}
