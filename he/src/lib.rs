//! Encrypted inference: transformers that compute on ciphertexts.
//!
//! [`ckks`] is the scheme, [`world`] runs `undertone-core`'s operators on it.

pub mod ckks;
pub mod world;
