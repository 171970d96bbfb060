//! Compiling one loop for several vector widths, and the scalar functions inside the loops.

/// A loop to be compiled for each vector width. `FMA` says whether a fused multiply-add is one
/// instruction there; without it `f32::mul_add` would be a library call.
pub(super) trait Kernel {
    /// What the loop returns.
    type Output;
    /// The loop; must be `#[inline(always)]` to inherit the vector width.
    fn run<const FMA: bool>(self) -> Self::Output;
}

struct Run<const FMA: bool, K>(K);

impl<const FMA: bool, K: Kernel> pulp::NullaryFnOnce for Run<FMA, K> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.0.run::<FMA>()
    }
}

/// Runs a kernel with the widest vectors of this processor.
#[inline]
pub(super) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = pulp::x86::V4::try_new() {
            return simd.vectorize(Run::<true, K>(kernel));
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(Run::<true, K>(kernel));
        }
        kernel.run::<false>()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // 64-bit Arm always has vectors and fused multiply-add.
        #[cfg(target_arch = "aarch64")]
        return kernel.run::<true>();
        #[cfg(not(target_arch = "aarch64"))]
        kernel.run::<false>()
    }
}

/// Values per step of a reduction: enough independent sums for the widest vectors.
pub(super) const LANES: usize = 16;

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// eˣ to 2 units in the last place; below −87.33 it returns 0 and above 88.37 the value there,
/// so that nothing becomes subnormal or infinite. NaN gives NaN.
///
/// x = n·ln 2 + r with |r| ≤ ln 2/2 (Cody and Waite 1980), then a polynomial of degree 6 in r
/// fitted for the least maximum relative error (3.1e-9 before rounding).
#[inline(always)]
pub(super) fn exp_one<const FMA: bool>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts; the first has few enough bits that n·LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5·2²³ rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > 88.37 { 88.37 } else { x };
    let shifted = fma::<FMA>(clamped, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -LN2_HIGH, clamped);
    let r = fma::<FMA>(n, -LN2_LOW, r);
    let p = 0.001_381_453_8;
    let p = fma::<FMA>(p, r, 0.008_368_745);
    let p = fma::<FMA>(p, r, 0.041_668_39);
    let p = fma::<FMA>(p, r, 0.166_665_21);
    let p = fma::<FMA>(p, r, 0.499_999_94);
    let p = fma::<FMA>(p * r, r, r) + 1.0;
    // p is in 0.7…1.42, so adding n to its exponent is multiplying by 2ⁿ.
    let scaled = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -87.33 { 0.0 } else { scaled }
}

/// x·Φ(x) within 1e-6·max(1, |x|).
///
/// Φ(x) − ½ is x times a rational function of x², fitted on |x| ≤ 5.4 for the least maximum
/// error of the result (1.6e-8 before rounding); beyond, Φ is 0 or 1 to within the tolerance.
#[inline(always)]
pub(super) fn gelu_one<const FMA: bool>(x: f32) -> f32 {
    const END: f32 = 5.4;
    let inside = x.clamp(-END, END);
    let t = inside * inside;
    let p = 2.277_563_2e-8;
    let p = fma::<FMA>(p, t, 6.490_014_6e-6);
    let p = fma::<FMA>(p, t, 1.762_566_3e-4);
    let p = fma::<FMA>(p, t, 0.004_722_348_4);
    let p = fma::<FMA>(p, t, 0.034_491_464);
    let p = fma::<FMA>(p, t, 0.398_942_05);
    let q = 1.208_595_2e-6;
    let q = fma::<FMA>(q, t, 7.650_544e-5);
    let q = fma::<FMA>(q, t, 0.001_925_444_8);
    let q = fma::<FMA>(q, t, 0.029_027_509);
    let q = fma::<FMA>(q, t, 0.253_121_55);
    let q = fma::<FMA>(q, t, 1.0);
    let phi = fma::<FMA>(inside, p / q, 0.5);
    // Far below, the rounding of Φ times x would grow without bound.
    (if x < -END { -END } else { x }) * phi
}

/// Σ f(x) with [`LANES`] independent sums.
#[inline(always)]
pub(super) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    fold(lanes, |a, b| a + b)
}

/// max x, −∞ of nothing.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let bigger = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = bigger(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = bigger(*lane, x);
    }
    fold(lanes, bigger)
}

/// Maps a row in place and returns the sum of what it wrote.
#[inline(always)]
pub(super) fn map_sum(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = f(*x);
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = f(*x);
        *lane += *x;
    }
    fold(lanes, |a, b| a + b)
}

/// Halves the lanes until one is left, so that the order does not depend on the vector width.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}
