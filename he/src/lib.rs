//! Encrypted inference: transformers that compute on ciphertexts.
//!
//! [`ckks`] is the scheme, [`world`] runs `undertone-core`'s operators on it, and [`classifier`]
//! a whole model on one encrypted image.

pub mod ckks;
pub mod classifier;
pub mod world;

pub use classifier::{Classifier, ClassifierError};
