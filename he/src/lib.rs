//! Encrypted inference: transformers that compute on ciphertexts.

pub mod ckks;
