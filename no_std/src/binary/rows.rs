//! A matrix of sign bits in words.

use super::fault::{self, BitFault};
use super::word::{Word, words_for};

/// A borrowed matrix of signs: `rows` × `dim`, row-major, each row starting at a word.
///
/// A set bit is +1 and a clear bit −1. Bits beyond a row's last column are clear: two rows are
/// equal exactly when their words are, and a distance needs no mask.
///
/// ```
/// use undertone_core::binary::{BitRows, pack_signs};
/// let mut words = [0u32; 2];
/// pack_signs(&[0.5, -1.0, 0.0, -0.0, 2.0, -3.0], 3, &mut words).unwrap();
/// let bits = BitRows::new(&words, 2, 3).unwrap();
/// assert_eq!((bits.get(0, 0), bits.get(0, 1), bits.get(0, 2)), (true, false, true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRows<'a, W> {
    words: &'a [W],
    rows: usize,
    dim: usize,
    stride: usize,
}

impl<'a, W: Word> BitRows<'a, W> {
    /// Views `words` as `rows` × `dim` signs.
    ///
    /// # Errors
    /// [`BitFault::Size`] unless there are exactly `rows · ⌈dim/BITS⌉` words,
    /// [`BitFault::Tail`] where a bit beyond column `dim` is set, [`BitFault::Empty`] for `dim = 0`.
    pub fn new(words: &'a [W], rows: usize, dim: usize) -> Result<Self, BitFault> {
        const OP: &str = "bit rows";
        fault::some(OP, "a row", dim)?;
        let stride = words_for::<W>(dim);
        fault::size(OP, "the number of words", rows.saturating_mul(stride), words.len())?;
        let tail = !W::low(dim - (stride - 1) * W::BITS);
        let dirty = words.chunks_exact(stride).position(|row| row[stride - 1] & tail != W::ZERO);
        match dirty {
            Some(row) => Err(BitFault::Tail { operation: OP, row, dim }),
            None => Ok(Self { words, rows, dim, stride }),
        }
    }

    /// The number of rows (tokens, output channels).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of signs in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Words in a row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All words, row after row.
    pub fn words(&self) -> &'a [W] {
        self.words
    }

    /// The words of row `i`. Panics outside the matrix, as slices do.
    pub fn row(&self, i: usize) -> &'a [W] {
        &self.words[i * self.stride..(i + 1) * self.stride]
    }

    /// Whether the sign in row `i`, column `j` is +1. Panics outside the matrix, as slices do.
    pub fn get(&self, i: usize, j: usize) -> bool {
        assert!(j < self.dim, "column {j} of {}", self.dim);
        self.row(i)[j / W::BITS] >> (j % W::BITS) as u32 & W::ONE != W::ZERO
    }

    /// Writes the transposed matrix, `dim` rows of `rows` signs, into `out`.
    ///
    /// # Errors
    /// [`BitFault::Size`] unless `out` holds `dim · ⌈rows/BITS⌉` words.
    pub fn transpose(&self, out: &mut [W]) -> Result<(), BitFault> {
        let stride = words_for::<W>(self.rows);
        fault::size("transpose", "the number of words", self.dim * stride, out.len())?;
        out.fill(W::ZERO);
        for i in 0..self.rows {
            let (at, bit) = (i / W::BITS, (i % W::BITS) as u32);
            let row = self.row(i);
            for j in 0..self.dim {
                let sign = row[j / W::BITS] >> (j % W::BITS) as u32 & W::ONE;
                out[j * stride + at] = out[j * stride + at] | sign << bit;
            }
        }
        Ok(())
    }
}

/// Packs the signs of `x`, rows of `dim` values, into `out`: bit 1 for x ≥ 0, so sign(±0) = +1.
///
/// The released code of EcoFormer and BiViT uses a sign with sign(0) = 0, which is not a bit;
/// zero counts as positive here.
///
/// # Errors
/// [`BitFault::Size`] unless `x` is a whole number of rows and `out` holds them,
/// [`BitFault::NotFinite`] for NaN and infinities, [`BitFault::Empty`] for `dim = 0`.
pub fn pack_signs<W: Word>(x: &[f32], dim: usize, out: &mut [W]) -> Result<(), BitFault> {
    const OP: &str = "pack signs";
    fault::some(OP, "a row", dim)?;
    let rows = x.len() / dim;
    fault::size(OP, "the number of values", rows * dim, x.len())?;
    let stride = words_for::<W>(dim);
    fault::size(OP, "the number of words", rows * stride, out.len())?;
    fault::finite(OP, x)?;
    for (row, words) in x.chunks_exact(dim).zip(out.chunks_exact_mut(stride)) {
        for (values, word) in row.chunks(W::BITS).zip(words) {
            *word = W::ZERO;
            for (i, &v) in values.iter().enumerate() {
                if v >= 0.0 {
                    *word = *word | W::ONE << i as u32;
                }
            }
        }
    }
    Ok(())
}

/// Writes the signs of `bits` as ±1, row-major.
///
/// # Errors
/// [`BitFault::Size`] unless `out` holds `rows · dim` values.
pub fn unpack_signs<W: Word>(bits: BitRows<'_, W>, out: &mut [f32]) -> Result<(), BitFault> {
    fault::size("unpack signs", "the number of values", bits.rows() * bits.dim(), out.len())?;
    for (i, values) in out.chunks_exact_mut(bits.dim()).enumerate() {
        for (j, v) in values.iter_mut().enumerate() {
            *v = if bits.get(i, j) { 1.0 } else { -1.0 };
        }
    }
    Ok(())
}
