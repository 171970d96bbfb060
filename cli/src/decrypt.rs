//! `decrypt`: encrypted answers into classes.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use undertone_he::ckks::Ciphertext;

use crate::encrypted::{Circuit, read, read_secret};
use crate::infer::{Answer, interpret, print};
use crate::render::json;
use crate::{Common, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    circuit: Circuit,
    /// The client's secret.key.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Answers that `infer-encrypted` wrote.
    #[arg(required = true)]
    answers: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Classes {
    version: u32,
    answers: Vec<Answer>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let classifier = options.circuit.classifier()?;
    let ctx = classifier.context();
    let secret = read_secret(ctx, &options.secret)?;
    let mut answers = Vec::new();
    for path in &options.answers {
        let answer: Ciphertext = read(ctx, Some(secret.key_id()), path)?;
        let logits = classifier.unpack(&secret.decrypt_real(&answer)?);
        let logits = logits.iter().map(|&x| x as f32).collect();
        answers.push(interpret(classifier.model(), path.display().to_string(), logits)?);
    }
    if options.common.json {
        json(&Classes { version: 1, answers })?;
    } else {
        print(&options.common, &answers, &[]);
    }
    Ok(Outcome::Good)
}
