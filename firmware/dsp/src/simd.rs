//! SXTB16 spreads two bytes of a word to halfwords, SMLAD multiplies and adds two halfwords at once.

use core::arch::asm;

use crate::{Block, COLS, Four, LANES, Quad, ROWS, Scale, Tile, portable};

/// `out_i = Σ_j w_ij·x_j` for a packed matrix with as many columns as `x`. Outputs beyond the last
/// block of rows keep their value.
///
/// Sums are exact up to 2^17 columns.
pub fn matvec(w: &[Block], x: &[Quad], out: &mut [i32]) {
    if x.is_empty() || !x.len().is_multiple_of(COLS / LANES) {
        return portable::matvec(w, x, out);
    }
    for (block, o) in w.chunks_exact(x.len()).zip(out.as_chunks_mut::<ROWS>().0) {
        *o = four_rows(block, x);
    }
}

/// [`matvec`] with each sum brought to a byte by the scale of its row.
pub fn matvec_requant(w: &[Block], x: &[Quad], scales: &[Scale], out: &mut [i8]) {
    if x.is_empty() || !x.len().is_multiple_of(COLS / LANES) {
        return portable::matvec_requant(w, x, scales, out);
    }
    let outputs = out.as_chunks_mut::<ROWS>().0.iter_mut().zip(scales.as_chunks::<ROWS>().0);
    for (block, (o, scales)) in w.chunks_exact(x.len()).zip(outputs) {
        let sums = four_rows(block, x);
        for ((o, sum), scale) in o.iter_mut().zip(sums).zip(scales) {
            *o = requant(sum, scale);
        }
    }
}

/// Σ aᵢ·bᵢ, exact: SMLALD multiplies two pairs and adds both products to a 64-bit sum.
#[must_use]
#[inline]
pub fn dot16(a: &[i16], b: &[i16]) -> i64 {
    let whole = a.len().min(b.len()) / 8;
    let (a8, a_rest) = a.split_at_checked(8 * whole).unwrap_or_default();
    let (b8, b_rest) = b.split_at_checked(8 * whole).unwrap_or_default();
    let (mut low, mut high) = (0u32, 0i32);
    if whole > 0 {
        // SAFETY: `a` and `b` walk eight elements a round from the start of slices that hold eight
        // for each of the `whole` rounds. LDR takes any alignment on these cores. Nothing is
        // written but registers.
        unsafe {
            asm!(
                "2:",
                "ldr {x}, [{a}], #4",
                "ldr {y}, [{b}], #4",
                "smlald {low}, {high}, {x}, {y}",
                "ldr {x}, [{a}], #4",
                "ldr {y}, [{b}], #4",
                "smlald {low}, {high}, {x}, {y}",
                "ldr {x}, [{a}], #4",
                "ldr {y}, [{b}], #4",
                "smlald {low}, {high}, {x}, {y}",
                "ldr {x}, [{a}], #4",
                "ldr {y}, [{b}], #4",
                "smlald {low}, {high}, {x}, {y}",
                "subs {n}, #1",
                "bne 2b",
                a = inout(reg) a8.as_ptr() => _,
                b = inout(reg) b8.as_ptr() => _,
                n = inout(reg) whole => _,
                x = out(reg) _, y = out(reg) _,
                low = inout(reg) low, high = inout(reg) high,
                options(nostack, readonly),
            );
        }
    }
    let sum = (i64::from(high) << 32) + i64::from(low);
    if a_rest.is_empty() || b_rest.is_empty() { sum } else { sum + portable::dot16(a_rest, b_rest) }
}

/// Two columns of two rows.
macro_rules! pair {
    () => {
        concat!(
            "ldr {x}, [{a}], #4\n",
            "ldr {y}, [{b}], #4\n",
            "smlald {low}, {high}, {x}, {y}\n",
            "ldr {y}, [{c}], #4\n",
            "smlald {low2}, {high2}, {x}, {y}",
        )
    };
}

/// `sums_r = Σ_c a_c·b[r·stride + c]`, exact: two rows a round share what is loaded of `a`.
#[inline(never)]
pub fn dots16(a: &[i16], b: &[i16], stride: usize, sums: &mut [i64]) {
    let whole = a.len() / 8;
    let (a8, a_rest) = a.split_at_checked(8 * whole).unwrap_or_default();
    let (pairs, last) = sums.as_chunks_mut::<2>();
    let rows = 2 * pairs.len();
    let needed = rows.saturating_sub(1).saturating_mul(stride).saturating_add(a.len());
    if whole == 0 || b.len() < needed {
        portable::dots16(a, b, stride, pairs.as_flattened_mut());
    } else {
        for (r, pair) in pairs.iter_mut().enumerate() {
            let (one, two) = (
                b.get(2 * r * stride..).unwrap_or_default(),
                b.get((2 * r + 1) * stride..).unwrap_or_default(),
            );
            let (mut low, mut high, mut low2, mut high2) = (0u32, 0i32, 0u32, 0i32);
            // SAFETY: the three pointers walk eight elements a round; `a8` holds eight for each of
            // the `whole` rounds, and so does each row by `needed`. LDR takes any alignment on
            // these cores. Nothing is written but registers.
            unsafe {
                asm!(
                    "2:",
                    pair!(),
                    pair!(),
                    pair!(),
                    pair!(),
                    "subs {n}, #1",
                    "bne 2b",
                    a = inout(reg) a8.as_ptr() => _,
                    b = inout(reg) one.as_ptr() => _,
                    c = inout(reg) two.as_ptr() => _,
                    n = inout(reg) whole => _,
                    x = out(reg) _, y = out(reg) _,
                    low = inout(reg) low, high = inout(reg) high,
                    low2 = inout(reg) low2, high2 = inout(reg) high2,
                    options(nostack, readonly),
                );
            }
            let join = |low: u32, high: i32| (i64::from(high) << 32) | i64::from(low);
            *pair = [join(low, high), join(low2, high2)];
            if !a_rest.is_empty() {
                for (sum, row) in pair.iter_mut().zip([one, two]) {
                    *sum += portable::dot16(a_rest, row.get(8 * whole..).unwrap_or_default());
                }
            }
        }
    }
    if let [sum] = last {
        *sum = dot16(a, b.get(rows * stride..).unwrap_or_default());
    }
}

/// Two columns of four rows: their words, and two products for each row.
macro_rules! half_tile {
    ($x:literal) => {
        concat!(
            "ldrd {b0}, {b1}, [{w}], #8\n",
            "smlad {s0}, {b0}, {",
            $x,
            "}, {s0}\n",
            "smlad {s1}, {b1}, {",
            $x,
            "}, {s1}\n",
            "ldrd {b0}, {b1}, [{w}], #8\n",
            "smlad {s2}, {b0}, {",
            $x,
            "}, {s2}\n",
            "smlad {s3}, {b1}, {",
            $x,
            "}, {s3}",
        )
    };
}

/// `out_i = Σ_j w_ij·x_j` for a matrix of tiles with as many columns as `x`; 32-bit sums, which the
/// caller keeps from overflowing. Outputs beyond the last row of tiles keep their value.
#[inline(never)]
pub fn products(w: &[Tile], x: &[Four], out: &mut [i32]) {
    if x.is_empty() {
        return portable::products(w, x, out);
    }
    let fours = x.len();
    let x = x.as_ptr_range();
    for (tiles, out) in w.chunks_exact(fours).zip(out.as_chunks_mut::<ROWS>().0) {
        let [mut s0, mut s1, mut s2, mut s3] = [0i32; ROWS];
        // SAFETY: `x` walks from start to end, one four a round, and there is at least one; `w`
        // walks `tiles`, which holds one for each of them (`chunks_exact`). Both are words by
        // their alignment, as LDRD needs. Nothing is written but registers.
        unsafe {
            asm!(
                "2:",
                "ldrd {a0}, {a1}, [{x}], #8",
                half_tile!("a0"),
                half_tile!("a1"),
                "cmp {x}, {end}",
                "bne 2b",
                x = inout(reg) x.start => _,
                w = inout(reg) tiles.as_ptr() => _,
                end = in(reg) x.end,
                a0 = out(reg) _, a1 = out(reg) _, b0 = out(reg) _, b1 = out(reg) _,
                s0 = inout(reg) s0, s1 = inout(reg) s1, s2 = inout(reg) s2, s3 = inout(reg) s3,
                options(nostack, readonly),
            );
        }
        *out = [s0, s1, s2, s3];
    }
}

/// One row of a word of columns: load, spread, multiply and add.
macro_rules! row {
    ($sum:literal) => {
        concat!(
            "ldr {b}, [{w}], #4\n",
            "sxtb16 {d}, {b}\n",
            "sxtb16 {b}, {b}, ror #8\n",
            "smlad {",
            $sum,
            "}, {d}, {c}, {",
            $sum,
            "}\n",
            "smlad {",
            $sum,
            "}, {b}, {a}, {",
            $sum,
            "}"
        )
    };
}

/// Four rows against `x`, whose length is a positive multiple of two words and that of `block`.
#[inline(always)]
fn four_rows(block: &[Block], x: &[Quad]) -> [i32; ROWS] {
    let [mut s0, mut s1, mut s2, mut s3] = [0i32; ROWS];
    let x = x.as_ptr_range();
    // SAFETY: `x` walks from start to end, two words a round, and their number is even and not
    // zero; `w` walks `block`, which holds ROWS words for each of them (`chunks_exact`). Both
    // are words by their alignment. Nothing is written but registers.
    unsafe {
        asm!(
            "2:",
            "ldr {a}, [{x}], #4",
            "sxtb16 {c}, {a}",
            "sxtb16 {a}, {a}, ror #8",
            row!("s0"),
            row!("s1"),
            row!("s2"),
            row!("s3"),
            "ldr {a}, [{x}], #4",
            "sxtb16 {c}, {a}",
            "sxtb16 {a}, {a}, ror #8",
            row!("s0"),
            row!("s1"),
            row!("s2"),
            row!("s3"),
            "cmp {x}, {end}",
            "bne 2b",
            x = inout(reg) x.start => _,
            w = inout(reg) block.as_ptr() => _,
            end = in(reg) x.end,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            s0 = inout(reg) s0, s1 = inout(reg) s1, s2 = inout(reg) s2, s3 = inout(reg) s3,
            options(nostack, readonly),
        );
    }
    [s0, s1, s2, s3]
}

/// One sum to a byte: SMULL, two shifts and SSAT.
#[inline(always)]
fn requant(sum: i32, scale: &Scale) -> i8 {
    let wide = i64::from(sum.wrapping_add(scale.bias)) * i64::from(scale.multiplier);
    let high = (wide >> 32) as i32;
    let shift = scale.shift.wrapping_sub(33) & 31;
    let rounded = ((high >> shift) + 1) >> 1;
    let byte: i32;
    // SAFETY: registers only.
    unsafe {
        asm!("ssat {o}, #8, {i}", o = lateout(reg) byte, i = in(reg) rounded, options(pure, nomem, nostack));
    }
    byte as i8
}
