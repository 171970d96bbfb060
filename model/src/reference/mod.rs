//! The f64 forward pass: plain loops in the order of the papers, the yardstick of every world.
//!
//! The encoder is Vaswani et al. 2017 (arXiv 1706.03762): post norms as published there and in
//! BERT (Devlin et al. 2019, arXiv 1810.04805), pre norms as in the vision transformer
//! (Dosovitskiy et al. 2021, arXiv 2010.11929, equations 1 to 4). Nothing here is fast.
//!
//! ```
//! use undertone_model::config::Config;
//! use undertone_model::input::EncoderInput;
//! use undertone_model::reference;
//! use undertone_model::weights::EncoderWeights;
//!
//! let config = Config::parse(br#"{"model_type": "bert", "vocab_size": 10,
//!     "max_position_embeddings": 8, "hidden_size": 4, "num_hidden_layers": 2,
//!     "num_attention_heads": 2, "intermediate_size": 8}"#, None)?;
//! let weights = EncoderWeights::random(&config, 1);
//! let input = EncoderInput::Tokens { ids: &[3, 1, 4], mask: None };
//! let output = reference::forward(&config, &weights, input)?;
//! assert_eq!((output.hidden.rows, output.result.rows, output.result.cols), (3, 1, 4));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::config::{Activation, Config, Input, Layer, NormKind, NormPosition, Pooling};
use crate::input::{EncoderInput, InputError, patchify};
use crate::weights::{Embeddings, EncoderWeights, LayerWeights, Linear, Norm};

mod attention;
mod matrix;

pub use attention::{attend, row_weights};
pub use matrix::Matrix;

/// What a forward pass returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Every token after the last norm, `[tokens, width]`.
    pub hidden: Matrix,
    /// The pooled tokens, through the classifier where there is one: [1, classes] or
    /// [1, width], and a row a token where the pooling is `none`.
    pub result: Matrix,
}

/// Runs the model on one example.
///
/// # Errors
/// [`InputError`] if the example does not fit the model.
pub fn forward(
    config: &Config,
    weights: &EncoderWeights,
    input: EncoderInput<'_>,
) -> Result<Output, InputError> {
    let tokens = input.check(config)?;
    let mask = match input {
        EncoderInput::Tokens { mask: Some(mask), .. } => mask.to_vec(),
        _ => vec![true; tokens],
    };
    let mut x = embed(config, &weights.embeddings, input);
    for (layer, layer_weights) in config.layers.iter().zip(&weights.layers) {
        x = encoder_layer(config, layer, layer_weights, &mask, x);
    }
    if let Some(last) = &weights.final_norm {
        x = norm(&x, config.final_norm_kind(), last, config.norm_eps);
    }
    let pooled = pool(&x, config.pooling, &mask);
    let result = match &weights.classifier {
        Some(classifier) => linear(&pooled, classifier),
        None => pooled,
    };
    Ok(Output { hidden: x, result })
}

/// The first residual stream.
fn embed(config: &Config, embeddings: &Embeddings, input: EncoderInput<'_>) -> Matrix {
    let width = config.width;
    match (embeddings, input, &config.input) {
        (
            Embeddings::Vit { projection, position, class_token },
            EncoderInput::Image(image),
            Input::Vit(vit),
        ) => {
            let patches = Matrix::from_f32(vit.patches(), vit.patch_len(), &patchify(image, vit));
            let mut rows = linear(&patches, projection);
            if let Some(class_token) = class_token {
                let first = class_token.iter().map(|&x| f64::from(x));
                rows.data = first.chain(rows.data).collect();
                rows.rows += 1;
            }
            rows.add(&Matrix::from_f32(config.tokens(), width, position));
            rows
        }
        (
            Embeddings::Bert { word, position, token_type, norm: last },
            EncoderInput::Tokens { ids, .. },
            _,
        ) => {
            let mut rows = Matrix::zeros(ids.len(), width);
            for (index, &id) in ids.iter().enumerate() {
                let word = &word[id as usize * width..][..width];
                let position = &position[index * width..][..width];
                for (j, x) in rows.row_mut(index).iter_mut().enumerate() {
                    *x = f64::from(word[j]) + f64::from(position[j]) + f64::from(token_type[j]);
                }
            }
            norm(&rows, config.embedding_norm_kind(), last, config.norm_eps)
        }
        // The weights were collected for this configuration and the input checked against it.
        _ => unreachable!("weights of another model"),
    }
}

fn encoder_layer(
    config: &Config,
    layer: &Layer,
    weights: &LayerWeights,
    mask: &[bool],
    mut x: Matrix,
) -> Matrix {
    let normed = |x: &Matrix, weights: &Norm| norm(x, layer.norm, weights, config.norm_eps);
    match config.norm_position {
        NormPosition::Pre => {
            x.add(&attention(config, layer, weights, mask, &normed(&x, &weights.attention_norm)));
            x.add(&mlp(layer, weights, &normed(&x, &weights.mlp_norm)));
            x
        }
        NormPosition::Post => {
            x.add(&attention(config, layer, weights, mask, &x));
            x = normed(&x, &weights.attention_norm);
            x.add(&mlp(layer, weights, &x));
            normed(&x, &weights.mlp_norm)
        }
    }
}

fn attention(
    config: &Config,
    layer: &Layer,
    weights: &LayerWeights,
    mask: &[bool],
    x: &Matrix,
) -> Matrix {
    let width = config.head_width();
    let [q, k, v] = [&weights.query, &weights.key, &weights.value].map(|w| linear(x, w));
    let mut heads = Matrix::zeros(x.rows, config.width);
    for (head, &kind) in layer.heads.iter().enumerate() {
        let columns = head * width..(head + 1) * width;
        let [q, k, v] = [&q, &k, &v].map(|m| m.columns(columns.clone()));
        heads.set_columns(columns, &attend(kind, &q, &k, &v, mask));
    }
    linear(&heads, &weights.output)
}

fn mlp(layer: &Layer, weights: &LayerWeights, x: &Matrix) -> Matrix {
    let mut hidden = linear(x, &weights.up);
    match (layer.activation, &weights.quadratic) {
        (Activation::Gelu, _) => hidden.data.iter_mut().for_each(|x| *x = gelu(*x)),
        (Activation::Relu, _) => hidden.data.iter_mut().for_each(|x| *x = x.max(0.0)),
        (Activation::Quadratic, Some(coefficients)) => {
            for row in 0..hidden.rows {
                for (j, x) in hidden.row_mut(row).iter_mut().enumerate() {
                    let (a, b) = (coefficients.a[j], coefficients.b[j]);
                    *x = f64::from(a) * *x * *x + f64::from(b) * *x;
                }
            }
        }
        (Activation::Identity, _) => {}
        (Activation::Quadratic, None) => unreachable!("collected with the activation"),
    }
    match &weights.down {
        Some(down) => linear(&hidden, down),
        None => hidden,
    }
}

/// x·weightᵀ + bias.
pub fn linear(x: &Matrix, weights: &Linear) -> Matrix {
    let mut out = Matrix::zeros(x.rows, weights.outputs);
    for i in 0..x.rows {
        for o in 0..weights.outputs {
            let row = &weights.weight[o * weights.inputs..(o + 1) * weights.inputs];
            let sum: f64 = x.row(i).iter().zip(row).map(|(x, &w)| x * f64::from(w)).sum();
            let bias = weights.bias.as_ref().map_or(0.0, |bias| f64::from(bias[o]));
            out.row_mut(i)[o] = sum + bias;
        }
    }
    out
}

/// A norm over each row: layer norm (Ba, Kiros, Hinton 2016, arXiv 1607.06450, equation 4, with
/// the biased variance) or the affine map that a folded batch norm leaves.
pub fn norm(x: &Matrix, kind: NormKind, weights: &Norm, eps: f64) -> Matrix {
    let mut out = x.clone();
    for i in 0..x.rows {
        let row = out.row_mut(i);
        if kind == NormKind::LayerNorm {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + eps).sqrt();
            row.iter_mut().for_each(|x| *x = (*x - mean) * scale);
        }
        for (j, x) in row.iter_mut().enumerate() {
            *x = *x * f64::from(weights.weight[j]) + f64::from(weights.bias[j]);
        }
    }
    out
}

/// x·Φ(x) = x/2·(1 + erf(x/√2)), Hendrycks and Gimpel 2016 (arXiv 1606.08415).
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// What the classifier sees; the mean is over the tokens that are not padding.
pub fn pool(x: &Matrix, pooling: Pooling, mask: &[bool]) -> Matrix {
    match pooling {
        Pooling::None => x.clone(),
        Pooling::First => Matrix { rows: 1, cols: x.cols, data: x.row(0).to_vec() },
        Pooling::Mean => {
            let mut mean = Matrix::zeros(1, x.cols);
            let kept: Vec<usize> = (0..x.rows).filter(|&i| mask[i]).collect();
            for &i in &kept {
                mean.add(&Matrix { rows: 1, cols: x.cols, data: x.row(i).to_vec() });
            }
            mean.data.iter_mut().for_each(|x| *x /= kept.len() as f64);
            mean
        }
    }
}

/// The cosine of two vectors of one length; zero vectors have none and give NaN.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests;
