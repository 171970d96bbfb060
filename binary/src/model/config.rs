//! `config.json` of a one-bit model: the shapes, and the block `undertone`.

use super::LoadError;
use serde::Deserialize;
use std::path::Path;
use undertone_model::config::{Domains, VitInput};

/// Bytes of the longest configuration that is read.
pub(super) const MOST_CONFIG_BYTES: u64 = 1 << 20;
/// The largest size of anything in a configuration.
const MOST: usize = 1 << 16;

/// A one-bit model's shapes (Hugging Face's `vit` or `bert`, and the block `undertone`).
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    model_type: String,
    /// Pixels of a side; 0 in a text model.
    #[serde(default)]
    pub image_size: usize,
    /// Pixels of a patch's side; 0 in a text model.
    #[serde(default)]
    pub patch_size: usize,
    /// Colour channels; 0 in a text model.
    #[serde(default)]
    pub num_channels: usize,
    /// Token ids of a text model; 0 in an image model.
    #[serde(default)]
    pub vocab_size: usize,
    /// The longest text, in tokens; 0 in an image model.
    #[serde(default)]
    pub max_position_embeddings: usize,
    /// Token types of a text model.
    #[serde(default)]
    pub type_vocab_size: usize,
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
    /// What the classifier sees after the last layer.
    pub pooling: Pooling,
    #[serde(default)]
    norm_position: Option<String>,
    /// Mean of each channel.
    #[serde(default)]
    pub pixel_mean: Vec<f32>,
    /// Standard deviation of each channel.
    #[serde(default)]
    pub pixel_std: Vec<f32>,
    /// The generated task that the model was trained for.
    #[serde(default)]
    pub task: Option<Task>,
    /// One entry a layer.
    pub layers: Vec<LayerConfig>,
    /// Calibrated ranges around the layers.
    #[serde(default)]
    pub domains: Domains,
}

/// What the classifier sees after the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of the tokens.
    Mean,
    /// The first token.
    First,
}

/// A task that is generated rather than read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Task {
    /// Associative recall.
    Recall {
        /// Different keys.
        keys: u32,
        /// Different values.
        values: u32,
        /// Pairs shown in an episode.
        pairs: u32,
    },
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
    /// Calibrated ranges of the layer's sites.
    #[serde(default)]
    pub domains: Domains,
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
        if c.model_type != "vit" && c.model_type != "bert" {
            return refuse("model_type", c.model_type.clone(), "vit or bert");
        }
        let u = &c.undertone;
        if u.version != 1 {
            return refuse("undertone.version", u.version.to_string(), "1");
        }
        if u.class_token {
            return refuse(
                "undertone.class_token",
                "true".into(),
                "mean pooling or the first token",
            );
        }
        let position = if c.is_text() { "post" } else { "pre" };
        if u.norm_position.as_deref().unwrap_or(position) != position {
            return refuse("undertone.norm_position", format!("{:?}", u.norm_position), position);
        }
        if let Some(Task::Recall { pairs, .. }) = u.task
            && pairs as usize >= c.max_position_embeddings
        {
            return refuse("undertone.task.pairs", pairs.to_string(), "fewer than the positions");
        }
        let sizes: [(&'static str, usize); 3] = if c.is_text() {
            [
                ("vocab_size", c.vocab_size),
                ("max_position_embeddings", c.max_position_embeddings),
                ("type_vocab_size", c.type_vocab_size),
            ]
        } else {
            [
                ("image_size", c.image_size),
                ("patch_size", c.patch_size),
                ("num_channels", c.num_channels),
            ]
        };
        for (what, got) in sizes.into_iter().chain([
            ("hidden_size", c.hidden_size),
            ("num_attention_heads", c.num_attention_heads),
            ("intermediate_size", c.intermediate_size),
            ("the number of layers", u.layers.len()),
            ("the number of classes", c.id2label.len()),
        ]) {
            if got == 0 || got > MOST {
                return refuse(what, got.to_string(), "1 to 65536");
            }
        }
        if !c.is_text() && !c.image_size.is_multiple_of(c.patch_size) {
            return refuse("image_size", c.image_size.to_string(), "a multiple of patch_size");
        }
        if !c.hidden_size.is_multiple_of(c.num_attention_heads) {
            return refuse("hidden_size", c.hidden_size.to_string(), "a multiple of the heads");
        }
        if u.pixel_mean.len() != c.num_channels || u.pixel_std.len() != c.num_channels {
            return refuse("pixel_mean", u.pixel_mean.len().to_string(), "one value a channel");
        }
        if !u.pixel_mean.iter().all(|m| m.is_finite())
            || !u.pixel_std.iter().all(|s| s.is_finite() && *s >= 1e-6)
        {
            return refuse(
                "pixel_std",
                format!("{:?}", u.pixel_std),
                "finite numbers of at least 1e-6",
            );
        }
        for layer in &u.layers {
            if layer.heads.len() != c.num_attention_heads
                || layer.heads.iter().any(|h| h != &layer.heads[0])
            {
                let got = format!("{:?}", layer.heads);
                return refuse("a layer's heads", got, "num_attention_heads equal entries");
            }
            match layer.heads[0] {
                HeadConfig::EcoFormer { bits, .. } if bits == 0 || bits > 16 => {
                    return refuse("a head's bits", bits.to_string(), "1 to 16");
                }
                HeadConfig::Bivit { beta, .. } if !(beta > 0.0 && beta <= 1.0) => {
                    return refuse("a head's beta", beta.to_string(), "more than 0, at most 1");
                }
                _ => {}
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

    /// Whether the model reads token ids (a `bert`) rather than images (a `vit`).
    pub fn is_text(&self) -> bool {
        self.model_type == "bert"
    }

    /// Tokens of an image, of an episode of the model's task, or of the longest text.
    pub fn tokens(&self) -> usize {
        match self.undertone.task {
            _ if !self.is_text() => (self.image_size / self.patch_size).pow(2),
            Some(Task::Recall { pairs, .. }) => pairs as usize + 1,
            None => self.max_position_embeddings,
        }
    }

    /// Columns of what the encoder is fed: the values of a patch, or a text model's width.
    pub fn input_width(&self) -> usize {
        if self.is_text() { self.hidden_size } else { self.patch_len() }
    }

    /// The kinds of attention, and how weights and activations are held, for tables.
    pub fn kinds(&self) -> String {
        let Some(layer) = self.undertone.layers.first() else { return String::new() };
        let mut name = match layer.heads.first() {
            Some(HeadConfig::EcoFormer { variant: Coding::Exact, .. }) => "ecoformer".to_owned(),
            Some(HeadConfig::EcoFormer { variant: Coding::Repo, .. }) => {
                "ecoformer repo".to_owned()
            }
            Some(HeadConfig::EcoFormer { variant: Coding::Simhash, .. }) => "simhash".to_owned(),
            Some(HeadConfig::Bivit { .. }) => "bivit".to_owned(),
            None => String::new(),
        };
        if layer.weights == Weights::Sign {
            name.push_str(", 1-bit weights");
        }
        if layer.activation == Activation::Sign {
            name.push_str(" and MLP");
        }
        name
    }

    /// The class names in order.
    ///
    /// # Errors
    /// The first class number without a name.
    pub fn labels(&self) -> Result<Vec<String>, usize> {
        (0..self.id2label.len())
            .map(|i| self.id2label.get(&i.to_string()).cloned().ok_or(i))
            .collect()
    }

    /// How images are read, by a model that reads them.
    pub fn vit(&self) -> Option<VitInput> {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect();
        (!self.is_text()).then(|| VitInput {
            image_size: self.image_size,
            patch_size: self.patch_size,
            channels: self.num_channels,
            class_token: false,
            pixel_mean: wide(&self.undertone.pixel_mean),
            pixel_std: wide(&self.undertone.pixel_std),
        })
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
