//! The engines on the dataflow of one attention layer, and whole M³ViT.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::engine::Blind;
use undertone_fpga_sim::simulate::{Options, simulate};
use undertone_fpga_sim::workload::Workload;
use undertone_fpga_sim::{mapping, stepped, timestamp};

fn engines(c: &mut Criterion) {
    let arch = Arch::preset("edge-moe-zcu102").unwrap();
    let workload = Workload::builtin("m3vit").unwrap();
    let scores = workload.steps.iter().find(|s| s.name == "0.scores").unwrap();
    let graph = mapping::graph(&arch, scores).unwrap();
    let cycles = timestamp::run(&graph).unwrap().cycles;
    let mut group = c.benchmark_group("scores_129");
    group.throughput(Throughput::Elements(cycles));
    group.sample_size(10);
    group.bench_function("timestamp", |b| b.iter(|| timestamp::run(&graph)));
    let plain = timestamp::Options { leap: false };
    group.bench_function("timestamp_plain", |b| {
        b.iter(|| timestamp::run_with(&graph, plain, &mut Blind));
    });
    group.bench_function("stepped", |b| b.iter(|| stepped::run(&graph)));
    group.finish();
    let mut group = c.benchmark_group("m3vit");
    let options = Options::default();
    group.throughput(Throughput::Elements(
        simulate(&arch, &workload, &options).unwrap().latency_cycles,
    ));
    group.sample_size(10);
    group.bench_function("simulate", |b| b.iter(|| simulate(&arch, &workload, &options)));
    group.finish();
}

criterion_group!(benches, engines);
criterion_main!(benches);
