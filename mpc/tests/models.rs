//! Shipped models between two parties, against the float world; plan equal to run.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use undertone_core::{Full, Mask};
use undertone_model::Model;
use undertone_model::float::Float;
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;
use undertone_mpc::{Cost, Format, Mpc, Result, run_locally};

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
    let encoder = model.prepare::<_, Full>(mpc)?;
    let shape = model.input_shape(1, model.tokens());
    let run = |rows: &Vec<f32>| {
        mpc.phase("input");
        model.run::<_, Full>(mpc, &encoder, shape, rows, &Mask::NONE)
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
    agrees("vit-fmnist", 2, 0.02);
}

#[test]
fn heterogeneous_vit() {
    agrees("vit-fmnist-hetero", 2, 0.02);
}

#[test]
fn power_vit() {
    agrees("vit-fmnist-power2", 1, 0.05);
}

#[test]
fn uniform_vit() {
    agrees("vit-fmnist-uniform", 1, 0.02);
}
