//! Shipped models between two parties, against the float world; plan equal to run.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use undertone_core::{Full, Mask};
use undertone_model::Model;
use undertone_model::float::Float;
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;
use undertone_mpc::{Cost, Format, Fused, Mpc, Plan, Result, run_locally};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

/// A model with ranges recorded on shipped images, and the rows of all of them.
fn prepared(name: &str) -> (Model, Vec<Vec<f32>>) {
    let mut model = Model::load(&models().join(name)).unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(models().join("images"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "png"))
        .collect();
    files.sort();
    let rows: Vec<Vec<f32>> = files
        .iter()
        .map(|file| {
            let vit = model.config.vit().unwrap();
            let image = Picture::load(file).unwrap().to_input(vit, Resize::Refuse).unwrap();
            model.rows(&EncoderInput::Image(&image)).unwrap()
        })
        .collect();
    let mut recorder = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut recorder).unwrap();
    let shape = model.input_shape(1, model.tokens());
    for rows in &rows {
        model.run::<_, Full>(&mut recorder, &encoder, shape, rows, &Mask::NONE).unwrap();
    }
    model.calibration = recorder.recorded().unwrap().clone();
    (model, rows)
}

fn infer(mpc: &mut Mpc, model: &Model, images: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
    mpc.phase("weights");
    let encoder = model.prepare::<_, Fused>(mpc)?;
    let shape = model.input_shape(1, model.tokens());
    let run = |rows: &Vec<f32>| {
        mpc.phase("input");
        model.run::<_, Fused>(mpc, &encoder, shape, rows, &Mask::NONE)
    };
    images.iter().map(run).collect()
}

fn agrees(name: &str, images: usize, tolerance: f32) {
    let (model, rows) = prepared(name);
    let rows = &rows[..images];
    let out = run_locally(name, Format::default(), |mpc| infer(mpc, &model, rows)).unwrap();
    for measured in out.measured {
        assert_eq!(measured, out.plan.cost());
    }
    for report in &out.reports {
        let planned: Vec<(&str, &Cost)> = out.plan.phases().collect();
        assert_eq!(report.phases().collect::<Vec<_>>(), planned);
    }
    for (phase, cost) in out.plan.phases() {
        println!("{name} {phase}: {cost:?}");
    }
    let mut float = Float::new();
    let encoder = model.prepare::<_, Full>(&mut float).unwrap();
    let shape = model.input_shape(1, model.tokens());
    for (rows, got) in rows.iter().zip(&out.results[0]) {
        let want = model.run::<_, Full>(&mut float, &encoder, shape, rows, &Mask::NONE).unwrap();
        let error = got.iter().zip(&want).fold(0f32, |m, (g, w)| m.max((g - w).abs()));
        println!("{name}: logits differ by at most {error:.5}");
        assert!(error < tolerance, "{name}: {error}");
    }
}

#[test]
fn softmax_vit() {
    agrees("vit-fmnist", 2, 0.002);
}

#[test]
fn heterogeneous_vit() {
    agrees("vit-fmnist-hetero", 2, 0.005);
}

#[test]
fn power_vit() {
    agrees("vit-fmnist-power2", 1, 0.005);
}

#[test]
fn uniform_vit() {
    agrees("vit-fmnist-uniform", 1, 0.002);
}

/// MPCViT's `vit_7_4_32` (CIFAR): 7 layers, 4 heads, width 256, 65 tokens, with random weights
/// and their ranges.
fn vit_7_4_32(kinds: [&str; 4]) -> Model {
    let head = |kind: &str| match kind {
        "relu_softmax" => r#"{"kind": "relu_softmax", "eps": 1e-3}"#.to_owned(),
        other => format!(r#"{{"kind": "{other}"}}"#),
    };
    let heads = format!("[{}]", kinds.map(head).join(", "));
    let layer = format!(r#"{{"heads": {heads}, "norm": "layer_norm", "activation": "gelu"}}"#);
    let layers = vec![layer; 7].join(", ");
    let json = format!(
        r#"{{"model_type": "vit", "image_size": 32, "patch_size": 4, "num_channels": 3,
        "hidden_size": 256, "num_hidden_layers": 7, "num_attention_heads": 4,
        "intermediate_size": 512, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": true,
        "id2label": {{"0": "a", "1": "b"}},
        "undertone": {{"version": 1, "pooling": "first", "layers": [{layers}]}}}}"#
    );
    let config = undertone_model::config::Config::parse(json.as_bytes(), None).unwrap();
    let mut model = Model::random(config, 1).unwrap();
    let shape = model.input_shape(1, model.tokens());
    let rows: Vec<f32> = (0..shape.len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let mut recorder = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut recorder).unwrap();
    model.run::<_, Full>(&mut recorder, &encoder, shape, &rows, &Mask::NONE).unwrap();
    model.calibration = recorder.recorded().unwrap().clone();
    model
}

fn planned(kinds: [&str; 4]) -> Plan {
    let model = vit_7_4_32(kinds);
    let rows = vec![vec![0.0; model.input_shape(1, model.tokens()).len()]];
    Plan::of("vit_7_4_32", Format::default(), |mpc| infer(mpc, &model, &rows)).unwrap()
}

#[test]
fn vit_7_4_32_is_planned_within_its_budget() {
    let plan = planned(["relu_softmax", "relu_softmax", "scaling", "scaling"]);
    let online = plan.phases().filter(|(name, _)| *name != "weights").map(|(_, c)| *c);
    let online = online.fold(Cost::default(), Cost::then);
    let seconds = online.seconds(0.02, 352e6, 0.0);
    println!("vit_7_4_32 online: {online:?}, {seconds:.2} s on the wide network without compute");
    assert!(online.sent.iter().sum::<u64>() < 50_000_000);
    assert!(online.sent.iter().all(|sent| *sent <= 25_000_000));
    assert!(seconds <= 12.0);
}

#[test]
fn blocks_of_every_kind_are_planned() {
    for kind in ["softmax", "relu_softmax", "two_quad", "scaling"] {
        let plan = planned([kind; 4]);
        let layers = plan.phases().filter(|(name, _)| name.starts_with("layer"));
        let all = layers.fold(Cost::default(), |sum, (_, c)| sum.then(*c));
        let (exchanges, sent) = (all.exchanges as f64 / 7.0, all.sent[0] as f64 / 7e6);
        println!("a vit_7_4_32 block, {kind}: {exchanges:.1} exchanges, {sent:.2} MB a party");
        if kind == "softmax" {
            // A fifth of SPU SEMI2K's 253 messages, an eighth of its 32.4 MB.
            assert!(exchanges <= 253.0 / 5.0, "{exchanges}");
            assert!(sent <= 32.4 / 8.0, "{sent}");
        }
    }
}
