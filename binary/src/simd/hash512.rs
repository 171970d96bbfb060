//! EcoFormer's hash in AVX-512, 32 anchors a pass, eight tokens at once; and the denominators of its
//! attention.
//!
//! The lanes are anchors. Codes are first computed from products of 16 bits, twice as many an instruction
//! as of floats; where a response lies so near its threshold that what this leaves out could decide the
//! bit ([`super::lanes::Slack`]), the token is hashed again in the order of the portable form, products
//! not fused with sums. So the codes are the portable form's.

use super::lanes::{ANCHORS, Floats, Layout, Pairs, TOKENS, UNIT};
use std::arch::x86_64::*;
use undertone_core::binary::hash::{EXP2, ROUND, SUM_BLOCK};

#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &Floats) -> __m512 {
    // SAFETY: sixteen floats, aligned to 64 bytes.
    unsafe { _mm512_load_ps(x.0.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_pairs(x: &Pairs) -> __m512i {
    // SAFETY: sixteen words, aligned to 64 bytes.
    unsafe { _mm512_load_si512(x.0.as_ptr().cast()) }
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

/// Coefficients of 2^f for 0 ≤ f < 1, relative error 2e-7.
const QUICK: [f32; 6] =
    [1.877_576_7e-3, 8.989_34e-3, 5.582_631_8e-2, 0.240_153_61, 0.693_153_1, 0.999_999_94];

/// 2^z for z ≤ 0 with fused products, within 16·2⁻²⁴ of [`exp2_negative`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2_quick(z: __m512) -> __m512 {
    // z − ⌊z⌋.
    let f = _mm512_reduce_ps::<0x09>(z);
    let mut p = _mm512_set1_ps(QUICK[0]);
    for &c in &QUICK[1..] {
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
    }
    // p·2^⌊z⌋.
    _mm512_scalef_ps(p, z)
}

/// Codes of the tokens `x`, given 1/‖x‖ and the kernel's exponent.
///
/// # Safety
/// Needs AVX-512 F, DQ, VL, VNNI; `x` holds `out.len()` tokens of the layout's width, `inverse` one value
/// each.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) unsafe fn codes(
    hash: &Layout,
    x: &[f32],
    inverse: &[f32],
    exponent: f32,
    out: &mut [u16],
) {
    let dim = hash.dim;
    let whole = out.len() / TOKENS * TOKENS;
    let mut words = vec![0; 8 * TOKENS * dim.div_ceil(16)];
    for first in (0..whole).step_by(TOKENS) {
        let (x, inverse) = (&x[first * dim..], &inverse[first..]);
        let out = &mut out[first..];
        let mut doubtful = quick::<TOKENS>(hash, x, inverse, exponent, &mut words, out);
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

/// A token's direction in words, two a lane, as many lines of sixteen values as it has.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn to_words(token: &[f32], inverse: f32, out: &mut [i32]) {
    let scale = _mm512_set1_ps(inverse * UNIT);
    for (part, out) in token.chunks(16).zip(out.as_chunks_mut::<8>().0) {
        let lanes = (0xffffu32 >> (16 - part.len())) as u16;
        // SAFETY: only the lanes of `part` are read.
        let v = unsafe { _mm512_maskz_loadu_ps(lanes, part.as_ptr()) };
        let words = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(v, scale)));
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), words) };
    }
}

/// Codes from products of 16 bits; bit t of the result is set where token t's code is not certain.
/// `words` is room for the tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quick<const T: usize>(
    hash: &Layout,
    tokens: &[f32],
    inverse: &[f32],
    exponent: f32,
    words: &mut [i32],
    out: &mut [u16],
) -> u32 {
    let (dim, pairs) = (hash.dim, hash.dim.div_ceil(2));
    let stride = 8 * dim.div_ceil(16);
    let words = &mut words[..T * stride];
    for t in 0..T {
        to_words(&tokens[t * dim..(t + 1) * dim], inverse[t], &mut words[t * stride..]);
    }
    let e = _mm512_set1_ps(exponent);
    let mut y = [_mm512_setzero_ps(); T];
    for (pass, norms) in hash.norms.iter().enumerate() {
        let mut dots = [[_mm512_setzero_si512(); 2]; T];
        for (k, anchors) in hash.words.anchors[pass * pairs..][..pairs].iter().enumerate() {
            let a = [load_pairs(&anchors[0]), load_pairs(&anchors[1])];
            for t in 0..T {
                // SAFETY: t < T and k < pairs ≤ stride.
                let x = _mm512_set1_epi32(unsafe { *words.get_unchecked(t * stride + k) });
                dots[t][0] = _mm512_dpwssd_epi32(dots[t][0], x, a[0]);
                dots[t][1] = _mm512_dpwssd_epi32(dots[t][1], x, a[1]);
            }
        }
        // exponent·(1 + ‖a‖²), a token's length being one, and what a product of words stands for.
        let (mut base, mut scales) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
        for h in 0..2 {
            base[h] = _mm512_mul_ps(_mm512_add_ps(_mm512_set1_ps(1.0), load(&norms[h])), e);
            scales[h] = _mm512_mul_ps(load(&hash.words.scales[pass][h]), e);
        }
        let mut kernels = [[0.0f32; ANCHORS]; T];
        for t in 0..T {
            for h in 0..2 {
                let z = _mm512_fmadd_ps(scales[h], _mm512_cvtepi32_ps(dots[t][h]), base[h]);
                let kernel = exp2_quick(_mm512_min_ps(z, _mm512_setzero_ps()));
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

/// 1/‖x‖ of every token, zero for a zero token, and Σ x̂ where it is asked for, in the order of the portable
/// form: blocks of tokens, which are read once. `false` where a squared length is not finite.
///
/// # Safety
/// Needs AVX-512 F, DQ, VL; `x` holds `inverse.len()` tokens of `dim` values, as many as `sum`.
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
pub(crate) unsafe fn directions(
    x: &[f32],
    dim: usize,
    inverse: &mut [f32],
    mut sum: Option<&mut [f32]>,
) -> bool {
    let mut fine = true;
    if let Some(sum) = &mut sum {
        sum.fill(0.0);
    }
    for (tokens, inverse) in x.chunks(SUM_BLOCK * dim).zip(inverse.chunks_mut(SUM_BLOCK)) {
        for (tokens, inverse) in tokens.chunks(16 * dim).zip(inverse.chunks_mut(16)) {
            fine &= normalisers(tokens, dim, inverse);
        }
        if let Some(sum) = &mut sum {
            add_directions(tokens, dim, inverse, sum);
        }
    }
    fine
}

/// 1/‖x‖ of up to sixteen tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn normalisers(tokens: &[f32], dim: usize, out: &mut [f32]) -> bool {
    let mut squares = [_mm512_setzero_ps(); 16];
    for (token, square) in tokens.chunks_exact(dim).zip(&mut squares) {
        *square = squared_lanes(token);
    }
    let s = fold(squares);
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
    let lanes = (0xffffu32 >> (16 - out.len())) as u16;
    // SAFETY: only lanes that `out` has are written.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), lanes, _mm512_maskz_mov_ps(normal, y)) };
    finite == 0xffff
}

/// Adds a block of tokens' directions to `sum`, 64 columns at a time in registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_directions(tokens: &[f32], dim: usize, inverse: &[f32], sum: &mut [f32]) {
    for (strip, sum) in sum.chunks_mut(64).enumerate() {
        let lanes: [u16; 4] = std::array::from_fn(|i| {
            let left = sum.len().saturating_sub(16 * i).min(16);
            ((1u32 << left) - 1) as u16
        });
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
            let to = sum.as_mut_ptr().wrapping_add(16 * i);
            // SAFETY: only lanes that `sum` has are read and written.
            unsafe {
                let total = _mm512_maskz_loadu_ps(lanes[i], to);
                _mm512_mask_storeu_ps(to, lanes[i], _mm512_add_ps(total, part[i]));
            }
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

/// The sums of the lanes of sixteen registers, one a lane: halves first, as the portable form folds them. Each
/// step halves two registers into one.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn fold(x: [__m512; 16]) -> __m512 {
    let mut eights = [_mm512_setzero_ps(); 8];
    for i in 0..8 {
        let (a, b) = (x[i], x[i + 8]);
        let (low, high) = (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
        eights[i] = _mm512_add_ps(low, high);
    }
    let mut fours = [_mm512_setzero_ps(); 4];
    for i in 0..4 {
        let (a, b) = (eights[i], eights[i + 4]);
        let (low, high) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        fours[i] = _mm512_add_ps(low, high);
    }
    let mut twos = [_mm512_setzero_ps(); 2];
    for i in 0..2 {
        let (a, b) = (fours[i], fours[i + 2]);
        let (low, high) = (_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b));
        twos[i] = _mm512_add_ps(low, high);
    }
    let (low, high) =
        (_mm512_shuffle_ps::<0x88>(twos[0], twos[1]), _mm512_shuffle_ps::<0xdd>(twos[0], twos[1]));
    let mixed = _mm512_add_ps(low, high);
    // Bits 0 and 1, 2 and 3 of a register's number have changed places.
    let places = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
    _mm512_permutexvar_ps(places, mixed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use undertone_core::binary::exp2_negative;

    /// What [`super::super::lanes::Slack`] counts on.
    #[test]
    fn powers_agree() {
        if Level::best() != Level::Avx512 {
            return;
        }
        let mut worst = 0f32;
        for i in 0..2_200_000 {
            let z: Floats = Floats(std::array::from_fn(|l| -((16 * i + l) as f32) / 262_144.0));
            let mut quick = Floats([0.0; 16]);
            // SAFETY: the level implies the instructions; sixteen floats are written.
            unsafe { _mm512_store_ps(quick.0.as_mut_ptr(), exp2_quick(load(&z))) };
            for (q, z) in quick.0.iter().zip(z.0) {
                worst = worst.max((q - exp2_negative(z)).abs());
            }
        }
        assert!(worst < 8.0 / 16_777_216.0, "{worst:e}");
    }
}
