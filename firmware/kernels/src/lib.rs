//! The kernels that are counted, with their inputs. The binaries run one each.
//!
//! A line of output is `name instructions stack digest`: the first two on a board only, the
//! digest the same everywhere. Inputs are constants, so they stand in flash.
#![cfg_attr(target_os = "none", no_std)]

pub mod attention;
pub mod attention8;
pub mod gelu;
pub mod inputs;
pub mod linear;
pub mod matvec;
pub mod norm;
pub mod softmax16;
pub mod softmax8;
