//! The shared world, held to the suite of every world.
//!
//! The suite is a program like any other: the plan and the dealer run it without looking at
//! results, then both parties run it, and the client, who learns the outputs, compares them.
#![allow(clippy::unwrap_used)]

use crate::dcf::{ComparisonKeys, PointKeys};
use crate::preprocess::{Blank, Factor, Lane, Preprocess};
use crate::ring::Product;
use crate::{Format, Mpc, Result, run_locally};
use std::sync::{Arc, Mutex};
use undertone_core::Full;
use undertone_tests::{attention, operations};

/// One source for the many worlds that the suite makes, one after the other.
struct Handle(Arc<Mutex<Box<dyn Preprocess>>>);

impl Preprocess for Handle {
    fn uniform(&mut self, n: usize, bits: u32) -> Result<Lane> {
        self.0.lock().unwrap().uniform(n, bits)
    }
    fn private(&mut self, owner: usize, n: usize, bits: u32) -> Result<Lane> {
        self.0.lock().unwrap().private(owner, n, bits)
    }
    fn relation(&mut self, factors: &[Factor<'_>], n: usize, bits: u32) -> Result<Lane> {
        self.0.lock().unwrap().relation(factors, n, bits)
    }
    fn product(
        &mut self,
        of: &Product,
        a: Option<&[u64]>,
        b: Option<&[u64]>,
        bits: u32,
    ) -> Result<Lane> {
        self.0.lock().unwrap().product(of, a, b, bits)
    }
    fn comparison(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        levels: u32,
    ) -> Result<Option<ComparisonKeys>> {
        self.0.lock().unwrap().comparison(mask, n, levels)
    }
    fn point(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        from: u32,
        bits: u32,
    ) -> Result<Option<PointKeys>> {
        self.0.lock().unwrap().point(mask, n, from, bits)
    }
    fn branch(&mut self) -> Result<Box<dyn Preprocess>> {
        self.0.lock().unwrap().branch()
    }
    fn merge(&mut self, branch: Box<dyn Preprocess>) -> Result<()> {
        self.0.lock().unwrap().merge(branch)
    }
    fn consumed(&self) -> u64 {
        self.0.lock().unwrap().consumed()
    }
}

/// Runs a part of the suite between two parties.
fn between(part: impl Fn(&mut dyn FnMut() -> Mpc, f64) + Sync, tolerance: f64) {
    run_locally("conformance", Format { fraction: 20 }, |mpc| {
        let source = std::mem::replace(mpc.source(), Box::new(Blank));
        let source = Arc::new(Mutex::new(source));
        let client = mpc.party() == Some(0);
        let mut make = || mpc.with_source(Box::new(Handle(Arc::clone(&source))));
        part(&mut make, if client { tolerance } else { f64::INFINITY });
        Ok(())
    })
    .unwrap();
}

#[test]
fn linear() {
    between(|make, tolerance| operations::linear(make, tolerance), 1e-3);
}

#[test]
fn products() {
    between(|make, tolerance| operations::products(make, tolerance), 1e-3);
}

#[test]
fn functions() {
    between(|make, tolerance| operations::functions(make, tolerance), 1e-4);
}

#[test]
fn comparisons() {
    between(|make, tolerance| operations::comparisons(make, tolerance), 1e-4);
}

#[test]
fn refusals() {
    between(|make, _| operations::refusals(make), 0.0);
}

#[test]
fn every_kind_of_attention() {
    // p = 6 is the worst: where the weights of a row are small, rounding at 2^-20 moves it by up to
    // 2.9e-3 in 100 runs; 2e-3 fails about every other time.
    between(|make, tolerance| attention::kinds::<Mpc, Full>(make, tolerance), 4e-3);
}

/// Permuted keys, rows that sum to one, scaled scores: each compares two runs of the protocol.
#[test]
fn laws_of_attention() {
    between(|make, tolerance| attention::laws::<Mpc, Full>(make, tolerance), 4e-3);
}
