use super::{both, each};
use crate::mpc::{Mpc, Shared, Wire};
use crate::preprocess::Lane;
use crate::ring::{decode, encode, low, pack, packed_len, unpack};
use crate::{Error, Result};
use undertone_core::Shape;
use zeroize::Zeroizing;

impl Mpc {
    /// Opens tensors under fresh masks, all in one exchange.
    ///
    /// # Errors
    /// The channel's and the preprocessing's.
    pub fn open(&mut self, tensors: &[&Shared]) -> Result<Vec<Wire>> {
        let mut masks: Vec<Lane> = Vec::with_capacity(tensors.len());
        let mut own: Vec<Zeroizing<Lane>> = Vec::with_capacity(tensors.len());
        let mut payload = Vec::new();
        let mut len = 0;
        for x in tensors {
            let bits = x.bits;
            let mask = self.uniform(x.shape.len(), bits)?;
            let sum = both(&x.lane, &mask, |x, r| x.wrapping_add(r) & low(bits));
            len += packed_len(x.shape.len(), x.bits);
            if let Some(sum) = &sum {
                pack(sum, x.bits, &mut payload);
            }
            own.push(Zeroizing::new(sum));
            masks.push(mask);
        }
        let payload = self.party().map(|_| payload);
        let got = self.exchange(payload, len)?;
        let mut at = 0;
        let mut wires = Vec::with_capacity(tensors.len());
        for ((x, mask), own) in tensors.iter().zip(masks).zip(own) {
            let (n, bits) = (x.shape.len(), x.bits);
            let bytes = packed_len(n, bits);
            let theirs = match &got {
                Some(got) => Some(unpack(&got[at..at + bytes], n, bits)?),
                None => None,
            };
            at += bytes;
            let hat = both(&own, &theirs, |a, b| a.wrapping_add(b) & low(bits));
            let mask = Zeroizing::new(mask);
            wires.push(Wire { shape: x.shape, bits, scale: x.scale, hat, mask, owner: None });
        }
        Ok(wires)
    }

    /// Opens one tensor.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_one(&mut self, x: &Shared) -> Result<Wire> {
        let [wire] = self.open_each([x])?;
        Ok(wire)
    }

    /// Opens a fixed number of tensors in one exchange.
    pub(crate) fn open_each<const N: usize>(&mut self, x: [&Shared; N]) -> Result<[Wire; N]> {
        let wires = self.open(&x)?;
        wires.try_into().map_err(|got: Vec<Wire>| Error::shape("open", N, got.len()))
    }

    /// A tensor that `owner` brings, at the settled scale: `values` is looked at only there.
    ///
    /// # Errors
    /// [`Error::Range`] for a value outside the format, [`Error::Shape`] for another number of
    /// values or none.
    pub fn input(&mut self, owner: usize, shape: Shape, values: Option<&[f64]>) -> Result<Wire> {
        let scale = self.format().fraction;
        self.input_at(owner, shape, values, scale)
    }

    pub(crate) fn input_at(
        &mut self,
        owner: usize,
        shape: Shape,
        values: Option<&[f64]>,
        scale: u32,
    ) -> Result<Wire> {
        let n = shape.len();
        let mask = self.private(owner, n, 64)?;
        let mut hat = None;
        if self.party() == Some(owner) {
            let got = values.map_or(0, <[f64]>::len);
            let values = values.filter(|v| v.len() == n);
            let values = values.ok_or_else(|| Error::shape("input", n, got))?;
            let plain: Result<Vec<u64>> = values.iter().map(|v| encode(*v, 64, scale)).collect();
            let plain = Zeroizing::new(Some(plain?));
            hat = both(&plain, &mask, u64::wrapping_add);
        }
        let payload = hat.as_ref().map(|hat| {
            let mut payload = Vec::new();
            pack(hat, 64, &mut payload);
            payload
        });
        if let Some(got) = self.transfer(owner, payload, 8 * n)? {
            hat = Some(unpack(&got, n, 64)?);
        }
        let mask = Zeroizing::new(mask);
        Ok(Wire { shape, bits: 64, scale, hat, mask, owner: Some(owner) })
    }

    /// The tensor of a wire as shares: nothing is sent.
    #[must_use]
    pub fn share(&self, x: &Wire) -> Shared {
        let leads = self.leads();
        let lane = both(&x.hat, &x.mask, |hat, mask| {
            super::only(leads, hat).wrapping_sub(mask) & low(x.bits)
        });
        Shared::new(x.shape, x.bits, x.scale, lane)
    }

    /// Shows a tensor to one party. `None` at the other, and outside a run.
    ///
    /// # Errors
    /// The channel's.
    pub fn reveal(&mut self, x: &Shared, to: usize) -> Result<Option<Vec<f64>>> {
        let (n, bits) = (x.shape.len(), x.bits);
        let payload = match (&*x.lane, self.party()) {
            (Some(lane), Some(party)) if party != to => {
                let mut payload = Vec::new();
                pack(lane, bits, &mut payload);
                Some(payload)
            }
            _ => None,
        };
        let got = self.transfer(1 - to, payload, packed_len(n, bits))?;
        let Some(got) = got else { return Ok(None) };
        let theirs = Some(unpack(&got, n, bits)?);
        let sum = both(&x.lane, &theirs, |a, b| a.wrapping_add(b) & low(bits));
        Ok(sum.map(|s| s.iter().map(|v| decode(*v, bits, x.scale)).collect()))
    }

    /// The same values modulo a smaller power of two; free. Callers keep |x|·2^scale < 2^(bits−2).
    #[must_use]
    pub fn narrow(&self, x: &Shared, bits: u32) -> Shared {
        let bits = bits.min(x.bits);
        Shared::new(x.shape, bits, x.scale, each(&x.lane, |v| v & low(bits)))
    }
}
