//! Bad input has a defined result or a named error.
#![allow(clippy::unwrap_used, missing_docs)]

use undertone_binary::ecoformer::{self, Hash, Sigma, Variant};
use undertone_binary::{BitFault, Level, Signs, bivit};
use undertone_core::binary as core;

fn small_hash(sigma: Sigma) -> Hash {
    Hash::new(
        4,
        vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        vec![1.0, -1.0, 1.0, 1.0],
        vec![0.5; 2],
        sigma,
    )
    .unwrap()
}

#[test]
fn nan_and_infinity_are_named_with_their_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1.0; 64];
        x[37] = bad;
        let fault = Signs::pack(&x, 16).unwrap_err();
        assert_eq!(fault, BitFault::NotFinite { operation: "pack signs", index: 37 });
        assert!(fault.to_string().contains("value 37 is not finite"));
        let at = |level| small_hash(Sigma::Dynamic).codes_at(level, &x, &mut [0; 16]).unwrap_err();
        for level in Level::available() {
            assert_eq!(at(level), BitFault::NotFinite { operation: "token norm", index: 36 });
            let mut out = [0.0; 64];
            let codes = [0; 4];
            let fault =
                ecoformer::attend_at(level, &codes, &codes, 4, &x, Variant::Exact, &mut out)
                    .unwrap_err();
            assert_eq!(fault, BitFault::NotFinite { operation: "hashed attention", index: 37 });
        }
    }
    let overflow = vec![f32::MAX; 8];
    assert!(matches!(
        ecoformer::attend(&[0, 0], &[0, 0], 4, &overflow, Variant::Exact, &mut [0.0; 8]),
        Err(BitFault::NotFinite { operation: "sums of hashed attention", .. })
    ));
    let nan = Hash::new(4, vec![f32::NAN; 4], vec![1.0], vec![0.0], Sigma::Dynamic);
    assert!(matches!(nan, Err(BitFault::NotFinite { .. })));
    for sigma in [0.0, -1.0, f32::NAN] {
        assert!(Hash::new(4, vec![1.0; 4], vec![1.0], vec![0.0], Sigma::Frozen(sigma)).is_err());
    }
}

#[test]
fn zero_vectors_hash_as_the_zero_vector() {
    for level in Level::available() {
        let mut codes = [0; 3];
        let x = [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, -0.0, 0.0, -0.0, 0.0];
        small_hash(Sigma::Frozen(1.0)).codes_at(level, &x, &mut codes).unwrap();
        assert_eq!(codes[0], codes[2], "{level:?}");
        // Distances 1 and 1: κ = e^-1/2 both, so A κ = (0, 2·0.6065) against (0, 1).
        assert_eq!(codes[0], 0b11, "{level:?}");
        let all_zero = small_hash(Sigma::Dynamic).codes_at(level, &[0.0; 12], &mut codes);
        assert!(all_zero.is_ok());
    }
    let zeros = Signs::pack(&[0.0, -0.0], 2).unwrap();
    assert_eq!(zeros.unpack(), [1.0, 1.0], "sign(0) = +1");
}

#[test]
fn tiny_tokens_keep_their_direction_and_subnormal_ones_are_zero() {
    let hash = small_hash(Sigma::Frozen(1.0));
    let unit = hash.codes(&[1.0, 0.0, 0.0, 0.0]).unwrap();
    assert_eq!(hash.codes(&[1e-15, 0.0, 0.0, 0.0]).unwrap(), unit);
    assert_eq!(hash.codes(&[1e15, 0.0, 0.0, 0.0]).unwrap(), unit);
    assert_eq!(hash.codes(&[1e-30, 0.0, 0.0, 0.0]).unwrap(), hash.codes(&[0.0; 4]).unwrap());
}

#[test]
fn one_token_attends_to_itself() {
    let x = Signs::pack(&[1.0, -1.0, 1.0], 3).unwrap();
    let mut out = [0; 3];
    bivit::attend(&x, &x, &x, bivit::margin(3), &mut out).unwrap();
    assert_eq!(out, [1, -1, 1]);
    let mut y = [0.0; 2];
    ecoformer::attend(&[5], &[5], 4, &[2.0, -3.0], Variant::Exact, &mut y).unwrap();
    assert_eq!(y, [2.0, -3.0]);
    // A token that is the only anchor: every distance is zero, σ would be too.
    let own = Hash::new(4, vec![1.0, 0.0, 0.0, 0.0], vec![1.0], vec![0.5], Sigma::Dynamic).unwrap();
    for level in Level::available() {
        let mut code = [0];
        own.codes_at(level, &[3.0, 0.0, 0.0, 0.0], &mut code).unwrap();
        assert_eq!(code, [1], "κ = 1 ≥ μ");
    }
}

#[test]
fn equal_rows_give_the_mean() {
    let (n, d) = (70, 24);
    let x = Signs::pack(&vec![1.0; n * d], d).unwrap();
    for level in Level::available() {
        let mut out = vec![0; n * d];
        bivit::attend_at(level, &x, &x, &x, bivit::margin(d), &mut out).unwrap();
        assert!(out.iter().all(|&o| o == n as i32), "all keys attended");
        let codes = vec![9u16; n];
        let v: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let mut y = vec![0.0; n];
        ecoformer::attend_at(level, &codes, &codes, 4, &v, Variant::Exact, &mut y).unwrap();
        assert!(y.iter().all(|y| (y - 34.5).abs() < 1e-4));
        let same = small_hash(Sigma::Dynamic).codes(&[0.3; 400]).unwrap();
        assert!(same.iter().all(|&c| c == same[0]));
    }
}

#[test]
fn widths_that_are_no_multiple_of_a_word_keep_clean_tails() {
    for dim in [1, 7, 63, 65, 100, 127] {
        let s = Signs::pack(&vec![1.0; 3 * dim], dim).unwrap();
        let words = s.words().to_vec();
        assert_eq!(Signs::from_words(words.clone(), 3, dim).unwrap(), s);
        if !dim.is_multiple_of(64) {
            let mut dirty = words;
            *dirty.last_mut().unwrap() |= 1 << 63;
            let fault = Signs::from_words(dirty, 3, dim).unwrap_err();
            assert_eq!(fault, BitFault::Tail { operation: "bit rows", row: 2, dim });
        }
    }
    let mut words = [0u32; 2];
    assert!(matches!(core::pack_signs(&[1.0; 5], 3, &mut words), Err(BitFault::Size { .. })));
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let a = Signs::pack(&[1.0; 8], 4).unwrap();
    let b = Signs::pack(&[1.0; 6], 3).unwrap();
    let fault = bivit::attend(&a, &b, &b, 1, &mut [0; 6]).unwrap_err();
    assert!(matches!(
        fault,
        BitFault::Size { what: "the columns of the keys", expected: 4, got: 3, .. }
    ));
    let none = Signs::pack(&[], 4).unwrap();
    assert!(matches!(bivit::attend(&a, &none, &none, 1, &mut [0; 8]), Err(BitFault::Empty { .. })));
    assert!(matches!(Signs::pack(&[1.0], 0), Err(BitFault::Empty { .. })));
    let wide = Signs::pack(&[1.0; 300], 300).unwrap();
    let fault = bivit::attend(&wide, &wide, &wide, 1, &mut [0; 300]).unwrap_err();
    assert!(matches!(fault, BitFault::Limit { most: 255, got: 300, .. }));
    let mut y = [0.0; 2];
    let over = ecoformer::attend(&[16], &[16], 4, &[1.0, 2.0], Variant::Exact, &mut y).unwrap_err();
    assert_eq!(over, BitFault::Tail { operation: "hashed attention", row: 0, dim: 4 });
    assert!(ecoformer::attend(&[1], &[], 4, &[], Variant::Exact, &mut []).is_err());
    assert!(ecoformer::attend(&[1], &[1], 17, &[1.0], Variant::Exact, &mut [0.0]).is_err());
    assert!(ecoformer::attend(&[1, 2], &[1], 4, &[1.0], Variant::Repo, &mut [0.0; 2]).is_err());
    assert!(small_hash(Sigma::Dynamic).codes_at(Level::best(), &[1.0; 5], &mut [0]).is_err());
}
