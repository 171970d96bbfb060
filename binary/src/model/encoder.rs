//! The parts of a one-bit encoder and how they are read.

use super::LoadError;
use super::config::{Activation, Coding, Config, HeadConfig, Reduction, Weights};
use super::source::Source;
use crate::ecoformer::{Hash, Sigma, Variant};
use crate::{BinaryLinear, Level};

/// A transformer with one-bit attention: a vision transformer with pre-norms, or a text model with
/// post-norms.
#[derive(Clone, Debug)]
pub struct Encoder {
    pub(super) config: Config,
    pub(super) embed: Embed,
    pub(super) layers: Vec<Layer>,
    /// After the last layer, in a vision transformer.
    pub(super) norm: Option<Norm>,
    pub(super) classifier: Linear,
    pub(super) arithmetic: Arithmetic,
}

/// How an encoder computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// On packed bits, with these instructions.
    Packed(Level),
    /// The same model in floating point, as it was trained: signs are ±1, attention is computed
    /// from its definition. The yardstick of the packed form.
    Float,
}

/// What turns inputs into the first residual stream.
#[derive(Clone, Debug)]
pub(super) enum Embed {
    Patches { projection: Linear, position: Vec<f32> },
    Words { word: Vec<f32>, position: Vec<f32>, token_type: Vec<f32>, norm: Norm },
}

#[derive(Clone, Debug)]
pub(super) enum Linear {
    Dense { weight: Vec<f32>, bias: Vec<f32>, inputs: usize },
    Binary(Box<BinaryLinear>),
}

#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) eps: f32,
}

#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) norm1: Norm,
    pub(super) query: Linear,
    pub(super) value: Linear,
    pub(super) attention: Attention,
    pub(super) out: Linear,
    pub(super) norm2: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) activation: Activation,
}

#[derive(Clone, Debug)]
pub(super) enum Attention {
    Hashed { codes: Vec<Codes>, bits: usize, variant: Variant },
    Binary { key: Linear, beta: f64, mean: bool, values: Values },
}

/// What BiViT's attention adds up: floats, or signs with a scale a channel.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Float,
    Signs(Vec<f32>),
}

/// How a head turns tokens into codes.
#[derive(Clone, Debug)]
pub(super) enum Codes {
    Kernel(Box<Hash>),
    /// Random hyperplanes, bits × width: the control.
    Planes(Vec<f32>),
}

/// Anchors of a hash in a model's files.
pub(super) const ANCHORS: usize = 25;

/// Names of a layer's tensors.
struct Names {
    layer: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    norm1: &'static str,
    norm2: &'static str,
}

const VIT: Names = Names {
    layer: "vit.encoder.layer",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    norm1: "layernorm_before",
    norm2: "layernorm_after",
};

const BERT: Names = Names {
    layer: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    norm1: "attention.output.LayerNorm",
    norm2: "output.LayerNorm",
};

fn names(config: &Config) -> Names {
    if config.is_text() { BERT } else { VIT }
}

impl Encoder {
    /// The beginning of the names of a layer's tensors.
    pub(super) fn layer_name(config: &Config, layer: usize) -> String {
        format!("{}.{layer}", names(config).layer)
    }

    /// The beginnings of the names of a layer's query and key.
    pub(super) fn query_and_key(config: &Config, layer: usize) -> (String, String) {
        let (stem, names) = (Self::layer_name(config, layer), names(config));
        (format!("{stem}.{}", names.query), format!("{stem}.{}", names.key))
    }

    /// Reads all tensors in the order of the packed format.
    pub(super) fn read(config: Config, from: &mut impl Source) -> Result<Self, LoadError> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let eps = config.layer_norm_eps as f32;
        let embed = Embed::read(from, &config, eps)?;
        let names = names(&config);
        let mut layers = Vec::new();
        for (i, layer) in config.undertone.layers.iter().enumerate() {
            let base = Self::layer_name(&config, i);
            let signs = layer.weights;
            let linear = |from: &mut _, name: &str, inputs, outputs| {
                Linear::read(from, &format!("{base}.{name}"), inputs, outputs, signs)
            };
            let norm1 = Norm::read(from, &format!("{base}.{}", names.norm1), width, eps)?;
            let query = linear(from, names.query, width, width)?;
            let value = linear(from, names.value, width, width)?;
            let attention = match layer.heads[0] {
                HeadConfig::EcoFormer { bits, variant } => {
                    let stem = format!("{base}.attention.hash");
                    Attention::hashed(from, &stem, &config, bits, variant)?
                }
                HeadConfig::Bivit { beta, variant, values } => Attention::Binary {
                    key: linear(from, names.key, width, width)?,
                    beta,
                    mean: variant == Reduction::Mean,
                    values: match values {
                        Weights::Float => Values::Float,
                        Weights::Sign => Values::Signs(
                            from.floats(&format!("{base}.attention.value_scale"), &[width])?,
                        ),
                    },
                },
            };
            layers.push(Layer {
                norm1,
                query,
                value,
                attention,
                out: linear(from, "attention.output.dense", width, width)?,
                norm2: Norm::read(from, &format!("{base}.{}", names.norm2), width, eps)?,
                up: linear(from, "intermediate.dense", width, inner)?,
                down: linear(from, "output.dense", inner, width)?,
                activation: layer.activation,
            });
        }
        let norm = match config.is_text() {
            true => None,
            false => Some(Norm::read(from, "vit.layernorm", width, eps)?),
        };
        let classes = config.id2label.len();
        let classifier = Linear::read(from, "classifier", width, classes, Weights::Float)?;
        let arithmetic = Arithmetic::Packed(Level::best());
        Ok(Self { config, embed, layers, norm, classifier, arithmetic })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same encoder with a chosen set of instructions, or the machine's best below it.
    #[must_use]
    pub fn at(mut self, level: Level) -> Self {
        self.arithmetic = Arithmetic::Packed(level.clamped());
        self
    }

    /// The same model in floating point: one-bit weights become floats, ±scale.
    #[must_use]
    pub fn in_floats(mut self) -> Self {
        self.arithmetic = Arithmetic::Float;
        for layer in &mut self.layers {
            let linears = [
                &mut layer.query,
                &mut layer.value,
                &mut layer.out,
                &mut layer.up,
                &mut layer.down,
            ];
            linears.into_iter().for_each(Linear::expand);
            if let Attention::Binary { key, .. } = &mut layer.attention {
                key.expand();
            }
        }
        self
    }

    /// Parameters, and the bytes they take as they are held: a bit for a one-bit weight, four
    /// bytes for any other.
    pub fn size(&self) -> (usize, usize) {
        self.size_with(4)
    }

    /// Parameters, and the bytes they take where those that are no bits take so many each.
    pub fn size_with(&self, bytes_a_number: usize) -> (usize, usize) {
        let mut size = Size::default();
        match &self.embed {
            Embed::Patches { projection, position } => {
                size.linear(projection);
                size.floats(position.len());
            }
            Embed::Words { word, position, token_type, norm } => {
                size.floats(word.len() + position.len() + token_type.len());
                size.norm(norm);
            }
        }
        for layer in &self.layers {
            size.norm(&layer.norm1);
            size.norm(&layer.norm2);
            for linear in [&layer.query, &layer.value, &layer.out, &layer.up, &layer.down] {
                size.linear(linear);
            }
            match &layer.attention {
                Attention::Hashed { codes, .. } => codes.iter().for_each(|codes| match codes {
                    Codes::Planes(planes) => size.floats(planes.len()),
                    Codes::Kernel(h) => {
                        size.floats(h.anchors().len() + h.planes().len() + h.means().len());
                    }
                }),
                Attention::Binary { key, values, .. } => {
                    size.linear(key);
                    if let Values::Signs(scale) = values {
                        size.floats(scale.len());
                    }
                }
            }
        }
        self.norm.iter().for_each(|norm| size.norm(norm));
        size.linear(&self.classifier);
        (size.floats + size.bits, bytes_a_number * size.floats + size.bits / 8)
    }
}

#[derive(Default)]
struct Size {
    floats: usize,
    bits: usize,
}

impl Size {
    fn floats(&mut self, n: usize) {
        self.floats += n;
    }

    fn norm(&mut self, norm: &Norm) {
        self.floats(norm.weight.len() + norm.bias.len());
    }

    fn linear(&mut self, linear: &Linear) {
        match linear {
            Linear::Dense { weight, bias, .. } => self.floats(weight.len() + bias.len()),
            Linear::Binary(layer) => {
                self.bits += layer.weights().rows() * layer.weights().dim();
                self.floats(layer.scale().len() + layer.bias().map_or(0, <[f32]>::len));
            }
        }
    }
}

impl Embed {
    fn read(from: &mut impl Source, config: &Config, eps: f32) -> Result<Self, LoadError> {
        let width = config.hidden_size;
        if config.is_text() {
            let table = |from: &mut _, name: &str, rows| {
                Source::floats(from, &format!("embeddings.{name}.weight"), &[rows, width])
            };
            return Ok(Self::Words {
                word: table(from, "word_embeddings", config.vocab_size)?,
                position: table(from, "position_embeddings", config.max_position_embeddings)?,
                token_type: table(from, "token_type_embeddings", config.type_vocab_size)?,
                norm: Norm::read(from, "embeddings.LayerNorm", width, eps)?,
            });
        }
        let stem = "vit.embeddings.patch_embeddings.projection";
        let patch = [width, config.num_channels, config.patch_size, config.patch_size];
        Ok(Self::Patches {
            projection: Linear::Dense {
                weight: from.floats(&format!("{stem}.weight"), &patch)?,
                bias: from.floats(&format!("{stem}.bias"), &[width])?,
                inputs: config.patch_len(),
            },
            position: from
                .floats("vit.embeddings.position_embeddings", &[1, config.tokens(), width])?,
        })
    }
}

impl Linear {
    fn read(
        from: &mut impl Source,
        name: &str,
        inputs: usize,
        outputs: usize,
        weights: Weights,
    ) -> Result<Self, LoadError> {
        if weights == Weights::Float {
            return Ok(Self::Dense {
                weight: from.floats(&format!("{name}.weight"), &[outputs, inputs])?,
                bias: from.floats(&format!("{name}.bias"), &[outputs])?,
                inputs,
            });
        }
        let signs = from.signs(&format!("{name}.weight_bits"), outputs, inputs)?;
        let scale = from.floats(&format!("{name}.weight_scale"), &[outputs])?;
        let bias = from.floats(&format!("{name}.bias"), &[outputs])?;
        let layer = BinaryLinear::new(signs, scale, Some(bias))
            .map_err(|fault| LoadError::Bits { tensor: name.into(), fault })?;
        Ok(Self::Binary(Box::new(layer)))
    }

    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Dense { bias, .. } => bias.len(),
            Self::Binary(layer) => layer.weights().rows(),
        }
    }

    pub(super) fn inputs(&self) -> usize {
        match self {
            Self::Dense { inputs, .. } => *inputs,
            Self::Binary(layer) => layer.weights().dim(),
        }
    }

    fn expand(&mut self) {
        if let Self::Binary(layer) = self {
            let inputs = layer.weights().dim();
            let mut weight = layer.weights().unpack();
            for (row, scale) in weight.chunks_exact_mut(inputs).zip(layer.scale()) {
                row.iter_mut().for_each(|w| *w *= scale);
            }
            let bias =
                layer.bias().map_or_else(|| vec![0.0; layer.weights().rows()], <[f32]>::to_vec);
            *self = Self::Dense { weight, bias, inputs };
        }
    }
}

impl Norm {
    fn read(from: &mut impl Source, name: &str, width: usize, eps: f32) -> Result<Self, LoadError> {
        let weight = from.floats(&format!("{name}.weight"), &[width])?;
        let bias = from.floats(&format!("{name}.bias"), &[width])?;
        Ok(Self { weight, bias, eps })
    }
}

impl Attention {
    fn hashed(
        from: &mut impl Source,
        stem: &str,
        config: &Config,
        bits: usize,
        variant: Coding,
    ) -> Result<Self, LoadError> {
        let (heads, d) = (config.num_attention_heads, config.head_width());
        let codes = if variant == Coding::Simhash {
            let planes = from.floats(&format!("{stem}.vectors"), &[heads, bits, d])?;
            planes.chunks_exact((bits * d).max(1)).map(|p| Codes::Planes(p.to_vec())).collect()
        } else {
            let planes = from.floats(&format!("{stem}.vectors"), &[heads, bits, ANCHORS])?;
            let anchors = from.floats(&format!("{stem}.anchors"), &[heads, ANCHORS, d])?;
            let means = from.floats(&format!("{stem}.mean"), &[heads, ANCHORS])?;
            (0..heads)
                .map(|h| {
                    let part = |x: &[f32]| {
                        let each = x.len() / heads;
                        x[h * each..(h + 1) * each].to_vec()
                    };
                    let sigma = Sigma::Dynamic;
                    Hash::new(d, part(&anchors), part(&planes), part(&means), sigma)
                        .map(|hash| Codes::Kernel(Box::new(hash)))
                        .map_err(|fault| LoadError::Bits { tensor: stem.into(), fault })
                })
                .collect::<Result<_, _>>()?
        };
        let variant = if variant == Coding::Repo { Variant::Repo } else { Variant::Exact };
        Ok(Self::Hashed { codes, bits, variant })
    }
}
