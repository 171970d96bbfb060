//! EcoFormer attention: tokens hashed to codes, then linear attention on the codes.
//!
//! The equations, the order of every sum and the two variants stand in
//! [`undertone_core::binary::hash`] and [`undertone_core::binary::ecoformer`]; here are owned
//! hashes and the fast forms.

use crate::Level;
use crate::simd::lanes::{self, ANCHORS, Floats, LANES, Layout, Pass, Slack, Words};
use undertone_core::binary::ecoformer::{self as portable, NIBBLE, Tables};
use undertone_core::binary::hash::{self, LEAST_SIGMA};
use undertone_core::binary::{self as core, BitFault};

pub use portable::Variant;
pub use undertone_core::binary::Sigma;

/// A trained hash of one head.
#[derive(Clone, Debug)]
pub struct Hash {
    dim: usize,
    anchors: Vec<f32>,
    planes: Vec<f32>,
    means: Vec<f32>,
    thresholds: Vec<f32>,
    sigma: Sigma,
    layout: Layout,
}

impl Hash {
    /// A hash of tokens of `dim` values: `anchors` m × dim, `planes` bits × m, `means` m. The means
    /// become thresholds, one a bit.
    ///
    /// # Errors
    /// [`BitFault`] for shapes that do not fit, more than 16 bits, or constants that are not finite.
    pub fn new(
        dim: usize,
        anchors: Vec<f32>,
        planes: Vec<f32>,
        means: Vec<f32>,
        sigma: Sigma,
    ) -> Result<Self, BitFault> {
        if means.is_empty() {
            return Err(BitFault::Empty { operation: "hash", what: "the set of means" });
        }
        let bits = planes.len() / means.len();
        let mut thresholds = vec![0.0; bits];
        hash::thresholds(&planes, &means, &mut thresholds)?;
        core::finite("hash means", &means)?;
        let view = core::Hash::new(dim, &anchors, &planes, &thresholds, sigma)?;
        if view.anchor_count() != means.len() {
            return Err(BitFault::Size {
                operation: "hash",
                what: "the number of means",
                expected: view.anchor_count(),
                got: means.len(),
            });
        }
        let layout = layout(&view);
        Ok(Self { dim, anchors, planes, means, thresholds, sigma, layout })
    }

    /// Values in a token.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bits in a code.
    pub fn bits(&self) -> usize {
        self.thresholds.len()
    }

    /// Anchors, m × dim.
    pub fn anchors(&self) -> &[f32] {
        &self.anchors
    }

    /// Hash planes, bits × m.
    pub fn planes(&self) -> &[f32] {
        &self.planes
    }

    /// Kernel means of the training tokens, m.
    pub fn means(&self) -> &[f32] {
        &self.means
    }

    /// The kernel width's rule.
    pub fn sigma(&self) -> Sigma {
        self.sigma
    }

    /// The hash as the portable kernels take it.
    pub fn view(&self) -> core::Hash<'_> {
        core::Hash::new(self.dim, &self.anchors, &self.planes, &self.thresholds, self.sigma)
            .expect("the constructor checked the same values")
    }

    /// Codes of the tokens `x` (n × dim).
    ///
    /// # Errors
    /// [`BitFault::Size`] for a broken last token, [`BitFault::NotFinite`] for NaN and infinities.
    pub fn codes(&self, x: &[f32]) -> Result<Vec<u16>, BitFault> {
        let mut out = vec![0; x.len() / self.dim];
        self.codes_at(Level::best(), x, &mut out)?;
        Ok(out)
    }

    /// [`Hash::codes`] with a chosen set of instructions, into the caller's memory.
    ///
    /// # Errors
    /// As [`Hash::codes`].
    pub fn codes_at(&self, level: Level, x: &[f32], out: &mut [u16]) -> Result<(), BitFault> {
        let level = level.clamped();
        let mut inverse = vec![0.0; out.len()];
        let mut sum = vec![0.0; 2 * self.dim];
        let (sum, part) = sum.split_at_mut(self.dim);
        if level == Level::Portable || x.len() != out.len() * self.dim {
            return self.view().codes(x, &mut inverse, sum, out);
        }
        let summed = self.sigma == Sigma::Dynamic;
        if !directions(level, x, &mut inverse, summed.then_some((&mut *sum, part))) {
            return hash::normalisers(x, self.dim, &mut inverse);
        }
        let view = self.view();
        let exponent = view.exponent(|| hash::mean_distance(&view, &inverse, sum));
        codes(level, &self.layout, x, &inverse, exponent, out);
        Ok(())
    }

    /// The σ that this input's tokens give (never below [`LEAST_SIGMA`]).
    ///
    /// # Errors
    /// As [`Hash::codes`].
    pub fn measured_sigma(&self, x: &[f32]) -> Result<f32, BitFault> {
        let mut inverse = vec![0.0; x.len() / self.dim];
        let mut sum = vec![0.0; self.dim];
        hash::normalisers(x, self.dim, &mut inverse)?;
        hash::sum_of_directions(x, &inverse, &mut sum);
        Ok(hash::mean_distance(&self.view(), &inverse, &sum).max(LEAST_SIGMA))
    }
}

fn layout(hash: &core::Hash<'_>) -> Layout {
    let (m, dim) = (hash.anchor_count(), hash.dim());
    let passes = m.div_ceil(ANCHORS);
    let anchor = |pass: usize, half: usize, lane: usize| pass * ANCHORS + half * LANES + lane;
    let per_lane = |f: &dyn Fn(usize) -> f32| Floats(std::array::from_fn(f));
    let mut anchors = Vec::with_capacity(passes * dim);
    let mut norms = Vec::with_capacity(passes);
    for pass in 0..passes {
        let two = |value: &dyn Fn(&[f32]) -> f32| {
            std::array::from_fn(|half| {
                per_lane(&|lane| {
                    let a = anchor(pass, half, lane);
                    if a < m { value(&hash.anchors()[a * dim..(a + 1) * dim]) } else { 0.0 }
                })
            })
        };
        anchors.extend((0..dim).map(|k| two(&|row| row[k])));
        norms.push(two(&hash::squared_norm));
    }
    let planes = (0..m)
        .map(|j| per_lane(&|b| if b < hash.bits() { hash.planes()[b * m + j] } else { 0.0 }))
        .collect();
    let thresholds = per_lane(&|b| hash.thresholds().get(b).copied().unwrap_or(0.0));
    let words = Words::new(hash.anchors(), dim);
    let slack = Slack::new(hash.planes(), hash.anchors(), &words.errors, dim, hash.bits());
    Layout { dim, bits: hash.bits(), anchors, norms, planes, thresholds, words, slack }
}

/// Runs a kernel at a level.
macro_rules! at {
    ($level:expr, $($kernel:tt)*) => {
        match $level {
            // SAFETY: levels are clamped to what was detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { lanes::wide512::$($kernel)* },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { lanes::wide256::$($kernel)* },
            _ => lanes::$($kernel)*,
        }
    };
}

/// 1/‖x‖ of every token, and Σ x̂ where there is room for it and for a part of it; `false` where a
/// squared length is not finite.
fn directions(
    level: Level,
    x: &[f32],
    inverse: &mut [f32],
    sum: Option<(&mut [f32], &mut [f32])>,
) -> bool {
    let dim = x.len() / inverse.len().max(1);
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        let sum = sum.map(|(sum, _)| sum);
        // SAFETY: the level is clamped to what was detected; the caller checked the sizes.
        return unsafe { crate::simd::hash512::directions(x, dim, inverse, sum) };
    }
    let fine = at!(level, normalisers(x, dim, inverse));
    if let (true, Some((sum, part))) = (fine, sum) {
        at!(level, sum_of_directions(x, inverse, sum, part));
    }
    fine
}

fn codes(level: Level, hash: &Layout, x: &[f32], inverse: &[f32], exponent: f32, out: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        // SAFETY: the level is clamped to what was detected; the caller checked the sizes.
        return unsafe { crate::simd::hash512::codes(hash, x, inverse, exponent, out) };
    }
    at!(level, codes(hash, x, inverse, exponent, out));
}

/// Attention of `queries` over `keys` (codes of `bits` bits) and values `v` (keys × channels) into
/// `out` (queries × channels), at a cost linear in both.
///
/// ```
/// use undertone_binary::ecoformer::{Variant, attend};
/// let mut out = [0.0; 2];
/// // Codes 01 and 10 of two bits: h·h is 2 with itself and −2 with the other; c = 3.
/// attend(&[0b01, 0b10], &[0b01, 0b10], 2, &[1.0, 0.0], Variant::Exact, &mut out)?;
/// assert!((out[0] - 5.0 / 6.0).abs() < 1e-6 && (out[1] - 1.0 / 6.0).abs() < 1e-6);
/// # Ok::<(), undertone_core::binary::BitFault>(())
/// ```
///
/// # Errors
/// [`BitFault`] where shapes disagree, without keys, for codes with more than `bits` bits, or
/// values that are not finite.
pub fn attend(
    queries: &[u16],
    keys: &[u16],
    bits: usize,
    v: &[f32],
    variant: Variant,
    out: &mut [f32],
) -> Result<(), BitFault> {
    attend_at(Level::best(), queries, keys, bits, v, variant, out)
}

/// [`attend`] with a chosen set of instructions, or the machine's best below it.
///
/// # Errors
/// As [`attend`].
pub fn attend_at(
    level: Level,
    queries: &[u16],
    keys: &[u16],
    bits: usize,
    v: &[f32],
    variant: Variant,
    out: &mut [f32],
) -> Result<(), BitFault> {
    let level = level.clamped();
    let channels = portable::check(queries, keys, bits, v, variant, out)?;
    let positions = portable::nibbles(bits);
    let mut denominators = vec![0; positions * NIBBLE];
    if level == Level::Portable {
        let tables = Tables {
            numerators: &mut vec![0.0; positions * NIBBLE * channels],
            denominators: &mut denominators,
            contexts: &mut vec![0.0; 4 * channels],
        };
        return portable::attend(queries, keys, bits, v, variant, tables, out);
    }
    portable::count(keys, bits, &mut denominators);
    let base = portable::bias(bits) * keys.len() as i32;
    let mut inverse = vec![0.0; queries.len()];
    reciprocals(level, queries, base, &denominators, &mut inverse);
    let pass =
        |v, stride, at| Pass { queries, keys, bits, variant, v, stride, at, inverse: &inverse };
    let mut tables = vec![Floats([0.0; LANES]); positions * NIBBLE * 4];
    let tables = crate::simd::floats(&mut tables);
    let mut at = 0;
    while at < channels {
        let (done, width) = match channels - at {
            64.. => (at!(level, attend::<64>(pass(v, channels, at), tables, out)), 64),
            32.. => (at!(level, attend::<32>(pass(v, channels, at), tables, out)), 32),
            16.. => (at!(level, attend::<16>(pass(v, channels, at), tables, out)), 16),
            left => (padded(level, pass(v, channels, at), left, tables, out), left),
        };
        if !done {
            return Err(portable::not_finite(v));
        }
        at += width;
    }
    Ok(())
}

fn reciprocals(level: Level, codes: &[u16], base: i32, tables: &[i32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        let (tables, _) = tables.as_chunks::<NIBBLE>();
        // SAFETY: the level is clamped to what was detected; a code has at most four nibbles.
        return unsafe { crate::simd::hash512::reciprocals(codes, base, tables, out) };
    }
    let _ = level;
    for (code, o) in codes.iter().zip(out) {
        *o = portable::reciprocal(*code, base, tables);
    }
}

/// The last `left` < 16 columns, widened with zeros.
fn padded(level: Level, pass: Pass<'_>, left: usize, tables: &mut [f32], out: &mut [f32]) -> bool {
    let Pass { v, stride, at, .. } = pass;
    let mut wide = vec![0.0; pass.keys.len() * LANES];
    for (to, row) in wide.chunks_exact_mut(LANES).zip(v.chunks_exact(stride)) {
        to[..left].copy_from_slice(&row[at..at + left]);
    }
    let mut result = vec![0.0; pass.queries.len() * LANES];
    let narrow = Pass { v: &wide, stride: LANES, at: 0, ..pass };
    let done = at!(level, attend::<16>(narrow, tables, &mut result));
    for (to, row) in out.chunks_exact_mut(stride).zip(result.chunks_exact(LANES)) {
        to[at..at + left].copy_from_slice(&row[..left]);
    }
    done
}
