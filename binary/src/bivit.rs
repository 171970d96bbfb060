//! BiViT attention at the speed of popcount: bits in, integers or bits out, no softmax.
//!
//! The threshold form and its proof stand in [`undertone_core::binary::bivit`]; here are its fast
//! forms. One head: queries n × d, keys m × d, values m × c, all signs.

use crate::layout::{BLOCK, Bytes, Line, Planes, Slices};
use crate::{Level, Signs};
use undertone_core::binary::bivit::{self as portable, Scratch};
use undertone_core::binary::{BitFault, hamming_matrix, words_for};

pub use portable::margin;

/// The margin of any threshold β in (0, 1]: ⌊ln(1/β)·√d/2⌋.
///
/// ```
/// use undertone_binary::bivit::{margin, margin_of};
/// assert_eq!(margin_of(0.25, 64), margin(64));
/// ```
pub fn margin_of(beta: f64, dim: usize) -> u32 {
    ((1.0 / beta).ln() * (dim as f64).sqrt() / 2.0).floor().clamp(0.0, 255.0) as u32
}

fn check(q: &Signs, k: &Signs, v: &Signs, out: usize) -> Result<(), BitFault> {
    check_shapes(q, k, (v.rows(), v.dim()), out)
}

fn check_shapes(
    q: &Signs,
    k: &Signs,
    (values, channels): (usize, usize),
    out: usize,
) -> Result<(), BitFault> {
    let size = |what, expected, got| {
        if expected == got {
            Ok(())
        } else {
            Err(BitFault::Size { operation: "binary attention", what, expected, got })
        }
    };
    size("the columns of the keys", q.dim(), k.dim())?;
    size("the rows of the values", k.rows(), values)?;
    size("the number of outputs", q.rows() * channels, out)?;
    if k.rows() == 0 {
        return Err(BitFault::Empty { operation: "binary attention", what: "the set of keys" });
    }
    Ok(())
}

/// `out[i·c + ch] = Σ_j a_ij·v_j,ch` with a_ij = 1 where key j's distance is within `margin` of the
/// least, n × c integers.
///
/// ```
/// use undertone_binary::{Signs, bivit};
/// let x = Signs::pack(&[1.0, 1.0, -1.0, -1.0], 2)?;
/// let mut out = [0; 4];
/// bivit::attend(&x, &x, &x, bivit::margin(2), &mut out)?;
/// assert_eq!(out, [1, 1, -1, -1]); // every token attends to itself alone
/// # Ok::<(), undertone_core::binary::BitFault>(())
/// ```
///
/// # Errors
/// [`BitFault`] where shapes disagree, without keys, or above 255 columns.
pub fn attend(
    q: &Signs,
    k: &Signs,
    v: &Signs,
    margin: u32,
    out: &mut [i32],
) -> Result<(), BitFault> {
    attend_at(Level::best(), q, k, v, margin, out)
}

/// [`attend`] with a chosen set of instructions, or the machine's best below it.
///
/// # Errors
/// As [`attend`].
pub fn attend_at(
    level: Level,
    q: &Signs,
    k: &Signs,
    v: &Signs,
    margin: u32,
    out: &mut [i32],
) -> Result<(), BitFault> {
    check(q, k, v, out.len())?;
    let channels = v.dim();
    if level.clamped() == Level::Portable {
        let v = v.transposed()?;
        let scratch = Scratch {
            distances: &mut vec![0; k.rows()],
            mask: &mut vec![0; words_for::<u64>(k.rows())],
        };
        return portable::attend(q.view(), k.view(), v.view(), margin, scratch, out);
    }
    each_row(level, q, k, v, margin, |i, row, _| {
        out[i * channels..(i + 1) * channels].copy_from_slice(row);
    })
}

/// [`attend_at`] that also tells how many keys each query attends to (`counts`, one a query).
///
/// # Errors
/// As [`attend`].
pub fn attend_counted(
    level: Level,
    q: &Signs,
    k: &Signs,
    v: &Signs,
    margin: u32,
    out: &mut [i32],
    counts: &mut [u32],
) -> Result<(), BitFault> {
    check(q, k, v, out.len())?;
    let channels = v.dim();
    each_row(level, q, k, v, margin, |i, row, count| {
        out[i * channels..(i + 1) * channels].copy_from_slice(row);
        if let Some(c) = counts.get_mut(i) {
            *c = count;
        }
    })
}

/// Binary attention over float values (keys × channels): the chosen values added up in the order of
/// the keys, and how many there are. `out` is queries × channels.
///
/// # Errors
/// As [`attend`]; [`BitFault::NotFinite`] for values that are not finite.
pub fn attend_floats(
    level: Level,
    q: &Signs,
    k: &Signs,
    v: &[f32],
    margin: u32,
    out: &mut [f32],
    counts: &mut [u32],
) -> Result<(), BitFault> {
    let channels = v.len() / k.rows().max(1);
    check_shapes(q, k, (v.len() / channels.max(1), channels), out.len())?;
    undertone_core::binary::finite("binary attention", v)?;
    let planes = Planes::new(k.view())?;
    let blocks = k.rows().div_ceil(BLOCK);
    let tail = u64::MAX >> (blocks * BLOCK - k.rows());
    let mut mask = vec![0; blocks];
    rows_of_distances(level, q, &planes, &mut vec![Line::ZERO; 2 * blocks], |i, lines, least| {
        let most = (u32::from(least) + margin).min(255) as u8;
        let count = within(level, lines, most, tail, &mut mask);
        if let Some(c) = counts.get_mut(i) {
            *c = count;
        }
        let row = &mut out[i * channels..(i + 1) * channels];
        row.fill(0.0);
        for (block, &word) in mask.iter().enumerate() {
            let mut left = word;
            while left != 0 {
                let j = block * BLOCK + left.trailing_zeros() as usize;
                row.iter_mut().zip(&v[j * channels..]).for_each(|(o, v)| *o += v);
                left &= left - 1;
            }
        }
    });
    Ok(())
}

/// [`attend`], its signs only (zero counts as +1): what a binary output projection reads.
///
/// # Errors
/// As [`attend`].
pub fn attend_signs(q: &Signs, k: &Signs, v: &Signs, margin: u32) -> Result<Signs, BitFault> {
    let (channels, stride) = (v.dim(), words_for::<u64>(v.dim()));
    check(q, k, v, q.rows() * channels)?;
    let mut words = vec![0u64; q.rows() * stride];
    let mut put = |i: usize, row: &[i32]| {
        for (word, part) in words[i * stride..(i + 1) * stride].iter_mut().zip(row.chunks(64)) {
            *word = part.iter().enumerate().fold(0, |w, (j, &x)| w | u64::from(x >= 0) << j);
        }
    };
    if Level::best() == Level::Portable {
        let mut out = vec![0; q.rows() * channels];
        attend_at(Level::Portable, q, k, v, margin, &mut out)?;
        out.chunks_exact(channels).enumerate().for_each(|(i, row)| put(i, row));
    } else {
        each_row(Level::best(), q, k, v, margin, |i, row, _| put(i, row))?;
    }
    Signs::from_words(words, q.rows(), channels)
}

/// Distances of every query to every key, one byte each, n × m.
///
/// # Errors
/// [`BitFault`] where widths disagree or lie above 255 columns.
pub fn distances(level: Level, q: &Signs, k: &Signs, out: &mut [u8]) -> Result<(), BitFault> {
    if level.clamped() == Level::Portable || k.rows() == 0 || q.dim() != k.dim() {
        return hamming_matrix(q.view(), k.view(), out);
    }
    if out.len() != q.rows() * k.rows() {
        return hamming_matrix(q.view(), k.view(), out);
    }
    let planes = Planes::new(k.view())?;
    let mut room = vec![Line::ZERO; 2 * k.rows().div_ceil(BLOCK)];
    let n = k.rows();
    rows_of_distances(level, q, &planes, &mut room, |i, lines, _| {
        for (line, to) in lines.iter().zip(out[i * n..(i + 1) * n].chunks_mut(64)) {
            for (word, to) in line.0.iter().zip(to.chunks_mut(8)) {
                to.copy_from_slice(&word.to_le_bytes()[..to.len()]);
            }
        }
    });
    Ok(())
}

/// Hands each query's distances (lines of 64 keys) and least distance to `each`, in order.
///
/// `room` is two rows of distances. This is QKᵀ alone, as the benchmark measures it.
pub fn rows_of_distances(
    level: Level,
    q: &Signs,
    keys: &Planes,
    room: &mut [Line],
    each: impl FnMut(usize, &[Line], u8),
) {
    let (words, stride) = (q.words(), q.view().stride());
    assert!(room.len() >= 2 * keys.keys().div_ceil(BLOCK), "room for two rows of distances");
    assert_eq!(q.dim(), keys.dim(), "queries and keys of one width");
    if q.rows() == 0 || keys.keys() == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    match level.clamped() {
        Level::Avx512 => {
            // SAFETY: `clamped` never exceeds what was detected.
            return unsafe {
                crate::simd::avx512::hamming_rows(words, stride, keys, room, each);
            };
        }
        Level::Avx2 => {
            // SAFETY: as above.
            return unsafe { crate::simd::avx2::hamming_rows(words, stride, keys, room, each) };
        }
        Level::Portable => {}
    }
    rows_portably(words, stride, keys, room, each);
}

/// The same rows from the same planes in plain Rust.
fn rows_portably(
    words: &[u64],
    stride: usize,
    keys: &Planes,
    room: &mut [Line],
    mut each: impl FnMut(usize, &[Line], u8),
) {
    let room = &mut room[..keys.keys().div_ceil(BLOCK)];
    for (i, query) in words.chunks_exact(stride).enumerate() {
        let mut least = u8::MAX;
        for (b, (block, out)) in keys.lines.chunks_exact(keys.planes).zip(&mut *room).enumerate() {
            *out = Line([u64::MAX; 8]);
            for j in 0..BLOCK.min(keys.keys() - b * BLOCK) {
                let (lane, shift) = (j / 8, 8 * (j % 8));
                let distance: u32 = block
                    .iter()
                    .enumerate()
                    .map(|(p, line)| {
                        let key = line.0[lane] >> shift;
                        ((key ^ query[p / 8] >> (8 * (p % 8))) as u8).count_ones()
                    })
                    .sum();
                out.0[lane] &= !(0xff << shift);
                out.0[lane] |= u64::from(distance) << shift;
                least = least.min(distance as u8);
            }
        }
        each(i, room, least);
    }
}

fn each_row(
    level: Level,
    q: &Signs,
    k: &Signs,
    v: &Signs,
    margin: u32,
    mut each: impl FnMut(usize, &[i32], u32),
) -> Result<(), BitFault> {
    let planes = Planes::new(k.view())?;
    // For queries that attend to many keys.
    let mut slices = None;
    let blocks = k.rows().div_ceil(BLOCK);
    let tail = u64::MAX >> (blocks * BLOCK - k.rows());
    let mut room = vec![Line::ZERO; 2 * blocks];
    let mut masks = [vec![0u64; blocks], vec![0u64; blocks]];
    let mut rows = [vec![0i32; v.dim()], vec![0i32; v.dim()]];
    // Rows of V as bytes, for queries that attend to few keys.
    let wide = level.clamped() == Level::Avx512 && k.rows() < 1 << 16;
    let bytes = wide.then(|| spread(v));
    let mut list = vec![0u16; if wide { 64 * blocks } else { 0 }];
    let mut waiting: Option<(usize, u32)> = None;
    let most = |least: u8| (u32::from(least) + margin).min(255) as u8;
    rows_of_distances(level, q, &planes, &mut room, |i, lines, least| {
        let [ma, mb] = &mut masks;
        let [ra, rb] = &mut rows;
        let mask = if waiting.is_some() { &mut *mb } else { &mut *ma };
        let count = within(level, lines, most(least), tail, mask);
        if let Some(bytes) = bytes.as_ref().filter(|b| few(count, k.rows(), b, v.dim())) {
            add_rows(mask, bytes, count, &mut list, ra);
            each(i, ra, count);
        } else if let Some((before, first)) = waiting.take() {
            // Queries go in pairs: both share the reading of V.
            let base = [-(first as i32), -(count as i32)];
            let values = slices.get_or_insert_with(|| Slices::transposed(v.view()));
            count_pair::<false>(level, [ma, mb], values, 2, base, [ra, rb]);
            each(before, ra, first);
            each(i, rb, count);
        } else {
            waiting = Some((i, count));
        }
        if i + 1 == q.rows()
            && let Some((before, first)) = waiting.take()
        {
            let base = [-(first as i32); 2];
            let values = slices.get_or_insert_with(|| Slices::transposed(v.view()));
            count_pair::<false>(level, [ma, ma], values, 2, base, [ra, rb]);
            each(before, ra, first);
        }
    });
    Ok(())
}

/// Whether adding up the chosen rows of V costs less than counting the bits of all: about 3/2 cycles a
/// word of 64 keys and group of 8 channels for counting, against five cycles a word to list the rows
/// and two a chosen row and line of 64 channels (fitted to both forms' times on one AVX-512 machine).
fn few(count: u32, keys: usize, bytes: &Bytes, channels: usize) -> bool {
    let words = keys.div_ceil(64);
    2 * (5 * words + 2 * count as usize * bytes.each) <= 3 * words * channels.div_ceil(8)
}

/// Rows of V as bytes. Only reached at the level that adds them up.
fn spread(v: &Signs) -> Bytes {
    let each = v.view().stride();
    let mut lines = vec![Line::ZERO; v.words().len()];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: only at this level, which was detected; a line a word.
    unsafe {
        crate::simd::avx512::spread(v.words(), &mut lines);
    }
    Bytes { lines, each }
}

/// `out[c] = 2·Σ_j v_jc − count` over the keys of a mask. Only reached at the level that has it.
fn add_rows(mask: &[u64], bytes: &Bytes, count: u32, list: &mut [u16], out: &mut [i32]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: bytes exist only at this level, which was detected; the mask's tail is clear, so its
    // bits are keys, which have a row each.
    unsafe {
        crate::simd::avx512::sum_rows(mask, bytes, count, list, out);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (mask, bytes, count, list, out);
}

fn within(level: Level, lines: &[Line], most: u8, tail: u64, mask: &mut [u64]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    match level.clamped() {
        // SAFETY: `clamped` never exceeds what was detected.
        Level::Avx512 => return unsafe { crate::simd::avx512::within(lines, most, tail, mask) },
        // SAFETY: as above.
        Level::Avx2 => return unsafe { crate::simd::avx2::within(lines, most, tail, mask) },
        Level::Portable => {}
    }
    let last = mask.len() - 1;
    let mut count = 0;
    for (i, (line, word)) in lines.iter().zip(mask.iter_mut()).enumerate() {
        *word = (0..BLOCK).fold(0, |w, j| {
            let distance = (line.0[j / 8] >> (8 * (j % 8))) as u8;
            w | u64::from(distance <= most) << j
        });
        if i == last {
            *word &= tail;
        }
        count += word.count_ones();
    }
    count
}

/// `out[i][r] = factor·pop(x_i ∘ slice_r) + base[i]`, ∘ being ⊕ or ∧, for two vectors at once.
pub(crate) fn count_pair<const XOR: bool>(
    level: Level,
    x: [&[u64]; 2],
    slices: &Slices,
    factor: i32,
    base: [i32; 2],
    out: [&mut [i32]; 2],
) {
    let words = slices.dim().div_ceil(64);
    assert!(x.iter().all(|x| x.len() == words), "one word a slice");
    assert!(out.iter().all(|o| o.len() == slices.rows()), "one place a row");
    #[cfg(target_arch = "x86_64")]
    match level.clamped() {
        Level::Avx512 => {
            // SAFETY: `clamped` never exceeds what was detected; sizes were checked above.
            return unsafe {
                crate::simd::avx512::count_rows::<XOR>(x, slices, factor, base, out);
            };
        }
        Level::Avx2 => {
            for ((x, base), out) in x.into_iter().zip(base).zip(out) {
                // SAFETY: as above.
                unsafe { crate::simd::avx2::count_row::<XOR>(x, slices, factor, base, out) };
            }
            return;
        }
        Level::Portable => {}
    }
    for ((x, base), out) in x.into_iter().zip(base).zip(out) {
        for (r, o) in out.iter_mut().enumerate() {
            let count: u32 = x
                .iter()
                .enumerate()
                .map(|(w, &word)| {
                    let slice = slices.lines[w * slices.groups + r / 8].0[r % 8];
                    if XOR { word ^ slice } else { word & slice }.count_ones()
                })
                .sum();
            *o = factor * count as i32 + base;
        }
    }
}
