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

    fn blocks(&mut self) -> [Block; Self::BLOCKS] {
        let mut blocks = [Block::default(); Self::BLOCKS];
        for block in &mut blocks {
            *block = self.counter.to_le_bytes().into();
            self.counter += 1;
        }
        self.cipher.encrypt_blocks(&mut blocks);
        blocks
    }

    fn refill(&mut self) {
        for block in &self.blocks() {
            self.buffer.extend(halves(block));
        }
    }

    /// Fills with uniform words. What comes next depends on the lengths asked for so far, which
    /// are the same for the dealer and the party.
    fn fill(&mut self, out: &mut [u64]) {
        let mut batches = out.chunks_exact_mut(2 * Self::BLOCKS);
        for batch in &mut batches {
            for (pair, block) in batch.chunks_exact_mut(2).zip(&self.blocks()) {
                pair.copy_from_slice(&halves(block));
            }
        }
        for word in batches.into_remainder() {
            *word = self.word();
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
        let mut out = vec![0; n];
        self.fill(&mut out);
        if bits < 64 {
            let mask = crate::ring::low(bits);
            out.iter_mut().for_each(|word| *word &= mask);
        }
        out
    }

    pub(crate) fn block(&mut self) -> u128 {
        u128::from(self.word()) | u128::from(self.word()) << 64
    }

    /// The generator of a branch; this one goes on after it.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(&Zeroizing::new(self.block().to_le_bytes()))
    }
}

fn halves(block: &Block) -> [u64; 2] {
    let block: [u8; 16] = (*block).into();
    let block = u128::from_le_bytes(block);
    [block as u64, (block >> 64) as u64]
}
