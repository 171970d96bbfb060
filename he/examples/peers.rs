//! This library's side of `he/peers/run`: primitives, and the head that is given in a file.
//!
//! `cargo run --release -p undertone-he --example peers FILE`
//!
//! The file has n, d and the range of the row sums, then Q, K and V, row by row. Output: a name and
//! a number a line; times are milliseconds of this thread's processor time, medians.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use undertone_he::ckks::{
    Automorphism, Backend, Complex, Context, Degree, Evaluator, Params, SecretKey,
};
use undertone_he::world::{Head, Ledger, Packing};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let path = std::env::args().nth(1).ok_or("a file with the head's inputs")?;
    for (at, backend) in Backend::available().into_iter().enumerate() {
        let suffix = if at == 0 { String::new() } else { format!(".{}", backend.name()) };
        primitives(Params::N15_LEVELS14, backend, &suffix)?;
    }
    primitives(Params::N15_LEVELS11, Backend::detect(), ".head")?;
    head(&std::fs::read_to_string(path)?)
}

fn primitives(params: Params, backend: Backend, suffix: &str) -> Result<(), Error> {
    let ctx = Context::with_backend(params, backend)?;
    let secret = SecretKey::generate(&ctx)?;
    let keys = secret.evaluation_keys(&[Automorphism::Rotate(1)])?;
    let ev = Evaluator::new(ctx.clone(), Arc::new(keys))?;
    let values: Vec<f64> = (0..ctx.slots()).map(|i| (i as f64 * 0.37).sin()).collect();
    let x = secret.encrypt(&ctx.encode(&values, ctx.top_level())?)?.expand(&ctx)?;
    println!("log_qp{suffix} {:.0}", ctx.chain().log_qp);
    println!("multiply{suffix} {:.3}", median(9, || ev.mul(&x, &x).map(black_box))?);
    println!("rotate{suffix} {:.3}", median(9, || ev.rotate(&x, 1).map(black_box))?);
    Ok(())
}

fn head(text: &str) -> Result<(), Error> {
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [n, d, lo, hi] = *numbers.first_chunk().ok_or("four numbers in front")?;
    let (n, d) = (n as usize, d as usize);
    let [q, k, v] = [0, 1, 2].map(|i| &numbers[4 + i * n * d..4 + (i + 1) * n * d]);
    for params in [Params::N15_LEVELS11, Params::N15_LEVELS12, Params::N15_LEVELS13] {
        let ctx = Context::new(params)?;
        let packing = Packing::dense(ctx.slots(), n, d)?;
        let head = Head { packing, exponent: 4, row_sums: (lo, hi), tolerance: 3e-7 };
        let ledger = Arc::new(Ledger::new(ctx.clone()));
        if head.run(&ledger, head.planned_inputs(ctx.top_level())).is_err() {
            continue;
        }
        let plan = ledger.planned();
        let secret = SecretKey::generate(&ctx)?;
        let each: Vec<_> = plan.automorphisms.iter().copied().collect();
        let server =
            Arc::new(Evaluator::new(ctx.clone(), Arc::new(secret.evaluation_keys(&each)?))?);
        let slots = head.pack(q, k, v)?;
        let mut times = Vec::new();
        let mut worst = 0.0f64;
        for _ in 0..3 {
            let inputs = head.encrypt(&slots, |x: &[Complex]| {
                secret.encrypt(&ctx.encode_as(x, plan.levels, Degree::One)?)?.expand(&ctx)
            })?;
            let start = processor_time();
            let out = head.run(&server, inputs)?;
            times.push((processor_time() - start).as_secs_f64());
            let slots = secret.decrypt_real(&out.ciphertexts()[0])?;
            let found = packing.unpack(&slots, n, d, out.factor());
            let errors = found.iter().zip(head.exact(q, k, v)).map(|(a, b)| (a - b).abs());
            worst = errors.fold(worst, f64::max);
        }
        times.sort_by(f64::total_cmp);
        println!("head_log_qp {:.0}", ctx.chain().log_qp);
        println!("head_levels {}", plan.levels);
        println!("head {:.1}", 1e3 * times[1]);
        println!("head_bits {:.1}", -worst.log2());
        return Ok(());
    }
    Err("no parameter set holds this head".into())
}

fn median<T, E>(count: usize, mut f: impl FnMut() -> Result<T, E>) -> Result<f64, E> {
    f()?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = processor_time();
        f()?;
        times.push((processor_time() - start).as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[count / 2])
}

/// Processor time of this thread where the system tells it (Linux), else the clock.
fn processor_time() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|s| s.split(' ').next()?.parse().ok().map(Duration::from_nanos))
        .unwrap_or_else(|| START.elapsed())
}
