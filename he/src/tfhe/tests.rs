#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use proptest::prelude::*;
use undertone_core::{
    Approximate, Axis, Bound, Compare, Form, Function, Mask, Multiply, Num, Role, Shape, Site,
    World,
};

use super::tensor::round_shift;
use super::*;

fn free() -> Bound {
    Bound::unknown(Site::outside(Role::Inner))
}

fn world(bits: u32, products: Products) -> Tfhe<Clear> {
    Tfhe::new(Arc::new(Clear::new(bits, [5, 9, 17][(bits / 2 - 2) as usize])), products)
}

fn reals(x: &Integers<i64>) -> Vec<f64> {
    x.cells().iter().map(|&c| c as f64 * f64::from(x.unit()).exp2()).collect()
}

fn inside(x: &Integers<i64>, bits: u32) {
    let (lo, hi) = x.interval();
    assert!(hi - lo < 1 << bits, "{lo}..={hi}");
    assert!(x.cells().iter().all(|c| (lo..=hi).contains(c)), "{lo}..={hi}: {:?}", x.cells());
}

#[test]
fn products_that_fit_are_exact_in_both_forms() {
    // (−4..=3)² has 64 pairs, and products from −12 to 16.
    let pairs: Vec<(i64, i64)> = (-4..=3).flat_map(|x| (-4..=3).map(move |y| (x, y))).collect();
    let shape = Shape::new(1, 8, 8);
    for (products, each) in [(Products::Tables, 1), (Products::Squares, 2)] {
        let mut w = world(6, products);
        let a = w.admit(shape, (-4, 3), 0, pairs.iter().map(|p| p.0).collect()).unwrap();
        let b = w.admit(shape, (-4, 3), -1, pairs.iter().map(|p| p.1).collect()).unwrap();
        let c = w.mul(a, &b, free()).unwrap();
        assert_eq!(c.unit(), -1);
        let wanted: Vec<i64> = pairs.iter().map(|(x, y)| x * y).collect();
        assert_eq!(c.cells(), wanted);
        assert_eq!(w.engine.bootstraps(), 64 * each);
    }
}

#[test]
fn a_table_refuses_more_values_than_it_has() {
    let w = world(4, Products::Tables);
    let wide = w.admit(Shape::new(1, 1, 1), (0, 16), 0, vec![0]).err().unwrap();
    assert_eq!(wide, TfheError::TooWide { op: "admit", steps: 17, most: 16 });
    let whole = w.admit(Shape::new(1, 1, 1), (i64::MIN, i64::MAX), 0, vec![0]);
    assert!(matches!(whole, Err(TfheError::TooWide { .. })));
    let lie = Clear::new(4, 5).look_up(vec![9], 0, &[0; 4]);
    assert!(lie.is_err(), "an input outside its declared interval");
}

/// The head of the module's example in plain loops, with every rounding written out.
#[test]
fn the_head_equals_plain_integer_loops() {
    let head = Head {
        tokens: 2,
        features: 2,
        exponent: 2,
        input: (-2, 1),
        unit: 0,
        row_sums: (16.0, 48.0),
    };
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..400u64 {
        let at = |k: u64| {
            (((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (2 * k + 20)) & 3) as i64 - 2
        };
        let [q, k, v] = [0, 4, 8].map(|from| (from..from + 4).map(at).collect::<Vec<_>>());
        let mut wanted = Vec::new();
        for i in 0..2 {
            let weight = |j: usize| {
                let s = q[2 * i] * k[2 * j] + q[2 * i + 1] * k[2 * j + 1];
                round_shift(s * s, 1).min(24)
            };
            let sum = weight(0) + weight(1);
            // 1/48 … 1/16 in steps of 2⁻⁹, row sums in steps of two.
            let reciprocal = (256.0 / sum.clamp(8, 24) as f64).round() as i64;
            for c in 0..2 {
                let square = |t: i64, shift: u32| round_shift(t * t, shift + 2);
                let part = |x: i64, y: i64, s| square(x + y, s) - square(x - y, s);
                let num: i64 = (0..2).map(|j| part(weight(j), v[2 * j + c], 2)).sum();
                // The sum in steps of 8, the result in halves.
                wanted.push(part(num, reciprocal, 5));
            }
        }
        let clear = Arc::new(Clear::new(6, 9));
        let x = head.admit(q, k, v).unwrap();
        let (least, most) = head.measure_row_sums(&x);
        if least < head.row_sums.0 || most > head.row_sums.1 {
            continue;
        }
        let exact = head.exact(&x);
        let out = head.run(&clear, Products::Tables, x).unwrap();
        inside(&out, 6);
        assert_eq!(out.unit(), -1);
        assert_eq!(out.cells(), wanted);
        for (found, exact) in reals(&out).iter().zip(exact) {
            assert!((found - exact).abs() < 1.5, "{found} {exact}");
        }
        seen.extend(wanted);
    }
    assert!(seen.len() > 4, "the results differ");
}

#[test]
fn the_ledger_counts_what_the_run_does() {
    for (bits, limit) in [(4, 5), (6, 9), (8, 17)] {
        for products in [Products::Tables, Products::Squares] {
            let head = Head {
                tokens: 4,
                features: 2,
                exponent: 4,
                input: (-2, 1),
                unit: -1,
                row_sums: (1.0, 8.0),
            };
            let clear = Arc::new(Clear::new(bits, limit));
            let some = |by: i64| (0..8).map(|i| (i * by + 1) % 4 - 2).collect();
            let x = head.admit(some(3), some(5), some(7)).unwrap();
            head.run(&clear, products, x).unwrap();
            let ledger = Arc::new(Ledger::new(bits, limit));
            head.run(&ledger, products, head.planned_inputs()).unwrap();
            assert_eq!(ledger.bootstraps(), clear.bootstraps());
        }
    }
}

#[test]
fn more_bits_come_nearer_to_the_exact_head() {
    let head = Head {
        tokens: 4,
        features: 2,
        exponent: 2,
        input: (-4, 3),
        unit: 0,
        row_sums: (100.0, 1200.0),
    };
    let mut errors = Vec::new();
    for (bits, limit) in [(4, 5), (6, 9), (8, 17)] {
        let clear = Arc::new(Clear::new(bits, limit));
        let q = vec![3, -4, -2, 3, 1, -4, -3, -3];
        let k = vec![2, -3, -4, 1, 3, 3, -2, -4];
        let v = vec![1, -2, 3, 0, -4, 2, -1, 3];
        let x = head.admit(q, k, v).unwrap();
        let exact = head.exact(&x);
        let out = reals(&head.run(&clear, Products::Tables, x).unwrap());
        let worst = out.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        errors.push(worst);
    }
    assert!(errors[0] > errors[1] && errors[1] > errors[2], "{errors:?}");
    // The last product is rounded to quarters, and errs by less than one and a half of them.
    assert!(errors[2] < 0.375, "{errors:?}");
}

#[test]
fn linear_layers_masks_and_heads() {
    let mut w = world(6, Products::Tables);
    let x = w.admit(Shape::new(1, 2, 2), (-3, 3), 0, vec![1, -3, 2, 3]).unwrap();
    let p = PublicIntegers { shape: Shape::new(1, 2, 2), unit: -1, values: vec![1, 2, -1, 3] };
    let y = w.matmul_public(&x, &p, free()).unwrap();
    inside(&y, 6);
    // (4, −7), (−1, 13) in halves; rounded to the unit that fits.
    let step = f64::from(y.unit()).exp2();
    for (found, wanted) in reals(&y).iter().zip([2.0, -3.5, -0.5, 6.5]) {
        assert!((found - wanted).abs() <= 2.0 * step, "{found} {wanted}");
    }
    let mask = Mask { causal: true, lengths: None };
    let copy = w.copy(&x).unwrap();
    let m = w.mask(copy, &mask, Num::int(-3)).unwrap();
    assert_eq!(m.cells(), [1, -3, 2, 3]);
    let copy = w.copy(&x).unwrap();
    let split = w.split_heads(copy, 2).unwrap();
    assert_eq!(split.cells(), [1, 2, -3, 3]);
    assert_eq!(w.merge_heads(split, 2).unwrap().cells(), x.cells());
    let s = w.sum(&x, Axis::Rows, free()).unwrap();
    assert_eq!(s.cells(), [3, 0]);
    let copy = w.copy(&x).unwrap();
    let o = w.offset(copy, Num::int(2), free()).unwrap();
    assert_eq!(o.cells(), [3, -1, 4, 5]);
    let copy = w.copy(&x).unwrap();
    let r = w.relu(copy, free()).unwrap();
    assert_eq!(r.cells(), [1, 0, 2, 3]);
    let third = w.scale(r, Num::of(1.0 / 3.0), free()).unwrap();
    assert!((reals(&third)[3] - 1.0).abs() < 0.1);
    let two = w.columns(&x, 1, 1).unwrap();
    let joined = w.concat(two, &x, free()).unwrap();
    assert_eq!(joined.cells(), [-3, 1, -3, 3, 2, 3]);
    let product = w.matmul(&x, &x, Form::Nt, free()).unwrap();
    assert_eq!(product.cells(), [10, -7, -7, 13]);
}

proptest! {
    #[test]
    fn argmax_and_max_of_rows(row in prop::collection::vec(-8i64..8, 1..9)) {
        let mut w = world(6, Products::Tables);
        let shape = Shape::new(1, 1, row.len());
        let x = w.admit(shape, (-8, 7), 0, row.clone()).unwrap();
        let index = w.argmax(&x).unwrap();
        inside(&index, 6);
        let largest = *row.iter().max().unwrap();
        prop_assert_eq!(index.cells()[0] as usize, row.iter().position(|&v| v == largest).unwrap());
        let max = w.max(&x).unwrap();
        prop_assert_eq!(max.cells(), &[largest]);
    }

    #[test]
    fn products_stay_near_and_inside(
        a in prop::collection::vec(-15i64..16, 4),
        b in prop::collection::vec(0i64..20, 4),
        squares in any::<bool>(),
    ) {
        let mut w = world(6, if squares { Products::Squares } else { Products::Tables });
        let x = w.admit(Shape::new(1, 2, 2), (-15, 15), 0, a.clone()).unwrap();
        let y = w.admit(Shape::new(1, 2, 2), (0, 19), 0, b.clone()).unwrap();
        let z = w.mul(x, &y, free()).unwrap();
        inside(&z, 6);
        let step = f64::from(z.unit()).exp2();
        for (found, (a, b)) in reals(&z).iter().zip(a.iter().zip(&b)) {
            prop_assert!((found - (a * b) as f64).abs() <= 1.5 * step);
        }
    }

    #[test]
    fn functions_are_rounded_to_their_table(x in prop::collection::vec(-31i64..32, 8)) {
        let mut w = world(6, Products::Tables);
        let a = w.admit(Shape::new(1, 1, 8), (-31, 31), -3, x.clone()).unwrap();
        let y = w.map(a, Function::Gelu, free(), free()).unwrap();
        inside(&y, 6);
        let step = f64::from(y.unit()).exp2();
        for (found, x) in reals(&y).iter().zip(&x) {
            let exact = crate::world::function_value(Function::Gelu, *x as f64 / 8.0);
            prop_assert!((found - exact).abs() <= 0.5 * step + 1e-12);
        }
    }
}
