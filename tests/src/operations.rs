//! Every operation of the world traits against plain f64 arithmetic.

use undertone_core::{
    Approximate, Axis, Bound, Compare, Form, Function, Mask, Multiply, Num, Role, Shape, Site,
};
use undertone_model::host::{Host, Use, Weight};

use crate::{Random, assert_close, bound_of};

const INPUT: Bound =
    Bound::known(Site::outside(Role::Input), const { Num::of(-4.0) }, const { Num::of(4.0) });

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

fn input<W: Host>(w: &mut W, r: &mut Random, shape: Shape) -> (W::Secret, Vec<f64>) {
    let values = r.tensor(shape, -3.9, 3.9);
    (w.secret(shape, &values, INPUT).unwrap(), wide(&values))
}

/// The index in a tensor of shape `b` that broadcasts to element (batch, row, col).
const fn at(b: Shape, batch: usize, row: usize, col: usize) -> usize {
    let batch = if b.batch == 1 { 0 } else { batch };
    let row = if b.rows == 1 { 0 } else { row };
    let col = if b.cols == 1 { 0 } else { col };
    (batch * b.rows + row) * b.cols + col
}

fn each(shape: Shape, mut f: impl FnMut(usize, usize, usize) -> f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(shape.len());
    for batch in 0..shape.batch {
        for row in 0..shape.rows {
            for col in 0..shape.cols {
                out.push(f(batch, row, col));
            }
        }
    }
    out
}

/// The tier [`World`](undertone_core::World).
pub fn linear<W: Host>(make: &mut dyn FnMut() -> W, tolerance: f64) {
    let mut r = Random::new(1);
    let w = &mut make();
    let a = Shape::new(2, 5, 6);
    for b in [a, Shape::new(2, 5, 1), Shape::new(2, 1, 6), Shape::new(1, 1, 6), Shape::new(1, 5, 6)]
    {
        let what = |op: &str| format!("{op} {a} with {b}");
        let ((x, xs), (y, ys)) = (input(w, &mut r, a), input(w, &mut r, b));
        let want = each(a, |i, j, k| xs[at(a, i, j, k)] + ys[at(b, i, j, k)]);
        let x2 = w.copy(&x).unwrap();
        let sum = w.add(x, &y, bound_of(&want)).unwrap();
        assert_close(&what("add"), &w.reveal(&sum).unwrap(), &want, tolerance);
        let want = each(a, |i, j, k| xs[at(a, i, j, k)] - ys[at(b, i, j, k)]);
        let difference = w.sub(x2, &y, bound_of(&want)).unwrap();
        assert_close(&what("sub"), &w.reveal(&difference).unwrap(), &want, tolerance);

        let values = r.tensor(b, -2.0, 2.0);
        let p = w.vector(b, &values).unwrap();
        let (x, xs) = input(w, &mut r, a);
        let x2 = w.copy(&x).unwrap();
        let want = each(a, |i, j, k| xs[at(a, i, j, k)] + f64::from(values[at(b, i, j, k)]));
        let sum = w.add_public(x, &p, bound_of(&want)).unwrap();
        assert_close(&what("add_public"), &w.reveal(&sum).unwrap(), &want, tolerance);
        let want = each(a, |i, j, k| xs[at(a, i, j, k)] * f64::from(values[at(b, i, j, k)]));
        let product = w.mul_public(x2, &p, bound_of(&want)).unwrap();
        assert_close(&what("mul_public"), &w.reveal(&product).unwrap(), &want, tolerance);
    }

    let (x, xs) = input(w, &mut r, a);
    let want: Vec<f64> = xs.iter().map(|x| x * -0.3).collect();
    let y = w.copy(&x).unwrap();
    let y = w.scale(y, const { Num::of(-0.3) }, bound_of(&want)).unwrap();
    assert_close("scale", &w.reveal(&y).unwrap(), &want, tolerance);
    let want: Vec<f64> = xs.iter().map(|x| x + 0.75).collect();
    let y = w.copy(&x).unwrap();
    let y = w.offset(y, const { Num::of(0.75) }, bound_of(&want)).unwrap();
    assert_close("offset", &w.reveal(&y).unwrap(), &want, tolerance);

    let (k, m) = (a.cols, 7);
    let weight = r.tensor(Shape::new(1, m, k), -1.0, 1.0);
    let bias = r.tensor(Shape::new(1, 1, m), -1.0, 1.0);
    let want = each(a.with_cols(m), |i, j, o| {
        let dot: f64 = (0..k).map(|c| xs[at(a, i, j, c)] * f64::from(weight[o * k + c])).sum();
        dot + f64::from(bias[o])
    });
    let p = Weight { role: Use::Up, inputs: k, outputs: m, weight: &weight, bias: Some(&bias) };
    let p = w.linear(p).unwrap();
    let on = bound_of(&want);
    let [y, z] = w.project(&x, [(&p, on), (&p, on)]).unwrap();
    assert_close("project", &w.reveal(&y).unwrap(), &want, tolerance);
    assert_close("project", &w.reveal(&z).unwrap(), &want, tolerance);

    let columns = a.with_cols(1);
    let want = each(columns, |i, j, _| (0..a.cols).map(|c| xs[at(a, i, j, c)]).sum());
    let y = w.sum(&x, Axis::Cols, bound_of(&want)).unwrap();
    assert_close("sum over columns", &w.reveal(&y).unwrap(), &want, tolerance);
    let row = a.with_rows(1);
    let want = each(row, |i, _, k| (0..a.rows).map(|j| xs[at(a, i, j, k)]).sum());
    let y = w.sum(&x, Axis::Rows, bound_of(&want)).unwrap();
    assert_close("sum over rows", &w.reveal(&y).unwrap(), &want, tolerance);
    let repeated = each(a.with_rows(3), |i, _, k| want[at(row, i, 0, k)]);
    let y = w.repeat_rows(&y, 3).unwrap();
    assert_close("repeat_rows", &w.reveal(&y).unwrap(), &repeated, tolerance);

    let want = each(a.with_rows(2), |i, j, k| xs[at(a, i, j + 1, k)]);
    let y = w.rows(&x, 1, 2).unwrap();
    assert_close("rows", &w.reveal(&y).unwrap(), &want, tolerance);
    let left = w.columns(&x, 0, 2).unwrap();
    let right = w.columns(&x, 2, 4).unwrap();
    let want = each(a.with_cols(4), |i, j, k| xs[at(a, i, j, k + 2)]);
    assert_close("columns", &w.reveal(&right).unwrap(), &want, tolerance);
    let whole = w.concat(left, &right, INPUT).unwrap();
    assert_close("concat", &w.reveal(&whole).unwrap(), &xs, tolerance);

    let heads = 3;
    let d = a.cols / heads;
    let split = w.split_heads(whole, heads).unwrap();
    let want = each(Shape::new(a.batch * heads, a.rows, d), |i, j, k| {
        xs[at(a, i / heads, j, (i % heads) * d + k)]
    });
    assert_close("split_heads", &w.reveal(&split).unwrap(), &want, tolerance);
    let merged = w.merge_heads(split, heads).unwrap();
    assert_close("merge_heads", &w.reveal(&merged).unwrap(), &xs, tolerance);

    masks(w, &mut r, tolerance);
    let (a, b) = w.join(|_| Ok(1), |_| Ok(2)).unwrap();
    assert_eq!((a, b), (1, 2));
    let [y] = w.scope(|w| Ok([w.copy(&x)?])).unwrap();
    assert_close("scope", &w.reveal(&y).unwrap(), &xs, tolerance);
}

fn masks<W: Host>(w: &mut W, r: &mut Random, tolerance: f64) {
    let s = Shape::new(4, 5, 5);
    let mask = Mask { causal: true, lengths: Some(&[5, 3]) };
    let (x, xs) = input(w, r, s);
    let want = each(s, |i, j, k| if k < mask.visible(s, i, j) { xs[at(s, i, j, k)] } else { -2.0 });
    let y = w.copy(&x).unwrap();
    let y = w.mask(y, &mask, Num::int(-2)).unwrap();
    assert_close("mask", &w.reveal(&y).unwrap(), &want, tolerance);
    let want = each(s, |i, j, k| xs[at(s, i, j, k)] / mask.visible(s, i, j) as f64);
    let y = w.divide_by_count(x, &mask, 5, bound_of(&want)).unwrap();
    assert_close("divide_by_count", &w.reveal(&y).unwrap(), &want, tolerance);
}

/// The tier [`Multiply`].
pub fn products<W: Host + Multiply>(make: &mut dyn FnMut() -> W, tolerance: f64) {
    let mut r = Random::new(2);
    let w = &mut make();
    let a = Shape::new(2, 5, 6);
    for b in [a, Shape::new(2, 5, 1), Shape::new(2, 1, 6)] {
        let ((x, xs), (y, ys)) = (input(w, &mut r, a), input(w, &mut r, b));
        let want = each(a, |i, j, k| xs[at(a, i, j, k)] * ys[at(b, i, j, k)]);
        let z = w.mul(x, &y, bound_of(&want)).unwrap();
        assert_close(&format!("mul {a} with {b}"), &w.reveal(&z).unwrap(), &want, tolerance);
    }
    let (x, xs) = input(w, &mut r, a);
    let want: Vec<f64> = xs.iter().map(|x| x * x).collect();
    let y = w.square(x, bound_of(&want)).unwrap();
    assert_close("square", &w.reveal(&y).unwrap(), &want, tolerance);
    for (form, b) in [
        (Form::Nn, Shape::new(2, 6, 4)),
        (Form::Nt, Shape::new(2, 4, 6)),
        (Form::Tn, Shape::new(2, 5, 4)),
    ] {
        let ((x, xs), (y, ys)) = (input(w, &mut r, a), input(w, &mut r, b));
        let made = a.product(b, form).unwrap();
        let want = each(made, |i, j, k| match form {
            Form::Nn => (0..6).map(|c| xs[at(a, i, j, c)] * ys[at(b, i, c, k)]).sum(),
            Form::Nt => (0..6).map(|c| xs[at(a, i, j, c)] * ys[at(b, i, k, c)]).sum(),
            Form::Tn => (0..5).map(|c| xs[at(a, i, c, j)] * ys[at(b, i, c, k)]).sum(),
        });
        let z = w.matmul(&x, &y, form, bound_of(&want)).unwrap();
        assert_close(&format!("matmul {form:?}"), &w.reveal(&z).unwrap(), &want, tolerance);
    }
}

/// A function in f64.
#[must_use]
pub fn exact(f: Function, x: f64) -> f64 {
    match f {
        Function::Exp => x.exp(),
        Function::Reciprocal => 1.0 / x,
        Function::Rsqrt => 1.0 / x.sqrt(),
        Function::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Function::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Function::Tanh => x.tanh(),
        Function::Silu => x / (1.0 + (-x).exp()),
    }
}

/// The error function by its Maclaurin series, which is enough to ±5.5 in f64.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.5 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs().max(1e-300) {
        n += 1.0;
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// The tiers [`Approximate`] and, where a world has it, [`Compare`] is in [`comparisons`].
pub fn functions<W: Host + Approximate>(make: &mut dyn FnMut() -> W, tolerance: f64) {
    let mut r = Random::new(3);
    let w = &mut make();
    let shape = Shape::new(1, 8, 16);
    for (f, lo, hi) in [
        (Function::Exp, -8.0, 0.0),
        (Function::Reciprocal, 0.25, 4.0),
        (Function::Rsqrt, 0.25, 4.0),
        (Function::Gelu, -4.0, 4.0),
        (Function::Sigmoid, -4.0, 4.0),
        (Function::Softplus, -4.0, 4.0),
        (Function::Tanh, -4.0, 4.0),
        (Function::Silu, -4.0, 4.0),
    ] {
        let values = r.tensor(shape, lo, hi);
        let want: Vec<f64> = values.iter().map(|&x| exact(f, f64::from(x))).collect();
        let domain = Bound::known(Site::outside(Role::Hidden), Num::of(lo), Num::of(hi));
        let x = w.secret(shape, &values, domain).unwrap();
        let y = w.map(x, f, domain, bound_of(&want)).unwrap();
        assert_close(f.name(), &w.reveal(&y).unwrap(), &want, tolerance);
    }
}

/// The tier [`Compare`].
pub fn comparisons<W: Host + Compare>(make: &mut dyn FnMut() -> W, tolerance: f64) {
    let mut r = Random::new(4);
    let w = &mut make();
    for cols in [1, 2, 7, 8] {
        let shape = Shape::new(2, 5, cols);
        let (x, xs) = input(w, &mut r, shape);
        let want = each(shape.with_cols(1), |i, j, _| {
            (0..cols).map(|c| xs[at(shape, i, j, c)]).fold(f64::MIN, f64::max)
        });
        let y = w.max(&x).unwrap();
        assert_close("max", &w.reveal(&y).unwrap(), &want, tolerance);
        let want: Vec<f64> = xs.iter().map(|x| x.max(0.0)).collect();
        let y = w.relu(x, bound_of(&want)).unwrap();
        assert_close("relu", &w.reveal(&y).unwrap(), &want, tolerance);
    }
}

/// Shapes that do not go together are refused by every operation that has a choice.
pub fn refusals<W: Host + Multiply>(make: &mut dyn FnMut() -> W) {
    let mut r = Random::new(5);
    let w = &mut make();
    let (a, b) = (Shape::new(2, 3, 4), Shape::new(2, 4, 3));
    let fresh = |w: &mut W, r: &mut Random, s| input(w, r, s).0;
    let (x, y) = (fresh(w, &mut r, a), fresh(w, &mut r, b));
    assert!(w.add(x, &y, INPUT).is_err(), "add");
    let x = fresh(w, &mut r, a);
    assert!(w.mul(x, &y, INPUT).is_err(), "mul");
    let x = fresh(w, &mut r, a);
    assert!(w.matmul(&x, &y, Form::Nt, INPUT).is_err(), "matmul");
    assert!(w.rows(&x, 2, 2).is_err(), "rows beyond the end");
    assert!(w.columns(&x, 0, 0).is_err(), "no columns");
    assert!(w.repeat_rows(&x, 2).is_err(), "repeat of more than a row");
    let weight = [0.0; 10];
    let p = Weight { role: Use::Up, inputs: 5, outputs: 2, weight: &weight, bias: None };
    let p = w.linear(p).unwrap();
    assert!(w.matmul_public(&x, &p, INPUT).is_err(), "matmul_public");
    let mask = Mask { causal: true, lengths: None };
    let other = fresh(w, &mut r, a);
    assert!(w.mask(other, &mask, Num::ZERO).is_err(), "causal mask on a rectangle");
    let other = fresh(w, &mut r, a);
    assert!(w.split_heads(other, 3).is_err(), "heads that do not divide");
    let other = fresh(w, &mut r, a);
    assert!(w.concat(other, &y, INPUT).is_err(), "concat");
    assert!(w.secret(Shape::new(1, 0, 4), &[], INPUT).is_err(), "an empty tensor");
}
