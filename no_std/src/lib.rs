//! Attention written once, run in every world.
//!
//! `undertone-core` holds what every backend of undertone shares and what a microcontroller needs
//! alone: the world traits, the attention operators and encoder blocks over them, and the
//! fixed-point world. No `std`, no allocation, no `unsafe`.
#![no_std]
#![forbid(unsafe_code)]

pub mod attention;
pub mod binary;
pub mod check;
pub mod encoder;
mod fault;
pub mod fixed;
mod ledger;
mod menu;
mod num;
mod shape;
mod site;
pub mod trace;
mod world;

pub use fault::{Fault, Unsupported};
pub use ledger::{Counts, Op, Width};
pub use menu::{Full, Menu, Poly};
pub use num::Num;
pub use shape::{Axis, Form, Mask, Shape};
pub use site::{Bound, Domains, Range, Ranges, Role, Site, Uncalibrated};
pub use world::{Approximate, Compare, Function, Made, Multiply, World};
