#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::HeadKind;

const KINDS: [HeadKind; 9] = [
    HeadKind::Softmax,
    HeadKind::Power { p: 2, eps: 1e-3, mean: false },
    HeadKind::Power { p: 4, eps: 1e-3, mean: true },
    HeadKind::ReluSoftmax { eps: 1e-5 },
    HeadKind::Scaling,
    HeadKind::TwoQuad { c: 5.0, eps: 0.0 },
    HeadKind::TwoQuad { c: 0.0, eps: 1e-5 },
    HeadKind::ReluSquared,
    HeadKind::Uniform,
];

fn matrix(rows: usize, cols: usize, seed: u64) -> Matrix {
    let mut draw = crate::tasks::SplitMix64::new(seed);
    let data = (0..rows * cols).map(|_| f64::from(draw.below(4001)) / 1000.0 - 2.0).collect();
    Matrix { rows, cols, data }
}

fn close(a: &Matrix, b: &Matrix, tolerance: f64) {
    assert_eq!((a.rows, a.cols), (b.rows, b.cols));
    for (x, y) in a.data.iter().zip(&b.data) {
        assert!((x - y).abs() <= tolerance, "{x} against {y}");
    }
}

#[test]
fn weights_are_those_of_the_table() {
    // s = (−1, 2, 3) with the last key masked: N = 2.
    let weights = |kind| row_weights(kind, &[-1.0, 2.0, 3.0], &[true, true, false]);
    let e = (-3f64).exp();
    assert_eq!(weights(HeadKind::Softmax), (vec![e, 1.0, 0.0], e + 1.0));
    let power = |mean| HeadKind::Power { p: 4, eps: 0.5, mean };
    assert_eq!(weights(power(false)), (vec![1.0, 16.0, 0.0], 17.5));
    assert_eq!(weights(power(true)), (vec![0.5, 8.0, 0.0], 9.0));
    assert_eq!(weights(HeadKind::ReluSoftmax { eps: 0.5 }), (vec![0.0, 2.0, 0.0], 2.5));
    assert_eq!(weights(HeadKind::Scaling), (vec![-1.0, 2.0, 0.0], 2.0));
    assert_eq!(weights(HeadKind::TwoQuad { c: 5.0, eps: 0.5 }), (vec![16.0, 49.0, 0.0], 65.5));
    assert_eq!(weights(HeadKind::ReluSquared), (vec![0.0, 4.0, 0.0], 2.0));
    assert_eq!(weights(HeadKind::Uniform), (vec![1.0, 1.0, 0.0], 2.0));
}

#[test]
fn layer_norm_and_gelu_have_their_textbook_values() {
    let x = Matrix { rows: 1, cols: 2, data: vec![1.0, 3.0] };
    let weights = Norm { weight: vec![2.0, 1.0], bias: vec![0.5, 0.0] };
    close(
        &norm(&x, NormKind::LayerNorm, &weights, 0.0),
        &Matrix { rows: 1, cols: 2, data: vec![-1.5, 1.0] },
        1e-15,
    );
    close(
        &norm(&x, NormKind::Affine, &weights, 0.0),
        &Matrix { rows: 1, cols: 2, data: vec![2.5, 3.0] },
        0.0,
    );
    // Φ(1) = 0.841344746…
    assert!((gelu(1.0) - 0.841_344_746_068_543).abs() < 1e-15);
    assert!((gelu(-1.0) + 0.158_655_253_931_457).abs() < 1e-15);
}

#[test]
fn padding_does_not_change_the_result() {
    for position in ["pre", "post"] {
        for kind in ["softmax", "power", "relu_softmax", "scaling", "two_quad", "uniform"] {
            let head = match kind {
                "power" => json!({"kind": kind, "p": 2, "mean": true}),
                _ => json!({"kind": kind}),
            };
            let json = json!({
                "model_type": "bert", "vocab_size": 10, "max_position_embeddings": 8,
                "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 8,
                "undertone": {"version": 1, "norm_position": position, "layers": [
                    {"heads": [head, {"kind": "relu_squared"}], "activation": "quadratic"},
                    {"norm": "affine", "activation": "relu"}]}
            });
            let config = Config::parse(json.to_string().as_bytes(), None).unwrap();
            let weights = EncoderWeights::random(&config, 5);
            let run = |ids, mask| {
                let input = EncoderInput::Tokens { ids, mask };
                forward(&config, &weights, input).unwrap().result
            };
            let mask = [true, true, true, false, false];
            close(&run(&[1, 2, 3], None), &run(&[1, 2, 3, 0, 7], Some(&mask)), 1e-12);
        }
    }
}

proptest! {
    /// Attention without positions cannot tell the order of the keys.
    #[test]
    fn keys_may_be_permuted(seed: u64, n in 1usize..9, kind in 0usize..KINDS.len()) {
        let [q, k, v] = [1, 2, 3].map(|x| matrix(n, 4, seed.wrapping_add(x)));
        let reversed = |m: &Matrix| {
            let data = (0..n).rev().flat_map(|i| m.row(i).to_vec()).collect();
            Matrix { data, ..*m }
        };
        let mask = vec![true; n];
        let a = attend(KINDS[kind], &q, &k, &v, &mask);
        let b = attend(KINDS[kind], &q, &reversed(&k), &reversed(&v), &mask);
        for (x, y) in a.data.iter().zip(&b.data) {
            prop_assert!((x - y).abs() <= 1e-9 * (1.0 + x.abs()), "{} against {}", x, y);
        }
    }

    /// Power-Softmax without its constant does not change when scores are scaled.
    #[test]
    fn power_is_invariant_to_scaling(scale in 0.1f64..10.0, p in 1u32..6) {
        let kind = HeadKind::Power { p: 2 * p, eps: 0.0, mean: false };
        let scores = [0.3, -1.2, 0.7, 2.0];
        let scaled = scores.map(|s| s * scale);
        let (a, sum_a) = row_weights(kind, &scores, &[true; 4]);
        let (b, sum_b) = row_weights(kind, &scaled, &[true; 4]);
        for (x, y) in a.iter().zip(&b) {
            prop_assert!((x / sum_a - y / sum_b).abs() < 1e-12);
        }
    }

    #[test]
    fn softmax_rows_sum_to_one(scores in proptest::collection::vec(-50f64..50.0, 1..40)) {
        let (weights, sum) = row_weights(HeadKind::Softmax, &scores, &vec![true; scores.len()]);
        prop_assert!((weights.iter().map(|w| w / sum).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
