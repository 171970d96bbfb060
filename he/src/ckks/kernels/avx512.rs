//! Eight lanes with the 52-bit multipliers of AVX-512 IFMA.

use std::arch::x86_64::*;

use super::super::arith::{MASK, RADIX_BITS};
use super::{Kernel, Simd};

/// Proof that the processor has AVX-512 F, DQ, VL and IFMA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma"))
        .then_some(Self(()))
    }

    pub(super) fn run<K: Kernel>(self, kernel: K) {
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
        fn inner<K: Kernel>(simd: Avx512, kernel: K) {
            kernel.run(simd);
        }
        // SAFETY: `self` is only made by `detect`, which found all of these features.
        unsafe { inner(self, kernel) }
    }
}

/// A sum of 52-bit products by halves: Σ low(aᵢbᵢ) and Σ high(aᵢbᵢ); sixteen stay below 2⁵⁶.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    low: __m512i,
    high: __m512i,
}

// Every `unsafe` below but the loads and stores is a call of a pure register instruction.
impl Simd for Avx512 {
    const LANES: usize = 8;
    type V = __m512i;
    type Acc = Halves;

    #[inline(always)]
    fn load(self, row: &[u64], at: usize) -> __m512i {
        let lanes = &row[at..at + 8];
        // SAFETY: the features are there (`self`); `lanes` is 64 readable bytes.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, row: &mut [u64], at: usize, v: __m512i) {
        let lanes = &mut row[at..at + 8];
        // SAFETY: the features are there (`self`); `lanes` is 64 writable bytes.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn splat(self, x: u64) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_set1_epi64(x as i64) }
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_add_epi64(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_sub_epi64(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_min_epu64(a, b) }
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn shift_right(self, a: __m512i, bits: u32) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_srlv_epi64(a, _mm512_set1_epi64(i64::from(bits))) }
    }

    #[inline(always)]
    fn mul32(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_mul_epu32(a, b) }
    }

    #[inline(always)]
    fn mul_low(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_madd52lo_epu64(_mm512_setzero_si512(), a, b) }
    }

    #[inline(always)]
    fn mul_high(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the features are there (`self`).
        unsafe { _mm512_madd52hi_epu64(_mm512_setzero_si512(), a, b) }
    }

    #[inline(always)]
    fn acc(self) -> Halves {
        let zero = self.splat(0);
        Halves { low: zero, high: zero }
    }

    #[inline(always)]
    fn mul_acc(self, acc: Halves, a: __m512i, b: __m512i) -> Halves {
        // SAFETY: the features are there (`self`).
        unsafe {
            Halves {
                low: _mm512_madd52lo_epu64(acc.low, a, b),
                high: _mm512_madd52hi_epu64(acc.high, a, b),
            }
        }
    }

    #[inline(always)]
    fn montgomery(self, acc: Halves, p: __m512i, neg_inv: __m512i) -> __m512i {
        // The multipliers read only the low 52 bits, so `low` needs no masking before m; the
        // sum low + low(m·p) is a multiple of 2^52 and its upper bits are the carry.
        let m = self.mul_low(acc.low, neg_inv);
        // SAFETY: the features are there (`self`).
        unsafe {
            let low = _mm512_madd52lo_epu64(acc.low, m, p);
            let high = _mm512_madd52hi_epu64(acc.high, m, p);
            _mm512_add_epi64(high, _mm512_srli_epi64::<{ RADIX_BITS }>(low))
        }
    }

    #[inline(always)]
    fn permute_block(self, block: &[u64; 8], pattern: &[u64; 8]) -> [u64; 8] {
        let mut out = [0; 8];
        let (b, i) = (self.load(block, 0), self.load(pattern, 0));
        // SAFETY: the features are there (`self`).
        self.store(&mut out, 0, unsafe { _mm512_permutexvar_epi64(i, b) });
        out
    }
}

const _: () = assert!(MASK == (1 << 52) - 1, "the multipliers are 52 bits wide");
