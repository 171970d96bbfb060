//! A one-bit model in 16-bit fixed point: what a microcontroller runs.
//!
//! BiViT's models become the core's encoder. One-bit weights stay bits, with a 16-bit scale a
//! channel; attention counts bits; the norms, the patch projection, the classifier and what else
//! is not a sign are those of the fixed-point world. Ranges come from [`Encoder::record`].

use undertone_core::attention::Kind;
use undertone_core::binary::{BitFault, words_for};
use undertone_core::encoder::{self, Group, Groups, NormPosition};
use undertone_core::fixed::{Fixed, Memory, Operand, Weight};
use undertone_core::{Counts, Fault, Function, Num, Shape, Unsupported};
use undertone_model::Prepared;
use undertone_model::config::VitInput;
use undertone_model::domains::{Calibration, UnknownSite};
use undertone_model::fixed::{Owned, Source, quantise};
use undertone_model::host::{self, Host as _, Use};

use super::config::{Activation, Pooling};
use super::encoder::{Attention, Embed, Encoder, Layer, Linear, Norm, Values};
use super::forward::Run;
use crate::Signs;
use crate::bivit::margin_of;

/// An encoder with the ranges that its configuration holds.
#[derive(Clone, Debug)]
pub struct InFixed {
    encoder: Encoder,
    calibration: Calibration,
    vit: Option<VitInput>,
    labels: Vec<String>,
}

impl Encoder {
    /// Runs one example and widens `ranges` by what every site of the fixed-point form holds.
    ///
    /// # Errors
    /// As [`Encoder::run`].
    pub fn record(&self, rows: &[f32], ranges: &mut Calibration) -> Result<(), BitFault> {
        undertone_core::binary::finite("binary encoder", rows)?;
        let tokens = rows.len() / self.config.input_width();
        let mut run = Run { ranges: Some(ranges), ..Run::new(self) };
        run.forward(tokens, rows.to_vec()).map(drop)
    }

    /// The model for fixed point, with the ranges of its configuration.
    ///
    /// # Errors
    /// A name among the ranges that is no site.
    pub fn in_fixed(&self) -> Result<InFixed, UnknownSite> {
        let block = &self.config.undertone;
        let layers = block.layers.iter().map(|layer| &layer.domains);
        Ok(InFixed {
            calibration: Calibration::from_domains(&block.domains, layers)?,
            vit: self.config.vit(),
            labels: self.config.labels().unwrap_or_default(),
            encoder: self.clone(),
        })
    }
}

impl InFixed {
    /// Whether there are ranges: fixed point refuses to run without.
    #[must_use]
    pub fn is_calibrated(&self) -> bool {
        !self.calibration.is_empty()
    }
}

impl Source for InFixed {
    fn encoder<M: Memory>(
        &self,
        w: &mut Fixed<M, Owned>,
    ) -> Result<Prepared<Fixed<M, Owned>>, Fault> {
        let e = &self.encoder;
        let c = &e.config;
        let eps = c.layer_norm_eps;
        let (embed, position, embed_norm) = match &e.embed {
            Embed::Patches { projection, position } => {
                let shape = Shape::new(1, c.tokens(), c.hidden_size);
                let embed = linear(w, Use::Embed, projection, false)?;
                (Some(embed), Some(w.vector(shape, position)?), None)
            }
            Embed::Words { norm: of_words, .. } => (None, None, Some(norm(w, of_words, eps)?)),
        };
        let layers =
            e.layers.iter().map(|of| layer(w, e, of, eps)).collect::<Result<Vec<_>, Fault>>()?;
        let final_norm = match &e.norm {
            Some(last) => Some(norm(w, last, eps)?),
            None => None,
        };
        let pooling = match c.undertone.pooling {
            Pooling::Mean => encoder::Pooling::Mean,
            Pooling::First => encoder::Pooling::First,
        };
        let classifier = Some(linear(w, Use::Classifier, &e.classifier, false)?);
        Ok(encoder::Encoder {
            embed,
            position,
            embed_norm,
            layers,
            final_norm,
            pooling,
            classifier,
        })
    }

    fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    fn vit(&self) -> Option<&VitInput> {
        self.vit.as_ref()
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn shape(&self) -> Shape {
        Shape::new(1, self.encoder.config.tokens(), self.encoder.config.input_width())
    }
}

impl<'a> Run<'a> {
    /// A run with values.
    pub(super) fn new(encoder: &'a Encoder) -> Self {
        Self { encoder, counts: Counts::NONE, real: true, ranges: None }
    }
}

fn layer<M: Memory>(
    w: &mut Fixed<M, Owned>,
    e: &Encoder,
    of: &Layer,
    eps: f64,
) -> Result<encoder::Layer<Fixed<M, Owned>>, Fault> {
    let unsupported = |operator, needs, instead| {
        Fault::Unsupported(Unsupported { operator, needs, world: "fixed-point", instead })
    };
    let (key, beta, mean, scale) = match &of.attention {
        Attention::Hashed { .. } => {
            return Err(unsupported("ecoformer", "floating point", "bivit"));
        }
        Attention::Binary { values: Values::Float, .. } => {
            return Err(unsupported("bivit on float values", "floating point", "signed values"));
        }
        Attention::Binary { key, beta, mean, values: Values::Signs(scale) } => {
            (key, *beta, *mean, scale)
        }
    };
    let kind = Kind::Bivit { margin: margin_of(beta, e.config.head_width()), mean };
    let heads = Group { heads: e.config.num_attention_heads, kind };
    let capacity = Fault::Capacity { what: "kinds of attention", limit: encoder::MAX_GROUPS };
    let of_signs = of.activation == Activation::Sign;
    Ok(encoder::Layer {
        query: linear(w, Use::Query, &of.query, false)?,
        key: linear(w, Use::Key, key, false)?,
        value: linear(w, Use::Value, &of.value, false)?,
        context_scale: Some(w.vector(Shape::new(1, 1, scale.len()), scale)?),
        out: linear(w, Use::Out, &of.out, false)?,
        up: linear(w, Use::Up, &of.up, of_signs)?,
        down: Some(linear(w, Use::Down, &of.down, of_signs)?),
        norm1: norm(w, &of.norm1, eps)?,
        norm2: norm(w, &of.norm2, eps)?,
        activation: if of_signs {
            encoder::Activation::Identity
        } else {
            encoder::Activation::Map(Function::Gelu)
        },
        groups: Groups::new(&[heads]).ok_or(capacity)?,
        position: if e.norm.is_some() { NormPosition::Pre } else { NormPosition::Post },
    })
}

fn norm<M: Memory>(
    w: &mut Fixed<M, Owned>,
    norm: &Norm,
    eps: f64,
) -> Result<encoder::Norm<Fixed<M, Owned>>, Fault> {
    let row = Shape::new(1, 1, norm.weight.len());
    let (gain, bias) = (w.vector(row, &norm.weight)?, w.vector(row, &norm.bias)?);
    Ok(encoder::Norm::Layer { gain, bias, eps: Num::of(eps) })
}

/// Floats become 16-bit numbers; signs stay signs.
fn linear<M: Memory>(
    w: &mut Fixed<M, Owned>,
    role: Use,
    linear: &Linear,
    of_signs: bool,
) -> Result<Operand<Owned>, Fault> {
    let (inputs, outputs) = (linear.inputs(), linear.outputs());
    match linear {
        Linear::Dense { weight, bias, .. } => {
            w.linear(host::Weight { role, inputs, outputs, weight, bias: Some(bias) })
        }
        Linear::Binary(layer) => {
            let row = Shape::new(1, 1, outputs);
            let (scale, frac) = quantise("scales", row, layer.scale())?;
            let bias = layer.bias().map(|b| quantise("linear bias", row, b)).transpose()?;
            let weight = Weight::Signs { words: words(layer.weights()), scale, of_signs };
            Ok(Operand::Linear { inputs, outputs, weight, frac, bias })
        }
    }
}

/// Words of 32 bits.
fn words(signs: &Signs) -> Vec<u32> {
    let per_row = words_for::<u32>(signs.dim());
    let halves = |word: &u64| [*word as u32, (*word >> 32) as u32];
    let rows = signs.words().chunks_exact(words_for::<u64>(signs.dim()));
    rows.flat_map(|row| row.iter().flat_map(halves).take(per_row)).collect()
}
