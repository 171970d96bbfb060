//! Hamming distances: the dot product of two sign vectors is `dim − 2·hamming`.

use super::fault::{self, BitFault};
use super::rows::BitRows;
use super::word::Word;

/// The most columns whose distances fit a byte.
pub const MOST_BYTE_DIM: usize = 255;

/// The number of places where two rows of equal width differ.
pub fn hamming<W: Word>(a: &[W], b: &[W]) -> u32 {
    a.iter().zip(b).map(|(&x, &y)| (x ^ y).ones()).sum()
}

/// Distances of every query to every key, `out[i·n + j]`, one byte each.
///
/// # Errors
/// [`BitFault::Size`] where widths or buffers disagree, [`BitFault::Limit`] above
/// [`MOST_BYTE_DIM`] columns.
pub fn hamming_matrix<W: Word>(
    queries: BitRows<'_, W>,
    keys: BitRows<'_, W>,
    out: &mut [u8],
) -> Result<(), BitFault> {
    const OP: &str = "hamming matrix";
    fault::size(OP, "the columns of the keys", queries.dim(), keys.dim())?;
    fault::limit(OP, "the columns", MOST_BYTE_DIM, keys.dim())?;
    fault::size(OP, "the number of distances", queries.rows() * keys.rows(), out.len())?;
    if keys.rows() == 0 {
        return Ok(());
    }
    for (i, row) in out.chunks_exact_mut(keys.rows()).enumerate() {
        for (j, d) in row.iter_mut().enumerate() {
            *d = hamming(queries.row(i), keys.row(j)) as u8;
        }
    }
    Ok(())
}
