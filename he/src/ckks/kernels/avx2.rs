//! Four lanes with AVX2. Its multiplier takes 32 bits, so 52-bit operands are split in halves of
//! 26 bits, whose products can be summed without carries.

use std::arch::x86_64::*;

use super::super::arith::MASK;
use super::{Kernel, Simd};

const HALF: i32 = 26;
const HALF_MASK: u64 = (1 << HALF) - 1;

/// Proof that the processor has AVX2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    pub(super) fn run<K: Kernel>(self, kernel: K) {
        #[target_feature(enable = "avx2")]
        fn inner<K: Kernel>(simd: Avx2, kernel: K) {
            kernel.run(simd);
        }
        // SAFETY: `self` is only made by `detect`, which found the feature.
        unsafe { inner(self, kernel) }
    }

    /// Bits 26… of each lane.
    #[inline(always)]
    fn upper(self, a: __m256i) -> __m256i {
        // SAFETY: the feature is there (`self`).
        unsafe { _mm256_srli_epi64::<HALF>(a) }
    }

    #[inline(always)]
    fn lower(self, a: __m256i) -> __m256i {
        self.and(a, self.splat(HALF_MASK))
    }

    #[inline(always)]
    fn shift_left_half(self, a: __m256i) -> __m256i {
        // SAFETY: the feature is there (`self`).
        unsafe { _mm256_slli_epi64::<HALF>(a) }
    }

    /// The sum as low + high·2⁵² with low below 2⁵².
    #[inline(always)]
    fn halves(self, acc: Thirds) -> (__m256i, __m256i) {
        let low = self.add(acc.low, self.shift_left_half(self.lower(acc.mid)));
        let high = self.add(self.add(acc.high, self.upper(acc.mid)), self.shift_right(low, 52));
        (self.and(low, self.splat(MASK)), high)
    }
}

/// Σ a₀b₀, Σ a₀b₁ + a₁b₀, Σ a₁b₁ over the 26-bit halves; 2¹¹ terms fit.
#[derive(Clone, Copy)]
pub(super) struct Thirds {
    low: __m256i,
    mid: __m256i,
    high: __m256i,
}

impl Simd for Avx2 {
    const LANES: usize = 4;
    type V = __m256i;
    type Acc = Thirds;

    #[inline(always)]
    fn load(self, row: &[u64], at: usize) -> __m256i {
        let lanes = &row[at..at + 4];
        // SAFETY: the feature is there (`self`); `lanes` is 32 readable bytes.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, row: &mut [u64], at: usize, v: __m256i) {
        let lanes = &mut row[at..at + 4];
        // SAFETY: the feature is there (`self`); `lanes` is 32 writable bytes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn splat(self, x: u64) -> __m256i {
        // SAFETY: the feature is there (`self`).
        unsafe { _mm256_set1_epi64x(x as i64) }
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the feature is there (`self`).
        unsafe { _mm256_add_epi64(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the feature is there (`self`).
        unsafe { _mm256_sub_epi64(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the feature is there (`self`). The comparison is signed: flip the top bits.
        unsafe {
            let top = _mm256_set1_epi64x(i64::MIN);
            let greater = _mm256_cmpgt_epi64(_mm256_xor_si256(a, top), _mm256_xor_si256(b, top));
            _mm256_blendv_epi8(a, b, greater)
        }
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the feature is there (`self`).
        unsafe { _mm256_and_si256(a, b) }
    }

    #[inline(always)]
    fn shift_right(self, a: __m256i, bits: u32) -> __m256i {
        // SAFETY: the feature is there (`self`).
        unsafe { _mm256_srlv_epi64(a, _mm256_set1_epi64x(i64::from(bits))) }
    }

    #[inline(always)]
    fn mul32(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the feature is there (`self`).
        unsafe { _mm256_mul_epu32(a, b) }
    }

    #[inline(always)]
    fn mul_low(self, a: __m256i, b: __m256i) -> __m256i {
        let (a0, b0) = (self.lower(a), self.lower(b));
        let mid = self.add(self.mul32(a0, self.upper(b)), self.mul32(self.upper(a), b0));
        let low = self.add(self.mul32(a0, b0), self.shift_left_half(self.lower(mid)));
        self.and(low, self.splat(MASK))
    }

    #[inline(always)]
    fn mul_high(self, a: __m256i, b: __m256i) -> __m256i {
        self.halves(self.mul_acc(self.acc(), a, b)).1
    }

    #[inline(always)]
    fn acc(self) -> Thirds {
        let zero = self.splat(0);
        Thirds { low: zero, mid: zero, high: zero }
    }

    #[inline(always)]
    fn mul_acc(self, acc: Thirds, a: __m256i, b: __m256i) -> Thirds {
        let (a0, a1) = (self.lower(a), self.upper(a));
        let (b0, b1) = (self.lower(b), self.upper(b));
        Thirds {
            low: self.add(acc.low, self.mul32(a0, b0)),
            mid: self.add(acc.mid, self.add(self.mul32(a0, b1), self.mul32(a1, b0))),
            high: self.add(acc.high, self.mul32(a1, b1)),
        }
    }

    #[inline(always)]
    fn montgomery(self, acc: Thirds, p: __m256i, neg_inv: __m256i) -> __m256i {
        let (low, _) = self.halves(acc);
        let m = self.mul_low(low, neg_inv);
        self.halves(self.mul_acc(acc, m, p)).1
    }

    #[inline(always)]
    fn permute_block(self, block: &[u64; 8], pattern: &[u64; 8]) -> [u64; 8] {
        pattern.map(|i| block[(i & 7) as usize])
    }
}
