//! `model.safetensors`: every tensor of an encoder, read, checked and typed.
//!
//! Files come in f32, f16 or bf16 and are held as f32. Names are Hugging Face's `vit` and
//! `bert` (with or without the leading `vit.` or `bert.`) or timm's vision transformer with its
//! fused `qkv`, which is split on reading. Every tensor of the file must be known and every
//! tensor of the model present, of the shape that the configuration asks for, and finite.
//!
//! Known extra tensors that do not change the result are skipped:
//! `embeddings.position_ids` (a counter some versions stored), `cls.*` (the head of masked
//! language modelling), and, where the model has no classifier, `pooler.*`. A classifier that
//! reads a pooler is refused, because skipping the pooler would change its result.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use crate::config::Config;

mod collect;
mod embeddings;
mod error;
mod file;
mod random;

pub use error::WeightError;

/// The weights of an encoder with its embedding and classifier. Matrices are row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderWeights {
    /// What turns patches or ids into the first residual stream.
    pub embeddings: Embeddings,
    /// One entry a layer.
    pub layers: Vec<LayerWeights>,
    /// The norm after the last layer, present as [`Config::has_final_norm`] says.
    pub final_norm: Option<Norm>,
    /// The classifier, where the model has one.
    pub classifier: Option<Linear>,
}

/// The weights of an embedding.
#[derive(Clone, Debug, PartialEq)]
pub enum Embeddings {
    /// Of a `vit`.
    Vit {
        /// The patch projection: inputs ordered (channel, row, column) as in the convolution.
        projection: Linear,
        /// Position embeddings `[tokens, width]`, the class token's first.
        position: Vec<f32>,
        /// The class token `[width]`, where there is one.
        class_token: Option<Vec<f32>>,
    },
    /// Of a `bert`.
    Bert {
        /// Word embeddings `[vocabulary, width]`.
        word: Vec<f32>,
        /// Position embeddings `[positions, width]`.
        position: Vec<f32>,
        /// Token type embeddings `[token_types, width]`.
        token_type: Vec<f32>,
        /// The norm over the sum of the three.
        norm: Norm,
    },
}

/// The weights of one encoder layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeights {
    /// Queries `[width, width]`; head h owns the outputs h·head_width….
    pub query: Linear,
    /// Keys, likewise.
    pub key: Linear,
    /// Values, likewise.
    pub value: Linear,
    /// The projection of the concatenated heads.
    pub output: Linear,
    /// The norm of the attention sublayer: before it with pre norms, after it with post norms.
    pub attention_norm: Norm,
    /// The norm of the MLP, likewise.
    pub mlp_norm: Norm,
    /// The first matrix of the MLP, `[mlp_width, width]`.
    pub up: Linear,
    /// The second matrix of the MLP, `[width, mlp_width]`.
    pub down: Option<Linear>,
    /// The coefficients of a quadratic activation.
    pub quadratic: Option<Quadratic>,
}

/// y = x·weightᵀ + bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Rows of `weight`.
    pub outputs: usize,
    /// Columns of `weight`.
    pub inputs: usize,
    /// `[outputs, inputs]`.
    pub weight: Vec<f32>,
    /// `[outputs]`; only query, key and value can lack it.
    pub bias: Option<Vec<f32>>,
}

/// The learned part of a layer norm or of a folded batch norm, both `[width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// The factor of each channel.
    pub weight: Vec<f32>,
    /// What is added to each channel.
    pub bias: Vec<f32>,
}

/// a·x² + b·x per channel, both `[mlp_width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quadratic {
    /// The coefficient of x².
    pub a: Vec<f32>,
    /// The coefficient of x.
    pub b: Vec<f32>,
}

impl EncoderWeights {
    /// Reads `model.safetensors` from a folder.
    ///
    /// # Errors
    /// [`WeightError`] names the tensor, what was found and what the configuration wants.
    pub fn load(folder: &Path, config: &Config) -> Result<Self, WeightError> {
        let path = folder.join("model.safetensors");
        let file = File::open(&path)
            .map_err(|source| WeightError::Open { path: PathBuf::clone(&path), source })?;
        Self::read(file, config)
    }

    /// Reads the safetensors format from anything that can seek.
    ///
    /// The header is checked against the length of the stream before a tensor is allocated,
    /// and tensors are read one at a time, so memory stays near that of the result.
    ///
    /// # Errors
    /// As [`EncoderWeights::load`].
    pub fn read(reader: impl Read + Seek, config: &Config) -> Result<Self, WeightError> {
        let mut file = file::TensorFile::open(reader)?;
        let weights = collect::collect(&mut file, config)?;
        file.finish(weights.classifier.is_some())?;
        Ok(weights)
    }

    /// Weights drawn from a seed, for tests, benchmarks and plans: matrices keep the variance
    /// of their input, norms stay near the identity. The same seed gives the same weights.
    pub fn random(config: &Config, seed: u64) -> Self {
        random::random(config, seed)
    }

    /// Writes the weights of [`random`](Self::random) as safetensors in f32, under the names that
    /// [`load`](Self::load) reads.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write_random(config: &Config, seed: u64, path: &Path) -> std::io::Result<()> {
        random::write(config, seed, path)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        let linear = |x: &Linear| x.weight.len() + x.bias.as_ref().map_or(0, Vec::len);
        let norm = |x: &Norm| x.weight.len() + x.bias.len();
        let embeddings = match &self.embeddings {
            Embeddings::Vit { projection, position, class_token } => {
                linear(projection) + position.len() + class_token.as_ref().map_or(0, Vec::len)
            }
            Embeddings::Bert { word, position, token_type, norm: last } => {
                word.len() + position.len() + token_type.len() + norm(last)
            }
        };
        let layers = self.layers.iter().map(|layer| {
            let linears = [&layer.query, &layer.key, &layer.value, &layer.output, &layer.up];
            linears.map(linear).iter().sum::<usize>()
                + layer.down.as_ref().map_or(0, linear)
                + norm(&layer.attention_norm)
                + norm(&layer.mlp_norm)
                + layer.quadratic.as_ref().map_or(0, |q| q.a.len() + q.b.len())
        });
        embeddings
            + layers.sum::<usize>()
            + self.final_norm.as_ref().map_or(0, norm)
            + self.classifier.as_ref().map_or(0, linear)
    }
}

#[cfg(test)]
mod tests;
