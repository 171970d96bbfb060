//! Declared formula = plan = counted run, for every protocol at twenty random shapes.
#![allow(clippy::unwrap_used, missing_docs)]

use rand::Rng as _;
use undertone_core::{Form, Function, Shape};
use undertone_mpc::protocol::{declared, fit};
use undertone_mpc::ring::Product;
use undertone_mpc::{Cost, Format, Mpc, Result, Shared, run_locally};

const F: u32 = 18;

/// Runs on a random shape at a time; inputs and output are accounted for here.
fn hold(
    declared: impl Fn(Shape) -> Cost,
    program: impl Fn(&mut Mpc, &Shared) -> Result<Shared> + Sync,
) {
    let mut rng = rand::rng();
    for _ in 0..20 {
        let shape = Shape::new(1, rng.random_range(1..5), rng.random_range(2..24));
        let x: Vec<f64> = (0..shape.len()).map(|_| rng.random_range(-3.0..3.0)).collect();
        let out = run_locally("cost", Format { fraction: F }, |mpc| {
            let x = mpc.input(0, shape, Some(&x))?;
            let x = mpc.share(&x);
            let y = program(mpc, &x)?;
            let (n, bits) = (y.shape().len(), y.bits());
            mpc.reveal(&y, 0)?;
            Ok((n, bits))
        })
        .unwrap();
        let (n, bits) = out.results[0];
        let around = declared::input(0, shape.len()).then(declared::reveal(0, n, bits));
        let total = declared(shape).then(around);
        assert_eq!(out.plan.cost(), total, "plan, {shape}");
        assert_eq!(out.measured[0], total, "client, {shape}");
        assert_eq!(out.measured[1], total, "server, {shape}");
    }
}

#[test]
fn openings_and_products() {
    hold(
        |s| declared::open(&[(s.len(), 64)]).then(declared::mul(s.len(), 64)),
        |mpc, x| {
            let x = mpc.open_one(x)?;
            mpc.square(&x)
        },
    );
    let of = |s: Shape| Product {
        batch: 1,
        n: s.rows,
        k: s.cols,
        m: s.rows,
        form: Form::Nt,
        shared: false,
    };
    hold(
        |s| declared::open(&[(s.len(), 64)]).then(declared::matmul(&of(s), 64)),
        |mpc, x| {
            let of = of(x.shape());
            let x = mpc.open_one(x)?;
            mpc.matmul(&of, &x, &x)
        },
    );
}

#[test]
fn truncations() {
    hold(|s| declared::settle(s.len(), 64, F, F), |mpc, x| mpc.settle(x));
    hold(
        |s| {
            let n = s.len();
            declared::open(&[(n, 64)]).then(declared::mul(n, 64)).then(declared::settle(
                n,
                64,
                2 * F,
                F,
            ))
        },
        |mpc, x| {
            let x = mpc.open_one(x)?;
            let y = mpc.square(&x)?;
            mpc.settle(&y)
        },
    );
    hold(|s| declared::floor(s.len(), 64, 7), |mpc, x| mpc.floor(x, 7));
}

#[test]
fn comparisons() {
    hold(|s| declared::is_nonnegative(s.len(), 64), |mpc, x| mpc.is_nonnegative(x));
    hold(|s| declared::relu(s.len(), 64), |mpc, x| mpc.relu(x));
    hold(|s| declared::relu(s.len(), 33), |mpc, x| mpc.relu(&mpc.narrow(x, 33)));
    hold(|s| declared::max_rows(s.rows, s.cols, 64), |mpc, x| mpc.max_rows(x));
    hold(|s| declared::argmax_rows(s.rows, s.cols, 64), |mpc, x| mpc.argmax_rows(x));
}

#[test]
fn functions() {
    hold(|s| declared::exp(s.len(), 64, F), |mpc, x| mpc.exp(x, 3.5));
    for f in [Function::Gelu, Function::Sigmoid, Function::Tanh] {
        let series = fit(f, 1e-4).unwrap();
        hold(|s| declared::apply(s.len(), 64, F, &series), |mpc, x| mpc.apply(x, &series));
        hold(
            |s| declared::apply(s.len(), 30, F, &series),
            |mpc, x| mpc.apply(&mpc.narrow(x, 30), &series),
        );
    }
    for (f, lo, hi) in [(Function::Reciprocal, 0.5, 4.0), (Function::Rsqrt, 0.001, 500.0)] {
        hold(
            |s| declared::inverse(s.len(), f, (lo, hi), 1e-4, F).unwrap().0,
            |mpc, x| mpc.inverse(x, f, (lo, hi), 1e-4),
        );
    }
}

#[test]
fn normalisers() {
    hold(|s| declared::softmax(s.rows, s.cols, 3, F).unwrap(), |mpc, x| mpc.softmax(x, 3));
    hold(
        |s| declared::relu_softmax(s.rows, s.cols, 3, 1e-3, F).unwrap(),
        |mpc, x| mpc.relu_softmax(x, 3, 1e-3),
    );
    hold(
        |s| declared::two_quad(s.rows, s.cols, 3, 1e-3, F).unwrap(),
        |mpc, x| mpc.two_quad(x, 3, 1e-3),
    );
    hold(|_| Cost::default(), |mpc, x| mpc.scaling(x));
    // A variance for which 1/n finds room, and one for which it does not.
    for hi in [20.0, 1e5] {
        layer_norms((0.01, hi));
    }
}

fn layer_norms(domain: (f64, f64)) {
    hold(
        |s| declared::layer_norm(s.rows, s.cols, false, domain, F).unwrap(),
        |mpc, x| mpc.layer_norm(x, None, 1e-3, domain),
    );
    hold(
        |s| {
            let held = declared::input(1, s.cols);
            let norm = declared::layer_norm(s.rows, s.cols, true, domain, F).unwrap();
            // Gain and bias are sent one after the other without waiting.
            Cost { depth: 1, ..held.then(held) }.then(norm)
        },
        |mpc, x| {
            let row = Shape::new(1, 1, x.shape().cols);
            let ones = vec![1.0; row.cols];
            let gain = mpc.input(1, row, Some(&ones))?;
            let bias = mpc.input(1, row, Some(&ones))?;
            mpc.layer_norm(x, Some((&gain, &bias)), 1e-3, domain)
        },
    );
}
