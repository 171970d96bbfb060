//! Tasks whose examples are generated from a seed, the same in Rust and in Python.
//!
//! They exist because an image benchmark can be solved almost without attention, so it cannot
//! tell one attention from another; here a model without attention is at chance.

pub mod recall;

/// The increment of splitmix64: 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Splitmix64 (Steele, Lea, Flood, OOPSLA 2014): a 64-bit counter and a finaliser. For
/// reproducible examples, not for secrets.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The generator in this state.
    pub fn new(state: u64) -> Self {
        Self { state }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let out = mix64(self.state);
        self.state = self.state.wrapping_add(GOLDEN);
        out
    }

    /// A number below `bound`, which must not be zero for the range to have a member; the bias
    /// is below `bound`/2³².
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.next_u64() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Splitmix64's increment and finaliser as a hash of one word.
pub fn mix64(z: u64) -> u64 {
    let z = z.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
