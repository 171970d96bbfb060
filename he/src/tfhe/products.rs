//! Products of secrets: one table of two variables, or two tables of squares.

use undertone_core::{Bound, Fault, Form, Made, Multiply, Num, Range, Shape};

use super::tensor::{in_units, round_shift};
use super::{Engine, Integers, Tfhe, TfheError};

type Result<T> = std::result::Result<T, TfheError>;

/// How two secrets are multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Products {
    /// A table of x·|Y| + y where |X|·|Y| entries are there, else squares. One bootstrap where it
    /// applies.
    Tables,
    /// ⌊(x+y)²/4⌋ − ⌊(x−y)²/4⌋ = x·y: two bootstraps; |X| + |Y| entries suffice.
    Squares,
}

/// A declared range with a quarter of its width to each side, for rounding errors; with zero in it
/// where partial sums are to lie in it too.
pub(super) fn widened(on: Bound, with_zero: bool) -> Bound {
    let wide = |r: Range| {
        let (mut lo, mut hi) = (r.lo.to_f64(), r.hi.to_f64());
        if with_zero {
            (lo, hi) = (lo.min(0.0), hi.max(0.0));
        }
        let margin = (hi - lo) / 4.0;
        Range::new(Num::of(lo - margin), Num::of(hi + margin))
    };
    Bound { range: on.range.map(wide), ..on }
}

/// x/2^shift, rounded up.
fn ceil_shift(x: i64, shift: u32) -> i64 {
    -(-x >> shift)
}

impl<E: Engine> Tfhe<E> {
    /// The interval of x·y.
    fn corners(a: &Integers<E::Ct>, b: &Integers<E::Ct>) -> (i64, i64) {
        let all = [a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi];
        all.into_iter().fold((i64::MAX, i64::MIN), |(lo, hi), x| (lo.min(x), hi.max(x)))
    }

    /// Shift and interval of a result in `natural` (a function of the shift) and, by declaration,
    /// in `on`: half a table at most, so that it can be added and multiplied.
    fn fit(&self, natural: impl Fn(u32) -> (i64, i64), unit: i16, on: Bound) -> (u32, i64, i64) {
        let mut shift = 0;
        loop {
            let (mut lo, mut hi) = natural(shift);
            if let Some(range) = on.range {
                let declared = in_units(range, unit + shift as i16);
                (lo, hi) = (lo.max(declared.0).min(hi), hi.min(declared.1).max(lo));
            }
            if hi - lo < self.most() / 2 {
                return (shift, lo, hi);
            }
            shift += 1;
        }
    }

    /// x² by one table.
    pub(super) fn squared(&self, a: &Integers<E::Ct>, on: Bound) -> Result<Integers<E::Ct>> {
        let natural = if a.lo <= 0 && a.hi >= 0 { 0 } else { (a.lo * a.lo).min(a.hi * a.hi) };
        let natural = (natural, (a.lo * a.lo).max(a.hi * a.hi));
        let unit = 2 * a.unit;
        let rounded = |s| (round_shift(natural.0, s), round_shift(natural.1, s));
        let (shift, lo, hi) = self.fit(rounded, unit, on);
        self.tabulate(a, unit + shift as i16, |x| round_shift(x * x, shift).clamp(lo, hi))
    }

    /// x·y elementwise; shapes are equal.
    pub(super) fn multiplied(
        &self,
        mut a: Integers<E::Ct>,
        mut b: Integers<E::Ct>,
        on: Bound,
    ) -> Result<Integers<E::Ct>> {
        loop {
            let (m, n) = (a.steps(), b.steps());
            let fits = |noise: i64| noise <= i64::from(self.engine.noise_limit());
            let (x, y) = (i64::from(a.noise), i64::from(b.noise));
            if self.products == Products::Tables && m * n <= self.most() {
                if fits(x * n + y) {
                    return self.by_table(&a, &b, on);
                }
                if fits(y * m + x) {
                    return self.by_table(&b, &a, on);
                }
                if fits(m.min(n) + 1) {
                    (a, b) = (self.refreshed(a)?, self.refreshed(b)?);
                    continue;
                }
            }
            if m + n - 1 > self.most() {
                let wider = if m >= n { &mut a } else { &mut b };
                *wider = self.coarsen(wider, 1)?;
            } else if fits(x + y) {
                return self.by_squares(&a, &b, on);
            } else {
                (a, b) = (self.refreshed(a)?, self.refreshed(b)?);
            }
        }
    }

    fn refreshed(&self, a: Integers<E::Ct>) -> Result<Integers<E::Ct>> {
        if a.noise > 1 { self.coarsen(&a, 0) } else { Ok(a) }
    }

    fn by_table(
        &self,
        a: &Integers<E::Ct>,
        b: &Integers<E::Ct>,
        on: Bound,
    ) -> Result<Integers<E::Ct>> {
        let n = b.steps();
        let unit = a.unit + b.unit;
        let natural = Self::corners(a, b);
        let rounded = |s| (round_shift(natural.0, s), round_shift(natural.1, s));
        let (shift, lo, hi) = self.fit(rounded, unit, on);
        // (x − a.lo)·n + (y − b.lo)
        let mut packed = a.clone();
        for (x, y) in packed.cells.iter_mut().zip(&b.cells) {
            self.engine.scale(x, n);
            self.engine.add(x, y, 1);
            self.engine.offset(x, -(a.lo * n + b.lo));
        }
        (packed.lo, packed.hi) = (0, a.steps() * n - 1);
        self.tabulate(&packed, unit + shift as i16, |t| {
            round_shift((t / n + a.lo) * (t % n + b.lo), shift).clamp(lo, hi)
        })
    }

    /// The difference of squares is right modulo twice a table, so only the product need lie in
    /// its interval. It cannot be clamped: a declaration is taken at its word.
    fn by_squares(
        &self,
        a: &Integers<E::Ct>,
        b: &Integers<E::Ct>,
        on: Bound,
    ) -> Result<Integers<E::Ct>> {
        let natural = Self::corners(a, b);
        let interval = |s: u32| match s {
            0 => natural,
            // Each square is rounded: together they err by less than one and a half.
            _ => ((natural.0 >> s) - 1, ceil_shift(natural.1, s) + 1),
        };
        let (shift, lo, hi) = self.fit(interval, a.unit + b.unit, on);
        let unit = a.unit + b.unit + shift as i16;
        let quarter =
            |t: i64| if shift == 0 { (t * t) >> 2 } else { round_shift(t * t, shift + 2) };
        let side = |k: i64| -> Result<Integers<E::Ct>> {
            let mut t = a.clone();
            for (x, y) in t.cells.iter_mut().zip(&b.cells) {
                self.engine.add(x, y, k);
            }
            let (y, z) = (b.lo * k, b.hi * k);
            (t.lo, t.hi) = (a.lo + y.min(z), a.hi + y.max(z));
            self.tabulate(&t, unit, quarter)
        };
        let (mut plus, minus) = (side(1)?, side(-1)?);
        for (x, y) in plus.cells.iter_mut().zip(&minus.cells) {
            self.engine.add(x, y, -1);
        }
        (plus.lo, plus.hi) = (lo, hi);
        plus.noise += minus.noise;
        Ok(plus)
    }
}

impl<E: Engine> Multiply for Tfhe<E> {
    fn mul(&mut self, a: Self::Secret, b: &Self::Secret, on: Bound) -> Made<Self> {
        let b = self.spread(b, a.shape, "mul")?;
        self.multiplied(a, b, widened(on, false))
    }

    fn square(&mut self, a: Self::Secret, on: Bound) -> Made<Self> {
        self.squared(&a, on)
    }

    fn matmul(&mut self, a: &Self::Secret, b: &Self::Secret, form: Form, on: Bound) -> Made<Self> {
        let Some(shape) = a.shape.product(b.shape, form) else {
            return Err(Fault::Shape { op: "matmul", left: a.shape, right: b.shape }.into());
        };
        let inner = if form == Form::Tn { a.shape.rows } else { a.shape.cols };
        // All terms side by side in one batch of bootstraps: column k·cols + j holds term k of
        // column j.
        let wide = Shape { cols: shape.cols * inner, ..shape };
        let left = self.gather(a, wide, |x, i, t| {
            let k = t / shape.cols;
            if form == Form::Tn { (x, k, i) } else { (x, i, k) }
        });
        let right = self.gather(b, wide, |x, _, t| {
            let (k, j) = (t / shape.cols, t % shape.cols);
            if form == Form::Nt { (x, j, k) } else { (x, k, j) }
        });
        let on = widened(on, true);
        let terms = self.multiplied(left, right, on)?;
        let terms = (0..inner)
            .map(|k| self.gather(&terms, shape, |x, i, j| (x, i, k * shape.cols + j)))
            .collect();
        self.total(terms, on, "matmul")
    }
}
