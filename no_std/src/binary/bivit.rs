//! BiViT's softmax-aware binary attention in its Hamming-threshold form (He et al., "BiViT:
//! Extremely Compressed Binary Vision Transformer", arXiv 2211.07091, section 3.2).
//!
//! The paper binarizes a softmax row a with the threshold T = β·max a, β = 1/4. With Q, K ∈ {±1}
//! a score is (d − 2·h)/√d for the Hamming distance h, so
//!
//! a_j ≥ max a / 4 ⇔ exp(−2h_j/√d) ≥ exp(−2h_min/√d)/4 ⇔ h_j ≤ h_min + ln 4·√d/2,
//!
//! and distances being integers the margin is ⌊ln 2·√d⌋. No softmax, no float.

use super::fault::{self, BitFault};
use super::hamming::{MOST_BYTE_DIM, hamming};
use super::rows::BitRows;
use super::word::{Word, words_for};

/// The margin ⌊ln 2·√d⌋ of β = 1/4: key j is attended when h_j ≤ h_min + margin.
///
/// Exact in integers: the largest m with m² ≤ (ln 2)²·d.
///
/// ```
/// use undertone_core::binary::margin;
/// assert_eq!([16, 32, 64, 128].map(margin), [2, 3, 5, 7]);
/// ```
pub const fn margin(dim: usize) -> u32 {
    // (ln 2)² = 0.480453013918201424667…; m² is compared at 18 digits.
    const LN2_SQUARED: u128 = 480_453_013_918_201_424;
    let bound = LN2_SQUARED * dim as u128;
    let mut m: u32 = 0;
    while (m as u128 + 1) * (m as u128 + 1) * 1_000_000_000_000_000_000 <= bound {
        m += 1;
    }
    m
}

/// The attended keys of one query: writes `distances` (one per key) and the mask
/// h_j ≤ h_min + `margin` (`⌈keys/BITS⌉` words), and returns how many keys it holds (≥ 1).
/// Distances are bytes, or words where that is what there is.
///
/// # Errors
/// [`BitFault`] where widths or buffers disagree, without keys, or above [`MOST_BYTE_DIM`] columns.
pub fn attended<W: Word, D: Copy + From<u8> + Into<u32>>(
    query: &[W],
    keys: BitRows<'_, W>,
    margin: u32,
    distances: &mut [D],
    mask: &mut [W],
) -> Result<u32, BitFault> {
    const OP: &str = "attended keys";
    fault::some(OP, "the set of keys", keys.rows())?;
    fault::limit(OP, "the columns", MOST_BYTE_DIM, keys.dim())?;
    fault::size(OP, "the words of the query", keys.stride(), query.len())?;
    fault::size(OP, "the number of distances", keys.rows(), distances.len())?;
    fault::size(OP, "the words of the mask", words_for::<W>(keys.rows()), mask.len())?;
    let mut least = u8::MAX;
    for (j, d) in distances.iter_mut().enumerate() {
        let distance = hamming(query, keys.row(j)) as u8;
        *d = distance.into();
        least = least.min(distance);
    }
    let most = u32::from(least) + margin;
    let mut count = 0;
    for (block, word) in distances.chunks(W::BITS).zip(mask) {
        *word = W::ZERO;
        for (j, &d) in block.iter().enumerate() {
            if d.into() <= most {
                *word = *word | W::ONE << j as u32;
            }
        }
        count += word.ones();
    }
    Ok(count)
}

/// Caller's memory for one query of [`attend`].
#[derive(Debug)]
pub struct Scratch<'a, W> {
    /// One byte a key.
    pub distances: &'a mut [u8],
    /// `⌈keys/BITS⌉` words.
    pub mask: &'a mut [W],
}

/// BiViT attention on bits: `out[i·dv + c] = Σ_j a_ij·v_jc = 2·pop(a_i ∧ v_c) − pop(a_i)`, with
/// a ∈ {0,1} (the paper drops the scale) and V ∈ {±1} given transposed, one row a channel.
///
/// Its sign (zero counting as +1) is what a binary output projection reads.
///
/// # Errors
/// [`BitFault`] where shapes or buffers disagree, without keys, or above [`MOST_BYTE_DIM`] columns.
pub fn attend<W: Word>(
    q: BitRows<'_, W>,
    k: BitRows<'_, W>,
    v_transposed: BitRows<'_, W>,
    margin: u32,
    scratch: Scratch<'_, W>,
    out: &mut [i32],
) -> Result<(), BitFault> {
    const OP: &str = "binary attention";
    fault::size(OP, "the columns of the keys", q.dim(), k.dim())?;
    fault::size(OP, "the columns of transposed values", k.rows(), v_transposed.dim())?;
    let channels = v_transposed.rows();
    fault::some(OP, "the set of value channels", channels)?;
    fault::size(OP, "the number of outputs", q.rows() * channels, out.len())?;
    for (i, row) in out.chunks_exact_mut(channels).enumerate() {
        let count = attended(q.row(i), k, margin, scratch.distances, scratch.mask)? as i32;
        for (c, o) in row.iter_mut().enumerate() {
            let hit: u32 =
                scratch.mask.iter().zip(v_transposed.row(c)).map(|(&a, &v)| (a & v).ones()).sum();
            *o = 2 * hit as i32 - count;
        }
    }
    Ok(())
}
