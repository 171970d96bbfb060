//! The world's error.

use undertone_core::Fault;

use super::Layout;
use crate::ckks::CkksError;

/// Why the CKKS world refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeError {
    /// Shapes, ranges or operators.
    #[error(transparent)]
    Core(#[from] Fault),
    /// Levels, scales, keys.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// Operands packed in a way that the operation cannot use.
    #[error(
        "{op}: the operand is in {found:?} layout, needs {wanted:?}; encrypt it so, or insert \
             a change of layout"
    )]
    Layout {
        /// The operation.
        op: &'static str,
        /// Its layout.
        found: Layout,
        /// The layout needed.
        wanted: Layout,
    },
    /// A domain on which a function cannot be approximated.
    #[error("{function} on [{lo}, {hi}]: {problem}")]
    Domain {
        /// The function.
        function: &'static str,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
}
