//! VCD of one dataflow graph, and of the schedule of a whole run.

use crate::engine::Recorder;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::mapping::Unit;
use crate::simulate::Report;
use crate::{stepped, timestamp};
use std::io::Write;

/// More events than this are not written: a wave that large opens nowhere.
const MOST_EVENTS: usize = 20_000_000;

/// Runs `graph` and writes a wave: for each stage a bit that is high in the
/// cycles in which an iteration starts, for each FIFO its level. One cycle is
/// `picoseconds` long.
///
/// # Errors
/// As the engines, or [`Error::Io`].
pub fn vcd(graph: &Graph, picoseconds: u64, out: impl Write) -> Result<()> {
    let mut record = Recorder::new(graph);
    match timestamp::run_with(graph, timestamp::Options::default(), &mut record) {
        Err(Error::Shared { .. }) => {
            record = Recorder::new(graph);
            stepped::run_with(graph, &mut record)?
        }
        other => other?,
    };
    write(graph, &record, picoseconds, out)
        .map_err(|e| Error::Io { path: "VCD".into(), reason: e.to_string() })
}

/// The schedule of a run: for each unit a bit that is high while one of its
/// operators runs, one for waits for weights, and the operator's name as text
/// (a string variable, as GTKWave shows it).
///
/// # Errors
/// [`Error::Io`].
pub fn schedule_vcd(report: &Report, out: impl Write) -> Result<()> {
    let picoseconds = (1e6 / report.clock_mhz) as u64;
    let write = || -> std::io::Result<()> {
        let mut w = vcd::Writer::new(std::io::BufWriter::new(out));
        w.timescale(1, vcd::TimescaleUnit::PS)?;
        w.add_module("schedule")?;
        let units = [Unit::Linear, Unit::Attention, Unit::Vector]
            .map(|unit| (unit, format!("{unit:?}").to_lowercase()))
            .map(|(unit, name)| w.add_wire(1, &name).map(|id| (unit, id)));
        let units = units.into_iter().collect::<std::io::Result<Vec<_>>>()?;
        let waits = w.add_wire(1, "waits_for_weights")?;
        let name = w.add_var(vcd::VarType::String, 1, "operator", None)?;
        w.upscope()?;
        w.enddefinitions()?;
        w.timestamp(0)?;
        for (_, id) in &units {
            w.change_scalar(*id, false)?;
        }
        w.change_scalar(waits, false)?;
        for s in &report.steps {
            if s.load_wait_cycles > 0 {
                w.timestamp((s.start_cycles - s.load_wait_cycles) * picoseconds)?;
                for (_, id) in &units {
                    w.change_scalar(*id, false)?;
                }
                w.change_scalar(waits, true)?;
            }
            w.timestamp(s.start_cycles * picoseconds)?;
            w.change_scalar(waits, false)?;
            for (unit, id) in &units {
                w.change_scalar(*id, *unit == s.unit)?;
            }
            w.change_string(name, &s.name.replace(char::is_whitespace, "_"))?;
        }
        w.timestamp(report.latency_cycles * picoseconds)?;
        for (_, id) in &units {
            w.change_scalar(*id, false)?;
        }
        w.flush()
    };
    write().map_err(|e| Error::Io { path: "VCD".into(), reason: e.to_string() })
}

fn write(
    graph: &Graph,
    record: &Recorder,
    picoseconds: u64,
    out: impl Write,
) -> std::io::Result<()> {
    let events: usize =
        record.starts.iter().chain(&record.pushes).chain(&record.pops).map(Vec::len).sum();
    if events > MOST_EVENTS {
        return Err(std::io::Error::other(format!(
            "{events} events; at most {MOST_EVENTS} are written"
        )));
    }
    let mut w = vcd::Writer::new(std::io::BufWriter::new(out));
    w.timescale(1, vcd::TimescaleUnit::PS)?;
    w.add_module("dataflow")?;
    let name = |n: &str| n.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let starts: Vec<_> = graph
        .stages
        .iter()
        .map(|s| w.add_wire(1, &name(&s.name)))
        .collect::<std::io::Result<_>>()?;
    let levels: Vec<_> = graph
        .fifos
        .iter()
        .map(|f| w.add_wire(32, &format!("level_{}", name(&f.name))))
        .collect::<std::io::Result<_>>()?;
    w.upscope()?;
    w.enddefinitions()?;
    // Changes by time: a start rises in its cycle and falls in the next; levels change one
    // cycle after push and pop, as registers do.
    let mut changes: Vec<(u64, usize, i64)> = Vec::with_capacity(2 * events);
    for (s, times) in record.starts.iter().enumerate() {
        for t in times {
            changes.push((*t, s, 1));
            changes.push((*t + 1, s, -1));
        }
    }
    let base = graph.stages.len();
    for (f, (pushes, pops)) in record.pushes.iter().zip(&record.pops).enumerate() {
        changes.extend(pushes.iter().map(|t| (*t + 1, base + f, 1)));
        changes.extend(pops.iter().map(|t| (*t + 1, base + f, -1)));
    }
    changes.sort_unstable();
    let mut values: Vec<i64> =
        (0..base).map(|_| 0).chain(graph.fifos.iter().map(|f| f.initial as i64)).collect();
    let put = |w: &mut vcd::Writer<_>, signal: usize, value: i64| -> std::io::Result<()> {
        if signal < base {
            w.change_scalar(starts[signal], value > 0)
        } else {
            w.change_vector(
                levels[signal - base],
                (0..32).rev().map(|b| (value >> b & 1 == 1).into()),
            )
        }
    };
    w.timestamp(0)?;
    for (signal, value) in values.iter().enumerate() {
        put(&mut w, signal, *value)?;
    }
    let mut i = 0;
    while i < changes.len() {
        let t = changes[i].0;
        let mut written = false;
        while i < changes.len() && changes[i].0 == t {
            let signal = changes[i].1;
            let old = values[signal];
            while i < changes.len() && changes[i].0 == t && changes[i].1 == signal {
                values[signal] += changes[i].2;
                i += 1;
            }
            if values[signal] != old {
                if !written {
                    w.timestamp(t * picoseconds)?;
                    written = true;
                }
                put(&mut w, signal, values[signal])?;
            }
        }
    }
    w.flush()
}
