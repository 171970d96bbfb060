//! `infer-encrypted`: the server's side. It reads evaluation keys and ciphertexts; no type that it
//! uses could hold a secret key.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use undertone_he::ckks::{EvaluationKeys, Evaluator, SeededCiphertext};

use crate::encrypted::{Circuit, beside, read, write};
use crate::render::{bytes, json, say};
use crate::{Common, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    circuit: Circuit,
    /// The client's evaluation.keys.
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Ciphertexts that `encrypt` wrote.
    #[arg(required = true)]
    ciphertexts: Vec<PathBuf>,
    /// Folder for the encrypted answers, NAME.answer each.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Run {
    version: u32,
    threads: usize,
    answers: Vec<Answer>,
}

#[derive(Debug, Serialize)]
struct Answer {
    input: PathBuf,
    file: PathBuf,
    seconds: f64,
    sent_bytes: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let classifier = options.circuit.classifier()?;
    let ctx = classifier.context();
    let keys: EvaluationKeys = read(ctx, None, &options.keys)?;
    let owner = keys.key_id();
    let server = Arc::new(Evaluator::new(ctx.clone(), Arc::new(keys))?);
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.common.threads()).build()?;
    let mut answers = Vec::new();
    for path in &options.ciphertexts {
        let image: SeededCiphertext = read(ctx, Some(owner), path)?;
        let image = image.expand(ctx)?;
        let start = Instant::now();
        let answer = pool
            .install(|| classifier.run(&server, &image))
            .with_context(|| path.display().to_string())?;
        let seconds = start.elapsed().as_secs_f64();
        let file = beside(&options.out, path, "answer")?;
        let sent_bytes = write(&answer, ctx, &file)?;
        answers.push(Answer { input: path.clone(), file, seconds, sent_bytes });
    }
    if options.common.json {
        json(&Run { version: 1, threads: options.common.threads(), answers })?;
    } else {
        for a in &answers {
            say!("{}: {:.2} s, {}", a.file.display(), a.seconds, bytes(a.sent_bytes));
        }
    }
    Ok(Outcome::Good)
}
