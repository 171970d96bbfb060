use crate::mpc::{Mpc, Shared, Wire};
use crate::{Error, Result};
use undertone_core::{Axis, Function};

/// How far above zero the exponential's window starts: maxima are exact, so this is slack only.
pub(super) const SLACK: f64 = 0.25;

/// Relative error of reciprocals and roots.
pub(super) const TOLERANCE: f64 = 3e-5;

impl Mpc {
    /// A tensor open at the settled scale with a modulus of at least `needed` bits, for products:
    /// one exchange where the modulus is wide enough to give up as many bits as the scale does,
    /// two otherwise.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn operand(&mut self, x: &Shared, needed: u32) -> Result<Wire> {
        let fraction = self.format().fraction;
        let by = x.scale.saturating_sub(fraction);
        if x.bits >= needed + by {
            let wire = self.open_one(x)?;
            return if by == 0 { Ok(wire) } else { self.reduce(&wire, by) };
        }
        let settled = self.settle(x)?;
        self.open_one(&settled)
    }

    /// Softmax of each row, settled. Scores lie in ±2^`range`.
    ///
    /// Exchanges: 2⌈log₂ m⌉ for the maximum, 2 for the exponential, 1 to settle it, 2 or 3 for the
    /// reciprocal of the row sum, 1 to open it, 1 to settle the quotient.
    ///
    /// # Errors
    /// Rows of more than 2^12 columns; the channel's and the preprocessing's.
    pub fn softmax(&mut self, x: &Shared, range: u32) -> Result<Shared> {
        let (weights, sum) = self.exponentials(x, range)?;
        self.divide_rows(&weights, &sum, 0.9, x.shape.cols as f64 * 1.01)
    }

    /// exp(x − max x) of each row, settled, and the row sums.
    pub(crate) fn exponentials(&mut self, x: &Shared, range: u32) -> Result<(Shared, Shared)> {
        // Differences have one bit more than scores.
        let x = self.narrow(x, (x.scale + range + 3).max(x.scale + 6));
        let max = self.max_rows(&x)?;
        let weights = self.exp(&x.minus(&max), SLACK)?;
        let weights = self.settle(&weights)?;
        let sum = weights.total(Axis::Cols);
        Ok((weights, sum))
    }

    /// Rows divided by positive values in [lo, hi], settled. Quotients lie in [−1, 1].
    fn divide_rows(&mut self, x: &Shared, by: &Shared, lo: f64, hi: f64) -> Result<Shared> {
        let fraction = self.format().fraction;
        let inverse = self.inverse(by, Function::Reciprocal, (lo, hi), TOLERANCE)?;
        let needed = 2 * fraction + 3;
        let drop = inverse.scale.saturating_sub(fraction);
        let quotient = if inverse.bits >= needed + drop {
            // Both at once: the inverse is reduced after it was opened.
            let [x, inverse] = self.open_each([x, &inverse])?;
            let inverse = if drop == 0 { inverse } else { self.reduce(&inverse, drop)? };
            self.mul(&x, &inverse)?
        } else {
            let inverse = self.settle(&inverse)?;
            let [x, inverse] = self.open_each([x, &inverse])?;
            self.mul(&x, &inverse)?
        };
        self.settle(&quotient)
    }

    /// max(x, 0)/(eps + Σ max(x, 0)) of each row (MPCViT), settled.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn relu_softmax(&mut self, x: &Shared, range: u32, eps: f64) -> Result<Shared> {
        let x = self.narrow(x, 64);
        let weights = self.relu(&x)?;
        let sum = self.offset_real(&weights.total(Axis::Cols), eps);
        let hi = libm::exp2(f64::from(range)) * x.shape.cols as f64;
        let lo = libm::exp2(-f64::from(x.scale)).max(eps);
        self.divide_rows(&weights, &sum, lo, hi)
    }

    /// x²/(eps + Σ x²) of each row (2Quad as MPCViT codes it), settled.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn two_quad(&mut self, x: &Shared, range: u32, eps: f64) -> Result<Shared> {
        let wire = self.open_one(x)?;
        let square = self.square(&wire)?;
        let square = self.settle(&square)?;
        let sum = self.offset_real(&square.total(Axis::Cols), eps);
        let hi = libm::exp2(2.0 * f64::from(range)) * x.shape.cols as f64;
        let lo = libm::exp2(-f64::from(sum.scale)).max(eps);
        self.divide_rows(&square, &sum, lo, hi)
    }

    /// x/m for rows of m columns (scaling attention's weights): nothing is sent.
    ///
    /// # Errors
    /// An empty row.
    pub fn scaling(&self, x: &Shared) -> Result<Shared> {
        if x.shape.cols == 0 {
            return Err(Error::shape("scaling", "at least one column", 0));
        }
        Ok(self.scaled(x, 1.0 / x.shape.cols as f64, 16))
    }
}
