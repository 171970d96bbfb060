//! Running examples through the worlds, with the work spread over threads.

use anyhow::{Context as _, bail};
use cpu_time::ThreadTime;
use indicatif::{ProgressBar, ProgressStyle};
use undertone_core::{Counts, Mask, Shape};
use undertone_model::Model;
use undertone_model::fixed::{ByteWeights, FixedModel, Source};
use undertone_model::float::{Float, Fused};

use crate::examples::Examples;

/// Examples that the float world takes at once.
const BATCH: usize = 64;

/// A world that the command line offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WorldName {
    /// 32-bit floating point.
    Float,
    /// 16-bit fixed point.
    Fixed,
    /// The same with 8-bit linear weights, a scale a channel.
    Fixed8,
    /// Packed bits, for models with one-bit attention.
    Binary,
}

impl WorldName {
    /// The worlds of models without one-bit attention.
    pub(crate) const ALL: [Self; 2] = [Self::Float, Self::Fixed];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Fixed => "fixed-point",
            Self::Fixed8 => "fixed, int8",
            Self::Binary => "binary",
        }
    }
}

/// What a world made of the examples.
pub(crate) struct Report {
    /// Outputs, one an example.
    pub(crate) logits: Vec<Vec<f32>>,
    /// Processor time of all threads.
    pub(crate) cpu_seconds: f64,
    /// Operations counted.
    pub(crate) counts: Counts,
    /// Elements that left their format; none in floating point.
    pub(crate) saturated: u64,
}

/// A bar on standard error, and only on a terminal.
pub(crate) fn progress(len: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(len as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg:32} {bar:32} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// Runs all examples in a world.
pub(crate) fn run(
    world: WorldName,
    model: &Model,
    examples: &Examples,
    threads: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Report> {
    spread(world, examples, threads, |from, to| match world {
        WorldName::Float => float(model, examples, from, to, bar),
        WorldName::Fixed => fixed(model, examples, from, to, bar),
        WorldName::Fixed8 => fixed(&ByteWeights(model), examples, from, to, bar),
        WorldName::Binary => bail!("the model has no one-bit attention"),
    })
}

/// Hands ranges of the examples to threads and joins what they report.
pub(crate) fn spread(
    world: WorldName,
    examples: &Examples,
    threads: usize,
    part: impl Fn(usize, usize) -> anyhow::Result<Report> + Sync,
) -> anyhow::Result<Report> {
    let per_thread = examples.len().div_ceil(threads).next_multiple_of(BATCH);
    let starts = (0..examples.len()).step_by(per_thread);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = starts
            .map(|from| {
                let to = (from + per_thread).min(examples.len());
                let part = &part;
                scope.spawn(move || part(from, to))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
            .collect::<anyhow::Result<Vec<Report>>>()
    })
    .with_context(|| format!("{} world", world.name()))?;
    let mut all =
        Report { logits: Vec::new(), cpu_seconds: 0.0, counts: Counts::NONE, saturated: 0 };
    for part in parts {
        all.logits.extend(part.logits);
        all.cpu_seconds += part.cpu_seconds;
        all.counts = all.counts.plus(&part.counts);
        all.saturated += part.saturated;
    }
    Ok(all)
}

fn float(
    model: &Model,
    examples: &Examples,
    from: usize,
    to: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Report> {
    let start = ThreadTime::now();
    let mut w = Float::new();
    let encoder = model.prepare::<_, Fused>(&mut w)?;
    let mut logits = Vec::with_capacity(to - from);
    for at in (from..to).step_by(BATCH) {
        let end = (at + BATCH).min(to);
        let shape = Shape { batch: end - at, ..examples.shape };
        let rows = examples.rows(at, end);
        let out = model.run::<_, Fused>(&mut w, &encoder, shape, rows, &Mask::NONE)?;
        let width = out.len() / (end - at);
        logits.extend(out.chunks_exact(width).map(<[f32]>::to_vec));
        bar.inc((end - at) as u64);
    }
    let cpu_seconds = start.elapsed().as_secs_f64();
    Ok(Report { logits, cpu_seconds, counts: w.counts(), saturated: 0 })
}

/// Some examples in fixed point.
pub(crate) fn fixed(
    model: &impl Source,
    examples: &Examples,
    from: usize,
    to: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Report> {
    let start = ThreadTime::now();
    let mut runner = FixedModel::new(model, examples.shape)?;
    let mut report = Report {
        logits: Vec::with_capacity(to - from),
        cpu_seconds: 0.0,
        counts: Counts::NONE,
        saturated: 0,
    };
    for at in from..to {
        let run = runner.run(examples.rows(at, at + 1))?;
        report.logits.push(run.output);
        report.counts = report.counts.plus(&run.counts);
        report.saturated += run.saturated;
        bar.inc(1);
    }
    report.cpu_seconds = start.elapsed().as_secs_f64();
    Ok(report)
}
