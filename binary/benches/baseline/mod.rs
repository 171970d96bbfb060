//! What binary attention is measured against: float32 and int8 softmax attention of one head, and
//! the machine's ceilings.
//!
//! Float: `faer`'s AVX-512 products in blocks of queries that stay in the cache, a vector softmax
//! between them, the division after V. Int8: VNNI products, the same softmax to bytes.

pub(crate) mod simd;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use undertone_core::binary::exp2_negative;

/// Softmax attention in float32; owns its scratch memory.
pub(crate) struct Float {
    n: usize,
    d: usize,
    rows: usize,
    scores: Vec<f32>,
    sums: Vec<f32>,
}

impl Float {
    /// One head of `n` tokens and width `d`.
    pub(crate) fn new(n: usize, d: usize) -> Self {
        // Blocks of queries whose scores fit the second-level cache beside K and V.
        let rows = (196_608 / n).clamp(32, 256).min(n);
        Self { n, d, rows, scores: vec![0.0; rows * n], sums: vec![0.0; rows] }
    }

    /// QKᵀ alone, block by block.
    pub(crate) fn scores(&mut self, q: &[f32], k: &[f32]) {
        for q in q.chunks(self.rows * self.d) {
            self.block(q, k);
        }
    }

    fn block(&mut self, q: &[f32], k: &[f32]) {
        let rows = q.len() / self.d;
        matmul(
            MatMut::from_row_major_slice_mut(&mut self.scores[..rows * self.n], rows, self.n),
            Accum::Replace,
            MatRef::from_row_major_slice(q, rows, self.d),
            MatRef::from_row_major_slice(k, self.n, self.d).transpose(),
            1.0,
            Par::Seq,
        );
    }

    /// softmax(QKᵀ/√d)·V.
    pub(crate) fn attend(&mut self, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        let (n, d) = (self.n, self.d);
        let factor = std::f32::consts::LOG2_E / (d as f32).sqrt();
        for (q, out) in q.chunks(self.rows * d).zip(out.chunks_mut(self.rows * d)) {
            let rows = q.len() / d;
            self.block(q, k);
            for (row, sum) in self.scores.chunks_exact_mut(n).take(rows).zip(&mut self.sums) {
                *sum = simd::exponentials(row, factor);
            }
            matmul(
                MatMut::from_row_major_slice_mut(&mut *out, rows, d),
                Accum::Replace,
                MatRef::from_row_major_slice(&self.scores[..rows * n], rows, n),
                MatRef::from_row_major_slice(v, n, d),
                1.0,
                Par::Seq,
            );
            for (row, sum) in out.chunks_exact_mut(d).zip(&self.sums) {
                let inverse = 1.0 / sum;
                row.iter_mut().for_each(|o| *o *= inverse);
            }
        }
    }
}

/// The plain form of both, for a check that the baseline computes attention.
pub(crate) fn plain(q: &[f32], k: &[f32], v: &[f32], d: usize) -> Vec<f32> {
    let factor = std::f32::consts::LOG2_E / (d as f32).sqrt();
    let mut out = Vec::new();
    for q in q.chunks_exact(d) {
        let s: Vec<f32> =
            k.chunks_exact(d).map(|k| q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>()).collect();
        let most = s.iter().copied().fold(f32::MIN, f32::max);
        let w: Vec<f32> = s.iter().map(|s| exp2_negative((s - most) * factor)).collect();
        let sum: f32 = w.iter().sum();
        for c in 0..d {
            out.push(w.iter().zip(v.chunks_exact(d)).map(|(w, v)| w * v[c]).sum::<f32>() / sum);
        }
    }
    out
}

/// Numbers between −1 and 1 with a rough bell, the same for every run.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| uniform() + uniform() + uniform()).collect()
}
