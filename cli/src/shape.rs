//! `shape`: a model folder of a published shape with random weights, for plans and costs.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};
use undertone_core::{Full, Mask};
use undertone_model::Model;
use undertone_model::config::{self, Config, update_domains};
use undertone_model::float::Float;
use undertone_model::weights::EncoderWeights;

use crate::render::say;
use crate::{Common, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The shape.
    name: Name,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Kinds of attention, one a head, separated by commas; given once for all layers or once a
    /// layer. A single kind stands for all heads.
    #[arg(long, value_name = "KIND,…", default_value = "softmax")]
    heads: Vec<String>,
    /// The seed of the weights.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    common: Common,
}

/// Shapes of MPCViT (Zeng et al., ICCV 2023), named after layers, heads and image side.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Name {
    /// CIFAR: 7 layers, 4 heads, width 256, 65 tokens.
    #[value(name = "vit_7_4_32")]
    Cifar,
    /// Tiny-ImageNet: 9 layers, 12 heads, width 192, 257 tokens.
    #[value(name = "vit_9_12_64")]
    TinyImageNet,
}

impl Name {
    /// Layers, heads, image side, width, classes.
    const fn sizes(self) -> [usize; 5] {
        match self {
            Self::Cifar => [7, 4, 32, 256, 10],
            Self::TinyImageNet => [9, 12, 64, 192, 200],
        }
    }
}

fn layer(list: &str, heads: usize) -> anyhow::Result<Value> {
    let mut kinds: Vec<&str> = list.split(',').map(str::trim).collect();
    if kinds.len() == 1 {
        kinds = vec![kinds[0]; heads];
    }
    if kinds.len() != heads {
        bail!("--heads {list}: {} kinds for {heads} heads", kinds.len());
    }
    let kind = |name: &str| match name {
        // Random scores are small: MPCViT's 1e-5 would let single weights decide.
        "relu_softmax" | "two_quad" => json!({"kind": name, "eps": 1e-3}),
        "power" => json!({"kind": name, "p": 2}),
        _ => json!({"kind": name}),
    };
    let heads: Vec<Value> = kinds.into_iter().map(kind).collect();
    Ok(json!({"heads": heads, "norm": "layer_norm", "activation": "gelu"}))
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let [depth, heads, side, width, classes] = options.name.sizes();
    let lists = match options.heads.len() {
        1 => vec![&options.heads[0]; depth],
        n if n == depth => options.heads.iter().collect(),
        n => bail!("--heads was given {n} times; give it once, or once for each of {depth} layers"),
    };
    let layers = lists.into_iter().map(|l| layer(l, heads)).collect::<anyhow::Result<Vec<_>>>()?;
    let labels: Map<String, Value> =
        (0..classes).map(|i| (i.to_string(), json!(format!("class {i}")))).collect();
    let json = json!({
        "model_type": "vit", "image_size": side, "patch_size": 4, "num_channels": 3,
        "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads,
        "intermediate_size": 2 * width, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
        "qkv_bias": true, "id2label": labels,
        "undertone": {"version": 1, "pooling": "first", "layers": layers},
    });
    let bytes = serde_json::to_vec_pretty(&json)?;
    let config = Config::parse(&bytes, None)?;
    std::fs::create_dir(&options.out).with_context(|| options.out.display().to_string())?;
    std::fs::write(options.out.join("config.json"), bytes)?;
    EncoderWeights::write_random(&config, options.seed, &options.out.join("model.safetensors"))?;

    // Ranges of a few random images.
    let model = Model::load(&options.out)?;
    let shape = model.input_shape(4, model.tokens());
    let one = shape.len() / 4;
    let class_row = shape.cols;
    let rows: Vec<f32> = (0..shape.len())
        .map(|i| {
            let noise = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) % 2001;
            if i % one < class_row { 0.0 } else { noise as f32 / 1000.0 - 1.0 }
        })
        .collect();
    let mut recorder = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut recorder)?;
    model.run::<_, Full>(&mut recorder, &encoder, shape, &rows, &Mask::NONE)?;
    let recorded = recorder.recorded().cloned().unwrap_or_default();
    let (outside, inside) = recorded.to_config(model.config.depth());
    update_domains(&options.out, &outside, &inside, config::depth)?;
    let folder = options.out.display();
    if options.common.json {
        say!("{}", json!({"folder": options.out, "parameters": model.weights.parameters()}));
    } else {
        say!("{folder}: {} parameters, random", model.weights.parameters());
    }
    Ok(Outcome::Good)
}
