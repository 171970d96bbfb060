//! What can be wrong with a weights file.

use std::path::PathBuf;

/// A refused `model.safetensors`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The file could not be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Reading failed.
    #[error("model.safetensors: reading failed: {0}")]
    Io(#[from] std::io::Error),
    /// The file ends before the header or a tensor does.
    #[error(
        "model.safetensors is truncated: {found} bytes, but its header describes {expected}; \
         copy the file again"
    )]
    Truncated {
        /// Bytes of the file.
        found: u64,
        /// Bytes the header describes.
        expected: u64,
    },
    /// The file goes on after the last tensor.
    #[error(
        "model.safetensors is oversized: {found} bytes, but its header describes {expected}; \
         bytes that no tensor owns are refused"
    )]
    Oversized {
        /// Bytes of the file.
        found: u64,
        /// Bytes the header describes.
        expected: u64,
    },
    /// The file exceeds the limit for weights.
    #[error("model.safetensors has {found} bytes; the limit is {limit}")]
    TooLarge {
        /// Bytes of the file.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The header exceeds its limit.
    #[error(
        "model.safetensors: the header claims {found} bytes; the limit is {limit}; is this a \
         safetensors file?"
    )]
    HeaderTooLarge {
        /// Bytes claimed.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The header is not what the format asks for.
    #[error("model.safetensors: the header is invalid: {0}")]
    Header(serde_json::Error),
    /// A tensor of the model is absent.
    #[error("model.safetensors: tensor `{name}` is missing; expected shape {wanted:?}")]
    Missing {
        /// The tensor.
        name: String,
        /// The shape the configuration asks for.
        wanted: Vec<usize>,
    },
    /// A tensor of the file belongs to no part of the model.
    #[error(
        "model.safetensors: tensor `{name}` of shape {found:?} is unknown; the configuration \
         has no place for it"
    )]
    Unknown {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("model.safetensors: tensor `{name}` has shape {found:?}; expected {wanted:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape the configuration asks for.
        wanted: Vec<usize>,
    },
    /// A tensor is not floating point.
    #[error("model.safetensors: tensor `{name}` is {found}; expected F32, F16 or BF16")]
    DType {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "model.safetensors: tensor `{name}` holds {value} at index {index}; weights must be finite"
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// Position in the flattened tensor.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The classifier reads a pooler, which this crate does not compute.
    #[error(
        "model.safetensors: `{name}` stands between the encoder and the classifier, and poolers \
         are not supported; remove it and retrain the classifier, or remove the classifier"
    )]
    Pooler {
        /// The tensor.
        name: String,
    },
}
