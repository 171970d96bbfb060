//! Layer 0 of the real M³ViT, embedding included, in Edge-MoE's formats against float. Its
//! authors' repository holds an image and the weights of the dense layers:
//!
//! ```text
//! git clone --depth 1 https://github.com/sharc-lab/Edge-MoE
//! cargo run --release -p undertone-fpga-sim --example m3vit -- Edge-MoE/weights
//! ```
//!
//! Fixed point as in its HLS source: activations Q10.22, weights Q2.14, biases of the attention
//! Q7.9, others and norms Q5.11, patch weights Q0.16; every product is floored before it is
//! added; attention in eight-word blocks, each scaled and floored; softmax and GELU are the
//! core's own kernels of Edge-MoE's.

use std::path::{Path, PathBuf};
use undertone_core::fixed::edge_moe::{self, Q10p22, SinglePass};

type Failure = Box<dyn std::error::Error>;

const DIM: usize = 192;
const TOKENS: usize = 129;
const HEADS: usize = 3;
const HIDDEN: usize = 768;
/// Fraction bits of an activation.
const FRAC: u32 = 22;

/// A file of little-endian f32 that must hold `len` of them.
fn read(folder: &Path, name: &str, len: usize) -> Result<Vec<f64>, Failure> {
    let path: PathBuf = folder.join(format!("{name}.float32.bin"));
    let size = std::fs::metadata(&path).map_err(|e| format!("{}: {e}", path.display()))?.len();
    if size != 4 * len as u64 {
        return Err(format!("{}: {size} bytes, {} wanted", path.display(), 4 * len).into());
    }
    let bytes = std::fs::read(&path)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect())
}

/// A value with `frac` fraction bits, floored as `ap_fixed` does.
fn fixed(x: f64, frac: u32) -> i64 {
    (x * f64::from(1u32 << frac)).floor() as i64
}

/// A linear layer's weights, biases and their formats.
struct Linear {
    weights: Vec<f64>,
    bias: Vec<f64>,
    inputs: usize,
    outputs: usize,
    bias_frac: u32,
}

impl Linear {
    fn read(
        folder: &Path,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias_frac: u32,
    ) -> Result<Self, Failure> {
        let weights = read(folder, &format!("{name}_weight"), inputs * outputs)?;
        let bias = read(folder, &format!("{name}_bias"), outputs)?;
        Ok(Self { weights, bias, inputs, outputs, bias_frac })
    }

    fn float(&self, x: &[f64]) -> Vec<f64> {
        let mut y = Vec::with_capacity(x.len() / self.inputs * self.outputs);
        for row in x.chunks(self.inputs) {
            for (w, b) in self.weights.chunks(self.inputs).zip(&self.bias) {
                y.push(row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + b);
            }
        }
        y
    }

    fn fixed(&self, x: &[i32]) -> Vec<i32> {
        let weights: Vec<i64> = self.weights.iter().map(|w| fixed(*w, 14)).collect();
        let bias = self.bias.iter().map(|b| fixed(*b, self.bias_frac) << (FRAC - self.bias_frac));
        let bias: Vec<i64> = bias.collect();
        let mut y = Vec::with_capacity(x.len() / self.inputs * self.outputs);
        for row in x.chunks(self.inputs) {
            for (w, b) in weights.chunks(self.inputs).zip(&bias) {
                let sum: i64 = row.iter().zip(w).map(|(x, w)| (i64::from(*x) * w) >> 14).sum();
                y.push((sum + b) as i32);
            }
        }
        y
    }
}

struct Norm {
    weights: Vec<f64>,
    bias: Vec<f64>,
}

impl Norm {
    fn read(folder: &Path, name: &str) -> Result<Self, Failure> {
        let weights = read(folder, &format!("{name}_weight"), DIM)?;
        Ok(Self { weights, bias: read(folder, &format!("{name}_bias"), DIM)? })
    }

    fn float(&self, x: &[f64]) -> Vec<f64> {
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks(DIM) {
            let mean = row.iter().sum::<f64>() / DIM as f64;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / DIM as f64;
            let scale = 1.0 / (variance + 1e-6).sqrt();
            let terms = row.iter().zip(&self.weights).zip(&self.bias);
            y.extend(terms.map(|((x, w), b)| (x - mean) * scale * w + b));
        }
        y
    }

    fn fixed(&self, x: &[i32]) -> Vec<i32> {
        let mul = |a: i64, b: i64| (a * b) >> FRAC;
        let (share, eps) = (fixed(1.0 / DIM as f64, FRAC), fixed(1e-6, FRAC));
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks(DIM) {
            let (mut mean, mut squares) = (0i64, 0i64);
            for x in row {
                let term = mul(i64::from(*x), share);
                mean += term;
                squares += mul(i64::from(*x), term);
            }
            let variance = squares - mul(mean, mean) + eps;
            let root = fixed((variance as f64 / f64::from(1u32 << FRAC)).sqrt(), FRAC);
            let scale = (1i64 << (2 * FRAC)) / root.max(1);
            for ((x, w), b) in row.iter().zip(&self.weights).zip(&self.bias) {
                let x = mul(i64::from(*x) - mean, scale);
                let x = (x * fixed(*w, 11)) >> 11;
                y.push((x + (fixed(*b, 11) << (FRAC - 11))) as i32);
            }
        }
        y
    }
}

fn attention(q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let width = DIM / HEADS;
    let mut out = vec![0.0; TOKENS * DIM];
    for (query, head) in (0..TOKENS).flat_map(|t| (0..HEADS).map(move |h| (t, h))) {
        let at = |m: &[f64], token: usize, d: usize| m[token * DIM + head * width + d];
        let scores: Vec<f64> = (0..TOKENS)
            .map(|key| (0..width).map(|d| at(q, query, d) * at(k, key, d)).sum::<f64>() * 0.125)
            .collect();
        let most = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for d in 0..width {
            let mixed: f64 = weights.iter().enumerate().map(|(key, w)| w * at(v, key, d)).sum();
            out[query * DIM + head * width + d] = mixed / sum;
        }
    }
    out
}

fn attention_fixed(q: &[i32], k: &[i32], v: &[i32]) -> Result<Vec<i32>, Failure> {
    let (width, lanes) = (DIM / HEADS, 4);
    let mut out = vec![0; TOKENS * DIM];
    for (query, head) in (0..TOKENS).flat_map(|t| (0..HEADS).map(move |h| (t, h))) {
        let row = |m: &'_ [i32], token: usize| -> Vec<i64> {
            let from = token * DIM + head * width;
            m[from..from + width].iter().map(|x| i64::from(*x)).collect()
        };
        let asked = row(q, query);
        let (mut sum, mut scores) = (SinglePass::EMPTY, vec![0i32; TOKENS]);
        // A lane begins with the key of its own number.
        for key in (0..TOKENS).map(|key| (query % lanes + key) % TOKENS) {
            let blocks =
                asked.chunks(8).zip(row(k, key).chunks(8).map(<[i64]>::to_vec).collect::<Vec<_>>());
            let score: i64 = blocks
                .map(|(q, k)| q.iter().zip(&k).map(|(q, k)| (q * k) >> FRAC).sum::<i64>() >> 3)
                .sum();
            scores[key] = score as i32;
            sum.push_wrapping(Q10p22::from_bits(scores[key])).map_err(|e| e.to_string())?;
        }
        let done = sum.finish().map_err(|e| e.to_string())?;
        let mut mixed = vec![0i64; width];
        for (key, score) in scores.iter().enumerate() {
            let p = done.probability(Q10p22::from_bits(*score)).map_err(|e| e.to_string())?;
            for (m, v) in mixed.iter_mut().zip(row(v, key)) {
                *m += (i64::from(p.to_bits()) * v) >> FRAC;
            }
        }
        let from = query * DIM + head * width;
        out[from..from + width].iter_mut().zip(mixed).for_each(|(o, m)| *o = m as i32);
    }
    Ok(out)
}

/// Largest and mean difference, and the mean square.
fn compare(what: &str, float: &[f64], fixed: &[i32]) {
    let value = |x: &i32| f64::from(*x) / f64::from(1u32 << FRAC);
    let gaps: Vec<f64> = float.iter().zip(fixed).map(|(a, b)| (a - value(b)).abs()).collect();
    let n = gaps.len() as f64;
    let (most, mean) = (gaps.iter().copied().fold(0.0, f64::max), gaps.iter().sum::<f64>() / n);
    let square = gaps.iter().map(|g| g * g).sum::<f64>() / n;
    let spread = (float.iter().map(|x| x * x).sum::<f64>() / n).sqrt();
    println!("| {what} | {spread:.4} | {most:.2e} | {mean:.2e} | {square:.2e} |");
}

fn main() -> Result<(), Failure> {
    let folder = std::env::args_os().nth(1).ok_or("give the folder of weights")?;
    let folder = Path::new(&folder);
    println!("| after | root mean square | largest error | mean error | mean square error |");
    println!("|---|---:|---:|---:|---:|");
    // 16 × 16 patches of three channels, row by row; the class token is the first position.
    let image = read(folder, "image", 3 * 128 * 256)?;
    let patch = read(folder, "patch_embed_weight", DIM * 768)?;
    let patch_bias = read(folder, "patch_embed_bias", DIM)?;
    let place = read(folder, "pos_embed", TOKENS * DIM)?;
    let mut float = place.clone();
    let mut exact: Vec<i32> = place.iter().map(|p| fixed(*p, FRAC) as i32).collect();
    for token in 0..128 {
        let (y, x) = (token / 16 * 16, token % 16 * 16);
        for dim in 0..DIM {
            let (mut sum, mut bits) = (patch_bias[dim], fixed(patch_bias[dim], 11) << 11);
            for row in 0..48 {
                let (channel, dy) = (row / 16, row % 16);
                for dx in 0..16 {
                    let pixel = image[channel * 128 * 256 + (y + dy) * 256 + x + dx];
                    let weight = patch[dim * 768 + row * 16 + dx];
                    sum += pixel * weight;
                    // Q0.8 by Q0.16 has 24 fraction bits.
                    bits += (fixed(pixel, 8) * fixed(weight, 16)) >> 2;
                }
            }
            float[(token + 1) * DIM + dim] += sum;
            exact[(token + 1) * DIM + dim] += bits as i32;
        }
    }
    compare("embedding", &float, &exact);
    let norm = Norm::read(folder, "l0_norm1")?;
    let (x, xi) = (norm.float(&float), norm.fixed(&exact));
    compare("norm 1", &x, &xi);
    let all = Linear::read(folder, "l0_qkv", DIM, 3 * DIM, 9)?;
    let (qkv, qkvi) = (all.float(&x), all.fixed(&xi));
    compare("q, k, v", &qkv, &qkvi);
    let part = |n: usize| -> Vec<f64> {
        qkv.chunks(3 * DIM).flat_map(|r| r[n * DIM..(n + 1) * DIM].to_vec()).collect()
    };
    let parti = |n: usize| -> Vec<i32> {
        qkvi.chunks(3 * DIM).flat_map(|r| r[n * DIM..(n + 1) * DIM].to_vec()).collect()
    };
    let mixed = attention(&part(0), &part(1), &part(2));
    let mixedi = attention_fixed(&parti(0), &parti(1), &parti(2))?;
    compare("attention", &mixed, &mixedi);
    let projection = Linear::read(folder, "l0_attn_proj", DIM, DIM, 9)?;
    for (x, y) in float.iter_mut().zip(projection.float(&mixed)) {
        *x += y;
    }
    for (x, y) in exact.iter_mut().zip(projection.fixed(&mixedi)) {
        *x += y;
    }
    compare("projection and sum", &float, &exact);
    let norm = Norm::read(folder, "l0_norm2")?;
    let (x, xi) = (norm.float(&float), norm.fixed(&exact));
    let up = Linear::read(folder, "l0_fc1", DIM, HIDDEN, 11)?;
    let down = Linear::read(folder, "l0_fc2", HIDDEN, DIM, 11)?;
    let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x / core::f64::consts::SQRT_2));
    let hidden: Vec<f64> = up.float(&x).into_iter().map(gelu).collect();
    let hiddeni: Vec<i32> =
        up.fixed(&xi).into_iter().map(|x| edge_moe::gelu(Q10p22::from_bits(x)).to_bits()).collect();
    compare("GELU", &hidden, &hiddeni);
    for (x, y) in float.iter_mut().zip(down.float(&hidden)) {
        *x += y;
    }
    for (x, y) in exact.iter_mut().zip(down.fixed(&hiddeni)) {
        *x += y;
    }
    compare("layer 0", &float, &exact);
    Ok(())
}
