//! Every protocol against plain arithmetic, and what it was planned to cost.
#![allow(clippy::unwrap_used, missing_docs)]

use rand::Rng as _;
use std::sync::Arc;
use std::time::Instant;
use undertone_core::{Form, Function, Shape};
use undertone_mpc::channel::{Limits, Link};
use undertone_mpc::channel::{Network, memory::delayed_pair};
use undertone_mpc::protocol::fit;
use undertone_mpc::ring::Product;
use undertone_mpc::{Format, Local, Mpc, Result, Shared, run_locally, run_over};

fn uniform(n: usize, lo: f64, hi: f64) -> Vec<f64> {
    let mut rng = rand::rng();
    (0..n).map(|_| rng.random_range(lo..hi)).collect()
}

/// Runs a program on the client's values, reveals to the client and checks plan against run.
fn run(
    shape: Shape,
    x: &[f64],
    f: impl Fn(&mut Mpc, &Shared) -> Result<Shared> + Sync,
) -> (Vec<f64>, Local<Option<Vec<f64>>>) {
    let out = run_locally("test", Format::default(), |mpc| {
        let wire = mpc.input(0, shape, Some(x))?;
        let x = mpc.share(&wire);
        let y = f(mpc, &x)?;
        mpc.reveal(&y, 0)
    })
    .unwrap();
    assert_eq!(out.measured[0], out.plan.cost());
    assert_eq!(out.measured[1], out.plan.cost());
    assert!(out.results[1].is_none(), "only the client learns the output");
    (out.results[0].clone().unwrap(), out)
}

fn worst(got: &[f64], wanted: impl Iterator<Item = f64>) -> f64 {
    got.iter().zip(wanted).fold(0.0, |m: f64, (g, w)| m.max((g - w).abs()))
}

const ULP: f64 = 1.0 / 262_144.0;

#[test]
fn relu_is_exact_at_edges_and_within() {
    let mut x = uniform(500, -1e4, 1e4);
    x.extend([0.0, ULP, -ULP, 2f64.powi(43), -2f64.powi(43), 1.0, -1.0]);
    let shape = Shape::new(1, 1, x.len());
    let (y, _) = run(shape, &x, |mpc, x| mpc.relu(x));
    let rounded = x.iter().map(|x| (x.max(0.0) / ULP).round() * ULP);
    assert_eq!(worst(&y, rounded), 0.0);
}

#[test]
fn relu_4096_in_two_exchanges_and_8_2_bytes() {
    let x = uniform(4096, -8.0, 8.0);
    let (_, out) = run(Shape::new(1, 64, 64), &x, |mpc, x| mpc.relu(x));
    let [input, output] = [8 * 4096, 8 * 4096];
    let cost = out.plan.cost();
    assert_eq!(cost.exchanges, 2 + 2);
    // 8.125 bytes an element.
    assert_eq!(cost.sent, [input + 33_280, output + 33_280]);
}

#[test]
fn truncations() {
    let mut x = uniform(300, -1e3, 1e3);
    x.extend([0.0, ULP, -ULP, 3e7, -3e7]);
    let shape = Shape::new(1, 1, x.len());
    // Products with one, so that the value has twice the fraction bits.
    let twice = |mpc: &mut Mpc, x: &Shared| -> Result<Shared> {
        let one = mpc.input(1, shape, Some(&vec![1.0; shape.len()]))?;
        let x = mpc.open_one(x)?;
        mpc.mul(&x, &one)
    };
    let (y, _) = run(shape, &x, |mpc, x| {
        let x = twice(mpc, x)?;
        mpc.settle(&x)
    });
    assert!(worst(&y, x.iter().copied()) <= 1.5 * ULP, "{}", worst(&y, x.iter().copied()));
    let (y, _) = run(shape, &x, |mpc, x| {
        let x = twice(mpc, x)?;
        mpc.floor(&x, 18)
    });
    let floor = x.iter().map(|x| (x / ULP).round() * ULP);
    assert_eq!(worst(&y, floor), 0.0);
    // Exactly the floor, also of negatives.
    let (y, _) = run(shape, &x, |mpc, x| mpc.floor(x, 18));
    let floor = x.iter().map(|x| ((x / ULP).round() * ULP).floor());
    assert_eq!(worst(&y, floor), 0.0);
}

#[test]
fn local_truncation_errs_as_often_as_stated() {
    // |x|·2^scale = 2^61: an eighth of all elements is wrong; at 2^30 none of so many.
    for (value, at_least, at_most) in [(2f64.powi(43), 20, 90), (2f64.powi(12), 0, 0)] {
        let x = vec![value; 400];
        let (y, _) = run(Shape::new(1, 1, 400), &x, |mpc, x| {
            // Shares of an input are not random; those of a result are.
            let x = mpc.relu(x)?;
            mpc.truncate_locally(&x, 10)
        });
        let scaled = value;
        let wrong = y.iter().filter(|y| (*y - scaled).abs() > 1.0).count();
        assert!((at_least..=at_most).contains(&wrong), "{wrong} wrong of 400 at {value}");
    }
}

#[test]
fn products() {
    let (b, n, k, m) = (2, 5, 7, 3);
    for form in [Form::Nn, Form::Nt, Form::Tn] {
        let p = Product { batch: b, n, k, m, form, shared: false };
        let (x, y) = (uniform(p.left(), -4.0, 4.0), uniform(p.right(), -4.0, 4.0));
        let (z, _) = run(Shape::new(1, 1, x.len()), &x, |mpc, x| {
            let y = mpc.input(1, Shape::new(1, 1, y.len()), Some(&y))?;
            let x = mpc.open_one(x)?;
            let z = mpc.matmul(&p, &x, &y)?;
            mpc.settle(&z)
        });
        let at = |i: usize, r: usize, j: usize| match form {
            Form::Tn => x[i * n * k + j * n + r],
            _ => x[i * n * k + r * k + j],
        };
        let bt = |i: usize, j: usize, c: usize| match form {
            Form::Nt => y[i * k * m + c * k + j],
            _ => y[i * k * m + j * m + c],
        };
        let wanted = (0..b * n * m).map(|o| {
            let (i, r, c) = (o / (n * m), o / m % n, o % m);
            (0..k).map(|j| at(i, r, j) * bt(i, j, c)).sum::<f64>()
        });
        assert!(worst(&z, wanted) < 2e-4);
    }
}

#[test]
fn reduced_wires_multiply() {
    let x = uniform(200, -4.0, 4.0);
    let (y, _) = run(Shape::new(1, 1, 200), &x, |mpc, x| {
        let w = mpc.open_one(x)?;
        let square = mpc.square(&w)?;
        let w = mpc.operand(&square, 36 + 9)?;
        let fourth = mpc.square(&w)?;
        mpc.settle(&fourth)
    });
    // Rounding the input costs half a unit times 4|x|³ ≤ 256, the rounded square one unit times
    // 2x² ≤ 32, the result one: nothing here depends on the masks.
    assert!(worst(&y, x.iter().map(|x| x.powi(4))) <= 161.0 * ULP);
}

#[test]
fn maxima_and_their_columns() {
    for cols in [1, 2, 3, 7, 10, 65] {
        let mut x = uniform(4 * cols, -100.0, 100.0);
        if cols > 2 {
            x[2] = 500.0;
            x[1] = 500.0;
        }
        let row = |r: usize| &x[r * cols..(r + 1) * cols];
        let (y, out) = run(Shape::new(1, 4, cols), &x, |mpc, x| mpc.max_rows(x));
        let wanted = (0..4).map(|r| row(r).iter().copied().fold(f64::MIN, f64::max));
        assert!(worst(&y, wanted) <= ULP);
        assert_eq!(out.plan.cost().exchanges, 2 + 2 * u64::from(cols.next_power_of_two().ilog2()));
        let (y, _) = run(Shape::new(1, 4, cols), &x, |mpc, x| mpc.argmax_rows(x));
        let first =
            |r: usize| (0..cols).rfold(cols - 1, |b, c| if row(r)[c] >= row(r)[b] { c } else { b });
        assert_eq!(y, (0..4).map(|r| first(r) as f64).collect::<Vec<_>>());
    }
}

#[test]
fn exponentials() {
    let mut x = uniform(2000, -20.0, 0.0);
    x.extend([0.0, -ULP, -15.9, -16.5, -1000.0, 0.2]);
    let (y, _) = run(Shape::new(1, 1, x.len()), &x, |mpc, x| {
        let e = mpc.exp(x, 0.25)?;
        mpc.settle(&e)
    });
    let error = worst(&y, x.iter().map(|x| x.exp()));
    assert!(error < 1.5e-5, "{error}");
}

#[test]
fn functions_with_tails() {
    for f in [Function::Gelu, Function::Silu, Function::Sigmoid, Function::Tanh, Function::Softplus]
    {
        let mut x = uniform(2000, -12.0, 12.0);
        x.extend([0.0, ULP, -ULP, 1000.0, -1000.0]);
        let series = fit(f, 5e-5).unwrap();
        let (y, out) = run(Shape::new(1, 1, x.len()), &x, |mpc, x| {
            let y = mpc.apply(x, &series)?;
            mpc.settle(&y)
        });
        let error = worst(&y, x.iter().map(|&x| undertone_mpc::protocol::plain(f, x)));
        assert!(error < 1e-4, "{} {error}", f.name());
        assert_eq!(out.plan.cost().exchanges, 5);
    }
}

#[test]
fn inverses() {
    for (f, lo, hi) in [
        (Function::Reciprocal, 1.0f64, 65.0f64),
        (Function::Reciprocal, 0.01, 300.0),
        (Function::Rsqrt, 0.05, 20.0),
        (Function::Rsqrt, 0.001, 1000.0),
    ] {
        let mut x: Vec<f64> = uniform(60, lo.ln(), hi.ln()).iter().map(|x| x.exp()).collect();
        x.extend([lo, hi, 0.5 * (lo + hi)]);
        let (y, _) = run(Shape::new(1, 1, x.len()), &x, |mpc, x| mpc.inverse(x, f, (lo, hi), 1e-5));
        for (x, y) in x.iter().zip(&y) {
            let exact = undertone_mpc::protocol::plain(f, (x / ULP).round() * ULP);
            assert!((y / exact - 1.0).abs() < 4e-5, "{} {x} {y} {exact}", f.name());
        }
    }
}

fn softmax_row(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::MIN, f64::max);
    let e: Vec<f64> = row.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

#[test]
fn softmax_64_by_64() {
    let x = uniform(4096, -8.0, 8.0);
    let (y, out) = run(Shape::new(1, 64, 64), &x, |mpc, x| mpc.softmax(x, 4));
    let wanted = x.chunks(64).flat_map(softmax_row);
    let error = worst(&y, wanted);
    let cost = out.plan.cost();
    println!("softmax 64x64: error {error:.2e}, {cost:?}");
    assert!(error <= 1e-4, "{error}");
    assert!(cost.exchanges - 2 <= 30);
    assert!(cost.sent[0] - 8 * 4096 <= 250_000);
}

#[test]
fn other_normalisers() {
    let x = uniform(20 * 16, -4.0, 4.0);
    let shape = Shape::new(1, 20, 16);
    let over = |w: &dyn Fn(f64) -> f64, eps: f64| -> Vec<f64> {
        x.chunks(16)
            .flat_map(|row| {
                let w: Vec<f64> = row.iter().map(|x| w(*x)).collect();
                let sum: f64 = w.iter().sum::<f64>() + eps;
                w.iter().map(|w| w / sum).collect::<Vec<_>>()
            })
            .collect()
    };
    let (y, _) = run(shape, &x, |mpc, x| mpc.relu_softmax(x, 3, 1e-5));
    let error = worst(&y, over(&|x| x.max(0.0), 1e-5).into_iter());
    assert!(error < 1e-4, "relu softmax {error}");
    let (y, _) = run(shape, &x, |mpc, x| mpc.two_quad(x, 3, 1e-5));
    let error = worst(&y, over(&|x| x * x, 1e-5).into_iter());
    assert!(error < 1e-4, "2quad {error}");
    let (y, _) = run(shape, &x, |mpc, x| mpc.scaling(x));
    assert!(worst(&y, x.iter().map(|x| x / 16.0)) < 1e-5);
}

#[test]
fn layer_norm_of_rows() {
    let x = uniform(16 * 64, -3.0, 3.0);
    let (gain, bias) = (uniform(64, 0.5, 1.5), uniform(64, -1.0, 1.0));
    let row = Shape::new(1, 1, 64);
    let norm = |r: &[f64]| -> Vec<f64> {
        let mean = r.iter().sum::<f64>() / 64.0;
        let var = r.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 64.0 + 1e-5;
        r.iter().map(|x| (x - mean) / var.sqrt()).collect()
    };
    let (y, _) =
        run(Shape::new(1, 16, 64), &x, |mpc, x| mpc.layer_norm(x, None, 1e-5, (0.5, 20.0)));
    let error = worst(&y, x.chunks(64).flat_map(norm));
    assert!(error < 2e-4, "{error}");
    let (y, out) = run(Shape::new(1, 16, 64), &x, |mpc, x| {
        let gain = mpc.input(1, row, Some(&gain))?;
        let bias = mpc.input(1, row, Some(&bias))?;
        mpc.layer_norm(x, Some((&gain, &bias)), 1e-5, (0.5, 20.0))
    });
    let wanted = x.chunks(64).flat_map(|r| {
        norm(r).into_iter().zip(&gain).zip(&bias).map(|((n, g), b)| n * g + b).collect::<Vec<_>>()
    });
    let error = worst(&y, wanted);
    println!("layer norm: error {error:.2e}, {:?}", out.plan.cost());
    assert!(error < 2e-4, "{error}");
}

#[test]
fn branches_overlap() {
    let x = uniform(64, -4.0, 4.0);
    let (y, out) = run(Shape::new(1, 1, 64), &x, |mpc, x| {
        let (a, b) = mpc.join(
            |mpc| mpc.relu(x),
            |mpc| {
                let (a, b) = mpc.join(|mpc| mpc.relu(x), |mpc| mpc.max_rows(x))?;
                let _ = b;
                Ok(a)
            },
        )?;
        let one = mpc.open_one(&a)?;
        let two = mpc.open_one(&b)?;
        let z = mpc.mul(&one, &two)?;
        mpc.settle(&z)
    });
    assert!(worst(&y, x.iter().map(|x| x.max(0.0).powi(2))) < 1e-4);
    let cost = out.plan.cost();
    assert_eq!(cost.exchanges, 2 + 2 + 2 + 12 + 3);
    assert_eq!(cost.depth, 2 + 12 + 3);
}

#[test]
fn a_wide_network_takes_what_the_plan_says() {
    let network = Network::WAN;
    let links = delayed_pair(Limits::default(), network).map(|l| l as Arc<dyn Link>);
    let x = uniform(4096, -8.0, 8.0);
    let out = run_over("wan", Format::default(), links, |mpc| {
        let x = mpc.input(0, Shape::new(1, 64, 64), Some(&x))?;
        let x = mpc.share(&x);
        let start = Instant::now();
        let before = mpc.meter().total();
        mpc.softmax(&x, 4)?;
        let after = mpc.meter().total();
        Ok((start.elapsed().as_secs_f64(), after.depth - before.depth))
    })
    .unwrap();
    let (seconds, depth) = out.results[0];
    let predicted = out.plan.cost().seconds(network.delay.as_secs_f64(), network.bandwidth, 0.0);
    println!(
        "softmax 64x64 on the wide network: {seconds:.3} s, {depth} deep, {predicted:.3} s planned"
    );
    assert_eq!(depth, 21);
    // The input is one exchange of the plan; compute and the scheduler come on top.
    assert!(seconds >= f64::from(20) * 0.02, "{seconds}");
    assert!((predicted - 0.02 - seconds).abs() < 0.3, "{predicted} {seconds}");
}
