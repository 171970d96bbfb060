//! The stepped engine: cycle by cycle, as hardware would, with arbitration on
//! shared ports. Slower than the timestamp engine and simpler; where both can
//! run they give the same times.

use crate::engine::{
    Blind, Block, Bursts, Observer, Outcome, Rows, StageCount, Walker, burst_address, wait_cycle,
};
use crate::error::{Error, Result};
use crate::graph::{Access, Direction, Graph};
use std::collections::VecDeque;

struct Memory {
    access: Access,
    bursts: Bursts,
    /// Requests sent (reads) or bursts begun (writes).
    sent: u64,
    /// Bursts finished or answered, as seen at the start of a cycle.
    done: u64,
    /// Times from which a requested burst can be delivered.
    ready: VecDeque<u64>,
    /// Beats read that the stage has not yet taken: the adapter of the port has room for all
    /// bursts under way, so the data bus never waits for a stage.
    buffered: u64,
    /// Bursts delivered or being delivered.
    delivered: u64,
    /// Write responses under way.
    answers: VecDeque<u64>,
    last_answer: u64,
}

struct State {
    walker: Walker,
    /// Local clock: enabled cycles so far.
    local: u64,
    next_local: u64,
    flights: VecDeque<(u64, u32)>,
    memory: Option<Memory>,
    finish_local: u64,
    finished: bool,
    count: StageCount,
}

/// One direction of a port: who may use it and whose data it carries. Reads are
/// arbitrated by burst, writes by beat (each stage has its adapter's buffer).
#[derive(Default)]
struct Channel {
    masters: Vec<usize>,
    owner: Option<usize>,
    /// Beats left of the owner's read burst.
    left: u64,
    next_request: usize,
    next_grant: usize,
}

/// Runs `graph` cycle by cycle.
///
/// # Errors
/// A defect of the graph, or [`Error::Deadlock`].
pub fn run(graph: &Graph) -> Result<Outcome> {
    run_with(graph, &mut Blind)
}

/// [`run`] with an observer.
///
/// # Errors
/// As [`run`].
pub fn run_with<O: Observer>(graph: &Graph, observer: &mut O) -> Result<Outcome> {
    graph.check()?;
    let mut machine = Machine::new(graph);
    let mut t = 0u64;
    // Without any start, push or wait for memory for this long, nothing will come.
    let patience = graph
        .stages
        .iter()
        .map(|s| s.latency + s.interval + longest_gap(s))
        .max()
        .unwrap_or(0)
        + graph
            .ports
            .iter()
            .map(|p| {
                p.read_overhead + p.write_overhead + p.dram.hit + p.dram.miss + p.dram.refresh + 2
            })
            .max()
            .unwrap_or(0)
        + 2;
    let mut last_moved = 0;
    while !machine.states.iter().all(|s| s.finished) {
        if machine.cycle(t, observer) {
            last_moved = t;
        } else if t - last_moved > patience {
            let blocks = machine.blocks();
            let cycle = wait_cycle(graph, &blocks)?;
            let at_cycle = machine.states.iter().map(|s| s.count.last_start).max().unwrap_or(0);
            return Err(Error::Deadlock { at_cycle, cycle });
        }
        t += 1;
    }
    let stages: Vec<StageCount> = machine
        .states
        .iter()
        .map(|s| {
            let mut count = s.count;
            if let Some(m) = &s.memory {
                count.finish = count.finish.max(m.last_answer);
            }
            count
        })
        .collect();
    Ok(Outcome { cycles: stages.iter().map(|s| s.finish).max().unwrap_or(0), stages })
}

fn longest_gap(stage: &crate::graph::Stage) -> u64 {
    stage.program.iter().map(|p| p.gap).max().unwrap_or(0)
}

struct Machine<'g> {
    graph: &'g Graph,
    states: Vec<State>,
    /// Tokens in each FIFO at the start of the cycle.
    level: Vec<u64>,
    /// Pushes minus pops of this cycle.
    delta: Vec<i64>,
    /// Read and write channel of each port.
    channels: Vec<[Channel; 2]>,
    rows: Vec<Rows>,
}

const fn side(direction: Direction) -> usize {
    match direction {
        Direction::Read => 0,
        Direction::Write => 1,
    }
}

impl<'g> Machine<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut channels: Vec<[Channel; 2]> =
            graph.ports.iter().map(|_| Default::default()).collect();
        for (s, stage) in graph.stages.iter().enumerate() {
            if let Some(a) = stage.access {
                channels[a.port.0][side(a.direction)].masters.push(s);
            }
        }
        let states = graph
            .stages
            .iter()
            .map(|stage| {
                let walker = Walker::new(stage);
                State {
                    local: 0,
                    next_local: walker.gap,
                    walker,
                    flights: VecDeque::new(),
                    memory: stage.access.map(|access| Memory {
                        access,
                        bursts: Bursts::new(
                            stage.iterations(),
                            graph.ports[access.port.0].burst_beats,
                        ),
                        sent: 0,
                        done: 0,
                        ready: VecDeque::new(),
                        buffered: 0,
                        delivered: 0,
                        answers: VecDeque::new(),
                        last_answer: 0,
                    }),
                    finish_local: 0,
                    finished: false,
                    count: StageCount::default(),
                }
            })
            .collect();
        Self {
            states,
            level: graph.fifos.iter().map(|f| f.initial).collect(),
            delta: vec![0; graph.fifos.len()],
            channels,
            rows: graph.ports.iter().map(|p| Rows::new(p.dram.banks)).collect(),
            graph,
        }
    }

    /// One cycle; true if anything moved.
    fn cycle<O: Observer>(&mut self, t: u64, observer: &mut O) -> bool {
        let mut moved = self.requests(t);
        moved |= self.data(t);
        for s in 0..self.states.len() {
            moved |= self.stage(s, t, observer);
        }
        for (level, delta) in self.level.iter_mut().zip(&mut self.delta) {
            *level = level.wrapping_add_signed(core::mem::take(delta));
        }
        moved
    }

    /// Address channels: one read request a port and cycle, round robin.
    fn requests(&mut self, t: u64) -> bool {
        let mut moved = false;
        for (p, port) in self.graph.ports.iter().enumerate() {
            for state in &mut self.states {
                if let Some(m) = state.memory.as_mut().filter(|m| m.access.port.0 == p) {
                    while m.answers.front().is_some_and(|a| *a < t) {
                        m.answers.pop_front();
                        m.done += 1;
                    }
                }
            }
            if port.dram.after_refresh(t) != t {
                continue;
            }
            let channel = &mut self.channels[p][0];
            let n = channel.masters.len();
            for k in 0..n {
                let index = (channel.next_request + k) % n;
                let Some(m) = &mut self.states[channel.masters[index]].memory else { continue };
                if m.sent < m.bursts.count() && m.sent - m.done < port.outstanding {
                    let latency = self.rows[p].access(port, burst_address(&m.access, port, m.sent));
                    m.ready.push_back(t + port.read_overhead + latency);
                    m.sent += 1;
                    channel.next_request = (index + 1) % n;
                    moved = true;
                    break;
                }
            }
        }
        moved
    }

    /// Data channels. A free read channel takes the next burst that is ready, a
    /// write channel one beat of a stage that has one; both round robin.
    fn data(&mut self, t: u64) -> bool {
        let mut moved = false;
        for p in 0..self.channels.len() {
            let port = &self.graph.ports[p];
            let channel = &mut self.channels[p][0];
            let n = channel.masters.len();
            if channel.left == 0 {
                let ready = |k: &usize| {
                    let memory = &self.states[channel.masters[(channel.next_grant + k) % n]].memory;
                    memory.as_ref().is_some_and(|m| m.ready.front().is_some_and(|r| *r <= t))
                };
                if let Some(k) = (0..n).find(ready) {
                    let index = (channel.next_grant + k) % n;
                    channel.next_grant = (index + 1) % n;
                    channel.owner = Some(channel.masters[index]);
                    if let Some(m) = &mut self.states[channel.masters[index]].memory {
                        m.ready.pop_front();
                        let before = m.delivered * port.burst_beats;
                        channel.left = port.burst_beats.min(m.bursts.total - before);
                        m.delivered += 1;
                    }
                }
            }
            if channel.left > 0 {
                channel.left -= 1;
                moved = true;
                if let Some(m) = channel.owner.and_then(|s| self.states[s].memory.as_mut()) {
                    m.buffered += 1;
                }
            }
            let channel = &self.channels[p][1];
            let n = channel.masters.len();
            let winner = (0..n).map(|k| (channel.next_grant + k) % n).find(|index| {
                let s = channel.masters[*index];
                self.states[s].memory.as_ref().is_some_and(|m| {
                    (!m.bursts.at_first() || m.sent - m.done < port.outstanding) && self.wants(s)
                })
            });
            let channel = &mut self.channels[p][1];
            channel.owner = winner.map(|index| channel.masters[index]);
            if let Some(index) = winner {
                channel.next_grant = (index + 1) % n;
            }
        }
        moved
    }

    /// Whether a stage would start now if the memory let it.
    fn wants(&self, s: usize) -> bool {
        let state = &self.states[s];
        self.frozen_by(s).is_none()
            && !state.walker.done
            && state.local >= state.next_local
            && self.missing(s).is_none()
    }

    fn missing(&self, s: usize) -> Option<usize> {
        self.states[s]
            .walker
            .inputs
            .iter()
            .find(|(f, c)| c.hits() && self.level[*f] == 0)
            .map(|x| x.0)
    }

    fn frozen_by(&self, s: usize) -> Option<usize> {
        let state = &self.states[s];
        let &(due, mask) = state.flights.front()?;
        if due != state.local {
            return None;
        }
        let outputs = &self.graph.stages[s].outputs;
        (0..outputs.len())
            .filter(|slot| mask >> slot & 1 == 1)
            .map(|slot| outputs[slot].0)
            .find(|f| self.level[*f] == self.graph.fifos[*f].depth)
    }

    fn stage<O: Observer>(&mut self, s: usize, t: u64, observer: &mut O) -> bool {
        if self.states[s].finished {
            return false;
        }
        if self.frozen_by(s).is_some() {
            self.states[s].count.frozen_cycles += 1;
            return false;
        }
        let stage = &self.graph.stages[s];
        let mut moved = false;
        if let Some(&(due, mask)) = self.states[s].flights.front()
            && due == self.states[s].local
        {
            for (slot, f) in stage.outputs.iter().enumerate() {
                if mask >> slot & 1 == 1 {
                    self.delta[f.0] += 1;
                    observer.push(f.0, t);
                }
            }
            self.states[s].flights.pop_front();
            moved = true;
        }
        let can = !self.states[s].walker.done && self.states[s].local >= self.states[s].next_local;
        if can {
            let granted = match (&self.states[s].memory, stage.access) {
                (Some(m), Some(a)) if a.direction == Direction::Read => m.buffered > 0,
                (_, Some(a)) => self.channels[a.port.0][1].owner == Some(s),
                _ => true,
            };
            if self.missing(s).is_none() && granted {
                self.start(s, t, observer);
                moved = true;
            } else {
                self.states[s].count.waiting_cycles += 1;
            }
        }
        let state = &mut self.states[s];
        if state.walker.done && state.flights.is_empty() && state.local >= state.finish_local {
            state.count.finish = t;
            state.finished = true;
            moved = true;
        }
        state.local += 1;
        moved
    }

    fn start<O: Observer>(&mut self, s: usize, t: u64, observer: &mut O) {
        let stage = &self.graph.stages[s];
        let state = &mut self.states[s];
        observer.start(s, t);
        for (f, cursor) in &state.walker.inputs {
            if cursor.hits() {
                self.delta[*f] -= 1;
                observer.pop(*f, t);
            }
        }
        if let Some(m) = &mut state.memory {
            let port = &self.graph.ports[m.access.port.0];
            let direction = m.access.direction;
            match direction {
                Direction::Read => m.buffered -= 1,
                Direction::Write => m.sent += u64::from(m.bursts.at_first()),
            }
            if m.bursts.step() {
                // Seen by the address channel from the next cycle on.
                m.answers.push_back(match direction {
                    Direction::Read => t,
                    Direction::Write => {
                        m.last_answer = t + port.write_overhead;
                        m.last_answer
                    }
                });
            }
        }
        let mask = state.walker.pushes();
        if mask != 0 {
            state.flights.push_back((state.local + stage.latency, mask));
        }
        if state.count.iterations == 0 {
            state.count.first_start = t;
        }
        state.count.iterations += 1;
        state.count.last_start = t;
        state.finish_local = state.local + stage.latency;
        state.walker.step(stage);
        state.next_local = state.local + stage.interval + state.walker.gap;
    }

    fn blocks(&self) -> Vec<Block> {
        (0..self.states.len())
            .map(|s| {
                if self.states[s].finished {
                    return Block::Done;
                }
                if let Some(f) = self.frozen_by(s) {
                    return Block::Full(f);
                }
                if let Some(f) = self.missing(s) {
                    return Block::Empty(f);
                }
                Block::Done
            })
            .collect()
    }
}
