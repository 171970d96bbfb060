//! What can be wrong with an operand on bits.

/// A refusal of an operation on packed bits. It names the operation, what was expected, what was
/// found, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BitFault {
    /// A slice or a shape has the wrong size.
    #[error("{operation}: {what} must be {expected}, got {got}; pass matching shapes and buffers")]
    Size {
        /// The operation that refused.
        operation: &'static str,
        /// What was measured, with its unit.
        what: &'static str,
        /// The size wanted.
        expected: usize,
        /// The size found.
        got: usize,
    },
    /// A size lies above what the number formats of the operation hold.
    #[error("{operation}: {what} may be at most {most}, got {got}; split the operand")]
    Limit {
        /// The operation that refused.
        operation: &'static str,
        /// What was measured, with its unit.
        what: &'static str,
        /// The largest size.
        most: usize,
        /// The size found.
        got: usize,
    },
    /// An operand without rows or columns: the result would be 0/0.
    #[error("{operation}: {what} is empty; pass at least one")]
    Empty {
        /// The operation that refused.
        operation: &'static str,
        /// What was empty.
        what: &'static str,
    },
    /// A NaN or an infinity, which has no sign bit and no place on a scale.
    #[error(
        "{operation}: value {index} is not finite; find where the activations overflow before binarizing"
    )]
    NotFinite {
        /// The operation that refused.
        operation: &'static str,
        /// The flat index of the first such value.
        index: usize,
    },
    /// A bit is set beyond a row's last column: distances would count it.
    #[error(
        "{operation}: row {row} has bits set beyond its {dim} columns; clear the tail of each row"
    )]
    Tail {
        /// The operation that refused.
        operation: &'static str,
        /// The first such row.
        row: usize,
        /// The columns of a row.
        dim: usize,
    },
}

/// Refuses unless `got == expected`.
pub(crate) fn size(
    operation: &'static str,
    what: &'static str,
    expected: usize,
    got: usize,
) -> Result<(), BitFault> {
    if expected == got { Ok(()) } else { Err(BitFault::Size { operation, what, expected, got }) }
}

/// Refuses unless `got <= most`.
pub(crate) fn limit(
    operation: &'static str,
    what: &'static str,
    most: usize,
    got: usize,
) -> Result<(), BitFault> {
    if got <= most { Ok(()) } else { Err(BitFault::Limit { operation, what, most, got }) }
}

/// Refuses a count of zero.
pub(crate) fn some(
    operation: &'static str,
    what: &'static str,
    got: usize,
) -> Result<(), BitFault> {
    if got == 0 { Err(BitFault::Empty { operation, what }) } else { Ok(()) }
}

/// Refuses values without a place on the number line.
///
/// # Errors
/// [`BitFault::NotFinite`] with the first such index.
#[inline]
pub fn finite(operation: &'static str, x: &[f32]) -> Result<(), BitFault> {
    // Without an early exit the scan runs on a vector unit.
    const EXPONENT: u32 = 0x7f80_0000;
    if !x.iter().fold(false, |odd, v| odd | (v.to_bits() & EXPONENT == EXPONENT)) {
        return Ok(());
    }
    let index = x.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(BitFault::NotFinite { operation, index })
}
