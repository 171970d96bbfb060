//! Weights from a seed.

use std::convert::Infallible;

use super::EncoderWeights;
use super::collect::{Source, collect};
use crate::config::Config;
use crate::tasks::SplitMix64;

/// The class count of a random model whose configuration names no classes: none.
pub(super) fn random(config: &Config, seed: u64) -> EncoderWeights {
    let mut source = Random(SplitMix64::new(seed));
    let Ok(weights) = collect(&mut source, config);
    weights
}

struct Random(SplitMix64);

impl Random {
    /// Uniform in −1…1.
    fn next(&mut self) -> f32 {
        // 24 bits fill the mantissa of an f32 exactly.
        (self.0.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

impl Source for Random {
    type Error = Infallible;

    fn shape(&self, _: &str) -> Option<&[usize]> {
        None
    }

    fn take(&mut self, name: &str, wanted: &[usize]) -> Result<Vec<f32>, Infallible> {
        let len: usize = wanted.iter().product();
        let inputs: usize = wanted.iter().skip(1).product();
        let (centre, spread) = if wanted.len() == 1 {
            let centre = if name.ends_with("weight") || name.ends_with(".b") { 1.0 } else { 0.0 };
            (centre, 0.1)
        } else if name.contains("embeddings") && wanted.len() != 4 {
            (0.0, 1.0)
        } else {
            // A uniform variable in ±√(3/n) has variance 1/n.
            (0.0, (3.0 / inputs as f32).sqrt())
        };
        Ok((0..len).map(|_| centre + spread * self.next()).collect())
    }
}
