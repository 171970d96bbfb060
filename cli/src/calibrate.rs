//! `calibrate`: the range of every site, measured on training data and stored with the model.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use undertone_core::{Full, Mask, Shape};
use undertone_model::config::update_domains;
use undertone_model::float::Float;

use crate::examples::Examples;
use crate::render::{json, table};
use crate::worlds::progress;
use crate::{Common, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// Training data, as for `compare`; its training half is used.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// At most so many examples.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    limit: usize,
    /// Show the ranges without storing them.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Range {
    site: String,
    lo: f64,
    hi: f64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let model = options.folder.load()?;
    let examples = Examples::calibration(&model, options.data.as_deref(), options.limit)?;
    let mut w = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut w)?;
    let bar = progress(examples.len(), "calibrating");
    for at in (0..examples.len()).step_by(64) {
        let end = (at + 64).min(examples.len());
        let shape = Shape { batch: end - at, ..examples.shape };
        model.run::<_, Full>(&mut w, &encoder, shape, examples.rows(at, end), &Mask::NONE)?;
        bar.inc((end - at) as u64);
    }
    bar.finish_and_clear();
    let recorded = w.recorded().cloned().unwrap_or_default();
    if !options.dry_run {
        let (outside, layers) = recorded.to_config(model.config.depth());
        update_domains(&options.folder.model, &outside, &layers)?;
    }
    let ranges: Vec<Range> =
        recorded.iter().map(|(site, (lo, hi))| Range { site: site.to_string(), lo, hi }).collect();
    if options.common.json {
        json(&ranges)?;
    } else {
        let rows = ranges
            .iter()
            .map(|r| vec![r.site.clone(), format!("{:.4}", r.lo), format!("{:.4}", r.hi)]);
        println!("{}", table(&options.common, &["site", "least", "greatest"], 1, rows.collect()));
    }
    Ok(Outcome::Good)
}
