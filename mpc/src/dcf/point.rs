use super::{FLAGS, Slab, hash, mask, permutation};
use aes::Block;
use zeroize::Zeroizing;

/// The third low bit: leaves are hashed apart from inner nodes.
const LEAF: u128 = 4;

/// One party's keys for a batch of point functions `j ↦ 1{j = α}` on `bits` bits, as additive
/// shares modulo 2^64.
///
/// Two neighbouring outputs share a leaf block, so the tree has one level less than the domain.
pub struct PointKeys {
    bits: u32,
    roots: Zeroizing<Vec<u128>>,
    stored: Slab,
}

impl PointKeys {
    /// Bytes of the correction words of `n` keys; the roots come from the party's own seed.
    #[must_use]
    pub const fn stored_len(n: usize, bits: u32) -> usize {
        n * bits as usize * 16
    }

    /// Generates correction words for points `alpha` below 2^`bits`, `bits` ≥ 1.
    ///
    /// # Panics
    /// Where the slices differ in length: a bug of the caller.
    #[must_use]
    pub fn generate(alpha: &[u64], bits: u32, roots: [&[u128]; 2]) -> Vec<u8> {
        assert!(roots[0].len() == alpha.len() && roots[1].len() == alpha.len());
        let cipher = permutation();
        let mut out = Vec::with_capacity(Self::stored_len(alpha.len(), bits));
        let mut blocks = [Block::default(); 4];
        for (i, &alpha) in alpha.iter().enumerate() {
            let mut seeds = Zeroizing::new([roots[0][i] & !FLAGS, roots[1][i] & !FLAGS]);
            let mut control = [0u128, 1];
            for level in 0..bits - 1 {
                let bit = u128::from(alpha >> (bits - 1 - level) & 1);
                let inputs = Zeroizing::new([seeds[0], seeds[0] | 1, seeds[1], seeds[1] | 1]);
                let mut child = Zeroizing::new([0u128; 4]);
                hash(&cipher, &*inputs, &mut blocks, &mut *child);
                let pick = |party: usize, d: u128| {
                    child[2 * party] & mask(d ^ 1) | child[2 * party + 1] & mask(d)
                };
                let seed = (pick(0, bit ^ 1) ^ pick(1, bit ^ 1)) & !FLAGS;
                let left = (child[0] ^ child[2]) & 1 ^ bit ^ 1;
                let right = (child[1] ^ child[3]) & 1 ^ bit;
                let kept = left & (bit ^ 1) | right & bit;
                for party in 0..2 {
                    let keep = pick(party, bit);
                    seeds[party] = (keep & !FLAGS) ^ seed & mask(control[party]);
                    control[party] = keep & 1 ^ kept & control[party];
                }
                out.extend((seed | left | right << 1).to_le_bytes());
            }
            let mut leaf = Zeroizing::new([0u128; 2]);
            let inputs = Zeroizing::new([seeds[0] | LEAF, seeds[1] | LEAF]);
            hash(&cipher, &*inputs, &mut blocks, &mut *leaf);
            let mut last = 0u128;
            for half in 0..2u32 {
                let wanted = u64::from(alpha & 1 == u64::from(half));
                let word = |b: usize| (leaf[b] >> (64 * half)) as u64;
                let plain = wanted.wrapping_sub(word(0)).wrapping_add(word(1));
                // (−1)^t1: the party whose control bit is set adds the correction.
                let sign = 1u64.wrapping_sub(2 * control[1] as u64);
                last |= u128::from(plain.wrapping_mul(sign)) << (64 * half);
            }
            out.extend(last.to_le_bytes());
        }
        out
    }

    /// Keys from their stored part and the party's roots. `None` for another length.
    #[must_use]
    pub fn read(stored: &[u8], bits: u32, roots: Vec<u128>) -> Option<Self> {
        Self::over(stored.to_vec().into(), bits, roots)
    }

    pub(crate) fn over(stored: Slab, bits: u32, roots: Vec<u128>) -> Option<Self> {
        let fits = stored.bytes().len() == Self::stored_len(roots.len(), bits);
        fits.then(|| Self { bits, roots: Zeroizing::new(roots), stored })
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Shares of the whole one-hot vector of key `index`, 2^bits of them.
    #[must_use]
    pub fn expand(&self, party: usize, index: usize) -> Zeroizing<Vec<u64>> {
        let cipher = permutation();
        let leaves = 1usize << (self.bits - 1);
        let mut nodes = Zeroizing::new(vec![0u128; leaves]);
        let mut children = Zeroizing::new(vec![0u128; leaves]);
        let mut inputs = Zeroizing::new(vec![0u128; leaves]);
        let mut blocks = vec![Block::default(); leaves];
        let words = &self.stored.words()[index * self.bits as usize..][..self.bits as usize];
        let word = |level: usize| u128::from_le_bytes(words[level]);
        // A node keeps its control bit in bit 0, which its seed leaves free.
        nodes[0] = self.roots[index] & !FLAGS | party as u128;
        let mut width = 1;
        for level in 0..self.bits as usize - 1 {
            let word = word(level);
            for (pair, node) in inputs[..2 * width].chunks_exact_mut(2).zip(&nodes[..width]) {
                pair[0] = node & !FLAGS;
                pair[1] = node & !FLAGS | 1;
            }
            hash(&cipher, &inputs[..2 * width], &mut blocks, &mut children[..2 * width]);
            for (j, child) in children[..2 * width].iter_mut().enumerate() {
                let on = mask(nodes[j / 2] & 1);
                let t = word >> (j & 1) & 1;
                *child = (*child & (!FLAGS | 1)) ^ (word & !FLAGS | t) & on;
            }
            width *= 2;
            std::mem::swap(&mut *nodes, &mut *children);
        }
        for (input, node) in inputs.iter_mut().zip(&*nodes) {
            *input = node & !FLAGS | LEAF;
        }
        hash(&cipher, &inputs, &mut blocks, &mut children);
        let last = word(self.bits as usize - 1);
        let mut out = Zeroizing::new(Vec::with_capacity(2 * leaves));
        for (leaf, node) in children.iter().zip(&*nodes) {
            let on = mask(node & 1);
            for half in 0..2 {
                let share = ((leaf >> (64 * half)) as u64)
                    .wrapping_add(((last & on) >> (64 * half)) as u64);
                out.push(if party == 0 { share } else { share.wrapping_neg() });
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_point_of_small_domains() {
        for bits in 1..=8 {
            let alpha: Vec<u64> = (0..1 << bits).collect();
            let root = || (0..alpha.len()).map(|_| rand::random()).collect::<Vec<u128>>();
            let r = [root(), root()];
            let stored = PointKeys::generate(&alpha, bits, [&r[0], &r[1]]);
            let [a, b] = r.map(|r| PointKeys::read(&stored, bits, r).unwrap());
            for (i, &alpha) in alpha.iter().enumerate() {
                let (a, b) = (a.expand(0, i), b.expand(1, i));
                for j in 0..1u64 << bits {
                    let sum = a[j as usize].wrapping_add(b[j as usize]);
                    assert_eq!(sum, u64::from(j == alpha), "{bits} bits, {j} at {alpha}");
                }
            }
        }
    }
}
