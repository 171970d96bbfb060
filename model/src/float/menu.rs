//! The float world's own forms: attention and norms by kernels over rows.

use undertone_core::attention::{Context, Heads, Kind};
use undertone_core::encoder::{Activation, Norm};
use undertone_core::{Bound, Fault, Full, Made, Menu, Op, Role, check};

use super::kernels::{self, View};
use super::world::{Data, Float, Tensor, fault};

/// The menu of the float world: scores of one head at a time, which stay in cache, and one
/// division after the product with V. Causal masks fall back to [`Full`].
#[derive(Clone, Copy, Debug)]
pub struct Fused;

/// Rows of scores are padded to whole vectors.
const LANES: usize = 16;

impl<D: Data> Menu<Float<D>> for Fused {
    fn check(kind: &Kind) -> Result<(), Fault> {
        kind.check()
    }

    fn attend(
        w: &mut Float<D>,
        kind: &Kind,
        x: Heads<Float<D>>,
        at: &Context<'_>,
    ) -> Made<Float<D>> {
        // The mean of unmasked values needs no scores.
        let mean = matches!(kind, Kind::Uniform) && at.mask.is_none();
        if at.mask.causal || mean {
            return Full::attend(w, kind, x, at);
        }
        let (q, k, v) = (x.q.shape, x.k.shape, x.v.shape);
        if q.batch != k.batch || q.cols != k.cols || k.with_cols(v.cols) != v {
            return Err(Fault::Shape { op: "attention", left: q, right: k });
        }
        check::mask(q, k.rows, &at.mask)?;
        let (rows, keys) = (q.rows, k.rows);
        let pairs = q.batch * rows * keys;
        w.count_macs(pairs * q.cols);
        w.count_macs(pairs * v.cols);
        w.count(if *kind == Kind::Softmax { Op::Function } else { Op::Mul }, pairs);
        w.count(Op::Add, pairs);
        w.count(Op::Divide, q.batch * rows);
        w.count(Op::Mul, q.batch * rows * v.cols);
        let mut made = Tensor::<D>::build(q.with_cols(v.cols), x.v.heads, |_, _, _| {});
        if D::REAL {
            let stride = keys.next_multiple_of(LANES);
            let (mut scores, mut inverse) = (vec![0.0; rows * stride], vec![0.0; rows]);
            let mut kept = vec![true; keys];
            for batch in 0..q.batch {
                let visible = at.mask.visible(q.with_cols(keys), batch, 0);
                kept.iter_mut().enumerate().for_each(|(key, kept)| *kept = key < visible);
                one_head(kind, &x, batch, (&mut scores, stride, &mut inverse), &kept, &mut made)
                    .map_err(fault)?;
            }
        }
        w.bounded(made, at.bound(Role::Context))
    }

    fn activate(
        w: &mut Float<D>,
        activation: &Activation<Float<D>>,
        x: Tensor<D>,
        domain: Bound,
        on: Bound,
    ) -> Made<Float<D>> {
        Full::activate(w, activation, x, domain, on)
    }

    fn normalise(
        w: &mut Float<D>,
        norm: &Norm<Float<D>>,
        x: &Tensor<D>,
        _: Bound,
        on: Bound,
    ) -> Made<Float<D>> {
        let n = x.shape.len();
        w.count_macs(n);
        let (gain, bias) = match norm {
            Norm::Layer { gain, bias, .. } | Norm::Affine { gain, bias } => (gain, bias),
        };
        let values = |p| -> Result<&[f32], Fault> {
            Float::<D>::vector("norm", p).map(|v: &Tensor<D>| v.data.values())
        };
        let (gain, bias): (&[f32], &[f32]) = (values(gain)?, values(bias)?);
        let mut made = Ok(());
        let data = match norm {
            Norm::Layer { eps, .. } => {
                w.count(Op::Add, 3 * n);
                w.count(Op::Mul, 2 * n);
                w.count(Op::Function, x.shape.batch * x.shape.rows);
                let eps = eps.to_f64() as f32;
                D::make(n, |out| {
                    made = kernels::layer_norm_rows(x.data.values(), gain, bias, eps, out);
                })
            }
            Norm::Affine { .. } => D::make(n, |out| {
                made = kernels::affine_rows(x.data.values(), gain, bias, out);
            }),
        };
        made.map_err(fault)?;
        w.bounded(Tensor { shape: x.shape, heads: x.heads, data }, on)
    }
}

/// Scores, weights and the product with V of one matrix of the batch.
fn one_head<D: Data>(
    kind: &Kind,
    x: &Heads<Float<D>>,
    batch: usize,
    (scores, stride, inverse): (&mut [f32], usize, &mut [f32]),
    kept: &[bool],
    out: &mut Tensor<D>,
) -> Result<(), kernels::KernelError> {
    let (rows, keys) = (x.q.shape.rows, x.k.shape.rows);
    let target = kernels::ViewMut::new(scores, (1, 0), (rows, stride), (keys, 1))?;
    let (q, k) = (x.q.view(batch)?, x.k.view(batch)?.transposed());
    kernels::matmul(target, q, k)?;
    kernels::weigh_rows(*kind, scores, keys, stride, Some(kept), inverse)?;
    let weights = View::new(scores, (1, 0), (rows, stride), (keys, 1))?;
    kernels::matmul(out.view_mut(batch)?, weights, x.v.view(batch)?)?;
    let (start, step, cols) = (out.start(batch), out.stride(), out.shape.cols);
    let values = out.data.values_mut().get_mut(start..).unwrap_or_default();
    for (row, inverse) in values.chunks_mut(step).zip(inverse.iter()) {
        row.iter_mut().take(cols).for_each(|x| *x *= inverse);
    }
    Ok(())
}
