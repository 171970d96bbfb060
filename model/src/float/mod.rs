//! f32 on the processor: the float world, the [`kernels`] under it, and [`FastEncoder`], the
//! whole forward pass as one straight line of kernels.

pub mod kernels;

mod encoder;
mod menu;
mod world;

pub use encoder::{Batch, FastEncoder};
pub use menu::Fused;
pub use world::{Absent, Data, Float, Operand, Tensor};
