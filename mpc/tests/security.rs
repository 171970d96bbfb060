//! What a party receives looks like noise; a mask used twice does not.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::{Arc, Mutex};
use undertone_core::{Function, Shape};
use undertone_mpc::channel::{Limits, Link, memory};
use undertone_mpc::dcf::{ComparisonKeys, PointKeys};
use undertone_mpc::preprocess::{Factor, Lane, Preprocess, Section, deal_in_memory};
use undertone_mpc::protocol::fit;
use undertone_mpc::ring::Product;
use undertone_mpc::{Format, Mpc, Result, Shared};

/// Keeps what its party receives.
struct Recorder {
    link: Arc<dyn Link>,
    seen: Mutex<Vec<Vec<u8>>>,
}

impl Link for Recorder {
    fn send(&self, stream: u64, payload: Vec<u8>) -> Result<()> {
        self.link.send(stream, payload)
    }
    fn receive(&self, stream: u64, len: usize) -> Result<Vec<u8>> {
        let payload = self.link.receive(stream, len)?;
        self.seen.lock().unwrap().push(payload.clone());
        Ok(payload)
    }
    fn close(&self) {
        self.link.close();
    }
}

/// The defect that the test must find: every mask of one length is the first one.
struct Reusing {
    section: Section,
    first: Option<Vec<u64>>,
}

impl Preprocess for Reusing {
    fn uniform(&mut self, n: usize, bits: u32) -> Result<Lane> {
        let fresh = self.section.uniform(n, bits)?;
        if bits == 64 {
            return Ok(Some(self.first.get_or_insert(fresh.unwrap()).clone()));
        }
        Ok(fresh)
    }
    fn private(&mut self, owner: usize, n: usize, bits: u32) -> Result<Lane> {
        self.section.private(owner, n, bits)
    }
    fn relation(&mut self, f: &[Factor<'_>], n: usize, bits: u32) -> Result<Lane> {
        self.section.relation(f, n, bits)
    }
    fn product(
        &mut self,
        of: &Product,
        a: Option<&[u64]>,
        b: Option<&[u64]>,
        bits: u32,
    ) -> Result<Lane> {
        self.section.product(of, a, b, bits)
    }
    fn comparison(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        levels: u32,
    ) -> Result<Option<ComparisonKeys>> {
        self.section.comparison(mask, n, levels)
    }
    fn point(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        from: u32,
        bits: u32,
    ) -> Result<Option<PointKeys>> {
        self.section.point(mask, n, from, bits)
    }
    fn branch(&mut self) -> Result<Box<dyn Preprocess>> {
        self.section.branch()
    }
    fn merge(&mut self, branch: Box<dyn Preprocess>) -> Result<()> {
        self.section.merge(branch)
    }
    fn consumed(&self) -> u64 {
        self.section.consumed()
    }
}

type Program = dyn Fn(&mut Mpc, &Shared) -> Result<Shared> + Sync;

/// Frames that client and server received in one run with fixed inputs, outputs not revealed.
fn transcript(shape: Shape, x: &[f64], program: &Program, reuse: bool) -> [Vec<Vec<u8>>; 2] {
    let format = Format::default();
    let whole = |mpc: &mut Mpc| {
        let x = mpc.input(0, shape, Some(x))?;
        let x = mpc.share(&x);
        program(mpc, &x).map(|_| ())
    };
    let (_, sections) = deal_in_memory("security", format, &mut |mpc| whole(mpc)).unwrap();
    let links = memory::pair(Limits::default());
    let recorders = links
        .map(|link| Arc::new(Recorder { link: link as Arc<dyn Link>, seen: Mutex::default() }));
    std::thread::scope(|scope| {
        for (section, link) in sections.into_iter().zip(&recorders) {
            scope.spawn(move || {
                let (party, link) = (section.party(), Arc::clone(link) as Arc<dyn Link>);
                let source: Box<dyn Preprocess> = if reuse {
                    Box::new(Reusing { section, first: None })
                } else {
                    Box::new(section)
                };
                whole(&mut Mpc::with_preprocessing(format, party, source, link)).unwrap();
            });
        }
    });
    recorders.map(|r| std::mem::take(&mut *r.seen.lock().unwrap()))
}

/// Pearson's statistic of bytes against the uniform distribution: 255 degrees of freedom.
fn chi_squared(counts: &[u64; 256]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / 256.0;
    counts.iter().map(|&c| (c as f64 - expected).powi(2) / expected).sum()
}

/// 255 + 6·√510: exceeded once in some hundred million tests.
const LIMIT: f64 = 390.5;

/// The worst statistics over both parties: of all bytes received, and of the byte-wise differences
/// of successive frames of equal length, which a mask used twice makes constant.
fn statistics(shape: Shape, x: &[f64], program: &Program, reuse: bool, runs: usize) -> [f64; 2] {
    let mut single = [[0u64; 256]; 2];
    let mut double = [[0u64; 256]; 2];
    for _ in 0..runs {
        let seen = transcript(shape, x, program, reuse);
        for (party, frames) in seen.iter().enumerate() {
            for frame in frames {
                frame.iter().for_each(|b| single[party][usize::from(*b)] += 1);
            }
            for (i, a) in frames.iter().enumerate() {
                if let Some(b) = frames[i + 1..].iter().find(|b| b.len() == a.len()) {
                    for (a, b) in a.iter().zip(b) {
                        double[party][usize::from(a.wrapping_sub(*b))] += 1;
                    }
                }
            }
        }
    }
    [single, double].map(|counts| {
        let filled = counts.iter().filter(|c| c.iter().sum::<u64>() > 2560);
        filled.map(chi_squared).fold(0.0, f64::max)
    })
}

fn values(n: usize) -> Vec<f64> {
    (0..n).map(|i| (i % 13) as f64 - 6.0).collect()
}

#[test]
fn received_bytes_are_uniform_over_seeds() {
    let gelu = fit(Function::Gelu, 1e-4).unwrap();
    // Sizes are multiples of 8, so that packed bits have no constant padding.
    let shape = Shape::new(1, 8, 16);
    let x = values(shape.len());
    let programs: [(&str, Box<Program>); 7] = [
        ("relu", Box::new(|mpc, x| mpc.relu(x))),
        ("max", Box::new(|mpc, x| mpc.max_rows(x))),
        ("argmax", Box::new(|mpc, x| mpc.argmax_rows(x))),
        ("settle", Box::new(|mpc, x| mpc.settle(x))),
        ("softmax", Box::new(|mpc, x| mpc.softmax(x, 4))),
        ("gelu", Box::new(move |mpc, x| mpc.apply(x, &gelu))),
        ("layer norm", Box::new(|mpc, x| mpc.layer_norm(x, None, 1e-3, (0.1, 100.0)))),
    ];
    for (name, program) in &programs {
        let [single, double] = statistics(shape, &x, program, false, 40);
        assert!(single < LIMIT, "{name}: {single:.0}");
        assert!(double < LIMIT, "{name}, differences: {double:.0}");
    }
}

#[test]
fn a_mask_used_twice_is_found() {
    let shape = Shape::new(1, 8, 16);
    let x = values(shape.len());
    let twice: &Program = &|mpc, x| {
        let a = mpc.open_one(x)?;
        let _ = mpc.open_one(x)?;
        Ok(mpc.share(&a))
    };
    let [single, double] = statistics(shape, &x, twice, false, 40);
    assert!(single < LIMIT && double < LIMIT);
    let [_, double] = statistics(shape, &x, twice, true, 40);
    assert!(double > 10.0 * LIMIT, "{double}");
}

#[test]
fn a_simulator_of_lengths_alone_is_as_good() {
    // The simulator knows the declared lengths and draws bytes; a two-sample test must not tell
    // its transcript from a real one.
    let shape = Shape::new(1, 8, 16);
    let x = values(shape.len());
    let (mut real, mut simulated) = ([0u64; 256], [0u64; 256]);
    for _ in 0..40 {
        let [client, server] = transcript(shape, &x, &|mpc, x| mpc.softmax(x, 4), false);
        for frame in client.iter().chain(&server) {
            frame.iter().for_each(|b| real[usize::from(*b)] += 1);
            frame.iter().for_each(|_| simulated[usize::from(rand::random::<u8>())] += 1);
        }
    }
    let statistic: f64 = real
        .iter()
        .zip(&simulated)
        .map(|(&a, &b)| (a as f64 - b as f64).powi(2) / (a + b) as f64)
        .sum();
    assert!(statistic < LIMIT, "{statistic}");
}

#[test]
fn one_partys_file_does_not_fit_the_other() {
    // The two halves of one mask are independent: neither tells the mask.
    let draw = |mpc: &mut Mpc| mpc.input(0, Shape::new(1, 1, 8), Some(&[0.0; 8])).map(|_| ());
    let (_, [mut client, mut server]) =
        deal_in_memory("halves", Format::default(), &mut |mpc| draw(mpc)).unwrap();
    let (a, b) = (client.uniform(4096, 8).unwrap(), server.uniform(4096, 8).unwrap());
    let mut counts = [0u64; 256];
    for (a, b) in a.unwrap().iter().zip(&b.unwrap()) {
        counts[(a.wrapping_add(*b) & 255) as usize] += 1;
    }
    assert!(chi_squared(&counts) < LIMIT);
}
