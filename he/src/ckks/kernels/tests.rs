//! All backends against each other, and the portable one against plain 128-bit arithmetic.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand::RngCore;

use super::super::arith::{Modulus, Shoup};
use super::super::sample::{stream, uniform};
use super::*;

const N: usize = 64;
const P: u64 = (1 << 50) - 27;
const Q: u64 = (1 << 38) + 7;

fn rows(seed: u64, p: u64, count: usize) -> Vec<Vec<u64>> {
    let mut rng = stream(&[3; 32], seed);
    (0..count)
        .map(|_| {
            let mut row = vec![0; N];
            uniform(&mut rng, p, &mut row);
            // The ends of the range too.
            row[0] = 0;
            row[1] = p - 1;
            row
        })
        .collect()
}

fn refs(rows: &[Vec<u64>]) -> Vec<&[u64]> {
    rows.iter().map(Vec::as_slice).collect()
}

/// Runs on every backend and demands equal words.
fn same(run: impl Fn(Backend) -> Vec<Vec<u64>>) -> Vec<Vec<u64>> {
    let expected = run(Backend::portable());
    for backend in Backend::available() {
        assert_eq!(run(backend), expected, "{} differs from portable", backend.name());
    }
    expected
}

fn unmontgomery(m: &Modulus, x: u64) -> u64 {
    m.mul(x % m.p, m.inv(m.one))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn products_by_constants(seed in any::<u64>(), w in 0..P) {
        for p in [P, Q] {
            let m = Modulus::new(p);
            let by = m.shoup(w);
            let src = rows(seed, 1 << 52, 1);
            let out = same(|b| {
                let mut dst = vec![0; N];
                b.run(MulShoup { dst: &mut dst, src: &src[0], by, m: &m });
                vec![dst]
            });
            for (x, y) in src[0].iter().zip(&out[0]) {
                prop_assert_eq!(*y, m.mul(*x % p, by.w));
            }
        }
    }

    #[test]
    fn base_conversion_rows(seed in any::<u64>(), terms in 1usize..=16) {
        let m = Modulus::new(P);
        let ys = rows(seed, 1 << 50, terms);
        let by = vec![m.shoup(rows(seed ^ 5, P, 1)[0][0]); terms];
        let cs: Vec<u64> = rows(seed ^ 1, P, 1)[0][..terms].to_vec();
        let reciprocal = {
            let bits = 50;
            (bits - 32, ((1u128 << (bits + 31)) / P as u128) as u64)
        };
        let out = same(|b| {
            let (mut dst, mut v) = (vec![0; N], vec![0; N]);
            b.run(Convert { dst: &mut dst, ys: &refs(&ys), cs: &cs, m: &m });
            let reciprocals = vec![reciprocal; terms];
            let mut scaled = ys.clone();
            b.run(Sources {
                v: &mut v,
                ys: &mut scaled.iter_mut().map(|y| &mut y[..]).collect::<Vec<_>>(),
                by: &by,
                reciprocals: &reciprocals,
                moduli: &vec![&m; terms],
            });
            scaled.extend([dst, v]);
            scaled
        });
        let (scaled, out) = out.split_at(terms);
        for i in 0..N {
            let sum = (0..terms).fold(0, |s, k| (s + m.mul(ys[k][i] % P, cs[k])) % P);
            prop_assert!(out[0][i] < 4 * P);
            prop_assert_eq!(out[0][i] % P, unmontgomery(&m, sum));
            for (y, scaled) in ys.iter().zip(scaled) {
                prop_assert_eq!(scaled[i], m.mul(y[i] % P, by[0].w));
            }
            let v: f64 = scaled.iter().map(|y| y[i] as f64 / P as f64).sum();
            prop_assert!((out[1][i] as f64 - v).abs() <= 0.5 + 1e-6);
        }
    }

    #[test]
    fn inner_products(seed in any::<u64>(), digits in 0usize..=8) {
        let m = Modulus::new(P);
        let (d, k0, k1) =
            (rows(seed, P, digits), rows(seed ^ 2, P, digits), rows(seed ^ 3, P, digits));
        let extra = rows(seed ^ 4, P, 1);
        let c = P - 5;
        let out = same(|b| {
            let (mut o0, mut o1) = (vec![0; N], vec![0; N]);
            b.run(InnerPair {
                out: [&mut o0, &mut o1],
                digits: &refs(&d),
                keys: [&refs(&k0), &refs(&k1)],
                extra: [Some((&extra[0], c)), None],
                m: &m,
            });
            vec![o0, o1]
        });
        for i in 0..N {
            let dot = |k: &[Vec<u64>]| {
                (0..digits).fold(0, |s, j| (s + m.mul(d[j][i], k[j][i])) % P)
            };
            let with_extra = (dot(&k0) + m.mul(extra[0][i], c)) % P;
            prop_assert_eq!(out[0][i], unmontgomery(&m, with_extra));
            prop_assert_eq!(out[1][i], unmontgomery(&m, dot(&k1)));
        }
    }

    #[test]
    fn tensors_and_the_rest(seed in any::<u64>()) {
        for p in [P, Q] {
            let m = Modulus::new(p);
            let x = rows(seed, p, 4);
            let by: Shoup = m.shoup(x[0][2]);
            let permutation = Permutation {
                blocks: (0..N as u32 / 8).map(|b| ((b * 5 + 3) % 8) << 3 | (b % 2)).collect(),
                patterns: std::array::from_fn(|k| {
                    std::array::from_fn(|r| ((r * 3 + k) % 8) as u64)
                }),
            };
            let out = same(|b| {
                let mut t = vec![vec![0; N]; 3];
                let [t0, t1, t2] = &mut t[..] else { unreachable!() };
                let (left, right) = ([&x[0][..], &x[1]], [&x[2][..], &x[3]]);
                b.run(TensorPair { out: [t0, t1], a: left, b: right, m: &m });
                b.run(Product { dst: t2, a: left[1], b: right[1], m: &m });
                let mut rest = vec![x[0].clone(); 7];
                b.run(Add { dst: &mut rest[0], b: &x[1], m: &m });
                b.run(Sub { dst: &mut rest[1], b: &x[1], m: &m });
                b.run(Negate { dst: &mut rest[2], m: &m });
                b.run(MulMontgomery { dst: &mut rest[3], a: &x[0], b: &x[1], m: &m });
                b.run(AddMulMontgomery { dst: &mut rest[4], a: &x[1], b: &x[2], m: &m });
                b.run(ModDown { dst: &mut rest[5], acc: &x[1], part: &x[2], by, m: &m });
                b.run(PermuteAdd {
                    dst: &mut rest[6], src: &x[1], by: &permutation, add: true, m: &m,
                });
                t.extend(rest);
                t
            });
            for i in 0..N {
                let [a0, a1, b0, b1] = [x[0][i], x[1][i], x[2][i], x[3][i]];
                prop_assert_eq!(out[0][i], m.mul(a0, b0));
                prop_assert_eq!(out[1][i], (m.mul(a0, b1) + m.mul(a1, b0)) % p);
                prop_assert_eq!(out[2][i], m.mul(a1, b1));
                prop_assert_eq!(out[3][i], (a0 + a1) % p);
                prop_assert_eq!(out[4][i], (a0 + p - a1) % p);
                prop_assert_eq!(out[5][i], (p - a0) % p);
                prop_assert_eq!(out[6][i], unmontgomery(&m, m.mul(a0, a1)));
                prop_assert_eq!(out[7][i], (a0 + unmontgomery(&m, m.mul(a1, b0))) % p);
                prop_assert_eq!(out[8][i], m.mul((a1 + p - b0) % p, by.w));
                let from = permutation.blocks[i / 8];
                let k = permutation.patterns[(from & 7) as usize][i % 8] as usize;
                let src = x[1][(from >> 3) as usize * 8 + k];
                prop_assert_eq!(out[9][i], (a0 + src) % p);
            }
        }
    }
}

#[test]
fn the_test_moduli_are_prime() {
    assert!(super::super::arith::is_prime(P) && super::super::arith::is_prime(Q));
}

#[test]
fn every_processor_has_a_backend() {
    assert!(Backend::available().iter().any(|b| b.name() == "portable"));
    assert_eq!(Backend::detect().name(), Backend::available()[0].name());
    assert!(stream(&[0; 32], 0).next_u64() != 0);
}
