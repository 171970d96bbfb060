//! The simulator from the command line.
//!
//! ```text
//! cargo run --release -p undertone-fpga-sim --example simulate -- run --arch edge-moe-zcu102 --workload m3vit
//! cargo run --release -p undertone-fpga-sim --example simulate -- run --arch my.toml --topology layers.csv --json --html out.html
//! cargo run --release -p undertone-fpga-sim --example simulate -- explore grid.toml --out points.jsonl --shard 0/2
//! cargo run --release -p undertone-fpga-sim --example simulate -- merge grid.toml points-0.jsonl points-1.jsonl
//! cargo run --release -p undertone-fpga-sim --example simulate -- depths --arch edge-moe-zcu102 --workload m3vit --step 0.scores
//! ```

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use undertone_core::trace::Operators;
use undertone_fpga_sim::arch::{Arch, PRESETS};
use undertone_fpga_sim::explore::{Grid, Point, Shard, pareto};
use undertone_fpga_sim::simulate::{Loads, Mode, Options, Report, simulate};
use undertone_fpga_sim::workload::{Step, Workload};
use undertone_fpga_sim::{mapping, output, sizing};
use undertone_model::{Model, trace::record};

#[derive(Parser)]
#[command(about = "Cycle-exact simulation of transformer dataflow on an FPGA")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate a workload
    Run(Run),
    /// Simulate every point of a grid and print the Pareto front
    Explore {
        /// Grid in TOML
        grid: PathBuf,
        /// File of results; an existing one is resumed
        #[arg(long)]
        out: PathBuf,
        /// Only the points of one part
        #[arg(long, default_value = "0/1")]
        shard: Shard,
    },
    /// Join the result files of shards and print the Pareto front
    Merge {
        /// Grid in TOML
        grid: PathBuf,
        /// Result files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Smallest FIFO depths of one operator that keep its speed
    Depths {
        #[command(flatten)]
        what: What,
        /// Operator, such as 0.scores
        #[arg(long)]
        step: String,
    },
}

#[derive(Args)]
struct What {
    /// Preset or TOML file
    #[arg(long, default_value = "edge-moe-zcu102")]
    arch: String,
    /// Built-in workload: m3vit, m3vit-224, deit-t, deit-s, minilm
    #[arg(long, default_value = "m3vit", conflicts_with = "topology")]
    workload: String,
    /// SCALE-Sim topology in CSV
    #[arg(long, conflicts_with = "model")]
    topology: Option<PathBuf>,
    /// Model folder with config.json and model.safetensors
    #[arg(long)]
    model: Option<PathBuf>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    what: What,
    /// What is modelled
    #[arg(long, value_enum, default_value = "full")]
    mode: ModeArg,
    /// How weights come in
    #[arg(long, value_enum, default_value = "overlapped")]
    loads: LoadsArg,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write a page with timeline, roofline and energy
    #[arg(long)]
    html: Option<PathBuf>,
    /// Write a trace for ui.perfetto.dev
    #[arg(long)]
    perfetto: Option<PathBuf>,
    /// Write SCALE-Sim's compute report
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Write SCALE-Sim's bandwidth report
    #[arg(long)]
    bandwidth_csv: Option<PathBuf>,
    /// Write the wave of one operator (see --step)
    #[arg(long, requires = "step")]
    vcd: Option<PathBuf>,
    /// Operator for --vcd
    #[arg(long)]
    step: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Ideal,
    Full,
}

#[derive(Clone, Copy, ValueEnum)]
enum LoadsArg {
    Hidden,
    Serial,
    Overlapped,
}

impl What {
    fn load(&self) -> Result<(Arch, Workload)> {
        let arch = if PRESETS.contains(&self.arch.as_str()) {
            Arch::preset(&self.arch)?
        } else {
            Arch::parse(&read(Path::new(&self.arch))?)?
        };
        if let Some(folder) = &self.model {
            let model = Model::load(folder)?;
            let nodes = record::<Operators>(&model, model.input_shape(1, model.task_tokens()))?;
            let name = folder.file_name().map_or_else(|| "model".into(), |s| s.to_string_lossy());
            return Ok((arch, Workload::from_trace(&name, &nodes)));
        }
        let workload = match &self.topology {
            Some(path) => {
                let name =
                    path.file_stem().map_or_else(|| "topology".into(), |s| s.to_string_lossy());
                Workload::scale_sim(&name, &read(path)?)?
            }
            None => Workload::builtin(&self.workload)?,
        };
        Ok((arch, workload))
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Option<PathBuf>, text: impl FnOnce() -> String) -> Result<()> {
    match path {
        Some(path) => {
            std::fs::write(path, text()).with_context(|| format!("writing {}", path.display()))
        }
        None => Ok(()),
    }
}

fn find<'a>(workload: &'a Workload, name: &str) -> Result<&'a Step> {
    match workload.steps.iter().find(|s| s.name == name) {
        Some(step) => Ok(step),
        None => bail!(
            "no operator `{name}`; the first are {:?}",
            workload.steps.iter().take(14).map(|s| &s.name).collect::<Vec<_>>()
        ),
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Explore { grid, out, shard } => {
            let grid = Grid::parse(&read(&grid)?)?;
            let done = if out.exists() { read(&out)? } else { String::new() };
            // Drop a half-written last line, then go on behind it.
            let whole = done.rfind('\n').map_or(0, |end| end + 1);
            let mut file =
                std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&out)?;
            file.set_len(whole as u64)?;
            std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
            let points = grid.run(shard, &done[..whole], |line| {
                writeln!(file, "{line}").map_err(|e| undertone_fpga_sim::Error::Io {
                    path: out.display().to_string(),
                    reason: e.to_string(),
                })
            })?;
            front(&points);
            Ok(())
        }
        Command::Merge { grid, files } => {
            let grid = Grid::parse(&read(&grid)?)?;
            let texts = files.iter().map(|f| read(f)).collect::<Result<Vec<_>>>()?;
            front(&grid.merge(&texts)?);
            Ok(())
        }
        Command::Depths { what, step } => {
            let (arch, workload) = what.load()?;
            for graph in mapping::graphs(&arch, find(&workload, &step)?)? {
                let sizing = sizing::minimal(&graph)?;
                println!("{} cycles, {} replays", sizing.cycles, sizing.replays);
                for ((name, depth), fifo) in sizing.depths.iter().zip(&graph.fifos) {
                    println!("{name:12} {depth:6}  (described: {})", fifo.depth);
                }
            }
            Ok(())
        }
    }
}

fn run(args: &Run) -> Result<()> {
    let (arch, workload) = args.what.load()?;
    let options = Options {
        mode: match args.mode {
            ModeArg::Ideal => Mode::Ideal,
            ModeArg::Full => Mode::Full,
        },
        loads: match args.loads {
            LoadsArg::Hidden => Loads::Hidden,
            LoadsArg::Serial => Loads::Serial,
            LoadsArg::Overlapped => Loads::Overlapped,
        },
        plain: false,
    };
    let report = simulate(&arch, &workload, &options)?;
    write(&args.html, || output::html(&report))?;
    write(&args.perfetto, || output::perfetto(&report))?;
    write(&args.csv, || output::compute_report(&report))?;
    write(&args.bandwidth_csv, || output::bandwidth_report(&report))?;
    if let (Some(path), Some(step)) = (&args.vcd, &args.step) {
        let file =
            std::fs::File::create(path).with_context(|| format!("writing {}", path.display()))?;
        let graphs = mapping::graphs(&arch, find(&workload, step)?)?;
        output::vcd(&graphs[0], (1e6 / arch.clock_mhz) as u64, file)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(r: &Report) {
    println!(
        "{} on {} at {} MHz, {:?}, loads {:?}",
        r.workload, r.arch, r.clock_mhz, r.mode, r.loads
    );
    println!(
        "latency     {} cycles = {:.3} ms (ideal {} cycles)",
        r.latency_cycles, r.latency_ms, r.ideal_cycles
    );
    println!("throughput  {:.2} GOP/s of {:.1}", r.throughput_gops, r.peak_gops);
    println!(
        "memory      {} bytes read, {} written, {:.3} GB/s",
        r.read_bytes, r.written_bytes, r.bandwidth_gb_per_s
    );
    println!(
        "resources   {} DSP, {} BRAM36 (estimate){}",
        r.resources.dsp,
        r.resources.bram36,
        if r.exceeds.is_empty() {
            String::new()
        } else {
            format!(", too many {}", r.exceeds.join(", "))
        }
    );
    println!("unit        busy cycles  share  waiting for input  output full  waiting for weights");
    for u in &r.units {
        println!(
            "{:10} {:12} {:5.1}% {:18} {:12} {:20}",
            format!("{:?}", u.unit),
            u.busy_cycles,
            100.0 * u.busy_share,
            u.waiting_cycles,
            u.frozen_cycles,
            u.load_wait_cycles
        );
    }
    println!("energy      {:.3} mJ, {:.0} mW", r.energy.total_pj / 1e9, r.energy.mean_power_mw);
    for line in &r.energy.lines {
        println!(
            "  {:16} {:11} {:14} events {:10.4} mJ  +20 %: {:+.2} %",
            line.component,
            line.entry,
            line.events,
            line.energy_pj / 1e9,
            line.sensitivity_20_percent
        );
    }
    for declared in &r.energy.declared {
        println!("  {declared}");
    }
}

fn front(points: &[Point]) {
    let failed = points.iter().filter(|p| p.costs.is_err()).count();
    let front = pareto(points);
    println!("{} points, {failed} impossible, {} on the Pareto front", points.len(), front.len());
    for p in front {
        if let Ok(c) = &p.costs {
            println!(
                "{:9.3} ms {:9.3} mJ {:5} DSP {:5} BRAM36  {}",
                c.latency_ms,
                c.energy_pj / 1e9,
                c.dsp,
                c.bram36,
                p.settings.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
            );
        }
    }
}
