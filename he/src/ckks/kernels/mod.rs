//! The row kernels: what a ciphertext operation does to N residues at a time, apart from the
//! number-theoretic transform.
//!
//! Each kernel is written once, over the few vector operations of [`Simd`] (`rows`); three
//! backends supply those: portable Rust (one lane), AVX2 (four) and AVX-512 IFMA (eight). All
//! compute the same integers, lazily reduced ones included, so results are identical, and the
//! tests demand that.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod rows;
#[cfg(test)]
mod tests;

pub(crate) use rows::{
    Add, AddMulMontgomery, Convert, InnerPair, ModDown, MulMontgomery, MulShoup, Negate,
    Permutation, PermuteAdd, Product, Sources, Sub, TensorPair,
};

use super::arith::Modulus;

/// Vector operations on lanes of 64 bits. A value of the implementing type is the proof that the
/// processor has the instructions.
pub(crate) trait Simd: Copy {
    /// Lanes of a vector; divides 8.
    const LANES: usize;
    /// A vector.
    type V: Copy;
    /// A sum of products of 52-bit operands, at most 16 of them.
    type Acc: Copy;

    /// `row[at..at + LANES]`.
    fn load(self, row: &[u64], at: usize) -> Self::V;
    fn store(self, row: &mut [u64], at: usize, v: Self::V);
    fn splat(self, x: u64) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// Wrapping difference.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of a and b as unsigned numbers; both below 2⁶³ or a wrapped negative.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    fn shift_right(self, a: Self::V, bits: u32) -> Self::V;
    /// Product of the low 32 bits of each lane.
    fn mul32(self, a: Self::V, b: Self::V) -> Self::V;
    /// The low 52 bits of the product of 52-bit operands.
    fn mul_low(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bits 52… of the product of 52-bit operands.
    fn mul_high(self, a: Self::V, b: Self::V) -> Self::V;
    fn acc(self) -> Self::Acc;
    /// acc + a·b.
    fn mul_acc(self, acc: Self::Acc, a: Self::V, b: Self::V) -> Self::Acc;
    /// (T + m·p)/2⁵² with m = −T·p⁻¹ mod 2⁵²: congruent to T·2⁻⁵², below T/2⁵² + p + 1.
    fn montgomery(self, acc: Self::Acc, p: Self::V, neg_inv: Self::V) -> Self::V;
    /// `block[pattern[i]]`.
    fn permute_block(self, block: &[u64; 8], pattern: &[u64; 8]) -> [u64; 8];

    /// x − m where that is not negative, else x.
    #[inline(always)]
    fn reduce_once(self, x: Self::V, m: Self::V) -> Self::V {
        self.min(x, self.sub(x, m))
    }
}

/// Work on rows that any backend can run.
pub(crate) trait Kernel {
    fn run<S: Simd>(self, simd: S);
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

/// Which instructions the row kernels use. Only backends that this processor can run can be made.
#[derive(Clone, Copy, Debug)]
pub struct Backend(Kind);

impl Backend {
    /// The fastest this processor has.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(s) = avx512::Avx512::detect() {
                return Self(Kind::Avx512(s));
            }
            if let Some(s) = avx2::Avx2::detect() {
                return Self(Kind::Avx2(s));
            }
        }
        Self::portable()
    }

    /// Plain Rust, on any processor.
    #[must_use]
    pub fn portable() -> Self {
        Self(Kind::Portable)
    }

    /// All that this processor can run, the fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(avx512::Avx512::detect().map(|s| Self(Kind::Avx512(s))));
            all.extend(avx2::Avx2::detect().map(|s| Self(Kind::Avx2(s))));
        }
        all.push(Self::portable());
        all
    }

    /// `"avx512-ifma"`, `"avx2"` or `"portable"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512-ifma",
        }
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        match self.0 {
            Kind::Portable => kernel.run(portable::Portable),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(s) => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(s) => s.run(kernel),
        }
    }
}

/// The constants of a modulus, in every lane.
#[derive(Clone, Copy)]
struct Lanes<S: Simd> {
    p: S::V,
    two_p: S::V,
    neg_inv: S::V,
    r2: S::V,
}

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn new(simd: S, m: &Modulus) -> Self {
        Self {
            p: simd.splat(m.p),
            two_p: simd.splat(2 * m.p),
            neg_inv: simd.splat(m.neg_inv),
            r2: simd.splat(m.r2),
        }
    }

    /// a·b·2⁻⁵² mod p, below 2p for operands whose product is below p·2⁵².
    #[inline(always)]
    fn mul(&self, simd: S, a: S::V, b: S::V) -> S::V {
        simd.montgomery(simd.mul_acc(simd.acc(), a, b), self.p, self.neg_inv)
    }

    /// From below 4p to below p.
    #[inline(always)]
    fn reduce(&self, simd: S, x: S::V) -> S::V {
        simd.reduce_once(simd.reduce_once(x, self.two_p), self.p)
    }
}
