//! Attention and linear layers on packed sign bits, in plain portable Rust: no std, no alloc, no
//! unsafe, the caller's memory only.
//!
//! A set bit is +1. Words are `u64` on a desktop and `u32` on a microcontroller
//! ([`Word`]). These forms define the results: every vector form elsewhere gives the same bits.
//!
//! | what | where |
//! |---|---|
//! | packed rows, transposition | [`BitRows`], [`pack_signs`] |
//! | distances | [`hamming_matrix`] |
//! | BiViT attention without a softmax | [`bivit`] |
//! | EcoFormer's hash and linear attention | [`struct@Hash`], [`ecoformer`] |
//! | binary linear layers | [`linear_signs`], [`linear_bits`] |

pub mod bivit;
pub mod ecoformer;
mod fault;
mod hamming;
pub mod hash;
mod linear;
mod rows;
mod word;

pub use bivit::margin;
pub use fault::{BitFault, finite};
pub use hamming::{MOST_BYTE_DIM, hamming, hamming_matrix};
pub use hash::{Hash, Sigma, exp2_negative};
pub use linear::{Affine, binarize_weights, linear_bits, linear_signs, signed_sum};
pub use rows::{BitRows, pack_signs, unpack_signs};
pub use word::{Word, words_for};
