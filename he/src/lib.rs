//! Encrypted inference: transformers that compute on ciphertexts.
//!
//! [`ckks`] is the approximate scheme, [`world`] runs `undertone-core`'s operators on it; [`tfhe`]
//! runs them on exact integers; `service` (a feature)
//! connects clients and servers.

pub mod ckks;
#[cfg(feature = "service")]
pub mod service;
pub mod tfhe;
pub mod world;
