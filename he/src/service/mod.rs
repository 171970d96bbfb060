//! Client and server over TLS.
//!
//! The server is given a [`Job`] and computes it for whoever holds a certificate of its authority:
//! a client registers evaluation keys once (they are stored under their key identifier and survive
//! a restart), then sends encrypted inputs and gets encrypted outputs. Nothing on the server's
//! side mentions a secret key: it builds with the features `service` and no `client`, and then the
//! crate has no such type.
//!
//! | limit | keeps off |
//! |---|---|
//! | mutual TLS | strangers |
//! | a frame's length, by its kind and the job, before memory is taken | oversized artefacts |
//! | a budget of bytes in flight over all connections | many large frames at once |
//! | a least rate, and patience for silence | slow clients |
//! | connections, stored keys, evaluations at once | crowds |
//!
//! What a client may learn about another: whether a key identifier, sixteen random bytes, is
//! registered. A key identifier belongs to whoever registers it first.
#![cfg_attr(
    not(feature = "client"),
    doc = "\nThis build is a server's, and a server cannot name a secret key:\n```compile_fail,E0432\n\
           use undertone_he::ckks::SecretKey;\n```\nwhile what it needs is there:\n```\n\
           use undertone_he::ckks::{EvaluationKeys, Evaluator};\n```"
)]

mod classifier;
mod client;
mod frame;
mod head;
mod server;
mod store;

pub use classifier::ClassifierJob;
pub use client::Client;
pub use frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameKind, PROTOCOL_VERSION, parse_header};
pub use head::HeadJob;
pub use server::{Running, Server};
pub use store::KeyStore;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::ckks::{
    Artefact, Automorphism, CHECKSUM_BYTES, Ciphertext, Context, Evaluator, HEADER_BYTES, KeyId,
    SeededCiphertext, WireError,
};
use crate::world::HeError;

/// The name that servers' certificates carry.
pub const SERVER_NAME: &str = "undertone-server";
/// The longest description of a job, in bytes.
pub const MAX_DESCRIPTION: usize = 64 << 10;

/// What a server computes on encrypted inputs.
pub trait Job: Send + Sync + 'static {
    /// The parameters.
    fn context(&self) -> &Arc<Context>;

    /// What clients need to know, as JSON: at most [`MAX_DESCRIPTION`] bytes, and public.
    fn description(&self) -> &str;

    /// The automorphisms that evaluation keys must have, besides relinearization.
    fn automorphisms(&self) -> &[Automorphism];

    /// Ciphertexts of an input.
    fn inputs(&self) -> usize;

    /// Ciphertexts of an output.
    fn outputs(&self) -> usize;

    /// Computes.
    ///
    /// # Errors
    /// What the world refuses.
    fn evaluate(
        &self,
        server: &Arc<Evaluator>,
        inputs: Vec<Ciphertext>,
    ) -> Result<Vec<Ciphertext>, HeError>;

    /// Identifies the job: SHA-256 of its description.
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.description()).into()
    }
}

/// A description of a job called `name`; what another job describes is named.
fn described<T: serde::de::DeserializeOwned>(text: &str, name: &str) -> Result<T, ServiceError> {
    #[derive(serde::Deserialize)]
    struct Named {
        job: String,
    }
    let wrong = |problem: String| ServiceError::Description { problem };
    if text.len() > MAX_DESCRIPTION {
        return Err(wrong(format!("{} bytes", text.len())));
    }
    let Named { job } = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    if job != name {
        return Err(wrong(format!("the server's job is a {job}, not a {name}")));
    }
    serde_json::from_str(text).map_err(|e| wrong(e.to_string()))
}

/// What peers may take of each other.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a handshake may take, a frame beyond its rate, and a queue for memory.
    pub patience: Duration,
    /// How long a connection may be silent between frames; for a client, how long a server may
    /// compute.
    pub idle: Duration,
    /// The least rate of a frame.
    pub bytes_per_second: u64,
    /// Connections at once.
    pub connections: usize,
    /// Payload bytes in memory over all connections.
    pub bytes_in_flight: u64,
    /// Evaluations at once.
    pub evaluations: usize,
    /// Sets of evaluation keys kept expanded in memory.
    pub cached_keys: usize,
    /// Sets of evaluation keys on disk.
    pub stored_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            bytes_per_second: 128 << 10,
            connections: 64,
            bytes_in_flight: 2 << 30,
            evaluations: 1,
            cached_keys: 2,
            stored_keys: 64,
        }
    }
}

/// Why a server refused, as its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Refusal {
    /// The frame is none of this protocol's, or out of order.
    Protocol = 1,
    /// A frame longer than its kind may be.
    Oversized = 2,
    /// The client uses another parameter set, or another job.
    Different = 3,
    /// No evaluation keys under this identifier: register them.
    UnknownKey = 4,
    /// Other evaluation keys stand under this identifier.
    KeyTaken = 5,
    /// An artefact that is truncated, corrupted, or of another key or kind.
    Artefact = 6,
    /// The evaluation keys lack one that the job needs.
    MissingKey = 7,
    /// No room for more keys or bytes: try again later.
    Full = 8,
    /// The evaluation failed.
    Failed = 9,
    /// The client was too slow.
    Slow = 10,
}

impl Refusal {
    const ALL: [Self; 10] = [
        Self::Protocol,
        Self::Oversized,
        Self::Different,
        Self::UnknownKey,
        Self::KeyTaken,
        Self::Artefact,
        Self::MissingKey,
        Self::Full,
        Self::Failed,
        Self::Slow,
    ];
}

/// What can go wrong between client and server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The other side refused.
    #[error("the server refused ({why:?}): {message}")]
    Refused {
        /// Why.
        why: Refusal,
        /// In its words.
        message: String,
    },
    /// Bytes that are no frame of this protocol.
    #[error("not a frame: {what}; both ends need the same version of undertone")]
    Frame {
        /// What is wrong.
        what: &'static str,
    },
    /// A frame where another was due.
    #[error("got a frame {found:?} where {wanted} was due")]
    OutOfOrder {
        /// The frame's kind.
        found: FrameKind,
        /// What was expected.
        wanted: &'static str,
    },
    /// A frame longer than allowed.
    #[error("a frame {kind:?} of {found} bytes; at most {limit} are allowed")]
    Oversized {
        /// The frame's kind.
        kind: FrameKind,
        /// Bytes claimed.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The other side took too long.
    #[error("{operation}: nothing for {after:?}; check the connection or raise the limit")]
    Timeout {
        /// The operation.
        operation: &'static str,
        /// The time allowed.
        after: Duration,
    },
    /// The other side closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The two ends differ.
    #[error("the {what} differs from the server's; use the one that it names in its description")]
    Different {
        /// What differs.
        what: &'static str,
    },
    /// No keys under an identifier.
    #[error("no evaluation keys are registered for this key; register them first")]
    UnknownKey,
    /// Other keys under an identifier.
    #[error("other evaluation keys are registered under this key; generate a new key")]
    KeyTaken,
    /// Evaluation keys without a necessary one.
    #[error("the evaluation keys have none for {wanted}; generate them for this job")]
    MissingKey {
        /// What is missing.
        wanted: String,
    },
    /// No room.
    #[error("no room: {what}; try again later")]
    Full {
        /// Of what.
        what: &'static str,
    },
    /// A description that this library does not understand.
    #[error("the job's description: {problem}; both ends need the same version of undertone")]
    Description {
        /// What is wrong.
        problem: String,
    },
    /// An artefact that was refused.
    #[error(transparent)]
    Artefact(#[from] WireError),
    /// The evaluation.
    #[error(transparent)]
    Evaluation(#[from] HeError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] undertone_tls::TlsError),
    /// The system.
    #[error("{operation}: {source}")]
    Io {
        /// The operation.
        operation: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file of the key store.
    #[error("{}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl ServiceError {
    pub(crate) fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }

    /// What the client is told.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Refused { why, .. } => *why,
            Self::Oversized { .. } => Refusal::Oversized,
            Self::Timeout { .. } => Refusal::Slow,
            Self::Different { .. } => Refusal::Different,
            Self::UnknownKey => Refusal::UnknownKey,
            Self::KeyTaken => Refusal::KeyTaken,
            Self::MissingKey { .. } => Refusal::MissingKey,
            Self::Full { .. } => Refusal::Full,
            Self::Artefact(_) => Refusal::Artefact,
            Self::Frame { .. } | Self::OutOfOrder { .. } | Self::Closed => Refusal::Protocol,
            _ => Refusal::Failed,
        }
    }
}

/// Bytes of an envelope with so many bytes of payload.
fn envelope(payload: usize) -> u64 {
    (HEADER_BYTES + payload + CHECKSUM_BYTES) as u64
}

/// Most bytes of so many ciphertexts in either form.
fn ciphertexts_limit(ctx: &Context, count: usize) -> u64 {
    count as u64 * envelope(Ciphertext::limit(ctx))
}

/// Exactly `count` ciphertexts, seeded or whole, of one key.
///
/// # Errors
/// [`WireError`], by what is wrong.
pub fn parse_ciphertexts(
    ctx: &Context,
    key: KeyId,
    count: usize,
    mut bytes: &[u8],
) -> Result<Vec<Ciphertext>, ServiceError> {
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        // The seventh byte of an envelope is its kind.
        let seeded = bytes.get(6) == Some(&(crate::ckks::Kind::SeededCiphertext as u8));
        out.push(if seeded {
            let x = SeededCiphertext::read_from(ctx, Some(key), &mut bytes)?;
            // Its parameters were just checked.
            x.expand(ctx).map_err(HeError::from)?
        } else {
            Ciphertext::read_from(ctx, Some(key), &mut bytes)?
        });
    }
    if bytes.is_empty() {
        Ok(out)
    } else {
        Err(WireError::Malformed { what: "bytes after the last ciphertext" }.into())
    }
}
