//! EcoFormer's linear attention on codes (Liu et al., arXiv 2209.09004, equations 9–11).
//!
//! The weight of key j for query i is h_i·h_j + c, c = b + 1, with h ∈ {±1}^b: between 1 and
//! 2b + 1. A code falls into nibbles, and h_i·h_j is a sum over nibbles; so the keys' values are
//! first added up per nibble value (four row additions a token at 16 bits, where bits would take
//! sixteen), then a sixteen-entry table per nibble answers every query with four rows.

use super::fault::{self, BitFault};
use super::hash::MOST_BITS;

/// Which of the two published attentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The paper's equation: Σ_j (h_i·h_j + c)·v_j / Σ_j (h_i·h_j + c).
    Exact,
    /// The released code: (Σ_j h_i·h_j·v_j + c·v_i) / Σ_j (h_i·h_j + c). Its checkpoints want it.
    Repo,
}

/// Values of a nibble.
pub const NIBBLE: usize = 16;

/// Nibbles of a code of `bits` bits.
pub const fn nibbles(bits: usize) -> usize {
    bits.div_ceil(4)
}

/// The bits that nibble `p` of a code of `bits` bits holds.
pub const fn nibble_bits(bits: usize, p: usize) -> usize {
    let left = bits - 4 * p;
    if left < 4 { left } else { 4 }
}

/// The bias c = b + 1 that keeps every weight positive.
pub const fn bias(bits: usize) -> i32 {
    bits as i32 + 1
}

/// h(x)·h(y) over the lowest `bits` bits of two nibbles.
pub const fn nibble_dot(x: usize, y: usize, bits: usize) -> i32 {
    bits as i32 - 2 * (x ^ y).count_ones() as i32
}

/// Caller's memory for [`attend`], with what the keys left in it.
#[derive(Debug)]
pub struct Tables<'a> {
    /// nibbles × 16 × channels numerators.
    pub numerators: &'a mut [f32],
    /// nibbles × 16 denominators.
    pub denominators: &'a mut [i32],
    /// 4 × channels, for the ±1 combination.
    pub contexts: &'a mut [f32],
}

/// Refuses shapes that [`attend`] cannot take; returns the number of channels.
///
/// # Errors
/// As for [`attend`].
pub fn check(
    queries: &[u16],
    keys: &[u16],
    bits: usize,
    v: &[f32],
    variant: Variant,
    out: &[f32],
) -> Result<usize, BitFault> {
    const OP: &str = "hashed attention";
    // Denominators up to n(2b + 1) stay exact in f32.
    const MOST_TOKENS: usize = (1 << 24) / (2 * MOST_BITS + 1);
    fault::some(OP, "the set of keys", keys.len())?;
    fault::limit(OP, "the number of keys", MOST_TOKENS, keys.len())?;
    fault::some(OP, "a code", bits)?;
    fault::limit(OP, "the bits of a code", MOST_BITS, bits)?;
    let channels = v.len() / keys.len();
    fault::some(OP, "a value row", channels)?;
    fault::size(OP, "the number of values", keys.len() * channels, v.len())?;
    fault::size(OP, "the number of outputs", queries.len() * channels, out.len())?;
    if variant == Variant::Repo {
        fault::size(
            OP,
            "the number of queries (the released code adds v_i)",
            keys.len(),
            queries.len(),
        )?;
    }
    if bits < MOST_BITS {
        for codes in [queries, keys] {
            if let Some(row) = codes.iter().position(|c| c >> bits != 0) {
                return Err(BitFault::Tail { operation: OP, row, dim: bits });
            }
        }
    }
    Ok(channels)
}

/// Attention of `queries` over `keys` (codes of `bits` bits, bit 1 is +1) and their values `v`
/// (keys × channels) into `out` (queries × channels). Cost: linear in both.
///
/// # Errors
/// [`BitFault::Size`] where shapes or buffers disagree, [`BitFault::Empty`] without keys or
/// channels, [`BitFault::NotFinite`] for values that are not finite, [`BitFault::Limit`] beyond 16 bits or 508,400 keys, [`BitFault::Tail`] for a code with
/// more bits than `bits`.
pub fn attend(
    queries: &[u16],
    keys: &[u16],
    bits: usize,
    v: &[f32],
    variant: Variant,
    tables: Tables<'_>,
    out: &mut [f32],
) -> Result<(), BitFault> {
    const OP: &str = "hashed attention";
    let channels = check(queries, keys, bits, v, variant, out)?;
    let positions = nibbles(bits);
    let Tables { numerators, denominators, contexts } = tables;
    fault::size(OP, "the room for numerators", positions * NIBBLE * channels, numerators.len())?;
    fault::size(OP, "the room for denominators", positions * NIBBLE, denominators.len())?;
    fault::size(OP, "the room for contexts", 4 * channels, contexts.len())?;
    fill(keys, v, channels, numerators);
    fault::finite(OP, numerators).map_err(|_| not_finite(v))?;
    combine(bits, channels, variant, numerators, contexts);
    count(keys, bits, denominators);
    let c = bias(bits);
    let base = c * keys.len() as i32;
    for (i, row) in out.chunks_exact_mut(channels).enumerate() {
        let code = queries[i];
        let scale = reciprocal(code, base, denominators);
        for (ch, o) in row.iter_mut().enumerate() {
            let mut sum = numerators[usize::from(code & 15) * channels + ch];
            for p in 1..positions {
                let x = usize::from(code >> (4 * p)) & 15;
                sum += numerators[(p * NIBBLE + x) * channels + ch];
            }
            if variant == Variant::Repo {
                sum += c as f32 * v[i * channels + ch];
            }
            *o = sum * scale;
        }
    }
    Ok(())
}

/// 1/(h_i·Σh_j + N·c) of a query's code, from the table that [`count`] wrote and `base` = N·c.
#[inline]
pub fn reciprocal(code: u16, base: i32, denominators: &[i32]) -> f32 {
    let mut den = base;
    for (p, table) in denominators.chunks_exact(NIBBLE).enumerate() {
        den += table[usize::from(code >> (4 * p)) & 15];
    }
    1.0 / den as f32
}

/// The first value that spoils the sums, or the first where they overflow.
pub fn not_finite(v: &[f32]) -> BitFault {
    const OP: &str = "hashed attention";
    match fault::finite(OP, v) {
        Err(fault) => fault,
        Ok(()) => BitFault::NotFinite { operation: "sums of hashed attention", index: 0 },
    }
}

/// Adds each key's value row to its bucket of every nibble.
fn fill(keys: &[u16], v: &[f32], channels: usize, buckets: &mut [f32]) {
    buckets.fill(0.0);
    for (code, row) in keys.iter().zip(v.chunks_exact(channels)) {
        for (p, buckets) in buckets.chunks_exact_mut(NIBBLE * channels).enumerate() {
            let y = usize::from(code >> (4 * p)) & 15;
            for (b, &v) in buckets[y * channels..][..channels].iter_mut().zip(row) {
                *b += v;
            }
        }
    }
}

/// Turns bucket sums into answers: `T_p[x] = Σ_y (h(x)·h(y))·bucket_p[y]`; for [`Variant::Exact`]
/// c·Σv joins the first nibble's table.
#[inline(always)]
pub fn combine(
    bits: usize,
    channels: usize,
    variant: Variant,
    tables: &mut [f32],
    contexts: &mut [f32],
) {
    for (p, table) in tables.chunks_exact_mut(NIBBLE * channels).enumerate() {
        let width = nibble_bits(bits, p);
        for (bit, context) in contexts.chunks_exact_mut(channels).take(width).enumerate() {
            context.fill(0.0);
            for (y, bucket) in table.chunks_exact(channels).enumerate() {
                if y >> bit & 1 == 1 {
                    context.iter_mut().zip(bucket).for_each(|(c, b)| *c += b);
                } else {
                    context.iter_mut().zip(bucket).for_each(|(c, b)| *c -= b);
                }
            }
        }
        let mut total_used = false;
        if p == 0 && variant == Variant::Exact {
            // The total takes the place of bucket 0, which the contexts have already read.
            let (first, rest) = table.split_at_mut(channels);
            for bucket in rest.chunks_exact(channels) {
                first.iter_mut().zip(bucket).for_each(|(t, b)| *t += b);
            }
            let c = bias(bits) as f32;
            first.iter_mut().for_each(|t| *t *= c);
            for bucket in rest.chunks_exact_mut(channels) {
                bucket.copy_from_slice(first);
            }
            total_used = true;
        }
        for (x, entry) in table.chunks_exact_mut(channels).enumerate() {
            if !total_used {
                entry.fill(0.0);
            }
            for (bit, context) in contexts.chunks_exact(channels).take(width).enumerate() {
                if x >> bit & 1 == 1 {
                    entry.iter_mut().zip(context).for_each(|(e, c)| *e += c);
                } else {
                    entry.iter_mut().zip(context).for_each(|(e, c)| *e -= c);
                }
            }
        }
    }
}

/// `S_p[x] = Σ_j h(x)·h_p(j)`: the part of the denominator that each nibble adds.
#[inline(always)]
pub fn count(keys: &[u16], bits: usize, denominators: &mut [i32]) {
    let mut histograms = [[0i32; NIBBLE]; nibbles(MOST_BITS)];
    for code in keys {
        for (p, histogram) in histograms.iter_mut().enumerate() {
            histogram[usize::from(code >> (4 * p)) & 15] += 1;
        }
    }
    for (p, (table, histogram)) in
        denominators.chunks_exact_mut(NIBBLE).zip(&histograms).enumerate()
    {
        let width = nibble_bits(bits, p);
        for (x, s) in table.iter_mut().enumerate() {
            *s = (0..1usize << width).map(|y| histogram[y] * nibble_dot(x, y, width)).sum();
        }
    }
}
