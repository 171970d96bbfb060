//! The ring Z_2^64 and its quotients Z_2^m: fixed point, packing to m bits, matrix products.

use crate::{Error, Result};
use undertone_core::Form;

/// The low `bits` bits set; `bits` in 1..=64.
#[must_use]
pub const fn low(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// Two's complement of `bits` bits, as a signed number.
#[must_use]
pub const fn signed(value: u64, bits: u32) -> i64 {
    let up = 64 - bits;
    ((value << up) as i64) >> up
}

/// A real number as fixed point with `fraction` bits, modulo 2^`bits`.
///
/// # Errors
/// [`Error::Range`] where |value|·2^fraction ≥ 2^(bits−2): the protocols need one bit of slack.
pub fn encode(value: f64, bits: u32, fraction: u32) -> Result<u64> {
    let scaled = libm::rint(libm::ldexp(value, fraction as i32));
    if !scaled.is_finite() || scaled.abs() >= libm::ldexp(1.0, bits as i32 - 2) {
        return Err(Error::Range { value, bits, fraction });
    }
    Ok(scaled as i64 as u64 & low(bits))
}

/// The real number of a fixed-point value.
#[must_use]
pub fn decode(value: u64, bits: u32, fraction: u32) -> f64 {
    libm::ldexp(signed(value, bits) as f64, -(fraction as i32))
}

/// Bytes of `n` values packed to `bits` bits each.
#[must_use]
pub const fn packed_len(n: usize, bits: u32) -> usize {
    (n * bits as usize).div_ceil(8)
}

/// Packs values to `bits` bits each, little-endian, onto `out`.
pub fn pack(values: &[u64], bits: u32, out: &mut Vec<u8>) {
    if bits.is_multiple_of(8) {
        let bytes = bits as usize / 8;
        out.reserve(values.len() * bytes);
        for v in values {
            out.extend_from_slice(&v.to_le_bytes()[..bytes]);
        }
        return;
    }
    let (mut hold, mut have) = (0u128, 0u32);
    for v in values {
        hold |= u128::from(v & low(bits)) << have;
        have += bits;
        while have >= 8 {
            out.push(hold as u8);
            hold >>= 8;
            have -= 8;
        }
    }
    if have > 0 {
        out.push(hold as u8);
    }
}

/// The inverse of [`pack`]: `n` values of `bits` bits. `bytes` holds [`packed_len`] bytes.
///
/// # Errors
/// [`Error::Desync`] for another length.
pub fn unpack(bytes: &[u8], n: usize, bits: u32) -> Result<Vec<u64>> {
    let expected = packed_len(n, bits);
    if bytes.len() != expected {
        let (expected, got) = (expected as u64, bytes.len() as u64);
        return Err(Error::Desync { operation: "unpack", expected, got });
    }
    let mut out = Vec::with_capacity(n);
    if bits.is_multiple_of(8) {
        let width = bits as usize / 8;
        out.extend(bytes.chunks_exact(width).map(|chunk| {
            let mut word = [0; 8];
            word[..width].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        }));
        return Ok(out);
    }
    let (mut hold, mut have, mut bytes) = (0u128, 0u32, bytes.iter());
    for _ in 0..n {
        while have < bits {
            // The length was checked: there are enough bytes.
            hold |= u128::from(*bytes.next().unwrap_or(&0)) << have;
            have += 8;
        }
        out.push(hold as u64 & low(bits));
        hold >>= bits;
        have -= bits;
    }
    Ok(out)
}

/// A batch of matrix products: (batch, n, k)·(batch or 1, k, m).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Matrices.
    pub batch: usize,
    /// Rows of the result.
    pub n: usize,
    /// Inner length.
    pub k: usize,
    /// Columns of the result.
    pub m: usize,
    /// Which operand is transposed in memory.
    pub form: Form,
    /// Whether one right operand serves the whole batch.
    pub shared: bool,
}

impl Product {
    /// Elements of the left operand.
    #[must_use]
    pub fn left(&self) -> usize {
        self.batch * self.n * self.k
    }

    /// Elements of the right operand.
    #[must_use]
    pub fn right(&self) -> usize {
        if self.shared { self.k * self.m } else { self.batch * self.k * self.m }
    }

    /// Elements of the result.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch * self.n * self.m
    }

    /// Whether the result has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `out += sign·a·b` modulo 2^64, `sign` being 1 or −1.
    pub fn accumulate(&self, a: &[u64], b: &[u64], negative: bool, out: &mut [u64]) {
        let (n, k, m) = (self.n, self.k, self.m);
        let mut left = Vec::new();
        let mut right = Vec::new();
        for i in 0..self.batch {
            let a = &a[i * n * k..(i + 1) * n * k];
            let at = if self.shared { 0 } else { i * k * m };
            let b = &b[at..at + k * m];
            let a = match self.form {
                Form::Tn => transpose(a, k, n, &mut left),
                _ => a,
            };
            let b = match self.form {
                Form::Nt => transpose(b, m, k, &mut right),
                _ => b,
            };
            multiply(a, b, (n, k, m), negative, &mut out[i * n * m..(i + 1) * n * m]);
        }
    }
}

fn transpose<'a>(x: &[u64], rows: usize, cols: usize, into: &'a mut Vec<u64>) -> &'a [u64] {
    into.clear();
    into.extend((0..cols).flat_map(|c| (0..rows).map(move |r| x[r * cols + c])));
    into
}

fn multiply(a: &[u64], b: &[u64], (n, k, m): (usize, usize, usize), neg: bool, out: &mut [u64]) {
    // Four rows of b at a time: the row of the result stays in cache and is touched k/4 times.
    for r in 0..n {
        let row = &mut out[r * m..(r + 1) * m];
        let factor = |j: usize| if neg { a[r * k + j].wrapping_neg() } else { a[r * k + j] };
        let mut j = 0;
        while j + 4 <= k {
            let f = [factor(j), factor(j + 1), factor(j + 2), factor(j + 3)];
            let (b0, rest) = b[j * m..(j + 4) * m].split_at(m);
            let (b1, rest) = rest.split_at(m);
            let (b2, b3) = rest.split_at(m);
            for ((((o, x0), x1), x2), x3) in row.iter_mut().zip(b0).zip(b1).zip(b2).zip(b3) {
                let s = f[0].wrapping_mul(*x0).wrapping_add(f[1].wrapping_mul(*x1));
                let t = f[2].wrapping_mul(*x2).wrapping_add(f[3].wrapping_mul(*x3));
                *o = o.wrapping_add(s).wrapping_add(t);
            }
            j += 4;
        }
        while j < k {
            let f = factor(j);
            for (o, x) in row.iter_mut().zip(&b[j * m..(j + 1) * m]) {
                *o = o.wrapping_add(f.wrapping_mul(*x));
            }
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_is_undone(values in prop::collection::vec(any::<u64>(), 0..40), bits in 1u32..=64) {
            let mut bytes = Vec::new();
            pack(&values, bits, &mut bytes);
            prop_assert_eq!(bytes.len(), packed_len(values.len(), bits));
            let back = unpack(&bytes, values.len(), bits).unwrap();
            let wanted: Vec<u64> = values.iter().map(|v| v & low(bits)).collect();
            prop_assert_eq!(back, wanted);
        }

        #[test]
        fn products_agree_with_sums(
            (n, k, m, batch) in (1usize..6, 1usize..10, 1usize..6, 1usize..3),
            seed in any::<u64>(), form in 0usize..3, shared in any::<bool>(),
        ) {
            let form = [Form::Nn, Form::Nt, Form::Tn][form];
            let p = Product { batch, n, k, m, form, shared };
            let fill = |len: usize, s: u64| -> Vec<u64> {
                (0..len as u64).map(|i| (i + s).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
            };
            let (a, b) = (fill(p.left(), seed), fill(p.right(), !seed));
            let mut out = vec![0; p.len()];
            p.accumulate(&a, &b, false, &mut out);
            for i in 0..batch {
                let bi = if shared { 0 } else { i };
                for r in 0..n {
                    for c in 0..m {
                        let mut sum = 0u64;
                        for j in 0..k {
                            let x = if form == Form::Tn { a[i * n * k + j * n + r] } else { a[i * n * k + r * k + j] };
                            let y = if form == Form::Nt { b[bi * k * m + c * k + j] } else { b[bi * k * m + j * m + c] };
                            sum = sum.wrapping_add(x.wrapping_mul(y));
                        }
                        prop_assert_eq!(out[i * n * m + r * m + c], sum);
                    }
                }
            }
            let mut zero = out.clone();
            p.accumulate(&a, &b, true, &mut zero);
            prop_assert!(zero.iter().all(|&z| z == 0));
        }
    }

    #[test]
    fn encoding_refuses_what_does_not_fit() {
        assert!(encode(f64::NAN, 64, 16).is_err());
        assert!(encode(4.0, 20, 16).is_err());
        assert!(encode(3.99, 20, 16).is_ok());
        assert_eq!(decode(encode(-1.5, 32, 16).unwrap(), 32, 16), -1.5);
    }
}
