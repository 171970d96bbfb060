#![allow(clippy::unwrap_used)]
extern crate std;
use super::*;
use crate::fixed::linear::dot;
use crate::fixed::math::LOG2_E_Q62;
use crate::fixed::testing::Gauss;
use proptest::prelude::*;
use std::vec::Vec;

const F: u32 = 11;

struct Case {
    n: usize,
    m: usize,
    d: usize,
    dv: usize,
    q: Vec<i16>,
    k: Vec<i16>,
    v: Vec<i16>,
    mask: Mask,
}

impl Case {
    fn gauss(n: usize, m: usize, d: usize, dv: usize, sigma: f64, seed: u64) -> Self {
        let mut g = Gauss::new(seed);
        let (q, k, v) =
            (g.i16s(n * d, sigma, 10), g.i16s(m * d, sigma, 10), g.i16s(m * dv, 1.0, 12));
        Self { n, m, d, dv, q, k, v, mask: Mask::default() }
    }

    fn head(&self, factor: f64, to: u32) -> Head<'_> {
        let factor = (factor * libm::exp2(62.0) / libm::sqrt(self.d as f64)) as i64;
        Head {
            q: Rows::new(&self.q, self.n, self.d, self.d).unwrap(),
            k: Rows::new(&self.k, self.m, self.d, self.d).unwrap(),
            v: Rows::new(&self.v, self.m, self.dv, self.dv).unwrap(),
            score: Requant::scaled(factor, 20, to),
            mask: self.mask,
        }
    }

    /// Plain attention in f64 on the same integers: weights from scores, divided by `den(Σw, keys)`.
    fn reference(
        &self,
        weight: impl Fn(f64, f64) -> f64,
        den: impl Fn(f64, f64) -> f64,
    ) -> Vec<f64> {
        let mut out = Vec::new();
        for i in 0..self.n {
            let keys = self.mask.keys.unwrap_or(self.m).min(self.m);
            let keys = if self.mask.causal { keys.min(self.m + i + 1 - self.n) } else { keys };
            let s: Vec<f64> = (0..keys)
                .map(|j| {
                    let dot: f64 = (0..self.d)
                        .map(|c| {
                            f64::from(self.q[i * self.d + c]) * f64::from(self.k[j * self.d + c])
                        })
                        .sum();
                    dot * libm::exp2(-20.0) / libm::sqrt(self.d as f64)
                })
                .collect();
            let max = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let w: Vec<f64> = s.iter().map(|&x| weight(x, max)).collect();
            let total = den(w.iter().sum(), keys as f64);
            for c in 0..self.dv {
                let num: f64 =
                    w.iter().enumerate().map(|(j, w)| w * f64::from(self.v[j * self.dv + c])).sum();
                out.push(num / total);
            }
        }
        out
    }

    fn softmax(&self) -> Vec<i16> {
        let mut scratch = std::vec![0; scratch_len(self.dv)];
        let mut out = std::vec![0i16; self.n * self.dv];
        let count = softmax::<F, _>(
            &self.head(core::f64::consts::LOG2_E, F),
            0,
            &mut scratch,
            &mut out,
            self.dv,
        )
        .unwrap();
        assert_eq!(count, Saturations::default());
        out
    }

    fn softmax_error(&self) -> f64 {
        let want = self.reference(|s, max| libm::exp(s - max), |sum, _| sum);
        worst(&self.softmax(), &want)
    }

    fn weighted(&self, weight: &impl Weight, to: u32, den: Denominator) -> Vec<i16> {
        let mut scratch = std::vec![0; scratch_len(self.dv)];
        let mut out = std::vec![0i16; self.n * self.dv];
        let count =
            weighted(&self.head(1.0, to), weight, den, 0, &mut scratch, &mut out, self.dv).unwrap();
        assert_eq!(count, Saturations::default());
        out
    }
}

/// Largest distance in units of V (2^-12).
fn worst(got: &[i16], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).abs()).fold(0.0, f64::max)
}

#[test]
fn softmax_is_close_to_f64() {
    // Half a unit is the rounding of the output; scores rounded to 2^-11 octaves move weights by 1.7e-4, of which the
    // quotient keeps a part, relative to |V| ≤ 4 · 4096 units.
    for (n, m, d, dv, sigma) in
        [(49, 49, 16, 16, 1.0), (5, 197, 64, 64, 1.0), (3, 1024, 32, 20, 2.0), (1, 1, 8, 8, 1.0)]
    {
        let e = Case::gauss(n, m, d, dv, sigma, 5).softmax_error();
        std::println!("softmax n={n} m={m} d={d}: {e:.2} units of 2^-12");
        assert!(e <= 1.5, "n={n} m={m}: {e}");
    }
}

#[test]
fn hostile_rows() {
    let cases: [(usize, i16, i16); 5] = [
        (4096, 0, 0),
        (4096, 300, 300),
        (1, i16::MAX, i16::MIN),
        (197, i16::MAX, i16::MAX),
        (197, i16::MIN, i16::MAX),
    ];
    for (m, q, k) in cases {
        let mut c = Case::gauss(2, m, 16, 4, 1.0, 9);
        (c.q, c.k) = (std::vec![q; 2 * 16], std::vec![k; m * 16]);
        // All scores are equal: the answer is the mean of V.
        let e = c.softmax_error();
        assert!(e <= 0.51, "{m} keys, {q}·{k}: {e}");
    }
    // Extreme values of V, weights that alternate between the extremes.
    let mut c = Case::gauss(3, 4096, 16, 4, 3.0, 10);
    c.v.iter_mut().enumerate().for_each(|(i, v)| *v = if i % 3 == 0 { i16::MIN } else { i16::MAX });
    assert!(c.softmax_error() <= 8.0);
    // A single key far above all others.
    let mut c = Case::gauss(1, 300, 16, 4, 0.01, 11);
    c.q = std::vec![20_000; 16];
    c.k[200 * 16..201 * 16].fill(20_000);
    let want: Vec<f64> = c.v[200 * 4..201 * 4].iter().map(|&v| v.into()).collect();
    assert_eq!(worst(&c.softmax(), &want), 0.0);
}

#[test]
fn polynomial_kinds_are_close_to_f64() {
    let c = Case::gauss(9, 197, 64, 24, 1.0, 6);
    let formats = Formats { score: 13, weight: 18 };
    let eps = |e: f64| Denominator::Sum { eps: (e * 262_144.0) as u64 };
    let sum = |e: f64| move |s: f64, _: f64| s + (e * 262_144.0).trunc() / 262_144.0;
    let check = |name: &str, got: Vec<i16>, want: Vec<f64>| {
        let e = worst(&got, &want);
        std::println!("{name}: {e:.2} units of 2^-12");
        assert!(e <= 1.5, "{name}: {e}");
    };
    // Powers of scores up to 4: the format gives up fraction bits for range.
    for (half, weight) in [(1u32, 18u32), (2, 14), (3, 10)] {
        let formats = Formats { score: 13, weight };
        let w = Power { half, offset: 0, rectify: false, formats };
        let (p, unit) = (2.0 * f64::from(half), libm::exp2(-f64::from(weight)));
        let want = c.reference(|s, _| libm::pow(s.abs(), p), |s, _| s + 4.0 * unit);
        check("power", c.weighted(&w, 13, Denominator::Sum { eps: 4 }), want);
    }
    let two_quad = Power {
        half: 1,
        offset: 5 << 12,
        rectify: false,
        formats: Formats { score: 12, weight: 17 },
    };
    check(
        "2Quad",
        c.weighted(&two_quad, 12, Denominator::Sum { eps: 0 }),
        c.reference(|s, _| (s + 5.0) * (s + 5.0), |s, _| s),
    );
    let relu = Linear { rectify: true, formats };
    check(
        "ReLU-softmax",
        c.weighted(&relu, 13, eps(1e-5)),
        c.reference(|s, _| s.max(0.0), sum(1e-5)),
    );
    let count = Denominator::Count { weight_frac: 18 };
    let scaling = Linear { rectify: false, formats };
    check("scaling", c.weighted(&scaling, 13, count), c.reference(|s, _| s, |_, n| n));
    let relu2 = Power { half: 1, offset: 0, rectify: true, formats };
    check(
        "ReLU²",
        c.weighted(&relu2, 13, count),
        c.reference(|s, _| s.max(0.0) * s.max(0.0), |_, n| n),
    );
    check(
        "uniform",
        c.weighted(&Uniform { weight: 18 }, 13, count),
        c.reference(|_, _| 1.0, |_, n| n),
    );
}

#[test]
fn masks_hide_keys() {
    for mask in [
        Mask { causal: true, keys: None },
        Mask { causal: false, keys: Some(17) },
        Mask { causal: true, keys: Some(17) },
        Mask { causal: false, keys: Some(usize::MAX) },
    ] {
        for n in [30, 11] {
            let mut c = Case::gauss(n, 30, 16, 8, 1.0, 12);
            c.mask = mask;
            assert!(c.softmax_error() <= 1.5, "{mask:?}");
            let w = Linear { rectify: true, formats: Formats { score: 13, weight: 18 } };
            let got = c.weighted(&w, 13, Denominator::Sum { eps: 1 << 12 });
            let want = c.reference(|s, _| s.max(0.0), |s, _| s + libm::exp2(-6.0));
            assert!(worst(&got, &want) <= 1.5, "{mask:?}");
        }
    }
}

#[test]
fn bad_shapes_and_empty_rows_are_errors() {
    let mut c = Case::gauss(3, 4, 8, 8, 1.0, 1);
    let (mut scratch, mut out) = ([0i64; 8], [0i16; 24]);
    c.mask.keys = Some(0);
    let none = softmax::<F, _>(&c.head(1.0, F), 0, &mut scratch, &mut out, 8);
    assert_eq!(none, Err(KernelError::EmptyRow { kernel: "attention::softmax", row: 0 }));
    c.mask = Mask { causal: true, keys: None };
    let mut more_queries = Case::gauss(5, 4, 8, 8, 1.0, 1);
    more_queries.mask = c.mask;
    let mut out5 = [0i16; 40];
    let none = softmax::<F, _>(&more_queries.head(1.0, F), 0, &mut scratch, &mut out5, 8);
    assert_eq!(none, Err(KernelError::EmptyRow { kernel: "attention::softmax", row: 0 }));
    let short = softmax::<F, _>(&c.head(1.0, F), 0, &mut scratch[..7], &mut out, 8);
    assert!(matches!(
        short,
        Err(KernelError::Length { operand: "scratch", expected: 8, got: 7, .. })
    ));
    assert!(softmax::<F, _>(&c.head(1.0, F), 0, &mut scratch, &mut out[..23], 8).is_err());
    assert!(softmax::<F, _>(&c.head(1.0, F), 0, &mut scratch, &mut out, 7).is_err());
    assert!(Rows::new(&c.q, 3, 8, 7).is_err());
    assert!(Rows::new(&c.q, usize::MAX, 8, 8).is_err());
    assert!(Rows::new(&c.q, 4, 8, 8).is_err());
    // ReLU of nothing but negative scores, without eps.
    (c.q, c.k) = (std::vec![100; 24], std::vec![-100; 32]);
    let relu = Linear { rectify: true, formats: Formats { score: 13, weight: 18 } };
    let dead = weighted(
        &c.head(1.0, 13),
        &relu,
        Denominator::Sum { eps: 0 },
        0,
        &mut scratch,
        &mut out,
        8,
    );
    assert!(matches!(dead, Err(KernelError::Domain { got: 0, .. })));
    let alive = weighted(
        &c.head(1.0, 13),
        &relu,
        Denominator::Sum { eps: 1 },
        0,
        &mut scratch,
        &mut out,
        8,
    );
    assert!(alive.is_ok() && out == [0; 24]);
}

#[test]
fn heads_inside_a_wider_tensor() {
    // Two heads of width 8 side by side in rows of 16 equal the same heads apart.
    let apart = [Case::gauss(6, 6, 8, 8, 1.0, 2), Case::gauss(6, 6, 8, 8, 1.0, 3)];
    let wide = |get: fn(&Case) -> &Vec<i16>| -> Vec<i16> {
        (0..6)
            .flat_map(|i| {
                apart
                    .iter()
                    .flat_map(move |c| get(c)[i * 8..i * 8 + 8].iter().copied())
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let (q, k, v) = (wide(|c| &c.q), wide(|c| &c.k), wide(|c| &c.v));
    let mut out = [0i16; 96];
    let mut scratch = [0i64; 8];
    for h in 0..2 {
        let rows = |x: &'_ [i16]| -> Vec<i16> { x[h * 8..].to_vec() };
        let (q, k, v) = (rows(&q), rows(&k), rows(&v));
        let head = Head {
            q: Rows::new(&q, 6, 8, 16).unwrap(),
            k: Rows::new(&k, 6, 8, 16).unwrap(),
            v: Rows::new(&v, 6, 8, 16).unwrap(),
            ..apart[h].head(core::f64::consts::LOG2_E, F)
        };
        softmax::<F, _>(&head, 0, &mut scratch, &mut out[h * 8..], 16).unwrap();
    }
    for (h, c) in apart.iter().enumerate() {
        let alone = c.softmax();
        for i in 0..6 {
            assert_eq!(out[i * 16 + h * 8..][..8], alone[i * 8..][..8]);
        }
    }
}

#[test]
fn powers_match_f64_on_every_16_bit_score() {
    for (half, score, weight) in [(1, 12, 18), (2, 12, 16), (4, 13, 14), (3, 10, 12)] {
        let w = Power { half, offset: 0, rectify: false, formats: Formats { score, weight } };
        let unit = libm::exp2(f64::from(weight));
        for s in i16::MIN..=i16::MAX {
            let exact =
                libm::pow(f64::from(s) * libm::exp2(-f64::from(score)), 2.0 * f64::from(half))
                    * unit;
            let (got, clamped) = w.weight(s.into());
            let want = exact.min(f64::from(MAX_WEIGHT));
            assert!(
                (f64::from(got) - want).abs() <= 0.6 + want * 2e-5,
                "s={s} half={half}: {got} {want}"
            );
            assert!(
                clamped == (exact >= 16_777_215.5) || (exact - 16_777_216.0).abs() < 400.0,
                "s={s} {exact}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn order_of_keys_does_not_matter(seed: u64, by in 1usize..40) {
        let a = Case::gauss(2, 40, 8, 5, 2.0, seed);
        let mut b = Case { q: a.q.clone(), k: a.k.clone(), v: a.v.clone(), ..Case::gauss(2, 40, 8, 5, 2.0, seed) };
        b.k.rotate_left(by * 8);
        b.v.rotate_left(by * 5);
        for (x, y) in a.softmax().iter().zip(b.softmax()) {
            prop_assert!(x.abs_diff(y) <= 1);
        }
        // Polynomial weights need no maximum: exactly equal.
        let w = Power { half: 1, offset: 0, rectify: false, formats: Formats { score: 10, weight: 13 } };
        let den = Denominator::Sum { eps: 8 };
        prop_assert_eq!(a.weighted(&w, 10, den), b.weighted(&w, 10, den));
    }

    #[test]
    fn blocks_equal_single_keys(seed: u64, m in 1usize..60) {
        // The definition: RowSum::push for each key in turn, numerators shifted alongside.
        let c = Case::gauss(1, m, 8, 3, 3.0, seed);
        let head = c.head(core::f64::consts::LOG2_E, F);
        let mut row = RowSum::<F>::EMPTY;
        let mut acc = [0i64; 3];
        for j in 0..m {
            let s = head.score(dot(&c.q, head.k.row(j)), &mut 0);
            let by = row.raise(row.max_with(s));
            let w = i64::from(row.weight(s));
            row.sum += w as u64;
            for (a, &v) in acc.iter_mut().zip(&c.v[j * 3..]) {
                *a = (*a >> by) + w * i64::from(v);
            }
        }
        let mut want = [0i16; 3];
        divide(&acc, row.normaliser().unwrap().recip(), 0, &mut want);
        prop_assert_eq!(c.softmax(), want);
    }
}

#[test]
fn constants_agree() {
    assert!((LOG2_E_Q62 as f64 / libm::exp2(62.0) - core::f64::consts::LOG2_E).abs() < 1e-15);
}
