//! Binary linear layers: y = s·(x·sign W) + bias, with one scale s a channel (BiViT, arXiv
//! 2211.07091, section 3.3: W_b = s_c·sign(W − rowmean)).

use super::fault::{self, BitFault};
use super::hamming::hamming;
use super::rows::BitRows;
use super::word::Word;

/// What turns a layer's integer or float sums into outputs.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// One scale an output channel.
    pub scale: &'a [f32],
    /// One bias an output channel, or none.
    pub bias: Option<&'a [f32]>,
}

impl Affine<'_> {
    /// Refuses unless there is one scale (and bias) a channel.
    ///
    /// # Errors
    /// [`BitFault::Size`].
    pub fn check(&self, channels: usize) -> Result<(), BitFault> {
        fault::size("binary linear", "the number of scales", channels, self.scale.len())?;
        if let Some(bias) = self.bias {
            fault::size("binary linear", "the number of biases", channels, bias.len())?;
        }
        Ok(())
    }

    #[inline]
    fn apply(&self, channel: usize, sum: f32) -> f32 {
        let y = sum * self.scale[channel];
        match self.bias {
            Some(bias) => y + bias[channel],
            None => y,
        }
    }
}

/// Float activations × sign weights: `x` is n × in, `weights` out × in, `out` n × out.
///
/// Sums run over nibbles of inputs, each ((±x₀ ± x₁) ± x₂) ± x₃ first: a table of sixteen such
/// values per nibble gives the same bits.
///
/// # Errors
/// [`BitFault::Size`] where shapes disagree.
pub fn linear_signs<W: Word>(
    x: &[f32],
    weights: BitRows<'_, W>,
    affine: Affine<'_>,
    out: &mut [f32],
) -> Result<(), BitFault> {
    const OP: &str = "binary linear";
    let (inputs, channels) = (weights.dim(), weights.rows());
    affine.check(channels)?;
    fault::some(OP, "the set of channels", channels)?;
    let n = x.len() / inputs;
    fault::size(OP, "the number of activations", n * inputs, x.len())?;
    fault::size(OP, "the number of outputs", n * channels, out.len())?;
    for (token, row) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(channels)) {
        for (channel, o) in row.iter_mut().enumerate() {
            let words = weights.row(channel);
            let mut sum = 0.0f32;
            for (i, group) in token.chunks(4).enumerate() {
                let at = 4 * i;
                let signs = words[at / W::BITS].nibble((at % W::BITS) as u32);
                sum += signed_sum(group, signs);
            }
            *o = affine.apply(channel, sum);
        }
    }
    Ok(())
}

/// ((±x₀ ± x₁) ± x₂) ± x₃ with the signs in the bits of `signs`.
#[inline]
pub fn signed_sum(group: &[f32], signs: usize) -> f32 {
    let mut sum = 0.0;
    for (i, &x) in group.iter().enumerate() {
        if signs >> i & 1 == 1 {
            sum += x;
        } else {
            sum -= x;
        }
    }
    sum
}

/// Sign activations × sign weights: y = s·(in − 2·hamming) + bias. `x` is n × in bits, `out` n × out.
///
/// # Errors
/// [`BitFault::Size`] where shapes disagree.
pub fn linear_bits<W: Word>(
    x: BitRows<'_, W>,
    weights: BitRows<'_, W>,
    affine: Affine<'_>,
    out: &mut [f32],
) -> Result<(), BitFault> {
    const OP: &str = "fully binary linear";
    let channels = weights.rows();
    affine.check(channels)?;
    fault::some(OP, "the set of channels", channels)?;
    fault::size(OP, "the columns of the activations", weights.dim(), x.dim())?;
    fault::size(OP, "the number of outputs", x.rows() * channels, out.len())?;
    for (i, row) in out.chunks_exact_mut(channels).enumerate() {
        for (channel, o) in row.iter_mut().enumerate() {
            let dot = x.dim() as i32 - 2 * hamming(x.row(i), weights.row(channel)) as i32;
            *o = affine.apply(channel, dot as f32);
        }
    }
    Ok(())
}

/// Binarizes a weight matrix (channels × inputs): writes each row's mean |W| to `scale` and the
/// signs of W − rowmean to `out`, as BiViT initialises its learnable scales.
///
/// # Errors
/// [`BitFault::Size`] where shapes disagree, [`BitFault::NotFinite`] for NaN and infinities,
/// [`BitFault::Empty`] without channels.
pub fn binarize_weights<W: Word>(
    weights: &[f32],
    inputs: usize,
    out: &mut [W],
    scale: &mut [f32],
) -> Result<(), BitFault> {
    const OP: &str = "binarize weights";
    fault::some(OP, "a row", inputs)?;
    fault::some(OP, "the set of channels", scale.len())?;
    fault::size(OP, "the number of weights", scale.len() * inputs, weights.len())?;
    let stride = super::word::words_for::<W>(inputs);
    fault::size(OP, "the number of words", scale.len() * stride, out.len())?;
    fault::finite(OP, weights)?;
    for ((row, words), scale) in
        weights.chunks_exact(inputs).zip(out.chunks_exact_mut(stride)).zip(scale)
    {
        let count = inputs as f32;
        let mean = row.iter().sum::<f32>() / count;
        *scale = row.iter().map(|w| w.abs()).sum::<f32>() / count;
        for (values, word) in row.chunks(W::BITS).zip(words) {
            *word = W::ZERO;
            for (i, &w) in values.iter().enumerate() {
                if w - mean >= 0.0 {
                    *word = *word | W::ONE << i as u32;
                }
            }
        }
    }
    Ok(())
}
