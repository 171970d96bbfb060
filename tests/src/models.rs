//! Models to test on: those that ship, and random ones with calibrated ranges.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use undertone_core::{Full, Mask, Shape};
use undertone_model::Model;
use undertone_model::config::{Config, Input};
use undertone_model::float::Float;
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;
use undertone_model::tasks::recall::Recall;

use crate::Random;

/// The project's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every model folder that ships and has the weights of an encoder, by name.
#[must_use]
pub fn shipped() -> Vec<(String, Model)> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("models"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("model.safetensors").exists())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "models are missing: {names:?}");
    names
        .into_iter()
        .map(|name| {
            let model = Model::load(&root().join("models").join(&name));
            let model = model.unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, model)
        })
        .collect()
}

/// The first `n` usual inputs of a shipped model, as its encoder is fed: images of
/// `models/images`, or episodes of the stream that models are evaluated on.
#[must_use]
pub fn usual_inputs(model: &Model, n: usize) -> Vec<Vec<f32>> {
    if let Some(vit) = model.config.vit() {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(root().join("models/images"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "png"))
            .collect();
        paths.sort();
        assert!(paths.len() >= n, "{} images ship", paths.len());
        let image = |path: &PathBuf| {
            let values = Picture::load(path).unwrap().to_input(vit, Resize::Refuse).unwrap();
            model.rows(&EncoderInput::Image(&values)).unwrap()
        };
        return paths[..n].iter().map(image).collect();
    }
    let Some(undertone_model::config::Task::Recall { keys, values, pairs }) = model.config.task
    else {
        panic!("a text model that ships has a task");
    };
    let task = Recall::new(keys, values, pairs).unwrap();
    (0..n as u64)
        .map(|index| {
            let ids = task.episode(7, index).tokens;
            model.rows(&EncoderInput::Tokens { ids: &ids, mask: None }).unwrap()
        })
        .collect()
}

/// The attention kinds of `docs/model-format.md`, as a configuration writes them.
#[must_use]
pub fn head_kinds() -> Vec<Value> {
    vec![
        json!({"kind": "softmax"}),
        json!({"kind": "power", "p": 2}),
        json!({"kind": "power", "p": 4}),
        json!({"kind": "power", "p": 2, "mean": true}),
        json!({"kind": "relu_softmax"}),
        json!({"kind": "scaling"}),
        json!({"kind": "two_quad", "c": 5.0}),
        json!({"kind": "relu_squared"}),
        json!({"kind": "uniform"}),
    ]
}

/// A random configuration: input, depth, heads and their kinds, widths, norms, activations.
#[must_use]
pub fn random_config(r: &mut Random) -> Value {
    let kinds = head_kinds();
    let pick = |r: &mut Random, n: usize| (r.next() % n as u64) as usize;
    let (depth, heads) = (1 + pick(r, 3), 1 + pick(r, 6));
    let width = heads * [2, 3, 4, 8][pick(r, 4)];
    let layers: Vec<Value> = (0..depth)
        .map(|_| {
            let heads: Vec<_> = (0..heads).map(|_| kinds[pick(r, kinds.len())].clone()).collect();
            json!({
                "heads": heads,
                "norm": (["layer_norm", "affine"][pick(r, 2)]),
                "mlp": (["full", "full", "fused"][pick(r, 3)]),
                "activation": (["gelu", "relu", "quadratic", "identity"][pick(r, 4)]),
            })
        })
        .collect();
    let mut block = json!({
        "version": 1, "layers": layers,
        "norm_position": (["pre", "post"][pick(r, 2)]),
        "pooling": (["mean", "first", "none"][pick(r, 3)]),
    });
    let mut config = json!({
        "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads,
        "intermediate_size": width + 1 + pick(r, 9), "layer_norm_eps": 1e-5,
    });
    let whole = config.as_object_mut().unwrap();
    if pick(r, 3) > 0 {
        let patch = 1 + pick(r, 3);
        let sizes = json!({
            "model_type": "vit", "patch_size": patch, "image_size": patch * (1 + pick(r, 3)),
            "num_channels": ([1, 3][pick(r, 2)]), "qkv_bias": pick(r, 2) == 1,
        });
        whole.extend(sizes.as_object().unwrap().clone());
        block["class_token"] = json!(pick(r, 2) == 1);
    } else {
        let sizes = json!({
            "model_type": "bert", "vocab_size": 11, "max_position_embeddings": 2 + pick(r, 8),
        });
        whole.extend(sizes.as_object().unwrap().clone());
    }
    if pick(r, 3) > 0 {
        whole.insert("id2label".to_owned(), json!({"0": "a", "1": "b", "2": "c"}));
    }
    whole.insert("undertone".to_owned(), block);
    config
}

/// Random values for an example of a model; token ids or normalised pixels.
#[derive(Clone, Debug)]
pub enum Example {
    /// Pixels.
    Image(Vec<f32>),
    /// Token ids.
    Tokens(Vec<u32>),
}

impl Example {
    /// As long as the model reads.
    #[must_use]
    pub fn random(r: &mut Random, config: &Config) -> Self {
        match &config.input {
            Input::Vit(vit) => {
                Self::Image((0..vit.image_len()).map(|_| r.uniform(-1.5, 1.5)).collect())
            }
            Input::Bert(bert) => Self::Tokens(
                (0..bert.positions).map(|_| (r.next() % bert.vocabulary as u64) as u32).collect(),
            ),
        }
    }

    /// As an encoder takes it.
    #[must_use]
    pub fn input(&self) -> EncoderInput<'_> {
        match self {
            Self::Image(values) => EncoderInput::Image(values),
            Self::Tokens(ids) => EncoderInput::Tokens { ids, mask: None },
        }
    }
}

/// A configuration from JSON.
#[must_use]
pub fn parse(config: &Value) -> Config {
    Config::parse(config.to_string().as_bytes(), None).unwrap_or_else(|e| panic!("{e}: {config}"))
}

/// Gives a model the ranges of one input: encoder rows of a shape.
pub fn calibrate(model: &mut Model, shape: Shape, rows: &[f32]) {
    let mut w = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut w).unwrap();
    model.run::<_, Full>(&mut w, &encoder, shape, rows, &Mask::NONE).unwrap();
    model.calibration = w.recorded().unwrap().clone();
}
