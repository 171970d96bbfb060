use super::{both, each, only};
use crate::mpc::{Mpc, Shared, Wire};
use crate::preprocess::{Factor, Kernel, Lane};
use crate::ring::low;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use undertone_core::Function;

/// Fraction bits of dealt sines and cosines, and of their public factors.
const DEALT: u32 = 20;
const PUBLIC: u32 = 22;

/// A function on an interval as a trigonometric sum whose period is longer than the interval (a
/// Fourier extension), with what it is outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The interval.
    pub lo: f64,
    /// The interval.
    pub hi: f64,
    /// log₂ of the period.
    pub period: i32,
    /// Mean, then cosine and sine coefficients of each harmonic.
    pub mean: f64,
    /// Cosine and sine coefficients of harmonics 1, 2, …
    pub harmonics: Vec<[f64; 2]>,
    /// The constant below the interval.
    pub left: f64,
    /// Slope (0 or 1) and constant above the interval.
    pub right: (bool, f64),
    /// The greatest error found on the interval.
    pub error: f64,
}

impl Series {
    /// The sum's value, in plain arithmetic.
    #[must_use]
    pub fn at(&self, x: f64) -> f64 {
        let w = std::f64::consts::TAU / libm::ldexp(1.0, self.period);
        self.harmonics.iter().zip(1..).fold(self.mean, |sum, ([a, b], k)| {
            let angle = w * f64::from(k) * x;
            sum + a * libm::cos(angle) + b * libm::sin(angle)
        })
    }
}

/// The function in plain arithmetic.
#[must_use]
pub fn plain(f: Function, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    match f {
        Function::Exp => libm::exp(x),
        Function::Reciprocal => 1.0 / x,
        Function::Rsqrt => 1.0 / libm::sqrt(x),
        Function::Gelu => x * 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Function::Sigmoid => sigmoid(x),
        Function::Softplus => x.max(0.0) + libm::log1p(libm::exp(-x.abs())),
        Function::Tanh => libm::tanh(x),
        Function::Silu => x * sigmoid(x),
    }
}

type Fitted = Mutex<HashMap<(Function, u64), Arc<Series>>>;

/// The series of a function with tails, to an error of `tolerance`; fitted once a process.
///
/// # Errors
/// [`Error::Unsupported`] for a function without tails or a tolerance out of reach.
pub fn fit(f: Function, tolerance: f64) -> Result<Arc<Series>> {
    static FITTED: OnceLock<Fitted> = OnceLock::new();
    let fitted = FITTED.get_or_init(Mutex::default);
    let key = (f, tolerance.to_bits());
    let known = || fitted.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(series) = known().get(&key) {
        return Ok(Arc::clone(series));
    }
    let (left, right) = match f {
        Function::Gelu | Function::Softplus | Function::Silu => (0.0, (true, 0.0)),
        Function::Sigmoid => (0.0, (false, 1.0)),
        Function::Tanh => (-1.0, (false, 1.0)),
        Function::Exp | Function::Reciprocal | Function::Rsqrt => {
            let reason = format!("{} has no constant or linear tails", f.name());
            return Err(Error::Unsupported { operation: "series", reason });
        }
    };
    // Beyond `hi` the tails are right to a third of the tolerance.
    let mut hi = 1.0;
    let tail = |x: f64| if right.0 { x } else { right.1 };
    while (plain(f, hi) - tail(hi)).abs() > tolerance / 3.0
        || (plain(f, -hi) - left).abs() > tolerance / 3.0
    {
        hi += 0.25;
    }
    let period = libm::ceil(libm::log2(2.0 * hi * 1.25)) as i32;
    for count in 2..=48 {
        let (mean, harmonics) = least_squares(f, hi, period, count);
        let mut s = Series { lo: -hi, hi, period, mean, harmonics, left, right, error: 0.0 };
        let grid = (0..=4000).map(|i| hi * (f64::from(i) / 2000.0 - 1.0));
        s.error = grid.fold(0.0, |e: f64, x| e.max((s.at(x) - plain(f, x)).abs()));
        if s.error <= tolerance / 2.0 {
            let s = Arc::new(s);
            known().insert(key, Arc::clone(&s));
            return Ok(s);
        }
    }
    let reason = format!("{} to {tolerance} needs over 48 harmonics", f.name());
    Err(Error::Unsupported { operation: "series", reason })
}

/// Least squares on a grid by Householder's QR, with a ridge that keeps coefficients small: the
/// extension is free outside the interval, hence ill-conditioned.
fn least_squares(f: Function, hi: f64, period: i32, count: usize) -> (f64, Vec<[f64; 2]>) {
    const RIDGE: f64 = 1e-6;
    let cols = 1 + 2 * count;
    let points = 16 * count + 80;
    let rows = points + cols;
    let w = std::f64::consts::TAU / libm::ldexp(1.0, period);
    let mut a = vec![0.0; rows * cols];
    let mut y = vec![0.0; rows];
    for i in 0..points {
        // Chebyshev points: the ends matter most.
        let turn = std::f64::consts::PI * (i as f64 + 0.5) / points as f64;
        let x = -hi * libm::cos(turn);
        y[i] = plain(f, x);
        a[i * cols] = 1.0;
        for k in 1..=count {
            a[i * cols + 2 * k - 1] = libm::cos(w * k as f64 * x);
            a[i * cols + 2 * k] = libm::sin(w * k as f64 * x);
        }
    }
    for c in 0..cols {
        a[(points + c) * cols + c] = RIDGE;
    }
    for c in 0..cols {
        let norm = libm::sqrt((c..rows).map(|r| a[r * cols + c] * a[r * cols + c]).sum());
        let head = a[c * cols + c];
        let pivot = if head > 0.0 { -norm } else { norm };
        let mut v: Vec<f64> = (c..rows).map(|r| a[r * cols + c]).collect();
        v[0] = head - pivot;
        let size: f64 = v.iter().map(|v| v * v).sum();
        if size == 0.0 {
            continue;
        }
        for j in c..cols {
            let dot: f64 = v.iter().zip(c..).map(|(v, r)| v * a[r * cols + j]).sum();
            for (v, r) in v.iter().zip(c..) {
                a[r * cols + j] -= 2.0 * dot / size * v;
            }
        }
        let dot: f64 = v.iter().zip(c..).map(|(v, r)| v * y[r]).sum();
        for (v, r) in v.iter().zip(c..) {
            y[r] -= 2.0 * dot / size * v;
        }
    }
    let mut x = vec![0.0; cols];
    for c in (0..cols).rev() {
        let known: f64 = (c + 1..cols).map(|j| a[c * cols + j] * x[j]).sum();
        x[c] = (y[c] - known) / a[c * cols + c];
    }
    (x[0], x[1..].chunks_exact(2).map(|p| [p[0], p[1]]).collect())
}

/// A number below 2^20 with [`PUBLIC`] fraction bits, rounded to the nearest integer: adding 1.5·2^52
/// leaves an f64 no room for anything finer. Both parties get the same integer.
fn fixed(v: f64) -> u64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    const UNIT: f64 = (1u64 << PUBLIC) as f64;
    (v * UNIT + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits())
}

impl Mpc {
    /// A function with tails, such as GELU: two exchanges, of the value and of two bits.
    ///
    /// Sines and cosines of x̂ − r are sums of products of public and dealt ones, so a
    /// trigonometric sum needs no more than the opening; its period is a power of two, hence
    /// wrapping does it no harm. Comparisons with both ends, with one key, choose between the sum
    /// and the tails.
    ///
    /// # Errors
    /// A modulus without room; the channel's and the preprocessing's.
    pub fn apply(&mut self, x: &Shared, f: &Series) -> Result<Shared> {
        let wire = self.open_one(x)?;
        let end = |x: f64| libm::rint(libm::ldexp(x, wire.scale as i32)) as i64;
        let bits = self.at_least(&wire, &[end(f.lo), end(f.hi)])?;
        let both_ends = bits[0].plus(&bits[1]);
        let [inside, above] = self.open_each([&both_ends, &bits[1]])?;
        let scale = (DEALT + PUBLIC).max(wire.scale);
        // x itself comes back on the right: the modulus cannot outgrow its own.
        let modulus = if f.right.0 { 64.min(wire.bits + scale - wire.scale) } else { 64 };
        let middle = self.sum_inside(&wire, &inside, f, modulus)?;
        let middle = middle.lift(scale);
        let beyond = self.tail(&wire, &above, f, scale, modulus)?;
        let out = middle.plus(&beyond);
        Ok(self.offset_real(&out, f.left))
    }

    /// inside·(series − left)
    fn sum_inside(&mut self, x: &Wire, inside: &Wire, f: &Series, bits: u32) -> Result<Shared> {
        let n = x.shape.len();
        let period = (x.scale as i32 + f.period) as u32;
        if period > x.bits {
            return Err(Error::Room { operation: "series", needed: period, available: x.bits });
        }
        let scale = DEALT + PUBLIC;
        let bit = inside.mask.as_deref();
        let leads = self.leads();
        // The constant term.
        let mean = libm::rint(libm::ldexp(f.mean - f.left, scale as i32)) as i64 as u64;
        let alone = self.relation(&[Factor::Mask(bit)], n, bits)?;
        let mut lane = both(&inside.hat, &alone, |b, r| {
            let bit = only(leads, b).wrapping_add(1u64.wrapping_sub(2 * b).wrapping_mul(r));
            bit.wrapping_mul(mean)
        });
        let waves: Option<Vec<(f64, f64)>> = x.hat.as_ref().map(|hat| {
            let angle = |h: &u64| crate::preprocess::angle(1, period, *h);
            hat.iter().map(angle).map(|a| (libm::cos(a), libm::sin(a))).collect()
        });
        let mut turned: Option<Vec<(f64, f64)>> = waves.clone();
        for (k, [a, b]) in (1..).zip(&f.harmonics) {
            let mask = x.mask.as_deref();
            let cos = Factor::Value(mask, Kernel::Cos { k, period, scale: DEALT });
            let sin = Factor::Value(mask, Kernel::Sin { k, period, scale: DEALT });
            let mut dealt = || -> Result<Option<[Vec<u64>; 4]>> {
                let parts = [
                    self.relation(&[cos], n, bits)?,
                    self.relation(&[sin], n, bits)?,
                    self.relation(&[Factor::Mask(bit), cos], n, bits)?,
                    self.relation(&[Factor::Mask(bit), sin], n, bits)?,
                ];
                let [Some(c), Some(s), Some(bc), Some(bs)] = parts else { return Ok(None) };
                Ok(Some([c, s, bc, bs]))
            };
            let dealt = dealt()?;
            if let (Some(lane), Some(turned), Some(waves), Some([c, s, bc, bs]), Some(e)) =
                (&mut lane, &mut turned, &waves, &dealt, &inside.hat)
            {
                for i in 0..n {
                    let (cos, sin) = turned[i];
                    let (of_cos, of_sin) = (fixed(a * cos + b * sin), fixed(a * sin - b * cos));
                    let flip = 1u64.wrapping_sub(2 * e[i]);
                    let pick = |own: u64, by_bit: u64| {
                        e[i].wrapping_mul(own).wrapping_add(flip.wrapping_mul(by_bit))
                    };
                    lane[i] = lane[i]
                        .wrapping_add(of_cos.wrapping_mul(pick(c[i], bc[i])))
                        .wrapping_add(of_sin.wrapping_mul(pick(s[i], bs[i])));
                    let (c1, s1) = waves[i];
                    turned[i] = (cos * c1 - sin * s1, sin * c1 + cos * s1);
                }
            }
        }
        let lane = each(&lane, |v| v & low(bits));
        Ok(Shared::new(x.shape, bits, scale, lane))
    }

    /// above·(right − left)
    fn tail(
        &mut self,
        x: &Wire,
        above: &Wire,
        f: &Series,
        scale: u32,
        bits: u32,
    ) -> Result<Shared> {
        let (slope, constant) = f.right;
        if slope {
            let x = self.select(x, above)?;
            // The modulus grows with the scale.
            let lane: Lane = each(&x.lane, |v| v << (scale - x.scale) & low(bits));
            return Ok(Shared::new(x.shape, bits, scale, lane));
        }
        let bit = self.integer_of(above)?;
        let step = libm::rint(libm::ldexp(constant - f.left, scale as i32)) as i64;
        let lane = each(&bit.lane, |v| v.wrapping_mul(step as u64) & low(bits));
        Ok(Shared::new(x.shape, bits, scale, lane))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn series_meet_their_tolerance_with_small_coefficients() {
        for f in
            [Function::Gelu, Function::Silu, Function::Sigmoid, Function::Tanh, Function::Softplus]
        {
            let s = fit(f, 5e-5).unwrap();
            assert!(s.error <= 2.5e-5);
            let size = s.harmonics.iter().flatten().fold(0f64, |m, c| m.max(c.abs()));
            assert!(size < 32.0, "{} {size} {}", f.name(), s.harmonics.len());
        }
    }

    #[test]
    fn fixed_point_is_rounded_as_by_the_library() {
        for i in -4000..4000 {
            let v = f64::from(i) * 0.001_234_567 + f64::from(i % 7) * 1e-7;
            let wanted = libm::rint(libm::ldexp(v, PUBLIC as i32)) as i64 as u64;
            assert_eq!(fixed(v), wanted, "{v}");
        }
    }

    #[test]
    fn functions_without_tails_are_refused() {
        assert!(fit(Function::Exp, 1e-4).is_err());
    }
}
