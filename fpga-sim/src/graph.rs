//! Dataflow graphs built from a handful of parts: stages, bounded FIFOs and
//! memory ports. A source is a stage without inputs, a sink one without
//! outputs; a memory reader or writer is a stage bound to a port; ping-pong
//! buffers are two FIFOs, one of them holding initial tokens
//! (see [`Graph::ping_pong`]).
//!
//! # The contract that every engine and the RTL keep
//! - A stage is a pipeline with a clock enable. In an enabled cycle it may
//!   start one iteration; the tokens of an iteration leave `latency` enabled
//!   cycles after its start. Starts lie at least `interval` enabled cycles
//!   apart.
//! - An iteration starts only if every FIFO that it reads holds a token;
//!   otherwise the pipeline runs on with a bubble.
//! - If a token that is due finds its FIFO full, the whole stage freezes for
//!   that cycle: nothing starts, nothing moves. All tokens of an iteration
//!   leave together.
//! - FIFOs are registered: a token pushed in cycle `t` can be popped from
//!   `t + 1` on, a slot freed in cycle `t` can be filled from `t + 1` on.

use crate::error::{Error, Result};

/// Index of a stage in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageId(pub usize);
/// Index of a FIFO in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FifoId(pub usize);
/// Index of a port in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub usize);

/// In which iterations of a phase a stage touches a FIFO: iteration `i` does
/// if `i % period` is one of `from`, `from + step`, … below `to`, and `i < until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Length of the repeating pattern in iterations, at least 1.
    pub period: u64,
    /// First iteration of the pattern that touches the FIFO.
    pub from: u64,
    /// First one after it that does not.
    pub to: u64,
    /// Distance between the iterations that do, at least 1.
    pub step: u64,
    /// Iterations of the phase from here on never do.
    pub until: u64,
}

impl Window {
    /// Every iteration.
    pub const ALWAYS: Self = Self { period: 1, from: 0, to: 1, step: 1, until: u64::MAX };
    /// No iteration.
    pub const NEVER: Self = Self { period: 1, from: 0, to: 0, step: 1, until: u64::MAX };
    /// The first of every `period` iterations.
    pub const fn first_of(period: u64) -> Self {
        Self { period, from: 0, to: 1, step: 1, until: u64::MAX }
    }
    /// The last of every `period` iterations.
    pub const fn last_of(period: u64) -> Self {
        Self { period, from: period - 1, to: period, step: 1, until: u64::MAX }
    }
    /// The first `count` of every `period` iterations.
    pub const fn prefix(count: u64, period: u64) -> Self {
        Self { period, from: 0, to: count, step: 1, until: u64::MAX }
    }
    /// Every `step`-th iteration of the first `count·step` of every `period`.
    pub const fn comb(count: u64, step: u64, period: u64) -> Self {
        Self { period, from: 0, to: (count - 1) * step + 1, step, until: u64::MAX }
    }
    /// The same pattern, silent from iteration `until` on.
    pub const fn until(self, until: u64) -> Self {
        Self { until, ..self }
    }
    /// How many of the first `iterations` iterations touch the FIFO.
    ///
    /// ```
    /// use undertone_fpga_sim::graph::Window;
    /// assert_eq!(Window::last_of(24).count(48), 2);
    /// assert_eq!(Window::prefix(3, 10).until(11).count(100), 4);
    /// ```
    pub const fn count(&self, iterations: u64) -> u64 {
        let n = if iterations < self.until { iterations } else { self.until };
        let rest = n % self.period;
        let end = if rest < self.to { rest } else { self.to };
        let hits = self.to.saturating_sub(self.from).div_ceil(self.step);
        (n / self.period) * hits + end.saturating_sub(self.from).div_ceil(self.step)
    }
}

/// A run of iterations with one pattern per FIFO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Iterations, at least 1.
    pub iterations: u64,
    /// Enabled cycles that pass before the first iteration, on top of the
    /// interval: what a loop that is not flattened loses between two rounds.
    pub gap: u64,
    /// One window for each input of the stage.
    pub inputs: Vec<Window>,
    /// One window for each output of the stage.
    pub outputs: Vec<Window>,
}

/// Which side of a port a stage uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// One beat read for each iteration.
    Read,
    /// One beat written for each iteration.
    Write,
}

/// A stage's use of a memory port: every iteration moves one beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The port.
    pub port: PortId,
    /// Read or write.
    pub direction: Direction,
    /// First byte.
    pub address: u64,
    /// Bytes after which the addresses begin again at `address`; a multiple of the beat.
    pub region_bytes: u64,
}

/// One process of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name, unique in the graph.
    pub name: String,
    /// Enabled cycles between two starts, at least 1.
    pub interval: u64,
    /// Enabled cycles from start to push, at least 1.
    pub latency: u64,
    /// FIFOs it reads.
    pub inputs: Vec<FifoId>,
    /// FIFOs it writes.
    pub outputs: Vec<FifoId>,
    /// What it does, in order.
    pub program: Vec<Phase>,
    /// The memory port that it uses, if any.
    pub access: Option<Access>,
}

impl Stage {
    /// Iterations over the whole program.
    pub fn iterations(&self) -> u64 {
        self.program.iter().map(|p| p.iterations).fold(0, u64::saturating_add)
    }
}

/// A bounded queue with one writer and one reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fifo {
    /// Its name, unique in the graph.
    pub name: String,
    /// Tokens it holds, at least 1.
    pub depth: u64,
    /// Tokens in it at cycle 0.
    pub initial: u64,
    /// Bits of a token (resources and energy only).
    pub width_bits: u32,
}

/// An AXI-like port on external memory: one read and one write channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Bytes of one beat.
    pub beat_bytes: u64,
    /// Beats of a full burst.
    pub burst_beats: u64,
    /// Bursts under way at once, for each master.
    pub outstanding: u64,
    /// Cycles from a read request to its first beat, before DRAM timing.
    pub read_overhead: u64,
    /// Cycles from the last beat of a write burst to its response.
    pub write_overhead: u64,
    /// DRAM behind the port.
    pub dram: Dram,
}

/// Open-row DRAM timing in cycles of the fabric clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dram {
    /// Banks; 0 switches row timing off.
    pub banks: u64,
    /// Bytes of a row.
    pub row_bytes: u64,
    /// Column access of an open row.
    pub hit: u64,
    /// Precharge, activate and column access of another row.
    pub miss: u64,
    /// Cycles between refreshes; 0 switches refresh off.
    pub refresh_interval: u64,
    /// Cycles that a refresh blocks requests.
    pub refresh: u64,
}

impl Dram {
    /// The first cycle at or after `t` in which a request is taken.
    pub(crate) const fn after_refresh(&self, t: u64) -> u64 {
        if self.refresh_interval == 0 || t < self.refresh_interval {
            return t;
        }
        let into = t % self.refresh_interval;
        if into < self.refresh { t - into + self.refresh } else { t }
    }
}

/// A network of stages, FIFOs and ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// Stages.
    pub stages: Vec<Stage>,
    /// FIFOs.
    pub fifos: Vec<Fifo>,
    /// Memory ports.
    pub ports: Vec<Port>,
}

/// Deeper FIFOs are refused.
pub(crate) const MAX_DEPTH: u64 = 1 << 20;
/// More cycles than this are refused.
pub(crate) const MAX_CYCLES: u64 = 1 << 62;

impl Graph {
    /// Adds a FIFO.
    pub fn fifo(&mut self, name: &str, depth: u64, width_bits: u32) -> FifoId {
        self.fifos.push(Fifo { name: name.into(), depth, initial: 0, width_bits });
        FifoId(self.fifos.len() - 1)
    }

    /// Adds a port.
    pub fn port(&mut self, port: Port) -> PortId {
        self.ports.push(port);
        PortId(self.ports.len() - 1)
    }

    /// Adds a stage with one phase; `inputs` and `outputs` pair FIFOs with windows.
    pub fn stage(
        &mut self,
        name: &str,
        interval: u64,
        latency: u64,
        iterations: u64,
        inputs: &[(FifoId, Window)],
        outputs: &[(FifoId, Window)],
    ) -> StageId {
        let phase = Phase {
            iterations,
            gap: 0,
            inputs: inputs.iter().map(|x| x.1).collect(),
            outputs: outputs.iter().map(|x| x.1).collect(),
        };
        self.stages.push(Stage {
            name: name.into(),
            interval,
            latency,
            inputs: inputs.iter().map(|x| x.0).collect(),
            outputs: outputs.iter().map(|x| x.0).collect(),
            program: vec![phase],
            access: None,
        });
        StageId(self.stages.len() - 1)
    }

    /// Binds a stage to a memory port.
    pub fn bind(&mut self, stage: StageId, access: Access) {
        self.stages[stage.0].access = Some(access);
    }

    /// The two FIFOs of a pair of buffers: `full` carries a filled buffer to
    /// its user, `free` carries it back and starts with both. The loader pops
    /// `free` in its first iteration of a round and pushes `full` in its last;
    /// the user pops `full` first and pushes `free` last.
    pub fn ping_pong(&mut self, name: &str) -> (FifoId, FifoId) {
        let full = self.fifo(&format!("{name}.full"), 2, 1);
        let free = self.fifo(&format!("{name}.free"), 2, 1);
        self.fifos[free.0].initial = 2;
        (full, free)
    }

    /// Checks the graph: depths, windows, balance of tokens, cycles, ports and
    /// counters. Every engine calls it first.
    ///
    /// # Errors
    /// The first defect found, by name.
    pub fn check(&self) -> Result<()> {
        for fifo in &self.fifos {
            if fifo.depth == 0 {
                return Err(Error::ZeroDepth { fifo: fifo.name.clone() });
            }
            if fifo.depth > MAX_DEPTH {
                return Err(Error::TooDeep { fifo: fifo.name.clone(), depth: fifo.depth });
            }
            if fifo.initial > fifo.depth {
                return Err(Error::Unbalanced {
                    fifo: fifo.name.clone(),
                    pushed: fifo.initial,
                    popped: fifo.depth,
                });
            }
        }
        for port in &self.ports {
            for (field, value) in [
                ("beat_bytes", port.beat_bytes),
                ("burst_beats", port.burst_beats),
                ("outstanding", port.outstanding),
            ] {
                if value == 0 {
                    return Err(Error::ZeroBandwidth { port: port.name.clone(), field });
                }
            }
        }
        for stage in &self.stages {
            self.check_stage(stage)?;
        }
        self.check_balance()?;
        self.check_cycles()
    }

    fn check_stage(&self, stage: &Stage) -> Result<()> {
        let bad = |reason| Err(Error::Stage { stage: stage.name.clone(), reason });
        if stage.interval == 0 || stage.latency == 0 {
            return bad("interval and latency must be at least 1");
        }
        if stage.program.is_empty() {
            return bad("its program is empty");
        }
        let mut cycles = stage.latency;
        for phase in &stage.program {
            if phase.iterations == 0 {
                return bad("a phase has no iterations");
            }
            if phase.inputs.len() != stage.inputs.len()
                || phase.outputs.len() != stage.outputs.len()
            {
                return bad("a phase needs one window for each FIFO");
            }
            for w in phase.inputs.iter().chain(&phase.outputs) {
                if w.period == 0 || w.step == 0 || w.from > w.to || w.to > w.period {
                    return bad("a window needs from <= to <= period, period >= 1 and step >= 1");
                }
            }
            cycles = phase
                .iterations
                .checked_mul(stage.interval)
                .and_then(|c| c.checked_add(phase.gap))
                .and_then(|c| c.checked_add(cycles))
                .filter(|c| *c < MAX_CYCLES)
                .ok_or_else(|| Error::Overflow { at: stage.name.clone() })?;
        }
        if stage.inputs.iter().chain(&stage.outputs).any(|f| f.0 >= self.fifos.len()) {
            return bad("names a FIFO that the graph lacks");
        }
        if let Some(access) = stage.access {
            let Some(port) = self.ports.get(access.port.0) else {
                return bad("names a port that the graph lacks");
            };
            if access.region_bytes < port.beat_bytes {
                return bad("its memory region is smaller than a beat");
            }
        }
        Ok(())
    }

    /// Writer and reader of each FIFO, by index.
    pub(crate) fn ends(&self) -> Result<Vec<(usize, usize)>> {
        let mut ends = vec![(usize::MAX, usize::MAX); self.fifos.len()];
        for (index, stage) in self.stages.iter().enumerate() {
            let bad = |reason| Err(Error::Stage { stage: stage.name.clone(), reason });
            for f in &stage.outputs {
                if ends[f.0].0 != usize::MAX {
                    return bad("writes a FIFO that already has a writer");
                }
                ends[f.0].0 = index;
            }
            for f in &stage.inputs {
                if ends[f.0].1 != usize::MAX {
                    return bad("reads a FIFO that already has a reader");
                }
                ends[f.0].1 = index;
            }
        }
        Ok(ends)
    }

    fn check_balance(&self) -> Result<()> {
        let ends = self.ends()?;
        for (index, fifo) in self.fifos.iter().enumerate() {
            let count = |stage: usize, output: bool| -> u64 {
                let Some(stage) = self.stages.get(stage) else { return 0 };
                let list = if output { &stage.outputs } else { &stage.inputs };
                let Some(slot) = list.iter().position(|f| f.0 == index) else { return 0 };
                stage
                    .program
                    .iter()
                    .map(|p| if output { &p.outputs } else { &p.inputs }[slot].count(p.iterations))
                    .fold(0, u64::saturating_add)
            };
            let (pushed, popped) = (count(ends[index].0, true), count(ends[index].1, false));
            if pushed != popped {
                return Err(Error::Unbalanced { fifo: fifo.name.clone(), pushed, popped });
            }
        }
        Ok(())
    }

    fn check_cycles(&self) -> Result<()> {
        let ends = self.ends()?;
        // Depth-first search over FIFOs without initial tokens; colours: 0 new, 1 open, 2 done.
        let mut next = vec![Vec::new(); self.stages.len()];
        for (fifo, (from, to)) in self.fifos.iter().zip(&ends) {
            if fifo.initial == 0 && *from != usize::MAX && *to != usize::MAX {
                next[*from].push(*to);
            }
        }
        let mut colour = vec![0u8; self.stages.len()];
        for root in 0..self.stages.len() {
            if colour[root] != 0 {
                continue;
            }
            let mut path = vec![(root, 0usize)];
            colour[root] = 1;
            while let Some((node, edge)) = path.last_mut() {
                if let Some(&to) = next[*node].get(*edge) {
                    *edge += 1;
                    match colour[to] {
                        0 => {
                            colour[to] = 1;
                            path.push((to, 0));
                        }
                        1 => {
                            let stages = path
                                .iter()
                                .map(|x| x.0)
                                .skip_while(|x| *x != to)
                                .map(|x| self.stages[x].name.clone())
                                .collect();
                            return Err(Error::Cyclic { stages });
                        }
                        _ => {}
                    }
                } else {
                    colour[*node] = 2;
                    path.pop();
                }
            }
        }
        Ok(())
    }
}
