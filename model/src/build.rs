//! From a model folder to an encoder in any world.

use std::path::Path;

use undertone_core::attention::{Kind, Variant};
use undertone_core::encoder::{
    self, Activation, Encoder, Group, Groups, Layer, Norm, NormPosition, Pooling,
};
use undertone_core::{Approximate, Fault, Function, Mask, Menu, Multiply, Num, Role, Shape, Site};

use crate::ModelError;
use crate::config::{self, Config, HeadKind, Input, NormKind};
use crate::domains::Calibration;
use crate::host::{Host, Use, Weight};
use crate::input::{EncoderInput, InputError, patchify};
use crate::weights::{self, Embeddings, EncoderWeights, LayerWeights};

/// A model folder, read and checked.
#[derive(Clone, Debug)]
pub struct Model {
    /// The configuration.
    pub config: Config,
    /// The weights.
    pub weights: EncoderWeights,
    /// The calibrated ranges.
    pub calibration: Calibration,
}

impl Model {
    /// Reads a folder.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let config = Config::load(folder)?;
        let weights = EncoderWeights::load(folder, &config)?;
        let calibration = Calibration::from_config(&config)?;
        Ok(Self { config, weights, calibration })
    }

    /// A model of this configuration with random weights, for costs and tests.
    ///
    /// # Errors
    /// Domains in the configuration that are no sites.
    pub fn random(config: Config, seed: u64) -> Result<Self, ModelError> {
        let weights = EncoderWeights::random(&config, seed);
        let calibration = Calibration::from_config(&config)?;
        Ok(Self { config, weights, calibration })
    }

    /// A text model of which only the embedding table is known, from the file that
    /// [`EncoderWeights::write_embeddings`] makes; all other weights are random. For a client, who
    /// embeds its text and has no weights.
    ///
    /// # Errors
    /// What is wrong with the file or the configuration's domains.
    pub fn with_embeddings(config: Config, path: &Path) -> Result<Self, ModelError> {
        let weights = EncoderWeights::load_embeddings(path, &config)?;
        let calibration = Calibration::from_config(&config)?;
        Ok(Self { config, weights, calibration })
    }

    /// Number of tokens of an image.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.config.tokens()
    }

    /// Number of tokens of a usual input: those of an image, of an episode of the model's task, or
    /// the longest text.
    #[must_use]
    pub fn task_tokens(&self) -> usize {
        match self.config.task {
            Some(config::Task::Recall { pairs, .. }) => pairs as usize + 1,
            _ => self.config.tokens(),
        }
    }

    /// Prepares the encoder in a world, checking every kind of attention against the menu.
    ///
    /// # Errors
    /// A kind that the menu does not offer, or values that the world cannot hold.
    pub fn prepare<W: Host + Multiply + Approximate, M: Menu<W>>(
        &self,
        w: &mut W,
    ) -> Result<Prepared<W>, W::Error> {
        let c = &self.config;
        let (embed, position, embed_norm) = match &self.weights.embeddings {
            Embeddings::Vit { projection, position, class_token } => {
                let rows =
                    vit_position(c, position, class_token.as_deref(), projection.bias.as_deref());
                let shape = Shape::new(1, c.tokens(), c.width);
                let embed = w.linear(linear(
                    Use::Embed,
                    projection,
                    &projection.weight,
                    projection.bias.as_deref(),
                ))?;
                (Some(embed), Some(w.vector(shape, &rows)?), None)
            }
            Embeddings::Bert { norm: n, .. } => {
                (None, None, Some(norm(w, c.embedding_norm_kind(), n, c.norm_eps)?))
            }
        };
        let mut layers = Vec::with_capacity(c.layers.len());
        for (config, weights) in c.layers.iter().zip(&self.weights.layers) {
            layers.push(layer::<W, M>(w, c, config, weights)?);
        }
        let final_norm = match &self.weights.final_norm {
            Some(n) => Some(norm(w, c.final_norm_kind(), n, c.norm_eps)?),
            None => None,
        };
        let classifier = match &self.weights.classifier {
            Some(l) => Some(w.linear(linear(Use::Classifier, l, &l.weight, l.bias.as_deref()))?),
            None => None,
        };
        let pooling = match c.pooling {
            config::Pooling::Mean => Pooling::Mean,
            config::Pooling::First => Pooling::First,
            config::Pooling::None => Pooling::None,
        };
        Ok(Encoder { embed, position, embed_norm, layers, final_norm, pooling, classifier })
    }

    /// The shape of the encoder's input for a batch: patches of images, or embedded tokens.
    #[must_use]
    pub fn input_shape(&self, batch: usize, tokens: usize) -> Shape {
        match &self.config.input {
            Input::Vit(vit) => Shape::new(batch, self.config.tokens(), vit.patch_len()),
            Input::Bert(_) => Shape::new(batch, tokens, self.config.width),
        }
    }

    /// Runs a prepared encoder on values in the clear and reveals the result.
    ///
    /// # Errors
    /// The world's errors.
    pub fn run<W: Host + Multiply + Approximate, M: Menu<W>>(
        &self,
        w: &mut W,
        encoder: &Prepared<W>,
        shape: Shape,
        values: &[f32],
        mask: &Mask<'_>,
    ) -> Result<Vec<f32>, W::Error> {
        use undertone_core::Domains as _;
        let on = self.calibration.bound(Site::outside(Role::Input));
        let input = w.secret(shape, values, on)?;
        let output = encoder.run::<M>(w, input, mask, &self.calibration)?;
        w.reveal(&output)
    }

    /// What an encoder is fed for one example, (tokens, columns) of [`Model::input_shape`]: the
    /// patches of an image, after a row of zeros where there is a class token, or the embedded
    /// tokens of a text (word + position + token type 0). The client's part, in the clear.
    ///
    /// # Errors
    /// An input that does not fit the model.
    pub fn rows(&self, input: &EncoderInput<'_>) -> Result<Vec<f32>, InputError> {
        input.check(&self.config)?;
        Ok(match (input, &self.config.input, &self.weights.embeddings) {
            (EncoderInput::Image(image), Input::Vit(vit), _) => {
                let mut rows = vec![0.0; if vit.class_token { vit.patch_len() } else { 0 }];
                rows.extend(patchify(image, vit));
                rows
            }
            (
                EncoderInput::Tokens { ids, .. },
                _,
                Embeddings::Bert { word, position, token_type, .. },
            ) => {
                let width = self.config.width;
                let row = |&id: &u32| &word[id as usize * width..][..width];
                ids.iter()
                    .zip(position.chunks_exact(width))
                    .flat_map(|(id, place)| {
                        row(id).iter().zip(place).zip(token_type).map(|((a, b), c)| a + b + c)
                    })
                    .collect()
            }
            // `check` has refused every other combination.
            _ => Vec::new(),
        })
    }
}

/// An encoder prepared in a world.
pub type Prepared<W> = Encoder<W, Vec<Layer<W>>>;

fn linear<'a>(
    role: Use,
    l: &weights::Linear,
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
) -> Weight<'a> {
    Weight { role, inputs: l.inputs, outputs: l.outputs, weight, bias }
}

/// Position embeddings with the class token folded in: its row of the input is zero, so the patch
/// projection leaves its bias there, which is taken back.
fn vit_position(
    c: &Config,
    position: &[f32],
    class: Option<&[f32]>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let mut rows = position.to_vec();
    if let Some(class) = class {
        for (i, x) in rows.iter_mut().take(c.width).enumerate() {
            *x += class[i] - bias.map_or(0.0, |b| b[i]);
        }
    }
    rows
}

fn norm<W: Host>(
    w: &mut W,
    kind: NormKind,
    n: &weights::Norm,
    eps: f64,
) -> Result<Norm<W>, W::Error> {
    let shape = Shape::new(1, 1, n.weight.len());
    let (gain, bias) = (w.vector(shape, &n.weight)?, w.vector(shape, &n.bias)?);
    Ok(match kind {
        NormKind::LayerNorm => Norm::Layer { gain, bias, eps: Num::of(eps) },
        NormKind::Affine => Norm::Affine { gain, bias },
    })
}

/// The kinds of a layer in order of first appearance, and the heads in that order.
fn groups(heads: &[HeadKind]) -> Result<(Groups, Vec<usize>), Fault> {
    let mut groups: Vec<Group> = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (number, head) in heads.iter().enumerate() {
        let kind = kind(head);
        match groups.iter().position(|g| g.kind == kind) {
            Some(at) => {
                groups[at].heads += 1;
                members[at].push(number);
            }
            None => {
                groups.push(Group { heads: 1, kind });
                members.push(vec![number]);
            }
        }
    }
    let groups = Groups::new(&groups).ok_or(Fault::Capacity {
        what: "kinds of attention in a layer",
        limit: encoder::MAX_GROUPS,
    })?;
    Ok((groups, members.concat()))
}

/// The core's attention kind of a configured head.
#[must_use]
pub fn kind(head: &HeadKind) -> Kind {
    // An exponent beyond u8 becomes zero, which the menu's check refuses.
    let exponent = |p: u32| u8::try_from(p).unwrap_or(0);
    match *head {
        HeadKind::Softmax => Kind::Softmax,
        HeadKind::Power { p, eps, mean: true } => {
            Kind::Power { p: exponent(p), variant: Variant::LengthAgnostic { eps: Num::of(eps) } }
        }
        HeadKind::Power { p, eps: 0.0, mean: false } => {
            Kind::Power { p: exponent(p), variant: Variant::Plain }
        }
        HeadKind::Power { p, eps, mean: false } => {
            Kind::Power { p: exponent(p), variant: Variant::Lipschitz { eps: Num::of(eps) } }
        }
        HeadKind::ReluSoftmax { eps } => Kind::ReluSoftmax { eps: Num::of(eps) },
        HeadKind::Scaling => Kind::Scaling,
        HeadKind::TwoQuad { c, eps } => Kind::TwoQuad { c: Num::of(c), eps: Num::of(eps) },
        HeadKind::ReluSquared => Kind::ReluSquared,
        HeadKind::Uniform => Kind::Uniform,
    }
}

/// Rows of a `[outputs, inputs]` matrix (or a bias with `inputs` 1) reordered by heads and scaled.
fn permute_rows(values: &[f32], inputs: usize, d: usize, order: &[usize], factor: f32) -> Vec<f32> {
    order
        .iter()
        .flat_map(|&h| &values[h * d * inputs..(h + 1) * d * inputs])
        .map(|x| x * factor)
        .collect()
}

/// Columns of the output projection reordered by heads.
fn permute_columns(values: &[f32], inputs: usize, d: usize, order: &[usize]) -> Vec<f32> {
    values
        .chunks_exact(inputs)
        .flat_map(|row| order.iter().flat_map(move |&h| &row[h * d..(h + 1) * d]))
        .copied()
        .collect()
}

fn layer<W: Host + Multiply + Approximate, M: Menu<W>>(
    w: &mut W,
    c: &Config,
    config: &config::Layer,
    weights: &LayerWeights,
) -> Result<Layer<W>, W::Error> {
    let (groups, order) = groups(&config.heads)?;
    for group in groups.iter() {
        M::check(&group.kind)?;
    }
    let d = c.head_width();
    let temperature = 1.0 / (d as f32).sqrt();
    let projection = |w: &mut W, role, l: &weights::Linear, factor: f32| {
        let weight = permute_rows(&l.weight, l.inputs, d, &order, factor);
        let bias = l.bias.as_ref().map(|b| permute_rows(b, 1, d, &order, factor));
        w.linear(linear(role, l, &weight, bias.as_deref()))
    };
    let query = projection(w, Use::Query, &weights.query, temperature)?;
    let key = projection(w, Use::Key, &weights.key, 1.0)?;
    let value = projection(w, Use::Value, &weights.value, 1.0)?;
    let plain = |w: &mut W, role, l: &weights::Linear| {
        w.linear(linear(role, l, &l.weight, l.bias.as_deref()))
    };
    let o = &weights.output;
    let out = permute_columns(&o.weight, o.inputs, d, &order);
    let out = w.linear(linear(Use::Out, o, &out, o.bias.as_deref()))?;
    let activation = match &config.activation {
        config::Activation::Gelu => Activation::Map(Function::Gelu),
        config::Activation::Relu => Activation::Relu,
        config::Activation::Identity => Activation::Identity,
        config::Activation::Quadratic => {
            let Some(q) = &weights.quadratic else {
                return Err(Fault::Parameter {
                    what: "quadratic activation without coefficients",
                    got: 0,
                }
                .into());
            };
            let shape = Shape::new(1, 1, q.a.len());
            Activation::Quadratic { a: w.vector(shape, &q.a)?, b: w.vector(shape, &q.b)? }
        }
    };
    Ok(Layer {
        context_scale: None,
        query,
        key,
        value,
        out,
        up: plain(w, Use::Up, &weights.up)?,
        down: weights.down.as_ref().map(|down| plain(w, Use::Down, down)).transpose()?,
        norm1: norm(w, config.norm, &weights.attention_norm, c.norm_eps)?,
        norm2: norm(w, config.norm, &weights.mlp_norm, c.norm_eps)?,
        activation,
        groups,
        position: match c.norm_position {
            config::NormPosition::Pre => NormPosition::Pre,
            config::NormPosition::Post => NormPosition::Post,
        },
    })
}
