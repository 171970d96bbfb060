//! `explore`: every point of a grid of architectures, and what is best in it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use undertone_fpga_sim::explore::{Grid, Point, Shard, pareto};

use crate::render::{json, say, table};
use crate::simulate::Source;
use crate::{Common, Outcome};

#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    merge: Option<Merge>,
    /// Grid in TOML: base, workload, and lists of values for dotted keys.
    #[arg(value_name = "GRID.toml", required = true)]
    grid: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// File of results; what an earlier run left there is not simulated again.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only part I of N of the points, I from 0.
    #[arg(long, value_name = "I/N", default_value = "0/1", requires = "out")]
    shard: Shard,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Subcommand)]
enum Merge {
    /// Join the result files of all shards.
    Merge {
        /// The grid of all of them.
        #[arg(value_name = "GRID.toml")]
        grid: PathBuf,
        #[command(flatten)]
        source: Source,
        /// Result files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    version: u32,
    points: usize,
    impossible: usize,
    pareto: Vec<&'a Point>,
}

fn open(path: &std::path::Path, source: &Source) -> anyhow::Result<Grid> {
    let grid = Grid::open(path)?;
    Ok(match source.load()? {
        Some(workload) => grid.with_workload(workload),
        None => grid,
    })
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if let Some(Merge::Merge { grid, source, files, common }) = &options.merge {
        front(common, &open(grid, source)?.merge_files(files)?)?;
        return Ok(Outcome::Good);
    }
    let path = options.grid.as_deref().unwrap_or(std::path::Path::new(""));
    let grid = open(path, &options.source)?;
    // Drawn to a terminal only.
    let bar = ProgressBar::new(grid.points().div_ceil(options.shard.of));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} points, {eta} to go") {
        bar.set_style(style);
    }
    let pool = undertone_fpga_sim::explore::pool(options.common.threads())?;
    let points = pool.install(|| match &options.out {
        Some(out) => grid.run_file(options.shard, out, || bar.inc(1)),
        None => grid.run(options.shard, "", |_| {
            bar.inc(1);
            Ok(())
        }),
    });
    bar.finish_and_clear();
    front(&options.common, &points?)?;
    Ok(Outcome::Good)
}

fn front(common: &Common, points: &[Point]) -> anyhow::Result<()> {
    let impossible = points.iter().filter(|p| p.costs.is_err()).count();
    let pareto = pareto(points);
    if common.json {
        return json(&Answer { version: 1, points: points.len(), impossible, pareto });
    }
    say!("{} points, {impossible} impossible, {} on the Pareto front", points.len(), pareto.len());
    if let Some(reason) = points.iter().find_map(|p| p.costs.as_ref().err()) {
        say!("first of the impossible: {reason}");
    }
    let keys: Vec<&str> =
        pareto.first().map(|p| p.settings.keys().map(String::as_str).collect()).unwrap_or_default();
    let header = [&["latency ms", "cycles", "energy mJ", "DSP", "BRAM36"], &keys[..]].concat();
    let rows = pareto.iter().filter_map(|p| {
        let c = p.costs.as_ref().ok()?;
        let mut row = vec![
            format!("{:.3}", c.latency_ms),
            c.latency_cycles.to_string(),
            format!("{:.3}", c.energy_pj / 1e9),
            c.dsp.to_string(),
            c.bram36.to_string(),
        ];
        row.extend(p.settings.values().map(ToString::to_string));
        Some(row)
    });
    say!("{}", table(common, &header, 0, rows.collect()));
    Ok(())
}
