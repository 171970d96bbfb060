//! AVX-512 with BITALG, VPOPCNTDQ and VNNI.

use crate::layout::{BLOCK, Line};
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
}

/// Packs signs, 16 values an instruction; `false` at a value that is not finite.
///
/// # Safety
/// Needs AVX-512 F, BW, DQ; `x` is a whole number of rows of `dim` and `out` has their words.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn pack(x: &[f32], dim: usize, out: &mut [u64]) -> bool {
    const NAN_OR_INFINITE: i32 = 0x01 | 0x80 | 0x08 | 0x10;
    let mut odd = 0;
    for (row, words) in x.chunks_exact(dim).zip(out.chunks_exact_mut(dim.div_ceil(64))) {
        for (values, word) in row.chunks(64).zip(words) {
            let mut bits = 0u64;
            for (i, part) in values.chunks(16).enumerate() {
                let lanes = (0xffffu32 >> (16 - part.len())) as u16;
                // SAFETY: only the lanes of `part` are read.
                let v = unsafe { _mm512_maskz_loadu_ps(lanes, part.as_ptr()) };
                odd |= _mm512_fpclass_ps_mask::<NAN_OR_INFINITE>(v);
                let positive = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(lanes, v, _mm512_setzero_ps());
                bits |= u64::from(positive) << (16 * i);
            }
            *word = bits;
        }
    }
    odd == 0
}

/// Distances of two queries to all keys, and each query's least.
///
/// `queries` holds each query's bytes; `distances` has one line a block, tails 255.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bitalg,avx512vpopcntdq")]
fn distances<const P: usize>(
    queries: [&[u8]; 2],
    keys: &[Line],
    tail: u64,
    distances: [&mut [Line]; 2],
) -> [u8; 2] {
    let mut wide = [[_mm512_setzero_si512(); P]; 2];
    for i in 0..2 {
        for (w, &b) in wide[i].iter_mut().zip(queries[i]) {
            *w = _mm512_set1_epi8(b as i8);
        }
    }
    let [qa, qb] = wide;
    let [da, db] = distances;
    let mut least = [_mm512_set1_epi8(-1); 2];
    let last = da.len() - 1;
    for (i, block) in keys.chunks_exact(P).enumerate() {
        let (mut a, mut b) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for p in 0..P {
            let key = load(&block[p]);
            a = _mm512_add_epi8(a, _mm512_popcnt_epi8(_mm512_xor_si512(key, qa[p])));
            b = _mm512_add_epi8(b, _mm512_popcnt_epi8(_mm512_xor_si512(key, qb[p])));
        }
        if i == last {
            let far = _mm512_set1_epi8(-1);
            a = _mm512_mask_mov_epi8(far, tail, a);
            b = _mm512_mask_mov_epi8(far, tail, b);
        }
        // SAFETY: lines are aligned, 64 bytes each.
        unsafe {
            _mm512_store_si512(std::ptr::from_mut(&mut da[i]).cast(), a);
            _mm512_store_si512(std::ptr::from_mut(&mut db[i]).cast(), b);
        }
        least = [_mm512_min_epu8(least[0], a), _mm512_min_epu8(least[1], b)];
    }
    [least_byte(least[0]), least_byte(least[1])]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn least_byte(x: __m512i) -> u8 {
    let half = _mm256_min_epu8(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x));
    let quarter = _mm_min_epu8(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    // The least of 16 bytes as the least of 8 words, each the lesser of two bytes.
    let words = _mm_min_epu8(quarter, _mm_srli_epi16::<8>(quarter));
    _mm_extract_epi16::<0>(_mm_minpos_epu16(_mm_and_si128(words, _mm_set1_epi16(0xff)))) as u8
}

/// [`distances`] for any number of planes: widths of common heads are unrolled.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bitalg,avx512vpopcntdq")]
fn distances_any(
    planes: usize,
    queries: [&[u8]; 2],
    keys: &[Line],
    tail: u64,
    out: [&mut [Line]; 2],
) -> [u8; 2] {
    macro_rules! unrolled {
        ($($p:literal)*) => {
            match planes {
                $($p => distances::<$p>(queries, keys, tail, out),)*
                _ => unreachable!("byte distances have 1 to 32 planes"),
            }
        };
    }
    unrolled!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32)
}

/// Distances of queries to keys, two queries a pass, and what to do with each pair of rows.
///
/// # Safety
/// Needs AVX-512 F, BW, VL, BITALG, VPOPCNTDQ.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bitalg,avx512vpopcntdq")]
pub(crate) unsafe fn hamming_rows(
    queries: &[u64],
    stride: usize,
    keys: &crate::Planes,
    room: &mut [Line],
    mut each: impl FnMut(usize, &[Line], u8),
) {
    let blocks = keys.keys.div_ceil(BLOCK);
    let tail = u64::MAX >> (blocks * BLOCK - keys.keys);
    let (ra, rb) = room.split_at_mut(blocks);
    let rows = queries.len() / stride;
    let bytes = |i: usize| {
        let words = &queries[i * stride..(i + 1) * stride];
        // SAFETY: words are plain bytes, eight each (little-endian on x86).
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), 8 * stride) }
    };
    for i in (0..rows).step_by(2) {
        let j = (i + 1).min(rows - 1);
        let least = distances_any(
            keys.planes,
            [bytes(i), bytes(j)],
            &keys.lines,
            tail,
            [&mut *ra, &mut *rb],
        );
        each(i, ra, least[0]);
        if j > i {
            each(j, rb, least[1]);
        }
    }
}

/// The mask of keys within `most`, one word a block, and how many there are.
///
/// # Safety
/// Needs AVX-512 F, BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,popcnt")]
pub(crate) unsafe fn within(distances: &[Line], most: u8, tail: u64, mask: &mut [u64]) -> u32 {
    let most = _mm512_set1_epi8(most as i8);
    let last = mask.len() - 1;
    let mut count = 0;
    for (i, (line, word)) in distances.iter().zip(mask.iter_mut()).enumerate() {
        *word = _mm512_cmple_epu8_mask(load(line), most);
        if i == last {
            *word &= tail;
        }
        count += word.count_ones();
    }
    count
}

/// Σ_w pop(x_w ∧ slice) (or ⊕) for two vectors against G groups of eight rows.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
fn counts<const G: usize, const XOR: bool>(
    x: [&[u64]; 2],
    lines: &[Line],
    groups: usize,
    at: usize,
) -> [[__m256i; G]; 2] {
    let mut sums = [[_mm512_setzero_si512(); G]; 2];
    for (w, (&a, &b)) in x[0].iter().zip(x[1]).enumerate() {
        let a = _mm512_set1_epi64(a as i64);
        let b = _mm512_set1_epi64(b as i64);
        let row = &lines[w * groups + at..][..G];
        for g in 0..G {
            let s = load(&row[g]);
            let (ca, cb) = if XOR {
                (_mm512_xor_si512(a, s), _mm512_xor_si512(b, s))
            } else {
                (_mm512_and_si512(a, s), _mm512_and_si512(b, s))
            };
            sums[0][g] = _mm512_add_epi64(sums[0][g], _mm512_popcnt_epi64(ca));
            sums[1][g] = _mm512_add_epi64(sums[1][g], _mm512_popcnt_epi64(cb));
        }
    }
    // Plain loops, here and below: a closure handed to `array::map` may stay a call, which costs more
    // than the counting of a short row.
    let mut narrow = [[_mm256_setzero_si256(); G]; 2];
    for i in 0..2 {
        for g in 0..G {
            narrow[i][g] = _mm512_cvtepi64_epi32(sums[i][g]);
        }
    }
    narrow
}

/// Popcounts of two vectors against all rows of `slices`: `out[i][r] = factor·count + base[i]`.
///
/// # Safety
/// Needs AVX-512 F, VL, VPOPCNTDQ; each `out` has one place a row, each `x` one word a slice.
#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
pub(crate) unsafe fn count_rows<const XOR: bool>(
    x: [&[u64]; 2],
    slices: &crate::Slices,
    factor: i32,
    base: [i32; 2],
    out: [&mut [i32]; 2],
) {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    fn put(v: __m256i, factor: i32, base: i32, out: &mut [i32]) {
        let y = _mm256_mullo_epi32(v, _mm256_set1_epi32(factor));
        let y = _mm256_add_epi32(y, _mm256_set1_epi32(base));
        let lanes = (0xffu32 >> (8 - out.len().min(8))) as u8;
        // SAFETY: only lanes that `out` has are written.
        unsafe { _mm256_mask_storeu_epi32(out.as_mut_ptr(), lanes, y) }
    }
    let [oa, ob] = out;
    let mut at = 0;
    while at < slices.groups {
        let g = (slices.groups - at).min(8);
        macro_rules! unrolled {
            ($($g:literal)*) => {
                match g {
                    $($g => {
                        let sums = counts::<$g, XOR>(x, &slices.lines, slices.groups, at);
                        for i in 0..$g {
                            let from = 8 * (at + i);
                            put(sums[0][i], factor, base[0], &mut oa[from..]);
                            put(sums[1][i], factor, base[1], &mut ob[from..]);
                        }
                    })*
                    _ => unreachable!("one to eight groups a pass"),
                }
            };
        }
        unrolled!(1 2 3 4 5 6 7 8);
        at += g;
    }
}

/// Each bit of a word in a byte of a line.
///
/// # Safety
/// Needs AVX-512 F, BW; `lines` has one place a word.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) unsafe fn spread(words: &[u64], lines: &mut [Line]) {
    for (&word, line) in words.iter().zip(lines) {
        let bytes = _mm512_maskz_set1_epi8(word, 1);
        // SAFETY: a line is 64 bytes, aligned to 64.
        unsafe { _mm512_store_si512(std::ptr::from_mut(line).cast(), bytes) };
    }
}

/// `out[c] = 2·Σ_j v_jc − count` over the rows j of `mask`, `v` in bytes 0 and 1: row after row, 64
/// columns a register.
///
/// The rows are listed first: a walk over the bits of sparse words would be mispredicted at every
/// word's end.
///
/// # Safety
/// Needs AVX-512 F, BW, VBMI2; `values` has a row for every bit of `mask` that is set, fewer than 2¹⁶
/// in all, and at least `out.len()` columns; `list` has 64 places a word of `mask`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
pub(crate) unsafe fn sum_rows(
    mask: &[u64],
    values: &crate::layout::Bytes,
    count: u32,
    list: &mut [u16],
    out: &mut [i32],
) {
    const COUNTING: [u8; 64] = {
        let mut bytes = [0; 64];
        let mut i = 0;
        while i < 64 {
            bytes[i] = i as u8;
            i += 1;
        }
        bytes
    };
    // SAFETY: 64 bytes.
    let counting = unsafe { _mm512_loadu_si512(COUNTING.as_ptr().cast()) };
    assert!(list.len() >= 64 * mask.len(), "64 places a word");
    let mut at = 0;
    for (w, &word) in mask.iter().enumerate() {
        let packed = _mm512_maskz_compress_epi8(word, counting);
        let base = (64 * w) as u16 as i16;
        let ones = word.count_ones() as usize;
        let to = list.as_mut_ptr().wrapping_add(at);
        // Most words have few rows, and a short store seldom crosses a line.
        let first = _mm256_cvtepu8_epi16(_mm512_castsi512_si128(packed));
        // SAFETY: before word w at most 64·w rows were listed, so 64 places are left.
        unsafe {
            _mm256_storeu_si256(to.cast(), _mm256_add_epi16(first, _mm256_set1_epi16(base)));
        }
        if ones > 16 {
            let base = _mm512_set1_epi16(base);
            let low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(packed));
            let high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64::<1>(packed));
            // SAFETY: as above.
            unsafe {
                _mm512_storeu_si512(to.cast(), _mm512_add_epi16(low, base));
                _mm512_storeu_si512(to.wrapping_add(32).cast(), _mm512_add_epi16(high, base));
            }
        }
        at += ones;
    }
    let each = values.each;
    for (l, out) in out.chunks_mut(64).enumerate() {
        let mut wide = [_mm512_setzero_si512(); 4];
        // A byte holds 255 rows.
        for rows in list[..at].chunks(255) {
            let mut bytes = _mm512_setzero_si512();
            for &j in rows {
                // SAFETY: the caller's: listed rows exist.
                let row = unsafe { values.lines.get_unchecked(usize::from(j) * each + l) };
                bytes = _mm512_add_epi8(bytes, load(row));
            }
            widen(bytes, &mut wide);
        }
        for (part, out) in wide.into_iter().zip(out.chunks_mut(16)) {
            let y = _mm512_sub_epi32(_mm512_add_epi32(part, part), _mm512_set1_epi32(count as i32));
            let lanes = (0xffffu32 >> (16 - out.len())) as u16;
            // SAFETY: only lanes that `out` has are written.
            unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr(), lanes, y) };
        }
    }
}

/// Adds 64 bytes to 64 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn widen(bytes: __m512i, wide: &mut [__m512i; 4]) {
    wide[0] =
        _mm512_add_epi32(wide[0], _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32::<0>(bytes)));
    wide[1] =
        _mm512_add_epi32(wide[1], _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32::<1>(bytes)));
    wide[2] =
        _mm512_add_epi32(wide[2], _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32::<2>(bytes)));
    wide[3] =
        _mm512_add_epi32(wide[3], _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32::<3>(bytes)));
}

/// Σ ±x for 16 channels a register: the signed sums of four activations stand in a register's
/// sixteen lanes, and each channel's nibble of signs picks its own.
///
/// # Safety
/// Needs AVX-512 F; `signs` holds `blocks` columns of 32 inputs' signs for each 32 of `x`, and `out`
/// at most 16 · `blocks` places.
#[target_feature(enable = "avx512f,avx512vl,avx512dq")]
pub(crate) unsafe fn signed_sums(x: &[f32], signs: &[[u32; 16]], blocks: usize, out: &mut [f32]) {
    // Eight blocks at a time hide the additions' latency.
    const TOGETHER: usize = 8;
    // Lane l adds activation i where bit i of l is set and subtracts it elsewhere: the sign bit to
    // flip, per activation.
    let flips: [__m512i; 4] = std::array::from_fn(|i| {
        let lanes: [i32; 16] = std::array::from_fn(|l| if l >> i & 1 == 1 { 0 } else { i32::MIN });
        // SAFETY: sixteen words are 64 bytes.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    });
    for first in (0..blocks).step_by(TOGETHER) {
        let together = TOGETHER.min(blocks - first);
        let mut sums = [_mm512_setzero_ps(); TOGETHER];
        for (w, group) in x.chunks(32).enumerate() {
            let mut words = [_mm512_setzero_si512(); TOGETHER];
            for (b, word) in words.iter_mut().enumerate().take(together) {
                // SAFETY: sixteen words are 64 bytes.
                *word =
                    unsafe { _mm512_loadu_si512(signs[w * blocks + first + b].as_ptr().cast()) };
            }
            for four in group.chunks(4) {
                let mut table = _mm512_setzero_ps();
                for (&v, flip) in four.iter().zip(flips) {
                    let v = _mm512_castps_si512(_mm512_set1_ps(v));
                    table = _mm512_add_ps(table, _mm512_castsi512_ps(_mm512_xor_si512(v, flip)));
                }
                for b in 0..TOGETHER {
                    sums[b] = _mm512_add_ps(sums[b], _mm512_permutexvar_ps(words[b], table));
                    words[b] = _mm512_srli_epi32::<4>(words[b]);
                }
            }
        }
        for (b, sum) in sums.into_iter().enumerate().take(together) {
            let Some(to) = out.get_mut(16 * (first + b)..) else { return };
            let lanes = (0xffffu32 >> (16 - to.len().min(16))) as u16;
            // SAFETY: only lanes that `to` has are written.
            unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), lanes, sum) };
        }
    }
}
