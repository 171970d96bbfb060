//! Operation counts of EcoFormer on pyramid vision transformers, as its authors count them.
//!
//! Their tool (get_energy.py with mmcv's counter) takes one multiplication and one addition for
//! each multiply-accumulate of convolutions and linear layers, two of each an element of a
//! LayerNorm, and adds attention by formula. [`Counting::Published`] keeps all of that, also that
//! the n·m·d squarings of the distances ‖x − a‖² are left out; [`Counting::WithSquarings`] adds
//! them.

use undertone_core::{Counts, Op, Width};

/// A four-stage pyramid of tokens, by its shapes.
#[derive(Clone, Copy, Debug)]
pub struct Pyramid {
    /// The model's name.
    pub name: &'static str,
    /// Token width of each stage.
    pub dims: [u64; 4],
    /// Blocks of each stage.
    pub depths: [u64; 4],
    /// Heads of each stage.
    pub heads: [u64; 4],
    /// Hidden width of the feed-forward block, times the token width.
    pub ratios: [u64; 4],
    /// What differs between the families.
    pub family: Family,
}

/// Families of pyramids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// PVTv2 (arXiv 2106.13797): overlapping patch embedding 7×7/4 then 3×3/2, a depth-wise 3×3
    /// convolution in the feed-forward block, a norm after each stage.
    PvtV2,
    /// Twins-SVT (arXiv 2104.13840): patches 4×4 then 2×2, one depth-wise 3×3 convolution a stage
    /// for positions, one norm at the end.
    Twins,
}

/// The attention of the first three stages; the last stays softmax in EcoFormer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Softmax over all tokens, without spatial reduction.
    Softmax,
    /// EcoFormer: Q and K share one projection and are hashed.
    EcoFormer {
        /// Bits in a code.
        bits: u64,
        /// Anchors.
        anchors: u64,
    },
}

/// EcoFormer with the paper's constants.
pub const ECOFORMER: Attention = Attention::EcoFormer { bits: 16, anchors: 25 };

/// Which operations count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// As published.
    Published,
    /// With the squarings of the distances.
    WithSquarings,
}

/// PVTv2-B0 to B4.
pub const PVT_V2: [Pyramid; 5] = {
    const fn b(name: &'static str, dims: [u64; 4], depths: [u64; 4]) -> Pyramid {
        let family = Family::PvtV2;
        Pyramid { name, dims, depths, heads: [1, 2, 5, 8], ratios: [8, 8, 4, 4], family }
    }
    const WIDE: [u64; 4] = [64, 128, 320, 512];
    [
        b("PVTv2-B0", [32, 64, 160, 256], [2, 2, 2, 2]),
        b("PVTv2-B1", WIDE, [2, 2, 2, 2]),
        b("PVTv2-B2", WIDE, [3, 4, 6, 3]),
        b("PVTv2-B3", WIDE, [3, 4, 18, 3]),
        b("PVTv2-B4", WIDE, [3, 8, 27, 3]),
    ]
};

/// Twins-SVT-S.
pub const TWINS_S: Pyramid = Pyramid {
    name: "Twins-SVT-S",
    dims: [64, 128, 256, 512],
    depths: [2, 2, 10, 4],
    heads: [2, 4, 8, 16],
    ratios: [4; 4],
    family: Family::Twins,
};

/// Pixels of a side of the input.
const SIDE: u64 = 224;
const CLASSES: u64 = 1000;

/// All operations of one 224 × 224 image.
pub fn count(model: &Pyramid, attention: Attention, counting: Counting) -> Counts {
    stages(model).fold(Counts::default(), |sum, stage| {
        sum.plus(&surroundings(model, &stage, attention))
            .plus(&scaled(&attended(&stage, attention, counting), stage.depth))
    })
}

/// The operations inside the attentions alone (hash, codes, sums), without projections; the last
/// stage is softmax either way.
pub fn count_attention(model: &Pyramid, attention: Attention, counting: Counting) -> Counts {
    stages(model).fold(Counts::default(), |sum, stage| {
        sum.plus(&scaled(&attended(&stage, attention, counting), stage.depth))
    })
}

struct Stage {
    index: usize,
    tokens: u64,
    dim: u64,
    before: u64,
    depth: u64,
    heads: u64,
}

fn stages(model: &Pyramid) -> impl Iterator<Item = Stage> + '_ {
    (0..4).map(move |index| {
        let side = SIDE / (4 << index);
        Stage {
            index,
            tokens: side * side,
            dim: model.dims[index],
            before: if index == 0 { 3 } else { model.dims[index - 1] },
            depth: model.depths[index],
            heads: model.heads[index],
        }
    })
}

fn scaled(counts: &Counts, times: u64) -> Counts {
    let mut out = Counts::default();
    for (op, width, n) in counts.iter() {
        out.add(op, width, n * times);
    }
    out
}

/// Everything but the attentions: embedding, projections, feed-forward, norms, classifier.
fn surroundings(model: &Pyramid, s: &Stage, attention: Attention) -> Counts {
    let (n, d) = (s.tokens, s.dim);
    let norm = 2 * n * d;
    // A convolution's bias counts as one more multiply-accumulate an output, a linear layer's not.
    let conv =
        |kernel: u64, inputs: u64, outputs: u64| (kernel * kernel * inputs + 1) * outputs * n;
    let hashed = s.index < 3 && attention != Attention::Softmax;
    let projections = if hashed { 3 } else { 4 } * n * d * d;
    let hidden = model.ratios[s.index] * d;
    let feed_forward = 2 * n * d * hidden;
    let mut macs = s.depth * (2 * norm + projections + feed_forward);
    macs += norm;
    match model.family {
        Family::PvtV2 => {
            macs += conv(if s.index == 0 { 7 } else { 3 }, s.before, d);
            macs += s.depth * conv(3, 1, hidden);
            macs += norm;
        }
        Family::Twins => {
            macs += conv(if s.index == 0 { 4 } else { 2 }, s.before, d);
            macs += conv(3, 1, d);
            if s.index == 3 {
                macs += norm;
            }
        }
    }
    if s.index == 3 {
        macs += d * CLASSES;
    }
    let mut counts = Counts::default();
    counts.mac(Width::F32, macs);
    counts
}

/// One attention of a stage.
fn attended(s: &Stage, attention: Attention, counting: Counting) -> Counts {
    let (n, d, h) = (s.tokens, s.dim, s.heads);
    let mut counts = Counts::default();
    match attention {
        Attention::EcoFormer { bits, anchors } if s.index < 3 => {
            // Distances: a difference and a sum an element; then the division by −2σ and the mean's
            // subtraction, which the published formula books as two multiplications.
            counts.add(Op::Add, Width::F32, 2 * n * anchors * d);
            counts.add(Op::Mul, Width::F32, 2 * h * n * anchors);
            if counting == Counting::WithSquarings {
                counts.add(Op::Mul, Width::F32, n * anchors * d);
            }
            // A·κ.
            counts.mac(Width::F32, h * n * anchors * bits);
            // Σ h_j, then the denominators and their reciprocals.
            counts.add(Op::Add, Width::F32, h * n * bits);
            counts.mac(Width::F32, h * n * bits);
            counts.add(Op::Mul, Width::F32, h * n);
            // Σ h_j v_jᵀ and h_iᵀ(·), additions only; the bias, and the division.
            counts.add(Op::Add, Width::F32, 2 * n * bits * d + n * d);
            counts.add(Op::Mul, Width::F32, n * d);
        }
        _ => {
            counts.mac(Width::F32, 2 * n * n * d);
            counts.add(Op::Mul, Width::F32, h * n * n);
        }
    }
    counts
}

/// A published row: G multiplications, G additions, mJ, as printed.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The model.
    pub model: Pyramid,
    /// Its attention.
    pub attention: Attention,
    /// Multiplications, additions and millijoules with the digits that the source prints.
    pub printed: [&'static str; 3],
}

/// Table 1 of the EcoFormer paper, and its repository's for Twins-S and the additions of B3.
pub const PUBLISHED: [Published; 11] = {
    const fn row(model: Pyramid, attention: Attention, printed: [&'static str; 3]) -> Published {
        Published { model, attention, printed }
    }
    use Attention::Softmax;
    [
        row(PVT_V2[0], Softmax, ["2.02", "1.99", "9.25"]),
        row(PVT_V2[0], ECOFORMER, ["0.54", "0.56", "2.49"]),
        row(PVT_V2[1], Softmax, ["5.02", "5.00", "23.1"]),
        row(PVT_V2[1], ECOFORMER, ["2.03", "2.09", "9.39"]),
        row(PVT_V2[2], Softmax, ["8.64", "8.60", "39.7"]),
        row(PVT_V2[2], ECOFORMER, ["3.85", "3.97", "17.8"]),
        row(PVT_V2[3], Softmax, ["11.86", "11.82", "54.5"]),
        row(PVT_V2[3], ECOFORMER, ["6.54", "6.72", "30.25"]),
        row(PVT_V2[4], Softmax, ["15.97", "15.93", "73.4"]),
        row(PVT_V2[4], ECOFORMER, ["9.57", "9.82", "44.25"]),
        row(TWINS_S, ECOFORMER, ["2.72", "2.81", "12.6"]),
    ]
};

/// `value` with as many decimals as `printed` has.
pub fn like(value: f64, printed: &str) -> String {
    let decimals = printed.split_once('.').map_or(0, |(_, d)| d.len());
    format!("{value:.decimals$}")
}
