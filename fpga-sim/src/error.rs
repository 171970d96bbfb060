//! Every way a description, a workload or a run can fail.

/// What went wrong, with what was found and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not the TOML or CSV that is wanted; `reason` holds line and column.
    #[error("{what}, line {line}: {reason}")]
    Parse {
        /// Which input: `architecture`, `grid`, `topology`.
        what: &'static str,
        /// Line, counted from 1.
        line: usize,
        /// The parser's or the validator's reason.
        reason: String,
    },
    /// A value is impossible; where the text is known, `line` is its line.
    #[error("architecture, {}{key} = {found}: {reason}", line.map_or(String::new(), |l| format!("line {l}: ")))]
    Value {
        /// Dotted path of the key.
        key: String,
        /// Line in the TOML, counted from 1.
        line: Option<usize>,
        /// The value found.
        found: String,
        /// Why it cannot be, and what would do.
        reason: &'static str,
    },
    /// A dotted key that does not exist or takes another type.
    #[error("setting `{key}`: {reason}")]
    Setting {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// An error in the text of a file.
    #[error("{path}: {error}")]
    InFile {
        /// Which file.
        path: String,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// Input larger than the limit that guards the parser.
    #[error("{what} has more than {limit} bytes ({found} read): give a smaller one")]
    TooLarge {
        /// Which input.
        what: &'static str,
        /// Bytes found.
        found: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A FIFO of depth zero can never pass a token.
    #[error("fifo `{fifo}` has depth 0: give it at least 1")]
    ZeroDepth {
        /// Its name.
        fifo: String,
    },
    /// A FIFO deeper than any device.
    #[error("fifo `{fifo}` has depth {depth}: at most 2^20 are simulated")]
    TooDeep {
        /// Its name.
        fifo: String,
        /// Its depth.
        depth: u64,
    },
    /// A memory port that moves no bytes.
    #[error("memory port `{port}` has bandwidth zero: {field} must be at least 1")]
    ZeroBandwidth {
        /// Its name.
        port: String,
        /// The field that is zero.
        field: &'static str,
    },
    /// An operator needs more on-chip or external memory than there is.
    #[error(
        "`{operator}` needs {needed_bytes} bytes of {memory}; there are {available_bytes}: use a larger device or smaller tiles"
    )]
    OutOfMemory {
        /// Operator of the workload.
        operator: String,
        /// Which memory.
        memory: &'static str,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes there are.
        available_bytes: u64,
    },
    /// Stages feed each other and no FIFO on the way holds an initial token.
    #[error("cyclic graph without an initial token: {}", stages.join(" → "))]
    Cyclic {
        /// The stages in order; the last feeds the first.
        stages: Vec<String>,
    },
    /// A FIFO receives another number of tokens than its reader takes.
    #[error(
        "fifo `{fifo}`: {pushed} tokens pushed, {popped} popped: the programs of its two stages disagree"
    )]
    Unbalanced {
        /// Its name.
        fifo: String,
        /// Tokens pushed over the whole run.
        pushed: u64,
        /// Tokens popped over the whole run.
        popped: u64,
    },
    /// A graph part is malformed.
    #[error("stage `{stage}`: {reason}")]
    Stage {
        /// Its name.
        stage: String,
        /// What is wrong and what would do.
        reason: &'static str,
    },
    /// The run cannot be counted in 64 bits with room to spare.
    #[error("cycle counter overflow in `{at}`: more than 2^62 cycles; shrink the workload")]
    Overflow {
        /// Stage or operator.
        at: String,
    },
    /// Nothing can move any more.
    #[error("deadlock at cycle {at_cycle}: {cycle}")]
    Deadlock {
        /// Last cycle in which anything happened.
        at_cycle: u64,
        /// The cycle of waits, printable.
        cycle: crate::engine::WaitCycle,
    },
    /// The timestamp engine cannot order requests of several masters on one port.
    #[error("port `{port}` is shared by {masters} stages: arbitration needs the stepped engine")]
    Shared {
        /// Name of the port.
        port: String,
        /// Stages on it.
        masters: usize,
    },
    /// The architecture has no unit for an operator.
    #[error("`{operator}` needs {needs}, which the architecture `{arch}` lacks")]
    Unmapped {
        /// Operator of the workload.
        operator: String,
        /// What is missing.
        needs: &'static str,
        /// Name of the architecture.
        arch: String,
    },
    /// A workload's shape is impossible.
    #[error("workload `{operator}`: {reason}")]
    Workload {
        /// Operator.
        operator: String,
        /// Why.
        reason: &'static str,
    },
    /// Results of an exploration do not belong together.
    #[error("exploration: {reason}")]
    Explore {
        /// Why, and what to do.
        reason: String,
    },
    /// The file system.
    #[error("{path}: {reason}")]
    Io {
        /// Which file.
        path: String,
        /// The system's message.
        reason: String,
    },
}

impl Error {
    /// The same error with the file it stands in.
    pub(crate) fn in_file(self, path: &str) -> Self {
        Self::InFile { path: path.into(), error: Box::new(self) }
    }
}

/// Shorthand of this crate.
pub type Result<T> = core::result::Result<T, Error>;
