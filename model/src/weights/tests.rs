#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use super::collect::{Source, collect};
use super::*;
use crate::limits;
use crate::tasks::SplitMix64;

fn vit() -> Config {
    let json = json!({
        "model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 3,
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 12, "id2label": {"0": "a", "1": "b", "2": "c"},
        "undertone": {"version": 1, "layers": [{"activation": "quadratic"}, {}]}
    });
    Config::parse(&serde_json::to_vec(&json).unwrap(), None).unwrap()
}

fn bert() -> Config {
    let json = json!({
        "model_type": "bert", "vocab_size": 11, "max_position_embeddings": 7,
        "hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 3,
        "intermediate_size": 12
    });
    Config::parse(&serde_json::to_vec(&json).unwrap(), None).unwrap()
}

type Tensor = (String, Vec<usize>, Vec<f32>);

/// Makes up every tensor it is asked for and remembers it; `present` steers the naming.
struct Recorder {
    present: &'static str,
    random: SplitMix64,
    tensors: Vec<Tensor>,
}

impl Source for Recorder {
    type Error = std::convert::Infallible;

    fn shape(&self, name: &str) -> Option<&[usize]> {
        (name == self.present).then_some(&[])
    }

    fn take(&mut self, name: &str, wanted: &[usize]) -> Result<Vec<f32>, Self::Error> {
        let draw = |random: &mut SplitMix64| random.below(1 << 16) as f32 / 1024.0 - 32.0;
        let values: Vec<f32> =
            (0..wanted.iter().product()).map(|_| draw(&mut self.random)).collect();
        self.tensors.push((name.to_owned(), wanted.to_vec(), values.clone()));
        Ok(values)
    }
}

/// A complete set of tensors in one naming, and what they must be read as.
fn complete(config: &Config, present: &'static str) -> (Vec<Tensor>, EncoderWeights) {
    let mut recorder = Recorder { present, random: SplitMix64::new(3), tensors: Vec::new() };
    let Ok(weights) = collect(&mut recorder, config);
    (recorder.tensors, weights)
}

fn bytes_of(tensors: &[Tensor]) -> Vec<u8> {
    encode(tensors, Dtype::F32, |x| x.to_le_bytes().to_vec())
}

fn encode(tensors: &[Tensor], dtype: Dtype, one: impl Fn(f32) -> Vec<u8>) -> Vec<u8> {
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(.., values)| values.iter().flat_map(|&x| one(x)).collect()).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
        (name.clone(), TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn read(bytes: &[u8], config: &Config) -> Result<EncoderWeights, WeightError> {
    EncoderWeights::read(Cursor::new(bytes), config)
}

const NAMINGS: [&str; 3] =
    ["", "embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight"];

#[test]
fn every_naming_round_trips() {
    for present in NAMINGS {
        let (tensors, weights) = complete(&vit(), present);
        assert_eq!(read(&bytes_of(&tensors), &vit()).unwrap(), weights, "naming {present:?}");
        let total: usize = tensors.iter().map(|(.., values)| values.len()).sum();
        assert_eq!(weights.parameters(), total);
    }
    for present in ["", "embeddings.word_embeddings.weight"] {
        let (tensors, weights) = complete(&bert(), present);
        assert_eq!(read(&bytes_of(&tensors), &bert()).unwrap(), weights, "naming {present:?}");
    }
}

#[test]
fn names_are_those_of_the_documentation() {
    let names = |config: &Config, present| -> Vec<String> {
        complete(config, present).0.into_iter().map(|(name, ..)| name).collect()
    };
    let hf = names(&vit(), "");
    for name in [
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.embeddings.position_embeddings",
        "vit.embeddings.cls_token",
        "vit.encoder.layer.1.attention.attention.query.bias",
        "vit.encoder.layer.1.attention.output.dense.weight",
        "vit.encoder.layer.0.layernorm_before.weight",
        "vit.encoder.layer.0.layernorm_after.bias",
        "vit.encoder.layer.0.intermediate.dense.weight",
        "vit.encoder.layer.0.intermediate.quadratic.a",
        "vit.encoder.layer.0.output.dense.bias",
        "vit.layernorm.weight",
        "classifier.weight",
    ] {
        assert!(hf.iter().any(|found| found == name), "{name} not among {hf:?}");
    }
    assert!(!hf.iter().any(|name| name.contains("layer.1.intermediate.quadratic")));
    let timm = names(&vit(), NAMINGS[2]);
    for name in [
        "cls_token",
        "pos_embed",
        "blocks.0.attn.qkv.weight",
        "blocks.1.attn.proj.bias",
        "blocks.0.norm1.weight",
        "blocks.0.mlp.fc2.bias",
        "norm.bias",
        "head.weight",
    ] {
        assert!(timm.iter().any(|found| found == name), "{name} not among {timm:?}");
    }
}

#[test]
fn fused_rows_are_query_key_value() {
    let (tensors, weights) = complete(&vit(), NAMINGS[2]);
    let (.., fused) = tensors.iter().find(|(name, ..)| name == "blocks.0.attn.qkv.weight").unwrap();
    assert_eq!(weights.layers[0].query.weight, fused[..64]);
    assert_eq!(weights.layers[0].key.weight, fused[64..128]);
    assert_eq!(weights.layers[0].value.weight, fused[128..]);
}

#[test]
fn half_precisions_widen_exactly() {
    let (mut tensors, _) = complete(&bert(), "");
    for (.., values) in &mut tensors {
        for value in values {
            // Eight bits of mantissa fit both formats.
            *value = value.round();
        }
    }
    let full = read(&bytes_of(&tensors), &bert()).unwrap();
    let f16 = encode(&tensors, Dtype::F16, |x| half::f16::from_f32(x).to_le_bytes().to_vec());
    let bf16 = encode(&tensors, Dtype::BF16, |x| half::bf16::from_f32(x).to_le_bytes().to_vec());
    assert_eq!(read(&f16, &bert()).unwrap(), full);
    assert_eq!(read(&bf16, &bert()).unwrap(), full);
}

#[test]
fn harmless_extras_are_skipped_and_others_named() {
    let (tensors, weights) = complete(&bert(), "");
    let with = |name: &str| {
        let mut tensors = tensors.clone();
        tensors.push((name.to_owned(), vec![2], vec![0.0; 2]));
        read(&bytes_of(&tensors), &bert())
    };
    for name in ["bert.embeddings.position_ids", "bert.pooler.dense.bias", "cls.predictions.bias"] {
        assert_eq!(with(name).unwrap(), weights);
    }
    let error = with("bert.encoder.layer.1.output.dense.bias").unwrap_err();
    assert!(
        matches!(&error, WeightError::Unknown { name, found }
            if name == "bert.encoder.layer.1.output.dense.bias" && *found == [2]),
        "{error}"
    );
    // A classifier that reads the pooler cannot be computed without it.
    let mut tensors = tensors.clone();
    tensors.push(("classifier.weight".to_owned(), vec![2, 6], vec![0.0; 12]));
    tensors.push(("classifier.bias".to_owned(), vec![2], vec![0.0; 2]));
    assert_eq!(read(&bytes_of(&tensors), &bert()).unwrap().classifier.unwrap().outputs, 2);
    tensors.push(("bert.pooler.dense.bias".to_owned(), vec![2], vec![0.0; 2]));
    let error = read(&bytes_of(&tensors), &bert()).unwrap_err();
    assert!(matches!(error, WeightError::Pooler { .. }));
}

#[test]
fn each_tensor_must_be_there_with_its_shape() {
    let (tensors, _) = complete(&vit(), "");
    for removed in 0..tensors.len() {
        let mut left = tensors.clone();
        let (name, shape, _) = left.remove(removed);
        let error = read(&bytes_of(&left), &vit()).unwrap_err();
        assert!(
            matches!(&error, WeightError::Missing { name: found, wanted }
                if *found == name && *wanted == shape),
            "without {name}: {error}"
        );

        let mut wrong = tensors.clone();
        wrong[removed].1.insert(0, 1);
        let error = read(&bytes_of(&wrong), &vit()).unwrap_err();
        assert!(
            matches!(&error, WeightError::Shape { name: found, wanted, found: given }
                if *found == name && *wanted == shape && *given == wrong[removed].1),
            "{name} misshapen: {error}"
        );
    }
}

#[test]
fn weights_must_be_finite_floats() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (mut tensors, _) = complete(&vit(), "");
        tensors[4].2[3] = bad;
        let error = read(&bytes_of(&tensors), &vit()).unwrap_err();
        assert!(
            matches!(&error, WeightError::NotFinite { name, index: 3, .. } if *name == tensors[4].0),
            "{error}"
        );
    }
    let (tensors, _) = complete(&vit(), "");
    let integers = encode(&tensors, Dtype::I32, |x| (x as i32).to_le_bytes().to_vec());
    let error = read(&integers, &vit()).unwrap_err();
    assert!(matches!(&error, WeightError::DType { found, .. } if found == "I32"), "{error}");
}

#[test]
fn the_length_must_be_what_the_header_says() {
    let (tensors, _) = complete(&vit(), "");
    let bytes = bytes_of(&tensors);
    for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        let error = read(&bytes[..length], &vit()).unwrap_err();
        assert!(matches!(error, WeightError::Truncated { .. }), "{length} bytes: {error}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    let error = read(&longer, &vit()).unwrap_err();
    assert!(matches!(error, WeightError::Oversized { .. }), "{error}");

    let mut header = bytes.clone();
    header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = read(&header, &vit()).unwrap_err();
    assert!(matches!(error, WeightError::HeaderTooLarge { found: u64::MAX, .. }), "{error}");

    // A sparse file stands for one too large to read; nothing of it is allocated.
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("model.safetensors")).unwrap();
    if file.set_len(limits::WEIGHT_BYTES + 1).is_ok() {
        let error = EncoderWeights::load(folder.path(), &vit()).unwrap_err();
        assert!(matches!(error, WeightError::TooLarge { .. }), "{error}");
    }
    let error = EncoderWeights::load(&folder.path().join("absent"), &vit()).unwrap_err();
    assert!(matches!(error, WeightError::Open { .. }), "{error}");
}

#[test]
fn random_weights_follow_the_seed() {
    assert_eq!(EncoderWeights::random(&vit(), 1), EncoderWeights::random(&vit(), 1));
    assert_ne!(EncoderWeights::random(&vit(), 1), EncoderWeights::random(&vit(), 2));
    let layer = &EncoderWeights::random(&vit(), 1).layers[0];
    assert!(layer.quadratic.is_some() && layer.query.bias.is_some());
}

proptest! {
    #[test]
    fn never_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        _ = read(&bytes, &bert());
    }

    /// A valid file with some bytes changed reaches beyond the header.
    #[test]
    fn never_panics_on_changed_bytes(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = bytes_of(&complete(&bert(), "").0);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        _ = read(&bytes, &bert());
    }
}
