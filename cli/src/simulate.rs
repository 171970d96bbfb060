//! `simulate`: a model or a list of operators on an FPGA that need not exist.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use undertone_core::trace::Operators;
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::simulate::{Loads, Mode, Report, RooflinePoint};
use undertone_fpga_sim::workload::Workload;
use undertone_fpga_sim::{mapping, output, simulate, sizing};
use undertone_model::trace::record;

use crate::render::{bytes, json, say, table};
use crate::{Common, Outcome};

/// What runs: a model folder, or else a file or a built-in shape.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// Model folder: config.json and model.safetensors.
    #[arg(long, value_name = "DIR", conflicts_with = "workload")]
    model: Option<PathBuf>,
    /// Tokens of a model that reads text. By default the longest sequence of its task.
    #[arg(long, value_name = "N", requires = "model")]
    tokens: Option<usize>,
    /// A SCALE-Sim topology (.csv), a list of operators (.json), or m3vit, m3vit-224, deit-t,
    /// deit-s, minilm.
    #[arg(long, value_name = "FILE|SHAPE")]
    workload: Option<String>,
}

impl Source {
    /// A model folder.
    pub(crate) fn of(folder: &std::path::Path) -> Self {
        Self { model: Some(folder.to_owned()), tokens: None, workload: None }
    }

    /// What was asked for, if anything.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Workload>> {
        if let Some(folder) = &self.model {
            let model = crate::load(folder)?;
            let tokens = self.tokens.unwrap_or_else(|| model.task_tokens());
            if tokens == 0 || tokens > model.tokens() {
                bail!("--tokens {tokens}: the model reads 1 to {} tokens", model.tokens());
            }
            let nodes = record::<Operators>(&model, model.input_shape(1, tokens))?;
            let name = folder.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
            return Ok(Some(Workload::from_trace(&name, &nodes)));
        }
        Ok(self.workload.as_deref().map(Workload::open).transpose()?)
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Architecture: a TOML file, or edge-moe-zcu102, systolic-16x16, small-edge.
    #[arg(long, value_name = "FILE|PRESET", default_value = "edge-moe-zcu102")]
    arch: String,
    /// Changes a key of the architecture, such as memory.width_bits=128. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    source: Source,
    /// What is modelled.
    #[arg(long, value_enum, default_value_t = ModeName::Full)]
    mode: ModeName,
    /// How weights come in.
    #[arg(long, value_enum, default_value_t = LoadsName::Overlapped)]
    loads: LoadsName,
    /// Writes a page with timeline, roofline and energy that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes a trace for ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
    /// Writes the columns of SCALE-Sim's compute report.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Writes the columns of SCALE-Sim's bandwidth report.
    #[arg(long, value_name = "FILE")]
    bandwidth_csv: Option<PathBuf>,
    /// Writes a wave: the schedule, or with --step every start and FIFO level of one operator.
    #[arg(long, value_name = "FILE")]
    vcd: Option<PathBuf>,
    /// One operator, such as 0.scores: for --vcd and --depths.
    #[arg(long, value_name = "OPERATOR")]
    step: Option<String>,
    /// Finds the smallest FIFO depths that keep the operator's speed, instead of a report.
    #[arg(long, requires = "step")]
    depths: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeName {
    /// Latencies, FIFOs and memory ports.
    Full,
    /// Initiation intervals of 1, no latencies, memory that never waits.
    Ideal,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LoadsName {
    /// Into the other of two buffers while earlier operators run.
    Overlapped,
    /// Before each layer, nothing else meanwhile.
    Serial,
    /// Not counted.
    Hidden,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let arch = Arch::open(&options.arch)?;
    let settings = options.set.iter().map(|s| setting(s)).collect::<anyhow::Result<Vec<_>>>()?;
    let arch = arch.with(settings.iter().map(|(key, value)| (key.as_str(), value.clone())))?;
    let Some(workload) = options.source.load()? else {
        bail!("nothing to simulate: give --model DIR or --workload FILE|SHAPE");
    };
    if options.depths {
        depths(options, &arch, &workload)?;
        return Ok(Outcome::Good);
    }
    let how = simulate::Options {
        mode: match options.mode {
            ModeName::Full => Mode::Full,
            ModeName::Ideal => Mode::Ideal,
        },
        loads: match options.loads {
            LoadsName::Overlapped => Loads::Overlapped,
            LoadsName::Serial => Loads::Serial,
            LoadsName::Hidden => Loads::Hidden,
        },
        plain: false,
    };
    let report = simulate::simulate(&arch, &workload, &how)?;
    write(options.html.as_ref(), || output::html(&report))?;
    write(options.perfetto.as_ref(), || output::perfetto(&report))?;
    write(options.csv.as_ref(), || output::compute_report(&report))?;
    write(options.bandwidth_csv.as_ref(), || output::bandwidth_report(&report))?;
    if let Some(path) = &options.vcd {
        // Looked up first: a name that is wrong leaves no empty file.
        let graph = match &options.step {
            Some(_) => Some(graphs(options, &arch, &workload)?.swap_remove(0)),
            None => None,
        };
        let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
        match graph {
            Some(graph) => output::vcd(&graph, (1e6 / arch.clock_mhz) as u64, file)?,
            None => output::schedule_vcd(&report, file)?,
        }
    }
    if options.common.json {
        json(&report)?;
    } else {
        print(options, &report);
    }
    Ok(Outcome::Good)
}

/// `key=value`; what is not a TOML value is text.
fn setting(text: &str) -> anyhow::Result<(String, toml::Value)> {
    let Some((key, value)) = text.split_once('=') else {
        bail!("--set {text}: write KEY=VALUE, such as memory.width_bits=128");
    };
    let value = value.trim();
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}"));
    let value = match parsed.ok().and_then(|mut table| table.remove("v")) {
        Some(value) => value,
        None => value.into(),
    };
    Ok((key.trim().to_owned(), value))
}

fn write(path: Option<&PathBuf>, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text()).with_context(|| path.display().to_string())
}

/// The dataflow graphs of the operator that `--step` names.
fn graphs(
    options: &Options,
    arch: &Arch,
    workload: &Workload,
) -> anyhow::Result<Vec<undertone_fpga_sim::graph::Graph>> {
    let name = options.step.as_deref().unwrap_or_default();
    let Some(step) = workload.steps.iter().find(|s| s.name == name) else {
        let some: Vec<_> = workload.steps.iter().take(14).map(|s| s.name.as_str()).collect();
        bail!("--step {name}: no such operator; the first are {}", some.join(", "));
    };
    Ok(mapping::graphs(arch, step)?)
}

fn depths(options: &Options, arch: &Arch, workload: &Workload) -> anyhow::Result<()> {
    let mut sizings = Vec::new();
    for graph in graphs(options, arch, workload)? {
        sizings.push((sizing::minimal(&graph)?, graph));
    }
    if options.common.json {
        return json(&sizings.iter().map(|s| &s.0).collect::<Vec<_>>());
    }
    for (sizing, graph) in sizings {
        say!("{} cycles; {} replays", sizing.cycles, sizing.replays);
        let rows = sizing.depths.iter().zip(&graph.fifos);
        let rows = rows.map(|((name, depth), fifo)| {
            vec![name.clone(), depth.to_string(), fifo.depth.to_string()]
        });
        let header = ["FIFO", "smallest", "described"];
        say!("{}", table(&options.common, &header, 1, rows.collect()));
    }
    Ok(())
}

fn print(options: &Options, r: &Report) {
    let show = |header: &[&str], left, rows| {
        say!("\n{}", table(&options.common, header, left, rows));
    };
    say!("{} on {} at {} MHz", r.workload, r.arch, r.clock_mhz);
    let milli = |pj: f64| format!("{:.4}", pj / 1e9);
    let over = match r.exceeds.as_slice() {
        [] => String::new(),
        lacking => format!("; the device lacks {}", lacking.join(", ")),
    };
    let facts = [
        ("latency", format!("{} cycles, {:.3} ms", r.latency_cycles, r.latency_ms)),
        ("ideal", format!("{} cycles", r.ideal_cycles)),
        ("throughput", format!("{:.2} of {:.1} GOP/s", r.throughput_gops, r.peak_gops)),
        ("memory", {
            let (read, written) = (bytes(r.read_bytes), bytes(r.written_bytes));
            let (rate, peak) = (r.bandwidth_gb_per_s, r.peak_gb_per_s);
            format!("{read} read, {written} written, {rate:.3} of {:.1} GB/s", 2.0 * peak)
        }),
        ("energy", {
            let (pj, mw) = (r.energy.total_pj, r.energy.mean_power_mw);
            format!("{} mJ, {mw:.0} mW, {:.2} GOP/s/W", milli(pj), r.throughput_gops / mw * 1e3)
        }),
        ("resources", {
            format!("{} DSP, {} BRAM36 (estimate){over}", r.resources.dsp, r.resources.bram36)
        }),
    ];
    for (name, value) in facts {
        say!("{name:<11} {value}");
    }
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let units = r.units.iter().map(|u| {
        vec![
            format!("{:?}", u.unit).to_lowercase(),
            u.busy_cycles.to_string(),
            percent(u.busy_share),
            percent(u.utilisation),
            u.waiting_cycles.to_string(),
            u.frozen_cycles.to_string(),
            u.load_wait_cycles.to_string(),
        ]
    });
    let header =
        ["unit", "busy cycles", "of latency", "multipliers", "no input", "output full", "weights"];
    show(&header, 1, units.collect());
    let lines = r.energy.lines.iter().map(|l| {
        vec![
            l.component.to_owned(),
            l.entry.to_owned(),
            l.events.to_string(),
            milli(l.energy_pj),
            percent(l.energy_pj / r.energy.total_pj.max(1e-12)),
            format!("±{:.2} %", l.sensitivity_20_percent),
        ]
    });
    let header = ["energy", "table entry", "events", "mJ", "share", "total if entry ±20 %"];
    show(&header, 2, lines.collect());
    for declared in &r.energy.declared {
        say!("{declared}");
    }
    show(
        &["roofline", "times", "operations/byte", "GOP/s", "roof", "bound by"],
        1,
        roofline(r).iter().map(row).collect(),
    );
}

/// Points of equal operators together, in order of their first.
fn roofline(r: &Report) -> Vec<(&RooflinePoint, usize)> {
    let mut points: Vec<(&RooflinePoint, usize)> = Vec::new();
    let key = |p: &RooflinePoint| {
        (p.operations_per_byte.to_bits(), p.attained_gops.to_bits(), p.roof_gops.to_bits())
    };
    for point in &r.roofline {
        match points.iter_mut().find(|(other, _)| key(other) == key(point)) {
            Some((_, times)) => *times += 1,
            None => points.push((point, 1)),
        }
    }
    points
}

fn row((p, times): &(&RooflinePoint, usize)) -> Vec<String> {
    vec![
        p.name.clone(),
        times.to_string(),
        format!("{:.2}", p.operations_per_byte),
        format!("{:.2}", p.attained_gops),
        format!("{:.2}", p.roof_gops),
        if p.memory_bound { "memory" } else { "unit" }.to_owned(),
    ]
}
