//! Comparison keys, ReLU of 4096 and softmax of 64×64, both parties in one process.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use undertone_core::{Function, Shape};
use undertone_mpc::channel::{Limits, Link, memory};
use undertone_mpc::dcf::ComparisonKeys;
use undertone_mpc::preprocess::{Section, deal_in_memory};
use undertone_mpc::protocol::fit;
use undertone_mpc::{Format, Mpc, Result, Shared};

fn keys(c: &mut Criterion) {
    let n = 4096;
    let draw = || (0..n).map(|_| rand::random()).collect::<Vec<u128>>();
    let roots = [draw(), draw()];
    let alpha: Vec<u64> = (0..n).map(|_| rand::random::<u64>() >> 1).collect();
    let x: Vec<u64> = (0..n).map(|_| rand::random::<u64>() >> 1).collect();
    let stored = ComparisonKeys::generate(&alpha, 63, [&roots[0], &roots[1]]);
    let key = ComparisonKeys::read(&stored, 63, roots[0].clone()).unwrap();
    let mut group = c.benchmark_group("comparison keys, 63 bits");
    group.throughput(Throughput::Elements(n as u64));
    group.bench_function("evaluate 4096", |b| b.iter(|| key.evaluate(0, &x)));
    group.bench_function("generate 4096", |b| {
        b.iter(|| ComparisonKeys::generate(&alpha, 63, [&roots[0], &roots[1]]));
    });
    group.finish();
}

type Program<'a> = dyn Fn(&mut Mpc, &Shared) -> Result<Shared> + Sync + 'a;

fn both(c: &mut Criterion, name: &str, shape: Shape, program: &Program<'_>) {
    let x: Vec<f64> = (0..shape.len()).map(|i| (i % 17) as f64 * 0.5 - 4.0).collect();
    let whole = |mpc: &mut Mpc| {
        let x = mpc.input(0, shape, Some(&x))?;
        let x = mpc.share(&x);
        program(mpc, &x).map(|_| ())
    };
    let deal = || deal_in_memory(name, Format::default(), &mut |mpc| whole(mpc)).unwrap().1;
    // Online only: dealing is not timed.
    let online = |sections: [Section; 2]| {
        let links = memory::pair(Limits::default());
        std::thread::scope(|scope| {
            for (section, link) in sections.into_iter().zip(links) {
                scope.spawn(|| {
                    let link = link as Arc<dyn Link>;
                    whole(&mut Mpc::with_section(Format::default(), section, link)).unwrap();
                });
            }
        });
    };
    c.bench_function(name, |b| b.iter_batched(deal, online, BatchSize::PerIteration));
}

fn protocols(c: &mut Criterion) {
    let shape = Shape::new(1, 64, 64);
    let gelu = fit(Function::Gelu, 5e-5).unwrap();
    both(c, "relu 4096", shape, &|mpc, x| mpc.relu(x));
    both(c, "gelu 4096", shape, &|mpc, x| mpc.apply(x, &gelu));
    both(c, "softmax 64x64", shape, &|mpc, x| mpc.softmax(x, 4));
    both(c, "relu softmax 64x64", shape, &|mpc, x| mpc.relu_softmax(x, 4, 1e-5));
    both(c, "2quad 64x64", shape, &|mpc, x| mpc.two_quad(x, 4, 1e-5));
    both(c, "layer norm 64x64", shape, &|mpc, x| mpc.layer_norm(x, None, 1e-5, (0.1, 20.0)));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = keys, protocols
}
criterion_main!(benches);
