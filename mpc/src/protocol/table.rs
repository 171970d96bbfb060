use super::series::plain;
use crate::mpc::{Mpc, Shared};
use crate::ring::decode;
use crate::{Error, Result};
use undertone_core::Function;

/// Fraction bits of a table's slopes, where the ring has room.
const SLOPE: u32 = 24;
/// The longest table: 2^13 entries are expanded for each element.
const MAX_BITS: u32 = 13;

/// A function on an interval as straight pieces, indexed by the top bits of the opened argument.
///
/// The index may be one too high, since a borrow from the low bits is not looked at; each piece is
/// therefore fitted to its own cell and the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Tabulated {
    /// Bits of the index.
    pub bits: u32,
    /// Bits of the whole window, at the argument's scale.
    pub window: u32,
    /// Left end of the window, an integer at the argument's scale.
    pub base: i64,
    /// Fraction bits of the argument, of slopes and of values.
    pub scale: u32,
    /// Fraction bits of the slopes.
    pub slope_scale: u32,
    /// Value at the start of each cell and slope, as real numbers.
    pub pieces: Vec<[f64; 2]>,
    /// The greatest error found on the interval.
    pub error: f64,
}

impl Tabulated {
    /// The shortest table of a function on [lo, hi] with a relative error of `tolerance`, for
    /// arguments with `scale` fraction bits.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where 2^13 entries do not suffice.
    pub fn new(f: Function, lo: f64, hi: f64, tolerance: f64, scale: u32) -> Result<Self> {
        for bits in 4..=MAX_BITS {
            let table = Self::with_bits(f, lo, hi, bits, scale);
            if table.error <= tolerance {
                return Ok(table);
            }
        }
        let reason = format!("{} on [{lo}, {hi}] needs over 2^{MAX_BITS} entries", f.name());
        Err(Error::Unsupported { operation: "table", reason })
    }

    fn with_bits(f: Function, lo: f64, hi: f64, bits: u32, scale: u32) -> Self {
        // A cell below the interval and two above it absorb rounding and the index error.
        let cells = libm::ldexp(1.0, bits as i32);
        let span = libm::ldexp(hi - lo, scale as i32) * cells / (cells - 4.0);
        let window = (libm::ceil(libm::log2(span.max(1.0))) as u32).max(bits);
        let step = libm::ldexp(1.0, window as i32 - bits as i32 - scale as i32);
        let base = libm::floor(libm::ldexp(lo - step, scale as i32)) as i64;
        let start = libm::ldexp(base as f64, -(scale as i32));
        let (floor, ceiling) = (lo - 0.5 * lo.abs(), hi + 0.5 * hi.abs());
        let at = |x: f64| plain(f, x.clamp(floor, ceiling));
        let pieces: Vec<[f64; 2]> = (0..1u32 << bits)
            .map(|j| {
                let x = start + f64::from(j) * step;
                // Interpolate at the Chebyshev points of [x − step, x + step].
                let h = step * std::f64::consts::FRAC_1_SQRT_2;
                let (below, above) = (at(x - h), at(x + h));
                [0.5 * (below + above), (above - below) / (2.0 * h)]
            })
            .collect();
        let mut error = 0f64;
        let inside = |x: f64| (lo..=hi).contains(&x);
        for (j, [value, slope]) in pieces.iter().enumerate() {
            for i in -8..=8 {
                let d = step * f64::from(i) / 8.0;
                let x = start + j as f64 * step + d;
                if inside(x) {
                    let exact = plain(f, x);
                    let relative = (value + slope * d - exact).abs() / exact.abs().max(1e-9);
                    error = error.max(relative);
                }
            }
        }
        let high = |i: usize| pieces.iter().fold(1e-9f64, |m, p| m.max(p[i].abs()));
        let (value_bits, slope_bits) =
            (libm::ceil(libm::log2(high(0))), libm::ceil(libm::log2(high(1))));
        let room = 60 - value_bits.max(slope_bits + libm::log2(2.0 * step)).max(0.0) as u32;
        let slope_scale =
            SLOPE.min(room.saturating_sub(scale)).min((60.0 - slope_bits.max(0.0)) as u32);
        Self { bits, window, base, scale, slope_scale, pieces, error }
    }

    /// The table's value, in plain arithmetic, where the index is right.
    #[must_use]
    pub fn at(&self, x: f64) -> f64 {
        let u = libm::ldexp(x, self.scale as i32) as i64 - self.base;
        let j = (u >> (self.window - self.bits)).clamp(0, self.pieces.len() as i64 - 1);
        let start = decode((self.base + (j << (self.window - self.bits))) as u64, 64, self.scale);
        let [value, slope] = self.pieces[j as usize];
        value + slope * (x - start)
    }
}

impl Mpc {
    /// A tabulated function: two exchanges, of the argument and of slope and remainder.
    ///
    /// The dealt point function's shares are a shared one-hot vector; its inner products with the
    /// table's columns, rotated by the opened index, are shares of the entries. Expanding costs
    /// 2^bits hashes an element, so this is for one value a row.
    ///
    /// # Errors
    /// An argument of another scale or with too small a modulus; the channel's and the
    /// preprocessing's.
    pub fn look_up(&mut self, x: &Shared, t: &Tabulated) -> Result<Shared> {
        if x.scale != t.scale {
            return Err(Error::shape("table", format!("scale {}", t.scale), x.scale));
        }
        let out = t.scale + t.slope_scale;
        if x.bits != 64 {
            return Err(Error::Room { operation: "table", needed: 64, available: x.bits });
        }
        let n = x.shape.len();
        let u = self.shifted(x, -t.base);
        let wire = self.open_one(&self.narrow(&u, t.window))?;
        let cell = t.window - t.bits;
        let keys = self.point(wire.mask.as_deref(), n, cell, t.bits)?;
        let columns: [Vec<u64>; 3] = {
            let fixed = |v: f64, s: u32| libm::rint(libm::ldexp(v, s as i32)) as i64 as u64;
            [
                t.pieces.iter().map(|p| fixed(p[0], out)).collect(),
                t.pieces.iter().map(|p| fixed(p[1], t.slope_scale)).collect(),
                (0..t.pieces.len() as u64).map(|j| j << cell).collect(),
            ]
        };
        let mut entries = [const { None }; 3];
        if let (Some(party), Some(keys), Some(hat)) = (self.party(), keys, &wire.hat) {
            let mut sums = [vec![0u64; n], vec![0; n], vec![0; n]];
            for (i, hat) in hat.iter().enumerate() {
                let top = hat >> cell;
                let hot = keys.expand(party, i);
                let size = hot.len();
                // Entry (top − j) mod size for every j: two straight runs.
                for (column, sum) in columns.iter().zip(&mut sums) {
                    let first = column[..=top as usize].iter().rev();
                    let second = column[top as usize + 1..].iter().rev();
                    let entry = first.chain(second).zip(&hot[..size]);
                    sum[i] = entry.fold(0, |s, (t, e)| s.wrapping_add(t.wrapping_mul(*e)));
                }
            }
            entries = sums.map(Some);
        }
        let [value, slope, place] = entries;
        let value = Shared::new(x.shape, 64, out, value);
        let slope = Shared::new(x.shape, 64, t.slope_scale, slope);
        let rest = u.minus(&Shared::new(x.shape, 64, t.scale, place));
        let [slope, rest] = self.open_each([&slope, &rest])?;
        Ok(value.plus(&self.mul(&slope, &rest)?))
    }

    /// 1/x or x^−1/2 for positive x in [lo, hi], by a table where one suffices and else after
    /// scaling by a power of two that comparisons find; to a relative error of `tolerance` or 1e-5.
    ///
    /// # Errors
    /// Another function, a domain that is not positive; the channel's and the preprocessing's.
    pub fn inverse(
        &mut self,
        x: &Shared,
        f: Function,
        (lo, hi): (f64, f64),
        tolerance: f64,
    ) -> Result<Shared> {
        if !matches!(f, Function::Reciprocal | Function::Rsqrt) || lo <= 0.0 || hi < lo {
            let reason = format!("{} on [{lo}, {hi}]: a positive domain is needed", f.name());
            return Err(Error::Unsupported { operation: "inverse", reason });
        }
        if let Ok(table) = Tabulated::new(f, lo, hi, tolerance, x.scale) {
            return self.look_up(x, &table);
        }
        self.inverse_of_any_size(x, f, lo, hi)
    }

    /// Seven exchanges: value, power of two, settling, the table's two, settling, the product's.
    fn inverse_of_any_size(&mut self, x: &Shared, f: Function, lo: f64, hi: f64) -> Result<Shared> {
        let (first, last) = exponents(lo, hi, x.scale);
        // x·2^(last − 1 − j) for x in [2^j, 2^(j+1)) lies in [2^(last−1), 2^last).
        let spread = (last - 1 - first).max(0) as u32;
        let needed = x.scale + last.max(0) as u32 + spread + 3;
        if needed > x.bits {
            return Err(Error::Room { operation: "inverse", needed, available: x.bits });
        }
        let wire = self.open_one(x)?;
        let threshold = |j: i32| libm::rint(libm::ldexp(1.0, j + x.scale as i32)) as i64;
        let thresholds: Vec<i64> = (first + 1..last).map(threshold).collect();
        let bits = self.at_least(&wire, &thresholds)?;
        let bits = self.open(&bits.iter().collect::<Vec<_>>())?;
        // Both are step functions of x: a first value, then a difference a threshold.
        let root = matches!(f, Function::Rsqrt);
        let factor = |j: i32| {
            let real =
                if root { libm::exp2(-0.5 * f64::from(j)) } else { libm::exp2(-f64::from(j)) };
            libm::rint(libm::ldexp(real, FACTOR as i32)) as i64
        };
        let mut unit = self.share(&wire).times(1 << spread);
        let mut power = self.zeros(x.shape, 64, FACTOR);
        power = self.shifted(&power, factor(first));
        for (bit, j) in bits.iter().zip(first + 1..) {
            let shift = |j: i32| 1i64 << (last - 1 - j);
            unit = unit.plus(&self.select(&wire, bit)?.times(shift(j) - shift(j - 1)));
            let step = self.integer_of(bit)?.times(factor(j) - factor(j - 1));
            power = power.plus(&step.relabelled(FACTOR));
        }
        // Relabelled to [1, 2).
        let scale = unit.scale as i32 + last - 1;
        let unit = unit.relabelled(scale.max(0) as u32);
        let target = self.format().fraction.min(unit.scale);
        let unit = self.settle_to(&[(&unit, target)])?.swap_remove(0);
        let table = Tabulated::new(f, 1.0, 2.0, 2e-6, unit.scale)?;
        let inverse = self.look_up(&unit, &table)?;
        let target = self.format().fraction + 4;
        let inverse = self.settle_to(&[(&inverse, target)])?;
        let [inverse, power] = self.open_each([&inverse[0], &power])?;
        self.mul(&inverse, &power)
    }
}

/// The least and one more than the greatest power of two of an interval, at a scale.
pub(super) fn exponents(lo: f64, hi: f64, scale: u32) -> (i32, i32) {
    let first = (libm::floor(libm::log2(lo)) as i32).max(-(scale as i32));
    // Under 2, scaling up would cost the precision that it should give.
    (first, (libm::ceil(libm::log2(hi)) as i32).max(1))
}

/// Fraction bits of the power of two that scales a result back.
pub(super) const FACTOR: u32 = 20;
