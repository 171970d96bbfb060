use super::series::plain;
use crate::cost::Work;
use crate::mpc::{Mpc, Shared, Wire};
use crate::ring::{decode, low};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use undertone_core::Function;

/// Fraction bits of a table's slopes, where the ring has room: of a single table, whose result may
/// be reduced rather than settled, and of tables for a wide domain, whose slopes differ much.
const SLOPE: [u32; 2] = [24, 34];
/// The longest of several tables.
const PART_BITS: u32 = 10;
/// The most tables that one function is cut into.
const MAX_PARTS: usize = 16;
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
    /// The shortest table of a function on [lo, hi], 0 < lo < hi, with a relative error of
    /// `tolerance`, for arguments with `scale` fraction bits, if 2^`most` entries suffice.
    fn up_to(
        most: u32,
        f: Function,
        (lo, hi): (f64, f64),
        tolerance: f64,
        scale: u32,
    ) -> Option<Self> {
        // The error shrinks fourfold with each bit, which says where to begin.
        let last = Self::with_bits(f, lo, hi, most, scale);
        if last.error > tolerance {
            return None;
        }
        let spare = libm::floor(0.5 * libm::log2(tolerance / last.error.max(1e-12))) as u32;
        let first = most.saturating_sub(spare + 1).max(4);
        (first..most)
            .map(|bits| Self::with_bits(f, lo, hi, bits, scale))
            .find(|table| table.error <= tolerance)
            .or(Some(last))
    }

    fn with_bits(f: Function, lo: f64, hi: f64, bits: u32, scale: u32) -> Self {
        // A cell below the interval and two above it absorb rounding and the index error.
        let cells = libm::ldexp(1.0, bits as i32);
        let span = libm::ldexp(hi - lo, scale as i32) * cells / (cells - 4.0);
        let window = (libm::ceil(libm::log2(span.max(1.0))) as u32).max(bits);
        let step = libm::ldexp(1.0, window as i32 - bits as i32 - scale as i32);
        let base = libm::floor(libm::ldexp(lo - step, scale as i32)) as i64;
        let start = libm::ldexp(base as f64, -(scale as i32));
        let (floor, ceiling) = (0.5 * lo, 1.5 * hi);
        let at = |x: f64| plain(f, x.clamp(floor, ceiling));
        let pieces: Vec<[f64; 2]> = (0..1u32 << bits)
            .map(|j| {
                let x = start + f64::from(j) * step;
                if window == bits {
                    // The index is the argument, or one more: the line through both is exact.
                    return [at(x), (at(x) - at(x - step)) / step];
                }
                // Interpolate at the Chebyshev points of [x − step, x + step].
                let h = step * std::f64::consts::FRAC_1_SQRT_2;
                let (below, above) = (at(x - h), at(x + h));
                [0.5 * (below + above), (above - below) / (2.0 * h)]
            })
            .collect();
        let mut error = 0f64;
        let inside = |x: f64| (lo..=hi).contains(&x);
        for (j, [value, slope]) in pieces.iter().enumerate() {
            for i in -8..8 {
                // Arguments are whole units.
                let units = libm::floor(libm::ldexp(step, scale as i32) * f64::from(i) / 8.0);
                let d = libm::ldexp(units, -(scale as i32));
                let x = start + j as f64 * step + d;
                if inside(x) {
                    let exact = plain(f, x);
                    let relative = (value + slope * d - exact).abs() / exact.abs().max(1e-9);
                    error = error.max(relative);
                }
            }
        }
        let slope_scale = room(&pieces, step, scale, SLOPE[0]);
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

/// Fraction bits of slopes such that slopes, values and their sums stay below 2^61, at most `most`.
fn room(pieces: &[[f64; 2]], step: f64, scale: u32, most: u32) -> u32 {
    let high = |i: usize| pieces.iter().fold(1e-9f64, |m, p| m.max(p[i].abs()));
    let bits = |x: f64| libm::ceil(libm::log2(x)).max(0.0) as u32;
    let (value, slope, change) = (bits(high(0)), bits(high(1)), bits(high(1) * 2.0 * step));
    most.min(60u32.saturating_sub(scale + value.max(change))).min(60u32.saturating_sub(slope))
}

/// Tables that cover a domain together, each a stretch of equal ratio; one where it suffices.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// From the least arguments to the greatest.
    pub parts: Vec<Tabulated>,
    /// Where one gives way to the next, at the argument's scale.
    pub thresholds: Vec<i64>,
    /// Fraction bits of all slopes.
    pub slope_scale: u32,
    /// Bits of the argument that are opened.
    pub window: u32,
}

type Known = Mutex<HashMap<(Function, [u64; 3], u32), Arc<Tables>>>;

impl Tables {
    /// The fewest tables for a function on [lo, hi], 0 < lo, to a relative error of
    /// `tolerance`; made once a process.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another domain or a tolerance out of reach.
    pub fn of(f: Function, (lo, hi): (f64, f64), tolerance: f64, scale: u32) -> Result<Arc<Self>> {
        static KNOWN: OnceLock<Known> = OnceLock::new();
        let unsupported = || {
            let reason = format!("{} on [{lo}, {hi}] to {tolerance}", f.name());
            Error::Unsupported { operation: "table", reason }
        };
        // No positive argument is smaller than one unit.
        let lo = if lo > 0.0 { lo.max(libm::ldexp(1.0, -(scale as i32))) } else { lo };
        let hi = hi.max(2.0 * lo);
        if !(lo > 0.0 && hi.is_finite()) {
            return Err(unsupported());
        }
        let known =
            || KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let key = (f, [lo, hi, tolerance].map(f64::to_bits), scale);
        if let Some(tables) = known().get(&key) {
            return Ok(Arc::clone(tables));
        }
        let tables = (1..=MAX_PARTS).find_map(|n| Self::cut(f, (lo, hi), tolerance, scale, n));
        let tables = Arc::new(tables.ok_or_else(unsupported)?);
        known().insert(key, Arc::clone(&tables));
        Ok(tables)
    }

    fn cut(
        f: Function,
        (lo, hi): (f64, f64),
        tolerance: f64,
        scale: u32,
        count: usize,
    ) -> Option<Self> {
        let end = |i: usize| lo * libm::pow(hi / lo, i as f64 / count as f64);
        let most = if count == 1 { MAX_BITS } else { PART_BITS };
        // The last part is the longest relative to its step, the first to its rounding.
        let part = |i: usize| Tabulated::up_to(most, f, (end(i), end(i + 1)), tolerance, scale);
        part(count - 1)?;
        let parts = (0..count).map(part).collect::<Option<Vec<_>>>()?;
        let fixed = |x: f64| libm::rint(libm::ldexp(x, scale as i32)) as i64;
        let thresholds: Vec<i64> = (1..count).map(|i| fixed(end(i))).collect();
        let step = |t: &Tabulated| libm::ldexp(1.0, (t.window - t.bits) as i32 - scale as i32);
        let cap = SLOPE[usize::from(count > 1)];
        let slope_scale = parts.iter().map(|t| room(&t.pieces, step(t), scale, cap)).min()?;
        // Comparisons take the whole argument, a single table its window.
        let above = libm::ceil(libm::log2(hi)).max(0.0) as u32;
        let whole = parts.iter().map(|t| t.window).fold(scale + above + 3, u32::max);
        let window = if count == 1 { parts[0].window } else { whole };
        (window <= 64).then_some(Self { parts, thresholds, slope_scale, window })
    }

    /// Fraction bits of the result.
    #[must_use]
    pub fn scale(&self) -> u32 {
        self.parts.first().map_or(0, |t| t.scale) + self.slope_scale
    }
}

impl Mpc {
    /// A tabulated function of x modulo 2^64, settled or not: two exchanges, of the argument and
    /// of slope and remainder; one more, of a bit a threshold, where there are several tables.
    ///
    /// The dealt point function's shares are a shared one-hot vector; its inner products with the
    /// table's columns, rotated by the opened index, are shares of the entries. Expanding costs
    /// 2^bits hashes an element and table, so this is for one value a row.
    ///
    /// # Errors
    /// An argument of another scale or with too small a modulus; the channel's and the
    /// preprocessing's.
    pub fn look_up(&mut self, x: &Shared, t: &Tables) -> Result<Shared> {
        let Some(scale) = t.parts.first().map(|p| p.scale).filter(|s| *s == x.scale) else {
            return Err(Error::shape("table", "the argument's scale", x.scale));
        };
        if x.bits != 64 {
            return Err(Error::Room { operation: "table", needed: 64, available: x.bits });
        }
        let wire = self.open_one(&self.narrow(x, t.window))?;
        let mut chosen = self.entries(&wire, &t.parts[0], t.slope_scale)?;
        if !t.thresholds.is_empty() {
            let bits = self.at_least(&wire, &t.thresholds)?;
            // Entries are those of the first table plus the steps to the next that x has taken.
            let mut steps = Vec::new();
            let mut before = [0, 1, 2].map(|i: usize| chosen[i].duplicate());
            for part in &t.parts[1..] {
                let here = self.entries(&wire, part, t.slope_scale)?;
                steps.extend(here.iter().zip(&before).map(|(here, before)| here.minus(before)));
                before = here;
            }
            let all: Vec<&Shared> = bits.iter().chain(&steps).collect();
            let wires = self.open(&all)?;
            let (bits, steps) = wires.split_at(bits.len());
            for (bit, steps) in bits.iter().zip(steps.chunks_exact(3)) {
                for (entry, step) in chosen.iter_mut().zip(steps) {
                    *entry = entry.plus(&self.select(step, bit)?);
                }
            }
        }
        let [value, slope, place] = chosen;
        let rest = x.minus(&place);
        let [slope, rest] = self.open_each([&slope, &rest])?;
        debug_assert_eq!(scale + t.slope_scale, value.scale);
        Ok(value.plus(&self.mul(&slope, &rest)?))
    }

    /// Value, slope and place of the entry that an open argument falls on.
    fn entries(&mut self, x: &Wire, t: &Tabulated, slope_scale: u32) -> Result<[Shared; 3]> {
        let n = x.shape.len();
        let cell = t.window - t.bits;
        let keys = self.point(x.mask.as_deref(), n, cell, t.bits)?;
        let entries = (n as u64) << t.bits;
        // A tree of half as many leaves has as many nodes as there are entries.
        self.work(Work { hashes: 3 * entries / 2, products: 3 * entries, words: 0 });
        let fixed = |v: f64, s: u32| libm::rint(libm::ldexp(v, s as i32)) as i64 as u64;
        let columns: [Vec<u64>; 3] = [
            t.pieces.iter().map(|p| fixed(p[0], t.scale + slope_scale)).collect(),
            t.pieces.iter().map(|p| fixed(p[1], slope_scale)).collect(),
            (0..t.pieces.len() as u64).map(|j| (t.base as u64).wrapping_add(j << cell)).collect(),
        ];
        let mut sums = [const { None }; 3];
        if let (Some(party), Some(keys), Some(hat)) = (self.party(), keys, &x.hat) {
            let mut found = [vec![0u64; n], vec![0; n], vec![0; n]];
            for (i, hat) in hat.iter().enumerate() {
                let top = ((hat.wrapping_sub(t.base as u64) & low(t.window)) >> cell) as usize;
                let hot = keys.expand(party, i);
                // Entry (top − j) mod size for every j: two straight runs.
                for (column, sum) in columns.iter().zip(&mut found) {
                    let (first, second) = column.split_at(top + 1);
                    let entries = first.iter().rev().chain(second.iter().rev());
                    sum[i] =
                        entries.zip(&*hot).fold(0, |s, (t, e)| s.wrapping_add(t.wrapping_mul(*e)));
                }
            }
            sums = found.map(Some);
        }
        let [value, slope, place] = sums;
        Ok([
            Shared::new(x.shape, 64, t.scale + slope_scale, value),
            Shared::new(x.shape, 64, slope_scale, slope),
            Shared::new(x.shape, 64, t.scale, place),
        ])
    }

    /// 1/x or x^−1/2 for positive x in [lo, hi], to a relative error of `tolerance`: two or three
    /// exchanges.
    ///
    /// # Errors
    /// A domain that is not positive; the channel's and the preprocessing's.
    pub fn inverse(
        &mut self,
        x: &Shared,
        f: Function,
        domain: (f64, f64),
        tolerance: f64,
    ) -> Result<Shared> {
        let tables = Tables::of(f, domain, tolerance, x.scale)?;
        self.look_up(x, &tables)
    }
}
