//! Attention written once, run in every world.
#![no_std]
#![forbid(unsafe_code)]
//! See the crate description.
pub mod binary;
