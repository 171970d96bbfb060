//! Reproducible inputs, made at compile time.

const fn next(state: u32) -> u32 {
    // Numerical Recipes' generator; its upper bits are good enough to be data.
    state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}

/// Uniform bytes.
#[must_use]
pub const fn bytes<const N: usize>(seed: u32) -> [i8; N] {
    let mut out = [0; N];
    let (mut i, mut state) = (0, next(seed));
    while i < N {
        state = next(state);
        out[i] = (state >> 24) as i8;
        i += 1;
    }
    out
}

/// Uniform numbers of `bits` bits with their sign.
#[must_use]
pub const fn words<const N: usize>(seed: u32, bits: u32) -> [i16; N] {
    let mut out = [0; N];
    let (mut i, mut state) = (0, next(seed));
    while i < N {
        state = next(state);
        out[i] = ((state >> 16) as i16) >> (16 - bits);
        i += 1;
    }
    out
}

/// The same, as 32-bit numbers.
#[must_use]
pub const fn longs<const N: usize>(seed: u32, bits: u32) -> [i32; N] {
    let narrow = words::<N>(seed, bits);
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = narrow[i] as i32;
        i += 1;
    }
    out
}
