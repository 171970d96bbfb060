//! Encrypted inference: transformers that compute on ciphertexts.
//!
//! [`ckks`] is the approximate scheme, [`world`] runs `undertone-core`'s operators on it and
//! [`classifier`] a whole model on one encrypted image; [`tfhe`] runs operators on exact integers;
//! `service` (a feature) connects clients and servers.

pub mod ckks;
pub mod classifier;
#[cfg(feature = "service")]
pub mod service;
pub mod tfhe;
pub mod world;

pub use classifier::{Classifier, ClassifierError};
