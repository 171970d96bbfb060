//! Model folders, images, text and data sets for undertone, and the plain references that
//! every world is tested against.
//!
//! A model is a folder: `config.json` and `model.safetensors`, for text `tokenizer.json`, for
//! images optionally `preprocessor_config.json`; `docs/model-format.md` is the contract.
//!
//! * [`config`] reads and checks `config.json` and writes the `undertone` block back;
//! * [`weights`] reads `model.safetensors` into a typed [`weights::EncoderWeights`];
//! * [`image`], [`idx`], [`dataset`] and [`text`] turn files into what an encoder reads;
//! * [`tasks`] generates the tasks that have no files;
//! * [`mod@reference`] is the f64 forward pass, written to be read next to the papers;
//! * [`float`] is the float world with its kernels, [`host`] what a host asks of any world;
//! * [`build`] prepares a model in a world and runs it there.
//!
//! Everything read from outside goes through a size limit (see [`limits`]) before memory is
//! reserved for it, and every refusal is a typed error that says what was found, what was
//! expected and what to do.

pub mod build;
pub mod config;
pub mod dataset;
pub mod domains;
pub mod export;
pub mod fixed;
pub mod float;
pub mod host;
pub mod idx;
pub mod image;
pub mod input;
pub mod limits;
pub mod reference;
pub mod tasks;
pub mod text;
pub mod trace;
pub mod weights;

pub use build::{Model, Prepared};

/// Why a model folder or an input was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `config.json` is wrong.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// `model.safetensors` is wrong.
    #[error(transparent)]
    Weights(#[from] weights::WeightError),
    /// A calibrated range has an unknown name.
    #[error(transparent)]
    Site(#[from] domains::UnknownSite),
    /// An input does not fit the model.
    #[error(transparent)]
    Input(#[from] input::InputError),
}
