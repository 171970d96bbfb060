#![allow(clippy::unwrap_used)]
extern crate std;
use super::*;
use crate::fixed::testing::{Gauss, spread};
use proptest::prelude::*;
use std::vec::Vec;

fn words(line: Option<&str>) -> Vec<i64> {
    line.unwrap().split_whitespace().map(|w| w.parse().unwrap()).collect()
}

fn raw(x: &[i64]) -> Vec<Q10p22> {
    x.iter().map(|&v| Q10p22::from_bits(v.try_into().unwrap())).collect()
}

#[test]
fn equal_to_the_golden_vectors_bit_for_bit() {
    let mut lines = include_str!("../../tests/golden/edge_moe.txt").lines();
    let (mut rows, mut wraps, mut gelus) = (0, 0, 0);
    while let Some(head) = lines.next() {
        let head: Vec<&str> = head.split_whitespace().collect();
        match head[0] {
            "softmax" => {
                let name = head[1];
                let want: Vec<i64> = head[2..].iter().map(|w| w.parse().unwrap()).collect();
                let x = raw(&words(lines.next()));
                let p = raw(&words(lines.next()));
                assert_eq!(x.len() as i64, want[4], "{name}");
                let mut row = SinglePass::EMPTY;
                x.iter().for_each(|&v| row.push_wrapping(v).unwrap());
                let done = row.finish().unwrap();
                assert_eq!(
                    [row.sum, row.bias, done.recip].map(|v| i64::from(v.to_bits())),
                    want[1..4],
                    "{name}"
                );
                let mut got = std::vec![Q10p22::ZERO; x.len()];
                softmax_wrapping(&x, &mut got).unwrap();
                assert_eq!(got, p, "{name}");
                // Ours refuses exactly the rows whose sum wraps.
                got.fill(Q10p22::ZERO);
                let ours = softmax(&x, &mut got);
                if want[0] == 1 {
                    assert!(
                        matches!(ours, Err(KernelError::Overflow { index: 500.., .. })),
                        "{name}: {ours:?}"
                    );
                    wraps += 1;
                } else {
                    assert_eq!(ours, Ok(()), "{name}");
                    assert_eq!(got, p, "{name}");
                }
                rows += 1;
            }
            "gelu_table" => {
                let want = words(lines.next());
                assert!(want.iter().copied().eq(GELU_GAP.iter().map(|&g| i64::from(g))));
            }
            "gelu" => {
                let (x, want) = (raw(&words(lines.next())), raw(&words(lines.next())));
                for (x, want) in x.into_iter().zip(want) {
                    assert_eq!(gelu(x), want, "{x}");
                    gelus += 1;
                }
            }
            other => panic!("unknown entry {other}"),
        }
    }
    assert_eq!((rows, wraps, gelus), (15, 3, 409));
}

#[test]
fn exp_is_the_floor_of_the_true_value_everywhere() {
    // e^-x of a rational x ≠ 0 is irrational, so a floor is right as soon as the evaluation's error cannot carry it
    // across a whole unit. All 2^26 arguments below 16.
    const ERROR: u64 = 16;
    const MASK: u64 = (1 << 41) - 1;
    assert_eq!(exp_neg_floor(0), 1 << 22);
    for t in 1..1u32 << 26 {
        let below = exp_neg_wide(t) & MASK;
        assert!((ERROR..(1 << 41) - ERROR).contains(&below), "{t}");
    }
    assert_eq!(exp_neg_floor((1 << 26) - 1), 0);
    assert_eq!(exp_neg_floor(u32::MAX), 0);
    for t in (0..1u32 << 26).step_by(997) {
        let want = libm::exp(-f64::from(t) / 4_194_304.0) * libm::exp2(63.0);
        assert!((exp_neg_wide(t) as f64 - want).abs() <= want * 1e-15 + 16.0, "{t}");
    }
}

#[test]
fn error_against_f64() {
    let mut g = Gauss::new(2);
    for (sigma, n, bound) in [(3.0, 197, 4e-5), (1.0, 500, 2e-6), (1.0, 129, 2e-6)] {
        let mut worst = 0f64;
        for _ in 0..200 {
            let x: Vec<Q10p22> =
                (0..n).map(|_| Q10p22::from_bits(spread(g.next() * sigma, 22))).collect();
            let f: Vec<f64> = x.iter().map(|v| libm::exp(v.to_num::<f64>())).collect();
            let sum: f64 = f.iter().sum();
            let mut p = std::vec![Q10p22::ZERO; n];
            softmax(&x, &mut p).unwrap();
            worst = p
                .iter()
                .zip(&f)
                .map(|(p, f)| (p.to_num::<f64>() - f / sum).abs())
                .fold(worst, f64::max);
        }
        std::println!("Edge-MoE N(0,{sigma}²) n={n}: {worst:.2e}");
        assert!(worst <= bound, "{sigma} {n} {worst:e}");
    }
}

#[test]
fn refusals() {
    let q = |x: f64| Q10p22::from_num(x);
    let mut out = [Q10p22::ZERO; 2];
    assert!(matches!(softmax(&[q(300.0), q(-300.0)], &mut out), Err(KernelError::Domain { .. })));
    assert!(matches!(
        softmax_wrapping(&[q(-300.0), q(300.0)], &mut out),
        Err(KernelError::Domain { .. })
    ));
    assert!(matches!(softmax(&[q(0.0)], &mut out), Err(KernelError::Length { .. })));
    assert!(matches!(softmax(&[], &mut out[..0]), Err(KernelError::EmptyRow { .. })));
    let mut row = SinglePass::EMPTY;
    row.push(0, q(1.0)).unwrap();
    assert!(row.finish().unwrap().probability(q(1.5)).is_err());
}

fn gelu_f64(x: f64) -> f64 {
    x * 0.5 * libm::erfc(-x / core::f64::consts::SQRT_2)
}

#[test]
fn gelu_error_on_a_dense_sweep() {
    let (mut published, mut rounded) = (0f64, 0f64);
    for x in (-6 << 22..=6 << 22).step_by(37) {
        let x = Q10p22::from_bits(x);
        let want = gelu_f64(x.to_num());
        published = published.max((gelu(x).to_num::<f64>() - want).abs());
        rounded = rounded.max((gelu_rounded(x).to_num::<f64>() - want).abs());
    }
    std::println!("GELU: {published:.4e} floored, {rounded:.4e} rounded");
    assert!(rounded <= 9.76e-5, "{rounded:e}");
    // The floor adds up to 2.4e-7; a figure far lower would mean that this is not the published table.
    assert!((9.7e-5..=9.764e-5).contains(&published), "{published:e}");
    assert_eq!(gelu(Q10p22::MIN), Q10p22::ZERO);
    assert_eq!(gelu(Q10p22::MAX), Q10p22::MAX);
}

#[test]
fn gelu_on_every_16_bit_word_in_every_format() {
    for frac in 0..=15u32 {
        let unit = libm::exp2(-f64::from(frac));
        for x in i16::MIN..=i16::MAX {
            let error = (f64::from(gelu16(x, frac)) * unit - gelu_f64(f64::from(x) * unit)).abs();
            assert!(error <= 9.76e-5 + 0.5 * unit, "{x} with {frac} bits: {error:e}");
        }
    }
    assert_eq!(gelu16(77, 99), gelu16(77, 15));
}

proptest! {
    #[test]
    fn gelu_of_x_minus_gelu_of_its_negation_is_x(x in -(1i32 << 30)..1 << 30) {
        let (a, b) = (gelu(Q10p22::from_bits(x)), gelu(Q10p22::from_bits(-x)));
        prop_assert_eq!(a - b, Q10p22::from_bits(x));
    }
}
