use super::store::{Header, SectionHeader, Sink};
use super::stream::Line;
use super::{Blank, Factor, Lane, Preprocess, Section};
use crate::dcf::{ComparisonKeys, PointKeys};
use crate::mpc::{Format, Mpc};
use crate::prg::{Prg, fresh_seed};
use crate::ring::{Product, low, pack};
use crate::{Error, Plan, Result};
use std::path::Path;
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// The **trusted** dealer: it sees every mask, hence could read every opened value.
///
/// It runs the same program as the parties, on masks instead of data, and never sees inputs,
/// weights or messages. It must not collude with either party.
pub struct Dealer {
    prgs: [Prg; 2],
    sinks: Arc<Mutex<[Sink; 2]>>,
    /// Where this branch's lengths stand, to be filled in at its end.
    start: [u64; 2],
    /// The parties, where they are on the line.
    lines: Option<[Line; 2]>,
}

impl Dealer {
    pub(crate) fn new(seeds: [&[u8; 16]; 2], sinks: Arc<Mutex<[Sink; 2]>>) -> Self {
        Self { prgs: seeds.map(Prg::new), sinks, start: [0; 2], lines: None }
    }

    /// A dealer whose chunks go straight to the parties.
    pub(crate) fn on_line(seeds: [&[u8; 16]; 2], lines: [Line; 2]) -> Self {
        let sinks = Arc::new(Mutex::new([Sink::memory(), Sink::memory()]));
        Self { lines: Some(lines), ..Self::new(seeds, sinks) }
    }

    fn write(&mut self, party: usize, bytes: &[u8]) -> Result<()> {
        let mut sinks = self.sinks.lock().map_err(|_| poisoned())?;
        sinks[party].write(bytes)
    }

    /// Splits plain values: party 0's share is pseudo-random, party 1's is stored.
    fn split(&mut self, plain: &[u64], bits: u32) -> Result<()> {
        let mut shares = Zeroizing::new(self.prgs[0].words(plain.len(), bits));
        shares.iter_mut().zip(plain).for_each(|(s, v)| *s = v.wrapping_sub(*s));
        let mut bytes = Zeroizing::new(Vec::new());
        pack(&shares, bits, &mut bytes);
        self.write(1, &bytes)
    }

    fn roots(&mut self, n: usize) -> [Vec<u128>; 2] {
        [0, 1].map(|party: usize| (0..n).map(|_| self.prgs[party].block()).collect())
    }
}

fn poisoned() -> Error {
    Error::Closed { operation: "dealing" }
}

fn absent() -> Error {
    Error::Unsupported { operation: "dealing", reason: "a mask without a value: a bug".into() }
}

impl Preprocess for Dealer {
    fn uniform(&mut self, n: usize, bits: u32) -> Result<Lane> {
        let a = self.prgs[0].words(n, bits);
        let b = self.prgs[1].words(n, bits);
        Ok(Some(a.iter().zip(&b).map(|(a, b)| a.wrapping_add(*b) & low(bits)).collect()))
    }

    fn private(&mut self, owner: usize, n: usize, bits: u32) -> Result<Lane> {
        Ok(Some(self.prgs[owner].words(n, bits)))
    }

    fn relation(&mut self, factors: &[Factor<'_>], n: usize, bits: u32) -> Result<Lane> {
        let mut plain = vec![1u64; n];
        for factor in factors {
            let (Factor::Mask(mask)
            | Factor::Shift(mask, _)
            | Factor::Bit(mask, _)
            | Factor::Value(mask, _)) = factor;
            let mask = mask.ok_or_else(absent)?;
            for (p, &r) in plain.iter_mut().zip(mask) {
                *p = p.wrapping_mul(match factor {
                    Factor::Mask(_) => r,
                    Factor::Shift(_, by) => r >> by,
                    Factor::Bit(_, bit) => r >> bit & 1,
                    Factor::Value(_, kernel) => kernel.at(r),
                });
            }
        }
        self.split(&plain, bits)?;
        Ok(Some(plain))
    }

    fn product(
        &mut self,
        of: &Product,
        a: Option<&[u64]>,
        b: Option<&[u64]>,
        bits: u32,
    ) -> Result<Lane> {
        let mut plain = vec![0; of.len()];
        of.accumulate(a.ok_or_else(absent)?, b.ok_or_else(absent)?, false, &mut plain);
        self.split(&plain, bits)?;
        Ok(Some(plain))
    }

    fn comparison(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        levels: u32,
    ) -> Result<Option<ComparisonKeys>> {
        let mask = mask.ok_or_else(absent)?;
        let roots = Zeroizing::new(self.roots(n));
        let stored = ComparisonKeys::generate(mask, levels, [&roots[0], &roots[1]]);
        self.write(0, &stored)?;
        self.write(1, &stored)?;
        Ok(None)
    }

    fn point(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        from: u32,
        bits: u32,
    ) -> Result<Option<PointKeys>> {
        let mask = mask.ok_or_else(absent)?;
        let alpha: Vec<u64> = mask.iter().map(|r| r >> from & low(bits)).collect();
        let roots = Zeroizing::new(self.roots(n));
        let stored = PointKeys::generate(&alpha, bits, [&roots[0], &roots[1]]);
        self.write(0, &stored)?;
        self.write(1, &stored)?;
        Ok(None)
    }

    fn branch(&mut self) -> Result<Box<dyn Preprocess>> {
        let mut sinks = self.sinks.lock().map_err(|_| poisoned())?;
        let start = [sinks[0].position, sinks[1].position];
        for sink in sinks.iter_mut() {
            sink.write(&[0; super::BRANCH as usize])?;
        }
        let [a, b] = &mut self.prgs;
        let prgs = [a.fork(), b.fork()];
        Ok(Box::new(Self { prgs, sinks: Arc::clone(&self.sinks), start, lines: None }))
    }

    fn merge(&mut self, branch: Box<dyn Preprocess>) -> Result<()> {
        let mut sinks = self.sinks.lock().map_err(|_| poisoned())?;
        let starts = branch.starts();
        for (sink, start) in sinks.iter_mut().zip(starts) {
            let len = sink.position - start - super::BRANCH;
            sink.patch(start, &len.to_le_bytes())?;
        }
        Ok(())
    }

    fn chunk(&mut self) -> Result<()> {
        let Some(lines) = &mut self.lines else { return Ok(()) };
        let mut sinks = self.sinks.lock().map_err(|_| poisoned())?;
        for (sink, line) in sinks.iter_mut().zip(lines) {
            line.send(&sink.take()?)?;
        }
        Ok(())
    }

    fn consumed(&self) -> u64 {
        0
    }

    fn starts(&self) -> [u64; 2] {
        self.start
    }
}

/// A program that every role runs: dealer, parties and plan.
pub(super) type Program<'a> = &'a mut dyn FnMut(&mut Mpc) -> Result<()>;

/// Deals `sections` runs of a program into one file a party, and returns the plan of one run.
///
/// `label` names the program; it goes, with the plan, into the digest that the parties compare
/// before they start.
///
/// # Errors
/// The program's own, and files that cannot be written.
pub fn deal(
    paths: [&Path; 2],
    label: &str,
    format: Format,
    sections: u32,
    program: Program<'_>,
) -> Result<Plan> {
    let files = [Sink::file(paths[0])?, Sink::file(paths[1])?];
    write(files, label, format, sections, program).map(|(plan, _)| plan)
}

/// Deals one run in memory: for tests, benchmarks and both parties in one process.
///
/// # Errors
/// The program's own.
pub fn deal_in_memory(
    label: &str,
    format: Format,
    program: Program<'_>,
) -> Result<(Plan, [Section; 2])> {
    let (plan, sinks) = write([Sink::memory(), Sink::memory()], label, format, 1, program)?;
    let [a, b] = sinks.map(Sink::into_memory);
    Ok((plan, [Section::from_memory(a?, 0)?, Section::from_memory(b?, 1)?]))
}

fn write(
    sinks: [Sink; 2],
    label: &str,
    format: Format,
    sections: u32,
    program: Program<'_>,
) -> Result<(Plan, [Sink; 2])> {
    let mut planner = Mpc::new(format, Box::new(Blank), None);
    program(&mut planner)?;
    let plan = planner.into_plan(label);
    let session: [u8; 16] = rand::random();
    let headers = [0, 1].map(|party| Header {
        session,
        party,
        program: plan.digest(),
        sections: (0..sections)
            .map(|_| SectionHeader { seed: fresh_seed(), len: 0, hash: [0; 32] })
            .collect(),
    });
    let sinks = Arc::new(Mutex::new(sinks));
    let mut headers = headers;
    {
        let mut sinks = sinks.lock().map_err(|_| poisoned())?;
        for (sink, header) in sinks.iter_mut().zip(&headers) {
            sink.write(&header.encode())?;
        }
    }
    for section in 0..sections as usize {
        let at = |sinks: &Mutex<[Sink; 2]>| -> Result<[u64; 2]> {
            let sinks = sinks.lock().map_err(|_| poisoned())?;
            Ok([sinks[0].position, sinks[1].position])
        };
        let before = at(&sinks)?;
        let seeds = [&*headers[0].sections[section].seed, &*headers[1].sections[section].seed];
        let dealer = Dealer::new(seeds, Arc::clone(&sinks));
        let mut mpc = Mpc::new(format, Box::new(dealer), None);
        program(&mut mpc)?;
        let after = at(&sinks)?;
        let mut sinks = sinks.lock().map_err(|_| poisoned())?;
        for party in 0..2 {
            let header = &mut headers[party].sections[section];
            header.len = after[party] - before[party];
            header.hash = sinks[party].digest(before[party], header.len)?;
        }
    }
    let sinks = Arc::into_inner(sinks).ok_or_else(poisoned)?;
    let mut sinks = sinks.into_inner().map_err(|_| poisoned())?;
    for (sink, header) in sinks.iter_mut().zip(&headers) {
        sink.patch(0, &header.encode())?;
        sink.finish()?;
    }
    Ok((plan, sinks))
}
