//! Whole transformers with one-bit attention, their one-bit weights packed from file to kernel.
//!
//! A model is a folder: `config.json`, and `model.safetensors` or the packed checkpoint
//! `model.bits` that [`pack`] makes of it. Weights of `"weights": "sign"` layers stay bits: the file
//! holds them packed and no product expands them. Heads of a layer are alike.

mod attention;
mod config;
mod encoder;
mod fixed;
mod forward;
mod hashing;
mod source;

pub use config::{
    Activation, Block, Coding, Config, HeadConfig, LayerConfig, Pooling, Reduction, Task, Weights,
};
pub use encoder::{Arithmetic, Encoder};
pub use fixed::InFixed;
pub use hashing::{FitError, Hashed, fit_hash};
pub use source::{MOST_WEIGHT_BYTES, Precision};

use safetensors::SafeTensors;
use source::{Folder, Packed, Packer};
use std::path::{Path, PathBuf};
use undertone_core::binary::BitFault;

/// The name of a packed checkpoint in its folder.
pub const PACKED: &str = "model.bits";

/// Why a model was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is longer than is read.
    #[error("{path}: {got} bytes, at most {most} are read", path = path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        got: u64,
        /// The limit.
        most: u64,
    },
    /// `config.json` is not what a binary model needs.
    #[error("config.json: {0}")]
    Json(#[source] serde_json::Error),
    /// A value of `config.json` is not offered here.
    #[error("config.json: {what} is {got}; one-bit models take {wanted}")]
    Config {
        /// The key.
        what: &'static str,
        /// What it says.
        got: String,
        /// What is offered.
        wanted: &'static str,
    },
    /// `model.safetensors` cannot be parsed.
    #[error("model.safetensors: {0}")]
    Weights(#[from] safetensors::SafeTensorError),
    /// A tensor is missing.
    #[error("model.safetensors: no tensor {tensor}; wanted shape {wanted:?}")]
    Missing {
        /// Its name.
        tensor: String,
        /// Its shape.
        wanted: Vec<usize>,
    },
    /// A tensor has another type or shape.
    #[error("model.safetensors: {tensor} is {found}; wanted {wanted}")]
    Shape {
        /// Its name.
        tensor: String,
        /// Type and shape found.
        found: String,
        /// Type and shape wanted.
        wanted: String,
    },
    /// A tensor holds NaN or infinities.
    #[error("{tensor} holds values that are not finite; train or export it again")]
    NotFinite {
        /// Its name.
        tensor: String,
    },
    /// Packed signs are malformed.
    #[error("{tensor}: {fault}")]
    Bits {
        /// Its name.
        tensor: String,
        /// Why.
        fault: BitFault,
    },
    /// A packed checkpoint is malformed.
    #[error("packed checkpoint: {what}")]
    Packed {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Whether a folder's `config.json` asks for one-bit attention: a head of the kinds `ecoformer` or
/// `bivit`. False also where the file cannot be read or parsed: another loader will say why.
pub fn is_one_bit(folder: &Path) -> bool {
    let kinds = || -> Option<bool> {
        let bytes = read_bounded(&folder.join("config.json"), config::MOST_CONFIG_BYTES).ok()?;
        let json: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let layers = json.get("undertone")?.get("layers")?.as_array()?;
        let mut heads = layers.iter().filter_map(|l| l.get("heads")?.as_array()).flatten();
        Some(heads.any(|h| matches!(h["kind"].as_str(), Some("ecoformer" | "bivit"))))
    };
    kinds().unwrap_or(false)
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, LoadError> {
    use std::io::Read;
    let fail = |source| LoadError::File { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let got = file.metadata().map_err(fail)?.len();
    if got > most {
        return Err(LoadError::Long { path: path.into(), got, most });
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

impl Encoder {
    /// Loads a model folder: `model.bits` where it has one, else `model.safetensors`.
    ///
    /// # Errors
    /// [`LoadError`] names the file or tensor, what was found and what was wanted.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        let (config, json) = Config::load(folder)?;
        let packed = folder.join(PACKED);
        if packed.exists() {
            let file = read_bounded(&packed, MOST_WEIGHT_BYTES)?;
            return Self::from_packed(config, &json, &file);
        }
        let file = read_bounded(&folder.join("model.safetensors"), MOST_WEIGHT_BYTES)?;
        Self::from_safetensors(config, &file)
    }

    /// An encoder from its configuration and the bytes of a `model.safetensors`.
    ///
    /// # Errors
    /// As [`Encoder::load`].
    pub fn from_safetensors(config: Config, file: &[u8]) -> Result<Self, LoadError> {
        let tensors = SafeTensors::deserialize(file)?;
        Self::read(config, &mut Folder { tensors })
    }

    /// An encoder from its configuration (parsed, and as bytes) and a packed checkpoint.
    ///
    /// # Errors
    /// As [`Encoder::load`].
    pub fn from_packed(config: Config, json: &[u8], file: &[u8]) -> Result<Self, LoadError> {
        let mut source = Packed::open(file, json)?;
        let encoder = Self::read(config, &mut source)?;
        source.finish()?;
        Ok(encoder)
    }
}

/// The packed checkpoint of a model folder with a `model.safetensors`.
///
/// # Errors
/// As [`Encoder::load`].
pub fn pack(folder: &Path, precision: Precision) -> Result<Vec<u8>, LoadError> {
    let (config, json) = Config::load(folder)?;
    let file = read_bounded(&folder.join("model.safetensors"), MOST_WEIGHT_BYTES)?;
    let tensors = SafeTensors::deserialize(&file)?;
    let mut packer = Packer { folder: Folder { tensors }, precision, out: Vec::new() };
    Encoder::read(config, &mut packer)?;
    Ok(packer.finish(&json))
}
