//! Largest errors of the fixed-point softmax forms, as a table.
//!
//! ```text
//! cargo run --release -p undertone-core --example softmax_error
//! ```
//!
//! "core" is the distance to the softmax of the logits as quantized, "end to end" to that of the real logits. The
//! shift and exact forms take logits in octaves (times log2 e) with 10 fraction bits and return 16; Edge-MoE's takes
//! and returns Q10.22.

use undertone_core::fixed::edge_moe::{self, Q10p22};
use undertone_core::fixed::exact::ExactSum;
use undertone_core::fixed::{KernelError, shift};

/// Normal numbers by the sum of twelve uniform ones from SplitMix64: bounded by ±6, enough for a comparison.
struct Gauss(u64);

impl Gauss {
    fn next(&mut self) -> f64 {
        let mut sum = -6.0;
        for _ in 0..12 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            sum += ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|v| (v - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn main() -> Result<(), KernelError> {
    const F: u32 = 10;
    const OCTAVE: f64 = (1 << F) as f64;
    println!("logits          n | shift core  end to end | exact core | Edge-MoE core");
    for (sigma, n, rows) in [
        (1.0, 49, 2000),
        (1.0, 197, 1000),
        (3.0, 197, 1000),
        (6.0, 197, 1000),
        (1.0, 1024, 200),
        (3.0, 4096, 50),
    ] {
        let mut g = Gauss(1);
        let mut worst = [0f64; 4];
        for _ in 0..rows {
            let x: Vec<f64> = (0..n).map(|_| g.next() * sigma).collect();
            let real = softmax(&x);
            let raw: Vec<i32> =
                x.iter().map(|v| (v * std::f64::consts::LOG2_E * OCTAVE).round() as i32).collect();
            let core = softmax(
                &raw.iter()
                    .map(|&v| f64::from(v) / OCTAVE * std::f64::consts::LN_2)
                    .collect::<Vec<_>>(),
            );
            let mut p = vec![0u32; n];
            shift::softmax::<F, _>(&raw, 16, &mut p)?;
            let p: Vec<f64> = p.iter().map(|&v| f64::from(v) / 65_536.0).collect();
            let mut sum = ExactSum::<F>::EMPTY;
            for &v in &raw {
                sum.push(v)?;
            }
            let exact: Vec<f64> = raw
                .iter()
                .map(|&v| sum.finish().map_or(0.0, |r| f64::from(r.probability(v, 16)) / 65_536.0))
                .collect();
            let q: Vec<Q10p22> = x.iter().map(|&v| Q10p22::from_num(v)).collect();
            let q_core = softmax(&q.iter().map(|v| v.to_num()).collect::<Vec<f64>>());
            let mut edge = vec![Q10p22::ZERO; n];
            let edge = match edge_moe::softmax(&q, &mut edge) {
                Ok(()) => distance(&edge.iter().map(|v| v.to_num()).collect::<Vec<f64>>(), &q_core),
                Err(KernelError::Overflow { .. }) => f64::INFINITY,
                Err(other) => return Err(other),
            };
            let now = [distance(&p, &core), distance(&p, &real), distance(&exact, &core), edge];
            worst.iter_mut().zip(now).for_each(|(w, e)| *w = w.max(e));
        }
        let [a, b, c, d] = worst;
        let d = if d.is_finite() { format!("{d:.1e}") } else { "overflow".into() };
        println!("N(0,{sigma}²) {n:>8} | {a:.1e}     {b:.1e}    | {c:.1e}    | {d}");
    }
    Ok(())
}
