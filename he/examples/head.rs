//! A Power-Softmax attention head with Q, K and V all encrypted.
//!
//! `cargo run --release -p undertone-he --example head [n d]…`
//!
//! For each size: plan, keys, encryption, the head, decryption; then the error against the exact
//! head and against the same circuit in the clear (the scheme's own error), in bits: the worst of
//! twenty random inputs. An input with a row sum outside the calibrated domain is drawn again, as
//! a client refuses it before encrypting; `redrawn` counts them. Processor time on one thread, and
//! time by the clock on one and on two threads, are medians.

use std::sync::Arc;
use std::time::Instant;

use cpu_time::ProcessTime;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use undertone_he::ckks::{
    Complex, Context, Degree, Evaluator, Params, SecretKey, switching_key_bytes,
};
use undertone_he::world::{Clear, Head, HeadInputs, Ledger, Packing};

type Error = Box<dyn std::error::Error>;

/// Random inputs for each size.
const SEEDS: usize = 20;

fn main() -> Result<(), Error> {
    let sizes: Vec<usize> =
        std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let sizes = if sizes.is_empty() { vec![32, 32] } else { sizes };
    println!("p = 4, {SEEDS} seeds, {} row kernels", undertone_he::ckks::Backend::detect().name());
    println!(
        "{:>7} {:>12} {:>5} {:>3} {:>3} {:>5} {:>7} {:>7} {:>9} {:>9} {:>9} {:>7} {:>6} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8}",
        "n,d",
        "parameters",
        "logQP",
        "cts",
        "lvl",
        "prods",
        "rotates",
        "keys",
        "keys MB",
        "up MB",
        "down MB",
        "redrawn",
        "κ",
        "cpu s",
        "1 thr.",
        "2 thr.",
        "exact",
        "approx.",
        "scheme",
    );
    for pair in sizes.chunks_exact(2) {
        report(pair[0], pair[1])?;
    }
    Ok(())
}

/// The smallest parameter set that holds the circuit, and the levels that it needs.
fn choose(head: &Head) -> Result<(Arc<Context>, usize), Error> {
    for params in [Params::N15_LEVELS11, Params::N15_LEVELS12, Params::N15_LEVELS13] {
        let ctx = Context::new(params)?;
        let ledger = Arc::new(Ledger::new(ctx.clone()));
        if head.run(&ledger, head.planned_inputs(ctx.top_level())).is_ok() {
            return Ok((ctx, ledger.planned().levels));
        }
    }
    Err("no parameter set has enough levels for this domain".into())
}

fn report(n: usize, d: usize) -> Result<(), Error> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut head = Head {
        packing: Packing::dense(Params::N15_LEVELS11.slots(), n, d)?,
        exponent: 4,
        row_sums: (1.0, 2.0),
        tolerance: 3e-7,
    };
    // The domain of the reciprocal is calibrated on public data.
    let (mut lo, mut hi) = (f64::INFINITY, 0.0f64);
    for _ in 0..20 {
        let (q, k) = (normal(&mut rng, n * d), normal(&mut rng, n * d));
        let (a, b) = head.measure_row_sums(&q, &k);
        (lo, hi) = (lo.min(a), hi.max(b));
    }
    head.row_sums = (lo / 1.1, hi * 1.1);

    let (ctx, level) = choose(&head)?;
    let ctx = &ctx;
    // No higher than the circuit needs.
    let ledger = Arc::new(Ledger::new(ctx.clone()));
    head.run(&ledger, head.planned_inputs(level))?;
    let plan = ledger.planned();

    let secret = SecretKey::generate(ctx)?;
    let each: Vec<_> = plan.automorphisms.iter().copied().collect();
    let keys = Arc::new(secret.evaluation_keys(&each)?);
    let key_count = keys.count();
    let engine = Arc::new(Evaluator::new(ctx.clone(), keys)?);
    let clear = Arc::new(Clear::new(ctx.clone()));

    let (mut cpu, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let (single, double) = (pool(1)?, pool(2)?);
    let [mut exact, mut approximate, mut scheme] = [0.0f64; 3];
    let (mut up, mut down) = (0, 0);
    let mut redrawn = 0;
    for seed in 0..SEEDS {
        let [q, k, v] = loop {
            let drawn: [Vec<f64>; 3] = std::array::from_fn(|_| normal(&mut rng, n * d));
            let (lo, hi) = head.measure_row_sums(&drawn[0], &drawn[1]);
            if head.row_sums.0 <= lo && hi <= head.row_sums.1 {
                break drawn;
            }
            redrawn += 1;
        };
        let slots = head.pack(&q, &k, &v)?;
        let inputs = head.encrypt(&slots, |x: &[Complex]| {
            secret.encrypt(&ctx.encode_as(x, level, Degree::One)?)?.expand(ctx)
        })?;
        // Seeded: half a ciphertext each.
        let sizes = |x: &[undertone_he::ckks::Ciphertext]| -> usize {
            x.iter().map(|c| c.size_bytes() / 2).sum()
        };
        up = sizes(&inputs.q) + sizes(&inputs.k) + sizes(&inputs.v);
        let before = ctx.counters().snapshot();
        let again = (seed < 5).then(|| HeadInputs {
            q: inputs.q.clone(),
            k: inputs.k.clone(),
            v: inputs.v.clone(),
        });
        let (start, clock) = (ProcessTime::now(), Instant::now());
        let out = single.install(|| head.run(&engine, inputs))?;
        one.push(clock.elapsed());
        cpu.push(start.elapsed());
        if ctx.counters().snapshot() - before != plan.counts {
            return Err("the run did not cost what was planned".into());
        }
        if let Some(inputs) = again {
            let clock = Instant::now();
            double.install(|| head.run(&engine, inputs))?;
            two.push(clock.elapsed());
        }
        let result = &out.ciphertexts()[0];
        down = result.size_bytes();
        let found = head.packing.unpack(&secret.decrypt_real(result)?, n, d, out.factor());
        let circuit = head.run(&clear, head.clear_inputs(ctx, &slots, level))?;
        let values: Vec<f64> = circuit.ciphertexts()[0].values().iter().map(|x| x.re).collect();
        let circuit = head.packing.unpack(&values, n, d, circuit.factor());
        let wanted = head.exact(&q, &k, &v);
        exact = exact.max(worst(&found, &wanted));
        approximate = approximate.max(worst(&circuit, &wanted));
        scheme = scheme.max(worst(&found, &circuit));
    }
    for times in [&mut cpu, &mut one, &mut two] {
        times.sort();
    }
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    println!(
        "{:>7} {:>12} {:>5} {:>3} {:>3} {:>5} {:>7} {:>7} {:>9.1} {:>9.2} {:>9.2} {:>7} {:>6.0} {:>6.3} {:>6.3} {:>6.3} {:>8.1} {:>8.1} {:>8.1}",
        format!("{n},{d}"),
        ctx.params().name,
        ctx.chain().log_qp as u64,
        head.packing.ciphertexts,
        plan.levels,
        plan.counts.products,
        plan.counts.rotations,
        key_count,
        megabytes(key_count * switching_key_bytes(ctx)),
        megabytes(up),
        megabytes(down),
        redrawn,
        head.row_sums.1 / head.row_sums.0,
        cpu[cpu.len() / 2].as_secs_f64(),
        one[one.len() / 2].as_secs_f64(),
        two[two.len() / 2].as_secs_f64(),
        -exact.log2(),
        -approximate.log2(),
        -scheme.log2(),
    );
    Ok(())
}

/// Standard normal values, by Box and Muller.
fn normal(rng: &mut ChaCha20Rng, count: usize) -> Vec<f64> {
    (0..count)
        .map(|_| {
            let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        })
        .collect()
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}
