//! The forward pass, written once over counted primitives.
//!
//! Every primitive counts what it does from shapes alone and computes only where values are there,
//! so a plan is a run without values and counts the same.

use super::attention;
use super::config::{Activation, Pooling};
use super::encoder::{Arithmetic, Attention, Codes, Embed, Encoder, Layer, Linear, Norm};
use crate::Signs;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use undertone_core::binary::BitFault;
use undertone_core::{Counts, Op, Role, Site, Width};
use undertone_model::domains::Calibration;

/// A matrix of activations; in a plan it has its shape alone.
pub(super) struct Rows {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) values: Vec<f32>,
}

/// A pass through an encoder.
pub(super) struct Run<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) counts: Counts,
    /// Whether values are there.
    pub(super) real: bool,
    /// Where ranges are recorded.
    pub(super) ranges: Option<&'a mut Calibration>,
}

const OPERATION: &str = "binary encoder";

impl Encoder {
    /// Logits of one image: channels × side × side values in 0…1.
    ///
    /// # Errors
    /// [`BitFault::Size`] for another number of values, [`BitFault::NotFinite`] for NaN and
    /// infinities, also where activations overflow.
    pub fn logits(&self, pixels: &[f32]) -> Result<Vec<f32>, BitFault> {
        let c = &self.config;
        let wanted = c.num_channels * c.image_size * c.image_size;
        size("the number of pixel values", wanted, pixels.len())?;
        Ok(self.run(&self.patches(pixels))?.0)
    }

    /// What the encoder is fed for one text: word, position and type embeddings added up,
    /// tokens × width. The client's part, in the clear.
    ///
    /// # Errors
    /// [`BitFault::Empty`] without ids or where the model reads images, [`BitFault::Limit`] for too
    /// many tokens and for ids beyond the vocabulary.
    pub fn embedded(&self, ids: &[u32]) -> Result<Vec<f32>, BitFault> {
        let limit =
            |what, most, got| Err(BitFault::Limit { operation: OPERATION, what, most, got });
        let Embed::Words { word, position, token_type, .. } = &self.embed else {
            return Err(BitFault::Empty { operation: OPERATION, what: "the vocabulary" });
        };
        let (width, most) = (self.config.hidden_size, self.config.max_position_embeddings);
        if ids.is_empty() {
            return Err(BitFault::Empty { operation: OPERATION, what: "the text" });
        }
        if ids.len() > most {
            return limit("the number of tokens", most, ids.len());
        }
        let mut out = Vec::with_capacity(ids.len() * width);
        for (&id, place) in ids.iter().zip(position.chunks_exact(width)) {
            let Some(row) = word.chunks_exact(width).nth(id as usize) else {
                return limit("a token id", self.config.vocab_size - 1, id as usize);
            };
            out.extend(row.iter().zip(place).zip(token_type).map(|((w, p), t)| w + (p + t)));
        }
        Ok(out)
    }

    /// Runs the encoder on one example (normalised patches, or [`Encoder::embedded`] tokens, row
    /// after row); returns its logits and the operations counted.
    ///
    /// # Errors
    /// [`BitFault::Size`] for a broken last row or another number of patches than an image has,
    /// [`BitFault::NotFinite`] for NaN and infinities, also where activations overflow.
    pub fn run(&self, rows: &[f32]) -> Result<(Vec<f32>, Counts), BitFault> {
        undertone_core::binary::finite(OPERATION, rows)?;
        let tokens = rows.len() / self.config.input_width();
        let mut run = Run::new(self);
        let logits = run.forward(tokens, rows.to_vec())?;
        undertone_core::binary::finite(OPERATION, &logits)?;
        Ok((logits, run.counts))
    }

    /// The operations that [`Encoder::run`] counts for an example of so many tokens.
    ///
    /// # Errors
    /// [`BitFault`] for a number of tokens that the model cannot read.
    pub fn plan(&self, tokens: usize) -> Result<Counts, BitFault> {
        let mut run = Run { real: false, ..Run::new(self) };
        run.forward(tokens, Vec::new())?;
        Ok(run.counts)
    }

    /// The multiplications among [`Encoder::plan`]'s that EcoFormer's own counting leaves out: one a
    /// value of each token's distance to each anchor.
    pub fn squarings(&self, tokens: usize) -> u64 {
        let anchors = |layer: &Layer| match &layer.attention {
            Attention::Hashed { codes, .. } => codes
                .iter()
                .map(|c| match c {
                    Codes::Kernel(hash) => hash.anchors().len(),
                    Codes::Planes(_) => 0,
                })
                .sum(),
            Attention::Binary { .. } => 0,
        };
        self.layers.iter().map(|l| (tokens * anchors(l)) as u64).sum()
    }

    /// The queries of a layer, tokens × width, heads side by side: what hashes are fitted to.
    pub(super) fn query_of(&self, layer: usize, stream: &Stream) -> Result<Vec<f32>, BitFault> {
        let mut run = Run::new(self);
        let layer = &self.layers[layer];
        let x = run.attended_input(layer, &stream.0);
        Ok(run.linear(&layer.query, &x)?.values)
    }

    /// The residual stream before the first layer.
    pub(super) fn enter(&self, rows: &[f32]) -> Result<Stream, BitFault> {
        let mut run = Run::new(self);
        run.embed(rows.len() / self.config.input_width(), rows.to_vec()).map(Stream)
    }

    /// Takes a residual stream through a layer.
    pub(super) fn advance(&self, layer: usize, stream: Stream) -> Result<Stream, BitFault> {
        let mut run = Run::new(self);
        run.layer(layer, stream.0).map(Stream)
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
}

/// A residual stream between layers.
pub(super) struct Stream(Rows);

fn size(what: &'static str, expected: usize, got: usize) -> Result<(), BitFault> {
    if expected == got {
        Ok(())
    } else {
        Err(BitFault::Size { operation: OPERATION, what, expected, got })
    }
}

impl Run<'_> {
    pub(super) fn count(&mut self, op: Op, width: Width, n: usize) {
        self.counts.add(op, width, n as u64);
    }

    pub(super) fn macs(&mut self, width: Width, n: usize) {
        self.counts.mac(width, n as u64);
    }

    /// A matrix that `make` fills where values are there.
    pub(super) fn rows(
        &self,
        rows: usize,
        cols: usize,
        make: impl FnOnce() -> Result<Vec<f32>, BitFault>,
    ) -> Result<Rows, BitFault> {
        let values = if self.real { make()? } else { Vec::new() };
        Ok(Rows { rows, cols, values })
    }

    /// Widens the range of a site by these values.
    fn see(&mut self, site: Site, x: &Rows) {
        if let Some(ranges) = &mut self.ranges {
            let wide = |v: f32| f64::from(v);
            let lo = x.values.iter().copied().fold(f32::INFINITY, f32::min);
            let hi = x.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            ranges.observe(site, wide(lo), wide(hi));
        }
    }

    pub(super) fn forward(
        &mut self,
        tokens: usize,
        values: Vec<f32>,
    ) -> Result<Vec<f32>, BitFault> {
        let encoder = self.encoder;
        let mut x = self.embed(tokens, values)?;
        for number in 0..encoder.layers.len() {
            x = self.layer(number, x)?;
        }
        if let Some(norm) = &encoder.norm {
            x = self.norm(norm, &x);
            self.see(Site::outside(Role::FinalNorm), &x);
        }
        let pooled = self.pool(x);
        self.see(Site::outside(Role::Pooled), &pooled);
        let logits = self.linear(&encoder.classifier, &pooled)?;
        self.see(Site::outside(Role::Logits), &logits);
        Ok(logits.values)
    }

    fn embed(&mut self, tokens: usize, values: Vec<f32>) -> Result<Rows, BitFault> {
        let config = &self.encoder.config;
        let cols = config.input_width();
        if config.is_text() {
            if tokens == 0 {
                return Err(BitFault::Empty { operation: OPERATION, what: "the text" });
            }
            let most = config.max_position_embeddings;
            if tokens > most {
                let what = "the number of tokens";
                return Err(BitFault::Limit { operation: OPERATION, what, most, got: tokens });
            }
        } else {
            size("the number of patches", config.tokens(), tokens)?;
        }
        if self.real {
            size("the number of values", tokens * cols, values.len())?;
        }
        let x = Rows { rows: tokens, cols, values };
        self.see(Site::outside(Role::Input), &x);
        let embedding = Site::outside(Role::Embedding);
        let x = match &self.encoder.embed {
            Embed::Patches { projection, position } => {
                let mut x = self.linear(projection, &x)?;
                self.see(embedding, &x);
                self.count(Op::Add, Width::F32, x.rows * x.cols);
                add(&mut x.values, position);
                x
            }
            Embed::Words { norm, .. } => self.norm(norm, &x),
        };
        self.see(embedding, &x);
        Ok(x)
    }

    /// What the attention of a layer reads: the normed stream, or with post-norms the stream.
    fn attended_input(&mut self, layer: &Layer, x: &Rows) -> Rows {
        if self.encoder.norm.is_some() {
            self.norm(&layer.norm1, x)
        } else {
            Rows { rows: x.rows, cols: x.cols, values: x.values.clone() }
        }
    }

    fn layer(&mut self, number: usize, mut x: Rows) -> Result<Rows, BitFault> {
        let layer = &self.encoder.layers[number];
        let site = |role| Site::layer(number as u16, role);
        let pre = self.encoder.norm.is_some();
        let normed = self.attended_input(layer, &x);
        if pre {
            self.see(site(Role::Norm1), &normed);
        }
        let attended = self.attend(number, &normed)?;
        self.see(site(Role::Attended), &attended);
        self.residual(&mut x, &attended);
        self.see(site(Role::Residual1), &x);
        if pre {
            let normed = self.norm(&layer.norm2, &x);
            self.see(site(Role::Norm2), &normed);
            let fed = self.feed(number, &normed)?;
            self.residual(&mut x, &fed);
            self.see(site(Role::Residual2), &x);
            return Ok(x);
        }
        let mut x = self.norm(&layer.norm1, &x);
        self.see(site(Role::Norm1), &x);
        let fed = self.feed(number, &x)?;
        self.residual(&mut x, &fed);
        self.see(site(Role::Residual2), &x);
        let x = self.norm(&layer.norm2, &x);
        self.see(site(Role::Norm2), &x);
        Ok(x)
    }

    fn residual(&mut self, x: &mut Rows, y: &Rows) {
        self.count(Op::Add, Width::F32, x.rows * x.cols);
        add(&mut x.values, &y.values);
    }

    fn attend(&mut self, number: usize, x: &Rows) -> Result<Rows, BitFault> {
        let layer = &self.encoder.layers[number];
        let site = |role| Site::layer(number as u16, role);
        let heads = self.encoder.config.num_attention_heads;
        let d = self.encoder.config.head_width();
        let q = self.linear(&layer.query, x)?;
        let v = self.linear(&layer.value, x)?;
        let key = match &layer.attention {
            Attention::Hashed { .. } => None,
            Attention::Binary { key, .. } => Some(self.linear(key, x)?),
        };
        self.see(site(Role::Query), &q);
        self.see(site(Role::Key), key.as_ref().unwrap_or(&q));
        self.see(site(Role::Value), &v);
        let mut context = Rows { rows: x.rows, cols: heads * d, values: Vec::new() };
        if self.real {
            context.values = vec![0.0; x.rows * heads * d];
        }
        for head in 0..heads {
            let take = |x: &Rows| columns(x, head * d, d);
            let (q, v) = (take(&q), take(&v));
            let out = match &layer.attention {
                Attention::Hashed { codes, bits, variant } => {
                    attention::hashed(self, &codes[head], *bits, *variant, &q, &v)?
                }
                Attention::Binary { beta, mean, values, .. } => {
                    let k = key.as_ref().map_or_else(|| take(x), take);
                    attention::bivit(self, *beta, *mean, (values, head), &q, &k, &v)?
                }
            };
            let rows = context.values.chunks_exact_mut(heads * d);
            for (to, row) in rows.zip(out.values.chunks_exact(d)) {
                to[head * d..(head + 1) * d].copy_from_slice(row);
            }
        }
        self.see(site(Role::Context), &context);
        self.linear(&layer.out, &context)
    }

    fn feed(&mut self, number: usize, x: &Rows) -> Result<Rows, BitFault> {
        let layer = &self.encoder.layers[number];
        let site = |role| Site::layer(number as u16, role);
        let fed = match layer.activation {
            Activation::Gelu => {
                let mut hidden = self.linear(&layer.up, x)?;
                self.see(site(Role::Hidden), &hidden);
                self.count(Op::Function, Width::F32, hidden.rows * hidden.cols);
                hidden.values.iter_mut().for_each(|h| *h = gelu(*h));
                self.see(site(Role::Activated), &hidden);
                self.linear(&layer.down, &hidden)?
            }
            Activation::Sign => {
                let hidden = self.signed(&layer.up, x)?;
                self.see(site(Role::Hidden), &hidden);
                self.signed(&layer.down, &hidden)?
            }
        };
        self.see(site(Role::Mlp), &fed);
        Ok(fed)
    }

    /// x·Wᵀ + b. One-bit weights add and subtract, then scale once a channel.
    pub(super) fn linear(&mut self, layer: &Linear, x: &Rows) -> Result<Rows, BitFault> {
        let (n, outputs) = (x.rows, layer.outputs());
        match layer {
            Linear::Dense { .. } => self.macs(Width::F32, n * outputs * layer.inputs()),
            Linear::Binary(_) => {
                self.count(Op::Add, Width::F32, n * outputs * layer.inputs());
                self.count(Op::Mul, Width::F32, n * outputs);
            }
        }
        self.count(Op::Add, Width::F32, n * outputs);
        self.rows(n, outputs, || match layer {
            Linear::Dense { weight, bias, inputs } => Ok(dense(weight, bias, *inputs, &x.values)),
            Linear::Binary(binary) => {
                let mut out = vec![0.0; n * outputs];
                binary.floats(self.encoder.level(), &x.values, &mut out)?;
                Ok(out)
            }
        })
    }

    /// The product with the signs of `x`.
    fn signed(&mut self, layer: &Linear, x: &Rows) -> Result<Rows, BitFault> {
        let (n, outputs) = (x.rows, layer.outputs());
        self.count(Op::Compare, Width::F32, x.rows * x.cols);
        let Linear::Binary(binary) = layer else {
            let values = x.values.iter().map(|&v| if v >= 0.0 { 1.0 } else { -1.0 }).collect();
            return self.linear(layer, &Rows { rows: x.rows, cols: x.cols, values });
        };
        self.macs(Width::I1, n * outputs * layer.inputs());
        self.macs(Width::F32, n * outputs);
        self.rows(n, outputs, || {
            let x = Signs::pack(&x.values, layer.inputs())?;
            let mut out = vec![0.0; n * outputs];
            binary.bits(self.encoder.level(), &x, &mut out)?;
            Ok(out)
        })
    }

    /// Counted as the float world counts a layer norm.
    fn norm(&mut self, norm: &Norm, x: &Rows) -> Rows {
        let n = x.rows * x.cols;
        self.macs(Width::F32, n);
        self.count(Op::Add, Width::F32, 3 * n);
        self.count(Op::Mul, Width::F32, 2 * n);
        self.count(Op::Function, Width::F32, x.rows);
        Rows { rows: x.rows, cols: x.cols, values: norm.apply(&x.values) }
    }

    fn pool(&mut self, mut x: Rows) -> Rows {
        let cols = x.cols;
        match self.encoder.config.undertone.pooling {
            Pooling::First => {
                self.count(Op::Move, Width::F32, cols);
                x.values.truncate(cols);
                Rows { rows: 1, ..x }
            }
            Pooling::Mean => {
                self.count(Op::Add, Width::F32, x.rows * cols);
                self.count(Op::Mul, Width::F32, cols);
                let mut pooled = vec![0.0; if self.real { cols } else { 0 }];
                x.values.chunks_exact(cols).for_each(|row| add(&mut pooled, row));
                pooled.iter_mut().for_each(|p| *p /= x.rows as f32);
                Rows { rows: 1, cols, values: pooled }
            }
        }
    }
}

impl Encoder {
    pub(super) fn level(&self) -> crate::Level {
        match self.arithmetic {
            Arithmetic::Packed(level) => level,
            Arithmetic::Float => crate::Level::Portable,
        }
    }
}

fn dense(weight: &[f32], bias: &[f32], inputs: usize, x: &[f32]) -> Vec<f32> {
    let (n, outputs) = (x.len() / inputs, bias.len());
    let mut out = bias.repeat(n);
    matmul(
        MatMut::from_row_major_slice_mut(&mut out, n, outputs),
        Accum::Add,
        MatRef::from_row_major_slice(x, n, inputs),
        MatRef::from_row_major_slice(weight, outputs, inputs).transpose(),
        1.0,
        Par::Seq,
    );
    out
}

impl Norm {
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

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Columns `from..from + count`.
fn columns(x: &Rows, from: usize, count: usize) -> Rows {
    let rows = x.values.chunks_exact(x.cols);
    let values = rows.flat_map(|row| &row[from..from + count]).copied().collect();
    Rows { rows: x.rows, cols: count, values }
}

/// x·Φ(x) with the error function (Hendrycks and Gimpel 2016).
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}
