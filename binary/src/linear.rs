//! Binary linear layers with packed weights.
//!
//! Rules and the order of sums stand in [`undertone_core::binary`]; the vector form of the float ×
//! sign layer looks sums of four activations up in sixteen-entry tables, one register each.

use crate::bivit::count_pair;
use crate::{Level, Signs, Slices};
use undertone_core::binary::{self as core, Affine, BitFault, words_for};

/// A layer y = s·(x·W_b) + bias with sign weights and one scale a channel.
#[derive(Clone, Debug)]
pub struct BinaryLinear {
    weights: Signs,
    scale: Vec<f32>,
    bias: Option<Vec<f32>>,
    slices: Slices,
    /// Signs of 32 inputs for 16 channels side by side, for the table look-ups.
    nibbles: Vec<[u32; 16]>,
}

impl BinaryLinear {
    /// A layer from packed weights (channels × inputs), scales and, where it has them, biases.
    ///
    /// # Errors
    /// [`BitFault::Size`] unless there is one scale (and bias) a channel,
    /// [`BitFault::NotFinite`] for NaN and infinities.
    pub fn new(weights: Signs, scale: Vec<f32>, bias: Option<Vec<f32>>) -> Result<Self, BitFault> {
        Affine { scale: &scale, bias: bias.as_deref() }.check(weights.rows())?;
        core::finite("scales", &scale)?;
        core::finite("biases", bias.as_deref().unwrap_or(&[]))?;
        let blocks = weights.rows().div_ceil(16);
        let words = weights.dim().div_ceil(32);
        let mut nibbles = vec![[0; 16]; blocks * words];
        let view = weights.view();
        for r in 0..weights.rows() {
            for w in 0..words {
                nibbles[w * blocks + r / 16][r % 16] =
                    (view.row(r)[w / 2] >> (32 * (w % 2))) as u32;
            }
        }
        let slices = Slices::new(view);
        Ok(Self { weights, scale, bias, slices, nibbles })
    }

    /// Binarizes float weights (channels × inputs) as BiViT initialises them: signs of W − rowmean,
    /// scale mean |W|.
    ///
    /// # Errors
    /// [`BitFault`] for a broken shape or values that are not finite.
    pub fn binarize(
        weights: &[f32],
        inputs: usize,
        bias: Option<Vec<f32>>,
    ) -> Result<Self, BitFault> {
        let channels = weights.len().checked_div(inputs).unwrap_or(0);
        let mut words = vec![0; channels * words_for::<u64>(inputs)];
        let mut scale = vec![0.0; channels];
        core::binarize_weights(weights, inputs, &mut words, &mut scale)?;
        Self::new(Signs::from_words(words, channels, inputs)?, scale, bias)
    }

    /// The packed weights, channels × inputs.
    pub fn weights(&self) -> &Signs {
        &self.weights
    }

    /// One scale a channel.
    pub fn scale(&self) -> &[f32] {
        &self.scale
    }

    /// One bias a channel, or none.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    fn affine(&self) -> Affine<'_> {
        Affine { scale: &self.scale, bias: self.bias() }
    }

    /// Float activations (n × inputs) to `out` (n × channels).
    ///
    /// # Errors
    /// [`BitFault::Size`] where shapes disagree, [`BitFault::NotFinite`] for NaN and infinities.
    pub fn floats(&self, level: Level, x: &[f32], out: &mut [f32]) -> Result<(), BitFault> {
        core::finite("binary linear", x)?;
        #[cfg(target_arch = "x86_64")]
        if level.clamped() == Level::Avx512 {
            let n = x.len() / self.weights.dim();
            let sizes = x.len() == n * self.weights.dim() && out.len() == n * self.weights.rows();
            if sizes && self.weights.rows() > 0 {
                let blocks = self.weights.rows().div_ceil(16);
                for (x, out) in x
                    .chunks_exact(self.weights.dim())
                    .zip(out.chunks_exact_mut(self.weights.rows()))
                {
                    // SAFETY: the level was detected; sizes were checked above.
                    unsafe { crate::simd::avx512::signed_sums(x, &self.nibbles, blocks, out) };
                    self.finish(out);
                }
                return Ok(());
            }
        }
        let _ = level;
        core::linear_signs(x, self.weights.view(), self.affine(), out)
    }

    /// Sign activations (n × inputs) to `out` (n × channels).
    ///
    /// # Errors
    /// [`BitFault::Size`] where shapes disagree.
    pub fn bits(&self, level: Level, x: &Signs, out: &mut [f32]) -> Result<(), BitFault> {
        let channels = self.weights.rows();
        let fits = x.dim() == self.weights.dim() && out.len() == x.rows() * channels;
        if level.clamped() == Level::Portable || !fits || channels == 0 || x.rows() == 0 {
            return core::linear_bits(x.view(), self.weights.view(), self.affine(), out);
        }
        let dim = x.dim() as i32;
        let mut rows = [vec![0; channels], vec![0; channels]];
        let view = x.view();
        for (i, pair) in out.chunks_mut(2 * channels).enumerate() {
            let second = (2 * i + 1).min(x.rows() - 1);
            let [a, b] = &mut rows;
            let x = [view.row(2 * i), view.row(second)];
            count_pair::<true>(level, x, &self.slices, -2, [dim; 2], [a, b]);
            for (row, sums) in pair.chunks_exact_mut(channels).zip(&rows) {
                row.iter_mut().zip(sums).for_each(|(o, &s)| *o = s as f32);
                self.finish(row);
            }
        }
        Ok(())
    }

    fn finish(&self, row: &mut [f32]) {
        row.iter_mut().zip(&self.scale).for_each(|(o, s)| *o *= s);
        if let Some(bias) = &self.bias {
            row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
        }
    }
}
