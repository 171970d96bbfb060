//! EcoFormer and BiViT attention on packed bits.
//!
//! The portable kernels, which define every result, live in [`undertone_core::binary`]; this crate
//! adds owned types, vector forms chosen at run time, plain f64 references, the fit of the hash,
//! and the ledger that prices operations.

pub mod bivit;
pub mod ecoformer;
pub mod energy;
pub mod fit;
mod layout;
mod linear;
pub mod model;
mod packed;
pub mod reference;
mod simd;

pub use layout::{BLOCK, Line, Planes, Slices};
pub use linear::BinaryLinear;
pub use packed::Signs;
pub use simd::Level;
pub use undertone_core::binary::{BitFault, BitRows};
