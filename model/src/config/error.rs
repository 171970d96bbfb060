//! What can be wrong with a configuration.

use crate::limits::ReadError;

/// A refused `config.json` or `preprocessor_config.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read within its limit.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Not JSON, a field of the wrong type, or an unknown key inside the `undertone` block.
    #[error("{file}: {source}")]
    Json {
        /// Which file.
        file: &'static str,
        /// What serde found, with line and column.
        source: serde_json::Error,
    },
    /// A required field is absent.
    #[error("config.json: field `{field}` is missing; a {model_type} model needs it")]
    Missing {
        /// The field.
        field: &'static str,
        /// The kind of model.
        model_type: String,
    },
    /// The model type is not one this crate reads.
    #[error("config.json: model_type `{found}` is not supported; expected `vit` or `bert`")]
    ModelType {
        /// What stood there.
        found: String,
    },
    /// A number is zero or above its cap.
    #[error("config.json: `{field}` is {found}; expected {min} to {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What stood there.
        found: u64,
        /// The smallest accepted value.
        min: u64,
        /// The largest accepted value.
        max: u64,
    },
    /// The heads do not divide the width.
    #[error(
        "config.json: num_attention_heads = {heads} does not divide hidden_size = {width}; \
         every head needs the same whole width"
    )]
    HeadsDoNotDivideWidth {
        /// Heads.
        heads: usize,
        /// Width.
        width: usize,
    },
    /// The patch does not divide the image.
    #[error(
        "config.json: patch_size = {patch} does not divide image_size = {image}; \
         patches must tile the image"
    )]
    PatchDoesNotDivideImage {
        /// Side of a patch.
        patch: usize,
        /// Side of the image.
        image: usize,
    },
    /// Only gray and RGB images are read.
    #[error("config.json: num_channels = {found}; expected 1 (gray) or 3 (RGB)")]
    Channels {
        /// What stood there.
        found: u64,
    },
    /// The `undertone` block is of another version.
    #[error("config.json: undertone.version is {found}; this release reads version {supported}")]
    Version {
        /// What stood there.
        found: u64,
        /// What this crate reads.
        supported: u64,
    },
    /// A list has the wrong number of entries.
    #[error("config.json: `{field}` has {found} entries; expected {expected}")]
    Count {
        /// The list.
        field: String,
        /// Entries found.
        found: usize,
        /// Entries expected.
        expected: usize,
    },
    /// An attention kind is unknown.
    #[error(
        "config.json: layer {layer}, head {head}: unknown attention kind `{kind}`; expected one of \
         softmax, power, relu_softmax, scaling, two_quad, relu_squared, uniform"
    )]
    UnknownKind {
        /// Layer, from 0.
        layer: usize,
        /// Head, from 0.
        head: usize,
        /// What stood there.
        kind: String,
    },
    /// A parameter does not belong to the attention kind, or is required and absent.
    #[error("config.json: layer {layer}, head {head}: attention `{kind}` {problem}")]
    Parameter {
        /// Layer, from 0.
        layer: usize,
        /// Head, from 0.
        head: usize,
        /// The attention kind.
        kind: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// The exponent of a power head is odd, zero or too large.
    #[error(
        "config.json: layer {layer}, head {head}: power p = {p}; expected an even p from 2 to 64, \
         since weights must not be negative"
    )]
    Exponent {
        /// Layer, from 0.
        layer: usize,
        /// Head, from 0.
        head: usize,
        /// What stood there.
        p: u64,
    },
    /// The activation is not one this crate computes.
    #[error(
        "config.json: activation `{found}` is not supported; expected gelu (erf), relu, quadratic \
         or identity"
    )]
    Activation {
        /// What stood there.
        found: String,
    },
    /// A calibrated range is not an interval of finite numbers.
    #[error("config.json: domain `{site}` is [{lo}, {hi}]; expected finite lo <= hi")]
    Domain {
        /// The site.
        site: String,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
    },
    /// A real number is outside its range.
    #[error("config.json: `{field}` is {found}; expected {expected}")]
    Real {
        /// The field.
        field: String,
        /// What stood there.
        found: f64,
        /// What is expected.
        expected: &'static str,
    },
    /// The class names are not numbered 0, 1, 2, ….
    #[error("config.json: id2label has {count} names but none for class {missing}")]
    Labels {
        /// Entries of id2label.
        count: usize,
        /// The first class without a name.
        missing: usize,
    },
    /// A feature of the Hugging Face model changes the function and is not supported.
    #[error("config.json: {field} = {found} is not supported; expected {expected}")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// What stood there.
        found: String,
        /// What is expected.
        expected: &'static str,
    },
    /// The task and the model's sizes contradict each other.
    #[error("config.json: undertone.task needs {field} = {expected}, found {found}")]
    Task {
        /// The field.
        field: &'static str,
        /// What stood there.
        found: usize,
        /// What the task needs.
        expected: usize,
    },
    /// The file is not an object, so a block cannot be put into it.
    #[error("config.json: expected a JSON object")]
    NotAnObject,
    /// Domains were given for more layers than the model has.
    #[error("domains for {found} layers, but the model has {expected}")]
    DomainLayers {
        /// Layers given.
        found: usize,
        /// Layers of the model.
        expected: usize,
    },
    /// The updated file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
