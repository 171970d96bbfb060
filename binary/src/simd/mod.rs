//! Vector forms of the kernels, chosen at run time. Each gives the same bits as the portable form
//! in `undertone_core::binary`; tests compare all that the machine offers.
//!
//! All `unsafe` of the crate is below this module.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod hash512;
pub(crate) mod lanes;

use std::sync::OnceLock;

/// A set of instructions that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust.
    Portable,
    /// AVX2: popcounts by nibble look-up (`pshufb`), 32 bytes at a time.
    Avx2,
    /// AVX-512 with BW, DQ, BITALG, VPOPCNTDQ, VNNI and VBMI2 (Ice Lake, Zen 4 and later).
    Avx512,
}

impl Level {
    /// The best level of this machine.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            {
                if !is_x86_feature_detected!("popcnt") {
                    return Self::Portable;
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bitalg")
                    && is_x86_feature_detected!("avx512vpopcntdq")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512vbmi2")
                {
                    return Self::Avx512;
                }
                if is_x86_feature_detected!("avx2") {
                    return Self::Avx2;
                }
            }
            Self::Portable
        })
    }

    /// Every level that this machine runs, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|&l| l <= Self::best())
    }

    /// The level itself, or this machine's best where that is lower: no level runs instructions
    /// that the machine lacks.
    pub fn clamped(self) -> Self {
        self.min(Self::best())
    }
}

/// Packs signs with the best vector form; `false` where there is none or a value is not finite,
/// and the portable form must answer.
pub(crate) fn pack(x: &[f32], dim: usize, out: &mut [u64]) -> bool {
    if !x.len().is_multiple_of(dim) || out.len() != x.len() / dim * dim.div_ceil(64) {
        return false;
    }
    #[cfg(target_arch = "x86_64")]
    if Level::best() == Level::Avx512 {
        // SAFETY: the level was detected, and the sizes were checked above.
        return unsafe { avx512::pack(x, dim, out) };
    }
    false
}

/// Aligned lines of floats as one run.
pub(crate) fn floats(lines: &mut [lanes::Floats]) -> &mut [f32] {
    let count = lines.len() * lanes::LANES;
    // SAFETY: a line is exactly sixteen floats without padding (64 bytes, aligned to 64), and the
    // run borrows what the lines borrow.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), count) }
}
