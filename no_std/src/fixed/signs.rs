//! Products with one-bit weights and BiViT's attention, in integers.
//!
//! Packed as in [`crate::binary`], words of 32 bits. A product that reads 16-bit values adds and
//! subtracts them by tables of sixteen sums of four; one that reads signs counts bits.

use super::attention::Rows;
use super::linear::Dims;
use super::requant::Scaled;
use super::{KernelError, check_len};
use crate::Fault;
use crate::binary::bivit::attended;
use crate::binary::{BitFault, BitRows, hamming, words_for};

/// Bits of a word.
const BITS: usize = u32::BITS as usize;
/// Values whose signed sums stand in one table.
const GROUP: usize = 4;
/// Signed sums of [`GROUP`] values.
const SUMS: usize = 1 << GROUP;
/// Outputs that share the tables of a word of inputs.
const TILE: usize = 64;
/// The longest row: its sums stay within 31 bits.
const MOST_COLS: usize = 1 << 15;

/// Tables of one word of inputs: for each group of four, ±x₀ ± x₁ ± x₂ ± x₃ by their signs.
type Tables = [i32; BITS / GROUP * SUMS];

fn check(
    kernel: &'static str,
    Dims { m, k, n }: Dims,
    x: &[i16],
    words: &[u32],
    finish: &Scaled<'_>,
    out: &[i16],
) -> Result<(), KernelError> {
    check_len(kernel, "x", m.checked_mul(k), x.len())?;
    check_len(kernel, "words", n.checked_mul(words_for::<u32>(k)), words.len())?;
    check_len(kernel, "out", m.checked_mul(n), out.len())?;
    check_len(kernel, "scale", Some(n), finish.scale.len())?;
    if k == 0 || n == 0 || k > MOST_COLS {
        let (got, hi) = (k as i64, MOST_COLS as i64);
        return Err(KernelError::Domain { kernel, what: "columns", got, lo: 1, hi });
    }
    Ok(())
}

/// Products of m rows of k values with n rows of k signs; returns how many results saturated.
///
/// # Errors
/// [`KernelError`] where a slice does not fit, without columns and beyond 32,768.
pub fn matmul(
    dims: Dims,
    x: &[i16],
    words: &[u32],
    finish: Scaled<'_>,
    out: &mut [i16],
) -> Result<u64, KernelError> {
    check("signs::matmul", dims, x, words, &finish, out)?;
    let stride = words_for::<u32>(dims.k);
    let mut saturated = 0;
    for (x, out) in x.chunks_exact(dims.k).zip(out.chunks_exact_mut(dims.n)) {
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let rows = words.get(tile * TILE * stride..).unwrap_or_default();
            let mut sums = [0i32; TILE];
            for (at, x) in x.chunks(BITS).enumerate() {
                let tables = tables(x);
                let column = rows.get(at..).unwrap_or_default().iter().step_by(stride);
                for (sum, &signs) in sums.iter_mut().zip(column).take(out.len()) {
                    *sum += looked_up(&tables, signs);
                }
            }
            for (i, (o, sum)) in out.iter_mut().zip(sums).enumerate() {
                saturated += u64::from(finish.one(tile * TILE + i, sum.into(), o));
            }
        }
    }
    Ok(saturated)
}

fn tables(x: &[i16]) -> Tables {
    let mut tables = [0; BITS / GROUP * SUMS];
    for (table, group) in tables.as_chunks_mut::<SUMS>().0.iter_mut().zip(x.chunks(GROUP)) {
        let value = |i: usize| i32::from(group.get(i).copied().unwrap_or(0));
        let [a, b, c, d] = [value(0), value(1), value(2), value(3)];
        let low = [-a - b, a - b, b - a, a + b];
        let high = [-c - d, c - d, d - c, c + d];
        for (entries, high) in table.as_chunks_mut::<4>().0.iter_mut().zip(high) {
            entries.iter_mut().zip(low).for_each(|(e, low)| *e = low + high);
        }
    }
    tables
}

#[inline(always)]
fn looked_up(tables: &Tables, signs: u32) -> i32 {
    let mut sum = 0;
    for group in 0..BITS / GROUP {
        let at = group * SUMS + (signs >> (GROUP * group)) as usize % SUMS;
        sum += tables[at];
    }
    sum
}

/// Products of the signs of m rows of k values with n rows of k signs, `packed` being room for one
/// row of signs; returns how many results saturated.
///
/// # Errors
/// As [`matmul`], and where `packed` is shorter.
pub fn of_signs(
    dims: Dims,
    x: &[i16],
    words: &[u32],
    finish: Scaled<'_>,
    packed: &mut [u32],
    out: &mut [i16],
) -> Result<u64, KernelError> {
    const NAME: &str = "signs::of_signs";
    check(NAME, dims, x, words, &finish, out)?;
    let stride = words_for::<u32>(dims.k);
    let got = packed.len();
    let Some(packed) = packed.get_mut(..stride) else {
        return Err(KernelError::Length { kernel: NAME, operand: "packed", expected: stride, got });
    };
    let mut saturated = 0;
    for (x, out) in x.chunks_exact(dims.k).zip(out.chunks_exact_mut(dims.n)) {
        pack(x, packed);
        for (i, (o, weight)) in out.iter_mut().zip(words.chunks_exact(stride)).enumerate() {
            let dot = dims.k as i64 - 2 * i64::from(hamming(packed, weight));
            saturated += u64::from(finish.one(i, dot, o));
        }
    }
    Ok(saturated)
}

/// The signs of a row: 1 for values of at least zero.
fn pack(x: &[i16], words: &mut [u32]) {
    for (x, word) in x.chunks(BITS).zip(words) {
        *word = x.iter().rev().fold(0, |word, &v| word << 1 | u32::from(v >= 0));
    }
}

/// Words that the attention of one head takes for n keys of width d and dv value channels: signs of
/// keys, of values by channel, of a query, chosen keys, distances.
#[must_use]
pub const fn attention_words(n: usize, d: usize, dv: usize) -> usize {
    (n + 1) * words_for::<u32>(d) + (dv + 1) * words_for::<u32>(n) + n
}

/// BiViT attention of one head on the signs of 16-bit values ([`crate::binary::bivit`]): row i of
/// `out`, rows being `stride` apart, is Σ_j a_ij·sign v_j, over Σ_j a_ij if `mean`, with `frac`
/// fraction bits, rounded half up. Returns how many results saturated.
///
/// # Errors
/// Shapes that do not go together, more than 255 columns, too few `words`.
pub fn attend(
    (q, k, v): (Rows<'_>, Rows<'_>, Rows<'_>),
    margin: u32,
    mean: bool,
    frac: i16,
    words: &mut [u32],
    (out, stride): (&mut [i16], usize),
) -> Result<u64, Fault> {
    let (n, d, dv) = (k.rows(), k.cols(), v.cols());
    if n > MOST_COLS {
        return Err(Fault::Capacity { what: "keys of attention on signs", limit: MOST_COLS });
    }
    let (needed, available) = (attention_words(n, d, dv), words.len());
    let (per_row, per_channel) = (words_for::<u32>(d), words_for::<u32>(n));
    let short = Fault::Memory { needed, available };
    let (keys, rest) = words.split_at_mut_checked(n * per_row).ok_or(short)?;
    let (values, rest) = rest.split_at_mut_checked(dv * per_channel).ok_or(short)?;
    let (query, rest) = rest.split_at_mut_checked(per_row).ok_or(short)?;
    let (mask, rest) = rest.split_at_mut_checked(per_channel).ok_or(short)?;
    let distances = rest.get_mut(..n).ok_or(short)?;
    for (j, words) in keys.chunks_exact_mut(per_row.max(1)).enumerate() {
        pack(k.row(j), words);
    }
    values.fill(0);
    for j in 0..n {
        let of_key = values.iter_mut().skip(j / BITS).step_by(per_channel.max(1));
        for (word, &x) in of_key.zip(v.row(j)) {
            *word |= u32::from(x >= 0) << (j % BITS);
        }
    }
    let keys = BitRows::new(keys, n, d)?;
    let mut saturated = 0;
    for (i, out) in out.chunks_mut(stride.max(1)).enumerate() {
        pack(q.row(i), query);
        let count = attended(query, keys, margin, distances, mask)?;
        for (o, values) in out.iter_mut().zip(values.chunks_exact(per_channel.max(1))) {
            let hit: u32 = mask.iter().zip(values).map(|(&a, &v)| (a & v).count_ones()).sum();
            let sum = 2 * i64::from(hit) - i64::from(count);
            let (value, over) = narrow(sum, if mean { count } else { 1 }, frac);
            *o = value;
            saturated += u64::from(over);
        }
    }
    Ok(saturated)
}

/// `sum / count` with `frac` fraction bits, half up.
#[inline]
fn narrow(sum: i64, count: u32, frac: i16) -> (i16, bool) {
    let twice = super::requant::round_shift(2 * sum, -i32::from(frac)) as i32;
    let count = count as i32;
    let value = (twice + count).checked_div_euclid(2 * count).unwrap_or(0);
    super::Narrow::narrow(value.into())
}

impl From<BitFault> for Fault {
    fn from(fault: BitFault) -> Self {
        let shape = |n| crate::Shape::new(1, 1, n);
        match fault {
            BitFault::Size { operation, expected, got, .. } => {
                Self::Shape { op: operation, left: shape(got), right: shape(expected) }
            }
            BitFault::Limit { what, most, .. } => Self::Capacity { what, limit: most },
            BitFault::Empty { operation, .. } => Self::Empty { op: operation, shape: shape(0) },
            BitFault::Tail { row, .. } => {
                Self::Parameter { what: "a row with signs beyond its columns", got: row as i64 }
            }
            BitFault::NotFinite { index, .. } => {
                Self::Parameter { what: "a value that is not finite", got: index as i64 }
            }
        }
    }
}

#[cfg(test)]
#[path = "signs_tests.rs"]
mod tests;
