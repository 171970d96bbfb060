//! What a computation costs: planned by the same code that runs, measured on the channel.

/// Counted quantities of a program or of one of its phases.
///
/// Indices are parties: 0 the client, 1 the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Exchanges: both parties send at once, or one of them does.
    pub exchanges: u64,
    /// Exchanges on the longest path of dependencies: branches of a `join` overlap, and so do
    /// tensors that one party sends after each other without an answer in between.
    pub depth: u64,
    /// Payload bytes sent by each party.
    pub sent: [u64; 2],
    /// Preprocessing bytes that each party stores.
    pub preprocessing: [u64; 2],
}

impl Cost {
    /// One cost after another.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self { depth: self.depth + next.depth, ..self.sum(next, 0) }
    }

    /// Two costs that overlap: depth is the larger.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        self.sum(other, self.depth.max(other.depth))
    }

    fn sum(self, o: Self, depth: u64) -> Self {
        Self {
            exchanges: self.exchanges + o.exchanges,
            depth,
            sent: [self.sent[0] + o.sent[0], self.sent[1] + o.sent[1]],
            preprocessing: [
                self.preprocessing[0] + o.preprocessing[0],
                self.preprocessing[1] + o.preprocessing[1],
            ],
        }
    }

    /// Predicted seconds: depth × one-way delay + bytes / bandwidth + local compute.
    ///
    /// `delay` is one way, in seconds; `bandwidth` in bits per second, full duplex, so that the
    /// busier direction counts.
    #[must_use]
    pub fn seconds(&self, delay: f64, bandwidth: f64, compute: f64) -> f64 {
        let busier = self.sent[0].max(self.sent[1]);
        self.depth as f64 * delay + busier as f64 * 8.0 / bandwidth + compute
    }
}

/// Local work of one party, in units whose speed a machine [measures](crate::Rates).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Hashes of the trees behind comparisons and tables.
    pub hashes: u64,
    /// Multiply-adds modulo 2^64 of matrix products and tables.
    pub products: u64,
    /// Words of masks and relations that are expanded and multiplied in.
    pub words: u64,
}

impl Work {
    /// One after the other.
    #[must_use]
    pub fn plus(self, o: Self) -> Self {
        Self {
            hashes: self.hashes + o.hashes,
            products: self.products + o.products,
            words: self.words + o.words,
        }
    }
}

/// Costs by named phase.
#[derive(Clone, Debug)]
pub struct Meter {
    /// The work of each phase, at its place in `phases`.
    works: Vec<Work>,
    phases: Vec<(String, Cost)>,
    current: usize,
    total: Cost,
}

impl Default for Meter {
    fn default() -> Self {
        let phases = vec![("start".into(), Cost::default())];
        Self { works: vec![Work::default()], phases, current: 0, total: Cost::default() }
    }
}

impl Meter {
    /// What follows belongs to the phase `name`; a name that was used before goes on counting.
    pub fn phase(&mut self, name: &str) {
        self.current = match self.phases.iter().position(|(n, _)| n == name) {
            Some(found) => found,
            None => {
                self.phases.push((name.into(), Cost::default()));
                self.works.push(Work::default());
                self.phases.len() - 1
            }
        };
    }

    /// The phase that is counted now.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.phases[self.current].0
    }

    /// The whole program so far.
    #[must_use]
    pub fn total(&self) -> Cost {
        self.total
    }

    /// Phases in the order of their first appearance, without empty ones.
    pub fn phases(&self) -> impl Iterator<Item = (&str, &Cost)> {
        self.phases.iter().filter(|(_, c)| *c != Cost::default()).map(|(n, c)| (n.as_str(), c))
    }

    /// Phases with their costs and their work.
    pub fn works(&self) -> impl Iterator<Item = (&str, &Cost, &Work)> {
        let all = self.phases.iter().zip(&self.works);
        all.filter(|((_, c), _)| *c != Cost::default()).map(|((n, c), w)| (n.as_str(), c, w))
    }

    pub(crate) fn work(&mut self, work: Work) {
        let own = &mut self.works[self.current];
        *own = own.plus(work);
    }

    pub(crate) fn add(&mut self, cost: Cost) {
        self.total = self.total.then(cost);
        let (_, phase) = &mut self.phases[self.current];
        *phase = phase.then(cost);
    }

    pub(crate) fn exchange(&mut self, sent: [u64; 2]) {
        self.add(Cost { exchanges: 1, depth: 1, sent, ..Cost::default() });
    }

    /// One party sends; where it sent alone before, this does not wait for anything.
    pub(crate) fn transfer(&mut self, sent: [u64; 2], waits: bool) {
        self.add(Cost { exchanges: 1, depth: waits.into(), sent, ..Cost::default() });
    }

    /// A meter for a branch: it starts from nothing, in the phase of its parent.
    pub(crate) fn fork(&self) -> Self {
        let mut child = Self::default();
        child.phase(&self.phases[self.current].0);
        child
    }

    /// Adds two branches that ran beside each other.
    pub(crate) fn join(&mut self, a: &Self, b: &Self) {
        self.total = self.total.then(a.total.beside(b.total));
        let back = self.current;
        let names: Vec<String> = a.phases.iter().chain(&b.phases).map(|(n, _)| n.clone()).collect();
        let of = |m: &Self, name: &str| {
            let at = m.phases.iter().position(|(n, _)| n == name);
            at.map_or_else(Default::default, |at| (m.phases[at].1, m.works[at]))
        };
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                continue;
            }
            self.phase(name);
            let (_, phase) = &mut self.phases[self.current];
            let ((a, first), (b, second)) = (of(a, name), of(b, name));
            *phase = phase.then(a.beside(b));
            self.work(first.plus(second));
        }
        self.current = back;
    }
}
