//! `model.safetensors` against a small configuration of each kind; what is accepted must run.
#![no_main]

use std::io::Cursor;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use undertone_model::config::Config;
use undertone_core::{Mask, Shape};
use undertone_model::Model;
use undertone_model::domains::Calibration;
use undertone_model::float::{Float, Fused};
use undertone_model::input::EncoderInput;
use undertone_model::weights::EncoderWeights;

fn configs() -> &'static [Config; 2] {
    static CONFIGS: OnceLock<[Config; 2]> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let vit: &[u8] = br#"{"model_type": "vit", "image_size": 2, "patch_size": 1,
            "num_channels": 1, "hidden_size": 2, "num_hidden_layers": 1,
            "num_attention_heads": 1, "intermediate_size": 2}"#;
        let bert: &[u8] = br#"{"model_type": "bert", "vocab_size": 3,
            "max_position_embeddings": 2, "hidden_size": 2, "num_hidden_layers": 1,
            "num_attention_heads": 1, "intermediate_size": 2}"#;
        [vit, bert].map(|json| Config::parse(json, None).expect("these are valid"))
    })
}

fuzz_target!(|bytes: &[u8]| {
    for config in configs() {
        let Ok(weights) = EncoderWeights::read(Cursor::new(bytes), config) else { continue };
        let input = match config.vit() {
            Some(_) => EncoderInput::Image(&[0.5; 4]),
            None => EncoderInput::Tokens { ids: &[2, 0], mask: None },
        };
        let calibration = Calibration::default();
        let model = Model { config: config.clone(), weights, calibration };
        let mut w = Float::new();
        let encoder = model.prepare::<_, Fused>(&mut w).expect("every kind is offered");
        let rows = model.rows(&input).expect("the input fits");
        let cols = model.input_shape(1, 1).cols;
        let shape = Shape::new(1, rows.len() / cols, cols);
        model.run::<_, Fused>(&mut w, &encoder, shape, &rows, &Mask::NONE).expect("shapes fit");
    }
});
