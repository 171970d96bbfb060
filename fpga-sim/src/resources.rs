//! Resources of the units. Products and block RAMs follow from widths and are
//! firm (tests compare them with yosys); look-up tables and flip-flops are a
//! trend.

use crate::arch::Arch;
use serde::Serialize;

/// DSP slices of one signed product of `a` by `b` bits (an unsigned word counts
/// one bit more). A DSP48E2 multiplies 27 × 18 bits; wider operands are cut 17
/// bits at a time, the distance by which its cascade shifts.
///
/// ```
/// use undertone_fpga_sim::resources::product_dsps;
/// assert_eq!((product_dsps(32, 16), product_dsps(32, 32), product_dsps(16, 16)), (2, 4, 1));
/// assert_eq!(product_dsps(48, 33), 6);
/// ```
pub const fn product_dsps(a: u32, b: u32) -> u64 {
    const fn slices(bits: u32, whole: u32) -> u64 {
        1 + bits.saturating_sub(whole).div_ceil(17) as u64
    }
    let (wide, narrow) = if a > b { (a, b) } else { (b, a) };
    slices(wide, 27) * slices(narrow, 18)
}

/// 36 Kb block RAMs of a simple dual-port memory of `depth` words of `width` bits:
/// 512 × 72, 1024 × 36, 2048 × 18, …
///
/// ```
/// assert_eq!(undertone_fpga_sim::resources::memory_bram36(576, 4096), 114);
/// ```
pub fn memory_bram36(depth: u64, width: u64) -> u64 {
    [(512, 72), (1024, 36), (2048, 18), (4096, 9), (8192, 4), (16384, 2), (32768, 1)]
        .iter()
        .map(|(d, w)| depth.div_ceil(*d) * width.div_ceil(*w))
        .min()
        .unwrap_or(0)
}

/// An estimate for a whole architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// DSP slices.
    pub dsp: u64,
    /// 36 Kb block RAMs.
    pub bram36: u64,
}

/// DSP slices and block RAMs of the units of an architecture.
pub fn estimate(arch: &Arch) -> Resources {
    let (a, w) = (arch.formats.activation_bits, arch.formats.weight_bits);
    let linear = arch.linear.rows * arch.linear.columns * product_dsps(a, w);
    // Products of scores and of values share the lanes; one product scales each block.
    let attention = arch.attention.lanes * (arch.attention.block_words + 1) * product_dsps(a, a);
    let recurrence = match arch.softmax.form {
        crate::arch::SoftmaxForm::SinglePass | crate::arch::SoftmaxForm::Online => {
            product_dsps(a, a)
        }
        crate::arch::SoftmaxForm::Shift | crate::arch::SoftmaxForm::TwoPass => 0,
    };
    // The exponential interpolates with one product.
    let softmax = recurrence + product_dsps(18, a.min(18));
    let vector = arch.vector.words * product_dsps(a, a);
    let word = arch.linear.rows * arch.linear.columns * u64::from(w);
    let depth = (arch.buffers.weight_bytes * 8).div_ceil(word);
    let buffers = if arch.buffers.ping_pong { 2 } else { 1 };
    Resources {
        dsp: linear + attention + softmax + vector,
        bram36: buffers * memory_bram36(depth, word),
    }
}
