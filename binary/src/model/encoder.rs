//! The encoder: pre-norm blocks, mean pooling, classifier.

use super::LoadError;
use super::config::{Activation, Coding, Config, HeadConfig, Reduction, Weights};
use super::source::Source;
use crate::ecoformer::{self, Hash, Sigma, Variant};
use crate::{BinaryLinear, Level, Signs, bivit};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use undertone_core::binary::BitFault;

/// A vision transformer with binary attention.
#[derive(Clone, Debug)]
pub struct Encoder {
    config: Config,
    embed: Linear,
    position: Vec<f32>,
    layers: Vec<Layer>,
    norm: Norm,
    classifier: Linear,
    level: Level,
}

#[derive(Clone, Debug)]
enum Linear {
    Dense { weight: Vec<f32>, bias: Vec<f32>, inputs: usize },
    Binary(Box<BinaryLinear>),
}

#[derive(Clone, Debug)]
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

#[derive(Clone, Debug)]
struct Layer {
    norm1: Norm,
    query: Linear,
    value: Linear,
    attention: Attention,
    out: Linear,
    norm2: Norm,
    up: Linear,
    down: Linear,
    activation: Activation,
}

#[derive(Clone, Debug)]
enum Attention {
    Hashed { codes: Vec<Codes>, bits: usize, variant: Variant },
    Binary { key: Linear, margin: u32, mean: bool, values: Values },
}

/// What BiViT's attention adds up: floats, or signs with a scale a channel.
#[derive(Clone, Debug)]
enum Values {
    Float,
    Signs(Vec<f32>),
}

/// How a head turns tokens into codes.
#[derive(Clone, Debug)]
enum Codes {
    Kernel(Box<Hash>),
    /// Random hyperplanes, bits × width: the control.
    Planes(Vec<f32>),
}

impl Encoder {
    /// Reads all tensors in the order of the packed format.
    pub(super) fn read(config: Config, from: &mut impl Source) -> Result<Self, LoadError> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let eps = config.layer_norm_eps as f32;
        let stem = "vit.embeddings.patch_embeddings.projection";
        let patch = [width, config.num_channels, config.patch_size, config.patch_size];
        let embed = Linear::Dense {
            weight: from.floats(&format!("{stem}.weight"), &patch)?,
            bias: from.floats(&format!("{stem}.bias"), &[width])?,
            inputs: config.patch_len(),
        };
        let position =
            from.floats("vit.embeddings.position_embeddings", &[1, config.tokens(), width])?;
        let mut layers = Vec::new();
        for (i, layer) in config.undertone.layers.iter().enumerate() {
            let base = format!("vit.encoder.layer.{i}");
            let signs = layer.weights;
            let linear = |from: &mut _, name: &str, inputs, outputs| {
                Linear::read(from, &format!("{base}.{name}"), inputs, outputs, signs)
            };
            let norm1 = Norm::read(from, &format!("{base}.layernorm_before"), width, eps)?;
            let query = linear(from, "attention.attention.query", width, width)?;
            let value = linear(from, "attention.attention.value", width, width)?;
            let attention = match layer.heads[0] {
                HeadConfig::EcoFormer { bits, variant } => {
                    let stem = format!("{base}.attention.hash");
                    Attention::hashed(from, &stem, &config, bits, variant)?
                }
                HeadConfig::Bivit { beta, variant, values } => Attention::Binary {
                    key: linear(from, "attention.attention.key", width, width)?,
                    margin: bivit::margin_of(beta, config.head_width()),
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
                norm2: Norm::read(from, &format!("{base}.layernorm_after"), width, eps)?,
                up: linear(from, "intermediate.dense", width, inner)?,
                down: linear(from, "output.dense", inner, width)?,
                activation: layer.activation,
            });
        }
        let norm = Norm::read(from, "vit.layernorm", width, eps)?;
        let classes = config.id2label.len();
        let classifier = Linear::read(from, "classifier", width, classes, Weights::Float)?;
        let level = Level::best();
        Ok(Self { config, embed, position, layers, norm, classifier, level })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same encoder with a chosen set of instructions, or the machine's best below it.
    #[must_use]
    pub fn at(mut self, level: Level) -> Self {
        self.level = level.clamped();
        self
    }

    /// Logits of one image: channels × side × side values in 0…1.
    ///
    /// # Errors
    /// [`BitFault::Size`] for another number of values, [`BitFault::NotFinite`] for NaN and
    /// infinities, also where activations overflow.
    pub fn logits(&self, pixels: &[f32]) -> Result<Vec<f32>, BitFault> {
        let c = &self.config;
        let wanted = c.num_channels * c.image_size * c.image_size;
        if pixels.len() != wanted {
            return Err(BitFault::Size {
                operation: "binary encoder",
                what: "the number of pixel values",
                expected: wanted,
                got: pixels.len(),
            });
        }
        undertone_core::binary::finite("binary encoder", pixels)?;
        let mut x = self.embed.apply(self.level, &self.patches(pixels))?;
        add(&mut x, &self.position);
        for layer in &self.layers {
            let normed = layer.norm1.apply(&x);
            add(&mut x, &self.attend(layer, &normed)?);
            let normed = layer.norm2.apply(&x);
            add(&mut x, &self.feed(layer, &normed)?);
        }
        let x = self.norm.apply(&x);
        let n = c.tokens() as f32;
        let mut pooled = vec![0.0; c.hidden_size];
        x.chunks_exact(c.hidden_size).for_each(|row| add(&mut pooled, row));
        pooled.iter_mut().for_each(|p| *p /= n);
        self.classifier.apply(self.level, &pooled)
    }

    /// Normalised patches, tokens × (channels · patch · patch).
    fn patches(&self, pixels: &[f32]) -> Vec<f32> {
        let c = &self.config;
        let (side, p) = (c.image_size, c.patch_size);
        let mut out = Vec::with_capacity(pixels.len());
        for top in (0..side).step_by(p) {
            for left in (0..side).step_by(p) {
                for channel in 0..c.num_channels {
                    let (mean, std) =
                        (c.undertone.pixel_mean[channel], c.undertone.pixel_std[channel]);
                    for y in top..top + p {
                        let row = &pixels[(channel * side + y) * side + left..][..p];
                        out.extend(row.iter().map(|v| (v - mean) / std));
                    }
                }
            }
        }
        out
    }

    fn attend(&self, layer: &Layer, x: &[f32]) -> Result<Vec<f32>, BitFault> {
        let (width, d) = (self.config.hidden_size, self.config.head_width());
        let q = layer.query.apply(self.level, x)?;
        let v = layer.value.apply(self.level, x)?;
        let mut context = vec![0.0; x.len()];
        let key = match &layer.attention {
            Attention::Hashed { .. } => None,
            Attention::Binary { key, .. } => Some(key.apply(self.level, x)?),
        };
        for head in 0..self.config.num_attention_heads {
            let take = |x: &[f32]| columns(x, width, head * d, d);
            let (q, v) = (take(&q), take(&v));
            let out = match &layer.attention {
                Attention::Hashed { codes, bits, variant } => {
                    let codes = codes[head].codes(self.level, &q, d, *bits)?;
                    let mut out = vec![0.0; v.len()];
                    ecoformer::attend_at(
                        self.level, &codes, &codes, *bits, &v, *variant, &mut out,
                    )?;
                    out
                }
                Attention::Binary { margin, mean, values, .. } => {
                    let k = key.as_deref().map(take).unwrap_or_default();
                    let scale = match values {
                        Values::Float => None,
                        Values::Signs(scale) => Some(&scale[head * d..(head + 1) * d]),
                    };
                    self.binary(&q, &k, &v, *margin, *mean, scale)?
                }
            };
            for (to, row) in context.chunks_exact_mut(width).zip(out.chunks_exact(d)) {
                to[head * d..(head + 1) * d].copy_from_slice(row);
            }
        }
        layer.out.apply(self.level, &context)
    }

    /// BiViT's attention of one head.
    fn binary(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        margin: u32,
        mean: bool,
        scale: Option<&[f32]>,
    ) -> Result<Vec<f32>, BitFault> {
        let d = self.config.head_width();
        let (q, k) = (Signs::pack(q, d)?, Signs::pack(k, d)?);
        let mut counts = vec![0; q.rows()];
        let mut out = vec![0.0; v.len()];
        match scale {
            Some(scale) => {
                let v = Signs::pack(v, d)?;
                let mut sums = vec![0; out.len()];
                bivit::attend_counted(self.level, &q, &k, &v, margin, &mut sums, &mut counts)?;
                for (out, sums) in out.chunks_exact_mut(d).zip(sums.chunks_exact(d)) {
                    for ((o, &s), scale) in out.iter_mut().zip(sums).zip(scale) {
                        *o = s as f32 * scale;
                    }
                }
            }
            None => bivit::attend_floats(self.level, &q, &k, v, margin, &mut out, &mut counts)?,
        }
        if mean {
            for (row, &count) in out.chunks_exact_mut(d).zip(&counts) {
                row.iter_mut().for_each(|o| *o /= count as f32);
            }
        }
        Ok(out)
    }

    fn feed(&self, layer: &Layer, x: &[f32]) -> Result<Vec<f32>, BitFault> {
        match layer.activation {
            Activation::Gelu => {
                let mut hidden = layer.up.apply(self.level, x)?;
                hidden.iter_mut().for_each(|h| *h = gelu(*h));
                layer.down.apply(self.level, &hidden)
            }
            Activation::Sign => {
                let hidden = layer.up.apply_signs(self.level, x)?;
                layer.down.apply_signs(self.level, &hidden)
            }
        }
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

    fn apply(&self, level: Level, x: &[f32]) -> Result<Vec<f32>, BitFault> {
        match self {
            Self::Dense { weight, bias, inputs } => {
                let (n, outputs) = (x.len() / inputs, bias.len());
                let mut out = bias.repeat(n);
                matmul(
                    MatMut::from_row_major_slice_mut(&mut out, n, outputs),
                    Accum::Add,
                    MatRef::from_row_major_slice(x, n, *inputs),
                    MatRef::from_row_major_slice(weight, outputs, *inputs).transpose(),
                    1.0,
                    Par::Seq,
                );
                Ok(out)
            }
            Self::Binary(layer) => {
                let n = x.len() / layer.weights().dim();
                let mut out = vec![0.0; n * layer.weights().rows()];
                layer.floats(level, x, &mut out)?;
                Ok(out)
            }
        }
    }

    /// The product with the signs of `x`. Only binary layers are asked: a configuration with
    /// `sign` activations and float weights is refused.
    fn apply_signs(&self, level: Level, x: &[f32]) -> Result<Vec<f32>, BitFault> {
        match self {
            Self::Dense { .. } => {
                let signs: Vec<f32> =
                    x.iter().map(|&v| if v >= 0.0 { 1.0 } else { -1.0 }).collect();
                self.apply(level, &signs)
            }
            Self::Binary(layer) => {
                let x = Signs::pack(x, layer.weights().dim())?;
                let mut out = vec![0.0; x.rows() * layer.weights().rows()];
                layer.bits(level, &x, &mut out)?;
                Ok(out)
            }
        }
    }
}

impl Norm {
    fn read(from: &mut impl Source, name: &str, width: usize, eps: f32) -> Result<Self, LoadError> {
        let weight = from.floats(&format!("{name}.weight"), &[width])?;
        let bias = from.floats(&format!("{name}.bias"), &[width])?;
        Ok(Self { weight, bias, eps })
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let width = self.weight.len();
        let mut out = Vec::with_capacity(x.len());
        for row in x.chunks_exact(width) {
            let mean = row.iter().sum::<f32>() / width as f32;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width as f32;
            let factor = 1.0 / (variance + self.eps).sqrt();
            let scaled = row.iter().zip(&self.weight).zip(&self.bias);
            out.extend(scaled.map(|((v, w), b)| (v - mean) * factor * w + b));
        }
        out
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
            const ANCHORS: usize = 25;
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

impl Codes {
    fn codes(&self, level: Level, x: &[f32], d: usize, bits: usize) -> Result<Vec<u16>, BitFault> {
        let mut codes = vec![0; x.len() / d];
        match self {
            Self::Kernel(hash) => hash.codes_at(level, x, &mut codes)?,
            Self::Planes(planes) => {
                for (token, code) in x.chunks_exact(d).zip(&mut codes) {
                    for (b, plane) in planes.chunks_exact(d).take(bits).enumerate() {
                        let y: f32 = token.iter().zip(plane).map(|(x, p)| x * p).sum();
                        *code |= u16::from(y >= 0.0) << b;
                    }
                }
            }
        }
        Ok(codes)
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn columns(x: &[f32], width: usize, from: usize, count: usize) -> Vec<f32> {
    x.chunks_exact(width).flat_map(|row| &row[from..from + count]).copied().collect()
}

/// x·Φ(x) with the error function (Hendrycks and Gimpel 2016).
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}
