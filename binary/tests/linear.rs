//! Binary linear layers: every level against the portable form (same bits) and f64.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use undertone_binary::reference::bivit::binarize_weights;
use undertone_binary::{BinaryLinear, BitFault, Level, Signs};

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

fn compare(n: usize, inputs: usize, channels: usize, seed: u64, biased: bool) {
    let weights = numbers(channels * inputs, seed);
    let bias = biased.then(|| numbers(channels, seed + 1));
    let layer = BinaryLinear::binarize(&weights, inputs, bias.clone()).unwrap();
    let x = numbers(n * inputs, seed + 2);
    let signs = Signs::pack(&x, inputs).unwrap();
    let wide: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
    let (w, s) = binarize_weights(&wide, inputs);
    let oracle = |x: &[f32]| -> Vec<f64> {
        let mut out = Vec::new();
        for row in x.chunks_exact(inputs) {
            for c in 0..channels {
                let dot: f64 =
                    row.iter().zip(&w[c * inputs..]).map(|(x, w)| f64::from(*x) * w).sum();
                out.push(dot * s[c] + bias.as_ref().map_or(0.0, |b| f64::from(b[c])));
            }
        }
        out
    };
    let close = |got: &[f32], expected: &[f64]| {
        for (a, b) in got.iter().zip(expected) {
            assert!((f64::from(*a) - b).abs() < 1e-4, "{a} {b} {n} {inputs} {channels}");
        }
    };
    let mut portable = [vec![0.0; n * channels], vec![0.0; n * channels]];
    layer.floats(Level::Portable, &x, &mut portable[0]).unwrap();
    layer.bits(Level::Portable, &signs, &mut portable[1]).unwrap();
    close(&portable[0], &oracle(&x));
    close(&portable[1], &oracle(&signs.unpack()));
    for level in Level::available() {
        let mut out = vec![0.0; n * channels];
        layer.floats(level, &x, &mut out).unwrap();
        assert_eq!(out, portable[0], "{level:?} floats {n} {inputs} {channels}");
        layer.bits(level, &signs, &mut out).unwrap();
        assert_eq!(out, portable[1], "{level:?} bits {n} {inputs} {channels}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn levels_and_reference_agree(n in 1usize..6, inputs in 1usize..200, channels in 1usize..150, seed: u64, biased: bool) {
        compare(n, inputs, channels, seed % 1000, biased);
    }
}

#[test]
fn large_layers_agree() {
    compare(49, 768, 300, 1, true);
    compare(3, 3072, 64, 2, false);
}

#[test]
fn layers_refuse_what_does_not_fit() {
    let layer = BinaryLinear::binarize(&[1.0, -2.0, 0.5, 0.0, 1.0, 3.0], 3, None).unwrap();
    assert_eq!(layer.scale(), [3.5 / 3.0, 4.0 / 3.0]);
    assert!(matches!(
        layer.floats(Level::best(), &[1.0; 4], &mut [0.0; 2]),
        Err(BitFault::Size { .. })
    ));
    let nan = layer.floats(Level::best(), &[1.0, f32::NAN, 0.0], &mut [0.0; 2]);
    assert!(matches!(nan, Err(BitFault::NotFinite { index: 1, .. })));
    let narrow = Signs::pack(&[1.0; 4], 4).unwrap();
    assert!(matches!(
        layer.bits(Level::best(), &narrow, &mut [0.0; 2]),
        Err(BitFault::Size { .. })
    ));
    assert!(BinaryLinear::binarize(&[f32::NAN], 1, None).is_err());
    assert!(BinaryLinear::binarize(&[1.0; 3], 2, None).is_err());
    assert!(BinaryLinear::new(narrow, vec![1.0; 2], None).is_err());
}
