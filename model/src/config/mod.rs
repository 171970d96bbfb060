//! `config.json`: what a model is, read, checked and typed.
//!
//! The outer fields are Hugging Face's (`vit` and `bert`); unknown ones are ignored, as every
//! reader of such files does. The block `undertone` is ours, and there an unknown key is an
//! error, since a misspelt constant would silently change the function that is computed.
//!
//! ```
//! use undertone_model::config::{Config, HeadKind};
//!
//! let config = Config::parse(br#"{
//!     "model_type": "vit", "image_size": 28, "patch_size": 4, "num_channels": 1,
//!     "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
//!     "intermediate_size": 128,
//!     "undertone": {"version": 1, "class_token": false, "layers": [{"heads": [
//!         {"kind": "softmax"}, {"kind": "power", "p": 2, "eps": 0.001}]}]}
//! }"#, None)?;
//! assert_eq!(config.tokens(), 49);
//! assert_eq!(config.layers[0].heads[1], HeadKind::Power { p: 2, eps: 0.001, mean: false });
//! # Ok::<(), undertone_model::config::ConfigError>(())
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::limits;

mod error;
mod raw;
mod update;

pub use error::ConfigError;
pub use update::{Domains, depth, update_domains, with_domains};

/// The version of the `undertone` block that this crate reads and writes.
pub const BLOCK_VERSION: u64 = 1;

/// A checked model configuration: every number is within its cap, and the derived sizes
/// (`head_width`, `tokens`) are exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What the encoder reads, with the sizes of its embedding.
    pub input: Input,
    /// Width of the residual stream, `hidden_size`.
    pub width: usize,
    /// Heads of each layer, a divisor of `width`.
    pub heads: usize,
    /// Width of the hidden layer of the MLP, `intermediate_size`.
    pub mlp_width: usize,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// The constant added to the variance in layer norms.
    pub norm_eps: f64,
    /// Where the norms stand.
    pub norm_position: NormPosition,
    /// What the classifier sees.
    pub pooling: Pooling,
    /// One entry a layer.
    pub layers: Vec<Layer>,
    /// Calibrated ranges of sites outside the layers.
    pub domains: Domains,
    /// Class names in order; `None` where the file names none.
    pub labels: Option<Vec<String>>,
    /// The generated task that this model was trained for, if any.
    pub task: Option<Task>,
}

/// What an encoder reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Square images cut into square patches, Hugging Face's `vit`.
    Vit(VitInput),
    /// Token ids, Hugging Face's `bert`.
    Bert(BertInput),
}

/// The sizes of an image embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct VitInput {
    /// Side of the image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels, a divisor of `image_size`.
    pub patch_size: usize,
    /// Channels: 1 for gray, 3 for RGB.
    pub channels: usize,
    /// Whether a learned token stands before the patches.
    pub class_token: bool,
    /// Mean of each channel, in the range 0…1 of pixels.
    pub pixel_mean: Vec<f64>,
    /// Standard deviation of each channel, in the range 0…1 of pixels.
    pub pixel_std: Vec<f64>,
}

impl VitInput {
    /// Patches of an image.
    pub fn patches(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side * side
    }

    /// Values of one patch: channels · patch · patch.
    pub fn patch_len(&self) -> usize {
        self.channels * self.patch_size * self.patch_size
    }

    /// Values of one image: channels · side · side.
    pub fn image_len(&self) -> usize {
        self.channels * self.image_size * self.image_size
    }
}

/// The sizes of a text embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct BertInput {
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Rows of the position embedding, the longest sequence.
    pub positions: usize,
    /// Rows of the token type embedding.
    pub token_types: usize,
}

/// One encoder layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The attention of each head.
    pub heads: Vec<HeadKind>,
    /// The kind of both norms of the layer.
    pub norm: NormKind,
    /// How many matrices the MLP has.
    pub mlp: Mlp,
    /// The activation of the MLP.
    pub activation: Activation,
    /// Calibrated ranges of the layer's sites.
    pub domains: Domains,
}

/// The attention of one head: out = Σⱼ wⱼ·vⱼ / denominator with scores s = q·kⱼ/√d over N tokens.
///
/// `docs/model-format.md` has the table with sources.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum HeadKind {
    /// w = exp(s − max s), denominator Σw.
    Softmax,
    /// w = sᵖ for even p, denominator eps + Σw; with `mean` eps + Σw/N and the sum over V
    /// divided by N (arXiv 2410.09457).
    Power {
        /// The even exponent, 2…64.
        p: u32,
        /// Added to the denominator.
        eps: f64,
        /// The length-agnostic form.
        mean: bool,
    },
    /// w = max(s, 0), denominator eps + Σw (MPCViT).
    ReluSoftmax {
        /// Added to the denominator.
        eps: f64,
    },
    /// w = s, denominator N (MPCViT).
    Scaling,
    /// w = (s + c)², denominator eps + Σw (MPCViT's code; MPCFormer with c = 5).
    TwoQuad {
        /// The shift of the scores.
        c: f64,
        /// Added to the denominator.
        eps: f64,
    },
    /// w = max(s, 0)², denominator N (MPCViT).
    ReluSquared,
    /// w = 1, denominator N: the control without attention.
    Uniform,
}

impl HeadKind {
    /// The name in `config.json`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Power { .. } => "power",
            Self::ReluSoftmax { .. } => "relu_softmax",
            Self::Scaling => "scaling",
            Self::TwoQuad { .. } => "two_quad",
            Self::ReluSquared => "relu_squared",
            Self::Uniform => "uniform",
        }
    }
}

/// The kind of a norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// (x − mean)/√(variance + eps)·weight + bias over the row (arXiv 1607.06450).
    #[default]
    LayerNorm,
    /// x·weight + bias: a folded batch norm.
    Affine,
}

/// The form of an MLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mlp {
    /// W₂·activation(W₁x + b₁) + b₂.
    #[default]
    Full,
    /// activation(Wx + b) with one square W, which stands for the W₂W₁ that MPCViT+ fuses where
    /// it removes the GELU between them (Zeng et al. 2023).
    Fused,
}

/// The activation of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·Φ(x) with the error function (arXiv 1606.08415).
    Gelu,
    /// max(x, 0).
    Relu,
    /// a·x² + b·x with a and b per channel.
    Quadratic,
    /// x.
    Identity,
}

/// Where the norms of a layer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPosition {
    /// Before each sublayer, with one more norm after the last layer.
    Pre,
    /// After each residual sum, with one more norm after the embedding.
    Post,
}

/// What the classifier (or the caller, where there is none) sees after the last norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over the tokens that are not padding.
    Mean,
    /// The first token.
    First,
    /// Every token.
    None,
}

/// A task that is generated rather than read, see [`crate::tasks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// Associative recall: find the value that stood beside the queried key.
    Recall {
        /// Different keys.
        keys: u32,
        /// Different values.
        values: u32,
        /// Pairs shown in an episode.
        pairs: u32,
    },
}

impl Config {
    /// Reads `config.json` and, where there is one, `preprocessor_config.json` from a folder.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, what was found and what is expected.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let json = limits::read_bounded(&folder.join("config.json"), limits::CONFIG_BYTES)?;
        let preprocessor = folder.join("preprocessor_config.json");
        let preprocessor = match preprocessor.exists() {
            true => Some(limits::read_bounded(&preprocessor, limits::CONFIG_BYTES)?),
            false => None,
        };
        Self::parse(&json, preprocessor.as_deref())
    }

    /// Parses the bytes of `config.json` and, where there is one, `preprocessor_config.json`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(json: &[u8], preprocessor: Option<&[u8]>) -> Result<Self, ConfigError> {
        raw::parse(json, preprocessor)
    }

    /// Layers.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Width of a head, `width / heads`.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Tokens of an image with its class token, or the longest text.
    pub fn tokens(&self) -> usize {
        match &self.input {
            Input::Vit(vit) => vit.patches() + usize::from(vit.class_token),
            Input::Bert(bert) => bert.positions,
        }
    }

    /// Whether the embedding is followed by a norm of its own: `bert` has one.
    pub fn has_embedding_norm(&self) -> bool {
        matches!(self.input, Input::Bert(_))
    }

    /// Whether a norm follows the last layer: with `pre` norms, whose residual sum is otherwise
    /// never normalised.
    pub fn has_final_norm(&self) -> bool {
        self.norm_position == NormPosition::Pre
    }

    /// The kind of the embedding's norm: a layer norm, whatever the layers use.
    pub fn embedding_norm_kind(&self) -> NormKind {
        NormKind::LayerNorm
    }

    /// The kind of the norm after the last layer: that of the last layer.
    pub fn final_norm_kind(&self) -> NormKind {
        self.layers.last().map_or_else(NormKind::default, |layer| layer.norm)
    }

    /// The image sizes, if this is a `vit`.
    pub fn vit(&self) -> Option<&VitInput> {
        match &self.input {
            Input::Vit(vit) => Some(vit),
            Input::Bert(_) => None,
        }
    }

    /// The text sizes, if this is a `bert`.
    pub fn bert(&self) -> Option<&BertInput> {
        match &self.input {
            Input::Bert(bert) => Some(bert),
            Input::Vit(_) => None,
        }
    }

    /// How many heads of the model use each kind, by name, for tables.
    pub fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for head in self.layers.iter().flat_map(|layer| &layer.heads) {
            *kinds.entry(head.name()).or_default() += 1;
        }
        kinds
    }
}

#[cfg(test)]
mod tests;
