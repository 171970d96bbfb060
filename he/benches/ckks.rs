//! CKKS primitives at the top level of several parameter sets.
//!
//! `cargo bench -p undertone-he --bench ckks`
//!
//! Times are processor time on one thread, which other work on the machine disturbs less than the
//! clock on the wall.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use cpu_time::ProcessTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};
use undertone_he::ckks::{Automorphism, Backend, Context, Evaluator, Params, SecretKey};

/// Processor time of the process, in the units and format of wall time.
struct CpuTime(WallTime);

impl Measurement for CpuTime {
    type Intermediate = ProcessTime;
    type Value = Duration;
    fn start(&self) -> ProcessTime {
        ProcessTime::now()
    }
    fn end(&self, start: ProcessTime) -> Duration {
        start.elapsed()
    }
    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        self.0.to_f64(value)
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        self.0.formatter()
    }
}

fn primitives(c: &mut Criterion<CpuTime>, params: Params, backend: Backend) {
    let ctx = Context::with_backend(params, backend).unwrap();
    let secret = SecretKey::generate(&ctx).unwrap();
    let rotations: Vec<_> = [1, 2, 4].map(Automorphism::Rotate).into();
    let keys = secret.evaluation_keys(&rotations).unwrap();
    let public = secret.public_key().unwrap();
    let ev = Evaluator::new(ctx.clone(), Arc::new(keys)).unwrap();
    let values: Vec<f64> = (0..ctx.slots()).map(|i| (i as f64 * 0.37).sin()).collect();
    let top = ctx.top_level();
    let plain = ctx.encode(&values, top).unwrap();
    let factor = ctx.encode_factor(&values, top).unwrap();
    let x = public.encrypt(&ctx, &plain).unwrap();
    let raised = ev.mul_plain(&x, &factor).unwrap();

    let mut g = c.benchmark_group(format!("{}/{}", params.name, backend.name()));
    g.sample_size(10).warm_up_time(Duration::from_millis(200));
    g.measurement_time(Duration::from_millis(400));
    g.bench_function("mul_relin_rescale", |b| b.iter(|| ev.mul(&x, &x).unwrap()));
    g.bench_function("rotate", |b| b.iter(|| ev.rotate(&x, 1).unwrap()));
    g.bench_function("rotate3_hoisted", |b| b.iter(|| ev.apply_each(&x, &rotations).unwrap()));
    g.bench_function("sum4_rotations", |b| {
        b.iter(|| ev.add_images(&x, &rotations, false).unwrap());
    });
    g.bench_function("mul_plain", |b| b.iter(|| ev.mul_plain(&x, &factor).unwrap()));
    g.bench_function("rescale", |b| b.iter(|| ev.rescale(&raised).unwrap()));
    g.bench_function("encode", |b| b.iter(|| ctx.encode(&values, top).unwrap()));
    g.bench_function("encrypt", |b| b.iter(|| public.encrypt(&ctx, &plain).unwrap()));
    g.bench_function("decrypt", |b| b.iter(|| secret.decrypt(&x).unwrap()));
    g.finish();
}

fn all(c: &mut Criterion<CpuTime>) {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    for params in [
        Params::N13_LEVELS3,
        Params::N14_LEVELS7,
        Params::N15_LEVELS11,
        Params::N15_LEVELS14,
        Params::N15_LEVELS15,
    ] {
        primitives(c, params, Backend::detect());
    }
    for backend in Backend::available().into_iter().skip(1) {
        primitives(c, Params::N15_LEVELS14, backend);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime(WallTime));
    targets = all
}
criterion_main!(benches);
