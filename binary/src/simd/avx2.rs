//! AVX2: a byte's popcount is two look-ups of its nibbles (Muła, Kurz, Lemire 2018).

use crate::layout::{BLOCK, Line};
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx2")]
fn halves(line: &Line) -> [__m256i; 2] {
    let at = std::ptr::from_ref(line).cast::<__m256i>();
    // SAFETY: a line is two aligned 32-byte halves.
    unsafe { [_mm256_load_si256(at), _mm256_load_si256(at.add(1))] }
}

#[inline]
#[target_feature(enable = "avx2")]
fn popcount_bytes(x: __m256i) -> __m256i {
    let table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3,
        3, 4,
    );
    let low = _mm256_set1_epi8(15);
    let lo = _mm256_and_si256(x, low);
    let hi = _mm256_and_si256(_mm256_srli_epi16::<4>(x), low);
    _mm256_add_epi8(_mm256_shuffle_epi8(table, lo), _mm256_shuffle_epi8(table, hi))
}

/// Distances of queries to keys, and what to do with each row.
///
/// # Safety
/// Needs AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn hamming_rows(
    queries: &[u64],
    stride: usize,
    keys: &crate::Planes,
    room: &mut [Line],
    mut each: impl FnMut(usize, &[Line], u8),
) {
    let blocks = keys.keys.div_ceil(BLOCK);
    let room = &mut room[..blocks];
    for (i, words) in queries.chunks_exact(stride).enumerate() {
        let mut least = _mm256_set1_epi8(-1);
        for (b, (block, out)) in keys.lines.chunks_exact(keys.planes).zip(&mut *room).enumerate() {
            let mut sums = [_mm256_setzero_si256(); 2];
            for (p, line) in block.iter().enumerate() {
                let query = _mm256_set1_epi8((words[p / 8] >> (8 * (p % 8))) as i8);
                for (sum, key) in sums.iter_mut().zip(halves(line)) {
                    *sum = _mm256_add_epi8(*sum, popcount_bytes(_mm256_xor_si256(key, query)));
                }
            }
            let at = std::ptr::from_mut(out).cast::<__m256i>();
            // SAFETY: a line is two aligned 32-byte halves.
            unsafe {
                _mm256_store_si256(at, sums[0]);
                _mm256_store_si256(at.add(1), sums[1]);
            }
            if b + 1 == blocks {
                for j in keys.keys - b * BLOCK..BLOCK {
                    out.0[j / 8] |= 0xff << (8 * (j % 8));
                }
                sums = halves(out);
            }
            least = _mm256_min_epu8(least, _mm256_min_epu8(sums[0], sums[1]));
        }
        let half =
            _mm_min_epu8(_mm256_castsi256_si128(least), _mm256_extracti128_si256::<1>(least));
        let words = _mm_min_epu8(half, _mm_srli_epi16::<8>(half));
        let words = _mm_and_si128(words, _mm_set1_epi16(0xff));
        each(i, room, _mm_extract_epi16::<0>(_mm_minpos_epu16(words)) as u8);
    }
}

/// The mask of keys within `most`, one word a block, and how many there are.
///
/// # Safety
/// Needs AVX2.
#[target_feature(enable = "avx2,popcnt")]
pub(crate) unsafe fn within(distances: &[Line], most: u8, tail: u64, mask: &mut [u64]) -> u32 {
    let most = _mm256_set1_epi8(most as i8);
    let last = mask.len() - 1;
    let mut count = 0;
    for (i, (line, word)) in distances.iter().zip(mask.iter_mut()).enumerate() {
        let [lo, hi] = halves(line).map(|d| {
            let near = _mm256_cmpeq_epi8(_mm256_min_epu8(d, most), d);
            u64::from(_mm256_movemask_epi8(near) as u32)
        });
        *word = lo | hi << 32;
        if i == last {
            *word &= tail;
        }
        count += word.count_ones();
    }
    count
}

/// Popcounts of a vector against all rows of `slices`: `out[r] = factor·count + base`.
///
/// # Safety
/// Needs AVX2; `out` has one place a row, `x` one word a slice.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn count_row<const XOR: bool>(
    x: &[u64],
    slices: &crate::Slices,
    factor: i32,
    base: i32,
    out: &mut [i32],
) {
    for (group, out) in out.chunks_mut(8).enumerate() {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (w, &word) in x.iter().enumerate() {
            let word = _mm256_set1_epi64x(word as i64);
            let line = halves(&slices.lines[w * slices.groups + group]);
            for (sum, s) in sums.iter_mut().zip(line) {
                let both = if XOR { _mm256_xor_si256(word, s) } else { _mm256_and_si256(word, s) };
                let bytes = _mm256_sad_epu8(popcount_bytes(both), _mm256_setzero_si256());
                *sum = _mm256_add_epi64(*sum, bytes);
            }
        }
        let mut counts = [0u64; 8];
        for (four, sum) in counts.chunks_exact_mut(4).zip(sums) {
            // SAFETY: four words are 32 bytes.
            unsafe { _mm256_storeu_si256(four.as_mut_ptr().cast(), sum) }
        }
        for (o, c) in out.iter_mut().zip(counts) {
            *o = factor * c as i32 + base;
        }
    }
}
