//! Function secret sharing: comparison (DCF) and point functions (DPF) in batches.
//!
//! Boyle, Gilboa, Ishai et al., *Function Secret Sharing for Mixed-Mode and Fixed-Point Secure
//! Computation*, EUROCRYPT 2021, figure 3 (DCF), with a one-bit payload; and Boyle, Gilboa, Ishai,
//! *Function Secret Sharing: Improvements and Extensions*, CCS 2016, figure 1 (DPF).
//!
//! # The expansion, and where the control bits live
//! Both trees expand a seed s of 125 bits in direction d ∈ {0, 1} by one call of fixed-key AES,
//! `H(s, d) = π(s‖00d) ⊕ (s‖00d)` (Matyas–Meyer–Oseas, as in Guo et al., IEEE S&P 2020). The
//! block's low three bits are always zero in a seed, so the direction is part of the input and the
//! two children are outputs of a correlation-robust hash at different points. Of the 128 output
//! bits, the high 125 become the child's seed, bit 0 its control bit t and bit 1 its value bit v;
//! bit 2 is dropped. No output bit serves two purposes: t and v are *outputs next to* the seed, not
//! copies of seed bits, so the hybrid argument of the papers holds word for word with λ = 125. What
//! an adversary sees of t and v in the correction words is masked as in the papers. The correction
//! word of a level packs its seed part (125 bits) with the corrections of t for both directions and
//! of v: 128 bits, and hence a key of 16 + 16·levels bytes and one bit.
//!
//! Leaves of the DPF are expanded with the third low bit set, `π(s‖100) ⊕ (s‖100)`, which no inner
//! node uses.

mod point;

pub use point::PointKeys;

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128, Block};
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Low bits of a block that do not belong to the seed.
const FLAGS: u128 = 7;

/// The public permutation. Any fixed key serves; these are the first digits of π.
pub(crate) fn permutation() -> Aes128 {
    Aes128::new(&0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344_u128.to_be_bytes().into())
}

/// `H` at every block, in place.
fn hash(cipher: &Aes128, inputs: &[u128], blocks: &mut [Block], out: &mut [u128]) {
    let blocks = &mut blocks[..inputs.len()];
    for (block, input) in blocks.iter_mut().zip(inputs) {
        *block = input.to_le_bytes().into();
    }
    cipher.encrypt_blocks(blocks);
    for ((out, block), input) in out.iter_mut().zip(blocks.iter()).zip(inputs) {
        *out = u128::from_le_bytes((*block).into()) ^ input;
    }
}

/// Keys that are evaluated together. Their correction words lie together too, level by level, so
/// that evaluation reads forwards.
const TILE: usize = 64;

/// All ones where `bit` is one.
const fn mask(bit: u128) -> u128 {
    bit.wrapping_neg()
}

/// One party's keys for a batch of comparisons `x < α`, α secret, in `levels` bits.
///
/// Evaluating gives XOR shares of the comparison's bit; a key may be evaluated at any number of
/// public points.
pub struct ComparisonKeys {
    levels: u32,
    roots: Zeroizing<Vec<u128>>,
    stored: Slab,
}

/// Bytes kept where they were read: keys are large and read once.
#[derive(Clone)]
pub(crate) struct Slab {
    bytes: Arc<Zeroizing<Vec<u8>>>,
    range: Range<usize>,
}

impl Slab {
    /// Part of a buffer. `None` beyond its end.
    pub(crate) fn of(bytes: Arc<Zeroizing<Vec<u8>>>, range: Range<usize>) -> Option<Self> {
        bytes.get(range.clone())?;
        Some(Self { bytes, range })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    /// The words of 16 bytes, without an odd end.
    fn words(&self) -> &[[u8; 16]] {
        self.bytes().as_chunks::<16>().0
    }
}

impl From<Vec<u8>> for Slab {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { bytes: Arc::new(Zeroizing::new(bytes)), range }
    }
}

impl ComparisonKeys {
    /// Bytes of the correction words of `n` keys; the roots come from the party's own seed.
    #[must_use]
    pub const fn stored_len(n: usize, levels: u32) -> usize {
        n * levels as usize * 16 + n.div_ceil(8)
    }

    /// Generates correction words for thresholds `alpha` and both parties' roots, which the caller
    /// draws at random.
    ///
    /// # Panics
    /// Where the slices differ in length: a bug of the caller.
    #[must_use]
    pub fn generate(alpha: &[u64], levels: u32, roots: [&[u128]; 2]) -> Vec<u8> {
        let n = alpha.len();
        assert!(roots[0].len() == n && roots[1].len() == n, "a root a key and party");
        let cipher = permutation();
        let mut out = Vec::with_capacity(Self::stored_len(n, levels));
        let mut last = Vec::with_capacity(n);
        for from in (0..n).step_by(TILE) {
            let tile = from..n.min(from + TILE);
            let roots = [&roots[0][tile.clone()], &roots[1][tile.clone()]];
            last.extend(Self::generate_tile(&cipher, &alpha[tile], levels, roots, &mut out));
        }
        crate::ring::pack(&last, 1, &mut out);
        out
    }

    /// Appends the correction words of a tile, level by level, and returns its last bits.
    fn generate_tile(
        cipher: &Aes128,
        alpha: &[u64],
        levels: u32,
        roots: [&[u128]; 2],
        out: &mut Vec<u8>,
    ) -> Vec<u64> {
        let n = alpha.len();
        let mut seeds = Zeroizing::new([
            roots[0].iter().map(|r| r & !FLAGS).collect::<Vec<_>>(),
            roots[1].iter().map(|r| r & !FLAGS).collect::<Vec<_>>(),
        ]);
        // Control bits of party 0 and 1, and the running value of figure 3.
        let mut control = [vec![0u128; n], vec![1u128; n]];
        let mut running = vec![0u128; n];
        let mut blocks = vec![Block::default(); n];
        let mut children = Zeroizing::new([const { [const { Vec::new() }; 2] }; 2]);
        for party in &mut *children {
            for child in party {
                child.resize(n, 0u128);
            }
        }
        for level in 0..levels {
            for party in 0..2 {
                for d in 0..2 {
                    let inputs = Zeroizing::new(
                        seeds[party].iter().map(|s| s | d as u128).collect::<Vec<_>>(),
                    );
                    hash(cipher, &inputs, &mut blocks, &mut children[party][d]);
                }
            }
            for i in 0..n {
                let bit = u128::from(alpha[i] >> (levels - 1 - level) & 1);
                let child = |party: usize, d: u128| {
                    let [left, right] = &children[party];
                    left[i] & mask(d ^ 1) | right[i] & mask(d)
                };
                let lose = [child(0, bit ^ 1), child(1, bit ^ 1)];
                let keep = [child(0, bit), child(1, bit)];
                let (t, v) = (|x: u128| x & 1, |x: u128| x >> 1 & 1);
                let seed = (lose[0] ^ lose[1]) & !FLAGS;
                // Losing to the left means x < α: the payload goes there.
                let value = v(lose[0]) ^ v(lose[1]) ^ running[i] ^ bit;
                let left = t(children[0][0][i]) ^ t(children[1][0][i]) ^ bit ^ 1;
                let right = t(children[0][1][i]) ^ t(children[1][1][i]) ^ bit;
                running[i] ^= v(keep[0]) ^ v(keep[1]) ^ value;
                let kept = left & (bit ^ 1) | right & bit;
                for party in 0..2 {
                    let on = mask(control[party][i]);
                    seeds[party][i] = (keep[party] & !FLAGS) ^ seed & on;
                    control[party][i] = t(keep[party]) ^ kept & control[party][i];
                }
                out.extend((seed | left | right << 1 | value << 2).to_le_bytes());
            }
        }
        (0..n).map(|i| (leaf(seeds[0][i]) ^ leaf(seeds[1][i]) ^ running[i]) as u64).collect()
    }

    /// Keys from their stored part, [`stored_len`](Self::stored_len) bytes, and the party's roots.
    /// `None` for another length.
    #[must_use]
    pub fn read(stored: &[u8], levels: u32, roots: Vec<u128>) -> Option<Self> {
        Self::over(stored.to_vec().into(), levels, roots)
    }

    pub(crate) fn over(stored: Slab, levels: u32, roots: Vec<u128>) -> Option<Self> {
        let fits = stored.bytes().len() == Self::stored_len(roots.len(), levels);
        fits.then(|| Self { levels, roots: Zeroizing::new(roots), stored })
    }

    /// Shares, modulo 2, of `x < α` for each key at its own point; only the low `levels` bits of
    /// `x` count. `party` is 0 or 1.
    ///
    /// # Panics
    /// Where `x` has another length than the batch: a bug of the caller.
    #[must_use]
    pub fn evaluate(&self, party: usize, x: &[u64]) -> Vec<u64> {
        let n = self.roots.len();
        assert_eq!(x.len(), n, "one point a key");
        let cipher = permutation();
        let (words, last) = self.stored.bytes().split_at(n * self.levels as usize * 16);
        let words = words.as_chunks::<16>().0;
        let mut out = vec![0u64; n];
        let mut blocks = [Block::default(); TILE];
        let mut inputs = Zeroizing::new([0u128; TILE]);
        let mut next = Zeroizing::new([0u128; TILE]);
        for from in (0..n).step_by(TILE) {
            let len = TILE.min(n - from);
            let points = &x[from..from + len];
            let mut seeds = Zeroizing::new([0u128; TILE]);
            let mut control = [party as u128; TILE];
            let mut value = [0u128; TILE];
            for (seed, root) in seeds.iter_mut().zip(&self.roots[from..from + len]) {
                *seed = root & !FLAGS;
            }
            for level in 0..self.levels {
                let shift = self.levels - 1 - level;
                for i in 0..len {
                    inputs[i] = seeds[i] | u128::from(points[i] >> shift & 1);
                }
                hash(&cipher, &inputs[..len], &mut blocks, &mut next[..len]);
                let at = from * self.levels as usize + level as usize * len;
                let words = &words[at..at + len];
                for i in 0..len {
                    let d = u128::from(points[i] >> shift & 1);
                    let word = u128::from_le_bytes(words[i]) & mask(control[i]);
                    let child = next[i];
                    seeds[i] = (child ^ word) & !FLAGS;
                    control[i] = (child ^ word >> d) & 1;
                    value[i] ^= child >> 1 ^ word >> 2;
                }
            }
            for i in 0..len {
                let last = u128::from(last[(from + i) / 8] >> ((from + i) % 8) & 1);
                let bit = value[i] ^ leaf(seeds[i]) ^ control[i] & last;
                out[from + i] = bit as u64 & 1;
            }
        }
        out
    }
}

/// The bit that the last seed converts to.
const fn leaf(seed: u128) -> u128 {
    seed >> 3 & 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn roots(n: usize) -> Vec<u128> {
        (0..n).map(|_| rand::random()).collect()
    }

    fn pair(alpha: &[u64], levels: u32) -> [ComparisonKeys; 2] {
        let r = [roots(alpha.len()), roots(alpha.len())];
        let stored = ComparisonKeys::generate(alpha, levels, [&r[0], &r[1]]);
        assert_eq!(stored.len(), ComparisonKeys::stored_len(alpha.len(), levels));
        r.map(|r| ComparisonKeys::read(&stored, levels, r).unwrap())
    }

    #[test]
    fn every_pair_of_small_widths() {
        for levels in 1..=6u32 {
            let size = 1u64 << levels;
            let alpha: Vec<u64> = (0..size * size).map(|i| i / size).collect();
            let x: Vec<u64> = (0..size * size).map(|i| i % size).collect();
            let [a, b] = pair(&alpha, levels);
            let (a, b) = (a.evaluate(0, &x), b.evaluate(1, &x));
            for i in 0..x.len() {
                assert_eq!(a[i] ^ b[i], u64::from(x[i] < alpha[i]), "{} < {}", x[i], alpha[i]);
            }
        }
    }

    #[test]
    fn one_key_serves_many_points_and_alone_says_nothing() {
        let alpha = vec![1 << 40; 512];
        let [a, b] = pair(&alpha, 63);
        let mut ones = 0;
        for x in [0, 1 << 40, (1 << 40) - 1, (1 << 63) - 1] {
            let x = vec![x; 512];
            let (a, b) = (a.evaluate(0, &x), b.evaluate(1, &x));
            ones += a.iter().sum::<u64>();
            assert!(a.iter().zip(&b).all(|(a, b)| a ^ b == u64::from(x[0] < 1 << 40)));
        }
        // 2048 fair bits: five standard deviations.
        assert!((ones as f64 - 1024.0).abs() < 113.0, "{ones} ones in 2048 shares");
    }

    #[test]
    fn a_truncated_key_is_refused() {
        let stored = ComparisonKeys::generate(&[5], 8, [&roots(1), &roots(1)]);
        assert!(ComparisonKeys::read(&stored[..stored.len() - 1], 8, roots(1)).is_none());
    }

    proptest! {
        #[test]
        fn wide_comparisons(pairs in prop::collection::vec((any::<u64>(), any::<u64>()), 1..80), levels in 1u32..=64) {
            let low = crate::ring::low(levels);
            let (alpha, x): (Vec<_>, Vec<_>) = pairs.iter().map(|p| (p.0 & low, p.1 & low)).unzip();
            let [a, b] = pair(&alpha, levels);
            let (a, b) = (a.evaluate(0, &x), b.evaluate(1, &x));
            for i in 0..x.len() {
                prop_assert_eq!(a[i] ^ b[i], u64::from(x[i] < alpha[i]));
            }
        }
    }
}
