//! One Power-Softmax head, Q, K and V all encrypted: the operator of `undertone-core` with its
//! inputs packed for this world.

use std::sync::Arc;

use undertone_core::attention::{self, Context as At, Heads, Variant};
use undertone_core::{Bound, Domains, Mask, Num, Role, Site};

use super::{Accuracy, Ckks, Doubling, Engine, HeError, Layout, Packed, Packing};
use crate::ckks::{Ciphertext, Complex, Context, Meta};

/// What is public of a head: its sizes, its exponent and the calibrated range of its row sums.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Where the elements stand.
    pub packing: Packing,
    /// The even exponent p.
    pub exponent: u8,
    /// Least and greatest Σⱼ(qᵢ·kⱼ/√d)ᵖ.
    pub row_sums: (f64, f64),
    /// Wanted relative error of the reciprocal.
    pub tolerance: f64,
}

/// The slots of a head's inputs, ready to encode: for each, its ciphertexts.
pub struct HeadSlots {
    /// Queries, scaled.
    pub q: Vec<Vec<Complex>>,
    /// Keys.
    pub k: Vec<Vec<Complex>>,
    /// Values.
    pub v: Vec<Vec<Complex>>,
}

/// A head's inputs in an engine's ciphertexts.
pub struct HeadInputs<C> {
    /// Queries, scaled.
    pub q: Vec<C>,
    /// Keys.
    pub k: Vec<C>,
    /// Values.
    pub v: Vec<C>,
}

impl Head {
    /// Packs row-major n×d matrices. The public factors (d^-1/2, and the one that takes row sums
    /// into the reciprocal's domain) are put into the queries.
    ///
    /// # Errors
    /// [`undertone_core::Fault::Shape`] for matrices of another size.
    pub fn pack(&self, q: &[f64], k: &[f64], v: &[f64]) -> Result<HeadSlots, HeError> {
        let scale = self.query_factor().recip();
        let q: Vec<f64> = q.iter().map(|x| x * scale * self.root()).collect();
        Ok(HeadSlots {
            q: self.packing.pack(&q, Layout::Spread)?,
            k: self.packing.pack(k, Layout::ShiftedPairs)?,
            v: self.packing.pack(v, Layout::ShiftedPairs)?,
        })
    }

    /// d^-1/2.
    fn root(&self) -> f64 {
        (self.packing.features as f64).sqrt().recip()
    }

    /// What a packed query is to be multiplied by: such that the row sum of the packed scores'
    /// powers enters the reciprocal without further scaling.
    fn query_factor(&self) -> f64 {
        let (lo, hi) = self.row_sums;
        Doubling::new(lo, hi, self.tolerance).query_factor(&self.packing, self.exponent)
    }

    /// Runs the head: Σⱼ sᵖⱼvⱼ / Σⱼ sᵖⱼ, valid in the slots that [`Packing::unpack`] reads.
    ///
    /// # Errors
    /// Whatever the world refuses: too few levels, missing keys, other parameters.
    pub fn run<E: Engine + Sync>(
        &self,
        engine: &Arc<E>,
        x: HeadInputs<E::Ct>,
    ) -> Result<Packed<E::Ct>, HeError> {
        let mut world = Ckks::new(engine.clone(), Accuracy::exactly(self.tolerance));
        let factor = self.query_factor();
        let heads = Heads {
            q: world.admit(self.packing, Layout::Spread, factor, x.q)?,
            k: world.admit(self.packing, Layout::ShiftedPairs, 1.0, x.k)?,
            v: world.admit(self.packing, Layout::ShiftedPairs, 1.0, x.v)?,
        };
        let at = At { mask: Mask::NONE, site: Site::layer(0, Role::Scores), domains: self };
        let attended = attention::power(&mut world, heads, self.exponent, Variant::Plain, &at)?;
        attention::normalise(&mut world, attended, &at)
    }

    /// Inputs for a [`Ledger`](super::Ledger), fresh at a level.
    #[must_use]
    pub fn planned_inputs(&self, level: usize) -> HeadInputs<Meta> {
        let fresh = Meta { level, degree: crate::ckks::Degree::One, parts: 2 };
        let of = |layout| vec![fresh; self.packing.count(layout)];
        HeadInputs {
            q: of(Layout::Spread),
            k: of(Layout::ShiftedPairs),
            v: of(Layout::ShiftedPairs),
        }
    }

    /// Inputs for a [`Clear`](super::Clear) engine.
    #[must_use]
    pub fn clear_inputs(
        &self,
        ctx: &Context,
        slots: &HeadSlots,
        level: usize,
    ) -> HeadInputs<super::Slots> {
        let of = |x: &[Vec<Complex>]| x.iter().map(|x| super::Slots::new(ctx, x, level)).collect();
        HeadInputs { q: of(&slots.q), k: of(&slots.k), v: of(&slots.v) }
    }

    /// Encrypts packed inputs with a function of the caller's, which has the key.
    ///
    /// # Errors
    /// What the function reports.
    pub fn encrypt<Err>(
        &self,
        slots: &HeadSlots,
        mut encrypt: impl FnMut(&[Complex]) -> Result<Ciphertext, Err>,
    ) -> Result<HeadInputs<Ciphertext>, Err> {
        let mut of = |x: &[Vec<Complex>]| -> Result<Vec<Ciphertext>, Err> {
            x.iter().map(|x| encrypt(x)).collect()
        };
        Ok(HeadInputs { q: of(&slots.q)?, k: of(&slots.k)?, v: of(&slots.v)? })
    }

    /// The exact head in `f64` (arXiv 2410.09457, section 3), row-major.
    #[must_use]
    pub fn exact(&self, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
        let (n, d) = (self.packing.tokens, self.packing.features);
        let mut out = vec![0.0; n * d];
        for i in 0..n {
            let weights = self.weights(q, k, i);
            let total: f64 = weights.iter().sum();
            for c in 0..d {
                let sum: f64 = (0..n).map(|j| weights[j] * v[j * d + c]).sum();
                out[i * d + c] = sum / total;
            }
        }
        out
    }

    fn weights(&self, q: &[f64], k: &[f64], i: usize) -> Vec<f64> {
        let (n, d) = (self.packing.tokens, self.packing.features);
        (0..n)
            .map(|j| {
                let s: f64 = (0..d).map(|c| q[i * d + c] * k[j * d + c]).sum();
                (s * self.root()).powi(i32::from(self.exponent))
            })
            .collect()
    }

    /// The least and greatest row sum of the given inputs: for calibration on public data.
    #[must_use]
    pub fn measure_row_sums(&self, q: &[f64], k: &[f64]) -> (f64, f64) {
        (0..self.packing.tokens)
            .map(|i| self.weights(q, k, i).iter().sum())
            .fold((f64::INFINITY, 0.0), |(lo, hi), x: f64| (lo.min(x), hi.max(x)))
    }
}

impl Domains for Head {
    fn bound(&self, site: Site) -> Bound {
        match site.role {
            Role::Denominator => {
                Bound::known(site, Num::of(self.row_sums.0), Num::of(self.row_sums.1))
            }
            _ => Bound::unknown(site),
        }
    }
}
