use super::{both, each, only};
use crate::mpc::{Lane8, Mpc, Shared, Wire};
use crate::preprocess::{Factor, Lane};
use crate::ring::{low, pack, packed_len, unpack};
use crate::{Error, Result};
use undertone_core::Shape;
use zeroize::Zeroizing;

impl Mpc {
    /// A tensor at the settled scale modulo 2^64: one exchange of one bit an element.
    ///
    /// Shares are shifted locally; that errs by 2^(bits−k) where they wrap. Wrapping is an OR of
    /// two bits of which each party knows one (|x| < 2^(bits−2) makes the sum's top bit known:
    /// Rathee et al., *SiRNN*, IEEE S&P 2021, section 3.2), so one product of bits repairs it.
    /// The error is below one unit and zero on average.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn settle(&mut self, x: &Shared) -> Result<Shared> {
        let [x] = self.settle_each([x])?;
        Ok(x)
    }

    /// Several tensors in one exchange.
    pub(crate) fn settle_each<const N: usize>(&mut self, x: [&Shared; N]) -> Result<[Shared; N]> {
        let fraction = self.format().fraction;
        let out = self.settle_to(&x.map(|x| (x, fraction)))?;
        out.try_into().map_err(|v: Vec<Shared>| Error::shape("settle", N, v.len()))
    }

    /// Tensors at given scales, no finer than they have, modulo 2^64.
    pub(crate) fn settle_to(&mut self, tensors: &[(&Shared, u32)]) -> Result<Vec<Shared>> {
        struct Part {
            own: Lane,
            top: Lane,
            and: Lane,
        }
        let mut parts = Vec::with_capacity(tensors.len());
        let mut bits = Zeroizing::new(Vec::new());
        let mut len = 0;
        for (x, scale) in tensors {
            let n = x.shape.len();
            let k = x.scale.saturating_sub(*scale);
            let a = [self.private(0, n, 1)?, self.private(1, n, 1)?];
            let factors = [Factor::Mask(a[0].as_deref()), Factor::Mask(a[1].as_deref())];
            // Wrapping weighs 2^(bits−k): only so many low bits of it matter.
            let and = self.relation(&factors, n, wrap_bits(x.bits, k))?;
            let half = only(self.leads(), 1 << (x.bits - 2));
            let lifted = each(&x.lane, |v| v.wrapping_add(half) & low(x.bits));
            let [mine, _] = match self.party() {
                Some(1) => [a[1].clone(), None],
                _ => [a[0].clone(), None],
            };
            let top = both(&lifted, &mine, |z, a| z >> (x.bits - 1) ^ a);
            len += packed_len(n, 1);
            if let Some(top) = &top {
                pack(top, 1, &mut bits);
            }
            parts.push((Part { own: lifted, top, and }, mine));
        }
        let payload: Lane8 = self.party().map(|_| bits.to_vec());
        let got = self.exchange(payload, len)?;
        let leads = self.leads();
        let mut at = 0;
        let mut out = Vec::with_capacity(tensors.len());
        for ((x, scale), (part, mine)) in tensors.iter().zip(parts) {
            let n = x.shape.len();
            let k = x.scale.saturating_sub(*scale);
            let bytes = packed_len(n, 1);
            let theirs = match &got {
                Some(got) => Some(unpack(&got[at..at + bytes], n, 1)?),
                None => None,
            };
            at += bytes;
            let lane = match (&part.own, &part.top, &theirs, &mine, &part.and) {
                (Some(own), Some(top), Some(theirs), Some(mine), Some(and)) => {
                    let weight = x.bits - k;
                    let back = only(leads, shl(1, x.bits - 2 - k).wrapping_neg());
                    let lane = (0..n).map(|i| {
                        let sign = |e: u64| 1u64.wrapping_sub(2 * e);
                        // m₀m₁ with mᵢ = eᵢ ⊕ aᵢ; this party knows its a.
                        let product = only(leads, top[i] & theirs[i])
                            .wrapping_add(
                                theirs[i].wrapping_mul(sign(top[i])).wrapping_mul(mine[i]),
                            )
                            .wrapping_add(
                                sign(top[i]).wrapping_mul(sign(theirs[i])).wrapping_mul(and[i]),
                            );
                        let own_top = own[i] >> (x.bits - 1);
                        let wrap = own_top.wrapping_sub(product);
                        // One party rounds up and the other down: right on average, and zeros
                        // stay zeros however they are shared.
                        let up = only(leads, u64::from(own[i] & low_or_none(k) != 0));
                        (own[i] >> k)
                            .wrapping_add(up)
                            .wrapping_sub(shl(wrap, weight))
                            .wrapping_add(back)
                    });
                    Some(lane.collect())
                }
                _ => None,
            };
            out.push(Shared::new(x.shape, 64, x.scale - k, lane));
        }
        Ok(out)
    }

    /// An open tensor with fewer fraction bits **and** as many bits less of modulus; nothing is
    /// sent. The error is below one unit and zero on average.
    ///
    /// # Errors
    /// The preprocessing's.
    pub fn reduce(&mut self, x: &Wire, by: u32) -> Result<Wire> {
        if by >= x.bits {
            return Err(Error::Room { operation: "reduce", needed: by, available: x.bits });
        }
        let bits = x.bits - by;
        let n = x.shape.len();
        let mask = self.relation(&[Factor::Shift(x.mask.as_deref(), by)], n, bits)?;
        // The dealer has plain masks, of which its relation is the plain shift already.
        Ok(Wire {
            shape: x.shape,
            bits,
            scale: x.scale - by,
            hat: each(&x.hat, |h| h >> by),
            mask: Zeroizing::new(mask),
            owner: None,
        })
    }

    /// ⌊x·2^−by⌋ exactly (a faithful truncation), modulo 2^64: two exchanges, of the value and of
    /// one masked bit, and a comparison key on the low bits.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn floor(&mut self, x: &Shared, by: u32) -> Result<Shared> {
        let n = x.shape.len();
        let lifted = self.shifted(x, 1 << (x.bits - 2));
        let wire = self.open_one(&lifted)?;
        // x̂ mod 2^by < r mod 2^by: the low bits borrow.
        let keys = self.comparison(wire.mask.as_deref(), n, by.max(1))?;
        let point = each(&wire.hat, |h| h & low(by.max(1)));
        let borrow = self.evaluate(keys.as_ref(), &point);
        let borrow = self.open_one(&Shared::new(x.shape, 1, 0, borrow))?;
        let mask = wire.mask.as_deref();
        let shift = self.relation(&[Factor::Shift(mask, by)], n, 64)?;
        let top = self.relation(&[Factor::Bit(mask, x.bits - 1)], n, wrap_bits(x.bits, by))?;
        let bit = self.relation(&[Factor::Mask(borrow.mask.as_deref())], n, 64)?;
        let leads = self.leads();
        let lane = match (&wire.hat, &borrow.hat, shift, top, bit) {
            (Some(hat), Some(b), Some(shift), Some(top), Some(bit)) => {
                let lane = (0..n).map(|i| {
                    // x = x̂ − r + 2^bits·w, and w is r's top bit where x̂'s is zero.
                    let wrap = (1 - (hat[i] >> (x.bits - 1))).wrapping_mul(top[i]);
                    let flip = 1u64.wrapping_sub(2 * b[i]);
                    let borrow = only(leads, b[i]).wrapping_add(flip.wrapping_mul(bit[i]));
                    only(leads, (hat[i] >> by).wrapping_sub(shl(1, x.bits - 2 - by)))
                        .wrapping_sub(shift[i])
                        .wrapping_add(shl(wrap, x.bits - by))
                        .wrapping_sub(borrow)
                });
                Some(lane.collect())
            }
            _ => None,
        };
        Ok(Shared::new(x.shape, 64, x.scale.saturating_sub(by), lane))
    }

    /// x·2^−by by shifting shares (Mohassel and Zhang, *SecureML*, IEEE S&P 2017, section 4.1):
    /// nothing is sent, and with probability |x|·2^(scale−64) an element is wrong by 2^(64−by).
    /// For small values only; nothing in this crate calls it.
    ///
    /// # Errors
    /// A modulus other than 2^64.
    pub fn truncate_locally(&self, x: &Shared, by: u32) -> Result<Shared> {
        if x.bits != 64 {
            return Err(Error::Room { operation: "truncate", needed: 64, available: x.bits });
        }
        let leads = self.leads();
        let lane = each(&x.lane, |v| {
            if leads {
                ((v as i64) >> by) as u64
            } else {
                ((v.wrapping_neg() as i64 >> by) as u64).wrapping_neg()
            }
        });
        Ok(Shared::new(x.shape, 64, x.scale.saturating_sub(by), lane))
    }

    /// Zeros in the form of a tensor.
    pub(crate) fn zeros(&self, shape: Shape, bits: u32, scale: u32) -> Shared {
        let lane = self.party().map(|_| vec![0; shape.len()]);
        Shared::new(shape, bits, scale, lane)
    }
}

/// Bits of a factor of 2^(bits−k) that matter modulo 2^64; at least one is dealt.
pub(crate) const fn wrap_bits(bits: u32, k: u32) -> u32 {
    let needed = 64 + k - bits;
    if needed == 0 {
        1
    } else if needed > 64 {
        64
    } else {
        needed
    }
}

/// The low `k` bits set.
const fn low_or_none(k: u32) -> u64 {
    if k == 0 { 0 } else { low(k) }
}

/// A shift that empties the word where it is 64 or more.
const fn shl(x: u64, by: u32) -> u64 {
    if by >= 64 { 0 } else { x << by }
}
