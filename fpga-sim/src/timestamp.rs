//! The timestamp engine: a Kahn network in which every stage runs ahead on
//! its own clock and FIFOs carry times instead of tokens. It never steps a
//! cycle, leaps over whole periods once the network repeats itself, and gives
//! exactly the stepped engine's times wherever no port is shared.

mod leap;

use crate::engine::{
    Blind, Block, Bursts, Observer, Outcome, Rows, StageCount, Walker, burst_address, wait_cycle,
};
use crate::error::{Error, Result};
use crate::graph::{Direction, Graph};
use leap::Leaper;
use std::collections::VecDeque;

/// Times at which tokens can be popped and slots can be filled.
#[derive(Debug, Clone)]
struct Queue {
    tokens: VecDeque<u64>,
    slots: VecDeque<u64>,
}

/// A memory stage's bursts.
#[derive(Debug, Clone)]
struct Memory {
    bursts: Bursts,
    burst: u64,
    /// Earliest cycle of the next request.
    next_request: u64,
    /// When the last `outstanding` bursts were finished (reads) or answered (writes).
    done: VecDeque<u64>,
    /// Start of the next beat, once known.
    ready: Option<u64>,
    answered: u64,
}

#[derive(Debug, Clone)]
struct State {
    walker: Walker,
    /// Enabled cycles are counted on a local clock; global = local + frozen cycles before.
    next_local: u64,
    /// Frozen cycles known at the point of issue and at the point of pushing.
    frozen_issue: u64,
    frozen_push: u64,
    /// Iterations under way: local time of their push, and its outputs.
    flights: VecDeque<(u64, u32)>,
    /// Freezes that the point of issue has not yet passed: local time, total after it.
    freezes: VecDeque<(u64, u64)>,
    memory: Option<Memory>,
    last_local: u64,
    count: StageCount,
}

impl State {
    /// Does at once the iterations that wait for nothing and touch nothing: no FIFO, no end of a
    /// burst or phase, no push of their own that may yet freeze them.
    fn hurry(&mut self, interval: u64) {
        if self.walker.done || self.walker.gap > 0 || !self.freezes.is_empty() {
            return;
        }
        let mut n = self.walker.quiet();
        if let Some(memory) = &self.memory {
            n = n.min(memory.bursts.inside());
        }
        if let Some((due, _)) = self.flights.front() {
            n = n.min(due.saturating_sub(self.next_local).div_ceil(interval));
        }
        if n == 0 {
            return;
        }
        self.walker.skip(n);
        if let Some(memory) = &mut self.memory {
            memory.bursts.beat += n;
        }
        self.last_local = self.next_local + (n - 1) * interval;
        self.next_local += n * interval;
        self.count.iterations += n;
        self.count.last_start = self.last_local + self.frozen_issue;
    }
}

/// Options of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Leap over periods (exact; off only to measure the plain engine).
    pub leap: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { leap: true }
    }
}

/// Runs `graph` and returns its times.
///
/// # Errors
/// A defect of the graph, [`Error::Shared`] if stages share a channel of a
/// port, or [`Error::Deadlock`].
///
/// ```
/// use undertone_fpga_sim::graph::{Graph, Window};
/// let mut g = Graph::default();
/// let f = g.fifo("x", 2, 32);
/// g.stage("source", 1, 1, 100, &[], &[(f, Window::ALWAYS)]);
/// g.stage("sink", 1, 3, 100, &[(f, Window::ALWAYS)], &[]);
/// // 1 cycle to leave the source, 1 to cross the FIFO, 3 in the sink, 99 more tokens.
/// assert_eq!(undertone_fpga_sim::timestamp::run(&g)?.cycles, 1 + 1 + 3 + 99);
/// # Ok::<(), undertone_fpga_sim::Error>(())
/// ```
pub fn run(graph: &Graph) -> Result<Outcome> {
    run_with(graph, Options::default(), &mut Blind)
}

/// [`run`] with options and an observer.
///
/// # Errors
/// As [`run`].
pub fn run_with<O: Observer>(graph: &Graph, options: Options, observer: &mut O) -> Result<Outcome> {
    graph.check()?;
    for (index, port) in graph.ports.iter().enumerate() {
        for direction in [Direction::Read, Direction::Write] {
            let masters = graph
                .stages
                .iter()
                .filter(|s| s.access.is_some_and(|a| a.port.0 == index && a.direction == direction))
                .count();
            if masters > 1 {
                return Err(Error::Shared { port: port.name.clone(), masters });
            }
        }
    }
    Machine::new(graph)?.run(options.leap && !O::ACTIVE, observer)
}

struct Machine<'g> {
    graph: &'g Graph,
    ends: Vec<(usize, usize)>,
    queues: Vec<Queue>,
    states: Vec<State>,
    rows: Vec<Rows>,
    /// Stages that may be able to move.
    awake: Vec<bool>,
}

impl<'g> Machine<'g> {
    fn new(graph: &'g Graph) -> Result<Self> {
        let queues = graph
            .fifos
            .iter()
            .map(|f| Queue {
                tokens: (0..f.initial).map(|_| 0).collect(),
                slots: (0..f.depth - f.initial).map(|_| 0).collect(),
            })
            .collect();
        let states = graph
            .stages
            .iter()
            .map(|s| {
                let walker = Walker::new(s);
                State {
                    next_local: walker.gap,
                    walker,
                    frozen_issue: 0,
                    frozen_push: 0,
                    flights: VecDeque::new(),
                    freezes: VecDeque::new(),
                    memory: s.access.map(|a| Memory {
                        bursts: Bursts::new(s.iterations(), graph.ports[a.port.0].burst_beats),
                        burst: 0,
                        next_request: 0,
                        done: VecDeque::new(),
                        ready: None,
                        answered: 0,
                    }),
                    last_local: 0,
                    count: StageCount::default(),
                }
            })
            .collect();
        Ok(Self {
            ends: graph.ends()?,
            queues,
            states,
            rows: graph.ports.iter().map(|p| Rows::new(p.dram.banks)).collect(),
            awake: vec![true; graph.stages.len()],
            graph,
        })
    }

    fn run<O: Observer>(mut self, leap: bool, observer: &mut O) -> Result<Outcome> {
        // DRAM rows and refresh depend on absolute addresses and times: no leaps then.
        let timed =
            self.graph.ports.iter().any(|p| p.dram.banks > 0 || p.dram.refresh_interval > 0);
        let mut leaper = Leaper::new(leap && !timed, self.graph);
        loop {
            let mut moved = false;
            for s in 0..self.states.len() {
                if core::mem::take(&mut self.awake[s]) {
                    moved |= self.advance(s, observer);
                }
            }
            if !moved {
                break;
            }
            leaper.pass(&mut self);
        }
        self.finish()
    }

    /// Runs a stage until it blocks; true if anything happened.
    fn advance<O: Observer>(&mut self, s: usize, observer: &mut O) -> bool {
        let mut moved = false;
        loop {
            moved |= self.push(s, observer);
            if self.issue(s, observer) != Ok(()) {
                return moved;
            }
            moved = true;
        }
    }

    /// Gives times to all pushes whose slots are known.
    fn push<O: Observer>(&mut self, s: usize, observer: &mut O) -> bool {
        let state = &mut self.states[s];
        let stage = &self.graph.stages[s];
        let mut moved = false;
        while let Some(&(due, mask)) = state.flights.front() {
            let mut at = due + state.frozen_push;
            let mut bits = mask;
            while bits != 0 {
                let f = stage.outputs[bits.trailing_zeros() as usize].0;
                match self.queues[f].slots.front() {
                    Some(free) => at = at.max(*free),
                    None => return moved,
                }
                bits &= bits - 1;
            }
            if at > due + state.frozen_push {
                state.frozen_push = at - due;
                state.freezes.push_back((due, state.frozen_push));
            }
            let mut bits = mask;
            while bits != 0 {
                let f = stage.outputs[bits.trailing_zeros() as usize].0;
                self.queues[f].slots.pop_front();
                self.queues[f].tokens.push_back(at + 1);
                self.awake[self.ends[f].1] = true;
                observer.push(f, at);
                bits &= bits - 1;
            }
            state.flights.pop_front();
            moved = true;
        }
        moved
    }

    /// Starts one iteration, or says why not.
    fn issue<O: Observer>(
        &mut self,
        s: usize,
        observer: &mut O,
    ) -> core::result::Result<(), Block> {
        let stage = &self.graph.stages[s];
        let state = &mut self.states[s];
        if state.walker.done {
            return Err(Block::Done);
        }
        let mut at = state.next_local + state.frozen_issue;
        for (f, cursor) in &state.walker.inputs {
            if cursor.hits() {
                match self.queues[*f].tokens.front() {
                    Some(token) => at = at.max(*token),
                    None => return Err(Block::Empty(*f)),
                }
            }
        }
        if let (Some(memory), Some(access)) = (&mut state.memory, &stage.access)
            && memory.bursts.at_first()
        {
            let port = &self.graph.ports[access.port.0];
            let rows = &mut self.rows[access.port.0];
            let ready = *memory.ready.get_or_insert_with(|| {
                let held = memory.burst >= port.outstanding;
                let freed = if held { memory.done.pop_front().map_or(0, |d| d + 1) } else { 0 };
                match access.direction {
                    Direction::Write => freed,
                    Direction::Read => {
                        let t = port.dram.after_refresh(freed.max(memory.next_request));
                        memory.next_request = t + 1;
                        let address = burst_address(access, port, memory.burst);
                        t + port.read_overhead + rows.access(port, address)
                    }
                }
            });
            at = at.max(ready);
        }
        // Freezes that lie before this start delay it; one that is not yet known blocks it.
        while let Some(&(due, total)) = state.freezes.front() {
            if due + state.frozen_issue > at {
                break;
            }
            state.frozen_issue = total;
            at = at.max(due + total).max(state.next_local + total);
            state.freezes.pop_front();
        }
        if state.freezes.is_empty()
            && let Some(&(due, mask)) = state.flights.front()
            && due + state.frozen_issue <= at
        {
            let full = (0..stage.outputs.len())
                .filter(|slot| mask >> slot & 1 == 1)
                .map(|slot| stage.outputs[slot].0)
                .find(|f| self.queues[*f].slots.is_empty());
            return Err(full.map_or(Block::Done, Block::Full));
        }
        let local = at - state.frozen_issue;
        state.count.waiting_cycles += local - state.next_local;
        if state.count.iterations == 0 {
            state.count.first_start = at;
        }
        state.count.iterations += 1;
        state.count.last_start = at;
        observer.start(s, at);
        for (f, cursor) in &state.walker.inputs {
            if cursor.hits() {
                self.queues[*f].tokens.pop_front();
                self.queues[*f].slots.push_back(at + 1);
                self.awake[self.ends[*f].0] = true;
                observer.pop(*f, at);
            }
        }
        if let (Some(memory), Some(access)) = (&mut state.memory, &stage.access) {
            memory.ready = None;
            if memory.bursts.step() {
                memory.burst += 1;
                let port = &self.graph.ports[access.port.0];
                let finished = match access.direction {
                    Direction::Read => at,
                    Direction::Write => {
                        memory.answered = at + port.write_overhead;
                        memory.answered
                    }
                };
                if memory.bursts.count() - memory.burst >= port.outstanding {
                    memory.done.push_back(finished);
                }
            }
        }
        let mask = state.walker.pushes();
        if mask != 0 {
            state.flights.push_back((local + stage.latency, mask));
        }
        state.last_local = local;
        state.walker.step(stage);
        state.next_local = local + stage.interval + state.walker.gap;
        if !O::ACTIVE {
            state.hurry(stage.interval);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome> {
        if self.states.iter().any(|s| !s.walker.done || !s.flights.is_empty()) {
            let at_cycle = self.states.iter().map(|s| s.count.last_start).max().unwrap_or(0);
            let blocks: Vec<Block> = (0..self.states.len())
                .map(|s| {
                    if let Some((_, mask)) = self.states[s].flights.front() {
                        let outputs = &self.graph.stages[s].outputs;
                        let full = (0..outputs.len())
                            .filter(|slot| mask >> slot & 1 == 1)
                            .map(|slot| outputs[slot].0)
                            .find(|f| self.queues[*f].slots.is_empty());
                        return full.map_or(Block::Done, Block::Full);
                    }
                    self.issue(s, &mut Blind).err().unwrap_or(Block::Done)
                })
                .collect();
            let cycle = wait_cycle(self.graph, &blocks)?;
            return Err(Error::Deadlock { at_cycle, cycle });
        }
        let mut cycles = 0;
        let stages = self
            .states
            .iter()
            .zip(&self.graph.stages)
            .map(|(state, stage)| {
                let mut count = state.count;
                count.frozen_cycles = state.frozen_push;
                count.finish = state.last_local + stage.latency + state.frozen_push;
                if let Some(m) = &state.memory {
                    count.finish = count.finish.max(m.answered);
                }
                cycles = cycles.max(count.finish);
                count
            })
            .collect();
        Ok(Outcome { cycles, stages })
    }
}
