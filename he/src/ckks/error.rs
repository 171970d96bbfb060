//! What can go wrong, by name.

/// A refused operation on plaintexts, ciphertexts or keys.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CkksError {
    /// More values than slots.
    #[error("encode: {found} values do not fit {slots} slots")]
    TooManyValues {
        /// Values given.
        found: usize,
        /// Slots there are.
        slots: usize,
    },
    /// A value that the modulus cannot hold at this level and scale, or one that is not finite.
    #[error(
        "encode: a coefficient of {bits:.1} bits exceeds the modulus's {limit:.1}; scale the \
             values down or encode at a higher level"
    )]
    ValueTooLarge {
        /// log₂ of the largest scaled coefficient.
        bits: f64,
        /// log₂ of the largest allowed.
        limit: f64,
    },
    /// A level above the top.
    #[error("level {level} does not exist; the parameters' top level is {top}")]
    NoSuchLevel {
        /// The level asked for.
        level: usize,
        /// The highest level.
        top: usize,
    },
    /// No level left to rescale into.
    #[error(
        "{operation}: needs {needed} more level(s), {available} left; choose parameters with \
             more levels"
    )]
    LevelExhausted {
        /// The operation.
        operation: &'static str,
        /// Levels it consumes.
        needed: usize,
        /// Levels the operand has.
        available: usize,
    },
    /// Operands at different levels.
    #[error(
        "{operation}: operands at levels {left} and {right}; bring the higher one down with \
             level_down"
    )]
    LevelMismatch {
        /// The operation.
        operation: &'static str,
        /// Level of the left operand.
        left: usize,
        /// Level of the right operand.
        right: usize,
    },
    /// Operands whose scales do not fit the operation.
    #[error(
        "{operation}: scale degree {found:?} where {expected:?} is needed; rescale first, or \
             encode for this degree"
    )]
    ScaleMismatch {
        /// The operation.
        operation: &'static str,
        /// What it needs.
        expected: super::Degree,
        /// What it got.
        found: super::Degree,
    },
    /// A ciphertext of three parts where two are needed.
    #[error("{operation}: the ciphertext is not relinearized; call relinearize first")]
    NotRelinearized {
        /// The operation.
        operation: &'static str,
    },
    /// A switching key that was not provided.
    #[error("{operation}: no evaluation key for {wanted}; generate it with the key set")]
    MissingKey {
        /// The operation.
        operation: &'static str,
        /// What the key is for.
        wanted: String,
    },
    /// An artefact made under other parameters.
    #[error("{operation}: parameter hashes differ; both sides must use the same parameter set")]
    WrongParameters {
        /// The operation.
        operation: &'static str,
    },
    /// An artefact that belongs to another key.
    #[error("{operation}: the key identifiers differ; use the keys this ciphertext was made for")]
    WrongKey {
        /// The operation.
        operation: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("the operating system's random source failed")]
    Randomness,
}
