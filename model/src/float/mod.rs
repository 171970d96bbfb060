//! f32 on the processor: the float world, its fused menu, and the [`kernels`] under them.

pub mod kernels;

mod menu;
mod world;

pub use menu::Fused;
pub use world::{Absent, Data, Float, Operand, Tensor};
