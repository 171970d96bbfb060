use super::each;
use crate::mpc::{Mpc, Shared};
use crate::preprocess::{Factor, Kernel};
use crate::ring::low;
use crate::{Error, Result};

/// The window: arguments from `top` down to `top` − 16; below it the result is zero.
const WINDOW: u32 = 4;
/// Fraction bits of the dealt factor and of the public one.
const DEALT: u32 = 19;
const PUBLIC: u32 = 41;

/// Bits above the point that e^top needs.
fn growth(top: f64) -> u32 {
    libm::ceil((top * std::f64::consts::LOG2_E).max(0.0)) as u32
}

/// Fraction bits of the result.
pub(super) fn result_scale(top: f64) -> u32 {
    DEALT + PUBLIC - growth(top)
}

impl Mpc {
    /// eˣ for x ≤ `top`, zero below `top` − 16: two exchanges, of the value and of two bits.
    ///
    /// With y = top − x opened as ŷ = y + r, e^−y is e^−ŷ·e^r where the low parts do not wrap and
    /// e^−ŷ·e^(r−16) where they do: public factors times dealt ones. Two masked bits, wrapped and
    /// in the window, choose. The absolute error is below 2⁻¹⁷·e^top before the result is settled.
    ///
    /// # Errors
    /// A modulus without room for the window; the channel's and the preprocessing's.
    pub fn exp(&mut self, x: &Shared, top: f64) -> Result<Shared> {
        let (n, fraction) = (x.shape.len(), x.scale);
        let window = WINDOW + fraction;
        if x.bits < window + 2 {
            return Err(Error::Room { operation: "exp", needed: window + 2, available: x.bits });
        }
        // Results up to e^top need room above the point.
        let grow = growth(top);
        if grow > 24 {
            let reason = format!("e^{top} exceeds 2^24; shift the argument");
            return Err(Error::Unsupported { operation: "exp", reason });
        }
        let public = PUBLIC - grow;
        let y = self.offset_real(&x.negated(), top);
        let wire = self.open_one(&y)?;
        let outside = self.at_least(&wire, &[1 << window])?;
        let keys = self.comparison(wire.mask.as_deref(), n, window)?;
        let point = each(&wire.hat, |h| h & low(window));
        let wrapped = Shared::new(x.shape, 1, 0, self.evaluate(keys.as_ref(), &point));
        let [w, o] = self.open_each([&wrapped, &outside[0]])?;
        let r = wire.mask.as_deref();
        let (rw, ro) = (w.mask.as_deref(), o.mask.as_deref());
        let mut dealt = Vec::with_capacity(8);
        for minus in [0.0, f64::from(1 << WINDOW)] {
            let value = Factor::Value(r, Kernel::Exp { window, fraction, minus, scale: DEALT });
            for bits in [&[][..], &[rw], &[ro], &[rw, ro]] {
                let mut factors = vec![value];
                factors.extend(bits.iter().map(|b| Factor::Mask(*b)));
                dealt.push(self.relation(&factors, n, 64)?);
            }
        }
        let dealt: Option<Vec<Vec<u64>>> = dealt.into_iter().collect();
        let lane = match (&wire.hat, &w.hat, &o.hat, dealt) {
            (Some(hat), Some(w), Some(o), Some(dealt)) => {
                let lane = (0..n).map(|i| {
                    let low_part = (hat[i] & low(window)) as f64;
                    let power = libm::exp(top - libm::ldexp(low_part, -(fraction as i32)));
                    let power = libm::rint(libm::ldexp(power, public as i32)) as u64;
                    // Inside is 1 − o; each bit is b̂ + β(1 − 2b̂).
                    let flip_w = 1u64.wrapping_sub(2 * w[i]);
                    let inside = 1 - o[i];
                    let flip_o = (2 * o[i]).wrapping_sub(1);
                    let pick = |k: usize, base: u64, slope: u64| {
                        let (one, by_w) = (dealt[4 * k][i], dealt[4 * k + 1][i]);
                        let (by_o, by_both) = (dealt[4 * k + 2][i], dealt[4 * k + 3][i]);
                        // (base + slope·β_w)·(inside + flip_o·β_o)
                        base.wrapping_mul(inside)
                            .wrapping_mul(one)
                            .wrapping_add(slope.wrapping_mul(inside).wrapping_mul(by_w))
                            .wrapping_add(base.wrapping_mul(flip_o).wrapping_mul(by_o))
                            .wrapping_add(slope.wrapping_mul(flip_o).wrapping_mul(by_both))
                    };
                    let plain = pick(0, 1 - w[i], flip_w.wrapping_neg());
                    let around = pick(1, w[i], flip_w);
                    power.wrapping_mul(plain.wrapping_add(around))
                });
                Some(lane.collect())
            }
            _ => None,
        };
        Ok(Shared::new(x.shape, 64, DEALT + public, lane))
    }
}
