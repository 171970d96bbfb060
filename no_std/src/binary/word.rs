//! The machine word that carries sign bits.

use core::ops::{BitAnd, BitOr, BitXor, Not, Shl, Shr};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// An unsigned word of sign bits: `u64` on a desktop, `u32` on a microcontroller.
///
/// Bit `i` of a row lives in word `i / BITS` at position `i % BITS`, least significant first.
pub trait Word:
    sealed::Sealed
    + Copy
    + Eq
    + core::fmt::Debug
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
    + Not<Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
    /// Bits in the word.
    const BITS: usize;
    /// No bit set.
    const ZERO: Self;
    /// Only bit 0 set.
    const ONE: Self;

    /// The number of bits set.
    fn ones(self) -> u32;

    /// The four bits from `at` on, as an index into a sixteen-entry table.
    fn nibble(self, at: u32) -> usize;

    /// A word whose `n` lowest bits are set, `n ≤ BITS`.
    fn low(n: usize) -> Self {
        if n >= Self::BITS { !Self::ZERO } else { !(!Self::ZERO << n as u32) }
    }
}

macro_rules! word {
    ($($t:ty),*) => {$(
        impl Word for $t {
            const BITS: usize = <$t>::BITS as usize;
            const ZERO: Self = 0;
            const ONE: Self = 1;
            fn ones(self) -> u32 {
                self.count_ones()
            }
            fn nibble(self, at: u32) -> usize {
                ((self >> at) & 15) as usize
            }
        }
    )*};
}
word!(u16, u32, u64);

/// Words that hold `dim` bits.
pub const fn words_for<W: Word>(dim: usize) -> usize {
    dim.div_ceil(W::BITS)
}
