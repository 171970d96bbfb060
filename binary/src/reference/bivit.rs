//! BiViT (He et al., "BiViT: Extremely Compressed Binary Vision Transformer", arXiv 2211.07091).

/// A softmax row.
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let w: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let sum: f64 = w.iter().sum();
    w.into_iter().map(|w| w / sum).collect()
}

/// A binarized attention row: `scale · bits` stands for the softmax row.
#[derive(Clone, Debug, PartialEq)]
pub struct Binarized {
    /// a_q ∈ {0, 1}.
    pub bits: Vec<bool>,
    /// The scale v.
    pub scale: f64,
    /// The threshold T.
    pub threshold: f64,
}

impl Binarized {
    fn at(row: &[f64], threshold: f64) -> Self {
        let bits: Vec<bool> = row.iter().map(|&a| a >= threshold).collect();
        Self { scale: mean_of(row, &bits), bits, threshold }
    }

    /// ‖a − v·b‖²/n, the paper's quantization error; `scaled = false` takes v = 1.
    pub fn error(&self, row: &[f64], scaled: bool) -> f64 {
        let v = if scaled { self.scale } else { 1.0 };
        let square =
            |(&a, &b): (&f64, &bool)| (a - if b { v } else { 0.0 }) * (a - if b { v } else { 0.0 });
        row.iter().zip(&self.bits).map(square).sum::<f64>() / row.len() as f64
    }
}

/// v* = (a·b)/(b·b): the mean over the chosen, zero where none is.
fn mean_of(row: &[f64], bits: &[bool]) -> f64 {
    let (sum, count) = row
        .iter()
        .zip(bits)
        .filter(|(_, b)| **b)
        .fold((0.0, 0.0), |(s, c), (a, _)| (s + a, c + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The rounds of alternation that the paper uses.
pub const ROUNDS: usize = 5;

/// Softmax-aware binarization, optimal (section 3.2): alternate v* = (a·b)/(b·b) and T* = v*/2,
/// b = [a ≥ T*], `rounds` times from T = max/2. Each half step lowers ‖a − v·b‖² or keeps it.
pub fn optimal(row: &[f64], rounds: usize) -> Binarized {
    let most = row.iter().copied().fold(0.0, f64::max);
    let mut found = Binarized::at(row, most / 2.0);
    for _ in 0..rounds {
        found = Binarized::at(row, found.scale / 2.0);
    }
    found
}

/// Softmax-aware binarization as the paper uses it: T = β·max, β = 1/4; a_q ≥ T is 1.
pub fn approximate(row: &[f64], beta: f64) -> Binarized {
    let most = row.iter().copied().fold(0.0, f64::max);
    Binarized::at(row, beta * most)
}

/// BiBERT's bounded activation on a softmax row, for comparison: sign at zero scores, which keeps
/// what lies above the score 0.
pub fn sign_of_scores(scores: &[f64]) -> Vec<bool> {
    scores.iter().map(|&s| s >= 0.0).collect()
}

/// Whole attention of one head from signs: softmax over q·k/√d, threshold at β·max, product with
/// the values' signs, scale dropped. `q` n × d, `k` m × d, `v` m × c in ±1.
pub fn attend(q: &[f64], k: &[f64], v: &[f64], dim: usize, channels: usize, beta: f64) -> Vec<f64> {
    let mut out = Vec::new();
    for q in q.chunks_exact(dim) {
        let scores: Vec<f64> = k
            .chunks_exact(dim)
            .map(|k| q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / (dim as f64).sqrt())
            .collect();
        let row = approximate(&softmax(&scores), beta);
        for c in 0..channels {
            out.push(
                row.bits
                    .iter()
                    .zip(v.chunks_exact(channels))
                    .filter(|(b, _)| **b)
                    .map(|(_, v)| v[c])
                    .sum(),
            );
        }
    }
    out
}

/// A binarized weight matrix (channels × inputs): signs ±1 and one scale a channel, mean |W|
/// (section 3.3 and the released code: W_b = s·sign(W − rowmean)).
pub fn binarize_weights(weights: &[f64], inputs: usize) -> (Vec<f64>, Vec<f64>) {
    let mut signs = Vec::new();
    let mut scales = Vec::new();
    for row in weights.chunks_exact(inputs) {
        let mean = row.iter().sum::<f64>() / inputs as f64;
        scales.push(row.iter().map(|w| w.abs()).sum::<f64>() / inputs as f64);
        signs.extend(row.iter().map(|w| if w - mean >= 0.0 { 1.0 } else { -1.0 }));
    }
    (signs, scales)
}
