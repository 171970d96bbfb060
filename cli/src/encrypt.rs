//! `encrypt`: images into ciphertexts that a server can classify.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use undertone_model::image::Resize;

use crate::encrypted::{Circuit, beside, image, read_secret, write};
use crate::render::{bytes, json, say};
use crate::{Common, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    circuit: Circuit,
    /// The client's secret.key.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Images (PNG or JPEG).
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Folder for the ciphertexts, NAME.encrypted each.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Scale images of another size.
    #[arg(long)]
    resize: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Encrypted {
    version: u32,
    ciphertexts: Vec<File>,
}

#[derive(Debug, Serialize)]
struct File {
    input: PathBuf,
    file: PathBuf,
    sent_bytes: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let classifier = options.circuit.classifier()?;
    let ctx = classifier.context();
    let secret = read_secret(ctx, &options.secret)?;
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let resize = if options.resize { Resize::Scale } else { Resize::Refuse };
    let mut ciphertexts = Vec::new();
    for path in &options.images {
        let ciphertext = secret.encrypt(&image(&classifier, path, resize)?)?;
        let file = beside(&options.out, path, "encrypted")?;
        let sent_bytes = write(&ciphertext, ctx, &file)?;
        ciphertexts.push(File { input: path.clone(), file, sent_bytes });
    }
    if options.common.json {
        json(&Encrypted { version: 1, ciphertexts })?;
    } else {
        for c in &ciphertexts {
            say!("{}: {}", c.file.display(), bytes(c.sent_bytes));
        }
    }
    Ok(Outcome::Good)
}
