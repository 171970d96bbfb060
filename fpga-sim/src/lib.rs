//! A cycle-level simulator of transformer dataflow on FPGAs.
//!
//! A workload becomes dataflow graphs ([`graph`]) whose times are found in
//! three ways that agree exactly: closed forms ([`closed`]), a timestamp
//! engine ([`timestamp`]) and a stepped engine ([`stepped`]).

pub mod arch;
pub mod closed;
pub mod energy;
pub mod engine;
mod error;
pub mod explore;
pub mod graph;
pub mod mapping;
pub mod output;
pub mod resources;
pub mod rtl;
pub mod simulate;
pub mod sizing;
pub mod stepped;
pub mod timestamp;
mod trace;
pub mod workload;

pub use error::{Error, Result};
