//! `calibrate`: the range of every site, measured on training data and stored with the model.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use undertone_core::{Full, Mask, Shape};
use undertone_model::Model;
use undertone_model::config::{depth, update_domains};
use undertone_model::domains::Calibration;
use undertone_model::float::Float;
use undertone_model::input::EncoderInput;
use undertone_model::limits::{TEXT_BYTES, read_bounded};
use undertone_model::text::TextEncoder;

use crate::examples::Examples;
use crate::onebit::OneBit;
use crate::render::{json, say, table};
use crate::worlds::progress;
use crate::{Common, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// Training data, as for `compare`; its training half is used.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// For a text model without a task: sentences, one a line.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    sentences: Option<PathBuf>,
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
    if let Some(model) = OneBit::load(&options.folder.model)? {
        return one_bit(options, &model);
    }
    let model = options.folder.load()?;
    let mut w = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut w)?;
    let mut record = |shape: Shape, rows: &[f32]| -> anyhow::Result<()> {
        model.run::<_, Full>(&mut w, &encoder, shape, rows, &Mask::NONE)?;
        Ok(())
    };
    match &options.sentences {
        Some(file) => sentences(options, &model, file, &mut record)?,
        None => {
            let examples = Examples::calibration(&model, options.data.as_deref(), options.limit)?;
            let bar = progress(examples.len(), "calibrating");
            for at in (0..examples.len()).step_by(64) {
                let end = (at + 64).min(examples.len());
                record(Shape { batch: end - at, ..examples.shape }, examples.rows(at, end))?;
                bar.inc((end - at) as u64);
            }
            bar.finish_and_clear();
        }
    }
    let recorded = w.recorded().cloned().unwrap_or_default();
    if !options.dry_run {
        let (outside, layers) = recorded.to_config(model.config.depth());
        update_domains(&options.folder.model, &outside, &layers, depth)?;
    }
    show(options, &recorded)
}

/// A model with one-bit attention: ranges of its packed form.
fn one_bit(options: &Options, model: &OneBit) -> anyhow::Result<Outcome> {
    if options.sentences.is_some() {
        bail!("one-bit models are calibrated on --data or on their task, not on sentences");
    }
    let examples = Examples::calibration(model, options.data.as_deref(), options.limit)?;
    let bar = progress(examples.len(), "calibrating");
    let mut recorded = Calibration::default();
    for at in 0..examples.len() {
        model.record(examples.rows(at, at + 1), &mut recorded)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if !options.dry_run {
        let (outside, layers) = recorded.to_config(model.depth());
        let depth = |json: &[u8]| -> anyhow::Result<usize> {
            Ok(undertone_binary::model::Config::parse(json)?.undertone.layers.len())
        };
        update_domains(&options.folder.model, &outside, &layers, depth)?;
    }
    show(options, &recorded)
}

fn show(options: &Options, recorded: &Calibration) -> anyhow::Result<Outcome> {
    let ranges: Vec<Range> =
        recorded.iter().map(|(site, (lo, hi))| Range { site: site.to_string(), lo, hi }).collect();
    if options.common.json {
        json(&ranges)?;
    } else {
        let rows = ranges
            .iter()
            .map(|r| vec![r.site.clone(), format!("{:.4}", r.lo), format!("{:.4}", r.hi)]);
        say!("{}", table(&options.common, &["site", "least", "greatest"], 1, rows.collect()));
    }
    Ok(Outcome::Good)
}

/// Every sentence of a file, each by itself: they differ in length.
fn sentences(
    options: &Options,
    model: &Model,
    file: &Path,
    record: &mut dyn FnMut(Shape, &[f32]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let encoder = TextEncoder::load(&options.folder.model, &model.config)?;
    let text = String::from_utf8(read_bounded(file, TEXT_BYTES as u64)?)
        .with_context(|| format!("{}: not UTF-8", file.display()))?;
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    if lines.is_empty() {
        bail!("{}: no sentence in it", file.display());
    }
    let bar = progress(lines.len().min(options.limit), "calibrating");
    for line in lines.into_iter().take(options.limit) {
        let tokens = encoder.encode(line)?;
        let rows = model.rows(&EncoderInput::Tokens { ids: &tokens.ids, mask: None })?;
        record(model.input_shape(1, tokens.ids.len()), &rows)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
