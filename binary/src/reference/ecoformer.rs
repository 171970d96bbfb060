//! EcoFormer (Liu et al., "EcoFormer: Energy-Saving Attention with Linear Complexity", NeurIPS
//! 2022, arXiv 2209.09004).

pub use undertone_core::binary::ecoformer::Variant;

/// A trained hash in f64: anchors m × d, planes b × m, means m.
#[derive(Clone, Debug)]
pub struct Hash {
    /// Values in a token.
    pub dim: usize,
    /// Anchors, m × dim.
    pub anchors: Vec<f64>,
    /// Hash planes A, bits × m.
    pub planes: Vec<f64>,
    /// Kernel means μ over the training tokens, m.
    pub means: Vec<f64>,
    /// Fixed σ, or `None` for the mean distance of each input.
    pub sigma: Option<f64>,
}

/// Tokens divided by their length (a zero token stays zero; the released code gives NaN).
pub fn normalised(x: &[f64], dim: usize) -> Vec<f64> {
    x.chunks_exact(dim)
        .flat_map(|t| {
            let length = t.iter().map(|v| v * v).sum::<f64>().sqrt();
            t.iter().map(move |v| if length > 0.0 { v / length } else { 0.0 })
        })
        .collect()
}

/// Squared distances of normalised tokens to the anchors, n × m.
pub fn distances(x: &[f64], anchors: &[f64], dim: usize) -> Vec<f64> {
    x.chunks_exact(dim)
        .flat_map(|t| {
            anchors
                .chunks_exact(dim)
                .map(|a| t.iter().zip(a).map(|(t, a)| (t - a) * (t - a)).sum::<f64>())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Kernels exp(−distance/2σ), n × m, and the σ used.
pub fn kernels(x: &[f64], anchors: &[f64], dim: usize, sigma: Option<f64>) -> (Vec<f64>, f64) {
    let d = distances(&normalised(x, dim), anchors, dim);
    let sigma = sigma.unwrap_or_else(|| d.iter().sum::<f64>() / d.len() as f64);
    (d.iter().map(|d| (-d / (2.0 * sigma)).exp()).collect(), sigma)
}

/// y = A(κ − μ), n × bits: the codes are its signs (equations 7 and 8).
pub fn responses(hash: &Hash, x: &[f64]) -> Vec<f64> {
    let m = hash.means.len();
    let (kernels, _) = kernels(x, &hash.anchors, hash.dim, hash.sigma);
    kernels
        .chunks_exact(m)
        .flat_map(|k| {
            hash.planes
                .chunks_exact(m)
                .map(|a| {
                    a.iter().zip(k).zip(&hash.means).map(|((a, k), mu)| a * (k - mu)).sum::<f64>()
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Attention on codes h ∈ {±1}^b by the quadratic form: weight h_i·h_j + b + 1 of every pair.
pub fn attend(h: &[f64], bits: usize, v: &[f64], channels: usize, variant: Variant) -> Vec<f64> {
    let n = h.len() / bits;
    let c = bits as f64 + 1.0;
    let mut out = vec![0.0; n * channels];
    for i in 0..n {
        let mut den = 0.0;
        let row = &mut out[i * channels..(i + 1) * channels];
        for j in 0..n {
            let dot: f64 = (0..bits).map(|b| h[i * bits + b] * h[j * bits + b]).sum();
            den += dot + c;
            let weight = if variant == Variant::Exact { dot + c } else { dot };
            row.iter_mut().zip(&v[j * channels..]).for_each(|(o, v)| *o += weight * v);
        }
        if variant == Variant::Repo {
            row.iter_mut().zip(&v[i * channels..]).for_each(|(o, v)| *o += c * v);
        }
        row.iter_mut().for_each(|o| *o /= den);
    }
    out
}
