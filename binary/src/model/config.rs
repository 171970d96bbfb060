//! `config.json` of a binary vision transformer: the shapes, and the block `undertone`.

use super::LoadError;
use serde::Deserialize;
use std::path::Path;

/// Bytes of the longest configuration that is read.
const MOST_CONFIG_BYTES: u64 = 1 << 20;
/// The largest size of anything in a configuration.
const MOST: usize = 1 << 16;

/// A binary vision transformer's shapes (Hugging Face's `vit` and the block `undertone`).
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    model_type: String,
    /// Pixels of a side.
    pub image_size: usize,
    /// Pixels of a patch's side.
    pub patch_size: usize,
    /// Colour channels.
    pub num_channels: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Heads a layer.
    pub num_attention_heads: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// ε of the norms.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// Names of the classes.
    pub id2label: std::collections::BTreeMap<String, String>,
    /// What Hugging Face's fields lack.
    pub undertone: Block,
}

fn default_eps() -> f64 {
    1e-12
}

/// The block `undertone`.
#[derive(Clone, Debug, Deserialize)]
pub struct Block {
    version: u32,
    #[serde(default)]
    class_token: bool,
    pooling: String,
    #[serde(default)]
    norm_position: Option<String>,
    /// Mean of each channel.
    pub pixel_mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub pixel_std: Vec<f32>,
    /// One entry a layer.
    pub layers: Vec<LayerConfig>,
}

/// A layer's attention and products.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerConfig {
    /// One entry a head, all alike.
    pub heads: Vec<HeadConfig>,
    #[serde(default)]
    norm: Option<String>,
    /// `gelu`, or `sign`: the feed-forward block works on signs.
    pub activation: Activation,
    /// `sign`: one bit a weight of the layer's six products.
    #[serde(default)]
    pub weights: Weights,
    #[serde(default)]
    #[allow(dead_code)]
    domains: serde::de::IgnoredAny,
}

/// What stands between the two products of the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x·Φ(x).
    Gelu,
    /// Both products read signs.
    Sign,
}

/// How a layer's weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// f32.
    #[default]
    Float,
    /// One bit, and a scale a channel.
    Sign,
}

/// A head's attention.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum HeadConfig {
    /// EcoFormer's hashed attention; queries and keys share a projection.
    EcoFormer {
        /// Bits in a code.
        bits: usize,
        /// `exact`, `repo`, or `simhash`: the control with random hyperplanes.
        variant: Coding,
    },
    /// BiViT's binarized attention.
    Bivit {
        /// The threshold, as a part of a row's maximum.
        beta: f64,
        /// `sum` adds chosen values as published, `mean` averages them.
        variant: Reduction,
        /// `sign` or `float` values.
        values: Weights,
    },
}

/// EcoFormer's variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// The paper's equation.
    Exact,
    /// The released code's.
    Repo,
    /// The paper's equation on codes by random hyperplanes.
    Simhash,
}

/// What becomes of the chosen values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// Σ v.
    Sum,
    /// Σ v over how many were chosen.
    Mean,
}

impl Config {
    /// Reads and checks `config.json` in a folder; also returns its bytes.
    ///
    /// # Errors
    /// [`LoadError`] names the file and what it would need.
    pub fn load(folder: &Path) -> Result<(Self, Vec<u8>), LoadError> {
        let bytes = super::read_bounded(&folder.join("config.json"), MOST_CONFIG_BYTES)?;
        Ok((Self::parse(&bytes)?, bytes))
    }

    /// Parses and checks the bytes of a `config.json`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        let config: Self = serde_json::from_slice(bytes).map_err(LoadError::Json)?;
        let refuse = |what: &'static str, got: String, wanted: &'static str| {
            Err(LoadError::Config { what, got, wanted })
        };
        let c = &config;
        if c.model_type != "vit" {
            return refuse("model_type", c.model_type.clone(), "vit");
        }
        let u = &c.undertone;
        if u.version != 1 {
            return refuse("undertone.version", u.version.to_string(), "1");
        }
        if u.class_token || u.pooling != "mean" {
            return refuse("undertone.pooling", u.pooling.clone(), "mean, without a class token");
        }
        if u.norm_position.as_deref().unwrap_or("pre") != "pre" {
            return refuse("undertone.norm_position", format!("{:?}", u.norm_position), "pre");
        }
        for (what, got) in [
            ("image_size", c.image_size),
            ("patch_size", c.patch_size),
            ("num_channels", c.num_channels),
            ("hidden_size", c.hidden_size),
            ("num_attention_heads", c.num_attention_heads),
            ("intermediate_size", c.intermediate_size),
            ("the number of layers", u.layers.len()),
            ("the number of classes", c.id2label.len()),
        ] {
            if got == 0 || got > MOST {
                return refuse(what, got.to_string(), "1 to 65536");
            }
        }
        if !c.image_size.is_multiple_of(c.patch_size) {
            return refuse("image_size", c.image_size.to_string(), "a multiple of patch_size");
        }
        if !c.hidden_size.is_multiple_of(c.num_attention_heads) {
            return refuse("hidden_size", c.hidden_size.to_string(), "a multiple of the heads");
        }
        if u.pixel_mean.len() != c.num_channels || u.pixel_std.len() != c.num_channels {
            return refuse("pixel_mean", u.pixel_mean.len().to_string(), "one value a channel");
        }
        for layer in &u.layers {
            if layer.heads.len() != c.num_attention_heads
                || layer.heads.iter().any(|h| h != &layer.heads[0])
            {
                let got = format!("{:?}", layer.heads);
                return refuse("a layer's heads", got, "num_attention_heads equal entries");
            }
            if layer.norm.as_deref().unwrap_or("layer_norm") != "layer_norm" {
                return refuse("a layer's norm", format!("{:?}", layer.norm), "layer_norm");
            }
            if layer.activation == Activation::Sign && layer.weights != Weights::Sign {
                return refuse("a layer's weights", "float".into(), "sign, where activations are");
            }
        }
        Ok(config)
    }

    /// Tokens of an image.
    pub fn tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Values of a patch.
    pub fn patch_len(&self) -> usize {
        self.num_channels * self.patch_size * self.patch_size
    }
}
