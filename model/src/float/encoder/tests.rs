#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::reference;

fn config(value: &Value) -> Config {
    Config::parse(value.to_string().as_bytes(), None).unwrap()
}

fn heads() -> Value {
    json!([
        {"kind": "softmax"}, {"kind": "power", "p": 2}, {"kind": "power", "p": 4, "mean": true},
        {"kind": "relu_softmax"}, {"kind": "scaling"}, {"kind": "two_quad", "c": 5.0},
        {"kind": "relu_squared"}, {"kind": "uniform"}
    ])
}

fn vit(block: Value) -> Value {
    let mut value = json!({
        "model_type": "vit", "image_size": 12, "patch_size": 3, "num_channels": 3,
        "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 8,
        "intermediate_size": 40, "layer_norm_eps": 1e-6, "id2label": {"0": "a", "1": "b"},
        "undertone": {"version": 1, "layers": [
            {"heads": heads(), "activation": "gelu"},
            {"heads": heads(), "activation": "quadratic", "norm": "affine"},
            {"activation": "relu"}
        ]}
    });
    value["undertone"].as_object_mut().unwrap().extend(block.as_object().unwrap().clone());
    value
}

/// The fast pass against the f64 reference, relative to the size of the results.
fn agrees(config: &Config, inputs: &[EncoderInput<'_>], tolerance: f64) {
    let weights = EncoderWeights::random(config, 11);
    let batch = FastEncoder::new(config, &weights).forward(inputs).unwrap();
    for (index, &input) in inputs.iter().enumerate() {
        let exact = reference::forward(config, &weights, input).unwrap().result;
        assert_eq!((batch.rows, batch.cols), (exact.rows, exact.cols));
        let size = exact.data.iter().fold(1f64, |a, x| a.max(x.abs()));
        for (found, wanted) in batch.example(index).iter().zip(&exact.data) {
            let error = (f64::from(*found) - wanted).abs() / size;
            assert!(error <= tolerance, "example {index}: {found} against {wanted}");
        }
    }
}

#[test]
fn images_agree_with_the_reference() {
    let images: Vec<Vec<f32>> = (0..5)
        .map(|i| (0..432).map(|j| ((i * 131 + j * 29) % 101) as f32 / 50.0 - 1.0).collect())
        .collect();
    let inputs: Vec<_> = images.iter().map(|image| EncoderInput::Image(image)).collect();
    for block in [
        json!({}),
        json!({"class_token": false}),
        json!({"pooling": "none"}),
        json!({"norm_position": "post", "pooling": "mean"}),
    ] {
        agrees(&config(&vit(block)), &inputs, 2e-5);
    }
    let mut bare = vit(json!({}));
    bare["qkv_bias"] = json!(false);
    bare.as_object_mut().unwrap().remove("id2label");
    agrees(&config(&bare), &inputs, 2e-5);
}

#[test]
fn a_batch_over_several_groups_agrees_with_single_examples() {
    let config = config(&vit(json!({})));
    let weights = EncoderWeights::random(&config, 2);
    let encoder = FastEncoder::new(&config, &weights);
    // 17 tokens of width 24 are 408 values; 200 images need three groups.
    let images: Vec<Vec<f32>> =
        (0..200).map(|i| (0..432).map(|j| ((i + j) % 13) as f32 / 6.0 - 1.0).collect()).collect();
    let inputs: Vec<_> = images.iter().map(|image| EncoderInput::Image(image)).collect();
    let batch = encoder.forward(&inputs).unwrap();
    for index in [0, 79, 80, 81, 160, 199] {
        let single = encoder.forward(&inputs[index..=index]).unwrap();
        for (a, b) in batch.example(index).iter().zip(single.example(0)) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "image {index}: {a} against {b}");
        }
    }
    assert!(encoder.forward(&[]).unwrap().data.is_empty());
}

#[test]
fn text_agrees_with_the_reference() {
    let ids = [4, 1, 2, 9, 0, 0];
    let mask = [true, true, true, true, false, false];
    for position in ["pre", "post"] {
        let config = config(&json!({
            "model_type": "bert", "vocab_size": 10, "max_position_embeddings": 8,
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 8,
            "intermediate_size": 24,
            "undertone": {"version": 1, "norm_position": position,
                          "layers": [{"heads": heads()}, {"activation": "identity"}]}
        }));
        let tokens = |mask| EncoderInput::Tokens { ids: &ids, mask };
        agrees(&config, &[tokens(None), tokens(Some(&mask))], 2e-5);
    }
}

#[test]
fn mixed_lengths_are_refused() {
    let config = config(&json!({
        "model_type": "bert", "vocab_size": 10, "max_position_embeddings": 8, "hidden_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4
    }));
    let weights = EncoderWeights::random(&config, 2);
    let tokens = |ids| EncoderInput::Tokens { ids, mask: None };
    let error = FastEncoder::new(&config, &weights).forward(&[tokens(&[1, 2]), tokens(&[1])]);
    assert_eq!(error, Err(InputError::MixedLengths { index: 1, found: 1, expected: 2 }));
}
