//! Laws of whole models: the world computes the reference's function, whatever order heads have.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use undertone_core::{Fault, Full, Mask, Menu};
use undertone_model::fixed::FixedModel;
use undertone_model::float::{Float, Fused};
use undertone_model::weights::{EncoderWeights, Linear};
use undertone_model::{Model, reference};
use undertone_tests::models::{self, Example};
use undertone_tests::{Random, assert_close};

fn run<M: Menu<Float>>(model: &Model, example: &Example) -> Vec<f32> {
    let mut w = Float::new();
    let encoder = model.prepare::<_, M>(&mut w).unwrap();
    let rows = model.rows(&example.input()).unwrap();
    let shape = model.input_shape(1, model.tokens());
    model.run::<_, M>(&mut w, &encoder, shape, &rows, &Mask::NONE).unwrap()
}

/// Numbers 0…n in a random order.
fn order(r: &mut Random, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (r.next() % (i as u64 + 1)) as usize);
    }
    order
}

/// Blocks of `len` values reordered.
fn blocks<T: Clone>(values: &[T], len: usize, order: &[usize]) -> Vec<T> {
    order.iter().flat_map(|&i| values[i * len..(i + 1) * len].to_vec()).collect()
}

/// The same model with the heads of every layer in another order: rows of the projections,
/// columns of the output projection, and kinds.
fn with_heads_in_another_order(model: &Model, r: &mut Random) -> Model {
    let mut config = model.config.clone();
    let mut weights: EncoderWeights = model.weights.clone();
    let d = config.head_width();
    for (layer, weights) in config.layers.iter_mut().zip(&mut weights.layers) {
        let order = order(r, layer.heads.len());
        layer.heads = blocks(&layer.heads, 1, &order);
        let rows = |l: &mut Linear| {
            l.weight = blocks(&l.weight, d * l.inputs, &order);
            l.bias = l.bias.as_ref().map(|b| blocks(b, d, &order));
        };
        [&mut weights.query, &mut weights.key, &mut weights.value].into_iter().for_each(rows);
        let out = &mut weights.output;
        out.weight = out.weight.chunks(out.inputs).flat_map(|row| blocks(row, d, &order)).collect();
    }
    Model { config, weights, calibration: model.calibration.clone() }
}

/// A random model whose kinds stand in random order among its heads.
fn random_model(seed: u64) -> (Value, Model, Example) {
    let mut r = Random::new(seed);
    let json = models::random_config(&mut r);
    let model = Model::random(models::parse(&json), r.next()).unwrap();
    let example = Example::random(&mut r, &model.config);
    (json, model, example)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn worlds_compute_the_reference(seed: u64) {
        let (json, model, example) = random_model(seed);
        let want = reference::forward(&model.config, &model.weights, example.input()).unwrap();
        let want = want.result.data;
        // Random p = 4 heads and norms of random rows amplify f32 rounding a little.
        assert_close(&format!("fused, {json}"), &run::<Fused>(&model, &example), &want, 1e-4);
        assert_close(&format!("composed, {json}"), &run::<Full>(&model, &example), &want, 1e-4);
    }

    #[test]
    fn the_order_of_heads_does_not_matter(seed: u64) {
        let (json, model, example) = random_model(seed);
        let other = with_heads_in_another_order(&model, &mut Random::new(!seed));
        let want = reference::forward(&model.config, &model.weights, example.input()).unwrap();
        let got = reference::forward(&other.config, &other.weights, example.input()).unwrap();
        for (a, b) in got.result.data.iter().zip(&want.result.data) {
            prop_assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{a} and {b}, {json}");
        }
        let want: Vec<f64> = run::<Fused>(&model, &example).into_iter().map(f64::from).collect();
        assert_close(&json.to_string(), &run::<Fused>(&other, &example), &want, 1e-4);
    }
}

/// Kinds that alternate, so that loading has to gather them, and every kind at once.
#[test]
fn scattered_kinds_compute_the_reference() {
    let kinds = models::head_kinds();
    let take = |numbers: &[usize]| numbers.iter().map(|&i| kinds[i].clone()).collect::<Vec<_>>();
    for heads in [take(&[0, 4, 0, 5, 4, 0, 1, 5]), take(&[8, 1, 0, 7, 6, 3, 4, 5])] {
        let config = json!({
            "model_type": "vit", "image_size": 12, "patch_size": 3, "num_channels": 1,
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 8,
            "intermediate_size": 48, "id2label": {"0": "a", "1": "b"},
            "undertone": {"version": 1, "layers": [{"heads": heads}, {"heads": heads}]}
        });
        let model = Model::random(models::parse(&config), 5).unwrap();
        let example = Example::random(&mut Random::new(6), &model.config);
        let want = reference::forward(&model.config, &model.weights, example.input()).unwrap();
        for got in [run::<Fused>(&model, &example), run::<Full>(&model, &example)] {
            assert_close("scattered kinds", &got, &want.result.data, 2e-5);
        }
    }
}

/// The 16-bit world on random models of every kind, calibrated on the very input: nothing may
/// saturate, half of the models stay within 1e-3 of the magnitude of the result (1.1e-4 to 4.5e-4
/// measured), and none is off by more than 1 % (0.22 % measured). Squared ReLU is divided by the
/// number of keys only: where neither norms nor its own denominator hold magnitudes together, its
/// cubic growth amplifies rounding, to a median of 1e-3 and 7 % at most, and its limits are wider.
#[test]
fn fixed_point_follows_the_reference_for_every_kind() {
    for kind in models::head_kinds() {
        for (norm, activation) in [("layer_norm", "gelu"), ("affine", "quadratic")] {
            let layer = json!({"heads": vec![&kind; 4], "norm": norm, "activation": activation});
            let config = models::parse(&json!({
                "model_type": "vit", "image_size": 12, "patch_size": 3, "num_channels": 1,
                "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": 48, "id2label": {"0": "a", "1": "b"},
                "undertone": {"version": 1, "layers": [layer, layer]}
            }));
            let mut errors: Vec<f64> = (0..40)
                .map(|seed| fixed_point_error(Model::random(config.clone(), seed).unwrap(), seed))
                .collect();
            errors.sort_by(f64::total_cmp);
            let (median, most) = (errors[20], errors[39]);
            println!("{kind}, {norm}, {activation}: median {median:.1e}, most {most:.1e}");
            let unheld = kind["kind"] == "relu_squared" && norm == "affine";
            let (limit, limit_most) = if unheld { (3e-3, 0.1) } else { (1e-3, 1e-2) };
            assert!(median <= limit, "{kind}, {norm}, {activation}: median {median:e}");
            assert!(most <= limit_most, "{kind}, {norm}, {activation}: most {most:e}");
        }
    }
}

/// The greatest error of one run, relative to the greatest result (or to one).
fn fixed_point_error(mut model: Model, seed: u64) -> f64 {
    let example = Example::random(&mut Random::new(!seed), &model.config);
    let want = reference::forward(&model.config, &model.weights, example.input()).unwrap();
    let shape = model.input_shape(1, model.tokens());
    let rows = model.rows(&example.input()).unwrap();
    models::calibrate(&mut model, shape, &rows);
    let run = FixedModel::new(&model, shape).unwrap().run(&rows).unwrap();
    assert_eq!(run.saturated, 0, "seed {seed}, {:?}", model.config.layers[0].heads[0]);
    let scale = want.result.data.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    let errors = run.output.iter().zip(&want.result.data).map(|(a, b)| (f64::from(*a) - b).abs());
    errors.fold(0.0, f64::max) / scale
}

/// 0/0 is no value in any range: the strict world and calibration refuse it, and name the site.
#[test]
fn nan_is_outside_every_range() {
    let config = json!({
        "model_type": "bert", "vocab_size": 4, "max_position_embeddings": 3, "hidden_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4,
        "undertone": {"version": 1, "layers": [{"heads": [{"kind": "power", "p": 2, "eps": 0}]}]}
    });
    let mut model = Model::random(models::parse(&config), 1).unwrap();
    let query = &mut model.weights.layers[0].query;
    query.weight.fill(0.0);
    query.bias = None;
    let rows = model.rows(&Example::Tokens(vec![1, 2, 3]).input()).unwrap();
    for mut w in [Float::strict(), Float::recording()] {
        let encoder = model.prepare::<_, Full>(&mut w).unwrap();
        let shape = model.input_shape(1, 3);
        let refused = model.run::<_, Full>(&mut w, &encoder, shape, &rows, &Mask::NONE);
        let Err(Fault::OutOfDomain { site }) = refused else { panic!("{refused:?}") };
        assert_eq!(site.layer, 0);
    }
}
