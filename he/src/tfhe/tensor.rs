//! Matrices of integers in a proven interval, and the steps that keep them within tables.

use undertone_core::{Bound, Fault, Range, Shape};

use super::{Engine, Tfhe, TfheError};

type Result<T> = std::result::Result<T, TfheError>;

/// A matrix (or one for each member of the batch) of integers x, each lo ≤ x ≤ hi, that stand for
/// x·2^unit.
///
/// The interval is proven: inputs declare theirs, results follow by interval arithmetic. Only
/// where a model declares the range of a sum or product, the narrower of both counts; a value
/// beyond it then comes out wrong, as nobody can see it ([`Clear`](super::Clear) refuses it). Such
/// a range must hold for partial sums, too.
pub struct Integers<C> {
    pub(super) shape: Shape,
    pub(super) lo: i64,
    pub(super) hi: i64,
    pub(super) unit: i16,
    /// Bootstrapped ciphertexts that were added up, with multiplicity.
    pub(super) noise: u32,
    pub(super) cells: Vec<C>,
}

impl<C> Integers<C> {
    /// The interval of every integer.
    #[must_use]
    pub fn interval(&self) -> (i64, i64) {
        (self.lo, self.hi)
    }

    /// log₂ of what the integer one stands for.
    #[must_use]
    pub fn unit(&self) -> i16 {
        self.unit
    }

    /// The integers, row by row.
    #[must_use]
    pub fn cells(&self) -> &[C] {
        &self.cells
    }

    /// Different values an integer can have.
    pub(super) fn steps(&self) -> i64 {
        self.hi - self.lo + 1
    }

    /// The same with other cells.
    pub(super) fn like(&self, shape: Shape, cells: Vec<C>) -> Self {
        Self { shape, cells, ..*self }
    }
}

impl<C: Clone> Clone for Integers<C> {
    fn clone(&self) -> Self {
        self.like(self.shape, self.cells.clone())
    }
}

/// x/2^shift, a half rounded up.
pub(super) fn round_shift(x: i64, shift: u32) -> i64 {
    if shift == 0 { x } else { (x + (1 << (shift - 1))) >> shift }
}

/// A range in steps of 2^unit, rounded.
pub(super) fn in_units(range: Range, unit: i16) -> (i64, i64) {
    let of = |x: undertone_core::Num| (x.to_f64() * f64::from(-unit).exp2()).round() as i64;
    (of(range.lo), of(range.hi))
}

impl<E: Engine> Tfhe<E> {
    /// Entries of a table.
    pub(super) fn most(&self) -> i64 {
        1 << self.engine.bits()
    }

    /// f(x) of every integer, in units of 2^unit: one bootstrap each.
    pub(super) fn tabulate(
        &self,
        a: &Integers<E::Ct>,
        unit: i16,
        f: impl Fn(i64) -> i64,
    ) -> Result<Integers<E::Ct>> {
        let table: Vec<i64> = (a.lo..=a.hi).map(f).collect();
        let cells = self.engine.look_up(a.cells.clone(), a.lo, &table)?;
        let lo = table.iter().copied().min().unwrap_or(0);
        let hi = table.iter().copied().max().unwrap_or(0);
        Ok(Integers { shape: a.shape, lo, hi, unit, noise: 1, cells })
    }

    /// Rounded to a unit that is 2^by as large. With by = 0 it takes away the noise only.
    pub(super) fn coarsen(&self, a: &Integers<E::Ct>, by: u32) -> Result<Integers<E::Ct>> {
        self.tabulate(a, a.unit + by as i16, |x| round_shift(x, by))
    }

    /// Cells taken from `a` in another order and shape.
    pub(super) fn gather(
        &self,
        a: &Integers<E::Ct>,
        shape: Shape,
        from: impl Fn(usize, usize, usize) -> (usize, usize, usize),
    ) -> Integers<E::Ct> {
        let mut cells = Vec::with_capacity(shape.len());
        for b in 0..shape.batch {
            for i in 0..shape.rows {
                for j in 0..shape.cols {
                    let (b, i, j) = from(b, i, j);
                    cells.push(a.cells[(b * a.shape.rows + i) * a.shape.cols + j].clone());
                }
            }
        }
        a.like(shape, cells)
    }

    /// `b` repeated to a shape that it broadcasts to.
    pub(super) fn spread(
        &self,
        b: &Integers<E::Ct>,
        to: Shape,
        op: &'static str,
    ) -> Result<Integers<E::Ct>> {
        let s = b.shape;
        if !s.broadcasts_to(to) {
            return Err(Fault::Shape { op, left: to, right: s }.into());
        }
        let pick = |i: usize, len: usize| if len == 1 { 0 } else { i };
        Ok(self.gather(b, to, |x, i, j| (pick(x, s.batch), pick(i, s.rows), pick(j, s.cols))))
    }

    /// k·a where that fits a table and its noise; none where not.
    pub(super) fn times(&self, a: &Integers<E::Ct>, k: i64) -> Option<Integers<E::Ct>> {
        let noise = u32::try_from(i64::from(a.noise).checked_mul(k.abs())?).ok()?;
        let (x, y) = (a.lo.checked_mul(k)?, a.hi.checked_mul(k)?);
        let (lo, hi) = (x.min(y), x.max(y));
        if noise > self.engine.noise_limit() || hi - lo >= self.most() {
            return None;
        }
        let mut cells = a.cells.clone();
        cells.iter_mut().for_each(|c| self.engine.scale(c, k));
        Some(Integers { lo, hi, noise, cells, ..*a })
    }

    /// a + k·b for k = ±1, b broadcast. What does not fit a table is rounded first, what is too
    /// noisy bootstrapped.
    pub(super) fn combine(
        &self,
        mut a: Integers<E::Ct>,
        b: &Integers<E::Ct>,
        k: i64,
        op: &'static str,
    ) -> Result<Integers<E::Ct>> {
        let mut b = b.clone();
        if !b.shape.broadcasts_to(a.shape) {
            return Err(Fault::Shape { op, left: a.shape, right: b.shape }.into());
        }
        loop {
            if a.unit != b.unit {
                self.align(&mut a, &mut b)?;
            } else if a.steps() + b.steps() - 1 > self.most() {
                (a, b) = (self.coarsen(&a, 1)?, self.coarsen(&b, 1)?);
            } else if a.noise + b.noise > self.engine.noise_limit() {
                let noisier = if a.noise >= b.noise { &mut a } else { &mut b };
                *noisier = self.coarsen(noisier, 0)?;
            } else {
                break;
            }
        }
        let b = self.spread(&b, a.shape, op)?;
        for (x, y) in a.cells.iter_mut().zip(&b.cells) {
            self.engine.add(x, y, k);
        }
        let (x, y) = (b.lo * k, b.hi * k);
        a.lo += x.min(y);
        a.hi += x.max(y);
        a.noise += b.noise;
        Ok(a)
    }

    /// Brings two tensors to one unit: the coarser is multiplied if that fits, else the finer is
    /// rounded.
    fn align(&self, a: &mut Integers<E::Ct>, b: &mut Integers<E::Ct>) -> Result<()> {
        let (fine, coarse) = if a.unit < b.unit { (a, b) } else { (b, a) };
        let by = (coarse.unit - fine.unit) as u32;
        let factor = 1i64.checked_shl(by.min(32)).unwrap_or(i64::MAX);
        match self.times(coarse, factor) {
            Some(t) if t.steps() + fine.steps() - 1 <= self.most() => {
                *coarse = Integers { unit: fine.unit, ..t };
            }
            _ => *fine = self.coarsen(fine, by.min(62))?,
        }
        Ok(())
    }

    /// The sum of tensors of one shape, as a balanced tree. What is declared holds for partial
    /// sums, too.
    pub(super) fn total(
        &self,
        mut terms: Vec<Integers<E::Ct>>,
        on: Bound,
        op: &'static str,
    ) -> Result<Integers<E::Ct>> {
        while terms.len() > 1 {
            let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
            let mut left = terms.into_iter();
            while let Some(a) = left.next() {
                pairs.push(match left.next() {
                    Some(b) => {
                        let mut sum = self.combine(a, &b, 1, op)?;
                        if let Some(range) = on.range {
                            let (lo, hi) = in_units(range, sum.unit);
                            (sum.lo, sum.hi) =
                                (sum.lo.max(lo).min(sum.hi), sum.hi.min(hi).max(sum.lo));
                        }
                        sum
                    }
                    None => a,
                });
            }
            terms = pairs;
        }
        let shape = Shape::default();
        terms.pop().ok_or_else(|| Fault::Empty { op, shape }.into())
    }
}
