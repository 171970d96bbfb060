//! One-bit models: configurations, and checkpoints of three small ones as bytes, and as tensors
//! within a valid header and checksum. What is accepted must run.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use undertone_binary::model::{Config, Encoder};

const HEADS: [&str; 3] = [
    r#"{"kind": "bivit", "variant": "mean", "beta": 0.25, "values": "sign"}], "weights": "sign", "activation": "sign""#,
    r#"{"kind": "ecoformer", "bits": 4, "variant": "repo"}], "activation": "gelu""#,
    r#"{"kind": "ecoformer", "bits": 3, "variant": "simhash"}], "weights": "sign", "activation": "gelu""#,
];

static CONFIGS: LazyLock<[(String, Config); 3]> = LazyLock::new(|| {
    HEADS.map(|layer| {
        let json = format!(
            r#"{{"model_type": "vit", "image_size": 2, "patch_size": 1, "num_channels": 1,
            "hidden_size": 3, "num_attention_heads": 1, "intermediate_size": 2, "id2label": {{"0": "a"}},
            "undertone": {{"version": 1, "pooling": "mean", "pixel_mean": [0.5], "pixel_std": [0.5],
            "layers": [{{"heads": [{layer}}}]}}}}"#
        );
        let config = Config::parse(json.as_bytes()).expect("these are valid");
        (json, config)
    })
});

fn short(bytes: &[u8]) -> [u8; 8] {
    Sha256::digest(bytes)[..8].try_into().expect("eight of 32")
}

/// Magic, version, precision, hash of the configuration, length, tensors, checksum.
fn sealed(json: &[u8], precision: u8, tensors: &[u8]) -> Vec<u8> {
    let length = (tensors.len() as u64).to_le_bytes();
    let parts: [&[u8]; 6] =
        [b"undtbits", &1u32.to_le_bytes(), &[precision], &short(json), &length, tensors];
    let mut file = parts.concat();
    let sum = short(&file);
    file.extend(sum);
    file
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = Config::parse(bytes) {
        _ = Encoder::from_packed(config, bytes, &sealed(bytes, 0, &[]));
    }
    for (json, config) in &*CONFIGS {
        let json = json.as_bytes();
        let files = [bytes.to_vec(), sealed(json, 0, bytes), sealed(json, 1, bytes)];
        for file in files {
            if let Ok(encoder) = Encoder::from_packed(config.clone(), json, &file) {
                _ = encoder.logits(&[0.0, 0.5, 1.0, 0.25]);
            }
        }
        if let Ok(encoder) = Encoder::from_safetensors(config.clone(), bytes) {
            _ = encoder.logits(&[0.0, 0.5, 1.0, 0.25]);
        }
    }
});
