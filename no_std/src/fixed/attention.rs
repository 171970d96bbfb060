//! One head of attention, fused: scores, weights and the sum over V row by row, divided last. Nothing of size n×n
//! exists; the scratch is one `i64` for each column of V ([`scratch_len`]).
//!
//! [`softmax`] is online (Milakov & Gimelshein, arXiv 1805.02867, in the shift form of [`super::shift`]): when the
//! running maximum rises by whole octaves, the numerators shift as the sum does. [`weighted`] serves the polynomial
//! kinds, whose weight needs no maximum. Numerators are exact sums of weight × value: at most 2^24 · 2^15 each, so
//! 2^24 keys fit an `i64`.

use super::linear::dots;
use super::recip::{Scaled, recip};
use super::requant::{Narrow, Requant, round_shift};
use super::shift::RowSum;
use super::{KernelError, check_len};

/// Keys that are weighted together; where halves are added up, 2^12 · 2^15 · 8 fits an `i32`.
const KEYS: usize = if undertone_dsp::LONG { 16 } else { 8 };
/// Columns of V that are accumulated together.
const TILE: usize = 16;
/// The largest weight, and with a minus sign the least.
pub const MAX_WEIGHT: i32 = 1 << 24;

/// The scratch that [`softmax`] and [`weighted`] want, in `i64`s, for `dv` columns of V.
#[must_use]
pub const fn scratch_len(dv: usize) -> usize {
    dv
}

/// A matrix of `i16` whose rows are `stride` apart: a head inside a wider tensor.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [i16],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// A view of `rows` × `cols` elements, of which the first is `data[0]`.
    ///
    /// # Errors
    /// [`KernelError::Length`] if `data` ends before the last row or `stride` is below `cols`.
    pub const fn new(
        data: &'a [i16],
        rows: usize,
        cols: usize,
        stride: usize,
    ) -> Result<Self, KernelError> {
        let needed = span(rows, cols, stride);
        match needed {
            Some(n) if n <= data.len() => Ok(Self { data, rows, cols, stride }),
            _ => Err(KernelError::Length {
                kernel: "attention::Rows",
                operand: "data",
                expected: match needed {
                    Some(n) => n,
                    None => usize::MAX,
                },
                got: data.len(),
            }),
        }
    }

    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    pub(super) const fn cols(&self) -> usize {
        self.cols
    }

    #[inline]
    pub(super) fn row(&self, i: usize) -> &'a [i16] {
        let start = i * self.stride;
        self.data.get(start..start + self.cols).unwrap_or_default()
    }
}

/// The elements from the first to the last of a strided matrix; `None` where rows overlap or the count overflows.
const fn span(rows: usize, cols: usize, stride: usize) -> Option<usize> {
    if stride < cols {
        return None;
    }
    match rows.checked_sub(1) {
        None => Some(0),
        Some(r) => match r.checked_mul(stride) {
            Some(s) => s.checked_add(cols),
            None => None,
        },
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Query i sees keys up to i; with fewer queries than keys, the last query sees the last key.
    pub causal: bool,
    /// Keys from this one on are padding.
    pub keys: Option<usize>,
}

/// The inputs of one head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Queries, n × d.
    pub q: Rows<'a>,
    /// Keys, m × d.
    pub k: Rows<'a>,
    /// Values, m × dv.
    pub v: Rows<'a>,
    /// From q·k to a score: `1/√d` and, for softmax, `log2(e)` are folded in here ([`Requant::scaled`]).
    pub score: Requant,
    /// Which keys count.
    pub mask: Mask,
}

/// How often values left their format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saturations {
    /// Scores or weights.
    pub weights: u64,
    /// Outputs.
    pub outputs: u64,
}

impl Head<'_> {
    fn check(
        &self,
        kernel: &'static str,
        scratch: usize,
        out: usize,
        stride: usize,
    ) -> Result<(), KernelError> {
        check_len(kernel, "k's columns", Some(self.q.cols), self.k.cols)?;
        check_len(kernel, "v's rows", Some(self.k.rows), self.v.rows)?;
        check_len(kernel, "scratch", Some(scratch_len(self.v.cols)), scratch)?;
        let needed = span(self.q.rows, self.v.cols, stride);
        if needed.is_none_or(|n| n > out) {
            check_len(kernel, "out", needed, out)?;
        }
        Ok(())
    }

    /// How many keys query `i` sees.
    #[inline]
    fn visible(&self, i: usize) -> usize {
        let keys = self.mask.keys.map_or(self.k.rows, |n| n.min(self.k.rows));
        if self.mask.causal {
            keys.min((self.k.rows + i + 1).saturating_sub(self.q.rows))
        } else {
            keys
        }
    }

    /// The products of a query with keys from `first` on.
    #[inline]
    fn products(&self, q: &[i16], first: usize, sums: &mut [i64]) {
        let keys = self.k.data.get(first * self.k.stride..).unwrap_or_default();
        dots(q, keys, self.k.stride, sums);
    }

    /// The score of a product.
    #[inline(always)]
    fn score(&self, product: i64, saturated: &mut u64) -> i32 {
        let (s, clipped) = i32::narrow(self.score.apply(product));
        *saturated += u64::from(clipped);
        s
    }
}

/// `acc += Σ w·v` over up to [`KEYS`] rows of V from `first` on, exact for |w| ≤ 2^24.
#[inline]
fn accumulate(acc: &mut [i64], weights: &[i32], v: &Rows<'_>, first: usize) {
    if undertone_dsp::LONG {
        let rows = v.data.get(first * v.stride..).unwrap_or_default();
        return undertone_dsp::weigh(acc, weights, rows, v.stride);
    }
    for (t, acc) in acc.chunks_mut(TILE).enumerate() {
        // Two 13-bit halves keep the products in 32-bit lanes.
        let (mut high, mut low) = ([0i32; TILE], [0i32; TILE]);
        for (key, &w) in weights.iter().enumerate() {
            let row = v.row(first + key).get(t * TILE..).unwrap_or_default();
            let (h, l) = ((w >> 12) as i16, (w & 0xFFF) as i16);
            if let Some(row) = row.first_chunk::<TILE>() {
                for c in 0..TILE {
                    high[c] = high[c].wrapping_add(i32::from(h) * i32::from(row[c]));
                    low[c] = low[c].wrapping_add(i32::from(l) * i32::from(row[c]));
                }
            } else {
                for ((high, low), &x) in high.iter_mut().zip(&mut low).zip(row) {
                    *high = high.wrapping_add(i32::from(h) * i32::from(x));
                    *low = low.wrapping_add(i32::from(l) * i32::from(x));
                }
            }
        }
        for ((a, h), l) in acc.iter_mut().zip(high).zip(low) {
            *a += (i64::from(h) << 12) + i64::from(l);
        }
    }
}

/// Divides the numerators and stores them; returns how many saturated.
#[inline]
fn divide<O: Narrow>(acc: &[i64], by: Scaled, frac: i32, out: &mut [O]) -> u64 {
    let mut saturated = 0;
    for (o, &a) in out.iter_mut().zip(acc) {
        let (value, sat) = O::narrow(by.apply(a, frac));
        *o = value;
        saturated += u64::from(sat);
    }
    saturated
}

/// Softmax attention. Scores are octaves with `F` fraction bits (fold log2(e)/√d into the head's `score`); row i of the
/// result, with `out_frac` more fraction bits than V (fewer if negative), goes to `out[i·stride..]`.
///
/// Equal, key by key, to [`RowSum::push`]: the result does not depend on how keys are grouped.
///
/// ```
/// use undertone_core::fixed::{Requant, attention::*, math::LOG2_E_Q62};
/// // Two tokens of width 2 with 8 fraction bits; the second key is the only one that resembles the queries.
/// let (q, k, v) = ([0i16, 2048, 0, 2048], [0i16, -2048, 0, 2048], [-256i16, 0, 512, 256]);
/// let rows = |data| Rows::new(data, 2, 2, 2);
/// let head = Head {
///     q: rows(&q)?, k: rows(&k)?, v: rows(&v)?,
///     score: Requant::scaled(LOG2_E_Q62, 16, 10),
///     mask: Mask::default(),
/// };
/// let (mut scratch, mut out) = ([0i64; scratch_len(2)], [0i16; 4]);
/// softmax::<10, _>(&head, 0, &mut scratch, &mut out, 2)?;
/// assert_eq!(out, [512, 256, 512, 256]);
/// # Ok::<(), undertone_core::fixed::KernelError>(())
/// ```
///
/// # Errors
/// [`KernelError::Length`] where shapes do not fit, [`KernelError::EmptyRow`] where a query sees no key; rows before
/// that one have been written.
pub fn softmax<const F: u32, O: Narrow>(
    head: &Head<'_>,
    out_frac: i32,
    scratch: &mut [i64],
    out: &mut [O],
    stride: usize,
) -> Result<Saturations, KernelError> {
    const NAME: &str = "attention::softmax";
    head.check(NAME, scratch.len(), out.len(), stride)?;
    let mut count = Saturations::default();
    for (i, out) in out.chunks_mut(stride.max(1)).take(head.q.rows).enumerate() {
        let (q, visible) = (head.q.row(i), head.visible(i));
        let mut row = RowSum::<F>::EMPTY;
        scratch.fill(0);
        for first in (0..visible).step_by(KEYS) {
            let mut block = [0i32; KEYS];
            let len = KEYS.min(visible - first);
            // Weights from here on refer to the present maximum.
            let mut start = 0;
            let mut products = [0; KEYS];
            head.products(q, first, products.get_mut(..len).unwrap_or_default());
            for (b, &product) in products.iter().take(len).enumerate() {
                let score = head.score(product, &mut count.weights);
                let max = row.max_with(score);
                if max > row.max {
                    let before = block.get(start..b).unwrap_or_default();
                    accumulate(scratch, before, &head.v, first + start);
                    start = b;
                    let by = row.raise(max);
                    scratch.iter_mut().for_each(|a| *a >>= by);
                }
                let w = row.weight(score);
                row.sum += u64::from(w);
                if let Some(slot) = block.get_mut(b) {
                    *slot = w as i32;
                }
            }
            let block = block.get(start..len).unwrap_or_default();
            accumulate(scratch, block, &head.v, first + start);
        }
        let normaliser = row.normaliser().ok_or(KernelError::EmptyRow { kernel: NAME, row: i })?;
        count.outputs += divide(scratch, normaliser.recip(), out_frac, out);
    }
    Ok(count)
}

/// A weight that is a polynomial of the score: what replaces exp(s − max).
pub trait Weight {
    /// The weight of a score, |w| ≤ [`MAX_WEIGHT`], and whether it was clamped to that.
    fn weight(&self, score: i32) -> (i32, bool);
}

/// Where the binary points of scores and weights stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// Fraction bits of a score, at most 31.
    pub score: u32,
    /// Fraction bits of a weight, at most 24: weights reach 2^(24 − this).
    pub weight: u32,
}

#[inline]
fn clamp_weight(w: i64) -> (i32, bool) {
    let c = w.clamp(-i64::from(MAX_WEIGHT), i64::from(MAX_WEIGHT));
    (c as i32, c != w)
}

/// (s + offset)^p for even p: Power-Softmax (arXiv 2410.09457); with p = 2 MPCFormer's and MPCViT's 2Quad; rectified,
/// max(s + offset, 0)^p, MPCViT's squared ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// Half the exponent: p = 2·`half`; 0 counts as 1.
    pub half: u32,
    /// Added to the score, in its format.
    pub offset: i32,
    /// Negative sums count as 0.
    pub rectify: bool,
    /// Where the binary points stand.
    pub formats: Formats,
}

impl Weight for Power {
    #[inline]
    fn weight(&self, score: i32) -> (i32, bool) {
        let s = score.saturating_add(self.offset);
        if self.rectify && s < 0 {
            return (0, false);
        }
        // 32 bits of square: |s| beyond 2^16 has saturated any weight format long before.
        let size = s.unsigned_abs();
        let clipped = size > 0xFFFF;
        let square = i64::from(size.min(0xFFFF)) * i64::from(size.min(0xFFFF));
        // The running power carries 7 bits more than the weight: 2^31 is where the weight clamps. A power that reaches
        // it lies above 1 and only grows, so clamping on the way changes nothing.
        let (twice, carried) = (2 * self.formats.score as i32, self.formats.weight as i32 + 7);
        let limit = 1i64 << 31;
        let fits = |x: i64, shift: i32| {
            if shift < 0 && x > limit >> -shift.max(-62) {
                limit
            } else {
                round_shift(x, shift).min(limit)
            }
        };
        let mut power = fits(square, twice - carried);
        for _ in 1..self.half {
            power = fits(power * square, twice);
        }
        let (w, over) = clamp_weight(round_shift(power, 7));
        (w, over || clipped || power == limit)
    }
}

/// The score itself: MPCViT's scaling attention; rectified, ReLU-softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Negative scores count as 0.
    pub rectify: bool,
    /// Where the binary points stand.
    pub formats: Formats,
}

impl Weight for Linear {
    #[inline]
    fn weight(&self, score: i32) -> (i32, bool) {
        let s = i64::from(if self.rectify { score.max(0) } else { score });
        clamp_weight(Requant::fractions(self.formats.score, self.formats.weight).apply(s))
    }
}

/// 1 for every key, with the given fraction bits: the mean of V, the control without attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uniform {
    /// Fraction bits of the weight, at most 24.
    pub weight: u32,
}

impl Weight for Uniform {
    #[inline]
    fn weight(&self, _: i32) -> (i32, bool) {
        clamp_weight(1i64 << self.weight.min(30))
    }
}

/// What the sum over V is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denominator {
    /// Σw + eps, with eps in the weight's format. A mean over n keys (eps + Σw/n under ΣwV/n) is n·eps here.
    Sum {
        /// Keeps rows without weight finite.
        eps: u64,
    },
    /// The number of keys that the query sees, for weights with so many fraction bits.
    Count {
        /// Fraction bits of the weight.
        weight_frac: u32,
    },
}

/// Attention with a polynomial weight; shapes as in [`softmax`].
///
/// # Errors
/// [`KernelError::Length`] where shapes do not fit; [`KernelError::EmptyRow`] where a query sees no key;
/// [`KernelError::Domain`] where the denominator is not positive. Rows before the failing one have been written.
pub fn weighted<W: Weight, O: Narrow>(
    head: &Head<'_>,
    weight: &W,
    denominator: Denominator,
    out_frac: i32,
    scratch: &mut [i64],
    out: &mut [O],
    stride: usize,
) -> Result<Saturations, KernelError> {
    const NAME: &str = "attention::weighted";
    head.check(NAME, scratch.len(), out.len(), stride)?;
    let mut count = Saturations::default();
    for (i, out) in out.chunks_mut(stride.max(1)).take(head.q.rows).enumerate() {
        let (q, visible) = (head.q.row(i), head.visible(i));
        if visible == 0 {
            return Err(KernelError::EmptyRow { kernel: NAME, row: i });
        }
        let mut sum = 0i64;
        scratch.fill(0);
        for first in (0..visible).step_by(KEYS) {
            let mut block = [0i32; KEYS];
            let len = KEYS.min(visible - first);
            let mut products = [0; KEYS];
            head.products(q, first, products.get_mut(..len).unwrap_or_default());
            for (slot, &product) in block.iter_mut().take(len).zip(&products) {
                let (w, clamped) = weight.weight(head.score(product, &mut count.weights));
                count.weights += u64::from(clamped);
                sum += i64::from(w);
                *slot = w;
            }
            accumulate(scratch, block.get(..len).unwrap_or_default(), &head.v, first);
        }
        let total = match denominator {
            Denominator::Sum { eps } => sum.saturating_add_unsigned(eps),
            Denominator::Count { weight_frac } => (visible as i64) << weight_frac.min(24),
        };
        let by = u64::try_from(total).ok().and_then(recip).ok_or(KernelError::Domain {
            kernel: NAME,
            what: "the denominator",
            got: total,
            lo: 1,
            hi: i64::MAX,
        })?;
        count.outputs += divide(scratch, by, out_frac, out);
    }
    Ok(count)
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
