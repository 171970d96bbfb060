//! EcoFormer's kernelized hash (Liu et al., "EcoFormer: Energy-Saving Attention with Linear
//! Complexity", arXiv 2209.09004, section 3.2): tokens become b-bit codes.
//!
//! x̂ = x/‖x‖, κ_j = exp(−‖x̂ − a_j‖²/2σ) for m anchors, h = sign(A(κ − μ)). The mean μ never meets
//! a token here: A·μ is a threshold, one number a bit.
//!
//! The order of every sum is fixed, so that a vector unit that keeps the order gives the same bits.

use super::fault::{self, BitFault};

/// The most bits in a code.
pub const MOST_BITS: usize = 16;

/// How wide the kernel is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sigma {
    /// σ is the mean of ‖x̂_i − a_j‖² over this input's tokens and all anchors, as EcoFormer has it:
    /// the code of a token depends on the other tokens.
    Dynamic,
    /// σ measured in training: tokens hash alone, and the squared distance is all that is left.
    Frozen(f32),
}

/// The smallest kernel width: below it distances are rounding noise. Reached when all tokens lie
/// on the anchors (one token that is its own anchor).
pub const LEAST_SIGMA: f32 = 1e-6;

/// A trained hash, borrowed. Build it with [`Hash::new`].
#[derive(Clone, Copy, Debug)]
pub struct Hash<'a> {
    dim: usize,
    bits: usize,
    anchors: &'a [f32],
    planes: &'a [f32],
    thresholds: &'a [f32],
    sigma: Sigma,
}

impl<'a> Hash<'a> {
    /// A hash of `dim` values to `bits` bits over m anchors: `anchors` m × dim, `planes` bits × m,
    /// `thresholds` one a bit, Σ_j planes_bj·μ_j ([`thresholds`] computes it).
    ///
    /// # Errors
    /// [`BitFault::Size`], [`BitFault::Empty`] or [`BitFault::Limit`] for shapes that do not fit,
    /// [`BitFault::NotFinite`] for constants (or a frozen σ) that are not positive numbers.
    pub fn new(
        dim: usize,
        anchors: &'a [f32],
        planes: &'a [f32],
        thresholds: &'a [f32],
        sigma: Sigma,
    ) -> Result<Self, BitFault> {
        const OP: &str = "hash";
        fault::some(OP, "a token", dim)?;
        let m = anchors.len() / dim;
        fault::some(OP, "the set of anchors", m)?;
        fault::size(OP, "the number of anchor values", m * dim, anchors.len())?;
        let bits = thresholds.len();
        fault::some(OP, "a code", bits)?;
        fault::limit(OP, "the bits of a code", MOST_BITS, bits)?;
        fault::size(OP, "the number of plane values", bits * m, planes.len())?;
        fault::finite(OP, anchors)?;
        fault::finite(OP, planes)?;
        fault::finite(OP, thresholds)?;
        if let Sigma::Frozen(s) = sigma
            && !(s.is_finite() && s > 0.0)
        {
            return Err(BitFault::NotFinite { operation: "hash sigma", index: 0 });
        }
        Ok(Self { dim, bits, anchors, planes, thresholds, sigma })
    }

    /// Values in a token.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bits in a code.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// The number of anchors m.
    pub fn anchor_count(&self) -> usize {
        self.anchors.len() / self.dim
    }

    /// Anchors, m × dim.
    pub fn anchors(&self) -> &'a [f32] {
        self.anchors
    }

    /// Hash planes A, bits × m.
    pub fn planes(&self) -> &'a [f32] {
        self.planes
    }

    /// A·μ, one a bit.
    pub fn thresholds(&self) -> &'a [f32] {
        self.thresholds
    }

    /// The kernel width's rule.
    pub fn sigma(&self) -> Sigma {
        self.sigma
    }

    /// Codes of the tokens `x` (n × dim): bit b of `codes[i]` is set where (A κ_i)_b ≥ (A μ)_b.
    /// `norms` (n values) and `sum` (dim values) are the caller's memory.
    ///
    /// A zero token has no direction: it is hashed as the zero vector.
    ///
    /// # Errors
    /// [`BitFault::Size`] where buffers disagree, [`BitFault::NotFinite`] for NaN, infinities and
    /// tokens whose squared length overflows.
    pub fn codes(
        &self,
        x: &[f32],
        norms: &mut [f32],
        sum: &mut [f32],
        codes: &mut [u16],
    ) -> Result<(), BitFault> {
        const OP: &str = "hash";
        let n = codes.len();
        fault::size(OP, "the number of values", n * self.dim, x.len())?;
        fault::size(OP, "the room for norms", n, norms.len())?;
        fault::size(OP, "the room for the token sum", self.dim, sum.len())?;
        normalisers(x, self.dim, norms)?;
        let exponent = self.exponent(|| {
            sum_of_directions(x, norms, sum);
            mean_distance(self, norms, sum)
        });
        for ((token, &r), code) in x.chunks_exact(self.dim).zip(&*norms).zip(codes) {
            *code = self.code(token, r, exponent);
        }
        Ok(())
    }

    /// −log₂e/2σ: the kernel is 2^(exponent · squared distance).
    pub fn exponent(&self, dynamic: impl FnOnce() -> f32) -> f32 {
        let sigma = match self.sigma {
            Sigma::Dynamic => dynamic(),
            Sigma::Frozen(s) => s,
        };
        -core::f32::consts::LOG2_E / (2.0 * sigma.max(LEAST_SIGMA))
    }

    fn code(&self, token: &[f32], r: f32, exponent: f32) -> u16 {
        let m = self.anchor_count();
        let length = if r > 0.0 { 1.0 } else { 0.0 };
        let mut y = [0.0f32; MOST_BITS];
        for (j, anchor) in self.anchors.chunks_exact(self.dim).enumerate() {
            let mut dot = 0.0f32;
            for (&a, &b) in token.iter().zip(anchor) {
                dot += a * b;
            }
            let distance = (length + squared_norm(anchor)) - (2.0 * r) * dot;
            let kernel = exp2_negative(distance.max(0.0) * exponent);
            for (y, plane) in y.iter_mut().zip(self.planes.chunks_exact(m)) {
                *y += kernel * plane[j];
            }
        }
        let mut code = 0;
        for (b, (&y, &t)) in y.iter().zip(self.thresholds).enumerate() {
            if y >= t {
                code |= 1 << b;
            }
        }
        code
    }
}

/// A·μ for planes A (bits × m) and the kernels' training means μ (m values), summed in f64.
///
/// # Errors
/// [`BitFault::Size`] where shapes disagree.
pub fn thresholds(planes: &[f32], means: &[f32], out: &mut [f32]) -> Result<(), BitFault> {
    const OP: &str = "hash thresholds";
    fault::some(OP, "the set of means", means.len())?;
    fault::size(OP, "the number of plane values", out.len() * means.len(), planes.len())?;
    for (plane, t) in planes.chunks_exact(means.len()).zip(out) {
        *t = plane.iter().zip(means).map(|(&a, &mu)| f64::from(a) * f64::from(mu)).sum::<f64>()
            as f32;
    }
    Ok(())
}

/// 1/‖x_i‖ of every token, zero for a zero token.
///
/// # Errors
/// [`BitFault::NotFinite`] at the first token with a NaN, an infinity or an overflowing length.
pub fn normalisers(x: &[f32], dim: usize, norms: &mut [f32]) -> Result<(), BitFault> {
    for (i, (token, r)) in x.chunks_exact(dim).zip(norms).enumerate() {
        *r = normaliser(squared_norm(token))
            .ok_or(BitFault::NotFinite { operation: "token norm", index: i * dim })?;
    }
    Ok(())
}

/// ‖x‖² in sixteen running sums, folded in halves.
#[inline]
pub fn squared_norm(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for chunk in x.chunks(16) {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += v * v;
        }
    }
    fold(lanes)
}

/// The sum of sixteen lanes, halves first.
#[inline]
pub fn fold(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// 1/√s for a squared length s: zero below the smallest normal number, `None` where s is not
/// finite. Newton's iteration from the exponent trick, the same operations on every machine.
#[inline]
pub fn normaliser(s: f32) -> Option<f32> {
    if !s.is_finite() {
        return None;
    }
    if s < f32::MIN_POSITIVE {
        return Some(0.0);
    }
    let mut y = f32::from_bits(0x5f37_59df - (s.to_bits() >> 1));
    let half = 0.5 * s;
    for _ in 0..4 {
        y *= 1.5 - (half * y) * y;
    }
    Some(y)
}

/// Tokens summed at a time by [`sum_of_directions`].
pub const SUM_BLOCK: usize = 64;

/// Σ_i x_i·r_i, in blocks of [`SUM_BLOCK`] tokens.
#[inline]
pub fn sum_of_directions(x: &[f32], norms: &[f32], sum: &mut [f32]) {
    let dim = sum.len();
    for (k, s) in sum.iter_mut().enumerate() {
        let mut total = 0.0;
        for (tokens, norms) in x.chunks(SUM_BLOCK * dim).zip(norms.chunks(SUM_BLOCK)) {
            let mut part = 0.0;
            for (token, &r) in tokens.chunks_exact(dim).zip(norms) {
                part += token[k] * r;
            }
            total += part;
        }
        *s = total;
    }
}

/// The mean squared distance of n tokens to m anchors from Σ x̂: linear in n, without the n × m
/// matrix. mean ‖x̂ − a‖² = mean ‖x̂‖² + mean ‖a‖² − 2·mean x̂ · mean a.
#[inline]
pub fn mean_distance(hash: &Hash<'_>, norms: &[f32], sum: &[f32]) -> f32 {
    let (n, m) = (norms.len() as f64, hash.anchor_count() as f64);
    let lengths = norms.iter().filter(|&&r| r > 0.0).count() as f64 / n;
    let squares: f64 =
        hash.anchors.chunks_exact(hash.dim).map(|a| f64::from(squared_norm(a))).sum();
    // Column by column: short chains of additions, which overlap.
    let mut cross = 0.0f64;
    for (k, &s) in sum.iter().enumerate() {
        let column = hash.anchors.get(k..).unwrap_or_default().iter().step_by(hash.dim);
        cross += column.map(|&a| f64::from(a)).sum::<f64>() * f64::from(s);
    }
    (lengths + squares / m - 2.0 * cross / (n * m)) as f32
}

/// The coefficients (ln 2)^k/k!, k = 6 … 0, of 2^f.
pub const EXP2: [f32; 7] = [
    1.540_353e-4,
    1.333_355_8e-3,
    9.618_129e-3,
    5.550_411e-2,
    0.240_226_5,
    core::f32::consts::LN_2,
    1.0,
];

/// 1.5·2²³: adding and subtracting it rounds to the nearest integer.
pub const ROUND: f32 = 12_582_912.0;

/// 2^z for z ≤ 0 to 2e-7 relative; exponents below −126 count as −126.
///
/// ```
/// use undertone_core::binary::exp2_negative;
/// assert_eq!(exp2_negative(-3.0), 0.125);
/// assert!((exp2_negative(-0.3) - 0.812_252_4).abs() < 2e-7);
/// ```
#[inline]
pub fn exp2_negative(z: f32) -> f32 {
    let z = z.max(-126.0);
    let rounded = z + ROUND;
    let f = z - (rounded - ROUND);
    let mut p = EXP2[0];
    for c in &EXP2[1..] {
        p = p * f + c;
    }
    // The low bits of `rounded` are the integer part in two's complement.
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}
