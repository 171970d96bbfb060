//! Weights from a seed.

use std::convert::Infallible;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::EncoderWeights;
use super::collect::{Source, collect};
use crate::config::Config;
use crate::tasks::SplitMix64;

/// The class count of a random model whose configuration names no classes: none.
pub(super) fn random(config: &Config, seed: u64) -> EncoderWeights {
    let mut source = Random::new(seed);
    let Ok(weights) = collect(&mut source, config);
    weights
}

/// Draws the weights and stores each tensor as it comes.
pub(super) fn write(config: &Config, seed: u64, path: &Path) -> std::io::Result<()> {
    let mut source = Kept { random: Random::new(seed), tensors: Vec::new() };
    let Ok(_) = collect(&mut source, config);
    let mut views = Vec::with_capacity(source.tensors.len());
    for (name, shape, bytes) in &source.tensors {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        views.push((name, view.map_err(std::io::Error::other)?));
    }
    safetensors::serialize_to_file(views, None, path).map_err(std::io::Error::other)
}

/// Random tensors, kept under their names.
struct Kept {
    random: Random,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl Source for Kept {
    type Error = Infallible;

    fn shape(&self, _: &str) -> Option<&[usize]> {
        None
    }

    fn take(&mut self, name: &str, wanted: &[usize]) -> Result<Vec<f32>, Infallible> {
        let values = self.random.take(name, wanted)?;
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), wanted.to_vec(), bytes));
        Ok(values)
    }
}

pub(super) struct Random(SplitMix64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

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
