//! What the engines have in common: results, observers, the report of a
//! deadlock, and the cursor that walks a stage's program.

use crate::error::Result;
use crate::graph::{Graph, Stage, Window};
use serde::Serialize;

/// What one stage did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StageCount {
    /// Iterations done.
    pub iterations: u64,
    /// Cycle of the first start.
    pub first_start: u64,
    /// Cycle of the last start.
    pub last_start: u64,
    /// Cycle in which its last token left (or its last write was answered).
    pub finish: u64,
    /// Cycles frozen because a FIFO it writes was full.
    pub frozen_cycles: u64,
    /// Enabled cycles in which it could have started but for an empty FIFO or the memory.
    pub waiting_cycles: u64,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Cycles from the first start to the last finish.
    pub cycles: u64,
    /// One entry a stage, in the graph's order.
    pub stages: Vec<StageCount>,
}

/// Sees every start and push of a run, in each stage's own order.
pub trait Observer {
    /// Whether anything is observed; `false` lets the timestamp engine leap over periods.
    const ACTIVE: bool = true;
    /// `stage` starts an iteration in `cycle`.
    fn start(&mut self, stage: usize, cycle: u64) {
        let _ = (stage, cycle);
    }
    /// `stage` pushes to `fifo` in `cycle`.
    fn push(&mut self, fifo: usize, cycle: u64) {
        let _ = (fifo, cycle);
    }
    /// `fifo` is popped in `cycle`.
    fn pop(&mut self, fifo: usize, cycle: u64) {
        let _ = (fifo, cycle);
    }
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blind;
impl Observer for Blind {
    const ACTIVE: bool = false;
}

/// Keeps every start, push and pop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorder {
    /// Start cycles by stage.
    pub starts: Vec<Vec<u64>>,
    /// Push cycles by FIFO.
    pub pushes: Vec<Vec<u64>>,
    /// Pop cycles by FIFO.
    pub pops: Vec<Vec<u64>>,
}

impl Recorder {
    /// An empty record for `graph`.
    pub fn new(graph: &Graph) -> Self {
        Self {
            starts: vec![Vec::new(); graph.stages.len()],
            pushes: vec![Vec::new(); graph.fifos.len()],
            pops: vec![Vec::new(); graph.fifos.len()],
        }
    }
    /// The largest number of tokens that each FIFO held.
    pub fn occupancy(&self, graph: &Graph) -> Vec<u64> {
        graph
            .fifos
            .iter()
            .enumerate()
            .map(|(f, fifo)| {
                let (pushes, pops) = (&self.pushes[f], &self.pops[f]);
                let (mut popped, mut most) = (0, fifo.initial);
                for (k, at) in pushes.iter().enumerate() {
                    // A slot freed in cycle t counts as taken until t + 1.
                    while pops.get(popped).is_some_and(|p| p < at) {
                        popped += 1;
                    }
                    most = most.max(fifo.initial + k as u64 + 1 - popped as u64);
                }
                most
            })
            .collect()
    }
}

impl Observer for Recorder {
    fn start(&mut self, stage: usize, cycle: u64) {
        self.starts[stage].push(cycle);
    }
    fn push(&mut self, fifo: usize, cycle: u64) {
        self.pushes[fifo].push(cycle);
    }
    fn pop(&mut self, fifo: usize, cycle: u64) {
        self.pops[fifo].push(cycle);
    }
}

/// Why a stage cannot move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// Waits for a token in this FIFO.
    Empty(usize),
    /// Waits for room in this FIFO.
    Full(usize),
    /// Nothing left to do.
    Done,
}

/// One wait of a deadlock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// The stage that waits.
    pub stage: String,
    /// `empty` or `full`.
    pub reason: &'static str,
    /// FIFO that it waits for.
    pub on: String,
    /// The stage that would have to move.
    pub holder: String,
}

/// A cycle of stages each of which waits for the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct WaitCycle {
    /// The waits in order; the last holder is the first stage.
    pub waits: Vec<Wait>,
    /// FIFO depths with which the run would finish: name and depth. Empty if none was found.
    pub enough: Vec<(String, u64)>,
}

impl core::fmt::Display for WaitCycle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, w) in self.waits.iter().enumerate() {
            let lead = if i == 0 { "" } else { "; " };
            write!(f, "{lead}`{}` waits for `{}` ({} `{}`)", w.stage, w.holder, w.reason, w.on)?;
        }
        for (i, (name, depth)) in self.enough.iter().enumerate() {
            let lead = if i == 0 { ". Enough: " } else { ", " };
            write!(f, "{lead}`{name}` depth {depth}")?;
        }
        Ok(())
    }
}

/// Follows the waits from a blocked stage until they close.
pub(crate) fn wait_cycle(graph: &Graph, blocks: &[Block]) -> Result<WaitCycle> {
    let ends = graph.ends()?;
    let Some(mut at) = blocks.iter().position(|b| *b != Block::Done) else {
        return Ok(WaitCycle::default());
    };
    let (mut seen, mut waits) = (vec![usize::MAX; blocks.len()], Vec::<Wait>::new());
    loop {
        if seen[at] != usize::MAX {
            waits.drain(..seen[at]);
            break;
        }
        seen[at] = waits.len();
        let (reason, on, holder) = match blocks[at] {
            Block::Empty(f) => ("empty", graph.fifos[f].name.clone(), ends[f].0),
            Block::Full(f) => ("full", graph.fifos[f].name.clone(), ends[f].1),
            Block::Done => break,
        };
        let name = |s: usize| {
            graph.stages.get(s).map_or_else(|| "nobody".into(), |s: &Stage| s.name.clone())
        };
        waits.push(Wait { stage: name(at), reason, on, holder: name(holder) });
        if holder == usize::MAX {
            break;
        }
        at = holder;
    }
    Ok(WaitCycle { waits, enough: Vec::new() })
}

/// A window and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    period: u64,
    from: u64,
    to: u64,
    stride: u64,
    /// Position in the pattern.
    pub(crate) pos: u64,
    /// Iterations before the window falls silent.
    pub(crate) left: u64,
}

impl Cursor {
    pub(crate) fn new(w: &Window) -> Self {
        Self { period: w.period, from: w.from, to: w.to, stride: w.step, pos: 0, left: w.until }
    }
    #[inline(always)]
    pub(crate) fn hits(&self) -> bool {
        self.pos >= self.from
            && self.pos < self.to
            && self.left > 0
            && (self.stride == 1 || (self.pos - self.from).is_multiple_of(self.stride))
    }
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        self.pos += 1;
        if self.pos == self.period {
            self.pos = 0;
        }
        self.left = self.left.saturating_sub(1);
    }
    pub(crate) fn period(&self) -> u64 {
        self.period
    }
    /// The stretch of one pattern around a position: which one, and how many iterations of it are
    /// left from there.
    pub(crate) fn stretch(&self, pos: u64) -> ((u8, u64), u64) {
        if pos < self.from {
            ((0, 0), self.from - pos)
        } else if pos < self.to {
            ((1, (pos - self.from) % self.stride), self.to - pos)
        } else {
            ((2, 0), self.period - pos)
        }
    }
    /// How many iterations from this one on do not touch the FIFO.
    pub(crate) fn quiet(&self) -> u64 {
        if self.left == 0 {
            return u64::MAX;
        }
        let wrap = self.period - self.pos + self.from;
        if self.from >= self.to {
            u64::MAX
        } else if self.pos < self.from {
            self.from - self.pos
        } else if self.pos < self.to {
            match (self.pos - self.from) % self.stride {
                0 => 0,
                n if self.pos + self.stride - n < self.to => self.stride - n,
                _ => wrap,
            }
        } else {
            wrap
        }
    }
    /// Takes `n` steps, all of them in whole periods or in one stretch.
    pub(crate) fn leap(&mut self, n: u64) {
        self.pos = (self.pos + n % self.period) % self.period;
        if self.left != u64::MAX {
            self.left = self.left.saturating_sub(n);
        }
    }
    /// Iterations that may be leapt without reaching the end of the window.
    pub(crate) fn room(&self) -> u64 {
        if self.left == 0 { u64::MAX } else { self.left }
    }
}

/// Walks a stage's program.
#[derive(Debug, Clone)]
pub(crate) struct Walker {
    pub(crate) phase: usize,
    /// Iterations left in the phase.
    pub(crate) left: u64,
    /// Cycles before the next start on top of the interval.
    pub(crate) gap: u64,
    pub(crate) inputs: Vec<(usize, Cursor)>,
    pub(crate) outputs: Vec<(usize, Cursor)>,
    pub(crate) done: bool,
}

impl Walker {
    pub(crate) fn new(stage: &Stage) -> Self {
        let mut walker = Self {
            phase: 0,
            left: 0,
            gap: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            done: false,
        };
        walker.enter(stage);
        walker
    }

    fn enter(&mut self, stage: &Stage) {
        let Some(phase) = stage.program.get(self.phase) else {
            self.done = true;
            return;
        };
        self.left = phase.iterations;
        self.gap = phase.gap;
        let pair = |fifos: &[crate::graph::FifoId], windows: &[Window]| {
            fifos.iter().zip(windows).map(|(f, w)| (f.0, Cursor::new(w))).collect()
        };
        self.inputs = pair(&stage.inputs, &phase.inputs);
        self.outputs = pair(&stage.outputs, &phase.outputs);
    }

    /// Bit mask of the outputs that this iteration pushes.
    #[inline(always)]
    pub(crate) fn pushes(&self) -> u32 {
        let mut mask = 0;
        for (slot, (_, cursor)) in self.outputs.iter().enumerate() {
            mask |= u32::from(cursor.hits()) << slot;
        }
        mask
    }

    /// How many iterations from this one on touch no FIFO and do not end the phase.
    pub(crate) fn quiet(&self) -> u64 {
        let mut n = self.left.saturating_sub(1);
        for (_, c) in self.inputs.iter().chain(&self.outputs) {
            if c.hits() {
                return 0;
            }
            n = n.min(c.quiet());
        }
        n
    }

    /// Takes `n` steps that touch no FIFO.
    pub(crate) fn skip(&mut self, n: u64) {
        self.left -= n;
        for (_, c) in self.inputs.iter_mut().chain(&mut self.outputs) {
            c.leap(n);
        }
    }

    #[inline(always)]
    pub(crate) fn step(&mut self, stage: &Stage) {
        self.gap = 0;
        self.left -= 1;
        if self.left == 0 {
            self.phase += 1;
            self.enter(stage);
            return;
        }
        for (_, c) in &mut self.inputs {
            c.step();
        }
        for (_, c) in &mut self.outputs {
            c.step();
        }
    }
}

/// Bursts of a stage on a port: which burst and beat comes next.
#[derive(Debug, Clone)]
pub(crate) struct Bursts {
    /// Beats of the whole program.
    pub(crate) total: u64,
    /// Beats done.
    pub(crate) beat: u64,
    pub(crate) size: u64,
}

impl Bursts {
    pub(crate) fn new(total: u64, size: u64) -> Self {
        Self { total, beat: 0, size }
    }
    pub(crate) fn count(&self) -> u64 {
        self.total.div_ceil(self.size)
    }
    /// Beats from the present one on that neither begin nor end a burst.
    pub(crate) fn inside(&self) -> u64 {
        match self.beat % self.size {
            0 => 0,
            n => (self.size - n).min(self.total - self.beat).saturating_sub(1),
        }
    }
    #[inline(always)]
    pub(crate) fn at_first(&self) -> bool {
        self.beat.is_multiple_of(self.size)
    }
    /// Moves one beat on; true after the last beat of a burst.
    #[inline(always)]
    pub(crate) fn step(&mut self) -> bool {
        self.beat += 1;
        self.beat.is_multiple_of(self.size) || self.beat == self.total
    }
}

/// Open rows of one port.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    open: Vec<u64>,
}

impl Rows {
    pub(crate) fn new(banks: u64) -> Self {
        Self { open: vec![u64::MAX; usize::try_from(banks.min(1 << 16)).unwrap_or(0)] }
    }
    /// Cycles of a request for `address`, and opens its row.
    pub(crate) fn access(&mut self, port: &crate::graph::Port, address: u64) -> u64 {
        if self.open.is_empty() {
            return 0;
        }
        let row = address / port.dram.row_bytes.max(1);
        let bank = usize::try_from(row % self.open.len() as u64).unwrap_or(0);
        if self.open[bank] == row {
            port.dram.hit
        } else {
            self.open[bank] = row;
            port.dram.miss
        }
    }
}

/// Address of a burst.
pub(crate) fn burst_address(
    access: &crate::graph::Access,
    port: &crate::graph::Port,
    burst: u64,
) -> u64 {
    let bytes = port.beat_bytes.saturating_mul(port.burst_beats);
    access.address.saturating_add(burst.saturating_mul(bytes) % access.region_bytes.max(1))
}
