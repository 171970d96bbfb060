//! embedded-nn and microflow: softmax of bytes, 64 × 64 products, a head.

use core::hint::black_box;

use embedded_nn::fully_connected::fully_connected_per_channel_s8;
use embedded_nn::softmax::softmax_s8;
use embedded_nn::transformer::{AttentionParams, scaled_dot_product_attention_s8};
use embedded_nn::types::{Activation, Dims, FcParams, PerChannelQuantParams, PerTensorQuantParams};
use microflow::activation::FusedActivation;
use microflow::ops::{FullyConnectedOptions, fully_connected, softmax};
use microflow::tensor::Tensor2D;
use nalgebra::SMatrix;
use undertone_board::{Digest, Place, measure};
use undertone_kernels::{attention8, inputs, matvec, softmax8};

/// The matrix of our own count, row after row.
pub(crate) static W: [i8; 4096] = inputs::bytes(12);
/// Its vector.
pub(crate) static X: [i8; 64] = inputs::bytes(13);
/// Our scales in the libraries' terms: `(sum + bias) · multiplier · 2^(shift − 31)`.
pub(crate) static BIAS: [i32; 64] = scales(0);
pub(crate) static MULTIPLIER: [i32; 64] = scales(1);
pub(crate) static SHIFT: [i32; 64] = scales(2);

const fn scales(which: usize) -> [i32; 64] {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 64 {
        let s = matvec::SCALES[i];
        out[i] = [s.bias, s.multiplier, 31 - s.shift as i32][which];
        i += 1;
    }
    out
}

pub(crate) fn nn_softmax<const N: usize>(x: &[i8; N], out: &mut [i8; N]) {
    _ = softmax_s8(black_box(x), 1, N, 1 << 30, 23, -248, out);
}

pub(crate) fn nn_linear(out: &mut [i8; 64]) {
    let params = FcParams {
        input_offset: 0,
        filter_offset: 0,
        output_offset: 0,
        activation: Activation { min: -128, max: 127 },
    };
    let quant = PerChannelQuantParams { multiplier: &MULTIPLIER, shift: &SHIFT };
    let (one, row) = (Dims::new(1, 1, 1, 64), Dims::new(64, 1, 1, 64));
    let x = black_box(&X);
    _ = fully_connected_per_channel_s8(&params, &quant, &one, x, &row, &W, Some(&BIAS), &one, out);
}

/// The head that CMSIS-NN and we compute. It wants all scores and weights: 2·N·N bytes.
fn nn_head<const N: usize, const ND: usize>(
    qkv: &[[i8; ND]; 3],
    scores: &mut [i8],
    out: &mut [i8; ND],
) {
    let params = AttentionParams {
        batches: 1,
        seq_len: N,
        num_heads: 1,
        head_dim: ND / N,
        q_offset: 0,
        k_offset: 0,
        v_offset: 0,
        score_offset: 128,
        output_offset: 0,
        softmax_mult: 1 << 30,
        softmax_shift: 23,
        softmax_diff_min: -248,
    };
    let (logits, mixed) =
        (PerTensorQuantParams::new(1 << 30, -6), PerTensorQuantParams::new(1 << 30, -7));
    let [q, k, v] = black_box(qkv);
    _ = scaled_dot_product_attention_s8(&params, &logits, &mixed, q, k, v, scores, out);
}

pub(crate) fn flow_softmax<const N: usize>(x: &[i8; N], out: &mut [i8; N]) {
    let input: Tensor2D<i8, 1, N, 1> =
        Tensor2D::new(SMatrix::from_row_slice(black_box(x)), [1.0 / 16.0], [0]);
    let made = softmax(input, [1.0 / 256.0], [-128]);
    out.copy_from_slice(made.buffer.as_slice());
}

/// Its weights lie column after column of a [64 × 64] matrix of inputs × outputs: row after row of
/// ours. One scale a tensor.
static FLOW_WEIGHTS: Place<Tensor2D<i8, 64, 64, 1>> = Place::new(Tensor2D {
    buffer: SMatrix::from_array_storage(nalgebra::ArrayStorage(nested())),
    scale: [1.0],
    zero_point: [0],
});

const fn nested() -> [[i8; 64]; 64] {
    let flat = inputs::bytes::<4096>(12);
    let mut out = [[0; 64]; 64];
    let mut i = 0;
    while i < 4096 {
        out[i / 64][i % 64] = flat[i];
        i += 1;
    }
    out
}

pub(crate) struct Flow {
    weights: &'static Tensor2D<i8, 64, 64, 1>,
    bias: SMatrix<f32, 64, 1>,
    none: SMatrix<i32, 1, 64>,
}

/// The factor of its one scale.
pub(crate) const FLOW_SCALE: f64 = 1.0 / 1024.0;

impl Flow {
    pub(crate) fn take() -> Option<Self> {
        let bias = SMatrix::from_fn(|i, _| BIAS[i] as f32 * FLOW_SCALE as f32);
        FLOW_WEIGHTS.take().map(|weights| Self { weights, bias, none: SMatrix::zeros() })
    }

    pub(crate) fn linear(&self, out: &mut [i8; 64]) {
        let input: Tensor2D<i8, 1, 64, 1> =
            Tensor2D::new(SMatrix::from_row_slice(black_box(&X)), [1.0], [0]);
        let constants = (self.bias, FLOW_SCALE as f32, self.none, 0);
        let options = FullyConnectedOptions { fused_activation: FusedActivation::None };
        let made = fully_connected(input, self.weights, [1.0], [0], options, constants);
        out.copy_from_slice(made.buffer.as_slice());
    }
}

static SCORES: Place<[i8; 2 * 197 * 197]> = Place::new([0; 2 * 197 * 197]);

pub(crate) fn run() {
    measure("nn_softmax/64", &mut [0; 64], |o| nn_softmax(&softmax8::ROW_64, o), |o| Digest::EMPTY.with(o));
    measure("nn_softmax/197", &mut [0; 197], |o| nn_softmax(&softmax8::ROW_197, o), |o| Digest::EMPTY.with(o));
    measure("nn_linear/64x64", &mut [0; 64], nn_linear, |o| Digest::EMPTY.with(o));
    measure("flow_softmax/64", &mut [0; 64], |o| flow_softmax(&softmax8::ROW_64, o), |o| Digest::EMPTY.with(o));
    measure("flow_softmax/197", &mut [0; 197], |o| flow_softmax(&softmax8::ROW_197, o), |o| Digest::EMPTY.with(o));
    if let Some(flow) = Flow::take() {
        let mut state = (&flow, [0; 64]);
        measure("flow_linear/64x64", &mut state, |(flow, o)| flow.linear(o), |(_, o)| Digest::EMPTY.with(o));
        crate::error::flow(&state.1);
    }
    if let Some(scores) = SCORES.take() {
        let mut small = (&mut *scores, [0; 784]);
        measure(
            "nn_head/49x16",
            &mut small,
            |(s, o)| nn_head::<49, 784>(&attention8::SMALL, *s, o),
            |(_, o)| Digest::EMPTY.with(o),
        );
        let mut large = (scores, [0; 12_608]);
        measure(
            "nn_head/197x64",
            &mut large,
            |(s, o)| nn_head::<197, 12_608>(&attention8::LARGE, *s, o),
            |(_, o)| Digest::EMPTY.with(o),
        );
    }
}
