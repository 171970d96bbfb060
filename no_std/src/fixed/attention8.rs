//! One head of attention on bytes, as 8-bit inference libraries have it: scores and weights are bytes too, so a row of
//! scores is all that exists of them.
//!
//! Keys and values are spread to halfwords once, in tiles that a core with DSP instructions multiplies two at a time;
//! every query then meets them. The softmax is [`TableSoftmax`], whose weights have the unit 1/256: what its rounding
//! drops of a flat row is lost, as in every 8-bit softmax. [`super::attention`] keeps it.

use undertone_dsp::portable::requant;
use undertone_dsp::{Four, LANES, ROWS, Scale, Tile, products};

use super::table_softmax::TableSoftmax;
use super::{KernelError, check_len};

/// A head: its shape and its scales.
#[derive(Clone, Copy, Debug)]
pub struct Head8<'a> {
    /// Queries, keys and values.
    pub tokens: usize,
    /// Columns of each.
    pub width: usize,
    /// From q·k to a score in the softmax's unit.
    pub score: Scale,
    /// From 256·Σp·v to a byte of the result.
    pub value: Scale,
    /// Its table is for the unit of scores.
    pub softmax: &'a TableSoftmax,
}

/// The memory that a head works in.
#[derive(Debug)]
pub struct Scratch8<'a> {
    /// [`tiles`] of tokens × width.
    pub keys: &'a mut [Tile],
    /// [`tiles`] of width × tokens.
    pub values: &'a mut [Tile],
    /// [`fours`] of the greater of both.
    pub row: &'a mut [Four],
    /// Four times as many.
    pub sums: &'a mut [i32],
    /// Tokens, twice.
    pub bytes: &'a mut [i8],
}

/// Groups of four that hold `n`.
#[must_use]
pub const fn fours(n: usize) -> usize {
    n.div_ceil(LANES)
}

/// Tiles of a matrix.
#[must_use]
pub const fn tiles(rows: usize, cols: usize) -> usize {
    rows.div_ceil(ROWS).saturating_mul(fours(cols))
}

impl Head8<'_> {
    /// Bytes of scratch in all.
    #[must_use]
    pub const fn scratch_bytes(&self) -> usize {
        let (n, d) = (self.tokens, self.width);
        let longest = fours(if n > d { n } else { d });
        32 * (tiles(n, d) + tiles(d, n)) + (8 + 16) * longest + 2 * n
    }

    /// Attention of `q`, `k` and `v`, each tokens × width, into `out`. Every value is a byte around zero.
    ///
    /// # Errors
    /// [`KernelError::Length`] for slices that do not fit; as [`TableSoftmax::rows`] for too many tokens.
    pub fn run(
        &self,
        q: &[i8],
        k: &[i8],
        v: &[i8],
        scratch: &mut Scratch8<'_>,
        out: &mut [i8],
    ) -> Result<(), KernelError> {
        const NAME: &str = "attention8";
        let (n, d) = (self.tokens, self.width);
        let len = n.checked_mul(d);
        let longest = fours(n.max(d));
        for (operand, expected, got) in [
            ("q", len, q.len()),
            ("k", len, k.len()),
            ("v", len, v.len()),
            ("out", len, out.len()),
            ("keys", Some(tiles(n, d)), scratch.keys.len()),
            ("values", Some(tiles(d, n)), scratch.values.len()),
            ("row", Some(longest), scratch.row.len()),
            ("sums", Some(LANES * longest), scratch.sums.len()),
            ("bytes", Some(2 * n), scratch.bytes.len()),
        ] {
            check_len(NAME, operand, expected, got)?;
        }
        if n == 0 || d == 0 {
            return Ok(());
        }
        let Scratch8 { keys, values, row, sums, bytes } = scratch;
        keys.fill(Tile([0; 16]));
        values.fill(Tile([0; 16]));
        for (r, (k, v)) in k.chunks_exact(d).zip(v.chunks_exact(d)).enumerate() {
            let tiles = keys.get_mut(r / ROWS * fours(d)..).unwrap_or_default();
            for (tile, k) in tiles.iter_mut().zip(k.chunks(LANES)) {
                for (c, &k) in k.iter().enumerate() {
                    tile.0[Tile::place(r % ROWS, c & 3) & 15] = k.into();
                }
            }
            let tiles = values.get_mut(r / LANES..).unwrap_or_default();
            for (tile, v) in tiles.iter_mut().step_by(fours(n)).zip(v.chunks(ROWS)) {
                for (c, &v) in v.iter().enumerate() {
                    tile.0[Tile::place(c & 3, r % LANES) & 15] = v.into();
                }
            }
        }
        let (scores, weights) = bytes.split_at_mut(n);
        for (q, out) in q.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let own = row.get_mut(..fours(d)).unwrap_or_default();
            spread(q, 0, own);
            products(keys, own, sums);
            for (score, &sum) in scores.iter_mut().zip(sums.iter()) {
                *score = requant(sum, &self.score);
            }
            self.softmax.rows(scores, n, weights)?;
            let own = row.get_mut(..fours(n)).unwrap_or_default();
            // Zero point −128.
            spread(weights, 128, own);
            products(values, own, sums);
            for (out, &sum) in out.iter_mut().zip(sums.iter()) {
                *out = requant(sum, &self.value);
            }
        }
        Ok(())
    }
}

/// Bytes as halfwords, `offset` more; zeros where the last four are not full.
#[inline]
fn spread(from: &[i8], offset: i16, to: &mut [Four]) {
    let (whole, rest) = from.as_chunks::<LANES>();
    for (Four(to), from) in to.iter_mut().zip(whole) {
        *to = from.map(|x| i16::from(x) + offset);
    }
    if !rest.is_empty()
        && let Some(Four(last)) = to.get_mut(whole.len())
    {
        *last = [0; LANES];
        for (to, &x) in last.iter_mut().zip(rest) {
            *to = i16::from(x) + offset;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;
    use crate::fixed::testing::Gauss;
    use std::vec;
    use std::vec::Vec;

    static SOFTMAX: TableSoftmax = TableSoftmax::new(TableSoftmax::octaves_q24(1, 16));
    /// 2^-7 of a product, and 2^-8 of 256·Σp·v.
    const SCORE: Scale = Scale { bias: 0, multiplier: 1 << 30, shift: 37 };
    const VALUE: Scale = Scale { bias: 0, multiplier: 1 << 30, shift: 38 };

    fn run(n: usize, d: usize, q: &[i8], k: &[i8], v: &[i8]) -> Vec<i8> {
        let head = Head8 { tokens: n, width: d, score: SCORE, value: VALUE, softmax: &SOFTMAX };
        let longest = fours(n.max(d));
        let mut scratch = Scratch8 {
            keys: &mut vec![Tile::default(); tiles(n, d)],
            values: &mut vec![Tile::default(); tiles(d, n)],
            row: &mut vec![Four::default(); longest],
            sums: &mut vec![0; 4 * longest],
            bytes: &mut vec![0; 2 * n],
        };
        let mut out = vec![0; n * d];
        head.run(q, k, v, &mut scratch, &mut out).unwrap();
        out
    }

    /// Attention in f64 with the head's rounded scores, and for each result what the rounding of its weights may cost.
    fn reference(n: usize, d: usize, q: &[i8], k: &[i8], v: &[i8]) -> Vec<(f64, f64)> {
        let mut out = Vec::new();
        for q in q.chunks(d) {
            let score = |k: &[i8]| {
                let sum: i32 = q.iter().zip(k).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
                f64::from(requant(sum, &SCORE)) / 16.0
            };
            let scores: Vec<f64> = k.chunks(d).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let e: Vec<f64> = scores.iter().map(|s| libm::exp(s - max)).collect();
            let sum: f64 = e.iter().sum();
            for c in 0..d {
                let values = || v.chunks(d).map(|v| f64::from(v[c]));
                let want: f64 = values().zip(&e).map(|(v, e)| v * e / sum).sum();
                // 255 instead of 256 costs a whole unit.
                let slack: f64 = values().map(f64::abs).sum::<f64>() * 0.506 / 256.0;
                let top =
                    if n > 0 { values().map(f64::abs).fold(0.0, f64::max) / 256.0 } else { 0.0 };
                out.push((want, 0.5 + slack + top));
            }
        }
        out
    }

    #[test]
    fn heads_are_within_the_rounding_of_their_weights() {
        let mut g = Gauss::new(9);
        for (n, d) in [(1, 1), (1, 16), (3, 5), (4, 4), (49, 16), (50, 17), (197, 64)] {
            let mut draw = || -> Vec<i8> { (0..n * d).map(|_| (g.bits() >> 24) as i8).collect() };
            let (q, k, v) = (draw(), draw(), draw());
            let got = run(n, d, &q, &k, &v);
            for (got, (want, slack)) in got.iter().zip(reference(n, d, &q, &k, &v)) {
                let error = (f64::from(*got) - want).abs();
                assert!(error <= slack, "{n}x{d}: {error} beyond {slack}");
            }
        }
    }

    #[test]
    fn hostile_heads() {
        let (n, d) = (64, 8);
        for (q, k, v) in [(0, 0, 127), (-128, -128, -128), (127, -128, 127), (-128, 127, -128)] {
            let (q, k) = (vec![q; n * d], vec![k; n * d]);
            let v = vec![v; n * d];
            // All rows are equal: 64 weights of 1/64 are exact, so the result is the value.
            assert_eq!(run(n, d, &q, &k, &v), v);
        }
        let mut short = [0; 8];
        let head = Head8 { tokens: 2, width: 4, score: SCORE, value: VALUE, softmax: &SOFTMAX };
        let mut scratch = Scratch8 {
            keys: &mut [],
            values: &mut [],
            row: &mut [],
            sums: &mut [],
            bytes: &mut [],
        };
        let refused = head.run(&[0; 8], &[0; 8], &[0; 8], &mut scratch, &mut short);
        assert!(matches!(refused, Err(KernelError::Length { operand: "keys", .. })));
    }
}
