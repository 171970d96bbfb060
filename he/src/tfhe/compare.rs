//! Comparisons: one table each, exact to the precision that differences leave.

use undertone_core::{Bound, Compare, Fault, Made, Role, Site};

use super::{Engine, Integers, Tfhe, TfheError};

type Result<T> = std::result::Result<T, TfheError>;

impl<E: Engine> Tfhe<E> {
    /// The columns of `a`, in a unit that lets differences of any two fit a table.
    fn contestants(&self, a: &Integers<E::Ct>) -> Result<Vec<Integers<E::Ct>>> {
        let mut a = a.clone();
        while 2 * a.steps() - 1 > self.most() {
            a = self.coarsen(&a, 1)?;
        }
        let one = a.shape.with_cols(1);
        Ok((0..a.shape.cols).map(|j| self.gather(&a, one, |b, i, _| (b, i, j))).collect())
    }

    /// max(a, b) = b + max(a − b, 0), and a − b.
    fn larger(&self, a: &Integers<E::Ct>, b: &Integers<E::Ct>) -> Result<[Integers<E::Ct>; 2]> {
        let difference = self.combine(a.clone(), b, -1, "max")?;
        let more = self.tabulate(&difference, difference.unit, |t| t.max(0))?;
        let mut value = self.combine(b.clone(), &more, 1, "max")?;
        (value.lo, value.hi) = (a.lo.max(b.lo), a.hi.max(b.hi));
        Ok([value, difference])
    }

    /// A tournament over a row's columns.
    fn tournament<T>(
        mut row: Vec<T>,
        mut decide: impl FnMut(T, T) -> Result<T>,
    ) -> Result<Option<T>> {
        while row.len() > 1 {
            let mut winners = Vec::with_capacity(row.len().div_ceil(2));
            let mut left = row.into_iter();
            while let Some(a) = left.next() {
                winners.push(match left.next() {
                    Some(b) => decide(a, b)?,
                    None => a,
                });
            }
            row = winners;
        }
        Ok(row.pop())
    }

    /// The index of the first maximum of each row, (b, n, m) → (b, n, 1): a tournament of m − 1
    /// matches a row, of three tables each.
    ///
    /// Values that take more than half a table's entries are compared in a coarser unit.
    ///
    /// # Errors
    /// [`Fault::Empty`]; [`TfheError::TooWide`] where a table has fewer than 2m entries.
    pub fn argmax(&mut self, a: &Integers<E::Ct>) -> Result<Integers<E::Ct>> {
        let (m, shape) = (a.shape.cols, a.shape);
        if 2 * m as i64 > self.most() {
            let (steps, most) = (2 * m as u64, self.most() as u64);
            return Err(TfheError::TooWide { op: "argmax", steps, most });
        }
        let one = shape.with_cols(1);
        let row: Vec<_> = self
            .contestants(a)?
            .into_iter()
            .zip(0..)
            .map(|(value, j)| {
                let cells = vec![self.engine.constant(j); one.len()];
                (value, Integers { shape: one, lo: j, hi: j, unit: 0, noise: 0, cells })
            })
            .collect();
        let winner = Self::tournament(row, |(a, i), (b, j)| {
            let [value, difference] = self.larger(&a, &b)?;
            let wins = self.tabulate(&difference, 0, |t| i64::from(t >= 0))?;
            let (lo, hi) = (i.lo.min(j.lo), i.hi.max(j.hi));
            let apart = self.combine(i, &j, -1, "argmax")?;
            let step = self.multiplied(wins, apart, Bound::unknown(Site::outside(Role::Inner)))?;
            let index = self.combine(j, &step, 1, "argmax")?;
            Ok((value, Integers { lo, hi, ..index }))
        })?;
        winner.map(|(_, index)| index).ok_or_else(|| Fault::Empty { op: "argmax", shape }.into())
    }
}

impl<E: Engine> Compare for Tfhe<E> {
    fn relu(&mut self, a: Self::Secret, _: Bound) -> Made<Self> {
        self.tabulate(&a, a.unit, |x| x.max(0))
    }

    fn max(&mut self, a: &Self::Secret) -> Made<Self> {
        let shape = a.shape;
        let row = self.contestants(a)?;
        let winner = Self::tournament(row, |a, b| {
            let [value, _] = self.larger(&a, &b)?;
            Ok(value)
        })?;
        winner.ok_or_else(|| Fault::Empty { op: "max", shape }.into())
    }
}
