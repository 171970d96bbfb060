//! `decrypt`: encrypted answers into classes.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use undertone_he::ckks::Ciphertext;

use crate::encrypt::secret;
use crate::encrypted::{Circuit, read};
use crate::render::{argmax, json, say, table};
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

#[derive(Debug, Serialize)]
struct Answer {
    input: PathBuf,
    class: usize,
    label: String,
    probability: f64,
    logits: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let classifier = options.circuit.classifier()?;
    let ctx = classifier.context();
    let secret = secret(&classifier, &options.secret)?;
    let mut answers = Vec::new();
    for path in &options.answers {
        let answer: Ciphertext = read(ctx, Some(secret.key_id()), path)?;
        let logits = classifier.unpack(&secret.decrypt_real(&answer)?);
        let class = argmax(&logits.iter().map(|&x| x as f32).collect::<Vec<_>>());
        let total: f64 = logits.iter().map(|x| (x - logits[class]).exp()).sum();
        let label = match &classifier.model().config.labels {
            Some(labels) => labels.get(class).cloned().unwrap_or_default(),
            None => class.to_string(),
        };
        answers.push(Answer {
            input: path.clone(),
            class,
            label,
            probability: 1.0 / total,
            logits,
        });
    }
    if options.common.json {
        json(&Classes { version: 1, answers })?;
    } else {
        let row = |a: &Answer| {
            let chance = format!("{:.1} %", 100.0 * a.probability);
            vec![a.input.display().to_string(), a.label.clone(), chance]
        };
        let rows = answers.iter().map(row).collect();
        say!("{}", table(&options.common, &["answer", "class", "probability"], 2, rows));
    }
    Ok(Outcome::Good)
}
