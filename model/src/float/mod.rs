//! f32 on the processor: [`kernels`], and [`FastEncoder`], the whole forward pass on top.

pub mod kernels;

mod encoder;

pub use encoder::{Batch, FastEncoder};
