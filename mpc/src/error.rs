use std::time::Duration;

/// Why a two-party computation could not start or go on.
///
/// An error closes the channel, so that the peer gets [`Error::Closed`] rather than a wait.
/// Errors about secrets are opaque: none carries a share, a mask or a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer went away, or this side closed the channel after an error of its own.
    #[error("{operation}: the channel is closed; restart both parties with the next section")]
    Closed {
        /// What was going on.
        operation: &'static str,
    },
    /// The peer did not answer in time.
    #[error("{operation}: nothing came within {after:?}; is the peer running, or the limit low?")]
    Timeout {
        /// What was going on.
        operation: &'static str,
        /// The limit.
        after: Duration,
    },
    /// A frame over the cap.
    #[error("a frame of {got} bytes exceeds the limit of {limit}; split the batch")]
    FrameTooLong {
        /// Its length in bytes.
        got: u64,
        /// The cap in bytes.
        limit: u64,
    },
    /// A frame that does not belong here: both parties must run the same program.
    #[error("{operation}: expected {expected}, got {got}; the parties run different programs")]
    Desync {
        /// What was going on.
        operation: &'static str,
        /// What should have come.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// The parties disagree before any secret moved.
    #[error("handshake: {field} differs (ours {ours}, theirs {theirs}); start both alike")]
    Handshake {
        /// The field of the greeting.
        field: &'static str,
        /// This party's value.
        ours: String,
        /// The peer's value.
        theirs: String,
    },
    /// Preprocessing that cannot be read.
    #[error("preprocessing: {what}: expected {expected}, got {got}; deal again")]
    Preprocessing {
        /// The field that is wrong.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// Preprocessing used up, or consumed by an earlier run.
    #[error("preprocessing: section {section} of {sections} was used already; deal again")]
    Used {
        /// The section asked for.
        section: u32,
        /// How many were dealt.
        sections: u32,
    },
    /// More correlations asked for than were dealt: another program than the dealer's.
    #[error("preprocessing: {wanted} bytes wanted, {left} left; the program is not the one dealt")]
    Exhausted {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes left.
        left: u64,
    },
    /// A value outside what the fixed-point format encodes.
    #[error("{value} does not fit {bits} bits with {fraction} fraction bits; rescale the input")]
    Range {
        /// The value.
        value: f64,
        /// Bits of the ring.
        bits: u32,
        /// Fraction bits.
        fraction: u32,
    },
    /// Operands that do not go together.
    #[error("{operation}: expected {expected}, got {got}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// What it needs.
        expected: String,
        /// What it got.
        got: String,
    },
    /// A precision or range that the ring has no room for.
    #[error("{operation}: {needed} bits needed, the ring has {available}; use fewer fraction bits")]
    Room {
        /// The operation.
        operation: &'static str,
        /// Bits needed.
        needed: u32,
        /// Bits available.
        available: u32,
    },
    /// A function or domain that this world has no protocol for.
    #[error("{operation}: {reason}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The operating system's error.
    #[error("{operation}: {source}")]
    Io {
        /// What was going on.
        operation: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// Certificates that cannot be made or read.
    #[error(transparent)]
    Certificates(#[from] undertone_tls::TlsError),
    /// The TLS handshake.
    #[error("TLS: {0}; both parties need certificates of the same authority")]
    Tls(String),
    /// A model folder that cannot be read.
    #[error(transparent)]
    Model(#[from] undertone_model::ModelError),
    /// The core's error: shapes, parameters, operators that this world does not offer.
    #[error("{0}")]
    Fault(undertone_core::Fault),
}

impl From<undertone_core::Fault> for Error {
    fn from(fault: undertone_core::Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Error {
    pub(crate) fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }

    pub(crate) fn shape(
        operation: &'static str,
        expected: impl std::fmt::Debug,
        got: impl std::fmt::Debug,
    ) -> Self {
        Self::Shape { operation, expected: format!("{expected:?}"), got: format!("{got:?}") }
    }
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
