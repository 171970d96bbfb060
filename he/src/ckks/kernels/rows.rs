//! The kernels, each over any [`Simd`]. Rows have equal length, a multiple of 8.

use super::super::arith::{MASK, Modulus, Shoup};
use super::{Kernel, Lanes, Simd};

/// x·w − q·p with q = ⌊x·⌊w·2⁵²/p⌋/2⁵²⌋: congruent to x·w, below 2p for x below 2⁵².
#[inline(always)]
fn shoup_lazy<S: Simd>(s: S, x: S::V, w: S::V, quotient: S::V, p: S::V) -> S::V {
    let q = s.mul_high(x, quotient);
    s.and(s.sub(s.mul_low(x, w), s.mul_low(q, p)), s.splat(MASK))
}

/// dst = src·w mod p, for src below 2⁵².
pub(crate) struct MulShoup<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) src: &'a [u64],
    pub(crate) by: Shoup,
    pub(crate) m: &'a Modulus,
}

impl Kernel for MulShoup<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (w, quotient, p) = (s.splat(self.by.w), s.splat(self.by.quotient), s.splat(self.m.p));
        for at in (0..self.dst.len()).step_by(S::LANES) {
            let r = shoup_lazy(s, s.load(self.src, at), w, quotient, p);
            s.store(self.dst, at, s.reduce_once(r, p));
        }
    }
}

/// yᵢ = yᵢ·wᵢ mod qᵢ for each source of a conversion, and v = round(Σᵢ yᵢ/qᵢ): how many times the
/// product of the sources exceeds the centred value.
///
/// With 32-bit fixed-point fractions: the rounding may differ from the true one within 2⁻²⁷ of a
/// tie, where either choice is as good.
pub(crate) struct Sources<'a> {
    pub(crate) v: &'a mut [u64],
    pub(crate) ys: &'a mut [&'a mut [u64]],
    pub(crate) by: &'a [Shoup],
    /// For each source: bits to drop so that 32 remain, and ⌊2^(bits(q)+31)/q⌋.
    pub(crate) reciprocals: &'a [(u32, u64)],
    pub(crate) moduli: &'a [&'a Modulus],
}

impl Kernel for Sources<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Several vectors at a time share the loads of the constants.
        const VECTORS: usize = 4;
        let block = VECTORS * S::LANES;
        for (k, v) in self.v.chunks_exact_mut(block).enumerate() {
            // Half, in units of 2^-31.
            let mut sums = [s.splat(1 << 30); VECTORS];
            let constants = self.by.iter().zip(self.reciprocals).zip(self.moduli);
            for (y, ((by, &(drop, reciprocal)), m)) in self.ys.iter_mut().zip(constants) {
                let y = &mut y[k * block..(k + 1) * block];
                let (w, quotient, p) = (s.splat(by.w), s.splat(by.quotient), s.splat(m.p));
                let reciprocal = s.splat(reciprocal);
                for (i, sum) in sums.iter_mut().enumerate() {
                    let at = i * S::LANES;
                    let r = shoup_lazy(s, s.load(y, at), w, quotient, p);
                    let r = s.reduce_once(r, p);
                    s.store(y, at, r);
                    let part = s.mul32(s.shift_right(r, drop), reciprocal);
                    *sum = s.add(*sum, s.shift_right(part, 32));
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                s.store(v, i * S::LANES, s.shift_right(sum, 31));
            }
        }
    }
}

/// dst ≡ Σᵢ yᵢ·cᵢ mod p, below 4p: one target row of a base conversion. The cᵢ are in Montgomery
/// form, at most 16 of them; the y are below 2⁵⁰.
pub(crate) struct Convert<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) ys: &'a [&'a [u64]],
    pub(crate) cs: &'a [u64],
    pub(crate) m: &'a Modulus,
}

impl Kernel for Convert<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let m = Lanes::new(s, self.m);
        // Several vectors at a time share the loads of the factors.
        const VECTORS: usize = 4;
        let block = VECTORS * S::LANES;
        for (k, dst) in self.dst.chunks_exact_mut(block).enumerate() {
            let mut acc = [s.acc(); VECTORS];
            for (y, &c) in self.ys.iter().zip(self.cs) {
                let (y, c) = (&y[k * block..(k + 1) * block], s.splat(c));
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = s.mul_acc(*acc, s.load(y, v * S::LANES), c);
                }
            }
            for (v, acc) in acc.into_iter().enumerate() {
                // Sixteen terms of at most p/4 each, and p + 1: below 5p + 1.
                let r = s.montgomery(acc, m.p, m.neg_inv);
                s.store(dst, v * S::LANES, s.reduce_once(r, m.two_p));
            }
        }
    }
}

/// outₖ = Σⱼ digitⱼ·keyₖⱼ·2⁻⁵² + extraₖ·cₖ·2⁻⁵² mod p for k = 0, 1: one row of a key switch.
pub(crate) struct InnerPair<'a> {
    pub(crate) out: [&'a mut [u64]; 2],
    pub(crate) digits: &'a [&'a [u64]],
    pub(crate) keys: [&'a [&'a [u64]]; 2],
    /// A row to add with its factor (Montgomery form), or none.
    pub(crate) extra: [Option<(&'a [u64], u64)>; 2],
    pub(crate) m: &'a Modulus,
}

impl Kernel for InnerPair<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let m = Lanes::new(s, self.m);
        const VECTORS: usize = 2;
        let block = VECTORS * S::LANES;
        let [out0, out1] = self.out;
        let outs = out0.chunks_exact_mut(block).zip(out1.chunks_exact_mut(block));
        for (k, (out0, out1)) in outs.enumerate() {
            let at = k * block..(k + 1) * block;
            let mut acc = [[s.acc(); VECTORS]; 2];
            for ((d, k0), k1) in self.digits.iter().zip(self.keys[0]).zip(self.keys[1]) {
                let (d, k0, k1) = (&d[at.clone()], &k0[at.clone()], &k1[at.clone()]);
                for v in 0..VECTORS {
                    let lane = v * S::LANES;
                    let d = s.load(d, lane);
                    acc[0][v] = s.mul_acc(acc[0][v], d, s.load(k0, lane));
                    acc[1][v] = s.mul_acc(acc[1][v], d, s.load(k1, lane));
                }
            }
            for (extra, acc) in self.extra.iter().zip(&mut acc) {
                if let Some((row, c)) = extra {
                    let (row, c) = (&row[at.clone()], s.splat(*c));
                    for (v, acc) in acc.iter_mut().enumerate() {
                        *acc = s.mul_acc(*acc, s.load(row, v * S::LANES), c);
                    }
                }
            }
            // At most eleven products below p²: below 4p after the reduction.
            for (out, acc) in [out0, out1].into_iter().zip(acc) {
                for (v, acc) in acc.into_iter().enumerate() {
                    let r = s.montgomery(acc, m.p, m.neg_inv);
                    s.store(out, v * S::LANES, m.reduce(s, r));
                }
            }
        }
    }
}

/// dst = (acc − part)·w mod p.
pub(crate) struct ModDown<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) acc: &'a [u64],
    pub(crate) part: &'a [u64],
    pub(crate) by: Shoup,
    pub(crate) m: &'a Modulus,
}

impl Kernel for ModDown<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (w, quotient, p) = (s.splat(self.by.w), s.splat(self.by.quotient), s.splat(self.m.p));
        for at in (0..self.dst.len()).step_by(S::LANES) {
            let x = s.sub(s.add(s.load(self.acc, at), p), s.load(self.part, at));
            let r = shoup_lazy(s, x, w, quotient, p);
            s.store(self.dst, at, s.reduce_once(r, p));
        }
    }
}

/// (d₀, d₁) = (a₀b₀, a₀b₁ + a₁b₀): the first two parts of a product.
pub(crate) struct TensorPair<'a> {
    pub(crate) out: [&'a mut [u64]; 2],
    pub(crate) a: [&'a [u64]; 2],
    pub(crate) b: [&'a [u64]; 2],
    pub(crate) m: &'a Modulus,
}

impl Kernel for TensorPair<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let m = Lanes::new(s, self.m);
        let [d0, d1] = self.out;
        for at in (0..d0.len()).step_by(S::LANES) {
            // Montgomery form of a, below 2p: the products below are then plain, below 4p.
            let a0 = m.mul(s, s.load(self.a[0], at), m.r2);
            let a1 = m.mul(s, s.load(self.a[1], at), m.r2);
            let (b0, b1) = (s.load(self.b[0], at), s.load(self.b[1], at));
            s.store(d0, at, m.reduce(s, m.mul(s, a0, b0)));
            let cross = s.mul_acc(s.mul_acc(s.acc(), a0, b1), a1, b0);
            s.store(d1, at, m.reduce(s, s.montgomery(cross, m.p, m.neg_inv)));
        }
    }
}

/// dst = a·b mod p.
pub(crate) struct Product<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) a: &'a [u64],
    pub(crate) b: &'a [u64],
    pub(crate) m: &'a Modulus,
}

impl Kernel for Product<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let m = Lanes::new(s, self.m);
        for at in (0..self.dst.len()).step_by(S::LANES) {
            let a = m.mul(s, s.load(self.a, at), m.r2);
            s.store(self.dst, at, m.reduce(s, m.mul(s, a, s.load(self.b, at))));
        }
    }
}

/// dst = a·b·2⁻⁵² mod p: the plain product where b is in Montgomery form.
pub(crate) struct MulMontgomery<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) a: &'a [u64],
    pub(crate) b: &'a [u64],
    pub(crate) m: &'a Modulus,
}

impl Kernel for MulMontgomery<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let m = Lanes::new(s, self.m);
        for at in (0..self.dst.len()).step_by(S::LANES) {
            let r = m.mul(s, s.load(self.a, at), s.load(self.b, at));
            s.store(self.dst, at, s.reduce_once(r, m.p));
        }
    }
}

/// dst += a·b·2⁻⁵² mod p.
pub(crate) struct AddMulMontgomery<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) a: &'a [u64],
    pub(crate) b: &'a [u64],
    pub(crate) m: &'a Modulus,
}

impl Kernel for AddMulMontgomery<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let m = Lanes::new(s, self.m);
        for at in (0..self.dst.len()).step_by(S::LANES) {
            let r = m.mul(s, s.load(self.a, at), s.load(self.b, at));
            let sum = s.add(s.load(self.dst, at), r);
            s.store(self.dst, at, m.reduce(s, sum));
        }
    }
}

/// dst += b mod p.
pub(crate) struct Add<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) b: &'a [u64],
    pub(crate) m: &'a Modulus,
}

impl Kernel for Add<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let p = s.splat(self.m.p);
        for at in (0..self.dst.len()).step_by(S::LANES) {
            let sum = s.add(s.load(self.dst, at), s.load(self.b, at));
            s.store(self.dst, at, s.reduce_once(sum, p));
        }
    }
}

/// dst −= b mod p.
pub(crate) struct Sub<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) b: &'a [u64],
    pub(crate) m: &'a Modulus,
}

impl Kernel for Sub<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let p = s.splat(self.m.p);
        for at in (0..self.dst.len()).step_by(S::LANES) {
            let difference = s.sub(s.add(s.load(self.dst, at), p), s.load(self.b, at));
            s.store(self.dst, at, s.reduce_once(difference, p));
        }
    }
}

/// dst = −dst mod p.
pub(crate) struct Negate<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) m: &'a Modulus,
}

impl Kernel for Negate<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let p = s.splat(self.m.p);
        for at in (0..self.dst.len()).step_by(S::LANES) {
            let r = s.sub(p, s.load(self.dst, at));
            s.store(self.dst, at, s.reduce_once(r, p));
        }
    }
}

/// A permutation that takes aligned blocks of eight to aligned blocks of eight.
pub(crate) struct Permutation {
    /// For each block of the result: the source block times 8, plus the number of its pattern.
    pub(crate) blocks: Vec<u32>,
    /// The orders within a block.
    pub(crate) patterns: [[u64; 8]; 8],
}

/// dst = σ(src), or dst += σ(src) mod p with `add`.
pub(crate) struct PermuteAdd<'a> {
    pub(crate) dst: &'a mut [u64],
    pub(crate) src: &'a [u64],
    pub(crate) by: &'a Permutation,
    pub(crate) add: bool,
    pub(crate) m: &'a Modulus,
}

impl Kernel for PermuteAdd<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let p = s.splat(self.m.p);
        let (dst, _) = self.dst.as_chunks_mut::<8>();
        let (src, _) = self.src.as_chunks::<8>();
        for (out, &from) in dst.iter_mut().zip(&self.by.blocks) {
            let pattern = &self.by.patterns[(from & 7) as usize];
            let block = s.permute_block(&src[(from >> 3) as usize], pattern);
            if self.add {
                for at in (0..8).step_by(S::LANES) {
                    let sum = s.add(s.load(&out[..], at), s.load(&block[..], at));
                    s.store(&mut out[..], at, s.reduce_once(sum, p));
                }
            } else {
                *out = block;
            }
        }
    }
}
