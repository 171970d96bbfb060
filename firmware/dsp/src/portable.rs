//! The same functions in plain Rust: what the instructions must equal, and what other cores run.

use crate::{Block, LANES, Quad, ROWS, Scale};

/// `out_i = Σ_j w_ij·x_j` for a packed matrix with as many columns as `x`. Outputs beyond the last
/// block of rows keep their value.
///
/// Sums are exact up to 2^17 columns.
pub fn matvec(w: &[Block], x: &[Quad], out: &mut [i32]) {
    for (block, o) in w.chunks_exact(x.len().max(1)).zip(out.chunks_exact_mut(ROWS)) {
        o.copy_from_slice(&four_rows(block, x));
    }
}

/// [`matvec`] with each sum brought to a byte by the scale of its row.
pub fn matvec_requant(w: &[Block], x: &[Quad], scales: &[Scale], out: &mut [i8]) {
    let outputs = out.chunks_exact_mut(ROWS).zip(scales.chunks_exact(ROWS));
    for (block, (o, scales)) in w.chunks_exact(x.len().max(1)).zip(outputs) {
        for ((o, sum), scale) in o.iter_mut().zip(four_rows(block, x)).zip(scales) {
            *o = requant(sum, scale);
        }
    }
}

fn four_rows(block: &[Block], x: &[Quad]) -> [i32; ROWS] {
    let mut sums = [0i32; ROWS];
    for (w, x) in block.iter().zip(x) {
        for (sum, w) in sums.iter_mut().zip(&w.0) {
            for c in 0..LANES {
                *sum = sum.wrapping_add(i32::from(w.0[c]) * i32::from(x.0[c]));
            }
        }
    }
    sums
}

/// One sum to a byte.
#[inline]
#[must_use]
pub fn requant(sum: i32, scale: &Scale) -> i8 {
    // The upper word of the product decides but for the last bit: two halvings would round twice.
    let wide = i64::from(sum.wrapping_add(scale.bias)) * i64::from(scale.multiplier);
    let high = (wide >> 32) as i32;
    let shift = scale.shift.wrapping_sub(33) & 31;
    let rounded = ((high >> shift) + 1) >> 1;
    rounded.clamp(-128, 127) as i8
}
