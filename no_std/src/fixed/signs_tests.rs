#![allow(clippy::unwrap_used)]
extern crate std;

use super::*;
use crate::binary::{bivit, margin};
use crate::fixed::Bias;
use crate::fixed::testing::{Gauss, finished};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn words_of(signs: &[bool], cols: usize) -> Vec<u32> {
    let mut out = Vec::new();
    for row in signs.chunks(cols) {
        out.extend(row.chunks(32).map(|c| c.iter().rev().fold(0, |w, &s| w << 1 | u32::from(s))));
    }
    out
}

proptest! {
    /// Both products are the definition's, exact in i128 and rounded once.
    #[test]
    fn products_equal_the_definition(m in 1usize..4, k in 1usize..150, n in 1usize..140, seed: u64, extreme: bool, shift in -2i32..20) {
        let mut g = Gauss::new(seed);
        let mut halves = |len: usize| -> Vec<i16> {
            (0..len).map(|_| if extreme { i16::MIN } else { g.bits() as i16 }).collect()
        };
        let (x, scale, bias) = (halves(m * k), halves(n), halves(n));
        let signs: Vec<bool> = (0..n * k).map(|_| g.bits() & 1 == 1).collect();
        let words = words_of(&signs, k);
        let finish =
            Scaled { scale: &scale, bias: Some((Bias { data: &bias, frac: 2 }, 9)), shift };
        let dims = Dims { m, k, n };
        for of_signs in [false, true] {
            let (mut out, mut packed) = (vec![0; m * n], vec![0; words_for::<u32>(k)]);
            let saturated = if of_signs {
                super::of_signs(dims, &x, &words, finish, &mut packed, &mut out).unwrap()
            } else {
                matmul(dims, &x, &words, finish, &mut out).unwrap()
            };
            let mut clamped = 0;
            for i in 0..m {
                for j in 0..n {
                    let sum: i128 = (0..k).map(|c| {
                        let value = i128::from(x[i * k + c]);
                        let value = if of_signs { if value >= 0 { 1 } else { -1 } } else { value };
                        if signs[j * k + c] { value } else { -value }
                    }).sum();
                    let wide = sum * i128::from(scale[j]) + (i128::from(bias[j]) << 7);
                    let (want, near) = finished(wide, shift);
                    clamped += u64::from(near != want);
                    prop_assert_eq!(i128::from(out[i * n + j]), near);
                }
            }
            prop_assert_eq!(saturated, clamped);
        }
    }

    /// Attention is the portable bit form's, which is tested against the paper's definition.
    #[test]
    fn attention_equals_the_bit_form(rows in 1usize..6, n in 1usize..80, d in 1usize..40, dv in 1usize..20, seed: u64, mean: bool, equal: bool) {
        let mut g = Gauss::new(seed);
        let mut draw = |len: usize| -> Vec<i16> {
            (0..len).map(|_| if equal { 0 } else { g.bits() as i16 }).collect()
        };
        let (q, k, v) = (draw(rows * d), draw(n * d), draw(n * dv));
        let signs = |x: &[i16]| x.iter().map(|&x| x >= 0).collect::<Vec<_>>();
        let (qw, kw) = (words_of(&signs(&q), d), words_of(&signs(&k), d));
        let transposed: Vec<bool> = (0..n * dv).map(|i| v[i % n * dv + i / n] >= 0).collect();
        let vw = words_of(&transposed, n);
        let (mut sums, mut distances, mut mask) =
            (vec![0i32; rows * dv], vec![0u8; n], vec![0u32; words_for::<u32>(n)]);
        let keys = BitRows::new(&kw, n, d).unwrap();
        let scratch = bivit::Scratch { distances: &mut distances, mask: &mut mask };
        bivit::attend(
            BitRows::new(&qw, rows, d).unwrap(), keys, BitRows::new(&vw, dv, n).unwrap(), margin(d),
            scratch, &mut sums,
        ).unwrap();
        let frac = if mean { 14 } else { 7 };
        let stride = dv + 3;
        let mut out = vec![i16::MAX; (rows - 1) * stride + dv];
        let mut words = vec![!0; attention_words(n, d, dv)];
        let view = |x, rows, cols| Rows::new(x, rows, cols, cols).unwrap();
        let heads = || (view(&q, rows, d), view(&k, n, d), view(&v, n, dv));
        let saturated =
            attend(heads(), margin(d), mean, frac, &mut words, (&mut out, stride)).unwrap();
        prop_assert_eq!(saturated, 0);
        for i in 0..rows {
            let chosen = bivit::attended(&qw[i * words_for::<u32>(d)..][..words_for::<u32>(d)], keys, margin(d), &mut distances, &mut mask).unwrap();
            let count = if mean { i64::from(chosen) } else { 1 };
            for c in 0..dv {
                // Half up: ⌊sum/count + 1/2⌋.
                let sum = i64::from(sums[i * dv + c]) << frac;
                prop_assert_eq!(i64::from(out[i * stride + c]), (2 * sum + count).div_euclid(2 * count));
            }
        }
        let short = &mut words[1..];
        let needed = attention_words(n, d, dv);
        prop_assert_eq!(
            attend(heads(), margin(d), mean, frac, short, (&mut out, stride)),
            Err(Fault::Memory { needed, available: needed - 1 })
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let finish = Scaled { scale: &[1; 2], bias: None, shift: 0 };
    let (dims, mut out) = (Dims { m: 1, k: 33, n: 2 }, [0i16; 2]);
    let x = [1i16; 33];
    assert_eq!(matmul(dims, &x, &[!0, 1, 0, 0], finish, &mut out), Ok(0));
    assert_eq!(out, [33, -33]);
    assert!(matmul(dims, &x, &[0; 3], finish, &mut out).is_err());
    assert!(matmul(dims, &x[1..], &[0; 4], finish, &mut out).is_err());
    assert!(of_signs(dims, &x, &[0; 4], finish, &mut [0; 1], &mut out).is_err());
    let none = Dims { m: 1, k: 0, n: 2 };
    assert!(matmul(none, &[], &[], finish, &mut out).is_err());
    let long = vec![0i16; MOST_COLS + 1];
    let words = vec![0; 2 * words_for::<u32>(long.len())];
    let dims = Dims { m: 1, k: long.len(), n: 2 };
    assert!(matmul(dims, &long, &words, finish, &mut out).is_err());
    let wide = vec![0i16; 256];
    let head = || Rows::new(&wide, 1, 256, 256).unwrap();
    let mut words = vec![0; attention_words(1, 256, 256)];
    let (mut out, heads) = (vec![0; 256], (head(), head(), head()));
    assert!(attend(heads, 1, true, 14, &mut words, (&mut out, 256)).is_err());
}
