//! The float world.

mod product;
mod world;

pub use world::{Absent, Data, Float, Operand, Tensor};
