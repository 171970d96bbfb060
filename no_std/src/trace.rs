//! The trace world: an encoder's graph instead of its values.
//!
//! Running a model in [`Trace`] records one [`Node`] for each world operation, with its shape, its
//! bound and the nodes it depends on. The FPGA simulator takes its work from such graphs, and the
//! longest path through one is the depth that no schedule can go below.

use crate::attention::{Context, Heads, Kind};
use crate::check::{beside, broadcast, linear, merge, product, slice, split};
use crate::encoder::{Activation, Norm};
use crate::{
    Approximate, Axis, Bound, Compare, Fault, Form, Full, Function, Made, Mask, Menu, Multiply,
    Num, Shape, World,
};

/// What a node does. Operands are in [`Node::inputs`], in order.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// A tensor from outside.
    Input,
    /// A copy.
    Copy,
    /// a + b
    Add,
    /// a − b
    Sub,
    /// k·a
    Scale(Num),
    /// a + k
    Offset(Num),
    /// a + p
    AddPublic(Operand),
    /// a ⊙ p
    MulPublic(Operand),
    /// a·W + bias
    MatmulPublic(Operand),
    /// Sum over an axis.
    Sum(Axis),
    /// Rows from and length.
    Rows(usize, usize),
    /// A row repeated.
    RepeatRows(usize),
    /// Columns from and length.
    Columns(usize, usize),
    /// Columns of a, then of b.
    Concat,
    /// Heads into the batch.
    SplitHeads(usize),
    /// Heads out of the batch.
    MergeHeads(usize),
    /// Hidden entries replaced; causal or not.
    Mask {
        /// Whether the mask is causal.
        causal: bool,
        /// The replacement.
        fill: Num,
    },
    /// Rows divided by their number of visible keys.
    DivideByCount(usize),
    /// a ⊙ b
    Mul,
    /// a ⊙ a
    Square,
    /// A matrix product.
    Matmul(Form),
    /// A function.
    Map(Function),
    /// max(a, 0)
    Relu,
    /// Row maximum.
    Max,
    /// A whole attention call on (q, k, v), when traced through [`Operators`].
    Attend(Kind),
    /// A whole row norm, when traced through [`Operators`]; true for LayerNorm, false for affine.
    Normalise(bool),
}

/// A public operand in a trace: its number in order of preparation, and its shape. Linear weights
/// are (1, inputs, outputs).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operand {
    /// Number in order of preparation.
    pub number: u32,
    /// Shape.
    pub shape: Shape,
}

/// One recorded operation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Node {
    /// What it does.
    pub step: Step,
    /// The nodes it depends on; unused places are `None`.
    pub inputs: [Option<u32>; 3],
    /// The shape of its result.
    pub shape: Shape,
    /// What is known of its result.
    pub bound: Option<Bound>,
    /// Nodes on the longest path that ends here, this one included.
    pub depth: u32,
    /// The phase it belongs to.
    pub phase: &'static str,
}

/// Where nodes go. Implemented for `heapless::Vec`; hosts implement it for their own.
pub trait Sink {
    /// Takes a node and returns its number.
    ///
    /// # Errors
    /// [`Fault::Capacity`] when full.
    fn push(&mut self, node: Node) -> Result<u32, Fault>;
}

impl<const N: usize> Sink for heapless::Vec<Node, N> {
    fn push(&mut self, node: Node) -> Result<u32, Fault> {
        let number = self.len() as u32;
        heapless::Vec::push(self, node).map_err(|_| Fault::Capacity { what: "trace", limit: N })?;
        Ok(number)
    }
}

/// The trace world.
#[derive(Debug, Default)]
pub struct Trace<S> {
    /// The recorded nodes.
    pub sink: S,
    operands: u32,
    phase: &'static str,
}

/// A tensor in a trace: the node that made it.
#[derive(Debug, PartialEq, Eq)]
pub struct Handle {
    /// The node.
    pub node: u32,
    shape: Shape,
    depth: u32,
}

impl<S: Sink> Trace<S> {
    /// A trace into a sink.
    pub const fn new(sink: S) -> Self {
        Self { sink, operands: 0, phase: "" }
    }

    /// A tensor from outside.
    ///
    /// # Errors
    /// [`Fault::Capacity`] when the sink is full.
    pub fn input(&mut self, shape: Shape) -> Result<Handle, Fault> {
        self.record(Step::Input, [None; 3], shape, None, 0)
    }

    /// A public operand of a shape; a linear weight is (1, inputs, outputs).
    pub const fn operand(&mut self, shape: Shape) -> Operand {
        self.operands += 1;
        Operand { number: self.operands - 1, shape }
    }

    fn record(
        &mut self,
        step: Step,
        inputs: [Option<u32>; 3],
        shape: Shape,
        bound: Option<Bound>,
        before: u32,
    ) -> Result<Handle, Fault> {
        let depth = before + 1;
        let node = self.sink.push(Node { step, inputs, shape, bound, depth, phase: self.phase })?;
        Ok(Handle { node, shape, depth })
    }

    fn one(
        &mut self,
        step: Step,
        a: &Handle,
        shape: Shape,
        on: Option<Bound>,
    ) -> Result<Handle, Fault> {
        self.record(step, [Some(a.node), None, None], shape, on, a.depth)
    }

    fn two(
        &mut self,
        step: Step,
        (a, b): (&Handle, &Handle),
        shape: Shape,
        on: Bound,
    ) -> Result<Handle, Fault> {
        let inputs = [Some(a.node), Some(b.node), None];
        self.record(step, inputs, shape, Some(on), a.depth.max(b.depth))
    }
}

impl<S: Sink + Send> World for Trace<S> {
    const NAME: &'static str = "trace";
    type Secret = Handle;
    type Public = Operand;
    type Error = Fault;

    fn shape(&self, x: &Handle) -> Shape {
        x.shape
    }

    fn copy(&mut self, x: &Handle) -> Made<Self> {
        self.one(Step::Copy, x, x.shape, None)
    }

    fn add(&mut self, a: Handle, b: &Handle, on: Bound) -> Made<Self> {
        let shape = broadcast("add", a.shape, b.shape)?;
        self.two(Step::Add, (&a, b), shape, on)
    }

    fn sub(&mut self, a: Handle, b: &Handle, on: Bound) -> Made<Self> {
        let shape = broadcast("sub", a.shape, b.shape)?;
        self.two(Step::Sub, (&a, b), shape, on)
    }

    fn scale(&mut self, a: Handle, k: Num, on: Bound) -> Made<Self> {
        self.one(Step::Scale(k), &a, a.shape, Some(on))
    }

    fn offset(&mut self, a: Handle, k: Num, on: Bound) -> Made<Self> {
        self.one(Step::Offset(k), &a, a.shape, Some(on))
    }

    fn add_public(&mut self, a: Handle, p: &Operand, on: Bound) -> Made<Self> {
        let shape = broadcast("add_public", a.shape, p.shape)?;
        self.one(Step::AddPublic(*p), &a, shape, Some(on))
    }

    fn mul_public(&mut self, a: Handle, p: &Operand, on: Bound) -> Made<Self> {
        let shape = broadcast("mul_public", a.shape, p.shape)?;
        self.one(Step::MulPublic(*p), &a, shape, Some(on))
    }

    fn matmul_public(&mut self, x: &Handle, w: &Operand, on: Bound) -> Made<Self> {
        let shape = linear(x.shape, w.shape.rows, w.shape.cols)?;
        self.one(Step::MatmulPublic(*w), x, shape, Some(on))
    }

    fn sum(&mut self, a: &Handle, axis: Axis, on: Bound) -> Made<Self> {
        let shape = match axis {
            Axis::Rows => a.shape.with_rows(1),
            Axis::Cols => a.shape.with_cols(1),
        };
        self.one(Step::Sum(axis), a, shape, Some(on))
    }

    fn rows(&mut self, a: &Handle, from: usize, len: usize) -> Made<Self> {
        let shape = slice("rows", a.shape, from, len, Axis::Rows)?;
        self.one(Step::Rows(from, len), a, shape, None)
    }

    fn repeat_rows(&mut self, a: &Handle, n: usize) -> Made<Self> {
        let shape = broadcast("repeat_rows", a.shape.with_rows(n), a.shape)?;
        self.one(Step::RepeatRows(n), a, shape, None)
    }

    fn columns(&mut self, a: &Handle, from: usize, len: usize) -> Made<Self> {
        let shape = slice("columns", a.shape, from, len, Axis::Cols)?;
        self.one(Step::Columns(from, len), a, shape, None)
    }

    fn concat(&mut self, a: Handle, b: &Handle, on: Bound) -> Made<Self> {
        let shape = beside(a.shape, b.shape)?;
        self.two(Step::Concat, (&a, b), shape, on)
    }

    fn split_heads(&mut self, a: Handle, heads: usize) -> Made<Self> {
        let shape = split(a.shape, heads)?;
        self.one(Step::SplitHeads(heads), &a, shape, None)
    }

    fn merge_heads(&mut self, a: Handle, heads: usize) -> Made<Self> {
        let shape = merge(a.shape, heads)?;
        self.one(Step::MergeHeads(heads), &a, shape, None)
    }

    fn mask(&mut self, a: Handle, mask: &Mask<'_>, fill: Num) -> Made<Self> {
        if mask.is_none() {
            return Ok(a);
        }
        self.one(Step::Mask { causal: mask.causal, fill }, &a, a.shape, None)
    }

    fn divide_by_count(&mut self, a: Handle, _: &Mask<'_>, keys: usize, on: Bound) -> Made<Self> {
        self.one(Step::DivideByCount(keys), &a, a.shape, Some(on))
    }

    fn phase(&mut self, name: &'static str) {
        self.phase = name;
    }
}

impl<S: Sink + Send> Multiply for Trace<S> {
    fn mul(&mut self, a: Handle, b: &Handle, on: Bound) -> Made<Self> {
        let shape = broadcast("mul", a.shape, b.shape)?;
        self.two(Step::Mul, (&a, b), shape, on)
    }

    fn square(&mut self, a: Handle, on: Bound) -> Made<Self> {
        self.one(Step::Square, &a, a.shape, Some(on))
    }

    fn matmul(&mut self, a: &Handle, b: &Handle, form: Form, on: Bound) -> Made<Self> {
        let shape = product(a.shape, b.shape, form)?;
        self.two(Step::Matmul(form), (a, b), shape, on)
    }
}

impl<S: Sink + Send> Approximate for Trace<S> {
    fn map(&mut self, a: Handle, f: Function, _: Bound, on: Bound) -> Made<Self> {
        self.one(Step::Map(f), &a, a.shape, Some(on))
    }
}

impl<S: Sink + Send> Compare for Trace<S> {
    fn relu(&mut self, a: Handle, on: Bound) -> Made<Self> {
        self.one(Step::Relu, &a, a.shape, Some(on))
    }

    fn max(&mut self, a: &Handle) -> Made<Self> {
        self.one(Step::Max, a, a.shape.with_cols(1), None)
    }
}

/// The menu that records whole operators: one node for an attention call or a norm. What a
/// machine with an attention unit needs.
#[derive(Clone, Copy, Debug)]
pub struct Operators;

impl<S: Sink + Send> Menu<Trace<S>> for Operators {
    fn check(kind: &Kind) -> Result<(), Fault> {
        kind.check()
    }

    fn attend(
        w: &mut Trace<S>,
        kind: &Kind,
        x: Heads<Trace<S>>,
        at: &Context<'_>,
    ) -> Made<Trace<S>> {
        let depth = x.q.depth.max(x.k.depth).max(x.v.depth);
        let shape = x.q.shape.with_cols(x.v.shape.cols);
        let inputs = [Some(x.q.node), Some(x.k.node), Some(x.v.node)];
        let on = at.bound(crate::Role::Context);
        w.record(Step::Attend(*kind), inputs, shape, Some(on), depth)
    }

    fn activate(
        w: &mut Trace<S>,
        activation: &Activation<Trace<S>>,
        x: Handle,
        domain: Bound,
        on: Bound,
    ) -> Made<Trace<S>> {
        Full::activate(w, activation, x, domain, on)
    }

    fn normalise(
        w: &mut Trace<S>,
        norm: &Norm<Trace<S>>,
        x: &Handle,
        _: Bound,
        on: Bound,
    ) -> Made<Trace<S>> {
        let layer = matches!(norm, Norm::Layer { .. });
        w.one(Step::Normalise(layer), x, x.shape, Some(on))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::encoder::{Group, Layer, NormPosition};
    use crate::{Uncalibrated, attention::Variant};

    type Small = Trace<heapless::Vec<Node, 256>>;

    fn layer(w: &mut Small, dim: usize, groups: &[Group]) -> Layer<Small> {
        let square = Shape::new(1, dim, dim);
        let row = Shape::new(1, 1, dim);
        let norm = |w: &mut Small| Norm::Layer {
            gain: w.operand(row),
            bias: w.operand(row),
            eps: const { Num::of(1e-6) },
        };
        Layer {
            query: w.operand(square),
            key: w.operand(square),
            value: w.operand(square),
            context_scale: None,
            out: w.operand(square),
            up: w.operand(Shape::new(1, dim, 2 * dim)),
            down: Some(w.operand(Shape::new(1, 2 * dim, dim))),
            norm1: norm(w),
            norm2: norm(w),
            activation: Activation::Map(Function::Gelu),
            groups: crate::encoder::Groups::new(groups).unwrap(),
            position: NormPosition::Pre,
        }
    }

    #[test]
    fn a_mixed_block_is_recorded_whole() {
        let mut w = Small::new(heapless::Vec::new());
        let eps = const { Num::of(1e-5) };
        let groups = [
            Group { heads: 1, kind: Kind::Softmax },
            Group { heads: 1, kind: Kind::Power { p: 4, variant: Variant::Lipschitz { eps } } },
            Group { heads: 1, kind: Kind::ReluSoftmax { eps } },
            Group { heads: 1, kind: Kind::Scaling },
        ];
        let layer = layer(&mut w, 32, &groups);
        let x = w.input(Shape::new(1, 9, 32)).unwrap();
        let y = layer.run::<Full>(&mut w, &x, 0, &Mask::NONE, &Uncalibrated).unwrap();
        assert_eq!(w.shape(&y), Shape::new(1, 9, 32));
        // The four kinds do not wait for each other: the path is far shorter than the graph.
        assert!(u64::from(y.depth) * 2 < w.sink.len() as u64, "{} of {}", y.depth, w.sink.len());
        let maxima = w.sink.iter().filter(|n| n.step == Step::Max).count();
        assert_eq!(maxima, 1, "one softmax head, one row maximum");
    }

    #[test]
    fn whole_operators_are_single_nodes() {
        let mut w = Small::new(heapless::Vec::new());
        let layer = layer(&mut w, 32, &[Group { heads: 4, kind: Kind::Softmax }]);
        let x = w.input(Shape::new(1, 9, 32)).unwrap();
        layer.run::<Operators>(&mut w, &x, 0, &Mask::NONE, &Uncalibrated).unwrap();
        let calls = w.sink.iter().filter(|n| matches!(n.step, Step::Attend(_))).count();
        let norms = w.sink.iter().filter(|n| n.step == Step::Normalise(true)).count();
        assert_eq!((calls, norms), (1, 2));
    }

    #[test]
    fn shapes_that_do_not_go_together_are_refused() {
        let mut w = Small::new(heapless::Vec::new());
        let a = w.input(Shape::new(1, 2, 3)).unwrap();
        let b = w.input(Shape::new(1, 4, 5)).unwrap();
        let on = Bound::unknown(crate::Site::outside(crate::Role::Input));
        assert!(matches!(w.add(a, &b, on), Err(Fault::Shape { op: "add", .. })));
    }
}
