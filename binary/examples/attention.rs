//! Times binary attention beside float32 and int8 attention, one head, one thread, one run.
//!
//! `cargo run --release -p undertone-binary --example attention [-- --json]`
//!
//! Times are the least of many repetitions, in CPU time of the thread; the forms take turns.

#[path = "../benches/baseline/mod.rs"]
mod baseline;

use baseline::simd::{Ceiling, Int8, ceiling, gigahertz};
use baseline::{Float, numbers, plain};
use std::hint::black_box;
use undertone_binary::ecoformer::{self, Hash, Sigma, Variant};
use undertone_binary::{BLOCK, Level, Line, Planes, Signs, bivit};

const TOKENS: [usize; 4] = [49, 196, 1024, 4096];
const WIDTHS: [usize; 4] = [16, 32, 64, 128];
const BITS: usize = 16;
const ANCHORS: usize = 25;

fn clock() -> f64 {
    cpu_time::ThreadTime::now().as_duration().as_secs_f64()
}

/// Least seconds of each form; forms take turns so that a disturbance hits all.
fn least<const K: usize>(budget: f64, mut forms: [Box<dyn FnMut() + '_>; K]) -> [f64; K] {
    let mut best = [f64::MAX; K];
    let start = clock();
    let mut rounds = 0;
    while rounds < 5 || clock() - start < budget {
        for (form, best) in forms.iter_mut().zip(&mut best) {
            let from = clock();
            form();
            *best = best.min(clock() - from);
        }
        rounds += 1;
    }
    best
}

struct Row {
    n: usize,
    d: usize,
    float_qk: f64,
    bits_qk: f64,
    float: f64,
    int8: Option<f64>,
    bivit: f64,
    pack: f64,
    hash: f64,
    frozen: f64,
    codes: f64,
}

impl Row {
    fn eco(&self) -> f64 {
        self.hash + self.codes
    }
}

fn measure(n: usize, d: usize) -> Result<Row, Box<dyn std::error::Error>> {
    let [q, k, v] = [1, 2, 3].map(|s| numbers(n * d, s));
    let mut float = Float::new(n, d);
    let mut float_qk = Float::new(n, d);
    let mut out = vec![0.0; n * d];
    float.attend(&q, &k, &v, &mut out);
    if n <= 196 {
        let expected = plain(&q, &k, &v, d);
        let worst = out.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "the baseline is off by {worst}");
    }
    let signs = |x: &[f32]| Signs::pack(x, d);
    let (qs, ks, vs) = (signs(&q)?, signs(&k)?, signs(&v)?);
    let planes = Planes::new(ks.view())?;
    let mut room = vec![Line::ZERO; 2 * n.div_ceil(BLOCK)];
    let mut counts = vec![0; n * d];
    let margin = bivit::margin(d);
    let made = |sigma| {
        Hash::new(d, numbers(ANCHORS * d, 4), numbers(BITS * ANCHORS, 5), vec![0.5; ANCHORS], sigma)
    };
    let (hash, frozen) = (made(Sigma::Dynamic)?, made(Sigma::Frozen(2.0))?);
    let codes = hash.codes(&q)?;
    let (mut scratch, mut scratch2) = (vec![0; n], vec![0; n]);
    let mut eco = vec![0.0; n * d];
    let (bytes, scale) = Int8::queries(&q);
    let mut int8 = Int8::new(&k, &v, n, d, scale);
    let mut out8 = vec![0.0; n * d];
    if let Some(int8) = &mut int8 {
        int8.attend(&bytes, &mut out8);
        let worst = out.iter().zip(&out8).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.05, "the int8 baseline is off by {worst}");
    }
    let has_int8 = int8.is_some();
    let level = Level::best();
    let budget = if n > 1000 { 1.2 } else { 0.3 };
    let times = least(
        budget,
        [
            Box::new(|| float_qk.scores(black_box(&q), black_box(&k))),
            Box::new(|| {
                bivit::rows_of_distances(
                    level,
                    black_box(&qs),
                    &planes,
                    &mut room,
                    |_, lines, _| {
                        black_box(lines);
                    },
                );
            }),
            Box::new(|| float.attend(black_box(&q), black_box(&k), black_box(&v), &mut out)),
            Box::new(|| {
                if let Some(int8) = &mut int8 {
                    int8.attend(black_box(&bytes), &mut out8);
                }
            }),
            Box::new(|| {
                let done = bivit::attend(black_box(&qs), &ks, &vs, margin, &mut counts);
                black_box(done).unwrap_or_default();
            }),
            Box::new(|| {
                let _ = black_box((signs(&q), signs(&k), signs(&v)));
            }),
            Box::new(|| {
                black_box(hash.codes_at(level, black_box(&q), &mut scratch)).unwrap_or_default();
            }),
            Box::new(|| {
                black_box(frozen.codes_at(level, black_box(&q), &mut scratch2)).unwrap_or_default();
            }),
            Box::new(|| {
                let done = ecoformer::attend(
                    black_box(&codes),
                    &codes,
                    BITS,
                    &v,
                    Variant::Exact,
                    &mut eco,
                );
                black_box(done).unwrap_or_default();
            }),
        ],
    );
    let [float_qk, bits_qk, float, i8, bivit, pack, hash, frozen, codes] = times;
    let int8 = has_int8.then_some(i8);
    Ok(Row { n, d, float_qk, bits_qk, float, int8, bivit, pack, hash, frozen, codes })
}

/// The slope of log(cost) against log(n) by least squares.
fn slope(points: &[(usize, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|&(n, t)| ((n as f64).ln(), t.ln())).collect();
    let count = logs.len() as f64;
    let (mx, my) = logs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / count, b + y / count));
    let (xy, xx) = logs
        .iter()
        .fold((0.0, 0.0), |(a, b), (x, y)| (a + (x - mx) * (y - my), b + (x - mx) * (x - mx)));
    xy / xx
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let json = std::env::args().any(|a| a == "--json");
    let ghz = gigahertz(clock);
    let per_cycle =
        |which| ceiling(which, 20_000, clock).map(|(seconds, macs)| macs / (seconds * ghz * 1e9));
    let (float_ceiling, bits_ceiling) = (per_cycle(Ceiling::Float), per_cycle(Ceiling::Bits));
    let mut rows = Vec::new();
    for d in WIDTHS {
        for n in TOKENS {
            rows.push(measure(n, d)?);
        }
    }
    let clock_after = gigahertz(clock);
    let mac = |r: &Row, t: f64| (r.n * r.n * r.d) as f64 / (t * ghz * 1e9);
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|r| {
                serde_json::json!({
                    "tokens": r.n, "head_dim": r.d,
                    "float_qk_seconds": r.float_qk, "bits_qk_seconds": r.bits_qk,
                    "bits_qk_macs_per_cycle": mac(r, r.bits_qk),
                    "float_qk_macs_per_cycle": mac(r, r.float_qk),
                    "float_seconds": r.float, "int8_seconds": r.int8, "bivit_seconds": r.bivit,
                    "pack_seconds": r.pack, "hash_seconds": r.hash,
                    "hash_frozen_seconds": r.frozen, "codes_seconds": r.codes,
                })
            })
            .collect();
        println!(
            "{:#}",
            serde_json::json!({
                "level": format!("{:?}", Level::best()), "gigahertz": ghz,
                "float_ceiling_macs_per_cycle": float_ceiling,
                "bits_ceiling_macs_per_cycle": bits_ceiling, "rows": rows,
            })
        );
        return Ok(());
    }
    println!("level {:?}, {ghz:.2} GHz before and {clock_after:.2} after", Level::best());
    if let (Some(f), Some(b)) = (float_ceiling, bits_ceiling) {
        println!(
            "ceilings: {f:.1} float MAC/cycle (FMA), {b:.0} bit MAC/cycle (xor, popcount, add)"
        );
    }
    println!(
        "\nµs, least of many, CPU time of one thread; × is the speed-up over float attention\n"
    );
    println!(
        "| n | d | f32 QKᵀ (MAC/cycle) | bit QKᵀ (MAC/cycle) | f32 attention | int8 | BiViT | BiViT with packing | hash | codes | EcoFormer | frozen σ | hash share |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for r in &rows {
        let us = |t: f64| t * 1e6;
        let times = |t: f64| format!("{:.1} ({:.1}×)", us(t), r.float / t);
        println!(
            "| {} | {} | {:.1} ({:.1}) | {:.1} ({:.0}) | {:.1} | {} | {} | {} | {:.1} | {:.1} | {} | {} | {:.0} % |",
            r.n,
            r.d,
            us(r.float_qk),
            mac(r, r.float_qk),
            us(r.bits_qk),
            mac(r, r.bits_qk),
            us(r.float),
            r.int8.map_or("–".into(), times),
            times(r.bivit),
            times(r.bivit + r.pack),
            us(r.hash),
            us(r.codes),
            times(r.eco()),
            times(r.frozen + r.codes),
            100.0 * r.hash / r.eco(),
        );
    }
    println!("\nSlopes of log(time) against log(n), least squares over n = 196, 1024, 4096:");
    for d in WIDTHS {
        let of = |f: &dyn Fn(&Row) -> f64| {
            let points: Vec<_> =
                rows.iter().filter(|r| r.d == d && r.n >= 196).map(|r| (r.n, f(r))).collect();
            slope(&points)
        };
        println!(
            "  d = {d:<3} float {:.2}, BiViT {:.2}, EcoFormer {:.2}",
            of(&|r| r.float),
            of(&|r| r.bivit),
            of(&|r| r.eco())
        );
    }
    Ok(())
}
