//! Leaps over periods. The network is deterministic and, without DRAM timing,
//! does not know what time it is: when two pictures of it, each relative to its
//! own moment, are equal, all that happened between them repeats until a phase,
//! a window or a list of bursts ends.

use super::Machine;
use crate::engine::Cursor;
use crate::graph::{Direction, Graph};
use std::collections::VecDeque;

/// A picture of the network relative to one moment.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    /// Everything that decides the future, relative to `base`.
    shape: Vec<u64>,
    base: u64,
    /// By stage: iterations, frozen cycles.
    marks: Vec<[u64; 2]>,
}

/// Pictures that are kept: periods of up to this many rounds are found at once.
const PICTURES: usize = 16;

/// Finds periods and leaps over them. A picture is taken whenever the stage
/// with the most work comes round to the start of its longest window, and
/// compared with the last few; where rounds are short or nothing repeats, ever
/// more rarely.
pub(super) struct Leaper {
    enabled: bool,
    /// The stage that sets the rhythm.
    lead: usize,
    lead_position: u64,
    kept: VecDeque<Snapshot>,
    passes: u64,
    next: u64,
    distance: u64,
    misses: u32,
}

impl Leaper {
    pub(super) fn new(enabled: bool, graph: &Graph) -> Self {
        let lead =
            (0..graph.stages.len()).max_by_key(|s| graph.stages[*s].iterations()).unwrap_or(0);
        Self {
            enabled,
            lead,
            lead_position: 0,
            kept: VecDeque::new(),
            passes: 0,
            next: 0,
            distance: 1,
            misses: 0,
        }
    }

    pub(super) fn pass(&mut self, machine: &mut Machine<'_>) {
        if !self.enabled {
            return;
        }
        self.passes += 1;
        let walker = &machine.states[self.lead].walker;
        let longest =
            walker.inputs.iter().chain(&walker.outputs).map(|x| x.1).max_by_key(Cursor::period);
        let position = longest.map_or(0, |c| c.pos);
        let wrapped = position <= self.lead_position;
        self.lead_position = position;
        if !wrapped || self.passes < self.next {
            return;
        }
        self.next = self.passes + self.distance;
        let mut now = if self.kept.len() == PICTURES {
            self.kept.pop_front().unwrap_or_default()
        } else {
            Snapshot::default()
        };
        machine.picture(&mut now);
        match self.kept.iter().rev().find(|old| old.shape == now.shape && old.base < now.base) {
            Some(old) => {
                machine.leap(old, &now);
                // What comes next (the end of a phase) is new and has its own period.
                self.kept.clear();
                self.distance = 1;
                self.misses = 0;
            }
            None => {
                self.kept.push_back(now);
                self.misses += 1;
                if self.misses.is_multiple_of(2 * PICTURES as u32) {
                    self.distance *= 2;
                }
            }
        }
    }
}

impl Machine<'_> {
    fn picture(&self, into: &mut Snapshot) {
        into.shape.clear();
        into.marks.clear();
        let shape = &mut into.shape;
        for state in &self.states {
            let w = &state.walker;
            shape.extend([w.phase as u64, u64::from(w.done)]);
            for (_, c) in w.inputs.iter().chain(&w.outputs) {
                shape.extend([c.pos, u64::from(c.left == 0)]);
            }
        }
        // A stage that is done has a frozen clock; the moment is the first live one's.
        let base = self
            .states
            .iter()
            .find(|s| !s.walker.done)
            .map_or(0, |s| s.next_local + s.frozen_issue);
        into.base = base;
        for (s, state) in self.states.iter().enumerate() {
            let now = state.next_local + state.frozen_issue;
            shape.push(u64::from(self.awake[s]));
            if !state.walker.done {
                let idle = self.idle_until(s).is_some();
                shape.extend([
                    if idle { u64::MAX } else { now.wrapping_sub(base) },
                    state.walker.gap,
                ]);
            }
            shape.push(state.flights.len() as u64);
            for (due, mask) in &state.flights {
                shape.extend([(due + state.frozen_push).wrapping_sub(base), u64::from(*mask)]);
            }
            shape.push(state.freezes.len() as u64);
            for (due, total) in &state.freezes {
                shape.extend([
                    (due + state.frozen_issue).wrapping_sub(base),
                    total - state.frozen_issue,
                ]);
            }
            if let Some(m) = &state.memory {
                shape.extend([
                    m.bursts.beat % m.bursts.size,
                    m.done.len() as u64,
                    u64::from(m.ready.is_some()),
                ]);
                shape.push(m.ready.map_or(0, |r| r.max(now).wrapping_sub(base)));
                let read = self.graph.stages[s].access.filter(|a| a.direction == Direction::Read);
                if let Some(access) = read.filter(|_| !state.walker.done) {
                    // Requests that ran so far ahead that their data is there delay nothing, nor
                    // will later ones: they follow at one a cycle, and bursts take no less.
                    let there = m.next_request + self.graph.ports[access.port.0].read_overhead;
                    shape.push(there.max(now).wrapping_sub(base));
                }
                for d in &m.done {
                    shape.push(d.wrapping_sub(base));
                }
            }
            into.marks.push([state.count.iterations, state.frozen_issue]);
        }
        for (queue, (from, to)) in self.queues.iter().zip(&self.ends) {
            let (writer, reader) = (self.past(*from), self.past(*to));
            let relative = |t: &u64, past: u64| {
                if *t <= past { 0 } else { t.wrapping_sub(base).wrapping_add(1) }
            };
            shape.push(queue.tokens.len() as u64);
            shape.extend(queue.tokens.iter().map(|t| relative(t, reader)));
            shape.extend(queue.slots.iter().map(|t| relative(t, writer)));
        }
    }

    /// A stage that waits for a token of a stage that is ahead of it: nothing
    /// older than that stage's last start can matter to it any more.
    fn idle_until(&self, s: usize) -> Option<u64> {
        let state = &self.states[s];
        if state.walker.done
            || !state.flights.is_empty()
            || !state.freezes.is_empty()
            || state.memory.is_some()
        {
            return None;
        }
        let now = state.next_local + state.frozen_issue;
        state
            .walker
            .inputs
            .iter()
            .filter(|(f, c)| c.hits() && self.queues[*f].tokens.is_empty())
            .filter_map(|(f, _)| self.states.get(self.ends[*f].0))
            .map(|writer| writer.count.last_start)
            .filter(|t| *t > now)
            .max()
    }

    /// Times up to this one cannot delay anything that the stage has yet to do.
    fn past(&self, s: usize) -> u64 {
        match self.states.get(s) {
            None => u64::MAX,
            Some(x) if x.walker.done && x.flights.is_empty() => u64::MAX,
            Some(x) if x.walker.done => 0,
            Some(x) => self.idle_until(s).unwrap_or(if x.count.iterations == 0 {
                0
            } else {
                x.count.last_start
            }),
        }
    }

    /// Repeats what happened between two equal pictures as often as no phase,
    /// window or burst list ends.
    fn leap(&mut self, old: &Snapshot, new: &Snapshot) {
        let mut times = u64::MAX;
        for (s, ((state, a), b)) in self.states.iter().zip(&old.marks).zip(&new.marks).enumerate() {
            let di = b[0] - a[0];
            if di == 0 {
                continue;
            }
            let w = &state.walker;
            let mut room = w.left.saturating_sub(1);
            for (_, c) in w.inputs.iter().chain(&w.outputs) {
                room = room.min(c.room().saturating_sub(1));
            }
            if let Some(m) = &state.memory {
                room = room.min((m.bursts.total - m.bursts.beat).saturating_sub(m.bursts.size));
                let outstanding = self.graph.stages[s]
                    .access
                    .map_or(0, |a| self.graph.ports[a.port.0].outstanding);
                if m.burst < outstanding {
                    // The first bursts need not wait for earlier ones.
                    room =
                        room.min(((outstanding - m.burst - 1) * m.bursts.size).saturating_sub(1));
                }
            }
            times = times.min(room / di);
        }
        if times == 0 || times == u64::MAX {
            return;
        }
        let shift = (new.base - old.base) * times;
        let past: Vec<u64> = (0..self.states.len()).map(|s| self.past(s)).collect();
        let past = |s: usize| past.get(s).copied().unwrap_or(u64::MAX);
        for ((state, stage), (a, b)) in
            self.states.iter_mut().zip(&self.graph.stages).zip(old.marks.iter().zip(&new.marks))
        {
            let (di, df) = ((b[0] - a[0]) * times, (b[1] - a[1]) * times);
            if di == 0 {
                // Idle in the period: its clock stands still, and so do its flights.
                continue;
            }
            // The clock of a stage that waited at the first picture may have stood anywhere
            // before it; from the second on it moves with the period.
            let dl = shift - df;
            state.count.iterations += di;
            state.count.waiting_cycles += dl - di * stage.interval;
            state.count.last_start += shift;
            state.next_local += dl;
            state.last_local += dl;
            state.frozen_issue += df;
            state.frozen_push += df;
            for flight in &mut state.flights {
                flight.0 += dl;
            }
            for freeze in &mut state.freezes {
                freeze.0 += dl;
                freeze.1 += df;
            }
            state.walker.left -= di;
            for (_, c) in state.walker.inputs.iter_mut().chain(&mut state.walker.outputs) {
                c.leap(di);
            }
            if let Some(m) = &mut state.memory {
                m.burst += di / m.bursts.size;
                m.bursts.beat += di;
                m.next_request += shift;
                m.ready = m.ready.map(|r| r + shift);
                m.answered += shift;
                for d in &mut m.done {
                    *d += shift;
                }
            }
        }
        for (queue, (from, to)) in self.queues.iter_mut().zip(&self.ends) {
            let (writer, reader) = (past(*from), past(*to));
            for t in queue.tokens.iter_mut().filter(|t| **t > reader) {
                *t += shift;
            }
            for t in queue.slots.iter_mut().filter(|t| **t > writer) {
                *t += shift;
            }
        }
    }
}
