//! From the core's trace of a model to a workload: shapes and kinds come from
//! the model that runs, not from a second description of it.

use crate::workload::{Operator, Step, Weighting, Workload};
use undertone_core::attention::Kind;
use undertone_core::trace::{Node, Step as Traced};
use undertone_core::{Form, Function, Shape};

const fn weighting(kind: &Kind) -> Option<Weighting> {
    match kind {
        Kind::Softmax => Some(Weighting::Softmax),
        Kind::Power { .. } | Kind::TwoQuad { .. } => Some(Weighting::Power),
        Kind::ReluSoftmax { .. } | Kind::ReluSquared => Some(Weighting::ReluSoftmax),
        Kind::Scaling => Some(Weighting::Scaling),
        // The mean of the values needs no scores; a kind that is not known here is weighed as
        // the dearest, softmax.
        Kind::Uniform => None,
        _ => Some(Weighting::Softmax),
    }
}

const fn rows(s: Shape) -> u64 {
    s.batch as u64 * s.rows as u64
}

impl Workload {
    /// The workload of a trace.
    ///
    /// Traced through [`undertone_core::trace::Operators`], an attention call
    /// becomes [`Operator::Scores`] and [`Operator::Mix`]; traced through
    /// [`undertone_core::Full`], its products run on the matrix unit and the
    /// rest on the elementwise unit. A GELU that follows a linear layer is
    /// fused into it. What only renames or selects elements costs nothing.
    ///
    /// ```
    /// use undertone_core::trace::{Node, Sink, Trace};
    /// use undertone_core::{Bound, Fault, Role, Shape, Site, World};
    /// use undertone_fpga_sim::workload::{Operator, Workload};
    ///
    /// #[derive(Default)]
    /// struct Nodes(Vec<Node>);
    /// impl Sink for Nodes {
    ///     fn push(&mut self, node: Node) -> Result<u32, Fault> {
    ///         self.0.push(node);
    ///         Ok(self.0.len() as u32 - 1)
    ///     }
    /// }
    /// let mut w = Trace::new(Nodes::default());
    /// let x = w.input(Shape::new(1, 197, 192))?;
    /// let up = w.operand(Shape::new(1, 192, 768));
    /// w.matmul_public(&x, &up, Bound::unknown(Site::layer(0, Role::Hidden)))?;
    /// let workload = Workload::from_trace("one layer", &w.sink.0);
    /// let want = Operator::Linear { tokens: 197, inputs: 192, outputs: 768, gelu: false, resident: false };
    /// assert_eq!(workload.steps[0].operator, want);
    /// # Ok::<(), Fault>(())
    /// ```
    pub fn from_trace(name: &str, nodes: &[Node]) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        // The step that made a node, to fuse what follows into it.
        let mut made: Vec<Option<usize>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let input = |i: usize| node.inputs[i].and_then(|n| nodes.get(n as usize));
            let before = node.inputs[0].and_then(|n| made.get(n as usize).copied().flatten());
            let site = node.bound.map_or_else(|| node.phase.to_owned(), |b| b.site.to_string());
            let push = |steps: &mut Vec<Step>, what: &str, operator| {
                let name = format!("{}.{site}.{what}", steps.len()).replace(' ', "_");
                steps.push(Step { name, operator });
                Some(steps.len() - 1)
            };
            let (tokens, dim) = (rows(node.shape), node.shape.cols as u64);
            let last = match node.step {
                Traced::MatmulPublic(w) => push(
                    &mut steps,
                    "linear",
                    Operator::Linear {
                        tokens,
                        inputs: w.shape.rows as u64,
                        outputs: w.shape.cols as u64,
                        gelu: false,
                        resident: false,
                    },
                ),
                Traced::Matmul(form) => {
                    let a = input(0).map_or(node.shape, |n| n.shape);
                    let inner = if matches!(form, Form::Tn) { a.rows } else { a.cols };
                    push(
                        &mut steps,
                        "product",
                        Operator::Linear {
                            tokens,
                            inputs: inner as u64,
                            outputs: dim,
                            gelu: false,
                            resident: true,
                        },
                    )
                }
                Traced::Attend(kind) => {
                    // Heads lie in the batch; the images of a batch run one after the other.
                    let q = input(0).map_or(node.shape, |n| n.shape);
                    let (tokens, heads) = (q.rows as u64, q.batch as u64);
                    let wide = heads * node.shape.cols as u64;
                    match weighting(&kind) {
                        Some(weighting) => {
                            let dim = heads * q.cols as u64;
                            push(
                                &mut steps,
                                "scores",
                                Operator::Scores { tokens, heads, dim, weighting },
                            );
                            push(
                                &mut steps,
                                "mix",
                                Operator::Mix { tokens, heads, dim: wide, weighting },
                            )
                        }
                        None => {
                            push(&mut steps, "mean", Operator::Elementwise { tokens, dim: wide })
                        }
                    }
                }
                Traced::Normalise(true) => push(&mut steps, "norm", Operator::Norm { tokens, dim }),
                Traced::Map(Function::Gelu) if fuse(&mut steps, before) => before,
                Traced::Add
                | Traced::Sub
                | Traced::Mul
                | Traced::AddPublic(_)
                | Traced::MulPublic(_) => push(&mut steps, "add", Operator::Add { tokens, dim }),
                Traced::Sum(_) | Traced::Max => {
                    let a = input(0).map_or(node.shape, |n| n.shape);
                    push(
                        &mut steps,
                        "reduce",
                        Operator::Elementwise { tokens: rows(a), dim: a.cols as u64 },
                    )
                }
                Traced::Normalise(false)
                | Traced::Scale(_)
                | Traced::Offset(_)
                | Traced::Mask { .. }
                | Traced::DivideByCount(_)
                | Traced::Square
                | Traced::Map(_)
                | Traced::Relu => push(&mut steps, "map", Operator::Elementwise { tokens, dim }),
                // Inputs, copies, slices and head layouts are addresses.
                _ => before,
            };
            made.push(last);
        }
        Self { name: name.into(), steps }
    }
}

/// Lets a linear layer's results pass the GELU unit; false if `step` is none.
fn fuse(steps: &mut [Step], step: Option<usize>) -> bool {
    match step.and_then(|s| steps.get_mut(s)).map(|s| &mut s.operator) {
        Some(Operator::Linear { gelu, .. }) => {
            *gelu = true;
            true
        }
        _ => false,
    }
}
