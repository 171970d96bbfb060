//! Row kernels, matrix products and attention of the fixed-point world.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use undertone_core::fixed::attention::{Denominator, Formats, Head, Mask, Power, Rows};
use undertone_core::fixed::edge_moe::Q10p22;
use undertone_core::fixed::linear::{Dims, Form, matmul};
use undertone_core::fixed::math::LOG2_E_Q62;
use undertone_core::fixed::norm::LayerNorm;
use undertone_core::fixed::table::{Domain, Function, Table};
use undertone_core::fixed::{Bias, Requant, attention, edge_moe, shift};

/// Deterministic 16-bit words of about ±2^bits.
fn words(n: usize, bits: u32, mut seed: u64) -> Vec<i16> {
    (0..n)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((seed as i64) >> (63 - bits)) as i16
        })
        .collect()
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    for (m, k, n) in [(49, 64, 64), (49, 64, 128), (49, 128, 64), (197, 192, 768)] {
        let dims = Dims { m, k, n };
        group.throughput(Throughput::Elements((m * k * n) as u64));
        let (a, b) = (words(m * k, 15, 1), words(k * n, 15, 2));
        let b8: Vec<i8> = b.iter().map(|&x| (x >> 8) as i8).collect();
        let mut out = vec![0i16; m * n];
        let r = [Requant { multiplier: 1_234_567_890, shift: 47 }];
        for form in [Form::NN, Form::NT] {
            group.bench_function(format!("{form:?} i16 {m}x{k}x{n}"), |bench| {
                bench.iter(|| matmul(form, dims, black_box(&a), black_box(&b), None, &r, &mut out));
            });
            group.bench_function(format!("{form:?} i8 {m}x{k}x{n}"), |bench| {
                bench
                    .iter(|| matmul(form, dims, black_box(&a), black_box(&b8), None, &r, &mut out));
            });
        }
    }
    group.finish();
}

fn rows(c: &mut Criterion) {
    let n = 197;
    let x = words(n, 13, 3);
    let logits: Vec<i32> = x.iter().map(|&v| v.into()).collect();
    let fx: Vec<Q10p22> = x.iter().map(|&v| Q10p22::from_bits(i32::from(v) << 11)).collect();
    let mut group = c.benchmark_group("row of 197");
    group.throughput(Throughput::Elements(n as u64));
    let (mut p, mut q, mut y) = (vec![0u16; n], vec![Q10p22::ZERO; n], vec![0i16; n]);
    group.bench_function("shift softmax", |b| {
        b.iter(|| shift::softmax::<10, _>(black_box(&logits), 16, &mut p));
    });
    group.bench_function("Edge-MoE softmax", |b| {
        b.iter(|| edge_moe::softmax(black_box(&fx), &mut q))
    });
    group.bench_function("Edge-MoE GELU, 16 bits", |b| {
        b.iter(|| y.iter_mut().zip(black_box(&x)).for_each(|(y, &x)| *y = edge_moe::gelu16(x, 12)));
    });
    let domain = Domain { lo: -32_768, hi: 32_767, in_frac: 12, out_frac: 12 };
    let table = Table::<258>::new(Function::Gelu, domain).unwrap();
    group.bench_function("GELU table of 258, quadratic", |b| {
        b.iter(|| table.map(black_box(&x), &mut y))
    });
    let (gamma, beta) = (vec![4096i16; n], vec![0i16; n]);
    let norm = LayerNorm {
        eps_q48: 281_474_977,
        in_frac: 10,
        gamma: &gamma,
        gamma_frac: 12,
        beta: Bias { data: &beta, frac: 12 },
        out_frac: 12,
    };
    group.bench_function("layer norm", |b| b.iter(|| norm.apply(black_box(&x), &mut y)));
    group.finish();
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    for (n, d) in [(49, 16), (197, 64)] {
        group.throughput(Throughput::Elements((2 * n * n * d) as u64));
        let (q, k, v) = (words(n * d, 11, 4), words(n * d, 11, 5), words(n * d, 12, 6));
        let view = |x| Rows::new(x, n, d, d).unwrap();
        let head =
            |score| Head { q: view(&q), k: view(&k), v: view(&v), score, mask: Mask::default() };
        let (mut scratch, mut out) = (vec![0i64; d], vec![0i16; n * d]);
        let octaves = head(Requant::scaled(LOG2_E_Q62 / 4, 20, 11));
        group.bench_function(format!("softmax {n}x{d}"), |b| {
            b.iter(|| {
                attention::softmax::<11, _>(black_box(&octaves), 0, &mut scratch, &mut out, d)
            });
        });
        let plain = head(Requant::scaled(1 << 60, 20, 13));
        let power = Power {
            half: 1,
            offset: 0,
            rectify: false,
            formats: Formats { score: 13, weight: 18 },
        };
        let den = Denominator::Sum { eps: 262 };
        group.bench_function(format!("power p=2 {n}x{d}"), |b| {
            b.iter(|| {
                attention::weighted(black_box(&plain), &power, den, 0, &mut scratch, &mut out, d)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(600));
    targets = products, rows, heads
}
criterion_main!(benches);
