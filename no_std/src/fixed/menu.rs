//! The fixed-point world's own forms: fused online attention and exact norms.

use super::attention::{Denominator, Formats, Head, Linear, Power, Rows, Uniform};
use super::attention::{Mask as KeyMask, Saturations, Weight, scratch_len, softmax, weighted};
use super::math::LOG2_E_Q62;
use super::memory::{Buffers, Layout, Memory, Storage, Tensor, frac_for, vector};
use super::norm::{LayerNorm, affine};
use super::requant::{Bias, Requant};
use super::signs;
use super::world::Fixed;
use crate::attention::{Context, Heads, Kind, Variant};
use crate::encoder::{Activation, Norm};
use crate::{Bound, Fault, Full, Made, Mask, Menu, Num, Op, Role, Shape, Width, check};

/// Fraction bits of softmax scores in octaves: 2^16 / 2^10 octaves reach far beyond any weight.
const SCORE_FRAC: u32 = 10;

/// The menu of the fixed-point world. Attention is online: no n×n matrix exists, scores keep 32
/// bits, and the division comes last. LayerNorm is exact. What has no fused form falls back to
/// [`Full`].
#[derive(Clone, Copy, Debug)]
pub struct Online;

impl<M: Memory, S: Storage> Menu<Fixed<M, S>> for Online {
    fn check(kind: &Kind) -> Result<(), Fault> {
        kind.check()
    }

    fn attend(
        w: &mut Fixed<M, S>,
        kind: &Kind,
        x: Heads<Fixed<M, S>>,
        at: &Context<'_>,
    ) -> Made<Fixed<M, S>> {
        let keys = x.k.layout.shape.rows;
        let plan = match *kind {
            // A mask gives every row a number of keys of its own.
            Kind::Power { variant: Variant::LengthAgnostic { .. }, .. } if !at.mask.is_none() => {
                return Full::attend(w, kind, x, at);
            }
            // Linear in the tokens: worth the two products.
            Kind::Scaling if at.mask.is_none() => return Full::attend(w, kind, x, at),
            Kind::Uniform if at.mask.is_none() => return Full::attend(w, kind, x, at),
            Kind::Bivit { margin, mean } => return on_signs(w, margin, mean, &x, at),
            _ => kind_plan(kind, keys, at)?,
        };
        fused(w, &plan, &x, at)
    }

    fn activate(
        w: &mut Fixed<M, S>,
        activation: &Activation<Fixed<M, S>>,
        x: Tensor,
        domain: Bound,
        on: Bound,
    ) -> Made<Fixed<M, S>> {
        Full::activate(w, activation, x, domain, on)
    }

    fn normalise(
        w: &mut Fixed<M, S>,
        norm: &Norm<Fixed<M, S>>,
        x: &Tensor,
        _: Bound,
        on: Bound,
    ) -> Made<Fixed<M, S>> {
        w.live("norm", x)?;
        let frac = w.format(on, x.frac)?;
        let (source, shape) = (x.layout, x.layout.shape);
        let ((shape_g, gain, gain_frac), (_, bias, bias_frac), eps) = match norm {
            Norm::Layer { gain, bias, eps } => {
                (vector("norm", gain)?, vector("norm", bias)?, Some(*eps))
            }
            Norm::Affine { gain, bias } => (vector("norm", gain)?, vector("norm", bias)?, None),
        };
        if shape_g.cols != shape.cols || source.heads != 1 {
            return Err(Fault::Shape { op: "norm", left: shape, right: shape_g });
        }
        let beta = Bias { data: bias, frac: bias_frac.into() };
        let n = shape.len();
        w.counts.mac(Width::I16, n as u64);
        w.count(Op::Shift, n);
        if eps.is_some() {
            // Sum, squares, deviation and scaling of each element; one root a row.
            w.counts.mac(Width::I16, n as u64);
            w.counts.add(Op::Add, Width::I64, 2 * n as u64);
            w.counts.add(Op::Mul, Width::I64, n as u64);
            w.counts.add(Op::Function, Width::I64, (shape.batch * shape.rows) as u64);
        }
        let made = w.alloc(shape, 1, frac, x.depth)?;
        if !M::REAL {
            return Ok(made);
        }
        let (below, own) = w.memory.tensors().split_at_mut(made.layout.at);
        let x_values = below.get(source.at..source.end()).unwrap_or_default();
        let out = own.get_mut(..n).unwrap_or_default();
        w.saturated += match eps {
            Some(eps) => {
                let unsigned = |frac: i16, what| {
                    u32::try_from(frac).map_err(|_| Fault::Parameter { what, got: frac.into() })
                };
                let norm = LayerNorm {
                    eps_q48: eps.to_fixed(48).unsigned_abs(),
                    in_frac: unsigned(x.frac, "fraction bits of a norm's input")?,
                    gamma: gain,
                    gamma_frac: unsigned(gain_frac, "fraction bits of a norm's gain")?,
                    beta,
                    out_frac: unsigned(frac, "fraction bits of a norm's output")?,
                };
                norm.apply(x_values, out)?
            }
            None => affine(x_values, gain, beta, i32::from(x.frac + gain_frac), frac.into(), out)?,
        };
        Ok(made)
    }
}

/// A kind of attention in the terms of the kernels.
enum Plan {
    Softmax,
    Power(Power, Denominator),
    Linear(Linear, Denominator),
    Uniform(Uniform, Denominator),
}

fn kind_plan(kind: &Kind, keys: usize, at: &Context<'_>) -> Result<Plan, Fault> {
    let formats = |offset: Num| -> Result<Formats, Fault> {
        // Room for the score and for the score with its offset.
        let scores = at.bound(Role::Scores);
        let score = frac_or_fail(scores)?.min(frac_or_fail(scores.offset(offset))?).clamp(0, 15);
        // Weights reach 2^24: their fraction from the greatest one calibrated. The stable variant
        // was calibrated on scores of at most one, scaling attention on KᵀV: both take the
        // greatest score's.
        let of = |role| {
            let bound = at.bound(role);
            bound.range.map(crate::Range::ceil_log2).ok_or(Fault::Uncalibrated(bound.site))
        };
        let greatest = match *kind {
            Kind::Scaling => of(Role::Scores)?,
            Kind::Power { p, variant: Variant::Stable { .. } } => {
                of(Role::Scores)?.saturating_mul(p.into())
            }
            _ => of(Role::Weights)?,
        };
        let weight = 24i16.saturating_sub(greatest).clamp(0, 24);
        Ok(Formats { score: score as u32, weight: weight as u32 })
    };
    let power = |p: u8, c: Num, rectify: bool| -> Result<Power, Fault> {
        let formats = formats(c)?;
        let offset = c.to_fixed(formats.score as i16);
        let offset = offset.clamp(-(1 << 30), 1 << 30) as i32;
        Ok(Power { half: u32::from(p) / 2, offset, rectify, formats })
    };
    let sum = |eps: Num, formats: Formats| Denominator::Sum {
        eps: eps.to_fixed(formats.weight as i16).unsigned_abs(),
    };
    Ok(match *kind {
        Kind::Softmax => Plan::Softmax,
        Kind::Power { p, variant } => {
            let power = power(p, Num::ZERO, false)?;
            let eps = match variant {
                Variant::Lipschitz { eps } => eps,
                // ε + Σw/n under Σwv/n is n·ε + Σw under Σwv.
                Variant::LengthAgnostic { eps } => scaled(eps, keys as i64),
                // δ only guards training; the division cancels the maximum.
                Variant::Plain | Variant::Stable { .. } => Num::ZERO,
            };
            let denominator = sum(eps, power.formats);
            Plan::Power(power, denominator)
        }
        Kind::TwoQuad { c, eps } => {
            let power = power(2, c, false)?;
            let denominator = sum(eps, power.formats);
            Plan::Power(power, denominator)
        }
        Kind::ReluSquared => {
            let power = power(2, Num::ZERO, true)?;
            let denominator = Denominator::Count { weight_frac: power.formats.weight };
            Plan::Power(power, denominator)
        }
        Kind::ReluSoftmax { eps } => {
            let formats = formats(Num::ZERO)?;
            Plan::Linear(Linear { rectify: true, formats }, sum(eps, formats))
        }
        Kind::Scaling => {
            let formats = formats(Num::ZERO)?;
            let denominator = Denominator::Count { weight_frac: formats.weight };
            Plan::Linear(Linear { rectify: false, formats }, denominator)
        }
        Kind::Bivit { .. } => {
            return Err(Fault::Parameter { what: "bits of attention on signs", got: 16 });
        }
        Kind::Uniform => {
            Plan::Uniform(Uniform { weight: 20 }, Denominator::Count { weight_frac: 20 })
        }
    })
}

/// `k·n`, for a small integer.
fn scaled(k: Num, n: i64) -> Num {
    let bits = 64 - n.unsigned_abs().leading_zeros() as i16;
    // As many bits of `k` as the product has room for.
    let room = 62 - bits;
    let drop = 64 - k.mantissa().unsigned_abs().leading_zeros() as i16 - room;
    let drop = if drop > 0 { drop } else { 0 };
    Num::new((k.mantissa() >> drop) * n, k.exponent() + drop)
}

fn frac_or_fail(on: Bound) -> Result<i16, Fault> {
    on.range.map(|r| frac_for(r.ceil_log2())).ok_or(Fault::Uncalibrated(on.site))
}

/// BiViT's attention of every head of the batch.
fn on_signs<M: Memory, S: Storage>(
    w: &mut Fixed<M, S>,
    margin: u32,
    mean: bool,
    x: &Heads<Fixed<M, S>>,
    at: &Context<'_>,
) -> Made<Fixed<M, S>> {
    check_heads(w, x)?;
    if !at.mask.is_none() {
        return Err(Fault::Parameter { what: "a mask over attention on signs", got: 1 });
    }
    let (q, k, v) = (x.q.layout, x.k.layout, x.v.layout);
    let (n, d, dv) = (k.shape.rows, q.shape.cols, v.shape.cols);
    // A mean lies in [-1, 1], a sum within the number of keys.
    let frac = frac_for(Num::int(if mean { 1 } else { n as i64 }).ceil_log2() + 1);
    let shape = q.shape.with_cols(dv);
    let (rows_all, pairs) =
        ((shape.batch * shape.rows) as u64, (shape.batch * shape.rows * n) as u64);
    w.counts.add(
        Op::Compare,
        Width::I16,
        rows_all * d as u64 + (shape.batch * n * (d + dv)) as u64,
    );
    w.counts.mac(Width::I1, pairs * (d + dv) as u64);
    w.counts.add(Op::Compare, Width::I8, 2 * pairs);
    w.counts.add(Op::Add, Width::I1, pairs);
    w.counts.add(Op::Shift, Width::I32, rows_all * dv as u64);
    w.counts.add(Op::Add, Width::I32, rows_all * dv as u64);
    if mean {
        w.counts.add(Op::Divide, Width::I32, rows_all * dv as u64);
    }
    w.reserve_words(signs::attention_words(n, d, dv))?;
    let depth = x.q.depth.max(x.k.depth).max(x.v.depth);
    let made = w.alloc(shape, q.heads, frac, depth)?;
    if !M::REAL {
        return Ok(made);
    }
    let Buffers { tensors, words, .. } = w.memory.all();
    let (below, own) = tensors.split_at_mut(made.layout.at);
    let mut saturated = 0;
    for batch in 0..shape.batch {
        let head = (rows(below, &q, batch)?, rows(below, &k, batch)?, rows(below, &v, batch)?);
        let out = head_rows(own, &made, shape, batch);
        saturated += signs::attend(head, margin, mean, frac, words, (out, made.layout.stride()))?;
    }
    w.saturated += saturated;
    Ok(made)
}

/// The memory of one head of a result, from its first row to the end of its last.
fn head_rows<'a>(own: &'a mut [i16], made: &Tensor, shape: Shape, batch: usize) -> &'a mut [i16] {
    let start = made.layout.start(batch) - made.layout.at;
    let out = own.get_mut(start..shape.len()).unwrap_or_default();
    out.get_mut(..(shape.rows - 1) * made.layout.stride() + shape.cols).unwrap_or_default()
}

/// Fails on stale handles and on shapes that do not go together.
fn check_heads<M: Memory, S: Storage>(
    w: &Fixed<M, S>,
    x: &Heads<Fixed<M, S>>,
) -> Result<(), Fault> {
    for tensor in [&x.q, &x.k, &x.v] {
        w.live("attention", tensor)?;
    }
    let (q, k, v) = (x.q.layout.shape, x.k.layout.shape, x.v.layout.shape);
    if q.batch != k.batch || q.cols != k.cols {
        return Err(Fault::Shape { op: "attention: queries and keys", left: q, right: k });
    }
    if k.with_cols(v.cols) != v {
        return Err(Fault::Shape { op: "attention: keys and values", left: k, right: v });
    }
    Ok(())
}

/// Every head of the batch through its kernel.
fn fused<M: Memory, S: Storage>(
    w: &mut Fixed<M, S>,
    plan: &Plan,
    x: &Heads<Fixed<M, S>>,
    at: &Context<'_>,
) -> Made<Fixed<M, S>> {
    check_heads(w, x)?;
    let (q, k, v) = (x.q.layout, x.k.layout, x.v.layout);
    let scores = q.shape.with_cols(k.shape.rows);
    check::mask(q.shape, k.shape.rows, &at.mask)?;
    let frac = w.format(at.bound(Role::Context), x.v.frac)?;
    let product = i32::from(x.q.frac + x.k.frac);
    let score = match plan {
        Plan::Softmax => Requant {
            multiplier: (LOG2_E_Q62 >> 33) as i32,
            shift: 29 + product - SCORE_FRAC as i32,
        },
        Plan::Power(Power { formats, .. }, _) | Plan::Linear(Linear { formats, .. }, _) => {
            Requant { multiplier: 1, shift: product - formats.score as i32 }
        }
        Plan::Uniform(..) => Requant { multiplier: 1, shift: product },
    };
    count(w, plan, scores, q.shape.cols, v.shape.cols);
    let shape = q.shape.with_cols(v.shape.cols);
    w.reserve_wide(scratch_len(v.shape.cols))?;
    let depth = x.q.depth.max(x.k.depth).max(x.v.depth);
    let made = w.alloc(shape, q.heads, frac, depth)?;
    if !M::REAL {
        return Ok(made);
    }
    let Buffers { tensors, wide, .. } = w.memory.all();
    let (below, own) = tensors.split_at_mut(made.layout.at);
    let wide = wide.get_mut(..scratch_len(v.shape.cols)).unwrap_or_default();
    let out_frac = i32::from(frac - x.v.frac);
    let mut total = 0;
    for batch in 0..shape.batch {
        let head = Head {
            q: rows(below, &q, batch)?,
            k: rows(below, &k, batch)?,
            v: rows(below, &v, batch)?,
            score,
            mask: key_mask(&at.mask, scores, batch),
        };
        let stride = made.layout.stride();
        let out = head_rows(own, &made, shape, batch);
        let count: Saturations = match plan {
            Plan::Softmax => softmax::<SCORE_FRAC, _>(&head, out_frac, wide, out, stride)?,
            Plan::Power(f, den) => run(&head, f, *den, out_frac, wide, out, stride)?,
            Plan::Linear(f, den) => run(&head, f, *den, out_frac, wide, out, stride)?,
            Plan::Uniform(f, den) => run(&head, f, *den, out_frac, wide, out, stride)?,
        };
        total += count.weights + count.outputs;
    }
    w.saturated += total;
    Ok(made)
}

fn run<F: Weight>(
    head: &Head<'_>,
    f: &F,
    den: Denominator,
    out_frac: i32,
    wide: &mut [i64],
    out: &mut [i16],
    stride: usize,
) -> Result<Saturations, super::KernelError> {
    weighted(head, f, den, out_frac, wide, out, stride)
}

fn rows<'a>(memory: &'a [i16], of: &Layout, batch: usize) -> Result<Rows<'a>, Fault> {
    let data = memory.get(of.start(batch)..).unwrap_or_default();
    Ok(Rows::new(data, of.shape.rows, of.shape.cols, of.stride())?)
}

/// The kernel's mask of one head.
fn key_mask(mask: &Mask<'_>, scores: Shape, batch: usize) -> KeyMask {
    let padding = Mask { causal: false, lengths: mask.lengths };
    let keys = mask.lengths.map(|_| padding.visible(scores, batch, 0));
    KeyMask { causal: mask.causal, keys }
}

/// What the kernels do, by kind and width.
fn count<M: Memory, S>(w: &mut Fixed<M, S>, plan: &Plan, scores: Shape, d: usize, dv: usize) {
    let (pairs, rows) = (scores.len() as u64, (scores.batch * scores.rows) as u64);
    let (d, dv) = (d as u64, dv as u64);
    // Scores; weights times values; row sums; one reciprocal a row; the final division.
    w.counts.mac(Width::I16, pairs * d);
    w.counts.mac(Width::I32, pairs * dv);
    w.counts.add(Op::Add, Width::I64, pairs);
    w.counts.add(Op::Divide, Width::I64, rows);
    w.counts.add(Op::Mul, Width::I64, rows * dv);
    match plan {
        Plan::Softmax => {
            w.counts.add(Op::Compare, Width::I32, pairs);
            w.counts.add(Op::Lookup, Width::I32, pairs);
            w.counts.add(Op::Shift, Width::I64, pairs);
        }
        Plan::Power(power, _) => {
            w.counts.add(Op::Mul, Width::I32, pairs * u64::from(power.half.max(1)));
        }
        Plan::Linear(linear, _) if linear.rectify => {
            w.counts.add(Op::Compare, Width::I32, pairs);
        }
        Plan::Linear(..) | Plan::Uniform(..) => {}
    }
}
