//! Attention as a sum over keys and a denominator.

use super::Matrix;
use crate::config::HeadKind;

/// The attention of one head: q `[n, d]`, k `[m, d]`, v `[m, e]` to `[n, e]`.
///
/// `mask` has an entry a key; masked keys have weight 0 and do not count in N.
pub fn attend(kind: HeadKind, q: &Matrix, k: &Matrix, v: &Matrix, mask: &[bool]) -> Matrix {
    let scale = 1.0 / (q.cols as f64).sqrt();
    let mut out = Matrix::zeros(q.rows, v.cols);
    for i in 0..q.rows {
        let dot = |j| q.row(i).iter().zip(k.row(j)).map(|(a, b)| a * b).sum::<f64>();
        let scores: Vec<f64> = (0..k.rows).map(|j| dot(j) * scale).collect();
        let (weights, denominator) = row_weights(kind, &scores, mask);
        for (column, x) in out.row_mut(i).iter_mut().enumerate() {
            let sum: f64 = (0..v.rows).map(|j| weights[j] * v.row(j)[column]).sum();
            *x = sum / denominator;
        }
    }
    out
}

/// The weights of one row of scores and their denominator.
///
/// Sources: softmax, Vaswani et al. 2017, equation 1; Power-Softmax, arXiv 2410.09457, with the
/// constant of its Lipschitz form, and its length-agnostic form where both sums become means;
/// ReLU-softmax, scaling, 2Quad and squared ReLU, MPCViT (arXiv 2211.13955), 2Quad after
/// MPCFormer (arXiv 2211.01452). `docs/model-format.md` has them in one table.
pub fn row_weights(kind: HeadKind, scores: &[f64], mask: &[bool]) -> (Vec<f64>, f64) {
    let kept = || scores.iter().zip(mask).filter(|(_, kept)| **kept).map(|(s, _)| *s);
    let max = kept().fold(f64::NEG_INFINITY, f64::max);
    let weight = |s: f64| match kind {
        HeadKind::Softmax => (s - max).exp(),
        HeadKind::Power { p, .. } => s.powi(p as i32),
        HeadKind::ReluSoftmax { .. } => s.max(0.0),
        HeadKind::Scaling => s,
        HeadKind::TwoQuad { c, .. } => (s + c).powi(2),
        HeadKind::ReluSquared => s.max(0.0).powi(2),
        HeadKind::Uniform => 1.0,
    };
    let mut weights: Vec<f64> =
        scores.iter().zip(mask).map(|(&s, &kept)| if kept { weight(s) } else { 0.0 }).collect();
    let n = kept().count() as f64;
    let sum: f64 = weights.iter().sum();
    let denominator = match kind {
        HeadKind::Softmax => sum,
        HeadKind::Power { eps, mean: true, .. } => {
            weights.iter_mut().for_each(|w| *w /= n);
            eps + sum / n
        }
        HeadKind::Power { eps, .. }
        | HeadKind::ReluSoftmax { eps }
        | HeadKind::TwoQuad { eps, .. } => eps + sum,
        HeadKind::Scaling | HeadKind::ReluSquared | HeadKind::Uniform => n,
    };
    (weights, denominator)
}
