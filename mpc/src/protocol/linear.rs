use super::{both, each, only};
use crate::mpc::{Mpc, Shared, Wire};
use crate::preprocess::{Factor, Lane};
use crate::ring::{Product, low};
use crate::{Error, Result};
use undertone_core::{Axis, Shape};
use zeroize::Zeroizing;

/// Positions of `of` in the order of a tensor of shape `to` to which it broadcasts.
fn spread(of: Shape, to: Shape) -> impl Iterator<Item = usize> {
    let step = |here: usize, i: usize| if here == 1 { 0 } else { i };
    (0..to.batch).flat_map(move |b| {
        (0..to.rows).flat_map(move |r| {
            let row = (step(of.batch, b) * of.rows + step(of.rows, r)) * of.cols;
            (0..to.cols).map(move |c| row + step(of.cols, c))
        })
    })
}

pub(crate) fn broadcast(lane: &Lane, of: Shape, to: Shape) -> Lane {
    if of == to {
        return lane.clone();
    }
    lane.as_ref().map(|lane| spread(of, to).map(|i| lane[i]).collect())
}

/// A public factor as an integer and the fraction bits that it adds.
fn factor(k: f64, precision: u32) -> (i64, i32) {
    let (mantissa, exponent) = libm::frexp(k);
    let m = libm::rint(libm::ldexp(mantissa, precision as i32)) as i64;
    if m == 0 {
        return (0, 0);
    }
    let even = m.trailing_zeros();
    (m >> even, precision as i32 - exponent - even as i32)
}

/// The fraction bits that a public factor below one adds.
pub(super) fn scale_gain(k: f64, precision: u32) -> u32 {
    factor(k, precision).1.max(0) as u32
}

impl Shared {
    /// The tensor rearranged: element i of the result is element `from[i]` of this one.
    pub(crate) fn gather(&self, shape: Shape, from: impl Iterator<Item = usize>) -> Self {
        let lane = self.lane.as_ref().map(|lane| from.map(|i| lane[i]).collect());
        Self::new(shape, self.bits, self.scale, lane)
    }

    pub(crate) fn broadcast_to(&self, to: Shape) -> Self {
        Self::new(to, self.bits, self.scale, broadcast(&self.lane, self.shape, to))
    }

    /// More fraction bits: exact.
    pub(crate) fn lift(&self, scale: u32) -> Self {
        let by = scale.saturating_sub(self.scale);
        let lane = each(&self.lane, |v| v.wrapping_shl(by) & low(self.bits));
        let lane = if by >= 64 { each(&self.lane, |_| 0) } else { lane };
        Self::new(self.shape, self.bits, self.scale.max(scale), lane)
    }

    /// −x
    pub(crate) fn negated(&self) -> Self {
        let lane = each(&self.lane, |v| v.wrapping_neg() & low(self.bits));
        Self::new(self.shape, self.bits, self.scale, lane)
    }

    /// x·k for an integer.
    pub(crate) fn times(&self, k: i64) -> Self {
        let lane = each(&self.lane, |v| v.wrapping_mul(k as u64) & low(self.bits));
        Self::new(self.shape, self.bits, self.scale, lane)
    }

    /// x·2^−by by relabelling: exact.
    pub(crate) fn halved(mut self, by: u32) -> Self {
        self.scale += by;
        self
    }

    /// a + b, `b` broadcast to `a`; the finer scale and the smaller modulus of both.
    pub(crate) fn plus(&self, b: &Self) -> Self {
        let scale = self.scale.max(b.scale);
        let bits = self.bits.min(b.bits);
        let (a, b) = (self.lift(scale), b.lift(scale).broadcast_to(self.shape));
        let lane = both(&a.lane, &b.lane, |x, y| x.wrapping_add(y) & low(bits));
        Self::new(self.shape, bits, scale, lane)
    }

    /// a − b, as [`plus`](Self::plus).
    pub(crate) fn minus(&self, b: &Self) -> Self {
        self.plus(&b.negated())
    }

    /// x·k with an integer for each element.
    pub(crate) fn times_each(&self, k: impl Fn(usize) -> i64) -> Self {
        let lane = self.lane.as_ref().map(|lane| {
            let product = |(i, v): (usize, &u64)| v.wrapping_mul(k(i) as u64) & low(self.bits);
            lane.iter().enumerate().map(product).collect()
        });
        Self::new(self.shape, self.bits, self.scale, lane)
    }

    /// The other tensor's elements where `there` says so.
    pub(crate) fn choose(&self, other: &Self, there: impl Fn(usize) -> bool) -> Self {
        let lane = match (&*self.lane, &*other.lane) {
            (Some(a), Some(b)) => {
                let pick = |(i, (x, y)): (usize, (&u64, &u64))| if there(i) { *y } else { *x };
                Some(a.iter().zip(b).enumerate().map(pick).collect())
            }
            _ => None,
        };
        Self::new(self.shape, self.bits, self.scale, lane)
    }

    /// The sum over an axis.
    pub(crate) fn total(&self, axis: Axis) -> Self {
        let s = self.shape;
        let (shape, bits) = match axis {
            Axis::Rows => (Shape::new(s.batch, 1, s.cols), self.bits),
            Axis::Cols => (Shape::new(s.batch, s.rows, 1), self.bits),
        };
        let lane = self.lane.as_ref().map(|lane| {
            let mut out = vec![0u64; shape.len()];
            for (i, v) in lane.iter().enumerate() {
                let at = match axis {
                    Axis::Cols => i / s.cols,
                    Axis::Rows => i / (s.rows * s.cols) * s.cols + i % s.cols,
                };
                out[at] = out[at].wrapping_add(*v) & low(bits);
            }
            out
        });
        Self::new(shape, bits, self.scale, lane)
    }
}

impl Mpc {
    /// x + k at every element for an integer k at the tensor's scale: only one party adds.
    pub(crate) fn shifted(&self, x: &Shared, k: i64) -> Shared {
        let k = only(self.leads(), k as u64);
        let lane = each(&x.lane, |v| v.wrapping_add(k) & low(x.bits));
        Shared::new(x.shape, x.bits, x.scale, lane)
    }

    /// x + k for a real number.
    pub(crate) fn offset_real(&self, x: &Shared, k: f64) -> Shared {
        self.shifted(x, libm::rint(libm::ldexp(k, x.scale as i32)) as i64)
    }

    /// x·k for a public real number, to `precision` bits of k; exact for powers of two. Nothing is
    /// sent: the scale grows instead.
    pub(crate) fn scaled(&self, x: &Shared, k: f64, precision: u32) -> Shared {
        match factor(k, precision) {
            (0, _) => x.times(0),
            (m, gain) if gain >= 0 => x.times(m).halved(gain as u32),
            (m, gain) => x.times(m << (-gain).min(40)),
        }
    }

    /// Columns side by side.
    pub(crate) fn beside(&self, a: &Shared, b: &Shared) -> Shared {
        let (scale, bits) = (a.scale.max(b.scale), a.bits.min(b.bits));
        let (a, b) = (a.lift(scale), b.lift(scale));
        let shape = a.shape.with_cols(a.shape.cols + b.shape.cols);
        let lane = match (&*a.lane, &*b.lane) {
            (Some(x), Some(y)) => {
                let rows = x.chunks_exact(a.shape.cols).zip(y.chunks_exact(b.shape.cols));
                Some(rows.flat_map(|(x, y)| x.iter().chain(y)).map(|v| v & low(bits)).collect())
            }
            _ => None,
        };
        Shared::new(shape, bits, scale, lane)
    }

    /// a ⊙ b, `b` broadcast to `a`: local, since both are open. The result has the sum of the
    /// scales, the smaller modulus, and is not truncated.
    ///
    /// xy = x̂ŷ − x̂·r_y − r_x·ŷ + r_x·r_y (Beaver 1991, with wires opened once).
    ///
    /// # Errors
    /// Shapes that do not go together; the preprocessing's.
    pub fn mul(&mut self, a: &Wire, b: &Wire) -> Result<Shared> {
        if !b.shape.broadcasts_to(a.shape) {
            return Err(Error::shape("mul", a.shape, b.shape));
        }
        let bits = a.bits.min(b.bits);
        let mask_b = Zeroizing::new(broadcast(&b.mask, b.shape, a.shape));
        let hat_b = broadcast(&b.hat, b.shape, a.shape);
        let factors = [Factor::Mask(a.mask.as_deref()), Factor::Mask(mask_b.as_deref())];
        let n = a.shape.len();
        let corrected = self.relation(&factors, n, bits)?;
        let leads = self.leads();
        let lane = match (&a.hat, &hat_b, &*a.mask, &*mask_b, corrected) {
            (Some(x), Some(y), Some(rx), Some(ry), Some(mut z)) => {
                for i in 0..n {
                    let own = only(leads, x[i].wrapping_mul(y[i]));
                    let cross = x[i].wrapping_mul(ry[i]).wrapping_add(rx[i].wrapping_mul(y[i]));
                    z[i] = z[i].wrapping_add(own).wrapping_sub(cross) & low(bits);
                }
                Some(z)
            }
            _ => None,
        };
        Ok(Shared::new(a.shape, bits, a.scale + b.scale, lane))
    }

    /// a ⊙ a.
    ///
    /// # Errors
    /// As [`mul`](Self::mul).
    pub fn square(&mut self, a: &Wire) -> Result<Shared> {
        self.mul(a, a)
    }

    /// Matrix products of open tensors; local, as [`mul`](Self::mul).
    ///
    /// # Errors
    /// Operands whose sizes are not the product's; the preprocessing's.
    pub fn matmul(&mut self, of: &Product, a: &Wire, b: &Wire) -> Result<Shared> {
        if a.shape.len() != of.left() || b.shape.len() != of.right() {
            let expected = (of.left(), of.right());
            return Err(Error::shape("matmul", expected, (a.shape.len(), b.shape.len())));
        }
        let bits = a.bits.min(b.bits);
        let corrected = self.mask_product(of, a, b)?;
        let (party, leads) = (self.party(), self.leads());
        let lane = match (&a.hat, &b.hat, &*a.mask, &*b.mask, corrected) {
            (Some(x), Some(y), Some(rx), Some(ry), Some(mut z)) => {
                // x̂ŷ − x̂·r_y = x̂(ŷ − r_y): one product for the leading party.
                if b.owner.is_none() || b.owner == party || leads {
                    let right: Zeroizing<Vec<u64>> = Zeroizing::new(
                        y.iter().zip(ry).map(|(y, r)| only(leads, *y).wrapping_sub(*r)).collect(),
                    );
                    of.accumulate(x, &right, false, &mut z);
                }
                if a.owner.is_none() || a.owner == party {
                    of.accumulate(rx, y, true, &mut z);
                }
                for z in &mut z {
                    *z &= low(bits);
                }
                Some(z)
            }
            _ => None,
        };
        let shape = Shape::new(of.batch, of.n, of.m);
        Ok(Shared::new(shape, bits, a.scale + b.scale, lane))
    }
}
