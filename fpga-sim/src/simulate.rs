//! A workload on an architecture: latency, utilisation, stalls, bandwidth,
//! energy, roofline.

use crate::arch::{Arch, Dataflow};
use crate::energy;
use crate::engine::Outcome;
use crate::error::{Error, Result};
use crate::graph::{Direction, Graph};
use crate::mapping::{self, Unit};
use crate::resources::{self, Resources};
use crate::workload::{Operator, Step, Weighting, Workload};
use crate::{closed, stepped, timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What of the hardware is modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Initiation intervals of 1, no latencies, memory that never waits.
    Ideal,
    /// Dataflow graphs with latencies, FIFOs and memory ports.
    #[default]
    Full,
}

/// How weights of linear layers come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Loads {
    /// Not counted: the lower bound in which every load hides.
    Hidden,
    /// Before each layer, nothing else meanwhile (experts too).
    Serial,
    /// Into the other of two buffers while earlier operators run.
    #[default]
    Overlapped,
}

/// Options of [`simulate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// What is modelled.
    pub mode: Mode,
    /// How weights come in.
    pub loads: Loads,
    /// Plain engine without leaps and without reuse of equal operators: for measuring.
    pub plain: bool,
}

/// One operator of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Name in the workload.
    pub name: String,
    /// Unit that does the work.
    pub unit: Unit,
    /// When it starts.
    pub start_cycles: u64,
    /// How long it takes.
    pub latency_cycles: u64,
    /// What it would take ideally.
    pub ideal_cycles: u64,
    /// Cycles that the next operator's start waited for this one's weights.
    pub load_wait_cycles: u64,
    /// Cycles of the weight load itself.
    pub load_cycles: u64,
    /// Multiply-accumulates.
    pub products: u64,
    /// Multiply-accumulates that its unit can do in a cycle.
    pub peak_products: u64,
    /// Bytes read from external memory, weights included.
    pub read_bytes: u64,
    /// Of these, weights.
    pub weight_bytes: u64,
    /// Bytes written to it.
    pub written_bytes: u64,
    /// Share of its unit's multipliers in use, over its time.
    pub utilisation: f64,
    /// Enabled cycles in which the unit waited for input.
    pub waiting_cycles: u64,
    /// Cycles frozen by a full output.
    pub frozen_cycles: u64,
    /// Which tier gave the time: `ideal`, `closed`, `timestamp` or `stepped`; where a closed
    /// form holds it has been checked against the engine.
    pub tier: &'static str,
}

/// Time of one unit over the whole run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnitReport {
    /// The unit.
    pub unit: Unit,
    /// Cycles in which one of its operators ran.
    pub busy_cycles: u64,
    /// The same as a share of the latency.
    pub busy_share: f64,
    /// Share of its multipliers in use while busy; 0 for work without products.
    pub utilisation: f64,
    /// Of the busy cycles: waiting for input.
    pub waiting_cycles: u64,
    /// Of the busy cycles: frozen by a full output.
    pub frozen_cycles: u64,
    /// Cycles in which the unit waited for its weights.
    pub load_wait_cycles: u64,
}

/// A point under the roofline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RooflinePoint {
    /// Operator.
    pub name: String,
    /// Operations (two for each product) for each byte of external memory.
    pub operations_per_byte: f64,
    /// Attained giga-operations a second.
    pub attained_gops: f64,
    /// The roof above it.
    pub roof_gops: f64,
    /// Whether memory, not the unit, is the roof.
    pub memory_bound: bool,
}

/// The whole answer; keys carry units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Architecture.
    pub arch: String,
    /// Workload.
    pub workload: String,
    /// What was modelled.
    pub mode: Mode,
    /// How weights came in.
    pub loads: Loads,
    /// Clock.
    pub clock_mhz: f64,
    /// Rows and columns of the matrix unit.
    pub array: (u64, u64),
    /// Bits of an activation.
    pub activation_bits: u32,
    /// Bits of a weight.
    pub weight_bits: u32,
    /// Cycles in all.
    pub latency_cycles: u64,
    /// The same in milliseconds.
    pub latency_ms: f64,
    /// Sum of the operators' ideal cycles.
    pub ideal_cycles: u64,
    /// Multiply-accumulates.
    pub products: u64,
    /// Giga-operations a second, two for each product.
    pub throughput_gops: f64,
    /// Bytes read from external memory.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Mean bandwidth.
    pub bandwidth_gb_per_s: f64,
    /// Operators in order.
    pub steps: Vec<StepReport>,
    /// Units.
    pub units: Vec<UnitReport>,
    /// Energy.
    pub energy: energy::Account,
    /// Peak of the matrix unit in giga-operations a second.
    pub peak_gops: f64,
    /// Peak of all ports in gigabytes a second, one direction.
    pub peak_gb_per_s: f64,
    /// Roofline.
    pub roofline: Vec<RooflinePoint>,
    /// Estimated resources.
    pub resources: Resources,
    /// Resources beyond what the device has, by name; empty if it fits.
    pub exceeds: Vec<&'static str>,
}

/// Time and traffic of one operator alone.
#[derive(Debug, Clone)]
struct Run {
    cycles: u64,
    read: u64,
    written: u64,
    waiting: u64,
    frozen: u64,
    tier: &'static str,
}

/// Runs a graph on the timestamp engine, or on the stepped one where ports are shared.
///
/// # Errors
/// A defect of the graph or a deadlock.
pub fn run_graph(graph: &Graph) -> Result<(Outcome, &'static str)> {
    match timestamp::run(graph) {
        Ok(outcome) => Ok((outcome, "timestamp")),
        Err(Error::Shared { .. }) => Ok((stepped::run(graph)?, "stepped")),
        Err(e) => Err(e),
    }
}

/// Simulates `workload` on `arch`.
///
/// # Errors
/// Bad values or shapes, memory that is too small, an operator without a unit,
/// or a deadlock.
///
/// ```
/// use undertone_fpga_sim::{arch::Arch, simulate::{Loads, Mode, Options, simulate}, workload::Workload};
/// let arch = Arch::preset("edge-moe-zcu102")?;
/// let options = Options { mode: Mode::Ideal, loads: Loads::Hidden, plain: false };
/// let report = simulate(&arch, &Workload::builtin("m3vit")?, &options)?;
/// assert_eq!(report.latency_cycles, 5_436_000);
/// # Ok::<(), undertone_fpga_sim::Error>(())
/// ```
pub fn simulate(arch: &Arch, workload: &Workload, options: &Options) -> Result<Report> {
    arch.check()?;
    check_memory(arch, workload)?;
    let steps = tile(arch, workload)?;
    let mut memo: HashMap<Operator, Run> = HashMap::new();
    let mut schedule = Schedule::default();
    let (mut reports, mut events) = (Vec::new(), Vec::new());
    for step in &steps {
        let ideal = mapping::ideal_cycles(arch, step)?;
        let run = match memo.get(&step.operator) {
            Some(run) if !options.plain => run.clone(),
            _ => {
                let run = run_step(arch, step, ideal, options)?;
                memo.insert(step.operator.clone(), run.clone());
                run
            }
        };
        let loads = mapping::loads(arch, &step.operator);
        let load = load_time(arch, options, &step.operator, &loads)?;
        let (start, wait) = schedule.place(options, arch.buffers.ping_pong, run.cycles, load);
        let load_bytes = loads.iter().sum::<u64>() * arch.memory.width_bits / 8;
        // An expert's graph reads its weights itself.
        let loaded = if matches!(step.operator, Operator::Experts { .. }) { 0 } else { load_bytes };
        let products = step.operator.products();
        let peak = peak_products(arch, &step.operator);
        events.extend(energy::events(arch, step, ideal));
        reports.push(StepReport {
            name: step.name.clone(),
            unit: step.operator.unit(),
            start_cycles: start,
            latency_cycles: run.cycles,
            ideal_cycles: ideal,
            load_wait_cycles: wait,
            load_cycles: load,
            products,
            peak_products: peak,
            read_bytes: run.read + loaded,
            weight_bytes: load_bytes,
            written_bytes: run.written,
            utilisation: products as f64 / (peak * run.cycles.max(1)) as f64,
            waiting_cycles: run.waiting,
            frozen_cycles: run.frozen,
            tier: run.tier,
        });
    }
    Ok(assemble(arch, workload, options, reports, &events, schedule.end))
}

/// Products that the operator's unit can do in a cycle.
fn peak_products(arch: &Arch, operator: &Operator) -> u64 {
    let lanes = arch.attention.lanes * arch.attention.block_words;
    match operator {
        // The router multiplies a block with a column of every expert.
        Operator::Gate { experts, .. } => arch.vector.words * experts,
        Operator::Scores { weighting: Weighting::BiVit, .. }
        | Operator::Mix { weighting: Weighting::BiVit, .. } => {
            lanes * u64::from(arch.formats.activation_bits)
        }
        _ => match operator.unit() {
            Unit::Linear => arch.linear.rows * arch.linear.columns,
            Unit::Attention => lanes,
            Unit::Vector => arch.vector.words,
        },
    }
}

fn load_time(arch: &Arch, options: &Options, operator: &Operator, loads: &[u64]) -> Result<u64> {
    let beats: u64 = loads.iter().sum();
    let expert = matches!(operator, Operator::Experts { .. });
    Ok(match (options.loads, options.mode) {
        (Loads::Hidden, _) => 0,
        _ if beats == 0 => 0,
        (Loads::Overlapped, _) if expert => 0,
        (_, Mode::Ideal) => beats,
        // The graph of the experts holds their loads.
        (Loads::Serial, Mode::Full) if expert => 0,
        (_, Mode::Full) => match closed::read_stream(arch, beats) {
            Some(cycles) => cycles,
            None => {
                let mut g = Graph::default();
                let port = g.port(arch.port("weights"));
                let s = g.stage("load", 1, 1, beats, &[], &[]);
                let region_bytes = beats * arch.memory.width_bits / 8;
                let access = crate::graph::Access {
                    port,
                    direction: Direction::Read,
                    address: 0,
                    region_bytes,
                };
                g.bind(s, access);
                timestamp::run(&g)?.cycles
            }
        },
    })
}

fn run_step(arch: &Arch, step: &Step, ideal: u64, options: &Options) -> Result<Run> {
    let graphs = if options.mode == Mode::Ideal && matches!(step.operator, Operator::Experts { .. })
    {
        // Weights ahead of time: only the traffic is taken from the graph.
        mapping::graphs(arch, step).unwrap_or_default()
    } else {
        let mut arch = arch.clone();
        if options.loads == Loads::Serial {
            arch.buffers.ping_pong = false;
        }
        mapping::graphs(&arch, step)?
    };
    let mut run = Run { cycles: 0, read: 0, written: 0, waiting: 0, frozen: 0, tier: "ideal" };
    for graph in &graphs {
        for stage in &graph.stages {
            if let Some(a) = stage.access {
                let bytes = stage.iterations() * graph.ports[a.port.0].beat_bytes;
                match a.direction {
                    Direction::Read => run.read += bytes,
                    Direction::Write => run.written += bytes,
                }
            }
        }
        if options.mode == Mode::Ideal {
            continue;
        }
        let (outcome, tier) = if options.plain {
            let plain = timestamp::Options { leap: false };
            (timestamp::run_with(graph, plain, &mut crate::engine::Blind)?, "timestamp")
        } else {
            run_graph(graph)?
        };
        run.cycles += outcome.cycles;
        run.tier = tier;
        // The unit is the stage with the most iterations that no port is bound to.
        let unit = graph
            .stages
            .iter()
            .zip(&outcome.stages)
            .filter(|(s, _)| s.access.is_none())
            .max_by_key(|(s, _)| s.iterations() * s.interval);
        if let Some((_, count)) = unit {
            run.waiting += count.waiting_cycles;
            run.frozen += count.frozen_cycles;
        }
    }
    if options.mode == Mode::Ideal {
        run.cycles = ideal;
    }
    Ok(run)
}

/// When operators and loads run: operators one after another, loads one after
/// another, each into the buffer that the operator before the last one freed.
#[derive(Debug, Default)]
struct Schedule {
    end: u64,
    load_end: u64,
    /// Ends of the last two operators with weights.
    used: [u64; 2],
}

impl Schedule {
    /// Places an operator; returns its start and how long it waited for its weights.
    fn place(&mut self, options: &Options, ping_pong: bool, cycles: u64, load: u64) -> (u64, u64) {
        let mut start = self.end;
        if load > 0 {
            let free = match (options.loads, ping_pong) {
                (Loads::Serial | Loads::Hidden, _) => self.end,
                (Loads::Overlapped, true) => self.used[0],
                (Loads::Overlapped, false) => self.used[1],
            };
            self.load_end = free.max(self.load_end) + load;
            start = start.max(self.load_end);
        }
        let wait = start - self.end;
        self.end = start + cycles;
        if load > 0 {
            self.used = [self.used[1], self.end];
        }
        (start, wait)
    }
}

fn check_memory(arch: &Arch, workload: &Workload) -> Result<()> {
    let w = u64::from(arch.formats.weight_bits);
    let a = u64::from(arch.formats.activation_bits);
    let mut needed = 0u64;
    for step in &workload.steps {
        step.operator.check(&step.name)?;
        let (weights, activations) = match &step.operator {
            Operator::Linear { tokens, inputs, outputs, .. } => {
                (inputs.saturating_mul(*outputs), tokens.saturating_mul((*inputs).max(*outputs)))
            }
            Operator::Experts { queues, dim, hidden, tokens } => (
                (queues.len() as u64).saturating_mul(dim.saturating_mul(*hidden)).saturating_mul(2),
                tokens.saturating_mul(*hidden),
            ),
            Operator::Scores { tokens, heads, .. } => {
                (0, tokens.saturating_mul(*tokens).saturating_mul(*heads))
            }
            _ => (0, 0),
        };
        needed = needed.saturating_add(weights.saturating_mul(w).div_ceil(8));
        let total = needed.saturating_add(activations.saturating_mul(a).div_ceil(8));
        if total > arch.memory.bytes {
            return Err(Error::OutOfMemory {
                operator: step.name.clone(),
                memory: "external memory",
                needed_bytes: total,
                available_bytes: arch.memory.bytes,
            });
        }
    }
    Ok(())
}

/// Splits linear layers whose weights exceed a buffer, by outputs.
fn tile(arch: &Arch, workload: &Workload) -> Result<Vec<Step>> {
    let buffer = arch.buffers.weight_bytes;
    let bytes = |inputs: u64, outputs: u64| {
        let l = &arch.linear;
        inputs.next_multiple_of(l.rows)
            * outputs.next_multiple_of(l.columns)
            * u64::from(arch.formats.weight_bits)
            / 8
    };
    let mut steps = Vec::new();
    for step in &workload.steps {
        let short = |needed_bytes| Error::OutOfMemory {
            operator: step.name.clone(),
            memory: "weight buffer",
            needed_bytes,
            available_bytes: buffer,
        };
        match step.operator {
            Operator::Linear { tokens, inputs, outputs, gelu, resident: false }
                if arch.linear.dataflow == Dataflow::Broadcast
                    && bytes(inputs, outputs) > buffer =>
            {
                let column = bytes(inputs, arch.linear.columns);
                let columns = buffer / column * arch.linear.columns;
                if columns == 0 {
                    return Err(short(column));
                }
                let (mut done, mut part) = (0, 0);
                while done < outputs {
                    let outputs = columns.min(outputs - done);
                    let operator =
                        Operator::Linear { tokens, inputs, outputs, gelu, resident: false };
                    steps.push(Step { name: format!("{}/{part}", step.name), operator });
                    done += outputs;
                    part += 1;
                }
            }
            Operator::Experts { dim, hidden, .. }
                if bytes(dim, hidden).max(bytes(hidden, dim)) > buffer =>
            {
                return Err(short(bytes(dim, hidden).max(bytes(hidden, dim))));
            }
            _ => steps.push(step.clone()),
        }
    }
    Ok(steps)
}

fn assemble(
    arch: &Arch,
    workload: &Workload,
    options: &Options,
    steps: Vec<StepReport>,
    events: &[energy::Events],
    latency: u64,
) -> Report {
    let sum = |f: fn(&StepReport) -> u64| steps.iter().map(f).sum::<u64>();
    let (read, written) = (sum(|s| s.read_bytes), sum(|s| s.written_bytes));
    let products = sum(|s| s.products);
    let ideal = sum(|s| s.ideal_cycles);
    let seconds = latency.max(1) as f64 / (arch.clock_mhz * 1e6);
    let peak_gops = 2.0 * (arch.linear.rows * arch.linear.columns) as f64 * arch.clock_mhz / 1e3;
    let peak_gb = (arch.memory.ports * arch.memory.width_bits / 8) as f64 * arch.clock_mhz / 1e3;
    let roofline = steps
        .iter()
        .filter(|s| s.products > 0)
        .map(|s| {
            let operations = 2.0 * s.products as f64;
            let intensity = operations / (s.read_bytes + s.written_bytes).max(1) as f64;
            let unit = 2.0 * s.peak_products as f64 * arch.clock_mhz / 1e3;
            RooflinePoint {
                name: s.name.clone(),
                operations_per_byte: intensity,
                attained_gops: operations / s.latency_cycles.max(1) as f64 * arch.clock_mhz / 1e3,
                roof_gops: unit.min(intensity * 2.0 * peak_gb),
                memory_bound: intensity * 2.0 * peak_gb < unit,
            }
        })
        .collect();
    let units = [Unit::Linear, Unit::Attention, Unit::Vector]
        .into_iter()
        .map(|unit| {
            let of = |f: fn(&StepReport) -> u64| {
                steps.iter().filter(|s| s.unit == unit).map(f).sum::<u64>()
            };
            let busy = of(|s| s.latency_cycles);
            UnitReport {
                unit,
                busy_cycles: busy,
                busy_share: busy as f64 / latency.max(1) as f64,
                utilisation: of(|s| s.products) as f64
                    / of(|s| s.peak_products * s.latency_cycles).max(1) as f64,
                waiting_cycles: of(|s| s.waiting_cycles),
                frozen_cycles: of(|s| s.frozen_cycles),
                load_wait_cycles: of(|s| s.load_wait_cycles),
            }
        })
        .collect();
    let resources = resources::estimate(arch);
    let exceeds =
        [("dsp", resources.dsp, arch.device.dsp), ("bram36", resources.bram36, arch.device.bram36)]
            .into_iter()
            .filter(|(_, need, have)| need > have)
            .map(|x| x.0)
            .collect();
    Report {
        arch: arch.name.clone(),
        workload: workload.name.clone(),
        mode: options.mode,
        loads: options.loads,
        clock_mhz: arch.clock_mhz,
        array: (arch.linear.rows, arch.linear.columns),
        activation_bits: arch.formats.activation_bits,
        weight_bits: arch.formats.weight_bits,
        latency_cycles: latency,
        latency_ms: arch.milliseconds(latency),
        ideal_cycles: ideal,
        products,
        throughput_gops: 2.0 * products as f64 / seconds / 1e9,
        read_bytes: read,
        written_bytes: written,
        bandwidth_gb_per_s: (read + written) as f64 / seconds / 1e9,
        units,
        energy: energy::account(arch, events, read + written, latency),
        peak_gops,
        peak_gb_per_s: peak_gb,
        roofline,
        resources,
        exceeds,
        steps,
    }
}
