//! Kernels on the DSP instructions of Cortex-M4, M7 and M33.
//!
//! Every function here gives the same bits as its twin in [`portable`]; on cores without the
//! instructions it *is* its twin. This is the only crate of the firmware that computes with
//! `asm!`.
#![no_std]

pub mod lookup;
pub mod mixed;
pub mod portable;

#[cfg(long)]
mod long;
#[cfg(dsp)]
mod simd;

#[cfg(long)]
pub use long::{distance, keep, weigh};
#[cfg(not(long))]
pub use portable::{distance, keep, weigh};
#[cfg(not(dsp))]
pub use portable::{dot16, dots16, matvec, matvec_requant, products};
#[cfg(dsp)]
pub use simd::{dot16, dots16, matvec, matvec_requant, products};

/// Whether the core is a small one, without vectors.
pub const SMALL: bool = cfg!(all(target_os = "none", target_pointer_width = "32"));
/// Whether the core multiplies 32-bit numbers into 64-bit sums in one instruction.
pub const LONG: bool = cfg!(long);

/// Rows that are multiplied together. Their number must be a multiple.
pub const ROWS: usize = 4;
/// Bytes in a word.
pub const LANES: usize = 4;
/// Columns that are multiplied in one round. Their number must be a multiple.
pub const COLS: usize = 8;

/// Four bytes with the alignment of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Quad(pub [i8; LANES]);

/// Words of four rows, side by side: `Block([row 0, row 1, row 2, row 3])` of four columns.
/// A matrix is packed row block by row block, so that one pointer walks four rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Block(pub [Quad; ROWS]);

/// Packs a row-major matrix of `cols` columns at compile time. What does not fill `B` blocks of
/// [`ROWS`] × [`LANES`] bytes is zero; what exceeds them is dropped.
#[must_use]
pub const fn pack<const B: usize>(w: &[i8], cols: usize) -> [Block; B] {
    let mut out = [Block([Quad([0; LANES]); ROWS]); B];
    let words = cols / LANES;
    let mut i = 0;
    while i < B && words > 0 {
        let (first_row, first_col) = (i / words * ROWS, i % words * LANES);
        let mut place = 0;
        while place < ROWS * LANES {
            let from = (first_row + place / LANES) * cols + first_col + place % LANES;
            if from < w.len() {
                out[i].0[place / LANES].0[place % LANES] = w[from];
            }
            place += 1;
        }
        i += 1;
    }
    out
}

/// Four halfwords with the alignment of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Four(pub [i16; LANES]);

/// Four columns of four rows, spread to halfwords: of each row two columns side by side, then of
/// each row the other two. A matrix is a row of tiles after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Tile(pub [i16; ROWS * LANES]);

impl Tile {
    /// Where an element of the tile stands; rows and columns from 0 to 3.
    #[must_use]
    #[inline]
    pub const fn place(row: usize, col: usize) -> usize {
        col / 2 * 8 + row * 2 + col % 2
    }
}

/// From a 32-bit sum to a byte: `(sum + bias) · multiplier · 2^-shift`, rounded half up and clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Added to the sum.
    pub bias: i32,
    /// 31 significant bits: 2^30 ≤ multiplier < 2^31.
    pub multiplier: i32,
    /// 33 to 62.
    pub shift: u32,
}
