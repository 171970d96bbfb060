//! Sign bits arranged for vector units: byte planes for distances, word slices for counts.

use undertone_core::binary::{BitFault, BitRows, MOST_BYTE_DIM};

/// One cache line, which is one 512-bit register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line(pub [u64; 8]);

impl Line {
    /// All bits clear.
    pub const ZERO: Self = Self([0; 8]);
}

/// Keys of a line of byte planes.
pub const BLOCK: usize = 64;

/// Keys in byte planes: blocks of 64 keys, in each one line for every 8 columns, whose byte j
/// holds those columns of key j.
///
/// A byte-wise popcount of `plane ⊕ query` then leaves 64 distances as bytes in key order, and no
/// width of head wastes lanes.
#[derive(Clone, Debug)]
pub struct Planes {
    pub(crate) lines: Vec<Line>,
    pub(crate) planes: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
}

impl Planes {
    /// Rearranges `keys`, at most 255 columns.
    ///
    /// # Errors
    /// [`BitFault::Limit`] above 255 columns.
    pub fn new(keys: BitRows<'_, u64>) -> Result<Self, BitFault> {
        if keys.dim() > MOST_BYTE_DIM {
            return Err(BitFault::Limit {
                operation: "byte planes",
                what: "the columns",
                most: MOST_BYTE_DIM,
                got: keys.dim(),
            });
        }
        let planes = keys.dim().div_ceil(8);
        let mut lines = vec![Line::ZERO; keys.rows().div_ceil(BLOCK) * planes];
        // Eight keys at a time: an 8 × 8 byte transposition per word of columns.
        for first in (0..keys.rows()).step_by(8) {
            let (block, lane) = (first / BLOCK, first % BLOCK / 8);
            for w in 0..keys.stride() {
                let mut square = [0u64; 8];
                for (r, s) in square.iter_mut().enumerate().take(keys.rows() - first) {
                    *s = keys.row(first + r)[w];
                }
                transpose_bytes(&mut square);
                for (p, &bytes) in square.iter().enumerate().take(planes - 8 * w) {
                    lines[block * planes + 8 * w + p].0[lane] = bytes;
                }
            }
        }
        Ok(Self { lines, planes, keys: keys.rows(), dim: keys.dim() })
    }

    /// The number of keys.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Signs in a key.
    pub fn dim(&self) -> usize {
        self.dim
    }
}

/// Transposes 8 × 8 bytes, byte j of word i with byte i of word j.
fn transpose_bytes(m: &mut [u64; 8]) {
    for (step, mask) in
        [(4usize, 0x0000_0000_ffff_ffffu64), (2, 0x0000_ffff_0000_ffff), (1, 0x00ff_00ff_00ff_00ff)]
    {
        for i in (0..8).filter(|i| i & step == 0) {
            let (a, b) = (m[i], m[i + step]);
            let shift = 8 * step as u32;
            m[i] = a & mask | (b & mask) << shift;
            m[i + step] = a >> shift & mask | b & !mask;
        }
    }
}

/// Rows of signs in word slices: word w of 64 columns for all rows side by side, eight rows a line.
///
/// Popcounts of `slice ∧ x` or `slice ⊕ x` then accumulate one row a lane, without a horizontal
/// sum. Values of an attention (transposed) and weights of a binary layer live so.
#[derive(Clone, Debug)]
pub struct Slices {
    pub(crate) lines: Vec<Line>,
    pub(crate) groups: usize,
    pub(crate) rows: usize,
    pub(crate) dim: usize,
}

impl Slices {
    /// Rearranges `rows` × `dim` signs.
    pub fn new(signs: BitRows<'_, u64>) -> Self {
        let groups = signs.rows().div_ceil(8);
        let mut lines = vec![Line::ZERO; signs.stride() * groups];
        for r in 0..signs.rows() {
            for (w, &word) in signs.row(r).iter().enumerate() {
                lines[w * groups + r / 8].0[r % 8] = word;
            }
        }
        Self { lines, groups, rows: signs.rows(), dim: signs.dim() }
    }

    /// The slices of the transposed matrix, without forming it: `signs` is tokens × channels, the
    /// result has one row a channel.
    pub fn transposed(signs: BitRows<'_, u64>) -> Self {
        let groups = signs.dim().div_ceil(8);
        let words = signs.rows().div_ceil(64);
        let mut lines = vec![Line::ZERO; words * groups];
        let mut square = [0u64; 64];
        for first in (0..signs.rows()).step_by(64) {
            for w in 0..signs.stride() {
                for (r, s) in square.iter_mut().enumerate() {
                    *s = if first + r < signs.rows() { signs.row(first + r)[w] } else { 0 };
                }
                transpose_bits(&mut square);
                let at = first / 64 * groups + 8 * w;
                for (line, eight) in
                    lines[at..].iter_mut().zip(square.chunks_exact(8)).take(groups - 8 * w)
                {
                    line.0.copy_from_slice(eight);
                }
            }
        }
        Self { lines, groups, rows: signs.dim(), dim: signs.rows() }
    }

    /// The number of rows (channels).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Signs in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }
}

/// Rows of signs as bytes 0 and 1, 64 columns a line: a few rows are added up faster as bytes than
/// all are counted as bits.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    pub(crate) lines: Vec<Line>,
    /// Lines a row.
    pub(crate) each: usize,
}

/// Transposes 64 × 64 bits, bit j of word i with bit i of word j.
fn transpose_bits(m: &mut [u64; 64]) {
    let mut step = 32;
    let mut mask = 0x0000_0000_ffff_ffffu64;
    while step > 0 {
        let mut i = 0;
        while i < 64 {
            let (a, b) = (m[i], m[i + step]);
            let swap = (a >> step ^ b) & mask;
            m[i] = a ^ swap << step;
            m[i + step] = b ^ swap;
            i = (i + step + 1) & !step;
        }
        step /= 2;
        mask ^= mask << step;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Signs;
    use rand::{Rng, SeedableRng};

    fn random(rows: usize, dim: usize) -> Signs {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64((rows * 1000 + dim) as u64);
        let x: Vec<f32> = (0..rows * dim).map(|_| rng.random_range(-1.0..1.0)).collect();
        Signs::pack(&x, dim).unwrap()
    }

    #[test]
    fn planes_hold_every_sign() {
        for (rows, dim) in [(1, 1), (7, 16), (64, 64), (65, 100), (130, 255)] {
            let signs = random(rows, dim);
            let planes = Planes::new(signs.view()).unwrap();
            for i in 0..rows {
                for j in 0..dim {
                    let line = planes.lines[i / 64 * planes.planes + j / 8].0;
                    let byte = line[i % 64 / 8] >> (8 * (i % 8)) & 0xff;
                    assert_eq!(byte >> (j % 8) & 1 == 1, signs.view().get(i, j), "{rows}×{dim}");
                }
            }
        }
    }

    #[test]
    fn slices_of_a_transpose_are_the_transpose_of_slices() {
        for (rows, dim) in [(1, 1), (64, 64), (49, 16), (196, 64), (70, 130)] {
            let signs = random(rows, dim);
            let direct = Slices::transposed(signs.view());
            let formed = Slices::new(signs.transposed().unwrap().view());
            assert_eq!(direct.lines, formed.lines);
            assert_eq!((direct.rows, direct.dim), (dim, rows));
        }
    }
}
