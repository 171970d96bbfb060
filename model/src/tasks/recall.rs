//! Associative recall: an episode shows pairs of keys and values and asks for the value that
//! stood beside one of the keys (Ba et al. 2016, arXiv 1610.06258, section 4.1, with whole
//! pairs as tokens).
//!
//! A pair (k, v) is the token k·values + v, a query for k the token keys·values + k, so the
//! vocabulary has keys·values + keys tokens. The query comes first. Which pair answers it can
//! only be found by comparing tokens, so a model without attention is left with chance,
//! 1/pairs at best.

use super::{SplitMix64, mix64};

/// The sizes of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    keys: u32,
    values: u32,
    pairs: u32,
}

/// One episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// The query, then the pairs; `pairs + 1` token ids.
    pub tokens: Vec<u32>,
    /// The value to find, below `values`.
    pub label: u32,
}

/// The sizes do not make a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "recall with {keys} keys, {values} values and {pairs} pairs; expected 1 to 1024 keys and \
     values, and 1 to {keys} pairs since keys do not repeat"
)]
pub struct RecallError {
    keys: u32,
    values: u32,
    pairs: u32,
}

impl Recall {
    /// A task with `pairs` pairs of `keys` keys and `values` values.
    ///
    /// # Errors
    /// [`RecallError`] unless there are 1 to 1,024 keys and values and 1 to `keys` pairs.
    pub fn new(keys: u32, values: u32, pairs: u32) -> Result<Self, RecallError> {
        let size = 1..=1_024;
        if size.contains(&keys) && size.contains(&values) && (1..=keys).contains(&pairs) {
            return Ok(Self { keys, values, pairs });
        }
        Err(RecallError { keys, values, pairs })
    }

    /// Tokens of the vocabulary: keys·values + keys.
    pub fn vocabulary(&self) -> usize {
        let (keys, values) = (self.keys as usize, self.values as usize);
        keys * values + keys
    }

    /// Classes: the values.
    pub fn classes(&self) -> usize {
        self.values as usize
    }

    /// Episode `index` of the stream `seed`. Any episode can be made without the others.
    ///
    /// The generator starts at mix64(seed) ⊕ mix64((index + 1) | 2⁶³); it draws the keys by
    /// the first steps of a Fisher-Yates shuffle, then the values, then the queried pair.
    ///
    /// ```
    /// use undertone_model::tasks::recall::Recall;
    ///
    /// let task = Recall::new(8, 8, 4)?;
    /// let episode = task.episode(7, 0);
    /// let key = episode.tokens[0] - 64;
    /// let pair = episode.tokens[1..].iter().find(|&&pair| pair / 8 == key);
    /// assert_eq!(pair.map(|pair| pair % 8), Some(episode.label));
    /// # Ok::<(), undertone_model::tasks::recall::RecallError>(())
    /// ```
    pub fn episode(&self, seed: u64, index: u64) -> Episode {
        let start = mix64(seed) ^ mix64(index.wrapping_add(1) | 1 << 63);
        let mut draw = SplitMix64::new(start);
        let mut keys: Vec<u32> = (0..self.keys).collect();
        for j in 0..self.pairs {
            keys.swap(j as usize, (j + draw.below(self.keys - j)) as usize);
        }
        let values: Vec<u32> = (0..self.pairs).map(|_| draw.below(self.values)).collect();
        let query = draw.below(self.pairs) as usize;
        let pairs = keys.iter().zip(&values).map(|(key, value)| key * self.values + value);
        let tokens = std::iter::once(self.keys * self.values + keys[query]).chain(pairs).collect();
        Episode { tokens, label: values[query] }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The golden episodes that the training code's generator is held to as well.
    #[test]
    fn episodes_of_seed_7() {
        let golden: [(u32, u32, u32, &[u32], u32); 6] = [
            (8, 8, 6, &[71, 17, 57, 49, 30, 42, 9], 1),
            (8, 8, 6, &[66, 24, 57, 18, 34, 47, 49], 2),
            (8, 8, 6, &[70, 8, 35, 0, 60, 31, 50], 2),
            (16, 8, 4, &[133, 43, 126, 89, 33], 3),
            (16, 8, 4, &[143, 50, 123, 16, 57], 3),
            (16, 8, 4, &[130, 23, 67, 8, 115], 7),
        ];
        for (position, (keys, values, pairs, tokens, label)) in golden.into_iter().enumerate() {
            let task = Recall::new(keys, values, pairs).unwrap();
            let episode = task.episode(7, position as u64 % 3);
            assert_eq!(episode, Episode { tokens: tokens.to_vec(), label });
        }
    }

    proptest::proptest! {
        #[test]
        fn keys_differ_and_the_label_answers_the_query(
            seed: u64, index: u64, keys in 1u32..64, values in 1u32..64, pairs in 1u32..64,
        ) {
            let pairs = pairs.min(keys);
            let task = Recall::new(keys, values, pairs).unwrap();
            let Episode { tokens, label } = task.episode(seed, index);
            let query = tokens[0] - keys * values;
            let found: Vec<u32> = tokens[1..].iter().map(|token| token / values).collect();
            let distinct: std::collections::HashSet<_> = found.iter().collect();
            assert_eq!((found.len(), distinct.len()), (pairs as usize, pairs as usize));
            let answer = found.iter().position(|&key| key == query).unwrap();
            assert_eq!(tokens[1 + answer] % values, label);
            assert!((tokens[0] as usize) < task.vocabulary());
        }
    }

    #[test]
    fn refuses_sizes_without_a_task() {
        for (keys, values, pairs) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (4, 4, 5), (1_025, 1, 1)] {
            assert!(Recall::new(keys, values, pairs).is_err(), "{keys} {values} {pairs}");
        }
    }
}
