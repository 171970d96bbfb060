//! Size limits for everything that comes from outside, and the bounded read that applies them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest `config.json` or `preprocessor_config.json`, in bytes.
pub const CONFIG_BYTES: u64 = 8 << 20;
/// Largest safetensors header, in bytes.
pub const HEADER_BYTES: u64 = 16 << 20;
/// Largest `model.safetensors`, in bytes.
pub const WEIGHT_BYTES: u64 = 8 << 30;
/// Largest `tokenizer.json`, in bytes.
pub const TOKENIZER_BYTES: u64 = 64 << 20;
/// Largest compressed image file, in bytes.
pub const IMAGE_BYTES: u64 = 64 << 20;
/// Longest side of an image, in pixels.
pub const IMAGE_SIDE: u32 = 16_384;
/// Largest memory the image decoder may take, in bytes.
pub const IMAGE_MEMORY: u64 = 512 << 20;
/// Largest IDX file after decompression, in bytes.
pub const IDX_BYTES: u64 = 1 << 30;
/// Longest text given to a tokenizer, in bytes.
pub const TEXT_BYTES: usize = 1 << 20;
/// Largest number that a class folder may begin with, plus one.
pub const DATASET_CLASSES: usize = 100_000;
/// Most entries of a class-folder data set.
pub const DATASET_ITEMS: usize = 4_000_000;

/// A file could not be read within its limit.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than the limit for its kind.
    #[error("{path} is larger than the limit of {limit} bytes; is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
}

/// Reads a whole file of at most `limit` bytes.
///
/// The limit holds for what is read, not for what the directory says, so a growing file or a
/// device cannot exceed it.
///
/// # Errors
/// [`ReadError::Io`] or [`ReadError::TooLarge`].
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}
