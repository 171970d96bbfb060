//! BiViT's operations and sizes, derived from the shapes of its models.
//!
//! BiViT (arXiv 2211.07091, table 2) prints OPs = BOPs/64 + FLOPs and megabytes. Neither rule is
//! spelt out there; these reproduce all twelve figures of OPs and ten of the twelve sizes, and are
//! stated because they had to be found:
//!
//! * FLOPs are multiply-accumulates with five operations an element of a LayerNorm (fvcore's count);
//! * projections of an attention and its two products are binary × binary: 1/64. So is the strided
//!   convolution of a spatial reduction;
//! * feed-forward layers, depth-wise convolutions included, are binary × float: additions without
//!   multiplications, 1/2;
//! * patch embedding and merging, pooling convolutions, norms and classifier stay float;
//! * float sizes are parameters in millions, rounded to one decimal, times four: 5.7 M are 22.8 MB and
//!   17.1 M are 68.4 MB, where four bytes a parameter would print 22.9 and 68.2;
//! * binary sizes leave out the biases of binarized layers and the tables of relative positions.
//!
//! Two sizes stay apart. Swin-S has 15.349792 MB by this rule, which is 15.3; the printed 15.4 is
//! 15.35 rounded again. PVTv2-B1 has 14.0 M parameters (56.0 MB); the printed 53.5 is near its 53.44 in
//! units of 2²⁰ bytes, as a listing of its checkpoint would show, while the same row's binary size is
//! in 10⁶ bytes like the others.

/// What a part of a model is, which decides how it is priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Stays float: embeddings, merging, classifier.
    Float,
    /// Weights and activations binary.
    Binary,
    /// Weights binary, activations float.
    BinaryWeights,
    /// Normalisation; `macs` counts elements.
    Norm,
}

/// A part of a model.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// How it is priced.
    pub role: Role,
    /// Multiply-accumulates of one image, or elements of a norm.
    pub macs: u64,
    /// Weights.
    pub weights: u64,
    /// Float parameters beside the weights that both sizes count.
    pub beside: u64,
    /// Parameters that only the float size counts: biases of binarized layers, relative positions.
    pub dropped: u64,
}

/// A model's parts.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// The model's name.
    pub name: &'static str,
    /// Its parts.
    pub parts: Vec<Part>,
}

/// Operations an element of a LayerNorm.
const NORM: u64 = 5;

impl Shapes {
    /// Float operations (multiply-accumulates) of one image.
    pub fn float_ops(&self) -> f64 {
        self.parts
            .iter()
            .map(|p| if p.role == Role::Norm { NORM * p.macs } else { p.macs } as f64)
            .sum()
    }

    /// BOPs/64 + FLOPs of one image, binarized.
    pub fn binary_ops(&self) -> f64 {
        self.parts
            .iter()
            .map(|p| match p.role {
                Role::Float => p.macs as f64,
                Role::Norm => (NORM * p.macs) as f64,
                Role::Binary => p.macs as f64 / 64.0,
                Role::BinaryWeights => p.macs as f64 / 2.0,
            })
            .sum()
    }

    /// Bytes as binarized: a bit a binary weight, four bytes any other parameter.
    pub fn binary_bytes(&self) -> f64 {
        self.parts
            .iter()
            .map(|p| {
                let bits =
                    if matches!(p.role, Role::Binary | Role::BinaryWeights) { 1.0 } else { 32.0 };
                (p.weights as f64 * bits + p.beside as f64 * 32.0) / 8.0
            })
            .sum()
    }

    /// All parameters of the float model.
    pub fn parameters(&self) -> u64 {
        self.parts.iter().map(|p| p.weights + p.beside + p.dropped).sum()
    }

    /// Megabytes in float32 as printed: millions of parameters to one decimal, times four.
    pub fn float_megabytes(&self) -> f64 {
        4.0 * (self.parameters() as f64 / 1e5).round() / 10.0
    }

    fn add(&mut self, role: Role, macs: u64, weights: u64, beside: u64) {
        self.parts.push(Part { role, macs, weights, beside, dropped: 0 });
    }

    /// Parameters that only the float size counts.
    fn dropped(&mut self, dropped: u64) {
        self.parts.push(Part { role: Role::Float, macs: 0, weights: 0, beside: 0, dropped });
    }

    fn norm(&mut self, tokens: u64, dim: u64) {
        self.add(Role::Norm, tokens * dim, 0, 2 * dim);
    }

    /// A float convolution without overlap or a linear layer, bias included.
    fn float(&mut self, positions: u64, inputs: u64, outputs: u64, bias: bool) {
        let beside = if bias { outputs } else { 0 };
        self.add(Role::Float, positions * inputs * outputs, inputs * outputs, beside);
    }

    /// A transformer block with `keys` keys a query.
    fn block(&mut self, n: u64, d: u64, keys: u64, ratio: u64) {
        self.norm(n, d);
        self.add(Role::Binary, 4 * n * d * d, 4 * d * d, 0);
        self.add(Role::Binary, 2 * n * keys * d, 0, 0);
        self.norm(n, d);
        self.add(Role::BinaryWeights, 2 * ratio * n * d * d, 2 * ratio * d * d, 0);
        self.dropped(4 * d + ratio * d + d);
    }
}

/// DeiT (arXiv 2012.12877) of width `d`: 196 patches and a class token.
pub fn deit(name: &'static str, d: u64) -> Shapes {
    let mut s = Shapes { name, parts: Vec::new() };
    let n = 197;
    s.float(196, 3 * 16 * 16, d, true);
    s.add(Role::Float, 0, 0, n * d + d);
    for _ in 0..12 {
        s.block(n, d, n, 4);
    }
    s.norm(n, d);
    s.float(1, d, 1000, true);
    s
}

/// Swin (arXiv 2103.14030): windows of 7 × 7, merging 2 × 2.
pub fn swin(name: &'static str, depths: [u64; 4]) -> Shapes {
    let mut s = Shapes { name, parts: Vec::new() };
    let (mut side, mut d) = (56, 96);
    s.float(side * side, 3 * 4 * 4, d, true);
    s.norm(side * side, d);
    for (stage, depth) in depths.into_iter().enumerate() {
        let n = side * side;
        for _ in 0..depth {
            s.block(n, d, 49, 4);
            // Relative positions within a window, a table a head of 32.
            s.dropped(13 * 13 * (d / 32));
        }
        if stage < 3 {
            s.norm(n / 4, 4 * d);
            s.float(n / 4, 4 * d, 2 * d, false);
            (side, d) = (side / 2, 2 * d);
        }
    }
    s.norm(side * side, d);
    s.float(1, d, 1000, true);
    s
}

/// NesT-T (arXiv 2105.12723): blocks of 196 tokens, 3 × 3 convolutions between levels.
pub fn nest_t() -> Shapes {
    let mut s = Shapes { name: "NesT-T", parts: Vec::new() };
    let mut side = 56;
    s.float(side * side, 3 * 4 * 4, 96, true);
    let mut before = 96;
    for (d, depth) in [(96, 2), (192, 2), (384, 8)] {
        if d > before {
            let n = side * side;
            s.float(n, 9 * before, d, true);
            s.norm(n, d);
            side /= 2;
        }
        let n = side * side;
        s.add(Role::Float, 0, 0, n * d);
        for _ in 0..depth {
            s.block(n, d, 196, 4);
        }
        before = d;
    }
    s.norm(side * side, 384);
    s.float(1, 384, 1000, true);
    s
}

/// PVTv2-B1 (arXiv 2106.13797) with its spatial reduction to 7 × 7 keys.
pub fn pvt_v2_b1() -> Shapes {
    let mut s = Shapes { name: "PVTv2-B1", parts: Vec::new() };
    let (mut side, mut before, keys) = (224, 3, 49);
    for (d, ratio, reduce) in [(64, 8, 8), (128, 8, 4), (320, 4, 2), (512, 4, 1u64)] {
        let (kernel, stride) = if before == 3 { (7, 4) } else { (3, 2) };
        side /= stride;
        let n = side * side;
        s.float(n, kernel * kernel * before, d, true);
        s.norm(n, d);
        for _ in 0..2 {
            s.norm(n, d);
            s.add(Role::Binary, 2 * d * d * (n + keys), 4 * d * d, 0);
            s.add(Role::Binary, 2 * n * keys * d, 0, 0);
            if reduce > 1 {
                s.add(Role::Binary, n * d * d, reduce * reduce * d * d, 0);
                s.norm(keys, d);
                s.dropped(d);
            }
            s.norm(n, d);
            let hidden = ratio * d;
            s.add(Role::BinaryWeights, 2 * n * d * hidden, 2 * d * hidden, 0);
            s.add(Role::BinaryWeights, 9 * n * hidden, 9 * hidden, 0);
            s.dropped(4 * d + hidden + hidden + d);
        }
        s.norm(n, d);
        before = d;
    }
    s.float(1, 512, 1000, true);
    s
}

/// A published row: float GOPs, binary GOPs, float MB, binary MB, as printed.
#[derive(Clone, Debug)]
pub struct Published {
    /// The model.
    pub shapes: Shapes,
    /// Float GOPs, binary GOPs, float MB, binary MB with the digits that the paper prints.
    pub printed: [&'static str; 4],
}

/// Table 2 of the BiViT paper.
pub fn published() -> Vec<Published> {
    let row = |shapes, printed| Published { shapes, printed };
    vec![
        row(deit("DeiT-T", 192), ["1.26", "0.39", "22.8", "2.22"]),
        row(deit("DeiT-B", 768), ["17.6", "5.81", "346", "16.8"]),
        row(swin("Swin-T", [2, 2, 6, 2]), ["4.51", "1.62", "113", "12.6"]),
        row(swin("Swin-S", [2, 2, 18, 2]), ["8.77", "3.04", "198", "15.4"]),
        row(nest_t(), ["5.83", "2.49", "68.4", "8.96"]),
        row(pvt_v2_b1(), ["2.12", "0.95", "53.5", "11.3"]),
    ]
}
