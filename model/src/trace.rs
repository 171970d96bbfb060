//! A model's graph, recorded in the core's trace world.

use undertone_core::trace::{Handle, Node, Operand, Sink, Trace};
use undertone_core::{Bound, Fault, Made, Mask, Menu, Shape};

use crate::build::Model;
use crate::host::{Host, Weight};

/// A sink without a limit.
#[derive(Clone, Debug, Default)]
pub struct Graph(Vec<Node>);

impl Sink for Graph {
    fn push(&mut self, node: Node) -> Result<u32, Fault> {
        let number = u32::try_from(self.0.len())
            .map_err(|_| Fault::Capacity { what: "trace", limit: u32::MAX as usize })?;
        self.0.push(node);
        Ok(number)
    }
}

impl<S: Sink + Send> Host for Trace<S> {
    fn linear(&mut self, w: Weight<'_>) -> Result<Operand, Fault> {
        Ok(self.operand(Shape::new(1, w.inputs, w.outputs)))
    }

    fn vector(&mut self, shape: Shape, _: &[f32]) -> Result<Operand, Fault> {
        Ok(self.operand(shape))
    }

    fn secret(&mut self, shape: Shape, _: &[f32], _: Bound) -> Made<Self> {
        self.input(shape)
    }

    fn reveal(&mut self, _: &Handle) -> Result<Vec<f32>, Fault> {
        Err(Fault::Stale { op: "reveal" })
    }
}

/// The graph of a model on an input of a shape: through [`Full`](undertone_core::Full) every
/// operation, through [`Operators`](undertone_core::trace::Operators) whole attention calls.
///
/// # Errors
/// Shapes that do not go together, kinds that the menu does not offer.
pub fn record<M: Menu<Trace<Graph>>>(model: &Model, shape: Shape) -> Result<Vec<Node>, Fault> {
    let mut w = Trace::new(Graph::default());
    let encoder = model.prepare::<_, M>(&mut w)?;
    let input = w.input(shape)?;
    encoder.run::<M>(&mut w, input, &Mask::NONE, &model.calibration)?;
    Ok(w.sink.0)
}
