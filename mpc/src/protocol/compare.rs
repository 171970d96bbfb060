use super::{both, each, only};
use crate::cost::Work;
use crate::dcf::ComparisonKeys;
use crate::mpc::{Mpc, Shared, Wire};
use crate::preprocess::{Factor, Lane};
use crate::ring::low;
use crate::{Error, Result};
use undertone_core::{Axis, Shape};

impl Mpc {
    /// Shares modulo 2 of a comparison key batch at public points.
    pub(crate) fn evaluate(&self, keys: Option<&ComparisonKeys>, x: &Lane) -> Lane {
        match (self.party(), keys, x) {
            (Some(party), Some(keys), Some(x)) => Some(keys.evaluate(party, x)),
            _ => None,
        }
    }

    /// Bits x ≥ t, as shares modulo 2, for every public threshold (integers at the wire's scale).
    /// Local: one comparison key serves all thresholds, since a threshold only moves x̂.
    ///
    /// x < t where the top bit of x̂ − t − r is set: the top bits of both and the borrow between
    /// the low parts (Boyle et al., EUROCRYPT 2021, section 4).
    ///
    /// # Errors
    /// The preprocessing's.
    pub fn at_least(&mut self, x: &Wire, thresholds: &[i64]) -> Result<Vec<Shared>> {
        let (n, bits) = (x.shape.len(), x.bits);
        let keys = self.comparison(x.mask.as_deref(), n, bits - 1)?;
        // Further evaluations of the same keys.
        let hashes = (n * (bits as usize - 1) * thresholds.len().saturating_sub(1)) as u64;
        self.work(Work { hashes, ..Work::default() });
        let top = self.relation(&[Factor::Bit(x.mask.as_deref(), bits - 1)], n, 1)?;
        let leads = self.leads();
        let bit = |t: &i64| {
            let moved = each(&x.hat, |h| h.wrapping_sub(*t as u64) & low(bits));
            let below = each(&moved, |h| h & low(bits - 1));
            let borrow = self.evaluate(keys.as_ref(), &below);
            let tops = both(&moved, &top, |h, r| only(leads, 1 ^ h >> (bits - 1)) ^ r);
            Shared::new(x.shape, 1, 0, both(&tops, &borrow, |a, b| (a ^ b) & 1))
        };
        Ok(thresholds.iter().map(bit).collect())
    }

    /// x·b for a tensor and a bit that are both open: local. Modulo the tensor's modulus.
    pub(crate) fn select(&mut self, x: &Wire, bit: &Wire) -> Result<Shared> {
        let (n, bits) = (x.shape.len(), x.bits);
        let (rx, rb) = (x.mask.as_deref(), bit.mask.as_deref());
        let alone = self.relation(&[Factor::Mask(rb)], n, bits)?;
        let product = self.relation(&[Factor::Mask(rb), Factor::Mask(rx)], n, bits)?;
        let leads = self.leads();
        let lane = match (&x.hat, &bit.hat, &*x.mask, alone, product) {
            (Some(x), Some(b), Some(rx), Some(alone), Some(product)) => {
                // b = b̂ + β(1 − 2b̂) with β the bit's mask; x = x̂ − r.
                let lane = (0..n).map(|i| {
                    let fixed = only(leads, x[i]).wrapping_sub(rx[i]).wrapping_mul(b[i]);
                    let flip = 1u64.wrapping_sub(2 * b[i]);
                    let masked = x[i].wrapping_mul(alone[i]).wrapping_sub(product[i]);
                    fixed.wrapping_add(flip.wrapping_mul(masked)) & low(bits)
                });
                Some(lane.collect())
            }
            _ => None,
        };
        Ok(Shared::new(x.shape, bits, x.scale, lane))
    }

    /// A bit, shared modulo 2, as shares modulo 2^64: one exchange of one bit.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn bit_to_integer(&mut self, bit: &Shared) -> Result<Shared> {
        let wire = self.open_one(bit)?;
        self.integer_of(&wire)
    }

    /// An open bit as shares modulo 2^64.
    pub(crate) fn integer_of(&mut self, bit: &Wire) -> Result<Shared> {
        let n = bit.shape.len();
        let mask = self.relation(&[Factor::Mask(bit.mask.as_deref())], n, 64)?;
        let leads = self.leads();
        let lane = both(&bit.hat, &mask, |b, r| {
            only(leads, b).wrapping_add(1u64.wrapping_sub(2 * b).wrapping_mul(r))
        });
        Ok(Shared::new(bit.shape, 64, 0, lane))
    }

    /// x ≥ 0 as shares modulo 2: one exchange.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn is_nonnegative(&mut self, x: &Shared) -> Result<Shared> {
        let wire = self.open_one(x)?;
        let mut bits = self.at_least(&wire, &[0])?;
        bits.pop().ok_or_else(|| Error::shape("compare", 1, 0))
    }

    /// max(x, 0): two exchanges, of the value and of one bit.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn relu(&mut self, x: &Shared) -> Result<Shared> {
        let wire = self.open_one(x)?;
        let bits = self.at_least(&wire, &[0])?;
        let bit = self.open_one(&bits[0])?;
        self.select(&wire, &bit)
    }

    /// The maximum of each row, by a tree: 2⌈log₂ m⌉ exchanges.
    ///
    /// # Errors
    /// An empty row; the channel's and the preprocessing's.
    pub fn max_rows(&mut self, x: &Shared) -> Result<Shared> {
        let mut x = x.duplicate();
        if x.shape.cols == 0 {
            return Err(Error::shape("max", "at least one column", 0));
        }
        while x.shape.cols > 1 {
            let (a, b, rest) = halves(&x);
            // max(a, b) = b + max(a − b, 0)
            let larger = b.plus(&self.relu(&a.minus(&b))?);
            x = match rest {
                Some(rest) => self.beside(&larger, &rest),
                None => larger,
            };
        }
        Ok(x)
    }

    /// The column of each row's maximum, the first among equals: 2⌈log₂ m⌉ exchanges, of values,
    /// columns and bits.
    ///
    /// # Errors
    /// An empty row, or one of 2^14 columns or more; the channel's and the preprocessing's.
    pub fn argmax_rows(&mut self, x: &Shared) -> Result<Shared> {
        let shape = x.shape;
        if shape.cols == 0 || shape.cols >= 1 << 14 {
            return Err(Error::shape("argmax", "1 to 16383 columns", shape.cols));
        }
        let mut x = x.duplicate();
        let mut index = self.zeros(shape, 16, 0);
        if self.leads() {
            let columns = (0..shape.len()).map(|i| (i % shape.cols) as u64);
            index = Shared::new(shape, 16, 0, Some(columns.collect()));
        }
        while x.shape.cols > 1 {
            let (a, b, rest) = halves(&x);
            let (i, j, rest_index) = halves(&index);
            // Left is kept where a ≥ b: both differences are multiplied by the same bit.
            let [value, column] = self.open_each([&a.minus(&b), &i.minus(&j)])?;
            let bits = self.at_least(&value, &[0])?;
            let bit = self.open_one(&bits[0])?;
            let larger = b.plus(&self.select(&value, &bit)?);
            let column = j.plus(&self.select(&column, &bit)?);
            x = match rest {
                Some(rest) => self.beside(&larger, &rest),
                None => larger,
            };
            index = match rest_index {
                Some(rest) => self.beside(&column, &rest),
                None => column,
            };
        }
        Ok(index)
    }

    /// The sum of each row.
    #[must_use]
    pub fn sum_rows(&self, x: &Shared) -> Shared {
        x.total(Axis::Cols)
    }
}

/// Columns 0, 2, 4… and 1, 3, 5…, and the last column where their number is odd.
fn halves(x: &Shared) -> (Shared, Shared, Option<Shared>) {
    let s = x.shape;
    let pairs = s.cols / 2;
    let half = s.with_cols(pairs);
    let side = |from: usize| {
        let at = (0..s.batch * s.rows).flat_map(|r| (0..pairs).map(move |p| r * s.cols + 2 * p));
        x.gather(half, at.map(move |i| i + from))
    };
    let rest = (s.cols % 2 == 1).then(|| {
        let shape = Shape::new(s.batch, s.rows, 1);
        x.gather(shape, (0..s.batch * s.rows).map(|r| r * s.cols + s.cols - 1))
    });
    (side(0), side(1), rest)
}
