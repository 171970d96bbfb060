//! Two-party inference: the secret-shared world of undertone.
//!
//! A client holds an input, a server holds weights, and the client learns the output. Both follow
//! the protocol but are curious (semi-honest); correlated randomness comes from a trusted dealer
//! who takes no part in the run. Values are fixed point in Z_2^64, held as additive shares; a value
//! that is to be multiplied, compared or looked up is opened under a one-time mask.
//!
//! The same program runs in three roles: as a *plan* (no data, counts only), as the *dealer* (masks
//! instead of data) and as a *party*. What the plan counts is what the channel then measures,
//! exactly.
//!
//! ```
//! use undertone_core::Shape;
//! use undertone_mpc::{Format, run_locally};
//!
//! // max(x, 0) of the client's values, revealed to the client.
//! let out = run_locally("relu", Format::default(), |mpc| {
//!     let x = mpc.input(0, Shape::new(1, 1, 3), Some(&[-1.5, 0.25, 3.0]))?;
//!     let x = mpc.share(&x);
//!     let y = mpc.relu(&x)?;
//!     mpc.reveal(&y, 0)
//! })?;
//! assert_eq!(out.results[0].as_deref(), Some(&[0.0, 0.25, 3.0][..]));
//! assert_eq!(out.measured[0].exchanges, 4); // input, opening, bit, output
//! assert_eq!(out.measured[0].exchanges, out.plan.cost().exchanges);
//! # Ok::<(), undertone_mpc::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod channel;
#[cfg(test)]
mod conformance;
pub mod cost;
pub mod dcf;
mod error;
mod mpc;
pub mod party;
pub mod preprocess;
mod prg;
pub mod protocol;
mod rates;
pub mod ring;
mod world;

pub use cost::{Cost, Meter, Work};
pub use error::{Error, Result};
pub use mpc::{Format, Local, Mpc, Plan, Report, Shared, Wire, run_locally, run_over};
pub use rates::Rates;
pub use world::{Fused, Held, Secret};
