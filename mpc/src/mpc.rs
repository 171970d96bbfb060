//! The engine: one program, run as plan, as dealer or as party.

use crate::channel::{Greeting, Limits, Link, memory};
use crate::cost::{Cost, Meter, Work};
use crate::dcf::{ComparisonKeys, PointKeys};
use crate::preprocess::{
    BRANCH, Blank, Factor, Lane, Preprocess, Section, Store, comparison_len, deal_in_memory,
    point_len, receive_streamed, relation_len,
};
use crate::ring::{Product, low};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use undertone_core::Shape;
use zeroize::Zeroizing;

/// The number format: fixed point in Z_2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Fraction bits of a settled value.
    pub fraction: u32,
}

impl Default for Format {
    /// 18 fraction bits: a unit of 3.8e-6.
    fn default() -> Self {
        Self { fraction: 18 }
    }
}

/// Additive shares modulo 2^`bits` of a tensor with `scale` fraction bits.
///
/// A product has the sum of its factors' scales until it is settled; every protocol takes any
/// scale. |x|·2^scale stays below 2^(bits−2).
pub struct Shared {
    pub(crate) shape: Shape,
    pub(crate) bits: u32,
    pub(crate) scale: u32,
    pub(crate) lane: Zeroizing<Lane>,
}

/// A tensor opened under a mask: both parties know x̂ = x + r mod 2^`bits` and share r.
pub struct Wire {
    pub(crate) shape: Shape,
    pub(crate) bits: u32,
    pub(crate) scale: u32,
    /// Public.
    pub(crate) hat: Lane,
    /// A share of the mask; the mask itself at the dealer.
    pub(crate) mask: Zeroizing<Lane>,
    /// The party that knows the mask, if one does: the other's share is zero.
    pub(crate) owner: Option<usize>,
}

impl Shared {
    /// The tensor's shape.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bits of the modulus.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Fraction bits.
    #[must_use]
    pub fn scale(&self) -> u32 {
        self.scale
    }

    pub(crate) fn new(shape: Shape, bits: u32, scale: u32, lane: Lane) -> Self {
        debug_assert!(lane.as_ref().is_none_or(|l| l.len() == shape.len()));
        Self { shape, bits, scale, lane: Zeroizing::new(lane) }
    }

    pub(crate) fn into_lane(mut self) -> Lane {
        std::mem::take(&mut *self.lane)
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self::new(self.shape, self.bits, self.scale, (*self.lane).clone())
    }
}

impl Wire {
    /// The tensor's shape.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }
}

#[derive(Clone)]
struct Online {
    party: usize,
    link: Arc<dyn Link>,
}

/// A two-party computation in one of its roles.
pub struct Mpc {
    format: Format,
    prep: Box<dyn Preprocess>,
    online: Option<Online>,
    meter: Meter,
    /// The branch: 1 at the root, 2p and 2p + 1 below p. Also the stream of its frames.
    path: u64,
    /// The encoder layer that phases are named after, once there is one.
    pub(crate) layer: Option<u32>,
    /// Whether a chunk ends before the next correlation.
    pub(crate) due: bool,
    /// The party that alone sent last: what it sends next does not wait for the other.
    sender: Option<usize>,
}

/// What a program will cost.
#[derive(Clone, Debug)]
pub struct Plan {
    label: String,
    format: Format,
    meter: Meter,
}

impl Plan {
    /// The plan of a program: it runs without data, correlations or a peer.
    ///
    /// # Errors
    /// The program's own.
    pub fn of<T>(
        label: &str,
        format: Format,
        program: impl FnOnce(&mut Mpc) -> Result<T>,
    ) -> Result<Self> {
        let mut mpc = Mpc::new(format, Box::new(Blank), None);
        program(&mut mpc)?;
        Ok(mpc.into_plan(label))
    }

    /// The whole program's cost.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.meter.total()
    }

    /// Cost by phase, in order of first appearance.
    pub fn phases(&self) -> impl Iterator<Item = (&str, &Cost)> {
        self.meter.phases()
    }

    /// Cost and local work by phase.
    pub fn works(&self) -> impl Iterator<Item = (&str, &Cost, &Work)> {
        self.meter.works()
    }

    /// What the parties compare before they start: label, format and every counted quantity.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((self.label.len() as u64).to_le_bytes());
        hash.update(&self.label);
        hash.update(self.format.fraction.to_le_bytes());
        for (name, c) in self.phases() {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            let [a, b] = c.sent;
            let [d, e] = c.preprocessing;
            for n in [c.exchanges, c.depth, a, b, d, e] {
                hash.update(n.to_le_bytes());
            }
        }
        hash.finalize().into()
    }
}

/// What a run cost, counted on the channel.
#[derive(Clone, Debug)]
pub struct Report {
    /// The party that counted.
    pub party: usize,
    meter: Meter,
}

impl Report {
    /// The whole run's cost. Preprocessing of the other party is as planned.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.meter.total()
    }

    /// Cost by phase.
    pub fn phases(&self) -> impl Iterator<Item = (&str, &Cost)> {
        self.meter.phases()
    }
}

impl Mpc {
    pub(crate) fn new(
        format: Format,
        prep: Box<dyn Preprocess>,
        online: Option<(usize, Arc<dyn Link>)>,
    ) -> Self {
        let online = online.map(|(party, link)| Online { party, link });
        Self {
            format,
            prep,
            online,
            meter: Meter::default(),
            path: 1,
            layer: None,
            due: false,
            sender: None,
        }
    }

    /// A party with correlations in memory, which were dealt for exactly this program.
    #[must_use]
    pub fn with_section(format: Format, section: Section, link: Arc<dyn Link>) -> Self {
        let party = section.party();
        Self::new(format, Box::new(section), Some((party, link)))
    }

    /// A party with any source of correlations.
    #[must_use]
    pub fn with_preprocessing(
        format: Format,
        party: usize,
        source: Box<dyn Preprocess>,
        link: Arc<dyn Link>,
    ) -> Self {
        Self::new(format, source, Some((party, link)))
    }

    /// A party with a file of correlations: greets the peer, agrees on a section and begins it.
    ///
    /// # Errors
    /// [`Error::Handshake`] where the peer has another version, session or program,
    /// [`Error::Used`] where the file has no section left.
    pub fn connect(plan: &Plan, store: &mut Store, link: Arc<dyn Link>) -> Result<Self> {
        if store.program() != plan.digest() {
            return Err(Error::Preprocessing {
                what: "program",
                expected: format!("the one planned as {}", plan.label),
                got: "another label, format or shape".into(),
            });
        }
        let greeting = Greeting {
            party: store.party() as u32,
            session: store.session(),
            program: plan.digest(),
            section: store.next(),
        };
        let agreed = greeting.exchange(&*link);
        let section = agreed.and_then(|section| store.begin(section));
        match section {
            Ok(section) => Ok(Self::with_section(plan.format, section, link)),
            Err(error) => {
                link.close();
                Err(error)
            }
        }
    }

    /// A party whose correlations the dealer sends while the run goes on; `session` names the run
    /// to peer and dealer alike.
    ///
    /// # Errors
    /// [`Error::Handshake`] where peer or dealer has another version, session or program.
    pub fn connect_streamed(
        plan: &Plan,
        party: usize,
        session: [u8; 16],
        dealer: Arc<dyn Link>,
        link: Arc<dyn Link>,
    ) -> Result<Self> {
        let program = plan.digest();
        let greeting = Greeting { party: party as u32, session, program, section: 0 };
        let section = greeting.exchange(&*link);
        match section.and_then(|_| receive_streamed(dealer, party, program)) {
            Ok(section) => Ok(Self::with_section(plan.format, section, link)),
            Err(error) => {
                link.close();
                Err(error)
            }
        }
    }

    /// The party, in a run.
    #[must_use]
    pub fn party(&self) -> Option<usize> {
        self.online.as_ref().map(|o| o.party)
    }

    /// The number format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Costs so far.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A place, outside branches, at which a streamed run fetches the correlations of what follows.
    /// Elsewhere it does nothing.
    ///
    /// # Errors
    /// The channel's, and correlations left over: the dealer ran another program.
    pub fn chunk(&mut self) -> Result<()> {
        if self.path != 1 {
            let reason = "inside a branch: chunks end where nothing overlaps".into();
            return Err(Error::Unsupported { operation: "chunk", reason });
        }
        self.prep.chunk()
    }

    /// Names what follows in plans and reports.
    pub fn phase(&mut self, name: &str) {
        self.meter.phase(name);
    }

    #[cfg(test)]
    pub(crate) fn source(&mut self) -> &mut Box<dyn Preprocess> {
        &mut self.prep
    }

    #[cfg(test)]
    pub(crate) fn with_source(&self, prep: Box<dyn Preprocess>) -> Self {
        let online = self.online.clone();
        let (format, path, layer) = (self.format, self.path, self.layer);
        let meter = Meter::default();
        Self { format, prep, online, meter, path, layer, due: false, sender: None }
    }

    pub(crate) fn path(&self) -> u64 {
        self.path
    }

    pub(crate) fn into_plan(self, label: &str) -> Plan {
        Plan { label: label.into(), format: self.format, meter: self.meter }
    }

    /// Ends a run. `None` outside one.
    #[must_use]
    pub fn into_report(self) -> Option<Report> {
        let party = self.party()?;
        Some(Report { party, meter: self.meter })
    }

    /// Whether this role adds public constants: one party does.
    pub(crate) fn leads(&self) -> bool {
        self.party() == Some(0)
    }

    /// Two computations that do not depend on each other: their exchanges overlap.
    ///
    /// # Errors
    /// The first error of either; the channel is closed then.
    pub fn join<A: Send, B: Send>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<A> + Send,
        g: impl FnOnce(&mut Self) -> Result<B> + Send,
    ) -> Result<(A, B)> {
        if self.path >= 1 << 62 {
            return Err(Error::Room { operation: "join", needed: 64, available: 63 });
        }
        let Some(online) = self.online.clone() else {
            let mut left = self.branch(0)?;
            let a = f(&mut left)?;
            let left = self.merge(left)?;
            let mut right = self.branch(1)?;
            let b = g(&mut right)?;
            let right = self.merge(right)?;
            self.meter.join(&left, &right);
            return Ok((a, b));
        };
        let mut left = self.branch(0)?;
        let mut right = self.branch(1)?;
        let link = &online.link;
        let (a, b) = std::thread::scope(|scope| {
            let right = &mut right;
            let other = scope.spawn(move || g(right).inspect_err(|_| link.close()));
            let a = f(&mut left).inspect_err(|_| link.close());
            let closed = Error::Closed { operation: "a branch that panicked" };
            (a, other.join().unwrap_or(Err(closed)))
        });
        let (a, b) = match (a, b) {
            (Ok(a), Ok(b)) => (a, b),
            // The branch that failed first closed the channel on the other.
            (Err(Error::Closed { .. }), Err(e)) | (Err(e), _) | (_, Err(e)) => return Err(e),
        };
        let left = self.merge(left)?;
        let right = self.merge(right)?;
        self.meter.join(&left, &right);
        Ok((a, b))
    }

    fn branch(&mut self, side: u64) -> Result<Self> {
        let prep = self.counted([BRANCH; 2], |prep| prep.branch())?;
        Ok(Self {
            format: self.format,
            prep,
            online: self.online.clone(),
            meter: self.meter.fork(),
            path: 2 * self.path + side,
            layer: self.layer,
            due: false,
            sender: None,
        })
    }

    fn merge(&mut self, branch: Self) -> Result<Meter> {
        self.sender = None;
        self.prep.merge(branch.prep)?;
        Ok(branch.meter)
    }

    /// Both parties send; in a plan, both would send `len` bytes.
    pub(crate) fn exchange(&mut self, payload: Option<Vec<u8>>, len: usize) -> Result<Lane8> {
        self.sender = None;
        let (Some(online), Some(payload)) = (&self.online, payload) else {
            self.meter.exchange([len as u64; 2]);
            return Ok(None);
        };
        let sent = payload.len() as u64;
        let got = online.link.exchange(self.path, payload, len).inspect_err(|_| {
            online.link.close();
        })?;
        let received = got.len() as u64;
        let by_party = if online.party == 0 { [sent, received] } else { [received, sent] };
        self.meter.exchange(by_party);
        Ok(Some(got))
    }

    /// One party sends `len` bytes; the other gets them.
    pub(crate) fn transfer(
        &mut self,
        from: usize,
        payload: Option<Vec<u8>>,
        len: usize,
    ) -> Result<Lane8> {
        let mut sent = [0; 2];
        let mut got = None;
        match &self.online {
            None => sent[from] = len as u64,
            Some(online) if online.party == from => {
                let payload = payload.unwrap_or_default();
                sent[from] = payload.len() as u64;
                online.link.send(self.path, payload).inspect_err(|_| online.link.close())?;
            }
            Some(online) => {
                let payload =
                    online.link.receive(self.path, len).inspect_err(|_| online.link.close())?;
                sent[from] = payload.len() as u64;
                got = Some(payload);
            }
        }
        let waits = self.sender.replace(from) != Some(from);
        self.meter.transfer(sent, waits);
        Ok(got)
    }

    /// Asks for a correlation and counts what it takes: in a run what this party's source really
    /// gave, elsewhere what the request says.
    fn counted<T>(
        &mut self,
        len: [u64; 2],
        ask: impl FnOnce(&mut dyn Preprocess) -> Result<T>,
    ) -> Result<T> {
        if std::mem::take(&mut self.due) && self.path == 1 {
            self.prep.chunk()?;
        }
        let before = self.prep.consumed();
        let result = ask(&mut *self.prep)?;
        let mut preprocessing = len;
        if let Some(party) = self.party() {
            preprocessing[party] = self.prep.consumed() - before;
        }
        self.meter.add(Cost { preprocessing, ..Cost::default() });
        Ok(result)
    }

    pub(crate) fn uniform(&mut self, n: usize, bits: u32) -> Result<Lane> {
        self.work(Work { words: n as u64, ..Work::default() });
        self.prep.uniform(n, bits)
    }

    pub(crate) fn private(&mut self, owner: usize, n: usize, bits: u32) -> Result<Lane> {
        self.work(Work { words: n as u64, ..Work::default() });
        self.prep.private(owner, n, bits)
    }

    pub(crate) fn work(&mut self, work: Work) {
        self.meter.work(work);
    }

    pub(crate) fn relation(&mut self, f: &[Factor<'_>], n: usize, bits: u32) -> Result<Lane> {
        self.work(Work { words: n as u64, ..Work::default() });
        self.counted(relation_len(n, bits), |prep| prep.relation(f, n, bits))
    }

    pub(crate) fn mask_product(&mut self, of: &Product, a: &Wire, b: &Wire) -> Result<Lane> {
        let bits = a.bits.min(b.bits);
        // Each party multiplies twice.
        let products = 2 * (of.batch * of.n * of.k * of.m) as u64;
        self.work(Work { products, words: of.len() as u64, ..Work::default() });
        self.counted(relation_len(of.len(), bits), |prep| {
            prep.product(of, a.mask.as_deref(), b.mask.as_deref(), bits)
        })
    }

    pub(crate) fn comparison(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        levels: u32,
    ) -> Result<Option<ComparisonKeys>> {
        // The dealer compares with the mask's low bits only.
        let cut: Lane = mask.map(|m| m.iter().map(|r| r & low(levels)).collect());
        let cut = Zeroizing::new(cut);
        // Evaluated once at least.
        self.work(Work { hashes: (n * levels as usize) as u64, ..Work::default() });
        self.counted(comparison_len(n, levels), |prep| prep.comparison(cut.as_deref(), n, levels))
    }

    pub(crate) fn point(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        from: u32,
        bits: u32,
    ) -> Result<Option<PointKeys>> {
        self.counted(point_len(n, bits), |prep| prep.point(mask, n, from, bits))
    }
}

/// Bytes that are there in a run and absent in a plan.
pub(crate) type Lane8 = Option<Vec<u8>>;

/// Both parties' results of a program in one process.
#[derive(Debug)]
pub struct Local<T> {
    /// What the program was going to cost.
    pub plan: Plan,
    /// The results of client and server.
    pub results: [T; 2],
    /// What each party counted.
    pub measured: [Cost; 2],
    /// Both reports.
    pub reports: [Report; 2],
}

/// Deals, then runs both parties of a program in two threads of this process.
///
/// The program is called for the plan, the dealer and both parties.
///
/// # Errors
/// The program's own.
pub fn run_locally<T: Send>(
    label: &str,
    format: Format,
    program: impl Fn(&mut Mpc) -> Result<T> + Sync,
) -> Result<Local<T>> {
    let links = memory::pair(Limits::default());
    run_over(label, format, links.map(|l| l as Arc<dyn Link>), program)
}

/// As [`run_locally`], over given links: the client's end, then the server's.
///
/// # Errors
/// The program's own.
pub fn run_over<T: Send>(
    label: &str,
    format: Format,
    links: [Arc<dyn Link>; 2],
    program: impl Fn(&mut Mpc) -> Result<T> + Sync,
) -> Result<Local<T>> {
    let (plan, [a, b]) = deal_in_memory(label, format, &mut |mpc| program(mpc).map(|_| ()))?;
    let [to_server, to_client] = links;
    let run = |section, link: Arc<dyn Link>| -> Result<(T, Report)> {
        let mut mpc = Mpc::with_section(format, section, link);
        let out = program(&mut mpc)?;
        let party = mpc.party().unwrap_or(0);
        Ok((out, Report { party, meter: mpc.meter }))
    };
    let (client, server) = std::thread::scope(|scope| {
        let server = scope.spawn(|| run(b, to_client));
        let client = run(a, to_server);
        let panicked = Error::Closed { operation: "a party that panicked" };
        (client, server.join().unwrap_or(Err(panicked)))
    });
    let ((a, first), (b, second)) = (client?, server?);
    let measured = [first.cost(), second.cost()];
    Ok(Local { plan, results: [a, b], measured, reports: [first, second] })
}
