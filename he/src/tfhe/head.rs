//! A Power-Softmax head on encrypted integers: the core's operator with its inputs quantized.

use std::sync::Arc;

use undertone_core::attention::{self, Context, Heads, Variant};
use undertone_core::{Bound, Domains, Mask, Num, Role, Shape, Site};

use super::{Engine, Integers, Products, Tfhe, TfheError};

/// What is public of a head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Tokens n.
    pub tokens: usize,
    /// Features d.
    pub features: usize,
    /// The even exponent p.
    pub exponent: u8,
    /// Least and greatest integer of Q, K and V.
    pub input: (i64, i64),
    /// log₂ of what their integer one stands for. Queries arrive scaled by d^-1/2.
    pub unit: i16,
    /// Calibrated least and greatest Σⱼ(qᵢ·kⱼ)ᵖ. A lesser row sum is taken as the least; a greater
    /// one, by more than a quarter, gives wrong results.
    pub row_sums: (f64, f64),
}

/// A head's inputs, n×d each, row by row.
pub struct HeadInputs<C> {
    /// Queries.
    pub q: Vec<C>,
    /// Keys.
    pub k: Vec<C>,
    /// Values.
    pub v: Vec<C>,
}

impl Head {
    /// Integers that lie in the declared interval.
    ///
    /// # Errors
    /// [`TfheError::Undeclared`].
    pub fn admit(
        &self,
        q: Vec<i64>,
        k: Vec<i64>,
        v: Vec<i64>,
    ) -> Result<HeadInputs<i64>, TfheError> {
        for (what, x) in [("queries", &q), ("keys", &k), ("values", &v)] {
            if x.iter().any(|x| !(self.input.0..=self.input.1).contains(x)) {
                return Err(TfheError::Undeclared { what });
            }
        }
        Ok(HeadInputs { q, k, v })
    }

    /// Inputs for a [`Ledger`](super::Ledger).
    #[must_use]
    pub fn planned_inputs(&self) -> HeadInputs<()> {
        let of = || vec![(); self.tokens * self.features];
        HeadInputs { q: of(), k: of(), v: of() }
    }

    /// Runs the head: n×d integers.
    ///
    /// # Errors
    /// Whatever the world refuses.
    pub fn run<E: Engine>(
        &self,
        engine: &Arc<E>,
        products: Products,
        x: HeadInputs<E::Ct>,
    ) -> Result<Integers<E::Ct>, TfheError> {
        let mut world = Tfhe::new(engine.clone(), products);
        let shape = Shape::new(1, self.tokens, self.features);
        let heads = Heads {
            q: world.admit(shape, self.input, self.unit, x.q)?,
            k: world.admit(shape, self.input, self.unit, x.k)?,
            v: world.admit(shape, self.input, self.unit, x.v)?,
        };
        let at = Context { mask: Mask::NONE, site: Site::layer(0, Role::Scores), domains: self };
        let attended = attention::power(&mut world, heads, self.exponent, Variant::Plain, &at)?;
        attention::normalise(&mut world, attended, &at)
    }

    /// The exact head in `f64` (arXiv 2410.09457, section 3) of the same integers, as real numbers.
    #[must_use]
    pub fn exact(&self, x: &HeadInputs<i64>) -> Vec<f64> {
        let (n, d) = (self.tokens, self.features);
        let real = f64::from(self.unit).exp2();
        let mut out = Vec::with_capacity(n * d);
        for i in 0..n {
            let weights: Vec<f64> = (0..n).map(|j| self.weight(x, i, j)).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..d).map(|c| {
                let sum: f64 = (0..n).map(|j| weights[j] * x.v[j * d + c] as f64 * real).sum();
                sum / total
            }));
        }
        out
    }

    fn weight(&self, x: &HeadInputs<i64>, i: usize, j: usize) -> f64 {
        let d = self.features;
        let score: i64 = (0..d).map(|c| x.q[i * d + c] * x.k[j * d + c]).sum();
        (score as f64 * f64::from(2 * self.unit).exp2()).powi(i32::from(self.exponent))
    }

    /// Least and greatest row sum of the given inputs: for calibration on public data.
    #[must_use]
    pub fn measure_row_sums(&self, x: &HeadInputs<i64>) -> (f64, f64) {
        (0..self.tokens)
            .map(|i| (0..self.tokens).map(|j| self.weight(x, i, j)).sum())
            .fold((f64::INFINITY, 0.0), |(lo, hi), s: f64| (lo.min(s), hi.max(s)))
    }
}

impl Domains for Head {
    fn bound(&self, site: Site) -> Bound {
        let real = f64::from(self.unit).exp2();
        let (lo, hi) = (self.input.0 as f64 * real, self.input.1 as f64 * real);
        match site.role {
            Role::Denominator => {
                Bound::known(site, Num::of(self.row_sums.0), Num::of(self.row_sums.1))
            }
            // No weight exceeds the greatest row sum.
            Role::Weights => Bound::known(site, Num::ZERO, Num::of(self.row_sums.1)),
            // Σwⱼvⱼ, and a mean of the values.
            Role::Numerator => {
                let most = self.row_sums.1;
                Bound::known(site, Num::of(lo * most), Num::of(hi * most))
            }
            Role::Context => {
                // Room for an error of half the range: quotients of few bits are coarse.
                let half = (hi - lo) / 2.0;
                Bound::known(site, Num::of(lo - half), Num::of(hi + half))
            }
            _ => Bound::unknown(site),
        }
    }
}
