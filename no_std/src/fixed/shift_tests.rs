#![allow(clippy::unwrap_used)]
extern crate std;
use super::*;
use crate::fixed::testing::{Gauss, softmax_octaves, spread};
use proptest::prelude::*;
use std::vec::Vec;

const F: u32 = 10;

/// Largest |p − p̂| of one row against the f64 softmax of the same quantized logits, and |Σp̂ − 1|.
fn row_error(x: &[i32]) -> (f64, f64) {
    let want = softmax_octaves(x, F);
    let mut got = std::vec![0u32; x.len()];
    softmax::<F, u32>(x, 16, &mut got).unwrap();
    let p: Vec<f64> = got.iter().map(|&g| f64::from(g) / 65_536.0).collect();
    let e = p.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    (e, (p.iter().sum::<f64>() - 1.0).abs())
}

#[test]
fn every_distance_within_the_chord_error() {
    for d in 0..=65_535u32 {
        let want = libm::exp2(-f64::from(d) / 1024.0);
        let got = f64::from(pow2_neg::<F>(d)) / 16_777_216.0;
        let bound = want * 1.5e-5 + libm::exp2(-24.0);
        assert!((got - want).abs() <= bound, "{d}: {got} {want}");
        let finer = f64::from(pow2_neg::<11>(d)) / 16_777_216.0;
        let want = libm::exp2(-f64::from(d) / 2048.0);
        assert!((finer - want).abs() <= want * 1.5e-5 + libm::exp2(-24.0));
    }
}

#[test]
fn core_error_on_the_published_distributions() {
    let mut g = Gauss::new(7);
    for (sigma, n, rows) in [
        (1.0, 197, 1000),
        (3.0, 197, 2000),
        (1.0, 1024, 300),
        (3.0, 1024, 300),
        (6.0, 197, 500),
        (1.0, 49, 2000),
        (3.0, 4096, 40),
    ] {
        let mut worst = 0f64;
        for _ in 0..rows {
            let x: Vec<i32> =
                (0..n).map(|_| spread(g.next() * sigma * core::f64::consts::LOG2_E, F)).collect();
            worst = worst.max(row_error(&x).0);
        }
        std::println!("N(0,{sigma}²) n={n}: {worst:.2e}");
        assert!(worst <= 1.5e-5, "N(0,{sigma}²), n={n}: {worst:e}");
    }
}

#[test]
fn hostile_rows() {
    for n in [1usize, 2, 49, 4096] {
        for v in [i32::MIN, -1, 0, 1, 512, i32::MAX] {
            let (e, _) = row_error(&std::vec![v; n]);
            assert!(e <= 1.5e-5, "all {v}, n={n}: {e:e}");
        }
    }
    // One peak, all else far below: nothing is left of the others.
    let mut x = std::vec![i32::MIN; 4096];
    x[17] = i32::MAX;
    assert!(row_error(&x).0 <= 1.5e-5);
    // One peak, all else just below the least weight: the documented loss, and no more.
    let mut x = std::vec![-(25 * 1024 + 1); 4096];
    x[17] = 0;
    let (e, _) = row_error(&x);
    assert!(e <= 1.5e-5 + 4096.0 * libm::exp2(-25.0), "{e:e}");
    assert_eq!(
        softmax::<F, u16>(&[], 16, &mut []),
        Err(KernelError::EmptyRow { kernel: "shift::softmax", row: 0 })
    );
    assert!(matches!(softmax::<F, u16>(&[1], 16, &mut []), Err(KernelError::Length { .. })));
    let mut one = [0u16];
    assert_eq!(softmax::<F, u16>(&[5], 16, &mut one), Ok(1));
    assert_eq!(one, [65_535]);
}

/// The fast forms are their definitions, at the ends of the logits' range too.
fn forms_agree<const F: u32>(x: &[i32], frac: u32) -> Result<(), TestCaseError> {
    let mut pushed = RowSum::<F>::EMPTY;
    x.iter().for_each(|&x| pushed.push(x));
    let mut row = RowSum::<F>::EMPTY;
    row.extend(x);
    prop_assert_eq!(row, pushed);
    let normaliser = row.normaliser().unwrap();
    let want: Vec<u32> = x.iter().map(|&x| normaliser.probability(x, frac)).collect();
    let mut got = std::vec![0u32; x.len()];
    softmax::<F, u32>(x, frac, &mut got).unwrap();
    prop_assert_eq!(got, want);
    Ok(())
}

proptest! {
    #[test]
    fn fast_forms_agree(x in proptest::collection::vec(any::<i32>(), 1..60), near in any::<i32>(), frac in 0u32..25) {
        // As drawn; within 32 octaves of each other, anywhere; and at the upper end.
        let close = |top: i32| x.iter().map(|v| top.saturating_sub((v >> 16) & 0x7FFF)).collect::<Vec<_>>();
        for x in [x.clone(), close(near), close(i32::MAX), close(i32::MAX - 1024)] {
            forms_agree::<10>(&x, frac)?;
            forms_agree::<6>(&x, frac)?;
            forms_agree::<11>(&x, frac)?;
        }
    }

    #[test]
    fn rows_sum_to_one(x in proptest::collection::vec(-20_000i32..20_000, 1..300)) {
        let (e, mass) = row_error(&x);
        prop_assert!(e <= 1.5e-5, "{e:e}");
        prop_assert!(mass <= x.len() as f64 * 0.5 / 65_536.0 + 1e-5);
    }

    #[test]
    fn whole_octaves_cancel(x in proptest::collection::vec(-20_000i32..20_000, 1..100), k in -1000i32..1000) {
        let moved: Vec<i32> = x.iter().map(|v| v + (k << F)).collect();
        let (mut a, mut b) = (std::vec![0u32; x.len()], std::vec![0u32; x.len()]);
        softmax::<F, u32>(&x, 16, &mut a).unwrap();
        softmax::<F, u32>(&moved, 16, &mut b).unwrap();
        prop_assert_eq!(a, b);
    }

    #[test]
    fn merge_is_the_whole_row(x in proptest::collection::vec(any::<i32>(), 2..200), cut in 1usize..199) {
        let cut = cut % x.len();
        let fold = |v: &[i32]| v.iter().fold(RowSum::<F>::EMPTY, |mut r, &x| { r.push(x); r });
        let (whole, a, b) = (fold(&x), fold(&x[..cut]), fold(&x[cut..]));
        let (ab, ba) = (a.merge(b), b.merge(a));
        prop_assert_eq!(ab, ba);
        prop_assert_eq!(whole.max, ab.max);
        prop_assert!(whole.sum.abs_diff(ab.sum) <= 2, "{} {}", whole.sum, ab.sum);
    }

    #[test]
    fn merge_associates(a: [i32; 5], b: [i32; 5], c: [i32; 5]) {
        let [a, b, c] = [a, b, c].map(|v| v.iter().fold(RowSum::<F>::EMPTY, |mut r, &x| { r.push(x); r }));
        let (l, r) = (a.merge(b).merge(c), a.merge(b.merge(c)));
        prop_assert_eq!(l.max, r.max);
        prop_assert!(l.sum.abs_diff(r.sum) <= 1);
    }

    #[test]
    fn empty_is_neutral(a: [i32; 5]) {
        let a = a.iter().fold(RowSum::<F>::EMPTY, |mut r, &x| { r.push(x); r });
        prop_assert_eq!(a.merge(RowSum::EMPTY), a);
        prop_assert_eq!(RowSum::EMPTY.merge(a), a);
    }
}
