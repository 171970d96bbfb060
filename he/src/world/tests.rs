//! The world against its own clear circuit, the exact operators, and its plan.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::ckks::{Complex, Context, Evaluator, Params, SecretKey};

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

fn run_head(params: Params, n: usize, d: usize, exponent: u8, seed: u64) {
    let ctx = Context::new(params).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let [q, k, v] = std::array::from_fn(|_| normal(&mut rng, n * d));
    let mut head = Head {
        packing: Packing::dense(ctx.slots(), n, d).unwrap(),
        exponent,
        row_sums: (1.0, 2.0),
        tolerance: 1e-8,
    };
    let (lo, hi) = head.measure_row_sums(&q, &k);
    head.row_sums = (lo * 0.9, hi * 1.1);
    let top = ctx.top_level();

    // The plan names the keys.
    let ledger = Arc::new(Ledger::new(ctx.clone()));
    head.run(&ledger, head.planned_inputs(top)).unwrap();
    let plan = ledger.planned();

    let secret = SecretKey::generate(&ctx).unwrap();
    let each: Vec<_> = plan.automorphisms.iter().copied().collect();
    let keys = Arc::new(secret.evaluation_keys(&each).unwrap());
    let engine = Arc::new(Evaluator::new(ctx.clone(), keys).unwrap());
    let slots = head.pack(&q, &k, &v).unwrap();
    let encrypt = |x: &[Complex]| {
        let plain = ctx.encode_as(x, top, crate::ckks::Degree::One)?;
        secret.encrypt(&plain)?.expand(&ctx)
    };
    let inputs = head.encrypt(&slots, encrypt).unwrap();

    let before = ctx.counters().snapshot();
    let out = head.run(&engine, inputs).unwrap();
    assert_eq!(ctx.counters().snapshot() - before, plan.counts, "the plan equals the run");
    assert_eq!(top - out.ciphertexts()[0].level(), plan.levels);

    let found = secret.decrypt_real(&out.ciphertexts()[0]).unwrap();
    let found = head.packing.unpack(&found, n, d, out.factor());

    let clear = Arc::new(Clear::new(ctx.clone()));
    let circuit = head.run(&clear, head.clear_inputs(&ctx, &slots, top)).unwrap();
    let predicted = circuit.ciphertexts()[0].variances();
    let predicted: Vec<f64> = predicted.iter().map(|v| v.sqrt()).collect();
    let predicted = head.packing.unpack(&predicted, n, d, circuit.factor());
    let slots = circuit.ciphertexts()[0].real();
    let circuit = head.packing.unpack(&slots, n, d, circuit.factor());

    let exact = head.exact(&q, &k, &v);
    let scheme = worst(&found, &circuit).log2();
    let approximation = worst(&circuit, &exact).log2();
    let whole = worst(&found, &exact).log2();
    // Root mean square of the errors in units of their prediction.
    let units: Vec<f64> = (0..n * d).map(|i| (found[i] - circuit[i]) / predicted[i]).collect();
    let off = (units.iter().map(|u| u * u).sum::<f64>() / units.len() as f64).sqrt().log2();
    assert!(off.abs() < 2.0, "measured error is {off:+.2} bits from predicted");
    assert!(approximation < -24.0, "approximation: 2^{approximation:.1}");
    assert!(scheme < -20.0, "scheme: 2^{scheme:.1}");
    assert!(whole < -20.0, "whole: 2^{whole:.1}");
}

#[test]
fn a_power_softmax_head_with_everything_encrypted() {
    run_head(Params::TEST_N12_DEEP, 16, 16, 4, 1);
}

#[test]
fn one_ciphertext_and_the_second_power() {
    run_head(Params::TEST_N12_DEEP, 8, 8, 2, 2);
}

#[test]
fn several_pairs_of_shifts() {
    run_head(Params::TEST_N12_DEEP, 32, 16, 2, 3);
}

/// Linear layers, masks and series, on the clear engine (same code, same levels).
#[test]
fn the_other_operations_agree_with_plain_arithmetic() {
    use undertone_core::{Approximate, Axis, Bound, Function, Mask, Num, Role, Site, World};
    let ctx = Context::new(Params::TEST_N12_DEEP).unwrap();
    let packing = Packing::dense(ctx.slots(), 8, 4).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let (x, w) = (normal(&mut rng, 32), normal(&mut rng, 16));
    let mut world = Ckks::new(Arc::new(Clear::new(ctx.clone())), Accuracy::exactly(1e-7));
    let admit = |world: &Ckks<Clear>| {
        let slots = packing.pack(&x, Layout::Spread).unwrap();
        let ct = Slots::new(&ctx, &slots[0], ctx.top_level());
        world.admit(packing, Layout::Spread, 1.0, vec![ct]).unwrap()
    };
    let read =
        |p: &Packed<Slots>| packing.unpack(&p.ciphertexts()[0].real(), 8, p.shape.cols, p.factor());
    let site = Site::layer(0, Role::Hidden);
    let on = Bound::unknown(site);

    let public = PublicMatrix { shape: Shape::new(1, 4, 4), values: w.clone(), bias: None };
    let y = admit(&world);
    let y = world.matmul_public(&y, &public, on).unwrap();
    let y = world.settle(y).unwrap();
    let wanted: Vec<f64> =
        (0..32).map(|at| (0..4).map(|k| x[at / 4 * 4 + k] * w[k * 4 + at % 4]).sum()).collect();
    assert!(worst(&read(&y), &wanted) < 1e-9);

    let total = world.sum(&y, Axis::Cols, on).unwrap();
    let sums: Vec<f64> = wanted.chunks(4).map(|r| r.iter().sum()).collect();
    assert!(worst(&read(&total), &sums) < 1e-9);

    for f in [Function::Gelu, Function::Sigmoid, Function::Tanh] {
        let y = admit(&world);
        let domain = Bound::known(site, Num::int(-5), Num::int(5));
        let y = world.map(y, f, domain, on).unwrap();
        let wanted: Vec<f64> = x.iter().map(|&x| function::value(f, x)).collect();
        assert!(worst(&read(&y), &wanted) < 1e-5, "{}", f.name());
    }
    let y = admit(&world);
    assert!(world.map(y, Function::Gelu, on, on).is_err(), "uncalibrated");
    let y = admit(&world);
    let causal = Mask { causal: true, lengths: None };
    assert!(matches!(world.mask(y, &causal, Num::ZERO), Err(HeError::Layout { .. })));
}
