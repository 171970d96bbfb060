//! A pseudo-random generator: AES-128 in counter mode, forked by branch.

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128, Block};
use zeroize::Zeroizing;

/// A seed of a party.
pub(crate) type Seed = Zeroizing<[u8; 16]>;

/// A fresh seed from the operating system.
pub(crate) fn fresh_seed() -> Seed {
    Zeroizing::new(rand::random())
}

/// AES-128 in counter mode. One seed is expanded once: sections and branches get their own.
pub(crate) struct Prg {
    cipher: Aes128,
    counter: u128,
    buffer: Zeroizing<Vec<u64>>,
}

impl Prg {
    const BLOCKS: usize = 64;

    pub(crate) fn new(seed: &[u8; 16]) -> Self {
        Self { cipher: Aes128::new(seed.into()), counter: 0, buffer: Zeroizing::default() }
    }

    fn refill(&mut self) {
        let mut blocks = [Block::default(); Self::BLOCKS];
        for block in &mut blocks {
            *block = self.counter.to_le_bytes().into();
            self.counter += 1;
        }
        self.cipher.encrypt_blocks(&mut blocks);
        for block in &blocks {
            let block: [u8; 16] = (*block).into();
            self.buffer.push(u128::from_le_bytes(block) as u64);
            self.buffer.push((u128::from_le_bytes(block) >> 64) as u64);
        }
    }

    pub(crate) fn word(&mut self) -> u64 {
        loop {
            if let Some(word) = self.buffer.pop() {
                return word;
            }
            self.refill();
        }
    }

    /// `n` values uniform modulo 2^`bits`.
    pub(crate) fn words(&mut self, n: usize, bits: u32) -> Vec<u64> {
        let mask = crate::ring::low(bits);
        (0..n).map(|_| self.word() & mask).collect()
    }

    pub(crate) fn block(&mut self) -> u128 {
        u128::from(self.word()) | u128::from(self.word()) << 64
    }

    /// The generator of a branch; this one goes on after it.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(&Zeroizing::new(self.block().to_le_bytes()))
    }
}
