//! The embedding table of a text model as a file of its own: what a client needs to embed its
//! text when the rest of the model is a server's.

use std::fs::File;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::collect::{Source, collect};
use super::file::TensorFile;
use super::{Embeddings, EncoderWeights, WeightError, random};
use crate::config::Config;

const TABLES: [&str; 3] = [
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
];

impl EncoderWeights {
    /// Writes word, position and token type embeddings as safetensors in f32.
    ///
    /// # Errors
    /// The operating system's; a model that reads images has no such tables.
    pub fn write_embeddings(&self, path: &Path) -> std::io::Result<()> {
        let Embeddings::Bert { word, position, token_type, norm } = &self.embeddings else {
            return Err(std::io::Error::other("a model that reads images has no embedding table"));
        };
        let width = norm.weight.len();
        let bytes = [word, position, token_type]
            .map(|table| table.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        let mut views = Vec::with_capacity(3);
        for (name, bytes) in TABLES.iter().zip(&bytes) {
            let shape = vec![bytes.len() / 4 / width, width];
            let view = TensorView::new(Dtype::F32, shape, bytes).map_err(std::io::Error::other)?;
            views.push((*name, view));
        }
        safetensors::serialize_to_file(views, None, path).map_err(std::io::Error::other)
    }

    /// Weights whose embedding tables are read from a file and whose rest is random.
    ///
    /// # Errors
    /// As [`EncoderWeights::load`].
    pub fn load_embeddings(path: &Path, config: &Config) -> Result<Self, WeightError> {
        let file = File::open(path)
            .map_err(|source| WeightError::Open { path: path.to_owned(), source })?;
        let mut source = Tables { file: TensorFile::open(file)?, rest: random::Random::new(0) };
        let weights = collect(&mut source, config)?;
        source.file.finish(false)?;
        Ok(weights)
    }
}

struct Tables {
    file: TensorFile<File>,
    rest: random::Random,
}

impl Source for Tables {
    type Error = WeightError;

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.file.shape(name)
    }

    fn take(&mut self, name: &str, wanted: &[usize]) -> Result<Vec<f32>, WeightError> {
        if TABLES.contains(&name) {
            return self.file.take(name, wanted);
        }
        let Ok(values) = self.rest.take(name, wanted);
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tables_come_back_and_the_rest_does_not() {
        let json = br#"{"model_type": "bert", "vocab_size": 9, "max_position_embeddings": 3,
            "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 4}"#;
        let config = Config::parse(json, None).unwrap();
        let weights = EncoderWeights::random(&config, 5);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("embeddings.safetensors");
        weights.write_embeddings(&path).unwrap();
        let read = EncoderWeights::load_embeddings(&path, &config).unwrap();
        let (
            Embeddings::Bert { word, position, token_type, .. },
            Embeddings::Bert { word: w, position: p, token_type: t, .. },
        ) = (&weights.embeddings, &read.embeddings)
        else {
            panic!("not a bert");
        };
        assert_eq!((word, position, token_type), (w, p, t));
        assert_ne!(weights.layers, read.layers);
    }
}
