//! Attention written once, run in every world.
#![no_std]
#![forbid(unsafe_code)]

pub mod fixed;
