//! `pack`: a one-bit model as one small file, its weights a bit each.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use undertone_binary::model::{self, Encoder, PACKED, Precision};

use crate::render::{bytes, count, json, say};
use crate::{Common, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// Where the packed folder goes; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Hold what stays a number in one byte and a scale a tensor, not in f32.
    #[arg(long)]
    bytes: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    out: PathBuf,
    parameters: usize,
    file_bytes: u64,
    /// The same parameters in f32.
    float_bytes: u64,
    /// How many times smaller.
    ratio: f64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let folder = &options.folder.model;
    if !model::is_one_bit(folder) {
        bail!("{}: no config.json that asks for one-bit attention", folder.display());
    }
    let context = || format!("model {}", folder.display());
    let precision = if options.bytes { Precision::Byte } else { Precision::Exact };
    let packed = model::pack(folder, precision).with_context(context)?;
    let config = folder.join("config.json");
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("--out {}", options.out.display()))?;
    let (to, file) = (options.out.join("config.json"), options.out.join(PACKED));
    if config.canonicalize().ok() != to.canonicalize().ok() {
        std::fs::copy(&config, &to).with_context(|| to.display().to_string())?;
    }
    std::fs::write(&file, &packed).with_context(|| file.display().to_string())?;
    // What was written is what will be read.
    let (parameters, _) = Encoder::load(&options.out)?.size();
    let float_bytes = 4 * parameters as u64;
    let report = Report {
        version: 1,
        out: options.out.clone(),
        parameters,
        file_bytes: packed.len() as u64,
        float_bytes,
        ratio: float_bytes as f64 / packed.len() as f64,
    };
    if options.common.json {
        json(&report)?;
    } else {
        say!(
            "{}: {} parameters in {}, {:.1} times smaller than f32 ({})",
            file.display(),
            count(parameters as u64),
            bytes(report.file_bytes),
            report.ratio,
            bytes(float_bytes),
        );
    }
    Ok(Outcome::Good)
}
