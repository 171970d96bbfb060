//! Vectors of halfwords times matrices of bytes.
//!
//! Four rows of the matrix stand side by side ([`Block`]), and in each word the columns stand in the
//! order 0, 2, 1, 3: SXTB16 spreads bytes 0 and 2 of a word, which are then neighbours as two
//! halfwords of the vector are.

use crate::{Block, LANES, ROWS};

/// Where a column stands in its word; from 0 to 3.
#[must_use]
#[inline]
pub const fn place(col: usize) -> usize {
    [0, 2, 1, 3][col % LANES]
}

/// The words of a row that `cols` columns take.
#[must_use]
pub const fn words(cols: usize) -> usize {
    cols.div_ceil(LANES)
}

/// `out_i = Σ_j w_ij·x_j` for a matrix with [`words`] of `x.len()` words a row, of which `out` may
/// leave out the last rows. Sums are of 32 bits: exact up to 511 columns.
pub fn products(w: &[Block], x: &[i16], out: &mut [i32]) {
    let words = words(x.len());
    for (blocks, out) in w.chunks_exact(words.max(1)).zip(out.chunks_mut(ROWS)) {
        #[cfg(dsp)]
        let sums = simd(blocks, x);
        #[cfg(not(dsp))]
        let sums = portable(blocks, x);
        out.iter_mut().zip(sums).for_each(|(o, sum)| *o = sum);
    }
}

/// The sums of four rows, in plain Rust.
#[must_use]
#[inline]
pub fn portable(blocks: &[Block], x: &[i16]) -> [i32; ROWS] {
    let mut sums = [0i32; ROWS];
    let (fours, rest) = x.as_chunks::<LANES>();
    let (whole, last) = blocks.split_at_checked(fours.len()).unwrap_or_default();
    for (block, x) in whole.iter().zip(fours) {
        for (sum, w) in sums.iter_mut().zip(&block.0) {
            for c in 0..LANES {
                *sum = sum.wrapping_add(i32::from(w.0[place(c)]) * i32::from(x[c]));
            }
        }
    }
    if let [block] = last {
        for (sum, w) in sums.iter_mut().zip(&block.0) {
            for (c, &x) in rest.iter().enumerate() {
                *sum = sum.wrapping_add(i32::from(w.0[place(c)]) * i32::from(x));
            }
        }
    }
    sums
}

/// Four columns of two rows: spread each word, multiply and add both halves.
#[cfg(dsp)]
macro_rules! two_rows {
    ($one:literal, $two:literal) => {
        concat!(
            "ldrd {b0}, {b1}, [{w}], #8\n",
            "sxtb16 {d}, {b0}\n",
            "sxtb16 {b0}, {b0}, ror #8\n",
            "smlad {",
            $one,
            "}, {d}, {a0}, {",
            $one,
            "}\n",
            "sxtb16 {d}, {b1}\n",
            "smlad {",
            $one,
            "}, {b0}, {a1}, {",
            $one,
            "}\n",
            "sxtb16 {b1}, {b1}, ror #8\n",
            "smlad {",
            $two,
            "}, {d}, {a0}, {",
            $two,
            "}\n",
            "smlad {",
            $two,
            "}, {b1}, {a1}, {",
            $two,
            "}",
        )
    };
}

/// The sums of four rows, two columns at once.
#[cfg(dsp)]
#[inline]
fn simd(blocks: &[Block], x: &[i16]) -> [i32; ROWS] {
    let fours = x.as_chunks::<LANES>().0;
    let (whole, last) = blocks.split_at_checked(fours.len()).unwrap_or_default();
    if whole.is_empty() {
        return portable(blocks, x);
    }
    let [mut s0, mut s1, mut s2, mut s3] = [0i32; ROWS];
    let at = fours.as_ptr_range();
    // SAFETY: `x` walks from start to end, four halfwords a round, and there are some; `w` walks
    // `whole`, which holds a block for each of them, a multiple of words by its alignment, as LDRD
    // needs. LDR takes any alignment on these cores. Nothing is written but registers.
    unsafe {
        core::arch::asm!(
            "2:",
            "ldr {a0}, [{x}], #4",
            "ldr {a1}, [{x}], #4",
            two_rows!("s0", "s1"),
            two_rows!("s2", "s3"),
            "cmp {x}, {end}",
            "bne 2b",
            x = inout(reg) at.start => _,
            w = inout(reg) whole.as_ptr() => _,
            end = in(reg) at.end,
            a0 = out(reg) _, a1 = out(reg) _, b0 = out(reg) _, b1 = out(reg) _, d = out(reg) _,
            s0 = inout(reg) s0, s1 = inout(reg) s1, s2 = inout(reg) s2, s3 = inout(reg) s3,
            options(nostack, readonly),
        );
    }
    let mut sums = [s0, s1, s2, s3];
    if !last.is_empty() {
        let rest = portable(last, x.as_chunks::<LANES>().1);
        sums.iter_mut().zip(rest).for_each(|(sum, r)| *sum = sum.wrapping_add(r));
    }
    sums
}
