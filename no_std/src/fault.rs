//! What can go wrong in the core.

use crate::{Shape, Site};
use thiserror::Error;

/// An operator that a world cannot run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{operator} needs {needs}, which the {world} world does not have; use {instead} instead")]
pub struct Unsupported {
    /// The operator asked for.
    pub operator: &'static str,
    /// What it needs.
    pub needs: &'static str,
    /// The world asked.
    pub world: &'static str,
    /// What runs there.
    pub instead: &'static str,
}

/// A failure of a core operation. Small and `Copy`: it travels through `no_std` code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// Operands whose shapes do not go together.
    #[error("{op}: shapes {left} and {right} do not go together")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The left or only operand.
        left: Shape,
        /// The right operand, or what was wanted.
        right: Shape,
    },
    /// A tensor without elements.
    #[error("{op}: the tensor has no elements (shape {shape})")]
    Empty {
        /// The operation.
        op: &'static str,
        /// The shape found.
        shape: Shape,
    },
    /// The operator needs more than the world has.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A range that is needed and not known.
    #[error("no calibrated range for {0}: calibrate the model first")]
    Uncalibrated(Site),
    /// A value outside the range that the model declares.
    #[error("{site}: a value lies outside the calibrated range: calibrate on data like this")]
    OutOfDomain {
        /// Where.
        site: Site,
    },
    /// An accumulator that would overflow.
    #[error("{op}: {terms} terms would overflow the accumulator; at most {limit} fit")]
    Overflow {
        /// The operation.
        op: &'static str,
        /// Terms asked for.
        terms: usize,
        /// Terms that fit.
        limit: usize,
    },
    /// Memory provided by the caller does not suffice.
    #[error("{needed} elements of scratch needed, {available} given")]
    Memory {
        /// Elements needed so far.
        needed: usize,
        /// Elements given.
        available: usize,
    },
    /// A tensor handle that outlived its memory, or belongs to another world.
    #[error("{op}: the tensor handle is stale")]
    Stale {
        /// The operation.
        op: &'static str,
    },
    /// More items than a fixed-size table holds.
    #[error("{what}: at most {limit} fit")]
    Capacity {
        /// What was too many.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A parameter outside its allowed values.
    #[error("{what}: {got} is not allowed")]
    Parameter {
        /// The parameter.
        what: &'static str,
        /// The value found.
        got: i64,
    },
}
