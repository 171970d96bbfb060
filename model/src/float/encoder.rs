//! The forward pass in f32, batched.

use std::borrow::Cow;

use super::kernels::{
    KernelError, Mode, Parallelism, View, ViewMut, affine_rows, divide_rows, gelu_rows,
    layer_norm_rows, linear, matmul, quadratic_rows, relu, weigh_rows,
};
use crate::config::{Activation, Config, HeadKind, Input, Layer, NormKind, NormPosition, Pooling};
use crate::input::{EncoderInput, InputError, patchify_into};
use crate::weights::{Embeddings, EncoderWeights, LayerWeights, Linear, Norm};

/// Values of the residual stream processed together: a group of images whose activations stay
/// in a core's second-level cache.
const GROUP_VALUES: usize = 32 << 10;

/// An encoder prepared for many forward passes.
#[derive(Debug)]
pub struct FastEncoder<'a> {
    config: &'a Config,
    weights: &'a EncoderWeights,
    /// Query, key and value of each layer as one matrix: one product reads the input once.
    fused: Vec<Linear>,
    parallelism: Parallelism,
}

/// What a batched forward pass returns, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Rows of each example: 1, or its tokens where the pooling is `none`.
    pub rows: usize,
    /// Columns: classes, or the width where there is no classifier.
    pub cols: usize,
    /// `[examples, rows, cols]`.
    pub data: Vec<f32>,
}

impl Batch {
    /// The rows of one example.
    pub fn example(&self, index: usize) -> &[f32] {
        let len = self.rows * self.cols;
        &self.data[index * len..(index + 1) * len]
    }
}

impl<'a> FastEncoder<'a> {
    /// Prepares an encoder that runs on the calling thread.
    pub fn new(config: &'a Config, weights: &'a EncoderWeights) -> Self {
        let fused = weights.layers.iter().map(fuse).collect();
        Self { config, weights, fused, parallelism: Parallelism::None }
    }

    /// Lets large matrix products use threads (feature `rayon`).
    #[must_use]
    pub fn with_parallelism(mut self, parallelism: Parallelism) -> Self {
        self.parallelism = parallelism;
        self
    }

    /// Runs the model on a batch of examples of one length.
    ///
    /// # Errors
    /// [`InputError`] if an example does not fit the model or the lengths differ.
    pub fn forward(&self, inputs: &[EncoderInput<'_>]) -> Result<Batch, InputError> {
        let cols = match &self.weights.classifier {
            Some(classifier) => classifier.outputs,
            None => self.config.width,
        };
        let mut tokens = 1;
        for (index, input) in inputs.iter().enumerate() {
            let found = input.check(self.config)?;
            if index == 0 {
                tokens = found;
            } else if found != tokens {
                return Err(InputError::MixedLengths { index, found, expected: tokens });
            }
        }
        let rows = if self.config.pooling == Pooling::None { tokens } else { 1 };
        let group = (GROUP_VALUES / (tokens * self.config.width)).clamp(1, inputs.len().max(1));
        let mut scratch = Scratch::new(self.config, tokens, group);
        let mut data = vec![0.0; inputs.len() * rows * cols];
        for (inputs, out) in inputs.chunks(group).zip(data.chunks_mut(group * rows * cols)) {
            let run = self.run(inputs, tokens, &mut scratch, out);
            // Every length below is derived from the configuration that the weights and the
            // inputs were checked against.
            run.unwrap_or_else(|error| unreachable!("shapes were checked: {error}"));
        }
        Ok(Batch { rows, cols, data })
    }

    fn run(
        &self,
        inputs: &[EncoderInput<'_>],
        tokens: usize,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let Self { config, weights, .. } = *self;
        let rows = inputs.len() * tokens;
        let Scratch { x, y, wide, scores, inverse } = scratch;
        let (mut x, mut y) = (&mut x[..rows * config.width], &mut y[..rows * config.width]);
        self.embed(inputs, tokens, x, y, wide)?;
        for (index, layer) in config.layers.iter().enumerate() {
            let part = &weights.layers[index];
            let mut attention = Attention { inputs, tokens, layer, scores, inverse };
            match config.norm_position {
                NormPosition::Pre => {
                    self.norm(x, layer.norm, &part.attention_norm, y)?;
                    self.attend(&self.fused[index], &part.output, &mut attention, y, wide, x)?;
                    self.norm(x, layer.norm, &part.mlp_norm, y)?;
                    self.mlp(layer, part, y, wide, x)?;
                }
                NormPosition::Post => {
                    y.copy_from_slice(x);
                    self.attend(&self.fused[index], &part.output, &mut attention, y, wide, x)?;
                    self.norm(x, layer.norm, &part.attention_norm, y)?;
                    x.copy_from_slice(y);
                    self.mlp(layer, part, y, wide, x)?;
                    self.norm(x, layer.norm, &part.mlp_norm, y)?;
                    std::mem::swap(&mut x, &mut y);
                }
            }
        }
        if let Some(last) = &weights.final_norm {
            self.norm(x, config.final_norm_kind(), last, y)?;
            std::mem::swap(&mut x, &mut y);
        }
        self.finish(inputs, tokens, x, out)
    }

    /// The first residual stream into `x`; `y` and `wide` are scratch.
    fn embed(
        &self,
        inputs: &[EncoderInput<'_>],
        tokens: usize,
        x: &mut [f32],
        y: &mut [f32],
        wide: &mut [f32],
    ) -> Result<(), KernelError> {
        let config = self.config;
        let width = config.width;
        let examples = x.chunks_exact_mut(tokens * width).zip(inputs);
        match (&self.weights.embeddings, &config.input) {
            (Embeddings::Vit { projection, position, class_token }, Input::Vit(vit)) => {
                let first = class_token.as_ref().map_or(0, |token| token.len());
                let patches = &mut wide[..vit.image_len()];
                for (x, input) in examples {
                    let EncoderInput::Image(image) = input else { continue };
                    patchify_into(image, vit, patches);
                    x.copy_from_slice(position);
                    if let Some(token) = class_token {
                        x.iter_mut().zip(token).for_each(|(x, token)| *x += token);
                    }
                    self.linear(&mut x[first..], patches, projection, Mode::Accumulate)?;
                }
            }
            (Embeddings::Bert { word, position, token_type, norm }, _) => {
                for (x, input) in examples {
                    let EncoderInput::Tokens { ids, .. } = input else { continue };
                    for (index, (x, &id)) in x.chunks_exact_mut(width).zip(*ids).enumerate() {
                        let word = &word[id as usize * width..][..width];
                        let position = &position[index * width..][..width];
                        for (j, x) in x.iter_mut().enumerate() {
                            *x = word[j] + position[j] + token_type[j];
                        }
                    }
                }
                y.copy_from_slice(x);
                self.norm(y, config.embedding_norm_kind(), norm, x)?;
            }
            (Embeddings::Vit { .. }, Input::Bert(_)) => unreachable!("weights of another model"),
        }
        Ok(())
    }

    /// Adds the attention of `y` to `x`; `y` becomes scratch.
    fn attend(
        &self,
        fused: &Linear,
        output: &Linear,
        attention: &mut Attention<'_>,
        y: &mut [f32],
        wide: &mut [f32],
        x: &mut [f32],
    ) -> Result<(), KernelError> {
        let (width, head_width) = (self.config.width, self.config.head_width());
        let tokens = attention.tokens;
        let qkv = &mut wide[..3 * y.len()];
        self.linear(qkv, y, fused, Mode::Write)?;
        let scale = 1.0 / (head_width as f32).sqrt();
        let stride = padded(tokens);
        for (index, input) in attention.inputs.iter().enumerate() {
            let qkv = &qkv[index * tokens * 3 * width..][..tokens * 3 * width];
            let y = &mut y[index * tokens * width..][..tokens * width];
            let mask = match input {
                EncoderInput::Tokens { mask, .. } => *mask,
                EncoderInput::Image(_) => None,
            };
            for (head, &kind) in attention.layer.heads.iter().enumerate() {
                let part = |which: usize| {
                    let start = which * width + head * head_width;
                    View::new(&qkv[start..], (1, 0), (tokens, 3 * width), (head_width, 1))
                };
                if kind != HeadKind::Uniform {
                    let scores =
                        ViewMut::new(attention.scores, (1, 0), (tokens, stride), (tokens, 1))?;
                    let (q, k) = (part(0)?, part(1)?.transposed());
                    matmul(scores, q, k, scale, Mode::Write, self.parallelism)?;
                }
                weigh_rows(
                    crate::build::kind(&kind),
                    attention.scores,
                    tokens,
                    stride,
                    mask,
                    attention.inverse,
                )?;
                let weights = View::new(attention.scores, (1, 0), (tokens, stride), (tokens, 1))?;
                let start = head * head_width;
                let out = ViewMut::new(&mut y[start..], (1, 0), (tokens, width), (head_width, 1))?;
                matmul(out, weights, part(2)?, 1.0, Mode::Write, self.parallelism)?;
                divide_rows(y, start, head_width, width, attention.inverse)?;
            }
        }
        self.linear(x, y, output, Mode::Accumulate)
    }

    /// Adds the MLP of `y` to `x`.
    fn mlp(
        &self,
        layer: &Layer,
        part: &LayerWeights,
        y: &[f32],
        wide: &mut [f32],
        x: &mut [f32],
    ) -> Result<(), KernelError> {
        let hidden = &mut wide[..y.len() / self.config.width * self.config.mlp_width];
        match (layer.activation, &part.up.bias) {
            (Activation::Gelu, Some(bias)) => {
                let up = (&part.up.weight, self.config.width);
                linear(hidden, y, up.1, up.0, None, Mode::Write, self.parallelism)?;
                gelu_rows(hidden, bias)?;
            }
            _ => self.linear(hidden, y, &part.up, Mode::Write)?,
        }
        match (layer.activation, &part.quadratic) {
            (Activation::Relu, _) => relu(hidden),
            (Activation::Quadratic, Some(q)) => quadratic_rows(hidden, &q.a, &q.b)?,
            _ => {}
        }
        self.linear(x, hidden, &part.down, Mode::Accumulate)
    }

    fn finish(
        &self,
        inputs: &[EncoderInput<'_>],
        tokens: usize,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let width = self.config.width;
        let examples = || x.chunks_exact(tokens * width).zip(inputs);
        let pooled: Cow<'_, [f32]> = match self.config.pooling {
            Pooling::None => Cow::Borrowed(x),
            Pooling::First => examples().flat_map(|(x, _)| x[..width].to_vec()).collect(),
            Pooling::Mean => examples().flat_map(|(x, input)| mean(x, width, input)).collect(),
        };
        match &self.weights.classifier {
            Some(classifier) => self.linear(out, &pooled, classifier, Mode::Write),
            None => {
                out.copy_from_slice(&pooled);
                Ok(())
            }
        }
    }

    fn linear(
        &self,
        out: &mut [f32],
        x: &[f32],
        weights: &Linear,
        mode: Mode,
    ) -> Result<(), KernelError> {
        let Linear { inputs, weight, bias, .. } = weights;
        linear(out, x, *inputs, weight, bias.as_deref(), mode, self.parallelism)
    }

    fn norm(
        &self,
        x: &[f32],
        kind: NormKind,
        weights: &Norm,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let Norm { weight, bias } = weights;
        match kind {
            NormKind::LayerNorm => {
                layer_norm_rows(x, weight, bias, self.config.norm_eps as f32, out)
            }
            NormKind::Affine => affine_rows(x, weight, bias, out),
        }
    }
}

struct Attention<'a> {
    inputs: &'a [EncoderInput<'a>],
    tokens: usize,
    layer: &'a Layer,
    scores: &'a mut [f32],
    inverse: &'a mut [f32],
}

struct Scratch {
    x: Vec<f32>,
    y: Vec<f32>,
    wide: Vec<f32>,
    scores: Vec<f32>,
    inverse: Vec<f32>,
}

impl Scratch {
    fn new(config: &Config, tokens: usize, group: usize) -> Self {
        let rows = group * tokens;
        let image = config.vit().map_or(0, |vit| vit.image_len());
        let wide = (rows * config.mlp_width.max(3 * config.width)).max(image);
        Self {
            x: vec![0.0; rows * config.width],
            y: vec![0.0; rows * config.width],
            wide: vec![0.0; wide],
            scores: vec![0.0; tokens * padded(tokens)],
            inverse: vec![0.0; tokens],
        }
    }
}

/// Row stride of the scores: whole vectors.
fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(16)
}

fn mean(x: &[f32], width: usize, input: &EncoderInput<'_>) -> Vec<f32> {
    let mask = match input {
        EncoderInput::Tokens { mask, .. } => *mask,
        EncoderInput::Image(_) => None,
    };
    let mut sum = vec![0.0; width];
    let mut kept = 0.0;
    for (index, row) in x.chunks_exact(width).enumerate() {
        if mask.is_none_or(|mask| mask[index]) {
            kept += 1.0;
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    }
    sum.iter_mut().for_each(|x| *x /= kept);
    sum
}

fn fuse(layer: &LayerWeights) -> Linear {
    let parts = [&layer.query, &layer.key, &layer.value];
    let biases: Option<Vec<&[f32]>> = parts.iter().map(|part| part.bias.as_deref()).collect();
    Linear {
        outputs: parts.iter().map(|part| part.outputs).sum(),
        inputs: layer.query.inputs,
        weight: parts.iter().flat_map(|part| part.weight.iter().copied()).collect(),
        bias: biases.map(|biases| biases.concat()),
    }
}

#[cfg(test)]
mod tests;
