//! Every attention kind against a plain f64 reference, and the laws that they obey.

use undertone_core::attention::{Context, Heads, Kind, Variant};
use undertone_core::{
    Approximate, Full, Mask, Menu, Multiply, Num, Role, Shape, Site, Uncalibrated,
};
use undertone_core::{Bound, Domains};
use undertone_model::domains::Calibration;
use undertone_model::float::Float;
use undertone_model::host::Host;

use crate::{Random, assert_close};

/// The inputs of one call in the clear; queries already scaled.
#[derive(Clone, Debug)]
pub struct Case {
    /// Shape of the queries: (heads, queries, width).
    pub q_shape: Shape,
    /// Shape of keys and values.
    pub k_shape: Shape,
    /// Queries.
    pub q: Vec<f32>,
    /// Keys.
    pub k: Vec<f32>,
    /// Values.
    pub v: Vec<f32>,
}

impl Case {
    /// A random case.
    pub fn random(r: &mut Random, heads: usize, n: usize, d: usize, spread: f64) -> Self {
        let shape = Shape::new(heads, n, d);
        let mut tensor = |spread: f64| r.tensor(shape, -spread, spread);
        let (q, k, v) = (tensor(spread), tensor(spread), tensor(1.0));
        Self { q_shape: shape, k_shape: shape, q, k, v }
    }
}

/// The kinds of the core with usual constants.
#[must_use]
pub fn all_kinds() -> Vec<Kind> {
    let eps = Num::of(1e-3);
    let power = |p, variant| Kind::Power { p, variant };
    vec![
        Kind::Softmax,
        power(2, Variant::Lipschitz { eps }),
        power(4, Variant::Lipschitz { eps }),
        power(6, Variant::Lipschitz { eps }),
        power(2, Variant::Plain),
        power(4, Variant::Stable { delta: Num::of(1e-6) }),
        power(2, Variant::LengthAgnostic { eps }),
        Kind::ReluSoftmax { eps: Num::of(1e-5) },
        Kind::Scaling,
        Kind::TwoQuad { c: Num::ZERO, eps: Num::of(1e-5) },
        Kind::TwoQuad { c: Num::int(5), eps: Num::of(1e-5) },
        Kind::ReluSquared,
        Kind::Uniform,
    ]
}

/// The weight of a score and the denominator of a row, by the formulas of the papers.
fn row_weights(kind: &Kind, scores: &[f64]) -> (Vec<f64>, f64) {
    let n = scores.len() as f64;
    let with_sum = |weights: Vec<f64>, eps: f64| {
        let sum = weights.iter().sum::<f64>() + eps;
        (weights, sum)
    };
    let map = |f: &dyn Fn(f64) -> f64| scores.iter().map(|&s| f(s)).collect::<Vec<f64>>();
    match *kind {
        Kind::Softmax => {
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            with_sum(map(&|s| (s - max).exp()), 0.0)
        }
        Kind::Power { p, variant } => {
            let weights = map(&|s| s.powi(i32::from(p)));
            match variant {
                Variant::Plain | Variant::Stable { .. } => with_sum(weights, 0.0),
                Variant::Lipschitz { eps } => with_sum(weights, eps.to_f64()),
                // Numerator and denominator are both means.
                Variant::LengthAgnostic { eps } => with_sum(weights, n * eps.to_f64()),
            }
        }
        Kind::ReluSoftmax { eps } => with_sum(map(&|s| s.max(0.0)), eps.to_f64()),
        Kind::Scaling => (scores.to_vec(), n),
        Kind::TwoQuad { c, eps } => with_sum(map(&|s| (s + c.to_f64()).powi(2)), eps.to_f64()),
        Kind::ReluSquared => (map(&|s| s.max(0.0).powi(2)), n),
        Kind::Uniform => (vec![1.0; scores.len()], n),
        _ => panic!("no reference for {}", kind.name()),
    }
}

/// Attention in f64 by definition: scores, weights, weighted sum, division.
#[must_use]
pub fn reference(kind: &Kind, case: &Case, mask: &Mask<'_>) -> Vec<f64> {
    let (h, n, d) = (case.q_shape.batch, case.q_shape.rows, case.q_shape.cols);
    let keys = case.k_shape.rows;
    let scores_shape = Shape::new(h, n, keys);
    let x = |values: &[f32], head: usize, rows: usize, row: usize, col: usize| {
        f64::from(values[(head * rows + row) * d + col])
    };
    let mut out = Vec::with_capacity(h * n * d);
    for head in 0..h {
        for i in 0..n {
            let visible = mask.visible(scores_shape, head, i);
            let scores: Vec<f64> = (0..visible)
                .map(|j| {
                    (0..d).map(|c| x(&case.q, head, n, i, c) * x(&case.k, head, keys, j, c)).sum()
                })
                .collect();
            let (weights, den) = row_weights(kind, &scores);
            for c in 0..d {
                let num: f64 =
                    weights.iter().enumerate().map(|(j, w)| w * x(&case.v, head, keys, j, c)).sum();
                out.push(num / den);
            }
        }
    }
    out
}

/// The ranges that a call of this kind passes through.
fn calibrate(kind: &Kind, case: &Case, mask: &Mask<'_>) -> Calibration {
    let mut w = Float::recording();
    attend::<_, Full>(&mut w, kind, case, mask, &Uncalibrated);
    w.recorded().unwrap().clone()
}

/// One call in a world, revealed.
pub fn attend<W: Host + Multiply + Approximate, M: Menu<W>>(
    w: &mut W,
    kind: &Kind,
    case: &Case,
    mask: &Mask<'_>,
    domains: &dyn Domains,
) -> Vec<f32> {
    let out = try_attend::<W, M>(w, kind, case, mask, domains);
    out.unwrap_or_else(|e| panic!("{}: {e:?}", kind.name()))
}

/// As [`attend`], for calls that a world may refuse.
///
/// # Errors
/// The world's.
pub fn try_attend<W: Host + Multiply + Approximate, M: Menu<W>>(
    w: &mut W,
    kind: &Kind,
    case: &Case,
    mask: &Mask<'_>,
    domains: &dyn Domains,
) -> Result<Vec<f32>, W::Error> {
    let site = |role| Site::layer(0, role);
    let bound = |role, values: &[f32]| {
        let wide: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
        Bound { site: site(role), ..crate::bound_of(&wide) }
    };
    let heads = Heads {
        q: w.secret(case.q_shape, &case.q, bound(Role::Query, &case.q))?,
        k: w.secret(case.k_shape, &case.k, bound(Role::Key, &case.k))?,
        v: w.secret(case.k_shape, &case.v, bound(Role::Value, &case.v))?,
    };
    let at = Context { mask: *mask, site: site(Role::Context), domains };
    let out = M::attend(w, kind, heads, &at)?;
    w.reveal(&out)
}

/// Every kind that the menu offers, masked and not, against the reference.
pub fn kinds<W: Host + Multiply + Approximate, M: Menu<W>>(
    make: &mut dyn FnMut() -> W,
    tolerance: f64,
) {
    let mut offered = 0;
    for kind in all_kinds() {
        if M::check(&kind).is_err() {
            continue;
        }
        offered += 1;
        let mut r = Random::new(11);
        for (heads, n, d) in [(1, 1, 4), (2, 7, 4), (3, 16, 8)] {
            let case = Case::random(&mut r, heads, n, d, 1.5);
            let mut masks = vec![Mask::NONE];
            if kind != Kind::Uniform && heads == 2 {
                masks.push(Mask { causal: true, lengths: None });
                masks.push(Mask { causal: false, lengths: Some(&[5, 7]) });
            }
            for mask in masks {
                let want = reference(&kind, &case, &mask);
                let domains = calibrate(&kind, &case, &mask);
                let got = attend::<W, M>(&mut make(), &kind, &case, &mask, &domains);
                let what = format!("{kind:?}, {heads} heads of {n}×{d}, {mask:?}");
                assert_close(&what, &got, &want, tolerance);
            }
        }
    }
    assert!(offered >= 4, "a menu offers at least the polynomial kinds");
}

/// Laws: keys may be permuted; rows of weights sum to one (values all one give one); Power-Softmax
/// does not see a positive factor of the scores.
pub fn laws<W: Host + Multiply + Approximate, M: Menu<W>>(
    make: &mut dyn FnMut() -> W,
    tolerance: f64,
) {
    let mut r = Random::new(12);
    let case = Case::random(&mut r, 2, 9, 4, 1.5);
    for kind in all_kinds() {
        if M::check(&kind).is_err() {
            continue;
        }
        let domains = calibrate(&kind, &case, &Mask::NONE);
        let base = attend::<W, M>(&mut make(), &kind, &case, &Mask::NONE, &domains);
        let wide: Vec<f64> = base.iter().map(|&x| f64::from(x)).collect();

        let mut permuted = case.clone();
        for values in [&mut permuted.k, &mut permuted.v] {
            for head in values.chunks_exact_mut(9 * 4) {
                head.rotate_left(3 * 4);
            }
        }
        let got = attend::<W, M>(&mut make(), &kind, &permuted, &Mask::NONE, &domains);
        assert_close(&format!("{kind:?} of permuted keys"), &got, &wide, 2.0 * tolerance);

        let normalised = matches!(
            kind,
            Kind::Softmax | Kind::Uniform | Kind::Power { variant: Variant::Plain, .. }
        );
        if normalised {
            let mut ones = case.clone();
            ones.v.fill(1.0);
            let domains = calibrate(&kind, &ones, &Mask::NONE);
            let got = attend::<W, M>(&mut make(), &kind, &ones, &Mask::NONE, &domains);
            assert_close(&format!("{kind:?} sums to one"), &got, &vec![1.0; got.len()], tolerance);
        }
        if let Kind::Power { variant: Variant::Plain, .. } = kind {
            let mut scaled = case.clone();
            scaled.q.iter_mut().for_each(|x| *x *= 2.0);
            let domains = calibrate(&kind, &scaled, &Mask::NONE);
            let got = attend::<W, M>(&mut make(), &kind, &scaled, &Mask::NONE, &domains);
            assert_close(&format!("{kind:?} of scaled scores"), &got, &wide, 2.0 * tolerance);
        }
    }
}
