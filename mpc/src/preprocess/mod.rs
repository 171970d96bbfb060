//! Preprocessing: correlated randomness that does not depend on inputs, used once.
//!
//! Protocols ask for correlations through [`Preprocess`]; who makes them is behind it. Three answer
//! today: [`Blank`] makes none and lets a plan count; the [`Dealer`] is a **trusted third party**
//! that knows every mask and writes one file a party; a [`Section`] of a [`Store`] is a party's
//! half of what the dealer wrote, in a file or [sent chunk by chunk](deal_streamed). A two-party generator would answer in the dealer's place: a
//! request names its operands (shares of masks) and the relation wanted, so that products can come
//! from oblivious transfer or lattice encryption instead.
//!
//! Shares of masks and half of every relation are expanded from a seed of 16 bytes; only what
//! depends on both parties is stored: correction words (both), shares of relations (server).

mod dealer;
mod kernel;
mod store;
mod stream;

pub use dealer::{Dealer, deal, deal_in_memory};
pub use kernel::Kernel;
pub(crate) use kernel::angle;
pub use store::{Section, Store};
pub use stream::{deal_streamed, receive_streamed};

use crate::Result;
use crate::dcf::{ComparisonKeys, PointKeys};
use crate::ring::{Product, packed_len};

/// Data that is there in a run and absent in a plan.
pub type Lane = Option<Vec<u64>>;

/// What a relation multiplies, elementwise.
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    /// The mask as an integer.
    Mask(Option<&'a [u64]>),
    /// The mask shifted right.
    Shift(Option<&'a [u64]>, u32),
    /// One bit of the mask.
    Bit(Option<&'a [u64]>, u32),
    /// A fixed-point value of a real function of the mask.
    Value(Option<&'a [u64]>, Kernel),
}

/// Bytes that a party stores for `n` relation results of `bits` bits.
#[must_use]
pub const fn relation_len(n: usize, bits: u32) -> [u64; 2] {
    [0, packed_len(n, bits) as u64]
}

/// Bytes that each party stores for `n` comparison keys.
#[must_use]
pub const fn comparison_len(n: usize, levels: u32) -> [u64; 2] {
    [ComparisonKeys::stored_len(n, levels) as u64; 2]
}

/// Bytes that each party stores for `n` point keys.
#[must_use]
pub const fn point_len(n: usize, bits: u32) -> [u64; 2] {
    [PointKeys::stored_len(n, bits) as u64; 2]
}

/// Bytes of the length before a branch.
pub const BRANCH: u64 = 8;

/// A source of correlations. Every result is used once; asking moves on.
///
/// What a method returns is this party's share; the dealer gets the plain value, a plan nothing.
pub trait Preprocess: Send {
    /// `n` masks uniform modulo 2^`bits`.
    ///
    /// # Errors
    /// Preprocessing that is used up or unreadable; so for every method.
    fn uniform(&mut self, n: usize, bits: u32) -> Result<Lane>;

    /// `n` masks that `owner` (0 or 1) knows and the other party does not: a share that is zero at
    /// the other party.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform).
    fn private(&mut self, owner: usize, n: usize, bits: u32) -> Result<Lane>;

    /// The product of `factors`, modulo 2^`bits`.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform).
    fn relation(&mut self, factors: &[Factor<'_>], n: usize, bits: u32) -> Result<Lane>;

    /// The matrix product of two masks, modulo 2^`bits`.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform).
    fn product(
        &mut self,
        of: &Product,
        a: Option<&[u64]>,
        b: Option<&[u64]>,
        bits: u32,
    ) -> Result<Lane>;

    /// Keys comparing with the low `levels` bits of a mask.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform).
    fn comparison(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        levels: u32,
    ) -> Result<Option<ComparisonKeys>>;

    /// Keys of point functions at bits `from..from + bits` of a mask.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform).
    fn point(
        &mut self,
        mask: Option<&[u64]>,
        n: usize,
        from: u32,
        bits: u32,
    ) -> Result<Option<PointKeys>>;

    /// The source of a branch. Branches are consumed independently of each other.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform).
    fn branch(&mut self) -> Result<Box<dyn Preprocess>>;

    /// Ends a branch.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform).
    fn merge(&mut self, branch: Box<dyn Preprocess>) -> Result<()>;

    /// Ends a chunk: a dealer on the line sends what it has, a party fetches the next. Files have
    /// none.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform), and the channel's.
    fn chunk(&mut self) -> Result<()> {
        Ok(())
    }

    /// Bytes of stored preprocessing that this source, without its branches, has given out.
    fn consumed(&self) -> u64;

    /// Where each party's part of this branch began, for a source that writes.
    fn starts(&self) -> [u64; 2] {
        [0; 2]
    }
}

/// No preprocessing: for plans, which hold no data.
#[derive(Debug, Default)]
pub struct Blank;

impl Preprocess for Blank {
    fn uniform(&mut self, _: usize, _: u32) -> Result<Lane> {
        Ok(None)
    }

    fn private(&mut self, _: usize, _: usize, _: u32) -> Result<Lane> {
        Ok(None)
    }

    fn relation(&mut self, _: &[Factor<'_>], _: usize, _: u32) -> Result<Lane> {
        Ok(None)
    }

    fn product(
        &mut self,
        _: &Product,
        _: Option<&[u64]>,
        _: Option<&[u64]>,
        _: u32,
    ) -> Result<Lane> {
        Ok(None)
    }

    fn comparison(
        &mut self,
        _: Option<&[u64]>,
        _: usize,
        _: u32,
    ) -> Result<Option<ComparisonKeys>> {
        Ok(None)
    }

    fn point(&mut self, _: Option<&[u64]>, _: usize, _: u32, _: u32) -> Result<Option<PointKeys>> {
        Ok(None)
    }

    fn branch(&mut self) -> Result<Box<dyn Preprocess>> {
        Ok(Box::new(Self))
    }

    fn merge(&mut self, _: Box<dyn Preprocess>) -> Result<()> {
        Ok(())
    }

    fn consumed(&self) -> u64 {
        0
    }
}
