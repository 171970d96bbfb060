//! Energy by component. Every figure is an event count times an entry of a
//! published table, times the architecture's declared scale; static power is a
//! declared constant. Nothing here is measured, and no constant is fitted
//! unless the architecture says so.

use crate::arch::Arch;
use crate::mapping::Unit;
use crate::workload::{Operator, Step, Weighting};
use serde::Serialize;

/// An entry of a published energy table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Entry {
    /// Identifier used in reports.
    pub id: &'static str,
    /// What one event is.
    pub event: &'static str,
    /// Picojoules for one event.
    pub pj: f64,
    /// Where it is printed.
    pub source: &'static str,
}

const HOROWITZ: &str = "M. Horowitz, ISSCC 2014, 45 nm";

/// Integer addition of 8 bits.
pub const ADD8: Entry =
    Entry { id: "int_add_8", event: "8-bit integer addition", pj: 0.03, source: HOROWITZ };
/// Integer addition of 32 bits.
pub const ADD32: Entry =
    Entry { id: "int_add_32", event: "32-bit integer addition", pj: 0.1, source: HOROWITZ };
/// Integer product of 8 bits.
pub const MUL8: Entry =
    Entry { id: "int_mul_8", event: "8-bit integer product", pj: 0.2, source: HOROWITZ };
/// Integer product of 32 bits.
pub const MUL32: Entry =
    Entry { id: "int_mul_32", event: "32-bit integer product", pj: 3.1, source: HOROWITZ };
/// 64 bits from an 8 KB memory: the nearest entry to a 4.5 KB block RAM.
pub const SRAM8K: Entry =
    Entry { id: "sram_8k", event: "64 bits of an 8 KB SRAM", pj: 10.0, source: HOROWITZ };
/// 64 bits from DRAM, the low end of the printed range (the high end is twice that).
pub const DRAM: Entry = Entry {
    id: "dram",
    event: "64 bits of DRAM, low end of 1300–2600",
    pj: 1300.0,
    source: HOROWITZ,
};

/// The whole table.
pub const TABLE: [Entry; 6] = [ADD8, ADD32, MUL8, MUL32, SRAM8K, DRAM];

/// One line of the account.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// `linear`, `attention`, `softmax`, `vector`, `on_chip_memory`, `external_memory`, `static`.
    pub component: &'static str,
    /// Table entry, or `static_mw`.
    pub entry: &'static str,
    /// Events; for `static`, cycles.
    pub events: u64,
    /// Picojoules in all.
    pub energy_pj: f64,
    /// Change of the total, in percent, if the constant were 20 % larger (the
    /// account is linear: 20 % smaller gives the opposite).
    pub sensitivity_20_percent: f64,
}

/// The account of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// Lines, largest components as they come.
    pub lines: Vec<Line>,
    /// Sum.
    pub total_pj: f64,
    /// Sum without static power.
    pub dynamic_pj: f64,
    /// Mean power over the run in milliwatts.
    pub mean_power_mw: f64,
    /// Origin of the constants that no table gives.
    pub declared: Vec<String>,
    /// Entries used, with their sources.
    pub table: Vec<Entry>,
}

/// Events of one kind in one component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    component: &'static str,
    entry: usize,
    count: u64,
}

fn product(bits: u32) -> usize {
    if bits <= 8 { 2 } else { 3 }
}

fn addition(bits: u32) -> usize {
    usize::from(bits > 8)
}

/// Events of an operator besides external memory.
pub fn events(arch: &Arch, step: &Step, busy_cycles: u64) -> Vec<Events> {
    let (a, w) = (arch.formats.activation_bits, arch.formats.weight_bits);
    let products = step.operator.products();
    let component = match step.operator.unit() {
        Unit::Linear => "linear",
        Unit::Attention => "attention",
        Unit::Vector => "vector",
    };
    let mut out = Vec::new();
    let mut add = |component, entry, count| out.push(Events { component, entry, count });
    let words64 = |bits: u64| bits.div_ceil(64);
    match &step.operator {
        Operator::Linear { tokens, outputs, gelu, .. } => {
            add(component, product(a.max(w)), products);
            add(component, addition(a), products);
            let fetched = arch.linear.rows * arch.linear.columns * u64::from(w)
                + arch.linear.rows * u64::from(a);
            add("on_chip_memory", 4, busy_cycles * words64(fetched));
            if *gelu {
                // One table pair, one product, two additions.
                add("vector", product(a), tokens * outputs);
                add("vector", addition(a), 2 * tokens * outputs);
                add("on_chip_memory", 4, tokens * outputs);
            }
        }
        Operator::Experts { queues, hidden, .. } => {
            add(component, product(a.max(w)), products);
            add(component, addition(a), products);
            let fetched = arch.linear.rows * arch.linear.columns * u64::from(w)
                + arch.linear.rows * u64::from(a);
            add("on_chip_memory", 4, busy_cycles * words64(fetched));
            let values = queues.iter().sum::<u64>() * hidden;
            add("vector", product(a), values);
            add("vector", addition(a), 2 * values);
            add("on_chip_memory", 4, values);
        }
        Operator::Scores { tokens, heads, weighting, .. }
        | Operator::Mix { tokens, heads, weighting, .. } => {
            match weighting {
                // XNOR and population count: a bit's share of an 8-bit addition.
                Weighting::BiVit => add(component, 0, products / 8),
                Weighting::EcoFormer { .. } => add(component, addition(a), products),
                _ => {
                    add(component, product(a), products);
                    add(component, addition(a), products);
                }
            }
            let fetched = (arch.attention.lanes + 1) * arch.attention.block_words * u64::from(a);
            add("on_chip_memory", 4, busy_cycles * words64(fetched));
            let scores = tokens * tokens * heads;
            match weighting {
                Weighting::Softmax => {
                    add("softmax", product(a), scores);
                    add("softmax", addition(a), 2 * scores);
                    add("on_chip_memory", 4, scores);
                }
                Weighting::Power => add("softmax", product(a), scores),
                Weighting::ReluSoftmax | Weighting::BiVit => add("softmax", addition(a), scores),
                Weighting::Scaling | Weighting::EcoFormer { .. } => {}
            }
        }
        Operator::Norm { tokens, dim } => {
            add(component, product(a), 4 * tokens * dim);
            add(component, addition(a), 4 * tokens * dim);
        }
        Operator::Add { tokens, dim } => add(component, addition(a), tokens * dim),
        Operator::Elementwise { tokens, dim } => {
            add(component, product(a), tokens * dim);
            add(component, addition(a), tokens * dim);
        }
        Operator::Gate { tokens, experts, .. } => {
            add(component, product(a), products + 2 * tokens * experts);
            add(component, addition(a), products + 4 * tokens * experts);
        }
    }
    out
}

/// Adds up a run.
pub fn account(arch: &Arch, events: &[Events], external_bytes: u64, cycles: u64) -> Account {
    let mut lines: Vec<Line> = Vec::new();
    let external =
        Events { component: "external_memory", entry: 5, count: external_bytes.div_ceil(8) };
    for e in events.iter().chain([&external]) {
        let entry = &TABLE[e.entry];
        let energy_pj = e.count as f64 * entry.pj * arch.energy.scale;
        match lines.iter_mut().find(|l| l.component == e.component && l.entry == entry.id) {
            Some(line) => {
                line.events += e.count;
                line.energy_pj += energy_pj;
            }
            None => lines.push(Line {
                component: e.component,
                entry: entry.id,
                events: e.count,
                energy_pj,
                sensitivity_20_percent: 0.0,
            }),
        }
    }
    let dynamic_pj = lines.iter().map(|l| l.energy_pj).sum();
    // 1 mW for 1 µs is 1 nJ: mW · cycles / MHz = nJ.
    let static_pj = arch.energy.static_mw * cycles as f64 / arch.clock_mhz * 1e3;
    lines.push(Line {
        component: "static",
        entry: "static_mw",
        events: cycles,
        energy_pj: static_pj,
        sensitivity_20_percent: 0.0,
    });
    let total_pj: f64 = dynamic_pj + static_pj;
    for line in &mut lines {
        line.sensitivity_20_percent =
            if total_pj > 0.0 { 20.0 * line.energy_pj / total_pj } else { 0.0 };
    }
    let micros = cycles as f64 / arch.clock_mhz;
    Account {
        lines,
        total_pj,
        dynamic_pj,
        mean_power_mw: if micros > 0.0 { total_pj / micros / 1e3 } else { 0.0 },
        declared: vec![
            format!("static_mw = {}: {}", arch.energy.static_mw, arch.energy.static_source),
            format!("scale = {}: {}", arch.energy.scale, arch.energy.scale_source),
        ],
        table: TABLE.to_vec(),
    }
}
