//! The same functions in plain Rust: what the instructions must equal, and what other cores run.

use crate::{Block, Four, LANES, Quad, ROWS, Scale, Tile};

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

/// `out_i = Σ_j w_ij·x_j` for a matrix of tiles with as many columns as `x`; 32-bit sums, which the
/// caller keeps from overflowing. Outputs beyond the last row of tiles keep their value.
pub fn products(w: &[Tile], x: &[Four], out: &mut [i32]) {
    for (tiles, out) in w.chunks_exact(x.len().max(1)).zip(out.as_chunks_mut::<ROWS>().0) {
        let mut sums = [0i32; ROWS];
        for (Tile(w), Four(x)) in tiles.iter().zip(x) {
            for (r, sum) in sums.iter_mut().enumerate() {
                for c in 0..LANES {
                    *sum = sum.wrapping_add(i32::from(w[Tile::place(r, c) & 15]) * i32::from(x[c]));
                }
            }
        }
        *out = sums;
    }
}

/// Σ aᵢ·bᵢ, exact; the shorter slice decides the length, up to 2^15 elements.
#[must_use]
#[inline]
pub fn dot16(a: &[i16], b: &[i16]) -> i64 {
    let (a4, a_rest) = a.as_chunks::<4>();
    let (b4, b_rest) = b.as_chunks::<4>();
    let whole = a4.len().min(b4.len());
    // What one of them has beyond the other's last group.
    let (a_rest, b_rest) = if a4.len() == b4.len() {
        (a_rest, b_rest)
    } else {
        (a.get(4 * whole..).unwrap_or_default(), b.get(4 * whole..).unwrap_or_default())
    };
    if crate::LONG {
        let mut sum = 0i64;
        for (x, y) in a4.iter().zip(b4) {
            for c in 0..4 {
                sum += i64::from(i32::from(x[c]) * i32::from(y[c]));
            }
        }
        for (&x, &y) in a_rest.iter().zip(b_rest) {
            sum += i64::from(i32::from(x) * i32::from(y));
        }
        return sum;
    }
    // Halves of each product: one multiplication, and 32-bit sums only.
    let (mut low, mut high) = (0u32, 0i32);
    let mut one = |x: i16, y: i16| {
        let p = i32::from(x) * i32::from(y);
        low = low.wrapping_add(p as u32 & 0xFFFF);
        high = high.wrapping_add(p >> 16);
    };
    for (x, y) in a4.iter().zip(b4) {
        for c in 0..4 {
            one(x[c], y[c]);
        }
    }
    for (&x, &y) in a_rest.iter().zip(b_rest) {
        one(x, y);
    }
    (i64::from(high) << 16) + i64::from(low)
}

/// `sums_r = Σ_c a_c·b[r·stride + c]`, exact: [`dot16`] of one vector with rows that are `stride`
/// apart. Rows that `b` does not hold give what is left of them.
pub fn dots16(a: &[i16], b: &[i16], stride: usize, sums: &mut [i64]) {
    for (r, sum) in sums.iter_mut().enumerate() {
        *sum = crate::dot16(a, b.get(r * stride..).unwrap_or_default());
    }
}

/// `acc_c += Σ_k weights_k · v[k·stride + c]`, exact while 64 bits hold it.
pub fn weigh(acc: &mut [i64], weights: &[i32], v: &[i16], stride: usize) {
    for (c, sum) in acc.iter_mut().enumerate() {
        let column = v.get(c..).unwrap_or_default().iter().step_by(stride.max(1));
        for (&w, &x) in weights.iter().zip(column) {
            *sum += i64::from(w) * i64::from(x);
        }
    }
}

/// `top − x`, brought into 0 … 2^(F + I) − 1: a distance of F fraction bits and I whole ones.
#[inline(always)]
#[must_use]
pub fn distance<const F: u32, const I: u32>(top: i32, x: i32) -> u32 {
    top.saturating_sub(x).clamp(0, (1 << (F + I)) - 1) as u32
}

/// The reference itself. Where tables pay, its address stays in a register across a loop: the
/// compiler would rather build it anew for each element.
#[inline(always)]
#[must_use]
pub fn keep<T>(table: &T) -> &T {
    table
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Small numbers and extremes, different at every call.
    fn draw(state: &mut u32) -> i16 {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match *state >> 28 {
            0 => i16::MIN,
            1 => i16::MAX,
            _ => (*state >> 12) as i16,
        }
    }

    #[test]
    fn products_are_exact_at_every_length() {
        let mut state = 7;
        let (mut a, mut b) = ([0i16; 40], [0i16; 40]);
        for n in 0..40 {
            for m in [n, 40 - n, 40] {
                a.iter_mut().chain(&mut b).for_each(|x| *x = draw(&mut state));
                let want = a[..n].iter().zip(&b[..m]).map(|(&x, &y)| i64::from(x) * i64::from(y));
                assert_eq!(dot16(&a[..n], &b[..m]), want.sum(), "{n} {m}");
            }
        }
        // The longest that the halves hold.
        let lowest = [i16::MIN; 1 << 15];
        assert_eq!(dot16(&lowest, &lowest), 1 << 45);
    }

    #[test]
    fn distances_are_clamped() {
        assert_eq!(distance::<10, 5>(2048, -7), 2055);
        assert_eq!(distance::<10, 5>(-7, 2048), 0);
        assert_eq!(distance::<10, 5>(i32::MAX, i32::MIN), (1 << 15) - 1);
        assert_eq!(distance::<11, 5>(0, -65_535), (1 << 16) - 1);
        assert_eq!(distance::<10, 5>(i32::MIN, i32::MAX), 0);
    }

    #[test]
    fn tiles_are_matrices() {
        let mut state = 5;
        let mut draw = || draw(&mut state) >> 7;
        let mut tiles = [Tile::default(); 6];
        let (mut w, mut x) = ([[0i16; 12]; 8], [Four::default(); 3]);
        for (r, row) in w.iter_mut().enumerate() {
            for (c, value) in row.iter_mut().enumerate() {
                *value = draw();
                tiles[r / 4 * 3 + c / 4].0[Tile::place(r % 4, c % 4)] = *value;
            }
        }
        x.iter_mut().for_each(|x| x.0 = [draw(), draw(), draw(), draw()]);
        let mut out = [0; 8];
        products(&tiles, &x, &mut out);
        for (row, out) in w.iter().zip(out) {
            let want =
                row.iter().enumerate().map(|(c, &w)| i32::from(w) * i32::from(x[c / 4].0[c % 4]));
            assert_eq!(out, want.sum());
        }
    }

    #[test]
    fn rows_are_products() {
        let mut state = 11;
        let (mut a, mut b) = ([0i16; 20], [0i16; 200]);
        a.iter_mut().chain(&mut b).for_each(|x| *x = draw(&mut state));
        for (k, stride, rows) in [(20, 20, 7), (16, 21, 9), (3, 5, 1), (0, 0, 4), (8, 8, 0)] {
            let mut sums = [7; 9];
            dots16(&a[..k], &b, stride, &mut sums[..rows]);
            for (r, &sum) in sums[..rows].iter().enumerate() {
                assert_eq!(sum, dot16(&a[..k], &b[r * stride..r * stride + k]));
            }
        }
    }

    #[test]
    fn weighted_sums_are_exact_in_every_shape() {
        let mut state = 3;
        for cols in 1..10 {
            for stride in cols..cols + 3 {
                for keys in 0..5 {
                    let mut v = [0i16; 64];
                    v.iter_mut().for_each(|x| *x = draw(&mut state));
                    let weights: [i32; 5] =
                        core::array::from_fn(|_| i32::from(draw(&mut state)) << 9);
                    let v = &v[..if keys == 0 { 0 } else { (keys - 1) * stride + cols }];
                    let mut acc = [5i64; 10];
                    weigh(&mut acc[..cols], &weights[..keys], v, stride);
                    for (c, &got) in acc[..cols].iter().enumerate() {
                        let terms =
                            (0..keys).map(|k| i64::from(weights[k]) * i64::from(v[k * stride + c]));
                        assert_eq!(got, 5 + terms.sum::<i64>());
                    }
                }
            }
        }
    }
}
