//! One lane, in plain Rust: the twin that defines what the others must compute.

use super::super::arith::{MASK, RADIX_BITS};
use super::Simd;

#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Simd for Portable {
    const LANES: usize = 1;
    type V = u64;
    type Acc = u128;

    #[inline(always)]
    fn load(self, row: &[u64], at: usize) -> u64 {
        row[at]
    }

    #[inline(always)]
    fn store(self, row: &mut [u64], at: usize, v: u64) {
        row[at] = v;
    }

    #[inline(always)]
    fn splat(self, x: u64) -> u64 {
        x
    }

    #[inline(always)]
    fn add(self, a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }

    #[inline(always)]
    fn sub(self, a: u64, b: u64) -> u64 {
        a.wrapping_sub(b)
    }

    #[inline(always)]
    fn min(self, a: u64, b: u64) -> u64 {
        a.min(b)
    }

    #[inline(always)]
    fn and(self, a: u64, b: u64) -> u64 {
        a & b
    }

    #[inline(always)]
    fn shift_right(self, a: u64, bits: u32) -> u64 {
        a >> bits
    }

    #[inline(always)]
    fn mul32(self, a: u64, b: u64) -> u64 {
        (a & 0xffff_ffff) * (b & 0xffff_ffff)
    }

    #[inline(always)]
    fn mul_low(self, a: u64, b: u64) -> u64 {
        a.wrapping_mul(b) & MASK
    }

    #[inline(always)]
    fn mul_high(self, a: u64, b: u64) -> u64 {
        ((a as u128 * b as u128) >> RADIX_BITS) as u64
    }

    #[inline(always)]
    fn acc(self) -> u128 {
        0
    }

    #[inline(always)]
    fn mul_acc(self, acc: u128, a: u64, b: u64) -> u128 {
        acc + a as u128 * b as u128
    }

    #[inline(always)]
    fn montgomery(self, acc: u128, p: u64, neg_inv: u64) -> u64 {
        let m = (acc as u64).wrapping_mul(neg_inv) & MASK;
        ((acc + m as u128 * p as u128) >> RADIX_BITS) as u64
    }

    #[inline(always)]
    fn permute_block(self, block: &[u64; 8], pattern: &[u64; 8]) -> [u64; 8] {
        pattern.map(|i| block[(i & 7) as usize])
    }
}
