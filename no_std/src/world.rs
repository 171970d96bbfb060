//! Worlds: where tensors live and what can be done to them there.
//!
//! A world works on whole tensors, never on scalars: a protocol needs few rounds, a ciphertext
//! needs packing, a kernel needs words. What a world can do is told in tiers, so that the
//! `where` clause of an operator says in which worlds it runs:
//!
//! | tier | adds | operators that need no more |
//! |---|---|---|
//! | [`World`] | sums, public products, rearrangement | uniform attention |
//! | [`Multiply`] | products of secrets | scaling attention, quadratic activation |
//! | [`Approximate`] | functions on a declared domain | Power-Softmax, LayerNorm, GELU |
//! | [`Compare`] | maxima and ReLU | softmax, ReLU-softmax |
//!
//! Public and secret operands are different types: that difference decides most costs.

use crate::{Axis, Bound, Fault, Form, Mask, Num, Shape};
use core::fmt::Debug;

/// A new tensor, or the world's error.
pub type Made<W> = Result<<W as World>::Secret, <W as World>::Error>;

/// Linear operations and rearrangement.
///
/// `Secret` is linear: operations that can work in place consume their first operand. Operands
/// that broadcast are one matrix, one row or one column wide where they differ
/// ([`Shape::broadcasts_to`]).
pub trait World: Sized + Send {
    /// The world's name in plans and errors.
    const NAME: &'static str;
    /// A tensor that lives here.
    type Secret: Send + Sync;
    /// A prepared public (or held) operand: weights, biases, per-channel factors.
    type Public: Sync;
    /// The world's error.
    type Error: From<Fault> + Debug + Send;

    /// The shape of a tensor.
    fn shape(&self, x: &Self::Secret) -> Shape;

    /// Another tensor with the same values.
    fn copy(&mut self, x: &Self::Secret) -> Made<Self>;

    /// `a + b`, where `b` may broadcast.
    fn add(&mut self, a: Self::Secret, b: &Self::Secret, on: Bound) -> Made<Self>;

    /// `a − b`, where `b` may broadcast.
    fn sub(&mut self, a: Self::Secret, b: &Self::Secret, on: Bound) -> Made<Self>;

    /// `k·a` for a public number.
    fn scale(&mut self, a: Self::Secret, k: Num, on: Bound) -> Made<Self>;

    /// `a + k` for a public number.
    fn offset(&mut self, a: Self::Secret, k: Num, on: Bound) -> Made<Self>;

    /// `a + p`, where `p` may broadcast.
    fn add_public(&mut self, a: Self::Secret, p: &Self::Public, on: Bound) -> Made<Self>;

    /// `a ⊙ p`, where `p` may broadcast.
    fn mul_public(&mut self, a: Self::Secret, p: &Self::Public, on: Bound) -> Made<Self>;

    /// `x·W + bias`: (b, n, k) with a weight of k inputs and m outputs gives (b, n, m).
    fn matmul_public(&mut self, x: &Self::Secret, w: &Self::Public, on: Bound) -> Made<Self>;

    /// Several products of one input. Worlds that rotate or open their input do so once.
    fn project<const K: usize>(
        &mut self,
        x: &Self::Secret,
        w: [(&Self::Public, Bound); K],
    ) -> Result<[Self::Secret; K], Self::Error> {
        let mut out = heapless::Vec::<Self::Secret, K>::new();
        let full = Fault::Capacity { what: "project", limit: K };
        for (weight, on) in w {
            let product = self.matmul_public(x, weight, on)?;
            out.push(product).map_err(|_| full)?;
        }
        out.into_array().map_err(|_| full.into())
    }

    /// The sum over an axis, which stays with length one.
    fn sum(&mut self, a: &Self::Secret, axis: Axis, on: Bound) -> Made<Self>;

    /// Rows `from..from + len` of each matrix.
    fn rows(&mut self, a: &Self::Secret, from: usize, len: usize) -> Made<Self>;

    /// A row (b, 1, m) repeated to (b, n, m).
    fn repeat_rows(&mut self, a: &Self::Secret, n: usize) -> Made<Self>;

    /// Columns `from..from + len` of each matrix.
    fn columns(&mut self, a: &Self::Secret, from: usize, len: usize) -> Made<Self>;

    /// The columns of `a` followed by those of `b`, with one number format.
    fn concat(&mut self, a: Self::Secret, b: &Self::Secret, on: Bound) -> Made<Self>;

    /// Heads from columns into the batch: (b, n, h·d) → (b·h, n, d).
    fn split_heads(&mut self, a: Self::Secret, heads: usize) -> Made<Self>;

    /// Heads from the batch into columns: (b·h, n, d) → (b, n, h·d).
    fn merge_heads(&mut self, a: Self::Secret, heads: usize) -> Made<Self>;

    /// Entries that the mask hides replaced by a public number.
    fn mask(&mut self, a: Self::Secret, mask: &Mask<'_>, fill: Num) -> Made<Self>;

    /// Row i divided by the public number of keys that the mask lets it see among `keys`.
    fn divide_by_count(
        &mut self,
        a: Self::Secret,
        mask: &Mask<'_>,
        keys: usize,
        on: Bound,
    ) -> Made<Self>;

    /// Two computations that do not depend on each other. Interactive worlds overlap their
    /// exchanges, parallel ones their work; the default runs them in turn.
    fn join<A, B>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<A, Self::Error> + Send,
        g: impl FnOnce(&mut Self) -> Result<B, Self::Error> + Send,
    ) -> Result<(A, B), Self::Error>
    where
        A: Send,
        B: Send,
    {
        let a = f(self)?;
        let b = g(self)?;
        Ok((a, b))
    }

    /// A computation whose temporaries end with it. Worlds with an arena take their memory back
    /// and keep the result only.
    fn scope<const N: usize>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<[Self::Secret; N], Self::Error>,
    ) -> Result<[Self::Secret; N], Self::Error> {
        f(self)
    }

    /// `new`, where `old` is not needed any more: worlds with an arena move it into the place of
    /// `old`.
    fn replace(&mut self, old: Self::Secret, new: Self::Secret) -> Made<Self> {
        drop(old);
        Ok(new)
    }

    /// Names the phase that follows in the world's report. Phases nest by prefix; the default
    /// forgets them.
    fn phase(&mut self, name: &'static str) {
        let _ = name;
    }
}

/// Products of secrets.
pub trait Multiply: World {
    /// `a ⊙ b`, where `b` may broadcast.
    fn mul(&mut self, a: Self::Secret, b: &Self::Secret, on: Bound) -> Made<Self>;

    /// `a ⊙ a`.
    fn square(&mut self, a: Self::Secret, on: Bound) -> Made<Self>;

    /// The matrix product in the given form, matrix by matrix of the batch.
    fn matmul(&mut self, a: &Self::Secret, b: &Self::Secret, form: Form, on: Bound) -> Made<Self>;
}

/// A function of one variable that worlds approximate on a declared domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Function {
    /// eˣ
    Exp,
    /// 1/x, on a positive domain
    Reciprocal,
    /// x^-1/2, on a positive domain
    Rsqrt,
    /// x·Φ(x), the exact GELU
    Gelu,
    /// 1/(1 + e⁻ˣ)
    Sigmoid,
    /// ln(1 + eˣ)
    Softplus,
    /// The hyperbolic tangent
    Tanh,
    /// x·sigmoid(x)
    Silu,
}

impl Function {
    /// The function's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exp => "exp",
            Self::Reciprocal => "reciprocal",
            Self::Rsqrt => "rsqrt",
            Self::Gelu => "gelu",
            Self::Sigmoid => "sigmoid",
            Self::Softplus => "softplus",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
        }
    }
}

/// Functions of one variable.
pub trait Approximate: World {
    /// `f(a)` elementwise. `domain` bounds the argument, `on` the result.
    fn map(&mut self, a: Self::Secret, f: Function, domain: Bound, on: Bound) -> Made<Self>;
}

/// Comparisons of secrets.
pub trait Compare: World {
    /// `max(a, 0)` elementwise.
    fn relu(&mut self, a: Self::Secret, on: Bound) -> Made<Self>;

    /// The maximum of each row: (b, n, m) → (b, n, 1).
    fn max(&mut self, a: &Self::Secret) -> Made<Self>;
}
