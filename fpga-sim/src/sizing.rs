//! FIFO depths: which would break a deadlock, and which are enough for full
//! speed. Both replay the timing only, on the timestamp engine (the stepped
//! one where ports are shared).

use crate::engine::{Recorder, WaitCycle};
use crate::error::{Error, Result};
use crate::graph::{Graph, MAX_DEPTH};
use crate::simulate::run_graph;
use crate::{stepped, timestamp};

/// Runs `graph`; a deadlock comes back with the FIFO depths that would break
/// it, the smallest found for one FIFO after the other.
///
/// # Errors
/// As [`run_graph`]; [`Error::Deadlock`] names depths wherever depths help.
///
/// ```
/// use undertone_fpga_sim::{Error, graph::{Graph, Window}, sizing};
/// // Ten tokens by `slow` before the first by `fast`, but the join wants both in turn.
/// let mut g = Graph::default();
/// let (a, b) = (g.fifo("slow", 4, 32), g.fifo("fast", 4, 32));
/// g.stage("fork", 1, 1, 20, &[], &[(a, Window::prefix(10, 20)), (b, Window { period: 20, from: 10, to: 20, step: 1, until: u64::MAX })]);
/// g.stage("join", 1, 1, 10, &[(a, Window::ALWAYS), (b, Window::ALWAYS)], &[]);
/// let Err(Error::Deadlock { cycle, .. }) = sizing::run(&g) else { panic!() };
/// assert_eq!(cycle.enough, [("slow".to_string(), 10)]);
/// ```
pub fn run(graph: &Graph) -> Result<crate::engine::Outcome> {
    match run_graph(graph) {
        Ok((outcome, _)) => Ok(outcome),
        Err(Error::Deadlock { at_cycle, cycle }) => {
            let enough = unblock(graph, &cycle)?;
            Err(Error::Deadlock { at_cycle, cycle: WaitCycle { enough, ..cycle } })
        }
        Err(e) => Err(e),
    }
}

fn deadlocks(graph: &Graph) -> Result<Option<WaitCycle>> {
    match run_graph(graph) {
        Ok(_) => Ok(None),
        Err(Error::Deadlock { cycle, .. }) => Ok(Some(cycle)),
        Err(e) => Err(e),
    }
}

fn unblock(graph: &Graph, cycle: &WaitCycle) -> Result<Vec<(String, u64)>> {
    let mut wide = graph.clone();
    let mut touched: Vec<usize> = Vec::new();
    let mut now = Some(cycle.clone());
    // Widen what is full until it runs; another cycle of waits may come to light on the way.
    while let Some(cycle) = now {
        let mut widened = false;
        for wait in cycle.waits.iter().filter(|w| w.reason == "full") {
            if let Some(f) =
                wide.fifos.iter().position(|f| f.name == wait.on && f.depth <= MAX_DEPTH / 2)
            {
                wide.fifos[f].depth *= 2;
                widened = true;
                if !touched.contains(&f) {
                    touched.push(f);
                }
            }
        }
        if !widened {
            // Nothing is full: depths do not help.
            return Ok(Vec::new());
        }
        now = deadlocks(&wide)?;
    }
    let mut enough = Vec::new();
    for f in touched {
        shrink(&mut wide, f, graph.fifos[f].depth, |g| Ok(deadlocks(g)?.is_none()))?;
        if wide.fifos[f].depth > graph.fifos[f].depth {
            enough.push((wide.fifos[f].name.clone(), wide.fifos[f].depth));
        }
    }
    Ok(enough)
}

/// The smallest depth of FIFO `f`, from `least` on, for which `good` holds; it must hold now.
fn shrink(
    graph: &mut Graph,
    f: usize,
    least: u64,
    good: impl Fn(&Graph) -> Result<bool>,
) -> Result<()> {
    let (mut low, mut high) = (least.max(graph.fifos[f].initial).max(1), graph.fifos[f].depth);
    while low < high {
        let middle = low + (high - low) / 2;
        graph.fifos[f].depth = middle;
        if good(graph)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    graph.fifos[f].depth = high;
    Ok(())
}

/// The depths of one minimal sizing, with its time.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Sizing {
    /// Cycles with FIFOs of any depth, which the depths below keep.
    pub cycles: u64,
    /// Name and depth of each FIFO.
    pub depths: Vec<(String, u64)>,
    /// Runs that it took.
    pub replays: u64,
}

/// The smallest depths that keep the time of unbounded FIFOs, found for one
/// FIFO after the other, none of which can shrink alone. The first run records
/// how full each FIFO gets, which bounds every search from above.
///
/// # Errors
/// As [`run_graph`].
pub fn minimal(graph: &Graph) -> Result<Sizing> {
    let mut sized = graph.clone();
    let iterations: u64 = graph.stages.iter().map(|s| s.iterations()).max().unwrap_or(1);
    for fifo in &mut sized.fifos {
        fifo.depth = iterations.clamp(fifo.depth.max(1), MAX_DEPTH);
    }
    let mut record = Recorder::new(&sized);
    let cycles = match timestamp::run_with(&sized, timestamp::Options::default(), &mut record) {
        Ok(outcome) => outcome.cycles,
        Err(Error::Shared { .. }) => {
            record = Recorder::new(&sized);
            stepped::run_with(&sized, &mut record)?.cycles
        }
        Err(e) => return Err(e),
    };
    for (fifo, most) in sized.fifos.iter_mut().zip(record.occupancy(graph)) {
        fifo.depth = most.max(1);
    }
    let replays = core::cell::Cell::new(1);
    for f in 0..sized.fifos.len() {
        shrink(&mut sized, f, 1, |g| {
            replays.set(replays.get() + 1);
            match run_graph(g) {
                Ok((outcome, _)) => Ok(outcome.cycles <= cycles),
                Err(Error::Deadlock { .. }) => Ok(false),
                Err(e) => Err(e),
            }
        })?;
    }
    let depths = sized.fifos.iter().map(|f| (f.name.clone(), f.depth)).collect();
    Ok(Sizing { cycles, depths, replays: replays.get() })
}
