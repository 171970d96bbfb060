//! `fit-hash`: EcoFormer's hashes, fitted to a model's own activations.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use undertone_binary::fit::{self, Start};
use undertone_binary::model::fit_hash;

use crate::examples::Examples;
use crate::onebit::OneBit;
use crate::render::{json, say, table};
use crate::{Common, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// Training data, as for `calibrate`; its training half is used.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the new model folder goes; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Examples that are fitted to.
    #[arg(long, value_name = "N", default_value_t = 64)]
    limit: usize,
    /// Bits in a code, 1 to 16.
    #[arg(long, value_name = "N", default_value_t = 16)]
    bits: usize,
    /// Gradient steps a bit.
    #[arg(long, value_name = "N", default_value_t = 100)]
    iterations: usize,
    /// Seed of anchors and random starts.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Start each bit from a random plane, as the released code trains, not from the best relaxed
    /// one.
    #[arg(long)]
    random_start: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    out: PathBuf,
    examples: usize,
    seed: u64,
    heads: Vec<Head>,
}

/// What the fit of one head did; losses are of hard signs, means over the bits.
#[derive(Debug, Serialize)]
struct Head {
    layer: usize,
    head: usize,
    sigma: f64,
    bits_improved: usize,
    bits: usize,
    loss_before: f64,
    loss_after: f64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let folder = &options.folder.model;
    let examples = match OneBit::load(folder)? {
        Some(model) => Examples::calibration(&model, options.data.as_deref(), options.limit)?,
        None => {
            Examples::calibration(&options.folder.load()?, options.data.as_deref(), options.limit)?
        }
    };
    let rows: Vec<Vec<f32>> =
        (0..examples.len()).map(|i| examples.rows(i, i + 1).to_vec()).collect();
    let start = if options.random_start { Start::Normal } else { Start::Eigen };
    let how = fit::Options {
        bits: options.bits,
        iterations: options.iterations,
        seed: options.seed,
        start,
        ..fit::Options::default()
    };
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("--out {}", options.out.display()))?;
    if let (Ok(from), Ok(to)) = (folder.canonicalize(), options.out.canonicalize())
        && from == to
    {
        bail!("--out {} is the model's own folder: name another", options.out.display());
    }
    let fitted =
        fit_hash(folder, &rows, &how).with_context(|| format!("model {}", folder.display()))?;
    for (name, bytes) in [("config.json", &fitted.config), ("model.safetensors", &fitted.weights)] {
        let path = options.out.join(name);
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    let heads = fitted.layers.iter().enumerate().flat_map(|(layer, heads)| {
        heads.iter().enumerate().map(move |(head, fitted)| {
            let bits = &fitted.bits;
            let mean = |f: &dyn Fn(&fit::Bit) -> f64| {
                bits.iter().map(f).sum::<f64>() / bits.len().max(1) as f64
            };
            Head {
                layer,
                head,
                sigma: fitted.sigma,
                bits_improved: bits.iter().filter(|bit| bit.kept).count(),
                bits: bits.len(),
                loss_before: mean(&|bit| bit.before),
                loss_after: mean(&|bit| if bit.kept { bit.after } else { bit.before }),
            }
        })
    });
    let report = Report {
        version: 1,
        out: options.out.clone(),
        examples: examples.len(),
        seed: options.seed,
        heads: heads.collect(),
    };
    if options.common.json {
        json(&report)?;
    } else {
        say!("{}: fitted to {} examples\n", report.out.display(), report.examples);
        let header = ["layer", "head", "σ", "bits improved", "loss before", "loss after"];
        let rows = report.heads.iter().map(|h| {
            vec![
                h.layer.to_string(),
                h.head.to_string(),
                format!("{:.4}", h.sigma),
                format!("{}/{}", h.bits_improved, h.bits),
                format!("{:.4}", h.loss_before),
                format!("{:.4}", h.loss_after),
            ]
        });
        say!("{}", table(&options.common, &header, 0, rows.collect()));
    }
    Ok(Outcome::Good)
}
