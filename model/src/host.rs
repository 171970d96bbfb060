//! What a host does with a world: put values in, take values out, prepare weights.

use undertone_core::{Bound, Made, Shape, World};

/// What a linear weight is for. Worlds that pack operands prepare them in the right layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Use {
    /// The patch projection.
    Embed,
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// The output projection of attention.
    Out,
    /// The first feed-forward projection.
    Up,
    /// The second feed-forward projection.
    Down,
    /// The classifier.
    Classifier,
}

/// A linear weight in the clear: y = x·weightᵀ + bias.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// What it is for.
    pub role: Use,
    /// Number of inputs.
    pub inputs: usize,
    /// Number of outputs.
    pub outputs: usize,
    /// Row-major `[outputs, inputs]`.
    pub weight: &'a [f32],
    /// `[outputs]`.
    pub bias: Option<&'a [f32]>,
}

/// A world that a host can feed. Worlds over absent data take and ignore the values.
pub trait Host: World {
    /// Prepares a linear weight.
    ///
    /// # Errors
    /// Values that the world cannot hold.
    fn linear(&mut self, weight: Weight<'_>) -> Result<Self::Public, Self::Error>;

    /// Prepares a broadcast operand: biases, gains, position embeddings.
    ///
    /// # Errors
    /// Values that the world cannot hold; a length that is not the shape's.
    fn vector(&mut self, shape: Shape, values: &[f32]) -> Result<Self::Public, Self::Error>;

    /// Brings a tensor into the world.
    ///
    /// # Errors
    /// Values that the world cannot hold; a length that is not the shape's.
    fn secret(&mut self, shape: Shape, values: &[f32], on: Bound) -> Made<Self>;

    /// Takes a tensor out of the world, row-major (batch, rows, cols).
    ///
    /// # Errors
    /// Worlds over absent data have nothing to reveal.
    fn reveal(&mut self, x: &Self::Secret) -> Result<Vec<f32>, Self::Error>;
}
