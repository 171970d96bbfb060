//! A whole model on encrypted images: against the same polynomials in plain arithmetic, against
//! its own plan, and against everything that must be refused.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use undertone_core::{Full, Mask};
use undertone_he::ckks::{
    Artefact as _, Automorphism, CkksError, Counts, Evaluator, Params, SecretKey,
};
use undertone_he::world::{Accuracy, HeError, Planned};
use undertone_he::{Classifier, ClassifierError};
use undertone_model::Model;
use undertone_model::config::Config;
use undertone_model::float::Float;
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;

fn picture(k: usize) -> Vec<f32> {
    (0..64).map(|i| ((i * (2 * k + 3) + k) % 17) as f32 / 8.0 - 1.0).collect()
}

/// A random model of four tokens and two heads, its ranges calibrated on four images.
fn tiny(layers: usize, change: impl Fn(&mut String)) -> (Model, Vec<Vec<f32>>) {
    let head = r#"{"kind": "power", "p": 2, "eps": 0.001}"#;
    let layer =
        format!(r#"{{"heads": [{head}, {head}], "norm": "affine", "activation": "quadratic"}}"#);
    let mut json = format!(
        r#"{{"model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1,
            "hidden_size": 16, "num_hidden_layers": {layers}, "num_attention_heads": 2,
            "intermediate_size": 32, "id2label": {{"0": "a", "1": "b", "2": "c"}},
            "undertone": {{"version": 1, "class_token": false, "pooling": "mean",
                "norm_position": "pre", "layers": [{}]}}}}"#,
        vec![layer; layers].join(", ")
    );
    change(&mut json);
    let mut model = Model::random(Config::parse(json.as_bytes(), None).unwrap(), 7).unwrap();
    let images: Vec<Vec<f32>> =
        (0..4).map(|k| model.rows(&EncoderInput::Image(&picture(k))).unwrap()).collect();
    let mut w = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut w).unwrap();
    let shape = model.input_shape(images.len(), 4);
    model.run::<_, Full>(&mut w, &encoder, shape, &images.concat(), &Mask::NONE).unwrap();
    model.calibration = w.recorded().unwrap().clone();
    let (_, domains) = model.calibration.to_config(layers);
    for (layer, domains) in model.config.layers.iter_mut().zip(domains) {
        layer.domains = domains;
    }
    (model, images)
}

/// Five levels for the reciprocal, whatever the random model's ranges.
fn accuracy(model: &Model) -> Accuracy {
    let ratio = |l: &undertone_model::config::Layer| {
        let (lo, hi) = l.domains["denominator"];
        (hi + 0.001) / (lo + 0.001) / 60.0
    };
    let below = model.config.layers.iter().map(ratio).fold(1.0, f64::max);
    Accuracy { tolerance: 0.02, below, above: 1.2 }
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

struct Parties {
    classifier: Classifier,
    secret: SecretKey,
    server: Arc<Evaluator>,
}

fn parties(classifier: Classifier) -> Parties {
    let secret = SecretKey::generate(classifier.context()).unwrap();
    let keys = Arc::new(classifier.evaluation_keys(&secret).unwrap());
    let server = Arc::new(Evaluator::new(classifier.context().clone(), keys).unwrap());
    Parties { classifier, secret, server }
}

fn with(model: Model, params: Params) -> Result<Classifier, ClassifierError> {
    let accuracy = accuracy(&model);
    Classifier::with(model, params, accuracy).map_err(|(_, e)| e)
}

fn phases_add_up(plan: &Planned, layers: usize) {
    let names: Vec<&str> = plan.phases.iter().map(|p| p.name.as_str()).collect();
    let halves = (0..layers).flat_map(|l| ["attention", "mlp"].map(|half| (l, half)));
    let halves = halves.map(|(l, half)| format!("layer {l} {half}"));
    let wanted: Vec<String> =
        ["input".to_owned()].into_iter().chain(halves).chain(["head".to_owned()]).collect();
    assert_eq!(names, wanted);
    let mut sum = Counts::default();
    plan.phases.iter().for_each(|p| sum += p.counts);
    assert_eq!(sum, plan.counts);
    assert_eq!(plan.phases.iter().map(|p| p.levels).sum::<usize>(), plan.levels);
}

fn runs(layers: usize, params: Params) {
    let (model, images) = tiny(layers, |_| {});
    let Parties { classifier, secret, server } = parties(with(model, params).unwrap());
    let ctx = classifier.context();
    phases_add_up(classifier.plan(), layers);
    let sent = secret.encrypt(&classifier.pack(&images[0]).unwrap()).unwrap();
    assert_eq!(sent.to_bytes(ctx).len(), classifier.image_bytes());
    assert_eq!(server.keys().to_bytes(ctx).len(), classifier.sent_key_bytes());
    assert_eq!(server.keys().size_bytes(ctx), classifier.key_bytes());
    let mut units = 0.0;
    for rows in &images {
        let image = secret.encrypt(&classifier.pack(rows).unwrap()).unwrap().expand(ctx).unwrap();
        let before = ctx.counters().snapshot();
        let out = classifier.run(&server, &image).unwrap();
        assert_eq!(ctx.counters().snapshot() - before, classifier.plan().counts);
        assert_eq!(image.level() - out.level(), classifier.plan().levels);
        assert_eq!(out.to_bytes(ctx).len(), classifier.answer_bytes());
        let found = classifier.unpack(&secret.decrypt_real(&out).unwrap());
        let polynomial = classifier.polynomial(rows).unwrap();
        let (clear, deviations) = classifier.clear(rows).unwrap();
        // The world gets query weights already times 8^-1/2, rounded to f32.
        assert!(worst(&clear, &polynomial) < 1e-6, "{clear:?} {polynomial:?}");
        assert!(worst(&found, &polynomial) < 1e-4, "{found:?} {polynomial:?}");
        assert_eq!(found.len(), 3);
        let square = |((f, c), d): ((&f64, &f64), &f64)| ((f - c) / d).powi(2);
        units += found.iter().zip(&clear).zip(&deviations).map(square).sum::<f64>();
    }
    let off = (units / (3 * images.len()) as f64).sqrt().log2();
    assert!(off.abs() < 2.0, "measured error is {off:+.2} bits from predicted");
}

#[test]
fn one_layer_equals_its_polynomials_and_its_plan() {
    runs(1, Params::TEST_N12_DEEP);
}

/// The second layer's queries, keys and values come from ciphertexts that hold tokens once.
#[test]
fn two_layers_equal_their_polynomials_and_their_plan() {
    runs(2, Params::TEST_N12_DEEPER);
}

/// With a true division the plain circuit is the model itself, as the model crate computes it.
#[test]
fn the_plain_circuit_is_the_models_reference() {
    let (model, images) = tiny(2, |_| {});
    let classifier = with(model, Params::TEST_N12_DEEPER).unwrap();
    let model = classifier.model();
    for (k, rows) in images.iter().enumerate() {
        let picture = picture(k);
        let input = EncoderInput::Image(&picture);
        let out = undertone_model::reference::forward(&model.config, &model.weights, input);
        assert!(worst(&classifier.exact(rows).unwrap(), &out.unwrap().result.data) < 1e-10);
    }
}

#[test]
fn keys_levels_and_images_that_do_not_fit_are_refused() {
    let (model, images) = tiny(1, |_| {});
    let Parties { classifier, secret, server } =
        parties(with(model, Params::TEST_N12_DEEP).unwrap());
    let ctx = classifier.context();
    let plain = classifier.pack(&images[0]).unwrap();
    let scheme = |e| match e {
        ClassifierError::World(HeError::Ckks(e)) | ClassifierError::Scheme(e) => e,
        e => panic!("{e}"),
    };

    let other = SecretKey::generate(ctx).unwrap();
    let image = other.encrypt(&plain).unwrap().expand(ctx).unwrap();
    let refused = scheme(classifier.run(&server, &image).err().unwrap());
    assert!(matches!(refused, CkksError::WrongKey { .. }), "{refused}");

    let image = secret.encrypt(&plain).unwrap().expand(ctx).unwrap();
    let low = server.level_down(&image, classifier.plan().levels - 1).unwrap();
    let refused = scheme(classifier.run(&server, &low).err().unwrap());
    assert!(matches!(refused, CkksError::LevelExhausted { .. }), "{refused}");

    let few = Arc::new(secret.evaluation_keys(&[Automorphism::Conjugate]).unwrap());
    let few = Arc::new(Evaluator::new(ctx.clone(), few).unwrap());
    let refused = scheme(classifier.run(&few, &image).err().unwrap());
    assert!(matches!(refused, CkksError::MissingKey { .. }), "{refused}");

    let refused = classifier.pack(&images[0][1..]).err().unwrap();
    assert!(matches!(refused, ClassifierError::Input { found: 63, wanted: 64 }), "{refused}");
}

#[test]
fn models_that_do_not_fit_are_refused_by_name() {
    let refused = |params, change: &dyn Fn(&mut String)| {
        let (model, _) = tiny(1, change);
        let accuracy = Accuracy::exactly(0.02);
        Classifier::with(model, params, accuracy).map(|_| ()).map_err(|(_, e)| e).unwrap_err()
    };
    for (from, to) in [
        (r#""kind": "power", "p": 2, "eps": 0.001"#, r#""kind": "softmax""#),
        (r#""quadratic""#, r#""gelu""#),
        (r#""affine""#, r#""layer_norm""#),
    ] {
        let change = |json: &mut String| *json = json.replace(from, to);
        let error = refused(Params::TEST_N12_DEEP, &change);
        assert!(matches!(error, ClassifierError::Model { .. }), "{to}: {error}");
    }
    let error = refused(Params::TEST_N12, &|_| {});
    assert!(matches!(error, ClassifierError::TooDeep { needed: 6, available: 5 }), "{error}");
}

/// The shipped model of one layer, a real image, and a 128-bit parameter set.
#[test]
fn a_shipped_model_classifies_an_encrypted_image_at_128_bits() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let model = Model::load(&models.join("vit-fmnist-he1")).unwrap();
    let Parties { classifier, secret, server } = parties(Classifier::new(model).unwrap());
    let (ctx, model) = (classifier.context(), classifier.model());
    assert_eq!(ctx.params().security, undertone_he::ckks::Security::Classical128);
    let picture = Picture::load(&models.join("images/0000-ankle-boot.png")).unwrap();
    let picture = picture.to_input(model.config.vit().unwrap(), Resize::Refuse).unwrap();
    let rows = model.rows(&EncoderInput::Image(&picture)).unwrap();
    let image = secret.encrypt(&classifier.pack(&rows).unwrap()).unwrap().expand(ctx).unwrap();
    let before = ctx.counters().snapshot();
    let out = classifier.run(&server, &image).unwrap();
    assert_eq!(ctx.counters().snapshot() - before, classifier.plan().counts);
    let found = classifier.unpack(&secret.decrypt_real(&out).unwrap());
    assert!(worst(&found, &classifier.polynomial(&rows).unwrap()) < 2f64.powi(-12));
    assert!(worst(&found, &classifier.exact(&rows).unwrap()) < 0.2);
    let boot = model.config.labels.as_ref().unwrap().iter().position(|l| l == "Ankle boot");
    let best = (0..10).max_by(|&a, &b| found[a].total_cmp(&found[b]));
    assert_eq!(best, boot);
}
