//! How fast this machine is, for estimates of plans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::buffer::Rows;
use super::cipher::{Ciphertext, Degree, KeyId};
use super::context::{Automorphism, Context};
use super::counters::Counts;
use super::error::CkksError;
use super::eval::Evaluator;
use super::evalkeys::{EvaluationKeys, SwitchingKey};

/// Seconds of one core for a unit of work: measured, not known.
///
/// Nearly all of a circuit is transforms and what goes with them (base conversions, inner
/// products, row operations), in much the same proportion in products, rotations and rescalings,
/// so their number times one rate is an estimate that comes near.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// A transform of one row, with its share of everything else.
    pub transform: f64,
    /// What it costs besides transforms to encode a plaintext and multiply by it.
    pub encoding: f64,
}

/// Repetitions; the fastest counts.
const TIMES: usize = 5;

impl Rates {
    /// Measures products, rotations and plaintext products of ciphertexts at a level and half-way
    /// down. Timing does not depend on data, so keys and ciphertexts are zeros: no secret is
    /// needed. Call it in a pool of one thread; it counts on the context's counters.
    ///
    /// # Errors
    /// [`CkksError::NoSuchLevel`], [`CkksError::LevelExhausted`] at level 0.
    pub fn measure(ctx: &Arc<Context>, level: usize) -> Result<Self, CkksError> {
        if level > ctx.top_level() {
            return Err(CkksError::NoSuchLevel { level, top: ctx.top_level() });
        }
        let zeros = |count| {
            let mut rows = Rows::scratch(ctx.n(), count);
            rows.rows_mut().for_each(|row| row.fill(0));
            rows
        };
        let half = || (0..ctx.digits.len()).map(|_| zeros(ctx.primes.len())).collect();
        let key = || SwitchingKey { seed: [0; 32], b: half(), a: half() };
        let turn = Automorphism::Rotate(1);
        let owner = KeyId([0; 16]);
        let keys = EvaluationKeys {
            key: owner,
            parameters: ctx.hash,
            relinearization: Some(key()),
            galois: BTreeMap::from([(ctx.galois_element(turn), key())]),
        };
        let ev = Evaluator::new(ctx.clone(), Arc::new(keys))?;
        let slots = vec![0.5; ctx.slots()];
        let (mut switched, mut plain) = (Spent::default(), Spent::default());
        for level in [level, level.div_ceil(2)] {
            let x = Ciphertext {
                parts: vec![zeros(level + 1), zeros(level + 1)],
                level,
                degree: Degree::One,
                key: owner,
                parameters: ctx.hash,
            };
            switched.add(ctx, || ev.mul(&x, &x).map(drop))?;
            switched.add(ctx, || ev.rotate(&x, 1).map(drop))?;
            plain.add(ctx, || ev.mul_plain(&x, &ctx.encode_factor(&slots, level)?).map(drop))?;
        }
        let transform = switched.seconds / switched.counts.ntts as f64;
        let rest = plain.seconds - transform * plain.counts.ntts as f64;
        Ok(Self { transform, encoding: (rest / plain.counts.plain_products as f64).max(0.0) })
    }

    /// An estimate of one core's seconds for such a circuit.
    #[must_use]
    pub fn seconds(&self, counts: &Counts) -> f64 {
        self.transform * counts.ntts as f64 + self.encoding * counts.plain_products as f64
    }
}

/// Fastest times, with what was counted.
#[derive(Default)]
struct Spent {
    seconds: f64,
    counts: Counts,
}

impl Spent {
    fn add(
        &mut self,
        ctx: &Context,
        f: impl Fn() -> Result<(), CkksError> + Sync,
    ) -> Result<(), CkksError> {
        let once = || {
            let before = ctx.counters.snapshot();
            let start = Instant::now();
            f()?;
            Ok((start.elapsed().as_secs_f64(), ctx.counters.snapshot() - before))
        };
        let mut fastest = once()?;
        for _ in 1..TIMES {
            let next = once()?;
            if next.0 < fastest.0 {
                fastest = next;
            }
        }
        self.seconds += fastest.0;
        self.counts += fastest.1;
        Ok(())
    }
}
