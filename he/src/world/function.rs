//! Functions of one variable.
//!
//! The reciprocal doubles Chebyshev polynomials; everything else is a Chebyshev series evaluated
//! in baby and giant steps (Paterson and Stockmeyer 1973).

use undertone_core::{Approximate, Bound, Fault, Function, Made};

use super::tensor::Held;
use super::{Ckks, Engine, HeError, Packed, Packing};
use crate::ckks::CkksError;

/// How closely functions are to be approximated, and on how much more than their calibrated
/// domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Relative error on the domain.
    pub tolerance: f64,
    /// A reciprocal's domain begins at this times its calibrated begin. Below, the reciprocal
    /// saturates: arguments down to zero are harmless, if inexact.
    pub below: f64,
    /// A reciprocal's domain ends at this times its calibrated end. Beyond, the polynomial grows
    /// without bound and the result is worthless; nobody can see that but who decrypts.
    pub above: f64,
}

impl Accuracy {
    /// A relative error on the calibrated domain itself.
    #[must_use]
    pub const fn exactly(tolerance: f64) -> Self {
        Self { tolerance, below: 1.0, above: 1.0 }
    }

    /// The reciprocal for a calibrated domain.
    #[must_use]
    pub fn reciprocal(&self, lo: f64, hi: f64) -> Doubling {
        Doubling::new(lo * self.below, hi * self.above, self.tolerance)
    }
}

/// Largest degree of a series.
const MAX_DEGREE: usize = 511;

impl<E: Engine + Sync> Approximate for Ckks<E> {
    fn map(&mut self, a: Packed<E::Ct>, f: Function, domain: Bound, _: Bound) -> Made<Self> {
        let range = domain.range.ok_or(Fault::Uncalibrated(domain.site))?;
        let (lo, hi) = (range.lo.to_f64(), range.hi.to_f64());
        let refused = |problem| HeError::Domain { function: f.name(), lo, hi, problem };
        if hi.partial_cmp(&lo) != Some(std::cmp::Ordering::Greater) {
            return Err(refused("the domain is empty; calibrate the model"));
        }
        if matches!(f, Function::Reciprocal | Function::Rsqrt) && lo <= 0.0 {
            return Err(refused("must be positive; add an epsilon"));
        }
        let plan = match f {
            Function::Reciprocal => Plan::Reciprocal(self.accuracy.reciprocal(lo, hi)),
            _ => Plan::Series(
                series(|x| value(f, x), lo, hi, self.accuracy.tolerance)
                    .ok_or_else(|| refused("needs too high a degree; narrow the domain"))?,
            ),
        };
        // t = 2x/(hi − lo) − (hi + lo)/(hi − lo) lies in [−1, 1].
        let (slope, offset, factor) = match &plan {
            Plan::Reciprocal(d) => (d.slope, d.offset, d.factor),
            Plan::Series(_) => (2.0 / (hi - lo), (hi + lo) / (hi - lo), 1.0),
        };
        let (shape, packing) = (a.shape, a.packing);
        let held = self.operand(&a, f.name())?;
        let one = |e: &E, x: &E::Ct| {
            let _ = e;
            let t = self.affine(x, slope * held.factor, -offset)?;
            match &plan {
                Plan::Reciprocal(d) => self.reciprocal(t, d),
                Plan::Series(c) => self.chebyshev(&t, c),
            }
        };
        let cts = self.each(&held.cts, one)?;
        Ok(Packed::held(shape, packing, Held { factor, cts, ..held }))
    }
}

enum Plan {
    Reciprocal(Doubling),
    Series(Vec<f64>),
}

/// The reciprocal on [lo, hi] by doubling.
///
/// With t the affine image of x in [−1, 1] and −t₀ that of x = 0, the best polynomial of degree
/// n − 1 for 1/x in relative error is (1 − Tₙ(t)/τₙ)/x with τₙ = Tₙ(t₀), and its error is 1/τₙ.
/// From T₂ₙ = 2Tₙ² − 1,
///
/// 1/x ≈ 2α/τ₂ · (t₀ − t) · Π (τₙ + Tₙ)·2τₙ/τ₂ₙ over n = 2, 4, …, α = 2/(hi − lo):
///
/// one squaring and one product a doubling, as in Goldschmidt's division, of which this is the
/// minimax form. Computed are yₙ = 2ρ⁻ⁿ·Tₙ, ρ + 1/ρ = 2t₀, which stay near Tₙ/τₙ and need no
/// further constants: y₂ₙ = yₙ² − 2ρ⁻²ⁿ. All public factors wait until the end.
#[derive(Clone, Debug)]
pub struct Doubling {
    /// y₁ = slope·x − offset.
    slope: f64,
    offset: f64,
    /// For n = 2, 4, …: 2ρ⁻²ⁿ of the squaring that gives yₙ, and wₙτₙ = 1 + ρ⁻²ⁿ.
    steps: Vec<(f64, f64)>,
    /// What the product is to be multiplied by.
    factor: f64,
}

impl Doubling {
    /// The polynomial whose relative error on [lo, hi] is at most `tolerance`.
    #[must_use]
    pub fn new(lo: f64, hi: f64, tolerance: f64) -> Self {
        let alpha = 2.0 / (hi - lo);
        let start = (hi + lo) / (hi - lo);
        let rho = start + (start * start - 1.0).sqrt();
        let tau = |n: i32| (rho.powi(n) + rho.powi(-n)) / 2.0;
        let w = |n: i32| 2.0 * rho.powi(-n);
        let mut factor = 2.0 * alpha / (tau(2) * w(1));
        let (mut n, mut steps) = (2, Vec::new());
        while 1.0 / tau(n) > tolerance {
            factor *= 2.0 * tau(n) / (tau(2 * n) * w(n));
            steps.push((2.0 * rho.powi(-n), 1.0 + rho.powi(-2 * n)));
            n *= 2;
        }
        Self { slope: alpha * w(1), offset: start * w(1), steps, factor }
    }

    /// Its levels: the degree is 2ᵏ − 1.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.steps.len() + 1
    }

    /// What stored queries are to be multiplied by, such that the row sums of their scores' powers
    /// enter without a further level.
    pub(super) fn query_factor(&self, packing: &Packing, exponent: u8) -> f64 {
        // Pairs of shifts come out doubled.
        let doubled = if packing.ciphertexts > 1 { 2.0 } else { 1.0 };
        doubled / self.slope.powf(1.0 / f64::from(exponent))
    }

    /// The polynomial itself, in the clear.
    #[must_use]
    pub fn value(&self, x: f64) -> f64 {
        let mut y = self.slope * x - self.offset;
        let mut p = self.offset - y;
        for (square, shift) in &self.steps {
            y = y * y - square;
            p *= shift + y;
        }
        p * self.factor
    }
}

impl<E: Engine + Sync> Ckks<E> {
    /// by·x + beta; no level if `by` is one.
    fn affine(&self, x: &E::Ct, by: f64, beta: f64) -> Result<E::Ct, CkksError> {
        let e = &self.engine;
        let scaled =
            if (by - 1.0).abs() < 1e-12 { x.clone() } else { e.rescale(&e.mul_scalar(x, by)?)? };
        e.add_scalar(&scaled, beta)
    }

    /// 2x² − 1.
    fn double(&self, x: &E::Ct) -> Result<E::Ct, CkksError> {
        let e = &self.engine;
        let square = e.tensor(x, x)?;
        let square = e.relinearize(&e.mul_integer(&square, 2)?, true)?;
        e.add_scalar(&square, -1.0)
    }

    fn reciprocal(&self, mut y: E::Ct, d: &Doubling) -> Result<E::Ct, CkksError> {
        let e = &self.engine;
        let mut product = e.add_scalar(&e.mul_integer(&y, -1)?, d.offset)?;
        for &(square, shift) in &d.steps {
            y = e.add_scalar(&e.mul(&y, &y)?, -square)?;
            product = self.times(&product, &e.add_scalar(&y, shift)?)?;
        }
        Ok(product)
    }

    /// a·b, the higher operand lowered first.
    fn times(&self, a: &E::Ct, b: &E::Ct) -> Result<E::Ct, CkksError> {
        let level = self.engine.meta(a).level.min(self.engine.meta(b).level);
        let (a, b) = (self.lower(a, level, 1.0)?.0, self.lower(b, level, 1.0)?.0);
        self.engine.mul(&a, &b)
    }

    fn plus(&self, a: &E::Ct, b: &E::Ct) -> Result<E::Ct, CkksError> {
        let level = self.engine.meta(a).level.min(self.engine.meta(b).level);
        let (a, b) = (self.lower(a, level, 1.0)?.0, self.lower(b, level, 1.0)?.0);
        self.engine.add(&a, &b)
    }

    /// Σ cₖ·Tₖ(t).
    fn chebyshev(&self, t: &E::Ct, c: &[f64]) -> Result<E::Ct, CkksError> {
        let e = &self.engine;
        let degree = c.len() - 1;
        // Baby steps T₁ … T_b, then doublings.
        let baby = 1usize << ((degree + 1).ilog2().div_ceil(2)).max(1);
        let mut steps: Vec<E::Ct> = vec![t.clone()];
        for k in 2..=baby {
            let (hi, lo) = (k.div_ceil(2), k / 2);
            // T_(hi+lo) = 2·T_hi·T_lo − T_(hi−lo).
            steps.push(if hi == lo {
                self.double(&steps[hi - 1])?
            } else {
                let twice = e.mul_integer(&self.times(&steps[hi - 1], &steps[lo - 1])?, 2)?;
                let t = self.lower(t, e.meta(&twice).level, 1.0)?.0;
                e.sub(&twice, &t)?
            });
        }
        let mut giants = vec![steps[baby - 1].clone()];
        while baby << giants.len() <= degree {
            giants.push(self.double(&giants[giants.len() - 1])?);
        }
        self.giant_step(c, baby, &steps, &giants)
    }

    fn giant_step(
        &self,
        c: &[f64],
        baby: usize,
        steps: &[E::Ct],
        giants: &[E::Ct],
    ) -> Result<E::Ct, CkksError> {
        let degree = c.len() - 1;
        if degree <= baby {
            return self.linear(c, steps);
        }
        let which = (degree / baby).ilog2() as usize;
        let m = baby << which;
        // p = q·T_m + r, from T_i = 2·T_m·T_(i−m) − T_|2m−i|; the degree is below 2m.
        let mut quotient = vec![0.0; degree - m + 1];
        let mut rest = c[..m].to_vec();
        quotient[0] = c[m];
        for i in m + 1..=degree {
            quotient[i - m] = 2.0 * c[i];
            rest[2 * m - i] -= c[i];
        }
        let high = self.giant_step(&quotient, baby, steps, &giants[..which + 1])?;
        let product = self.times(&high, &giants[which])?;
        let low = self.giant_step(&rest, baby, steps, giants)?;
        self.plus(&product, &low)
    }

    /// Σ cₖ·Tₖ over the baby steps: one level below the deepest that is needed.
    fn linear(&self, c: &[f64], steps: &[E::Ct]) -> Result<E::Ct, CkksError> {
        let e = &self.engine;
        let used = &steps[..(c.len() - 1).max(1)];
        let level = used.iter().map(|t| e.meta(t).level).min().unwrap_or(0);
        let mut sum: Option<E::Ct> = None;
        for (t, &c) in used.iter().zip(c[1..].iter().chain(std::iter::repeat(&0.0))) {
            let term = e.mul_scalar(&self.lower(t, level, 1.0)?.0, c)?;
            sum = Some(match sum {
                None => term,
                Some(sum) => e.add(&sum, &term)?,
            });
        }
        // `used` is never empty.
        let sum =
            sum.ok_or(CkksError::LevelExhausted { operation: "series", needed: 1, available: 0 })?;
        e.add_scalar(&e.rescale(&sum)?, c[0])
    }
}

/// Chebyshev coefficients of f on [lo, hi], to a relative tolerance of its largest value; none
/// if [`MAX_DEGREE`] does not reach it.
fn series(f: impl Fn(f64) -> f64, lo: f64, hi: f64, tolerance: f64) -> Option<Vec<f64>> {
    let nodes = 2 * (MAX_DEGREE + 1);
    let angle = |k: usize| std::f64::consts::PI * (k as f64 + 0.5) / nodes as f64;
    let values: Vec<f64> =
        (0..nodes).map(|k| f((angle(k).cos() * (hi - lo) + hi + lo) / 2.0)).collect();
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let mut c: Vec<f64> = (0..nodes)
        .map(|j| {
            let sum: f64 = (0..nodes).map(|k| values[k] * (j as f64 * angle(k)).cos()).sum();
            sum * if j == 0 { 1.0 } else { 2.0 } / nodes as f64
        })
        .collect();
    let mut tail = 0.0;
    let mut degree = nodes - 1;
    while degree > 1 && tail + c[degree].abs() <= tolerance * largest {
        tail += c[degree].abs();
        degree -= 1;
    }
    c.truncate(degree + 1);
    (degree <= MAX_DEGREE).then_some(c)
}

pub(crate) fn value(f: Function, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match f {
        Function::Exp => x.exp(),
        Function::Reciprocal => 1.0 / x,
        Function::Rsqrt => 1.0 / x.sqrt(),
        Function::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Function::Sigmoid => sigmoid(x),
        Function::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Function::Tanh => x.tanh(),
        Function::Silu => x * sigmoid(x),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_doubling_reaches_its_tolerance_and_no_more_than_it_must() {
        for (lo, hi) in [(0.015, 1.0), (1.0, 500.0), (3.0, 4.0)] {
            let d = Doubling::new(lo, hi, 1e-7);
            let worst = (0..=1000)
                .map(|k| lo + (hi - lo) * f64::from(k) / 1000.0)
                .map(|x| (d.value(x) * x - 1.0).abs())
                .fold(0.0, f64::max);
            assert!(worst < 1.1e-7, "[{lo}, {hi}]: {worst}");
        }
        // 64-fold in domain: degree 64, six levels.
        assert_eq!(Doubling::new(0.015, 1.0, 3e-7).steps.len(), 5);
    }

    #[test]
    fn series_reach_their_tolerance() {
        for (f, lo, hi) in
            [(Function::Gelu, -6.0, 6.0), (Function::Rsqrt, 0.1, 4.0), (Function::Exp, -8.0, 0.0)]
        {
            let c = series(|x| value(f, x), lo, hi, 1e-6).expect("within degree");
            for k in 0..=200 {
                let t = -1.0 + f64::from(k) / 100.0;
                let sum: f64 =
                    c.iter().enumerate().map(|(j, c)| c * (j as f64 * t.acos()).cos()).sum();
                let x = (t * (hi - lo) + hi + lo) / 2.0;
                assert!((sum - value(f, x)).abs() < 7e-6, "{} at {x}", f.name());
            }
        }
    }
}
