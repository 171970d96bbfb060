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
//! * [`reference`] is the f64 forward pass, written to be read next to the papers;
//! * [`float`] holds the f32 kernels and the fast f32 forward pass built on them.
//!
//! Everything read from outside goes through a size limit (see [`limits`]) before memory is
//! reserved for it, and every refusal is a typed error that says what was found, what was
//! expected and what to do.

pub mod config;
pub mod float;
pub mod input;
pub mod limits;
pub mod reference;
pub mod tasks;
pub mod text;
pub mod weights;
