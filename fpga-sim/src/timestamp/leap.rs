//! Leaps over periods. The network is deterministic and, without DRAM timing,
//! does not know what time it is: when two pictures of it, each relative to its
//! own moment, are equal, all that happened between them repeats until a phase,
//! a window or a list of bursts ends.

use super::Machine;
use crate::graph::{Direction, Graph};
use std::collections::VecDeque;

/// A picture of the network relative to one moment.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    /// Everything that decides the future, relative to `base`, but for the windows: stage by
    /// stage, then FIFO by FIFO.
    shape: Vec<u64>,
    /// Where each part of the shape ends.
    ends: Vec<usize>,
    /// Of each part: what changes whenever anything happens in it.
    trace: Vec<[u64; 4]>,
    base: u64,
    /// By stage: iterations, frozen cycles.
    marks: Vec<[u64; 2]>,
    /// Positions of all windows.
    windows: Vec<u64>,
}

impl Snapshot {
    fn clear(&mut self) {
        self.shape.clear();
        self.ends.clear();
        self.trace.clear();
        self.marks.clear();
        self.windows.clear();
    }

    /// Ends a part.
    fn part(&mut self, trace: [u64; 4]) {
        self.ends.push(self.shape.len());
        self.trace.push(trace);
    }

    /// Whether nothing happened in a part since `old`: a stage that waits for a FIFO in which
    /// nothing happened either. Whatever its clock says, it stays so as long as the rest repeats.
    fn rests(&self, old: &Self, part: usize) -> bool {
        old.trace[part] == self.trace[part]
    }

    /// Whether everything that moved since `old` stands as it stood.
    fn equals(&self, old: &Self) -> bool {
        let slice = |x: &Self, part: usize| {
            let from = part.checked_sub(1).map_or(0, |before| x.ends[before]);
            from..x.ends[part]
        };
        (0..self.ends.len()).all(|part| {
            self.rests(old, part) || self.shape[slice(self, part)] == old.shape[slice(old, part)]
        })
    }
}

/// Pictures that are kept: periods of up to this many rounds are found at once.
const PICTURES: usize = 16;

/// Pictures taken whenever a window comes round; where nothing repeats, ever
/// more rarely.
#[derive(Debug, Default)]
struct Rhythm {
    position: u64,
    kept: VecDeque<Snapshot>,
    next: u64,
    distance: u64,
    misses: u32,
}

impl Rhythm {
    fn clear(&mut self) {
        // Pictures that were taken are reused.
        self.kept.clear();
        self.distance = 1;
        self.misses = 0;
    }
}

/// Finds periods and leaps over them. The stage with the most work sets the
/// rhythms: one for each of the lengths of its windows, from blocks through
/// tokens to rounds, so that it is periods within periods that are leapt over.
pub(super) struct Leaper {
    enabled: bool,
    /// The stage that sets the rhythms, and the phase for which they are known.
    lead: usize,
    phase: usize,
    /// Of each rhythm: the window, by its place among inputs then outputs; short ones first.
    leads: Vec<usize>,
    rhythms: Vec<Rhythm>,
    passes: u64,
}

impl Leaper {
    pub(super) fn new(enabled: bool, graph: &Graph) -> Self {
        let lead =
            (0..graph.stages.len()).max_by_key(|s| graph.stages[*s].iterations()).unwrap_or(0);
        Self { enabled, lead, phase: usize::MAX, leads: Vec::new(), rhythms: Vec::new(), passes: 0 }
    }

    /// The windows that set the rhythms of the lead's phase.
    fn enter(&mut self, machine: &Machine<'_>) {
        let walker = &machine.states[self.lead].walker;
        self.phase = walker.phase;
        let mut windows: Vec<(u64, usize)> = walker
            .inputs
            .iter()
            .chain(&walker.outputs)
            .enumerate()
            .map(|(i, x)| (x.1.period(), i))
            .collect();
        windows.sort_unstable();
        windows.dedup_by_key(|w| w.0);
        // A window of one iteration comes round at every one.
        if windows.len() > 1 {
            windows.retain(|w| w.0 > 1);
        }
        self.leads = windows.into_iter().map(|w| w.1).collect();
        self.rhythms.resize_with(self.leads.len(), Rhythm::default);
        self.rhythms.iter_mut().for_each(Rhythm::clear);
    }

    pub(super) fn pass(&mut self, machine: &mut Machine<'_>) {
        if !self.enabled {
            return;
        }
        self.passes += 1;
        if machine.states[self.lead].walker.phase != self.phase {
            self.enter(machine);
        }
        for r in 0..self.leads.len() {
            let walker = &machine.states[self.lead].walker;
            let window = self.leads[r];
            let cursor = walker
                .inputs
                .get(window)
                .or_else(|| walker.outputs.get(window.wrapping_sub(walker.inputs.len())));
            let rhythm = &mut self.rhythms[r];
            let position = cursor.map_or(0, |c| c.1.pos);
            let wrapped = position <= rhythm.position;
            rhythm.position = position;
            if !wrapped || self.passes < rhythm.next {
                continue;
            }
            rhythm.next = self.passes + rhythm.distance;
            let mut now = if rhythm.kept.len() == PICTURES {
                rhythm.kept.pop_front().unwrap_or_default()
            } else {
                Snapshot::default()
            };
            machine.picture(self.lead, &mut now);
            let same = |old: &&Snapshot| {
                old.base < now.base && now.equals(old) && machine.repeats(old, &now)
            };
            match rhythm.kept.iter().rev().find(same) {
                Some(old) => {
                    machine.leap(old, &now);
                    // What comes next (the end of a window) is new to this rhythm and to those
                    // inside it; longer ones go on.
                    self.rhythms[..=r].iter_mut().for_each(Rhythm::clear);
                    self.rhythms[..=r].iter_mut().for_each(|x| x.next = 0);
                }
                None => {
                    rhythm.kept.push_back(now);
                    rhythm.misses += 1;
                    if rhythm.misses.is_multiple_of(2 * PICTURES as u32) {
                        rhythm.distance *= 2;
                    }
                }
            }
        }
    }
}

impl Machine<'_> {
    fn picture(&self, lead: usize, into: &mut Snapshot) {
        into.clear();
        // The lead's clock is the moment; once it is done, the first live one's.
        let base = core::iter::once(&self.states[lead])
            .chain(&self.states)
            .find(|s| !s.walker.done)
            .map_or(0, |s| s.next_local + s.frozen_issue);
        into.base = base;
        for (s, state) in self.states.iter().enumerate() {
            let w = &state.walker;
            let now = state.next_local + state.frozen_issue;
            let shape = &mut into.shape;
            shape.extend([w.phase as u64, u64::from(w.done)]);
            for (_, c) in w.inputs.iter().chain(&w.outputs) {
                shape.push(u64::from(c.left == 0));
                into.windows.push(c.pos);
            }
            if !w.done {
                let idle = self.idle_until(s).is_some();
                shape.extend([if idle { u64::MAX } else { now.wrapping_sub(base) }, w.gap]);
            }
            shape.extend([u64::from(self.awake[s]), state.flights.len() as u64]);
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
            let mut ready = 0;
            if let (Some(m), Some(access)) = (&state.memory, &self.graph.stages[s].access) {
                ready = m.ready.map_or(0, |r| r + 1);
                shape.extend([m.bursts.beat % m.bursts.size, m.done.len() as u64]);
                shape.push(m.ready.map_or(0, |r| r.max(now).wrapping_sub(base).wrapping_add(1)));
                let port = &self.graph.ports[access.port.0];
                let reads = access.direction == Direction::Read;
                let ahead = if reads { port.read_overhead } else { 0 };
                if reads && !w.done {
                    // Requests that ran so far ahead that their data is there delay nothing, nor
                    // will later ones: they follow at one a cycle, and bursts take no less.
                    shape.push((m.next_request + ahead).max(now).wrapping_sub(base));
                }
                // Nor does a burst that was finished so long ago.
                shape.extend(m.done.iter().map(|d| (d + 1 + ahead).max(now).wrapping_sub(base)));
            }
            into.marks.push([state.count.iterations, state.frozen_issue]);
            // A stage that is awake has yet to look: it counts as moving.
            let stamp = if self.awake[s] { u64::MAX - base } else { ready };
            let flights = (state.flights.len() as u64) << 32 | state.freezes.len() as u64;
            into.part([state.count.iterations, state.frozen_push, flights, stamp]);
        }
        for (queue, (from, to)) in self.queues.iter().zip(&self.ends) {
            let (writer, reader) = (self.past(*from), self.past(*to));
            let relative = |t: &u64, past: u64| {
                if *t <= past { 0 } else { t.wrapping_sub(base).wrapping_add(1) }
            };
            into.shape.push(queue.tokens.len() as u64);
            into.shape.extend(queue.tokens.iter().map(|t| relative(t, reader)));
            into.shape.extend(queue.slots.iter().map(|t| relative(t, writer)));
            // Times in a FIFO only grow: the last push or pop shows.
            let last = |times: &VecDeque<u64>| times.back().map_or(0, |t| t + 1);
            let tokens = queue.tokens.len() as u64;
            into.part([last(&queue.tokens), last(&queue.slots), tokens, 0]);
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

    /// Whether every window does the same again from `new` on as from `old` on: it stands where
    /// it stood, or further on in a stretch of one pattern.
    fn repeats(&self, old: &Snapshot, new: &Snapshot) -> bool {
        let mut windows = old.windows.iter().zip(&new.windows);
        self.states.iter().zip(&old.marks).zip(&new.marks).all(|((state, a), b)| {
            let di = b[0] - a[0];
            let w = &state.walker;
            // Not `all`: every stage must take its own windows from the list.
            w.inputs.iter().chain(&w.outputs).fold(true, |good, (_, c)| {
                let Some((was, is)) = windows.next() else { return false };
                let on = *was < *is && is - was == di && c.stretch(*was).0 == c.stretch(*is).0;
                good && (was == is || c.left == 0 || on)
            })
        })
    }

    /// Repeats what happened between two equal pictures as often as no phase,
    /// window or burst list ends.
    fn leap(&mut self, old: &Snapshot, new: &Snapshot) {
        let mut times = u64::MAX;
        let mut windows = old.windows.iter().zip(&new.windows);
        for (s, ((state, a), b)) in self.states.iter().zip(&old.marks).zip(&new.marks).enumerate() {
            let di = b[0] - a[0];
            let w = &state.walker;
            let mut room = w.left.saturating_sub(1);
            for (_, c) in w.inputs.iter().chain(&w.outputs) {
                room = room.min(c.room().saturating_sub(1));
                if windows.next().is_some_and(|(was, is)| was != is) && c.left != 0 {
                    room = room.min(c.stretch(c.pos).1.saturating_sub(1));
                }
            }
            if di == 0 {
                continue;
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
        let stages = self.states.len();
        for (f, (queue, (from, to))) in self.queues.iter_mut().zip(&self.ends).enumerate() {
            if new.rests(old, stages + f) {
                continue;
            }
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
