//! Owned sign bits, and their two ways in and out: floats and `bitvec`.

use bitvec::order::Lsb0;
use bitvec::slice::BitSlice;
use bitvec::vec::BitVec;
use undertone_core::binary::{self as core, BitFault, BitRows, words_for};

/// An owned matrix of signs in `u64` words, rows starting at a word, tails clear.
///
/// `bitvec` is for the edge of the interface and for tests: walking its bits costs three orders of
/// magnitude more than words do, so kernels take [`Signs::view`].
///
/// ```
/// use undertone_binary::Signs;
/// let signs = Signs::pack(&[0.5, -1.0, 2.0, -0.1, -3.0, 0.0], 3)?;
/// assert_eq!(signs.unpack(), [1.0, -1.0, 1.0, -1.0, -1.0, 1.0]);
/// assert_eq!(Signs::from_bits(&signs.to_bits(), 3)?, signs);
/// # Ok::<(), undertone_core::binary::BitFault>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signs {
    words: Vec<u64>,
    rows: usize,
    dim: usize,
}

impl Signs {
    /// The signs of `x`, rows of `dim` values; zero counts as +1.
    ///
    /// # Errors
    /// [`BitFault`] for a broken last row, `dim = 0`, NaN and infinities.
    pub fn pack(x: &[f32], dim: usize) -> Result<Self, BitFault> {
        let stride = words_for::<u64>(dim);
        let rows = x.len().checked_div(dim).unwrap_or(0);
        let mut words = vec![0; rows * stride];
        if dim > 0 && crate::simd::pack(x, dim, &mut words) {
            return Ok(Self { words, rows, dim });
        }
        core::pack_signs(x, dim, &mut words)?;
        Ok(Self { words, rows, dim })
    }

    /// Takes ready words, `⌈dim/64⌉` a row.
    ///
    /// # Errors
    /// [`BitFault`] for a wrong count, a dirty tail or `dim = 0`.
    pub fn from_words(words: Vec<u64>, rows: usize, dim: usize) -> Result<Self, BitFault> {
        BitRows::new(&words, rows, dim)?;
        Ok(Self { words, rows, dim })
    }

    /// Rows of `dim` bits out of one run of bits.
    ///
    /// # Errors
    /// [`BitFault::Size`] unless the run is a whole number of rows, [`BitFault::Empty`] for `dim = 0`.
    pub fn from_bits(bits: &BitSlice<u64, Lsb0>, dim: usize) -> Result<Self, BitFault> {
        if dim == 0 {
            return Err(BitFault::Empty { operation: "signs from bits", what: "a row" });
        }
        let rows = bits.len() / dim;
        if rows * dim != bits.len() {
            return Err(BitFault::Size {
                operation: "signs from bits",
                what: "the number of bits",
                expected: rows * dim,
                got: bits.len(),
            });
        }
        let mut words = vec![0; rows * words_for::<u64>(dim)];
        for (row, out) in bits.chunks_exact(dim).zip(words.chunks_exact_mut(words_for::<u64>(dim)))
        {
            for j in row.iter_ones() {
                out[j / 64] |= 1 << (j % 64);
            }
        }
        Ok(Self { words, rows, dim })
    }

    /// All signs as one run of bits, `rows · dim` long, without the rows' tails.
    pub fn to_bits(&self) -> BitVec<u64, Lsb0> {
        let mut bits = BitVec::with_capacity(self.rows * self.dim);
        for row in self.words.chunks_exact(words_for::<u64>(self.dim)) {
            bits.extend_from_bitslice(&BitSlice::<u64, Lsb0>::from_slice(row)[..self.dim]);
        }
        bits
    }

    /// The signs as ±1, row-major.
    pub fn unpack(&self) -> Vec<f32> {
        let view = self.view();
        (0..self.rows)
            .flat_map(|i| (0..self.dim).map(move |j| if view.get(i, j) { 1.0 } else { -1.0 }))
            .collect()
    }

    /// The matrix as kernels want it.
    pub fn view(&self) -> BitRows<'_, u64> {
        BitRows::new(&self.words, self.rows, self.dim).expect("every constructor checked the words")
    }

    /// The transposed matrix: `dim` rows of `rows` signs.
    ///
    /// # Errors
    /// [`BitFault::Empty`] without rows: a row of no signs is no row.
    pub fn transposed(&self) -> Result<Self, BitFault> {
        if self.rows == 0 {
            return Err(BitFault::Empty { operation: "transpose", what: "the set of rows" });
        }
        let mut words = vec![0; self.dim * words_for::<u64>(self.rows)];
        self.view().transpose(&mut words)?;
        Ok(Self { words, rows: self.dim, dim: self.rows })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Signs in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All words, row after row.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}
