use super::softmax::TOLERANCE;
use crate::mpc::{Mpc, Shared, Wire};
use crate::{Error, Result};
use undertone_core::{Axis, Function};

/// Bits of the public factor 1/n.
pub(super) const MEAN: u32 = 16;

/// Whether a variance of up to `hi` over `cols` columns has room at the scale of a square times the
/// factor 1/`cols`.
pub(super) fn direct(cols: usize, hi: f64, fraction: u32) -> bool {
    let scale = 2 * fraction + super::linear::scale_gain(1.0 / cols as f64, MEAN);
    libm::log2(hi.max(1.0)) + f64::from(scale) < 62.0
}

impl Mpc {
    /// LayerNorm of each row: (x − mean)/√(variance + eps), times `gain` plus `bias` where given
    /// (one row each, open: the server's). The variance plus eps lies in [lo, hi].
    ///
    /// Exchanges: 1 to settle and 1 to open the centred rows, 1 to settle the variance, 2 for the
    /// table, 1 to settle and 1 to open its result. The gain overlaps with them. Where the ring has
    /// no room for 1/n beside the greatest variance, the sum of squares is settled first: 1 more.
    ///
    /// # Errors
    /// Shapes that do not go together, a domain that is not positive; the channel's and the
    /// preprocessing's.
    pub fn layer_norm(
        &mut self,
        x: &Shared,
        affine: Option<(&Wire, &Wire)>,
        eps: f64,
        (lo, hi): (f64, f64),
    ) -> Result<Shared> {
        let cols = x.shape.cols;
        if cols == 0 {
            return Err(Error::shape("layer norm", "at least one column", 0));
        }
        let inverse = 1.0 / cols as f64;
        let mean = self.scaled(&x.total(Axis::Cols), inverse, MEAN);
        let centred = self.settle(&x.minus(&mean))?;
        let centred_wire = self.open_one(&centred)?;
        let square = self.square(&centred_wire)?;
        let total = square.total(Axis::Cols);
        let direct = direct(cols, hi, self.format().fraction);
        let variance = if direct { self.scaled(&total, inverse, MEAN) } else { total };
        let (mut variance, centred_wire, gained) = match affine {
            Some((gain, _)) => {
                let gained = self.mul(&centred_wire, gain)?;
                let [variance, gained] = self.settle_each([&variance, &gained])?;
                (variance, None, Some(gained))
            }
            None => (self.settle(&variance)?, Some(centred_wire), None),
        };
        if !direct {
            variance = self.settle(&self.scaled(&variance, inverse, MEAN))?;
        }
        let variance = self.offset_real(&variance, eps);
        let root = self.inverse(&variance, Function::Rsqrt, (lo, hi), TOLERANCE)?;
        let root = self.settle(&root)?;
        let (root, left) = match (gained, centred_wire) {
            (Some(gained), _) => {
                let [root, gained] = self.open_each([&root, &gained])?;
                (root, gained)
            }
            (None, Some(wire)) => (self.open_one(&root)?, wire),
            (None, None) => return Err(Error::shape("layer norm", "an operand", "none")),
        };
        let y = self.mul(&left, &root)?;
        Ok(match affine {
            Some((_, bias)) => y.plus(&self.share(bias)),
            None => y,
        })
    }
}
