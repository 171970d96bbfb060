//! EcoFormer's float kernels, written once over arrays of lanes and compiled for each level.
//!
//! Safe Rust: the compiler turns the arrays into registers. Sums keep the portable form's order and
//! products are not fused, so the bits agree.

use undertone_core::binary::ecoformer::{self as eco, NIBBLE, Variant};
use undertone_core::binary::hash::{EXP2, ROUND};

/// Lanes of a vector of floats.
pub(crate) const LANES: usize = 16;
/// Anchors of a pass: two vectors.
pub(crate) const ANCHORS: usize = 32;
/// Tokens of a pass: sixteen accumulators.
pub(crate) const TOKENS: usize = 8;

/// A cache line of floats.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Floats(pub(crate) [f32; LANES]);

/// A hash laid out for lanes: passes of 32 anchors.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) dim: usize,
    pub(crate) bits: usize,
    /// Per pass and column, 32 anchors' values.
    pub(crate) anchors: Vec<[Floats; 2]>,
    /// Per pass, 32 anchors' squared lengths.
    pub(crate) norms: Vec<[Floats; 2]>,
    /// Per anchor, the planes' values for up to 16 bits.
    pub(crate) planes: Vec<Floats>,
    pub(crate) thresholds: Floats,
    /// The anchors once more, in 16 bits.
    pub(crate) words: Words,
    pub(crate) slack: Slack,
}

/// Sixteen words of 32 bits in a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Pairs(pub(crate) [[i16; 2]; LANES]);

/// A token's direction is a whole number of 1/32,000: 1 % beyond a unit vector fits 16 bits.
pub(crate) const UNIT: f32 = 32_000.0;

/// Anchors as multiples of units of their own, for products of 16 bits with 32-bit sums.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    /// Per pass and two columns, 32 anchors' values.
    pub(crate) anchors: Vec<[Pairs; 2]>,
    /// Per pass, 32 anchors' units of a product of words, times −2.
    pub(crate) scales: Vec<[Floats; 2]>,
    /// Per anchor, the most by which a product with a token's direction may be off.
    pub(crate) errors: Vec<f64>,
}

impl Words {
    /// For anchors (m × dim).
    pub(crate) fn new(anchors: &[f32], dim: usize) -> Self {
        let m = anchors.len() / dim;
        let (passes, pairs) = (m.div_ceil(ANCHORS), dim.div_ceil(2));
        let mut words = vec![[Pairs([[0; 2]; LANES]); 2]; passes * pairs];
        let mut scales = vec![[Floats([0.0; LANES]); 2]; passes];
        let mut errors = Vec::with_capacity(m);
        // Each of the token's values is off by half a unit and what its own products were rounded by.
        let token = 0.51 * (dim as f64).sqrt() / f64::from(UNIT);
        for (j, anchor) in anchors.chunks_exact(dim).enumerate() {
            let (pass, half, lane) = (j / ANCHORS, j % ANCHORS / LANES, j % LANES);
            let length = norm(anchor.iter().map(|&v| f64::from(v)));
            let most = anchor.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
            // Values fit words, and by Cauchy and Schwarz a sum of products fits 32 bits. Anchors near the
            // end of floats are left to their error.
            let unit = (most / 32_767.0).max(length / 65_000.0);
            let fits = unit > 1e-30 && unit < 1e30;
            let mut off = Vec::with_capacity(dim);
            for (k, &v) in anchor.iter().enumerate() {
                let word = if fits { (f64::from(v) / unit).round() } else { 0.0 };
                words[pass * pairs + k / 2][half].0[lane][k % 2] = word as i16;
                off.push(f64::from(v) - if fits { word * unit } else { 0.0 });
            }
            if fits {
                scales[pass][half].0[lane] = (-2.0 * unit / f64::from(UNIT)) as f32;
            }
            errors.push(token * length + 1.02 * norm(off.into_iter()));
        }
        Self { anchors: words, scales, errors }
    }
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|v| v * v).sum::<f64>().sqrt()
}

/// How far a response computed with products of 16 bits may lie from the portable form's, a bit:
/// `distance`·|exponent| + `rounding`, from the standard bounds of rounding errors.
///
/// With u = 2⁻²⁴ and γ_n = n·u/(1 − n·u), the portable form's dot product lies within γ_d·‖x‖‖a‖ of the
/// exact one and the other within the error E of its words ([`Words`]), so exponents differ by at most
/// |e|·δ with δ = 2.1·(γ_d·‖a‖ + E) + u·(8 + 20‖a‖ + 8‖a‖²): twice both (a token is a unit vector to
/// 1 %), and the roundings of what follows. A kernel is at most 1 and moves by 0.7·|e|·δ; the two forms
/// of 2^z differ by less than 16·u; sums over m anchors by 2·γ_m·Σ|A|.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slack {
    pub(crate) distance: Floats,
    pub(crate) rounding: Floats,
}

impl Slack {
    /// For planes (bits × m) and anchors (m × dim) with the errors of their words.
    pub(crate) fn new(
        planes: &[f32],
        anchors: &[f32],
        errors: &[f64],
        dim: usize,
        bits: usize,
    ) -> Self {
        let u = 2f64.powi(-24);
        let gamma = |n: usize| n as f64 * u / (1.0 - n as f64 * u);
        let m = anchors.len() / dim;
        let distances: Vec<f64> = anchors
            .chunks_exact(dim)
            .zip(errors)
            .map(|(a, error)| {
                let a = norm(a.iter().map(|&v| f64::from(v)));
                2.1 * (gamma(dim) * a + error) + u * (8.0 + 20.0 * a + 8.0 * a * a)
            })
            .collect();
        let of = |bit: usize, each: &dyn Fn(f64) -> f64| {
            let plane = planes.get(bit * m..(bit + 1) * m).unwrap_or_default();
            let sum: f64 =
                plane.iter().zip(&distances).map(|(p, &d)| f64::from(p.abs()) * each(d)).sum();
            // Rounded up, and the difference to the threshold is rounded too.
            (1.01 * sum) as f32
        };
        let lane =
            |bit: usize, each: &dyn Fn(f64) -> f64| if bit < bits { of(bit, each) } else { 0.0 };
        Self {
            distance: Floats(std::array::from_fn(|bit| lane(bit, &|d| 0.7 * d))),
            rounding: Floats(std::array::from_fn(|bit| lane(bit, &|_| 16.0 * u + 2.0 * gamma(m)))),
        }
    }
}

macro_rules! lanes {
    ($f:expr) => {
        Floats(std::array::from_fn($f))
    };
}

#[inline(always)]
fn exp2_negative(z: Floats) -> Floats {
    let z = lanes!(|l| if z.0[l] > -126.0 { z.0[l] } else { -126.0 });
    let rounded = lanes!(|l| z.0[l] + ROUND);
    let f = lanes!(|l| z.0[l] - (rounded.0[l] - ROUND));
    let mut p = Floats([EXP2[0]; LANES]);
    for &c in &EXP2[1..] {
        p = lanes!(|l| p.0[l] * f.0[l] + c);
    }
    lanes!(|l| f32::from_bits(p.0[l].to_bits().wrapping_add(rounded.0[l].to_bits() << 23)))
}

/// Codes of the tokens `x`, given 1/‖x‖ and the kernel's exponent.
#[inline(always)]
pub(crate) fn codes(hash: &Layout, x: &[f32], inverse: &[f32], exponent: f32, out: &mut [u16]) {
    let dim = hash.dim;
    let whole = out.len() / TOKENS * TOKENS;
    for first in (0..whole).step_by(TOKENS) {
        let tokens = &x[first * dim..(first + TOKENS) * dim];
        block::<TOKENS>(hash, tokens, &inverse[first..], exponent, &mut out[first..]);
    }
    for first in whole..out.len() {
        let token = &x[first * dim..(first + 1) * dim];
        block::<1>(hash, token, &inverse[first..], exponent, &mut out[first..]);
    }
}

#[inline(always)]
fn block<const T: usize>(
    hash: &Layout,
    tokens: &[f32],
    inverse: &[f32],
    exponent: f32,
    out: &mut [u16],
) {
    let dim = hash.dim;
    let rows: [&[f32]; T] = std::array::from_fn(|t| &tokens[t * dim..(t + 1) * dim]);
    let mut y = [Floats([0.0; LANES]); T];
    for (pass, norms) in hash.norms.iter().enumerate() {
        let mut dots = [[Floats([0.0; LANES]); 2]; T];
        for (k, anchors) in hash.anchors[pass * dim..(pass + 1) * dim].iter().enumerate() {
            for t in 0..T {
                let x = rows[t][k];
                for h in 0..2 {
                    dots[t][h] = lanes!(|l| dots[t][h].0[l] + x * anchors[h].0[l]);
                }
            }
        }
        let mut kernels = [[0.0f32; ANCHORS]; T];
        for t in 0..T {
            let r = inverse[t];
            let length = if r > 0.0 { 1.0 } else { 0.0 };
            let twice = 2.0 * r;
            for h in 0..2 {
                let z = lanes!(|l| {
                    let d = (length + norms[h].0[l]) - twice * dots[t][h].0[l];
                    (if d > 0.0 { d } else { 0.0 }) * exponent
                });
                kernels[t][h * LANES..(h + 1) * LANES].copy_from_slice(&exp2_negative(z).0);
            }
        }
        let planes = &hash.planes[pass * ANCHORS..];
        for (j, plane) in planes.iter().take(ANCHORS).enumerate() {
            for t in 0..T {
                let k = kernels[t][j];
                y[t] = lanes!(|l| y[t].0[l] + k * plane.0[l]);
            }
        }
    }
    for t in 0..T {
        let mut code = 0u16;
        for b in 0..hash.bits {
            code |= u16::from(y[t].0[b] >= hash.thresholds.0[b]) << b;
        }
        out[t] = code;
    }
}

/// 1/‖x‖ of every token; `false` where a length is not finite.
#[inline(always)]
pub(crate) fn normalisers(x: &[f32], dim: usize, out: &mut [f32]) -> bool {
    use undertone_core::binary::hash::{normaliser, squared_norm};
    let mut fine = true;
    for (token, r) in x.chunks_exact(dim).zip(out) {
        match normaliser(squared_norm(token)) {
            Some(inverse) => *r = inverse,
            None => fine = false,
        }
    }
    fine
}

/// Σ x̂, as [`undertone_core::binary::hash::sum_of_directions`] orders it.
#[inline(always)]
pub(crate) fn sum_of_directions(x: &[f32], inverse: &[f32], sum: &mut [f32], part: &mut [f32]) {
    use undertone_core::binary::hash::SUM_BLOCK;
    let dim = sum.len();
    sum.fill(0.0);
    for (tokens, inverse) in x.chunks(SUM_BLOCK * dim).zip(inverse.chunks(SUM_BLOCK)) {
        part.fill(0.0);
        for (token, &r) in tokens.chunks_exact(dim).zip(inverse) {
            for (p, &v) in part.iter_mut().zip(token) {
                *p += v * r;
            }
        }
        for (s, &p) in sum.iter_mut().zip(&*part) {
            *s += p;
        }
    }
}

/// What one pass over some columns of V needs.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) queries: &'a [u16],
    pub(crate) keys: &'a [u16],
    pub(crate) bits: usize,
    pub(crate) variant: Variant,
    /// V and its row length; the pass reads `C` columns from `at` on.
    pub(crate) v: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) at: usize,
    /// 1/denominator of each query.
    pub(crate) inverse: &'a [f32],
}

/// Attention on codes for `C` columns; `false` where the sums are not finite.
#[inline(always)]
pub(crate) fn attend<const C: usize>(pass: Pass<'_>, tables: &mut [f32], out: &mut [f32]) -> bool {
    let Pass { queries, keys, bits, variant, v, stride, at, inverse } = pass;
    match eco::nibbles(bits) {
        1 => attend_nibbles::<C, 1>(
            queries, keys, bits, variant, v, stride, at, inverse, tables, out,
        ),
        2 => attend_nibbles::<C, 2>(
            queries, keys, bits, variant, v, stride, at, inverse, tables, out,
        ),
        3 => attend_nibbles::<C, 3>(
            queries, keys, bits, variant, v, stride, at, inverse, tables, out,
        ),
        _ => attend_nibbles::<C, 4>(
            queries, keys, bits, variant, v, stride, at, inverse, tables, out,
        ),
    }
}

#[inline(always)]
fn attend_nibbles<const C: usize, const P: usize>(
    queries: &[u16],
    keys: &[u16],
    bits: usize,
    variant: Variant,
    v: &[f32],
    stride: usize,
    at: usize,
    inverse: &[f32],
    tables: &mut [f32],
    out: &mut [f32],
) -> bool {
    let tables = &mut tables[..P * NIBBLE * C];
    tables.fill(0.0);
    {
        let (rows, _) = tables.as_chunks_mut::<C>();
        for (code, row) in keys.iter().zip(v.chunks_exact(stride)) {
            let Some(&row) = row[at..].first_chunk::<C>() else { return false };
            for p in 0..P {
                let bucket = &mut rows[p * NIBBLE + (usize::from(code >> (4 * p)) & 15)];
                for l in 0..C {
                    bucket[l] += row[l];
                }
            }
        }
    }
    if undertone_core::binary::finite("sums", tables).is_err() {
        return false;
    }
    let mut contexts = [[0.0f32; C]; 4];
    eco::combine(bits, C, variant, tables, contexts.as_flattened_mut());
    let (rows, _) = tables.as_chunks::<C>();
    let c = eco::bias(bits) as f32;
    for (i, code) in queries.iter().enumerate() {
        let scale = inverse[i];
        let mut sum = rows[usize::from(code & 15)];
        for p in 1..P {
            let row = &rows[p * NIBBLE + (usize::from(code >> (4 * p)) & 15)];
            for l in 0..C {
                sum[l] += row[l];
            }
        }
        if variant == Variant::Repo {
            let Some(own) = v[i * stride + at..].first_chunk::<C>() else { return false };
            for l in 0..C {
                sum[l] += c * own[l];
            }
        }
        let Some(to) = out[i * stride + at..].first_chunk_mut::<C>() else { return false };
        for l in 0..C {
            to[l] = sum[l] * scale;
        }
    }
    true
}

/// Compiles the kernels for one level: the bodies above are inlined into functions that may use
/// its instructions.
macro_rules! level {
    ($name:ident, $features:literal) => {
        #[cfg(target_arch = "x86_64")]
        pub(crate) mod $name {
            use super::{Layout, Pass};

            /// # Safety
            /// Needs the level's instructions.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn codes(
                hash: &Layout,
                x: &[f32],
                inverse: &[f32],
                exponent: f32,
                out: &mut [u16],
            ) {
                super::codes(hash, x, inverse, exponent, out);
            }

            /// # Safety
            /// Needs the level's instructions.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn normalisers(x: &[f32], dim: usize, out: &mut [f32]) -> bool {
                super::normalisers(x, dim, out)
            }

            /// # Safety
            /// Needs the level's instructions.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn sum_of_directions(
                x: &[f32],
                inverse: &[f32],
                sum: &mut [f32],
                part: &mut [f32],
            ) {
                super::sum_of_directions(x, inverse, sum, part);
            }

            /// # Safety
            /// Needs the level's instructions.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn attend<const C: usize>(
                pass: Pass<'_>,
                tables: &mut [f32],
                out: &mut [f32],
            ) -> bool {
                super::attend::<C>(pass, tables, out)
            }
        }
    };
}
level!(wide256, "avx2");
level!(wide512, "avx512f,avx512bw,avx512dq,avx512vl");
