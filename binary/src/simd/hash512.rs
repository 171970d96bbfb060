//! EcoFormer's hash in AVX-512, 32 anchors a pass, eight tokens at once; and the denominators of its
//! attention.
//!
//! The lanes are anchors. Codes are first computed with fused multiply-adds and folded constants;
//! where a response lies so near its threshold that rounding could decide the bit
//! ([`super::lanes::Slack`]), the token is hashed again in the order of the portable form, products
//! not fused with sums. So the codes are the portable form's, at the speed of the fused one.

use super::lanes::{ANCHORS, Floats, Layout, TOKENS};
use std::arch::x86_64::*;
use undertone_core::binary::hash::{EXP2, ROUND};

#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &Floats) -> __m512 {
    // SAFETY: sixteen floats, aligned to 64 bytes.
    unsafe { _mm512_load_ps(x.0.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2_negative(z: __m512) -> __m512 {
    let z = _mm512_max_ps(z, _mm512_set1_ps(-126.0));
    let rounded = _mm512_add_ps(z, _mm512_set1_ps(ROUND));
    let f = _mm512_sub_ps(z, _mm512_sub_ps(rounded, _mm512_set1_ps(ROUND)));
    let mut p = _mm512_set1_ps(EXP2[0]);
    for &c in &EXP2[1..] {
        p = _mm512_add_ps(_mm512_mul_ps(p, f), _mm512_set1_ps(c));
    }
    let whole = _mm512_slli_epi32::<23>(_mm512_castps_si512(rounded));
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), whole))
}

/// 2^z with fused products and one coefficient less; [`super::lanes::Slack`] allows for both.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2_fused(z: __m512) -> __m512 {
    let z = _mm512_max_ps(z, _mm512_set1_ps(-126.0));
    let rounded = _mm512_add_ps(z, _mm512_set1_ps(ROUND));
    let f = _mm512_sub_ps(z, _mm512_sub_ps(rounded, _mm512_set1_ps(ROUND)));
    let mut p = _mm512_set1_ps(EXP2[1]);
    for &c in &EXP2[2..] {
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
    }
    let whole = _mm512_slli_epi32::<23>(_mm512_castps_si512(rounded));
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), whole))
}

/// Codes of the tokens `x`, given 1/‖x‖ and the kernel's exponent.
///
/// # Safety
/// Needs AVX-512 F, DQ; `x` holds `out.len()` tokens of the layout's width, `inverse` one value each.
#[target_feature(enable = "avx512f,avx512dq")]
pub(crate) unsafe fn codes(
    hash: &Layout,
    x: &[f32],
    inverse: &[f32],
    exponent: f32,
    out: &mut [u16],
) {
    let dim = hash.dim;
    let whole = out.len() / TOKENS * TOKENS;
    for first in (0..whole).step_by(TOKENS) {
        let (x, inverse) = (&x[first * dim..], &inverse[first..]);
        let out = &mut out[first..];
        let mut doubtful = fused::<TOKENS>(hash, x, inverse, exponent, out);
        while doubtful != 0 {
            let t = doubtful.trailing_zeros() as usize;
            block::<1>(hash, &x[t * dim..], &inverse[t..], exponent, &mut out[t..]);
            doubtful &= doubtful - 1;
        }
    }
    for first in whole..out.len() {
        block::<1>(hash, &x[first * dim..], &inverse[first..], exponent, &mut out[first..]);
    }
}

/// Codes with fused products; bit t of the result is set where token t's code is not certain.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn fused<const T: usize>(
    hash: &Layout,
    tokens: &[f32],
    inverse: &[f32],
    exponent: f32,
    out: &mut [u16],
) -> u32 {
    let dim = hash.dim;
    let tokens = &tokens[..T * dim];
    let e = _mm512_set1_ps(exponent);
    let mut y = [_mm512_setzero_ps(); T];
    for (pass, norms) in hash.norms.iter().enumerate() {
        let mut dots = [[_mm512_setzero_ps(); 2]; T];
        for (k, anchors) in hash.anchors[pass * dim..][..dim].iter().enumerate() {
            let a = [load(&anchors[0]), load(&anchors[1])];
            for t in 0..T {
                // SAFETY: t < T and k < dim, the pass's slice having dim entries.
                let x = _mm512_set1_ps(unsafe { *tokens.get_unchecked(t * dim + k) });
                dots[t][0] = _mm512_fmadd_ps(x, a[0], dots[t][0]);
                dots[t][1] = _mm512_fmadd_ps(x, a[1], dots[t][1]);
            }
        }
        // exponent·(1 + ‖a‖²), a token's length being one.
        let mut base = [_mm512_setzero_ps(); 2];
        for h in 0..2 {
            base[h] = _mm512_mul_ps(_mm512_add_ps(_mm512_set1_ps(1.0), load(&norms[h])), e);
        }
        let mut kernels = [[0.0f32; ANCHORS]; T];
        for t in 0..T {
            let twice = _mm512_set1_ps(2.0 * inverse[t] * exponent);
            for h in 0..2 {
                let z = _mm512_fnmadd_ps(twice, dots[t][h], base[h]);
                let kernel = exp2_fused(_mm512_min_ps(z, _mm512_setzero_ps()));
                // SAFETY: half of 32 floats.
                unsafe { _mm512_storeu_ps(kernels[t].as_mut_ptr().add(16 * h), kernel) };
            }
        }
        for (j, plane) in hash.planes[pass * ANCHORS..].iter().take(ANCHORS).enumerate() {
            let plane = load(plane);
            for t in 0..T {
                y[t] = _mm512_fmadd_ps(_mm512_set1_ps(kernels[t][j]), plane, y[t]);
            }
        }
    }
    let bits = (0xffffu32 >> (16 - hash.bits)) as u16;
    let thresholds = load(&hash.thresholds);
    let slack = _mm512_fmadd_ps(
        load(&hash.slack.distance),
        _mm512_set1_ps(exponent.abs()),
        load(&hash.slack.rounding),
    );
    let mut doubtful = 0;
    for t in 0..T {
        let over = _mm512_sub_ps(y[t], thresholds);
        out[t] = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(bits, over, _mm512_setzero_ps());
        let sure = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(bits, _mm512_abs_ps(over), slack);
        // A zero token has another length.
        doubtful |= u32::from(sure != bits || inverse[t] <= 0.0) << t;
    }
    doubtful
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn block<const T: usize>(
    hash: &Layout,
    tokens: &[f32],
    inverse: &[f32],
    exponent: f32,
    out: &mut [u16],
) {
    let dim = hash.dim;
    let tokens = &tokens[..T * dim];
    let mut y = [_mm512_setzero_ps(); T];
    for (pass, norms) in hash.norms.iter().enumerate() {
        let mut dots = [[_mm512_setzero_ps(); 2]; T];
        for (k, anchors) in hash.anchors[pass * dim..][..dim].iter().enumerate() {
            let a = [load(&anchors[0]), load(&anchors[1])];
            for t in 0..T {
                // SAFETY: t < T and k < dim, the pass's slice having dim entries.
                let x = _mm512_set1_ps(unsafe { *tokens.get_unchecked(t * dim + k) });
                dots[t][0] = _mm512_add_ps(dots[t][0], _mm512_mul_ps(x, a[0]));
                dots[t][1] = _mm512_add_ps(dots[t][1], _mm512_mul_ps(x, a[1]));
            }
        }
        let mut kernels = [[0.0f32; ANCHORS]; T];
        for t in 0..T {
            let r = inverse[t];
            let length = _mm512_set1_ps(if r > 0.0 { 1.0 } else { 0.0 });
            let twice = _mm512_set1_ps(2.0 * r);
            for h in 0..2 {
                let d = _mm512_sub_ps(
                    _mm512_add_ps(length, load(&norms[h])),
                    _mm512_mul_ps(twice, dots[t][h]),
                );
                let d = _mm512_max_ps(d, _mm512_setzero_ps());
                let kernel = exp2_negative(_mm512_mul_ps(d, _mm512_set1_ps(exponent)));
                // SAFETY: half of 32 floats.
                unsafe { _mm512_storeu_ps(kernels[t].as_mut_ptr().add(16 * h), kernel) };
            }
        }
        for (j, plane) in hash.planes[pass * ANCHORS..].iter().take(ANCHORS).enumerate() {
            let plane = load(plane);
            for t in 0..T {
                y[t] = _mm512_add_ps(y[t], _mm512_mul_ps(_mm512_set1_ps(kernels[t][j]), plane));
            }
        }
    }
    let bits = (0xffffu32 >> (16 - hash.bits)) as u16;
    for t in 0..T {
        out[t] = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(bits, y[t], load(&hash.thresholds));
    }
}

/// 1/‖x‖ of every token, zero for a zero token; `false` where a squared length is not finite.
///
/// # Safety
/// Needs AVX-512 F, DQ, VL; `x` holds `out.len()` tokens of `dim` values.
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
pub(crate) unsafe fn normalisers(x: &[f32], dim: usize, out: &mut [f32]) -> bool {
    let mut fine = true;
    for (tokens, out) in x.chunks(16 * dim).zip(out.chunks_mut(16)) {
        let mut squares = Floats([0.0; 16]);
        for (token, square) in tokens.chunks_exact(dim).zip(&mut squares.0) {
            *square = fold(squared_lanes(token));
        }
        let s = load(&squares);
        // Newton's steps of `normaliser`, operation by operation.
        let halved = _mm512_srli_epi32::<1>(_mm512_castps_si512(s));
        let guess = _mm512_sub_epi32(_mm512_set1_epi32(0x5f37_59df), halved);
        let mut y = _mm512_castsi512_ps(guess);
        let half = _mm512_mul_ps(_mm512_set1_ps(0.5), s);
        for _ in 0..4 {
            let step = _mm512_mul_ps(_mm512_mul_ps(half, y), y);
            y = _mm512_mul_ps(y, _mm512_sub_ps(_mm512_set1_ps(1.5), step));
        }
        let normal = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(s, _mm512_set1_ps(f32::MIN_POSITIVE));
        let finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(s, _mm512_set1_ps(f32::INFINITY));
        fine &= finite == 0xffff;
        let lanes = (0xffffu32 >> (16 - out.len())) as u16;
        // SAFETY: only lanes that `out` has are written.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), lanes, _mm512_maskz_mov_ps(normal, y)) };
    }
    fine
}

/// Σ x̂ in the order of the portable form: blocks of tokens, sums in registers, 64 columns at a time.
///
/// # Safety
/// Needs AVX-512 F; `x` holds `inverse.len()` tokens of `sum.len()` values.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn sum_of_directions(x: &[f32], inverse: &[f32], sum: &mut [f32]) {
    use undertone_core::binary::hash::SUM_BLOCK;
    let dim = sum.len();
    for (strip, sum) in sum.chunks_mut(64).enumerate() {
        let lanes: [u16; 4] = std::array::from_fn(|i| {
            let left = sum.len().saturating_sub(16 * i).min(16);
            ((1u32 << left) - 1) as u16
        });
        let mut total = [_mm512_setzero_ps(); 4];
        for (tokens, inverse) in x.chunks(SUM_BLOCK * dim).zip(inverse.chunks(SUM_BLOCK)) {
            let mut part = [_mm512_setzero_ps(); 4];
            for (token, &r) in tokens.chunks_exact(dim).zip(inverse) {
                let r = _mm512_set1_ps(r);
                let token = token[64 * strip..].as_ptr();
                for i in 0..4 {
                    // SAFETY: only lanes that the token has are read; without one the address is
                    // never followed.
                    let v = unsafe { _mm512_maskz_loadu_ps(lanes[i], token.wrapping_add(16 * i)) };
                    part[i] = _mm512_add_ps(part[i], _mm512_mul_ps(v, r));
                }
            }
            for i in 0..4 {
                total[i] = _mm512_add_ps(total[i], part[i]);
            }
        }
        for i in 0..4 {
            let to = sum.as_mut_ptr().wrapping_add(16 * i);
            // SAFETY: only lanes that `sum` has are written.
            unsafe { _mm512_mask_storeu_ps(to, lanes[i], total[i]) };
        }
    }
}

/// x² in sixteen running sums.
#[inline]
#[target_feature(enable = "avx512f")]
fn squared_lanes(token: &[f32]) -> __m512 {
    let mut sums = _mm512_setzero_ps();
    for part in token.chunks(16) {
        let lanes = (0xffffu32 >> (16 - part.len())) as u16;
        // SAFETY: only the lanes of `part` are read.
        let v = unsafe { _mm512_maskz_loadu_ps(lanes, part.as_ptr()) };
        sums = _mm512_add_ps(sums, _mm512_mul_ps(v, v));
    }
    sums
}

/// The sum of sixteen lanes, halves first.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn fold(x: __m512) -> f32 {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// 1/(base + Σ_p table_p[nibble p]) of every code: a table of sixteen integers is one register.
///
/// # Safety
/// Needs AVX-512 F, BW, VL; at most four tables.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) unsafe fn reciprocals(codes: &[u16], base: i32, tables: &[[i32; 16]], out: &mut [f32]) {
    let mut registers = [_mm512_setzero_si512(); 4];
    for (register, table) in registers.iter_mut().zip(tables) {
        // SAFETY: sixteen integers are 64 bytes.
        *register = unsafe { _mm512_loadu_si512(table.as_ptr().cast()) };
    }
    for (codes, out) in codes.chunks(16).zip(out.chunks_mut(16)) {
        let lanes = (0xffffu32 >> (16 - codes.len())) as u16;
        // SAFETY: only the lanes of `codes` are read.
        let codes = unsafe { _mm256_maskz_loadu_epi16(lanes, codes.as_ptr().cast()) };
        let mut nibbles = _mm512_cvtepu16_epi32(codes);
        let mut sum = _mm512_set1_epi32(base);
        for table in registers {
            // The permutation reads the lowest four bits of each lane.
            sum = _mm512_add_epi32(sum, _mm512_permutexvar_epi32(nibbles, table));
            nibbles = _mm512_srli_epi32::<4>(nibbles);
        }
        let inverse = _mm512_div_ps(_mm512_set1_ps(1.0), _mm512_cvtepi32_ps(sum));
        // SAFETY: only lanes that `out` has are written.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), lanes, inverse) };
    }
}
