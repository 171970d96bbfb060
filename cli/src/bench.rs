//! `bench`: how long a model takes in each world, on one thread.

use std::time::Instant;

use clap::Args;
use serde::Serialize;
use undertone_core::{Mask, Shape};
use undertone_model::Model;
use undertone_model::fixed::FixedModel;
use undertone_model::float::{Float, Fused};

use crate::render::{count, json, say, table};
use crate::worlds::WorldName;
use crate::{Common, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// Batch sizes of the float world.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    batch: Vec<usize>,
    /// Runs that are counted; the median is reported.
    #[arg(long, default_value_t = 30)]
    runs: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Timing {
    world: &'static str,
    batch: usize,
    median_seconds: f64,
    least_seconds: f64,
    seconds_per_example: f64,
    operations_per_second: f64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let model = options.folder.load()?;
    let one = model.input_shape(1, model.task_tokens());
    // Any values will do: time does not depend on them.
    let values: Vec<f32> = (0..one.len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let mut timings = Vec::new();
    for &batch in &options.batch {
        timings.push(float(&model, Shape { batch, ..one }, &values.repeat(batch), options.runs)?);
    }
    match FixedModel::new(&model, one) {
        Ok(mut runner) => {
            let operations = runner.plan().counts.total();
            let seconds = measure(options.runs, || Ok(runner.run(&values).map(|_| ())?))?;
            timings.push(timing(WorldName::Fixed, 1, operations, seconds));
        }
        Err(fault) => eprintln!("fixed-point world: {fault}"),
    }
    if options.common.json {
        json(&timings)?;
    } else {
        let rows = timings.iter().map(|t| {
            vec![
                t.world.to_owned(),
                t.batch.to_string(),
                format!("{:.3} ms", 1e3 * t.median_seconds),
                format!("{:.3} ms", 1e3 * t.seconds_per_example),
                format!("{}op/s", count(t.operations_per_second as u64)),
            ]
        });
        say!(
            "{}",
            table(
                &options.common,
                &["world", "batch", "median", "an example", "rate"],
                1,
                rows.collect()
            )
        );
    }
    Ok(Outcome::Good)
}

fn float(model: &Model, shape: Shape, values: &[f32], runs: usize) -> anyhow::Result<Timing> {
    let mut w = Float::new();
    let encoder = model.prepare::<_, Fused>(&mut w)?;
    model.run::<_, Fused>(&mut w, &encoder, shape, values, &Mask::NONE)?;
    let operations = w.counts().total();
    let seconds = measure(runs, || {
        model.run::<_, Fused>(&mut w, &encoder, shape, values, &Mask::NONE)?;
        Ok(())
    })?;
    Ok(timing(WorldName::Float, shape.batch, operations, seconds))
}

/// Sorted times of some runs after a warm-up.
fn measure(runs: usize, mut f: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    f()?;
    let mut seconds = Vec::with_capacity(runs.max(1));
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        f()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

fn timing(world: WorldName, batch: usize, operations: u64, seconds: Vec<f64>) -> Timing {
    let median = seconds[seconds.len() / 2];
    Timing {
        world: world.name(),
        batch,
        median_seconds: median,
        least_seconds: seconds[0],
        seconds_per_example: median / batch as f64,
        operations_per_second: operations as f64 / median,
    }
}
