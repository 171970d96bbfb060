//! GELU of 16-bit values.

use core::hint::black_box;
use undertone_board::{Digest, measure};
use undertone_core::fixed::edge_moe::gelu16;

use crate::inputs::words;

/// Fraction bits in and out.
pub const FRAC: u32 = 12;
/// 128 values in ±8.
pub static ROW: [i16; 128] = words(4, 16);

/// The kernel as counted.
#[inline(never)]
pub fn kernel_gelu(x: &[i16], out: &mut [i16]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = gelu16(x, FRAC);
    }
}

/// Counts the row.
pub fn run() {
    measure(
        "gelu/128",
        &mut [0; 128],
        |out| kernel_gelu(black_box(&ROW), out),
        |out| Digest::EMPTY.with(out),
    );
}
