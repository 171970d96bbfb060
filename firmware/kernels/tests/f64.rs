//! The rows that boards compute, hostile ones among them, against f64. A board's digests equal
//! this host's, so what holds here holds there.
#![allow(clippy::unwrap_used)]

use undertone_kernels::{attention, gelu, norm, softmax8, softmax16};

/// Softmax of logits whose unit is `unit` octaves.
fn softmax(x: &[f64], unit: f64) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|v| libm::exp2((v - max) * unit)).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

fn check8(name: &str, cols: usize, x: &[i8]) {
    let mut out = vec![0; x.len()];
    assert!(softmax8::kernel_softmax8(x, cols, &mut out), "{name}");
    for (x, out) in x.chunks(cols).zip(out.chunks(cols)) {
        let x: Vec<f64> = x.iter().map(|&v| v.into()).collect();
        for (p, &o) in softmax(&x, std::f64::consts::LOG2_E / 16.0).iter().zip(out) {
            let error = ((256.0 * p).min(255.0) - (f64::from(o) + 128.0)).abs();
            assert!(error <= 0.506, "{name}: {error} units of 1/256");
        }
    }
}

#[test]
fn bytes_are_within_half_a_unit() {
    check8("64", 64, &softmax8::ROW_64);
    check8("197", 197, &softmax8::ROW_197);
    let mut rows = 0;
    softmax8::hostile(&mut |name, cols, x| {
        check8(name, cols, x);
        rows += 1;
    });
    assert_eq!(rows, 7);
}

/// The core's bound: relative error 1.5e-5 of a weight, half a unit of 2^-16, and what weights
/// under 2^-25 of the maximum lose.
fn check16(name: &str, x: &[i32]) {
    let mut out = vec![0; x.len()];
    assert!(softmax16::kernel_softmax16(x, &mut out), "{name}");
    let wide: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    let mut worst = 0f64;
    for (p, &o) in softmax(&wide, libm::exp2(-f64::from(softmax16::FRAC))).iter().zip(&out) {
        worst = worst.max(((65_536.0 * p).min(65_535.0) - f64::from(o)).abs());
    }
    assert!(worst <= 2.0, "{name}: {worst} units of 2^-16");
}

#[test]
fn words_are_within_two_units() {
    check16("64", &softmax16::ROW_64);
    check16("197", &softmax16::ROW_197);
    let mut rows = 0;
    softmax16::hostile(&mut |name, x| {
        check16(name, x);
        rows += 1;
    });
    assert_eq!(rows, 6);
}

#[test]
fn gelu_is_within_a_unit_of_its_table() {
    let mut out = [0; 128];
    gelu::kernel_gelu(&gelu::ROW, &mut out);
    for (&x, &o) in gelu::ROW.iter().zip(&out) {
        let x = f64::from(x) / 4096.0;
        let want = 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
        let error = (want - f64::from(o) / 4096.0).abs();
        // Edge-MoE's table has steps of 2^-8 and stops at its end.
        assert!(error <= 0.005, "{x}: {error}");
    }
}

#[test]
fn norms_are_within_a_unit() {
    let mut extremes = [i16::MIN; 64];
    for x in extremes.iter_mut().step_by(2) {
        *x = i16::MAX;
    }
    for row in [norm::ROW, [17; 64], extremes] {
        let mut out = [0i16; 64];
        assert!(norm::kernel_norm(&row, &mut out));
        let x: Vec<f64> = row.iter().map(|&v| f64::from(v) / 1024.0).collect();
        let mean = x.iter().sum::<f64>() / 64.0;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 64.0;
        for (i, (v, &o)) in x.iter().zip(&out).enumerate() {
            let unit = (v - mean) / libm::sqrt(variance + 1e-6);
            let want = unit * f64::from(norm::GAIN[i]) + f64::from(norm::BIAS[i]);
            let error = (want.clamp(-32_768.0, 32_767.0) - f64::from(o)).abs();
            assert!(error <= 1.0, "{i}: {error}");
        }
    }
}

/// The heads, on every query.
#[test]
fn heads_are_attention() {
    fn check<const ND: usize>(qkv: &[[i16; ND]; 3], d: usize) -> f64 {
        let n = ND / d;
        let [q, k, v] = qkv;
        let (mut scratch, mut out) = (vec![0i64; d], vec![0i16; ND]);
        attention::kernel_attention([q, k, v], d, &mut scratch, &mut out).unwrap();
        let mut worst = 0f64;
        for i in 0..n {
            let dot = |j: usize| -> f64 {
                (0..d).map(|c| f64::from(q[i * d + c]) * f64::from(k[j * d + c])).sum()
            };
            let scores: Vec<f64> = (0..n).map(dot).collect();
            let p = softmax(&scores, std::f64::consts::LOG2_E / f64::from(1 << 22));
            for c in 0..d {
                let want: f64 = (0..n).map(|j| p[j] * f64::from(v[j * d + c])).sum();
                worst = worst.max((want - f64::from(out[i * d + c])).abs());
            }
        }
        worst
    }
    // Units of a value; scores are rounded to 2^-10 octaves, 0.034 % of a weight each.
    let (small, large) = (check(&attention::SMALL, 16), check(&attention::LARGE, 64));
    assert!(small <= 8.0 && large <= 8.0, "{small} {large}");
}
