#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::vector::{Kernel, dispatch, exp_one, gelu_one};
use super::*;
use crate::config::HeadKind;
use crate::reference::row_weights;

/// The distance in units in the last place of the exact value.
fn ulps(found: f32, exact: f64) -> f64 {
    let spacing = f64::from(f32::EPSILON) * 2f64.powi(exact.abs().log2().floor() as i32);
    (f64::from(found) - exact).abs() / spacing
}

/// The same function without vectors and without fused multiply-add.
struct Plain<F>(F);
impl<F: FnOnce()> Kernel for Plain<F> {
    type Output = ();
    fn run<const FMA: bool>(self) {
        (self.0)();
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    let xs: Vec<f32> = (0..2_000_000).map(|i| -87.3 + i as f32 * (175.6 / 2e6)).collect();
    let mut found = xs.clone();
    exp(&mut found);
    let mut worst = [0f64; 2];
    for (&x, &y) in xs.iter().zip(&found) {
        let exact = f64::from(x).exp();
        worst[0] = worst[0].max(ulps(y, exact));
        worst[1] = worst[1].max(ulps(exp_one::<false>(x), exact));
    }
    println!("exp: {:.3} ulp with vectors, {:.3} without fused multiply-add", worst[0], worst[1]);
    assert!(worst.iter().all(|&worst| worst <= 2.0), "{worst:?}");
}

#[test]
fn exp_has_defined_ends() {
    let mut x = [0.0, -88.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -87.33];
    exp(&mut x);
    assert_eq!(x[..3], [1.0, 0.0, 0.0]);
    assert!(x[3].is_finite() && x[3] > 1e38);
    assert!(x[4].is_nan());
    assert!(x[5].is_normal());
}

#[test]
fn gelu_is_within_a_millionth() {
    let xs: Vec<f32> = (0..2_000_000).map(|i| -40.0 + i as f32 * 4e-5).collect();
    let mut found = xs.clone();
    gelu(&mut found);
    let mut worst = 0f64;
    for (&x, &y) in xs.iter().zip(&found) {
        let exact = crate::reference::gelu(f64::from(x));
        let scale = f64::from(x.abs().max(1.0));
        worst = worst.max((f64::from(y) - exact).abs() / scale);
        worst = worst.max((f64::from(gelu_one::<false>(x)) - exact).abs() / scale);
    }
    println!("gelu: {worst:.2e}");
    assert!(worst <= 1e-6, "{worst:e}");
    let mut x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    gelu(&mut x);
    assert!(x[0].is_nan() && x[1] == f32::INFINITY && x[2].abs() <= 1e-6);
}

#[test]
fn dispatch_runs_the_kernel_once() {
    let mut runs = 0;
    dispatch(Plain(|| runs += 1));
    assert_eq!(runs, 1);
}

const KINDS: [HeadKind; 10] = [
    HeadKind::Softmax,
    HeadKind::Power { p: 2, eps: 1e-3, mean: false },
    HeadKind::Power { p: 4, eps: 1e-3, mean: true },
    HeadKind::Power { p: 6, eps: 1e-3, mean: false },
    HeadKind::ReluSoftmax { eps: 1e-5 },
    HeadKind::Scaling,
    HeadKind::TwoQuad { c: 5.0, eps: 0.0 },
    HeadKind::TwoQuad { c: 0.5, eps: 1e-5 },
    HeadKind::ReluSquared,
    HeadKind::Uniform,
];

proptest! {
    #[test]
    fn weights_agree_with_the_reference(
        kind in 0usize..KINDS.len(),
        scores in proptest::collection::vec(-20f32..20.0, 1..70),
        mask in proptest::collection::vec(any::<bool>(), 70),
        pad in 0usize..20,
    ) {
        let kind = KINDS[kind];
        let n = scores.len();
        let mut mask = mask[..n].to_vec();
        mask[n / 2] = true;
        let stride = n + pad;
        let mut x = vec![f32::NAN; stride];
        x[..n].copy_from_slice(&scores);
        let mut inverse = [0.0];
        weigh_rows(crate::build::kind(&kind), &mut x, n, stride, Some(&mask), &mut inverse).unwrap();

        let exact: Vec<f64> = scores.iter().map(|&s| f64::from(s)).collect();
        let (weights, denominator) = row_weights(kind, &exact, &mask);
        prop_assert!(x[n..].iter().all(|&x| x == 0.0));
        for (found, weight) in x.iter().zip(&weights) {
            // The quotient is what matters: the length-agnostic form shifts 1/N between the two.
            let found = f64::from(*found) * f64::from(inverse[0]);
            let wanted = weight / denominator;
            prop_assert!(
                (found - wanted).abs() <= 4e-6 * (wanted.abs() + 1e-3),
                "{:?}: {} against {}", kind, found, wanted
            );
        }
    }

    /// Any strides that are accepted give the product; A and B may overlap themselves.
    #[test]
    fn products_agree_with_plain_loops(
        (batch, m, k, n) in (1usize..4, 0usize..9, 0usize..9, 0usize..9),
        (extra, swap) in (0usize..3, any::<bool>()),
        shared: bool,
    ) {
        let value = |i: usize| ((i * 37 + 11) % 64) as f32 / 16.0 - 2.0;
        let a: Vec<f32> = (0..batch * (m + extra) * (k + extra) + 1).map(value).collect();
        let b: Vec<f32> = (0..batch * (k + extra) * (n + extra) + 1).map(value).collect();
        let a_strides = ((m + extra) * (k + extra), k + extra, 1);
        let b_strides = if shared { (0, n + extra, 1) } else { ((k + extra) * (n + extra), n + extra, 1) };
        // Column-major output where `swap`.
        let (rs, cs) = if swap { (1, m + extra) } else { (n + extra, 1) };
        let size = (m + extra) * (n + extra);
        let before: Vec<f32> = (0..batch * size + 1).map(value).collect();
        let mut out = before.clone();
        let a_view = View::new(&a, (batch, a_strides.0), (m, a_strides.1), (k, 1)).unwrap();
        let b_batch = if shared { 1 } else { batch };
        let b_view = View::new(&b, (b_batch, b_strides.0), (k, b_strides.1), (n, 1)).unwrap();
        let target = ViewMut::new(&mut out, (batch, size), (m, rs), (n, cs)).unwrap();
        matmul(target, a_view, b_view).unwrap();

        let mut wanted = before.clone();
        for (l, i, j) in (0..batch).flat_map(|l| (0..m).flat_map(move |i| (0..n).map(move |j| (l, i, j)))) {
            let sum: f32 = (0..k)
                .map(|c| a[l * a_strides.0 + i * a_strides.1 + c] * b[l * b_strides.0 + c * b_strides.1 + j])
                .sum();
            let at = l * size + i * rs + j * cs;
            wanted[at] = sum;
        }
        for (found, wanted) in out.iter().zip(&wanted) {
            prop_assert!((found - wanted).abs() <= 1e-4, "{:?} against {:?}", out, wanted);
        }
    }

    #[test]
    fn norms_agree_with_the_reference(
        rows in 1usize..4, width in 1usize..70, offset in -100f32..100.0, seed: u64,
    ) {
        use crate::config::NormKind;
        use crate::reference::{Matrix, norm};
        use crate::weights::Norm;
        let mut draw = crate::tasks::SplitMix64::new(seed);
        let mut vector = |n: usize| -> Vec<f32> {
            (0..n).map(|_| draw.below(2000) as f32 / 500.0 - 2.0).collect()
        };
        let learned = Norm { weight: vector(width), bias: vector(width) };
        let x: Vec<f32> = vector(rows * width).iter().map(|x| x + offset).collect();
        let exact = Matrix::from_f32(rows, width, &x);
        let mut out = vec![0.0; x.len()];
        layer_norm_rows(&x, &learned.weight, &learned.bias, 1e-3, &mut out).unwrap();
        let wanted = norm(&exact, NormKind::LayerNorm, &learned, 1e-3);
        for (found, wanted) in out.iter().zip(&wanted.data) {
            prop_assert!((f64::from(*found) - wanted).abs() <= 3e-3, "{} {}", found, wanted);
        }
        affine_rows(&x, &learned.weight, &learned.bias, &mut out).unwrap();
        let wanted = norm(&exact, NormKind::Affine, &learned, 1e-3);
        for (found, wanted) in out.iter().zip(&wanted.data) {
            prop_assert!((f64::from(*found) - wanted).abs() <= 1e-4, "{} {}", found, wanted);
        }
    }
}

#[test]
fn rows_maps_do_what_they_say() {
    let mut x = [1.0, -2.0, 3.0, 4.0];
    add_bias(&mut x, &[10.0, 20.0]).unwrap();
    assert_eq!(x, [11.0, 18.0, 13.0, 24.0]);
    let mut out = [1.0; 2];
    linear(&mut out, &[1.0, 2.0], 2, &[1.0, 0.0, 0.0, 3.0], Some(&[5.0, 0.0])).unwrap();
    assert_eq!(out, [6.0, 6.0]);
}

#[test]
fn misfits_are_refused() {
    let data = [0.0; 12];
    let mut out = [0.0; 12];
    assert!(matches!(
        View::new(&data, (1, 0), (3, 4), (5, 1)),
        Err(KernelError::OutOfBounds { last: 12, len: 12 })
    ));
    assert!(View::new(&data, (usize::MAX, usize::MAX), (3, 4), (4, 1)).is_err());
    assert!(View::new(&data, (1, 0), (3, 0), (4, 1)).is_ok(), "inputs may repeat rows");
    for (rows, cols) in [((3, 0), (4, 1)), ((3, 2), (4, 1)), ((2, 2), (2, 2))] {
        let view = ViewMut::new(&mut out, (1, 0), rows, cols);
        assert!(matches!(view, Err(KernelError::Overlap { .. })), "{rows:?} {cols:?}");
    }
    let a = View::rows(&data, 4).unwrap();
    let target = ViewMut::rows(&mut out, 4).unwrap();
    let error = matmul(target, a, a).unwrap_err();
    assert!(matches!(error, KernelError::Shape { k_a: 4, k_b: 3, .. }));
    assert!(add_bias(&mut out, &[0.0; 5]).is_err());
    assert!(add_bias(&mut out, &[]).is_err());
    assert!(layer_norm_rows(&data, &[1.0; 4], &[1.0; 3], 0.0, &mut out).is_err());
    let inverse = &mut [0.0; 2];
    assert!(
        weigh_rows(crate::build::kind(&HeadKind::Softmax), &mut out, 3, 4, None, inverse).is_err()
    );
}
