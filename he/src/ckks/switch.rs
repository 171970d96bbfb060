//! Hybrid key switching (Han and Ki 2020, *Better Bootstrapping for Approximate Homomorphic
//! Encryption*, section 3), with the division by the special modulus merged with a rescaling
//! where one follows.
//!
//! Work goes prime by prime: for one target prime all digits are extended and transformed, the
//! inner products taken, and the result divided down, while the rows are in cache. Rotations of
//! one ciphertext share its digits (hoisting), and a sum of rotations also shares one division.

use std::sync::Arc;

use rayon::prelude::*;

use super::buffer::Rows;
use super::context::Context;
use super::convert::{BaseConversion, Prepared};
use super::evalkeys::SwitchingKey;
use super::kernels::{Add, InnerPair, Permutation, PermuteAdd, TensorPair};

/// One inner product: a key, and the automorphism to apply afterwards.
pub(crate) struct Job<'a> {
    pub(crate) key: &'a SwitchingKey,
    pub(crate) by: Option<Arc<Permutation>>,
}

/// Rows that a job adds to its result.
pub(crate) enum Inside<'a> {
    /// To its first part.
    First(&'a Rows),
    /// To both.
    Both([&'a Rows; 2]),
    /// The first two parts of a product, computed prime by prime: in cache, and never stored.
    Product([&'a [Rows]; 2]),
}

/// A sum of jobs that share one division.
pub(crate) struct Group<'a> {
    pub(crate) jobs: Vec<Job<'a>>,
    /// What each job adds to its result before its automorphism.
    pub(crate) inside: Inside<'a>,
    /// Rows added once, as they are.
    pub(crate) outside: Option<[&'a Rows; 2]>,
}

/// The digits of a polynomial, ready for conversion to any prime.
struct Decomposed<'a> {
    rows: &'a Rows,
    level: usize,
    digits: Vec<(&'a BaseConversion, Prepared)>,
}

impl<'a> Decomposed<'a> {
    fn new(ctx: &'a Context, rows: &'a Rows, level: usize) -> Self {
        ctx.counters.decompositions.add(1);
        let len = ctx.chain.digit_len;
        let digits = (0..=level / len)
            .into_par_iter()
            .map(|j| {
                let active = len.min(level + 1 - j * len);
                let conversion = &ctx.digits[j][active - 1];
                let sources = conversion.sources.iter().map(|&i| rows.row(i));
                (conversion, conversion.prepare(ctx, sources))
            })
            .collect();
        Self { rows, level, digits }
    }

    /// Calls `f` with the digits' transformed rows modulo `prime`.
    fn with_rows(&self, ctx: &Context, prime: usize, f: impl FnOnce(&[&[u64]])) {
        let mut scratch = Rows::scratch(ctx.n(), self.digits.len());
        let own = (prime <= self.level).then(|| prime / ctx.chain.digit_len);
        for (j, (conversion, prepared)) in self.digits.iter().enumerate() {
            if own != Some(j) {
                conversion.target(ctx, prepared, prime, scratch.row_mut(j));
            }
        }
        let rows: Vec<&[u64]> = (0..self.digits.len())
            .map(|j| if own == Some(j) { self.rows.row(prime) } else { scratch.row(j) })
            .collect();
        f(&rows);
    }
}

/// The rows of several results, by prime.
fn by_prime(results: &mut [[Rows; 2]], count: usize) -> Vec<Vec<[&mut [u64]; 2]>> {
    let mut out: Vec<Vec<_>> = (0..count).map(|_| Vec::with_capacity(results.len())).collect();
    for [first, second] in results {
        for (out, (a, b)) in out.iter_mut().zip(first.rows_mut().zip(second.rows_mut())) {
            out.push([a, b]);
        }
    }
    out
}

impl Context {
    /// Σ of each group, divided by the special modulus, and by q_ℓ too if `rescale`.
    pub(crate) fn switch(
        &self,
        d: &Rows,
        level: usize,
        groups: &[Group<'_>],
        rescale: bool,
    ) -> Vec<[Rows; 2]> {
        let n = self.n();
        let divisor = if rescale { &self.down_special_and[level - 1] } else { &self.down_special };
        let decomposed = Decomposed::new(self, d, level);
        self.counters.key_switches.add(groups.iter().map(|g| g.jobs.len() as u64).sum());
        if rescale {
            self.counters.rescales.add(1);
        }
        // The primes that are divided away come first: the quotient needs their sums.
        let sources = divisor.sources.len();
        let mut sums: Vec<[Rows; 2]> =
            groups.iter().map(|_| [Rows::scratch(n, sources), Rows::scratch(n, sources)]).collect();
        by_prime(&mut sums, sources).into_par_iter().enumerate().for_each(|(i, out)| {
            let prime = divisor.sources[i];
            let mut temporary = [Rows::scratch(n, 1), Rows::scratch(n, 1)];
            decomposed.with_rows(self, prime, |digits| {
                for (group, out) in groups.iter().zip(out) {
                    self.inner(group, prime, digits, out, &mut temporary);
                }
            });
        });
        let prepared: Vec<[Prepared; 2]> = sums
            .par_iter()
            .map(|[s0, s1]| {
                let (p0, p1) = rayon::join(
                    || divisor.prepare(self, s0.rows()),
                    || divisor.prepare(self, s1.rows()),
                );
                [p0, p1]
            })
            .collect();
        drop(sums);

        let kept = level + usize::from(!rescale);
        let mut out: Vec<[Rows; 2]> =
            groups.iter().map(|_| [Rows::scratch(n, kept), Rows::scratch(n, kept)]).collect();
        by_prime(&mut out, kept).into_par_iter().enumerate().for_each(|(prime, out)| {
            let mut temporary = [Rows::scratch(n, 1), Rows::scratch(n, 1)];
            let mut acc = [Rows::scratch(n, 1), Rows::scratch(n, 1)];
            let mut part = Rows::scratch(n, 1);
            decomposed.with_rows(self, prime, |digits| {
                for ((group, prepared), out) in groups.iter().zip(&prepared).zip(out) {
                    let [acc0, acc1] = &mut acc;
                    let into = [acc0.row_mut(0), acc1.row_mut(0)];
                    self.inner(group, prime, digits, into, &mut temporary);
                    for ((acc, prepared), dst) in acc.iter().zip(prepared).zip(out) {
                        divisor.divide(self, prepared, prime, acc.row(0), part.row_mut(0), dst);
                    }
                }
            });
        });
        out
    }

    /// One row of a group's sum modulo `prime`.
    fn inner(
        &self,
        group: &Group<'_>,
        prime: usize,
        digits: &[&[u64]],
        out: [&mut [u64]; 2],
        temporary: &mut [Rows; 2],
    ) {
        let m = self.modulus(prime);
        let [out0, out1] = out;
        // P·x vanishes modulo the special primes; elsewhere P in Montgomery form.
        let special = (prime < self.q_count()).then(|| {
            let p = self.chain.special.iter().fold(1, |acc, &p| m.mul(acc, p % m.p));
            m.to_montgomery(p)
        });
        let [t0, t1] = temporary;
        let (t0, t1) = (t0.row_mut(0), t1.row_mut(0));
        let mut product = None;
        let inside = match (&group.inside, special) {
            (_, None) => [None, None],
            (Inside::First(r), Some(c)) => [Some((r.row(prime), c)), None],
            (Inside::Both(rows), Some(c)) => rows.map(|r| Some((r.row(prime), c))),
            (Inside::Product([a, b]), Some(c)) => {
                let [a, b] = [a, b].map(|x| [x[0].row(prime), x[1].row(prime)]);
                let [d0, d1] =
                    product.insert([Rows::scratch(self.n(), 1), Rows::scratch(self.n(), 1)]);
                let out = [d0.row_mut(0), d1.row_mut(0)];
                self.backend.run(TensorPair { out, a, b, m });
                [Some((d0.row(0), c)), Some((d1.row(0), c))]
            }
        };
        let mut first = true;
        if let Some(rows) = group.outside {
            let extra = rows.map(|r| special.map(|c| (r.row(prime), c)));
            self.backend.run(InnerPair {
                out: [out0, out1],
                digits: &[],
                keys: [&[], &[]],
                extra,
                m,
            });
            first = false;
        }
        for job in &group.jobs {
            let b: Vec<&[u64]> = job.key.b.iter().map(|k| k.row(prime)).collect();
            let a: Vec<&[u64]> = job.key.a.iter().map(|k| k.row(prime)).collect();
            let keys = [&b[..], &a[..]];
            if job.by.is_none() && first {
                let out = [&mut *out0, &mut *out1];
                self.backend.run(InnerPair { out, digits, keys, extra: inside, m });
            } else {
                let out = [&mut *t0, &mut *t1];
                self.backend.run(InnerPair { out, digits, keys, extra: inside, m });
                for (dst, src) in [(&mut *out0, &*t0), (&mut *out1, &*t1)] {
                    match &job.by {
                        Some(by) => {
                            self.backend.run(PermuteAdd { dst, src, by, add: !first, m });
                        }
                        None => self.backend.run(Add { dst, b: src, m }),
                    }
                }
            }
            first = false;
        }
    }
}
