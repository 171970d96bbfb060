//! Criterion's view of the same forms: `cargo bench -p undertone-binary`.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "baseline/mod.rs"]
#[allow(dead_code)]
mod baseline;

use baseline::{Float, numbers};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use undertone_binary::ecoformer::{self, Hash, Sigma, Variant};
use undertone_binary::{Signs, bivit};

fn attention(c: &mut Criterion) {
    let d = 64;
    for n in [196, 1024] {
        let mut group = c.benchmark_group(format!("attention d={d}"));
        let [q, k, v] = [1, 2, 3].map(|s| numbers(n * d, s));
        let mut out = vec![0.0; n * d];
        let mut float = Float::new(n, d);
        group.bench_function(BenchmarkId::new("float", n), |b| {
            b.iter(|| float.attend(&q, &k, &v, &mut out));
        });
        let [qs, ks, vs] = [&q, &k, &v].map(|x| Signs::pack(x, d).unwrap());
        let mut counts = vec![0; n * d];
        group.bench_function(BenchmarkId::new("bivit", n), |b| {
            b.iter(|| bivit::attend(&qs, &ks, &vs, bivit::margin(d), &mut counts).unwrap());
        });
        let hash = Hash::new(d, numbers(25 * d, 4), numbers(400, 5), vec![0.5; 25], Sigma::Dynamic)
            .unwrap();
        group.bench_function(BenchmarkId::new("ecoformer", n), |b| {
            b.iter(|| {
                let codes = hash.codes(&q).unwrap();
                ecoformer::attend(&codes, &codes, 16, &v, Variant::Exact, &mut out).unwrap();
            });
        });
        group.finish();
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
