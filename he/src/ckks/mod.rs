//! CKKS over residue number systems, on stable Rust.
//!
//! Approximate arithmetic on encrypted vectors of N/2 complex numbers (Cheon, Kim, Kim, Song
//! 2017; residue form by Cheon, Han, Kim, Kim, Song 2018). Transforms come from `tfhe-ntt`; base
//! conversion and key switching have kernels for AVX-512 IFMA, AVX2 and plain Rust that compute
//! identical results.
//!
//! ```
//! # #[cfg(feature = "client")] {
//! use std::sync::Arc;
//! use undertone_he::ckks::{Automorphism, Context, Evaluator, Params, SecretKey};
//!
//! let ctx = Context::new(Params::TEST_N12)?;
//! // The client.
//! let secret = SecretKey::generate(&ctx)?;
//! let keys = secret.evaluation_keys(&[Automorphism::Rotate(1)])?;
//! let x = ctx.encode(&[1.5, -2.0, 3.0], ctx.top_level())?;
//! let x = secret.encrypt(&x)?;
//! // The server: x² shifted by one slot.
//! let server = Evaluator::new(ctx.clone(), Arc::new(keys))?;
//! let x = x.expand(&ctx)?;
//! let y = server.rotate(&server.square(&x)?, 1)?;
//! // The client again.
//! let y = secret.decrypt_real(&y)?;
//! assert!((y[0] - 4.0).abs() < 1e-6 && (y[1] - 9.0).abs() < 1e-6);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arith;
mod buffer;
mod cipher;
#[cfg(feature = "client")]
mod client;
mod context;
mod convert;
mod counters;
mod encode;
mod encrypt;
mod error;
mod eval;
mod evalkeys;
mod kernels;
mod noise;
mod params;
mod rates;
mod sample;
mod switch;
#[cfg(all(test, feature = "client"))]
mod tests;
mod wire;
#[cfg(all(test, feature = "client"))]
mod wire_tests;

pub use cipher::{Ciphertext, Degree, Factor, KeyId, Meta, Plaintext, SeededCiphertext};
#[cfg(feature = "client")]
pub use client::SecretKey;
pub use context::{Automorphism, Context};
pub use counters::{Counters, Counts};
pub use encode::Complex;
pub use error::CkksError;
pub use eval::Evaluator;
pub use evalkeys::{EvaluationKeys, PublicKey, switching_key_bytes};
pub use kernels::Backend;
pub use params::{BOUNDS_128, Chain, ERROR_STD, Params, ParamsError, SecretDistribution, Security};
pub use rates::Rates;
pub use wire::{Artefact, CHECKSUM_BYTES, HEADER_BYTES, Kind, MAGIC, VERSION, WireError};
