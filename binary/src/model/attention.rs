//! One head's attention in both arithmetics, with what each costs.

use super::encoder::{Arithmetic, Codes, Values};
use super::forward::{Rows, Run};
use crate::ecoformer::{self, Variant};
use crate::reference;
use crate::{Level, Signs, bivit as packed};
use undertone_core::binary::BitFault;
use undertone_core::binary::ecoformer::{NIBBLE, nibbles};
use undertone_core::{Op, Width};

/// EcoFormer's attention of one head: queries and keys share the codes of `q`.
pub(super) fn hashed(
    run: &mut Run<'_>,
    codes: &Codes,
    bits: usize,
    variant: Variant,
    q: &Rows,
    v: &Rows,
) -> Result<Rows, BitFault> {
    let (n, d) = (q.rows, q.cols);
    count_codes(run, codes, bits, n, d);
    match run.encoder.arithmetic {
        Arithmetic::Packed(level) => {
            count_linear(run, bits, variant, n, v.cols);
            run.rows(n, v.cols, || {
                let codes = codes.codes(level, &q.values, d, bits)?;
                let mut out = vec![0.0; v.values.len()];
                let v = &v.values;
                ecoformer::attend_at(level, &codes, &codes, bits, v, variant, &mut out)?;
                Ok(out)
            })
        }
        Arithmetic::Float => {
            // The quadratic form: every pair's h·h + c, then the sum over V and one division.
            run.macs(Width::F32, n * n * (bits + v.cols));
            run.count(Op::Add, Width::F32, 2 * n * n);
            run.count(Op::Divide, Width::F32, n * v.cols);
            run.rows(n, v.cols, || {
                let h = codes.signs(&wide(&q.values), d, bits);
                Ok(narrow(&reference::ecoformer::attend(
                    &h,
                    bits,
                    &wide(&v.values),
                    v.cols,
                    variant,
                )))
            })
        }
    }
}

/// n tokens of d values to codes. Both arithmetics compute distances from dot products, so that
/// what the paper's own counting leaves out as squarings is here one multiplication a value.
fn count_codes(run: &mut Run<'_>, codes: &Codes, bits: usize, n: usize, d: usize) {
    const F: Width = Width::F32;
    run.count(Op::Compare, F, n * bits);
    let Codes::Kernel(hash) = codes else {
        return run.macs(F, n * bits * d);
    };
    let m = hash.means().len();
    // Lengths, and σ from the sum of directions.
    run.macs(F, n * d);
    run.count(Op::Function, F, n);
    run.macs(F, n * d + 2 * m * d);
    run.count(Op::Divide, F, 1);
    // Distances, kernels, A·κ.
    run.macs(F, n * m * d);
    run.count(Op::Add, F, 2 * n * m);
    run.count(Op::Mul, F, 2 * n * m + n);
    run.count(Op::Compare, F, n * m);
    run.count(Op::Function, F, n * m);
    run.macs(F, n * m * bits);
}

/// Linear attention on codes by nibble buckets (see [`undertone_core::binary::ecoformer`]).
fn count_linear(run: &mut Run<'_>, bits: usize, variant: Variant, n: usize, channels: usize) {
    let positions = nibbles(bits);
    // Keys: a bucket a nibble, values and counts; then the ±1 combination into tables.
    run.count(Op::Add, Width::F32, n * positions * channels);
    run.count(Op::Add, Width::I32, n * positions);
    run.count(Op::Add, Width::F32, 2 * bits * NIBBLE * channels);
    run.macs(Width::I32, positions * NIBBLE * NIBBLE);
    if variant == Variant::Exact {
        run.count(Op::Add, Width::F32, (NIBBLE - 1) * channels);
        run.count(Op::Mul, Width::F32, channels);
    }
    // Queries: one row and one count a nibble, a reciprocal, a scaling.
    run.count(Op::Lookup, Width::F32, n * positions * channels);
    run.count(Op::Add, Width::F32, n * (positions - 1) * channels);
    run.count(Op::Lookup, Width::I32, n * positions);
    run.count(Op::Add, Width::I32, n * positions);
    run.count(Op::Divide, Width::F32, n);
    run.count(Op::Mul, Width::F32, n * channels);
    if variant == Variant::Repo {
        run.macs(Width::F32, n * channels);
    }
}

/// BiViT's attention of one head; with signed values the head has its part of their scales.
pub(super) fn bivit(
    run: &mut Run<'_>,
    beta: f64,
    mean: bool,
    (values, head): (&Values, usize),
    q: &Rows,
    k: &Rows,
    v: &Rows,
) -> Result<Rows, BitFault> {
    let (n, d) = (q.rows, q.cols);
    let scale = match values {
        Values::Float => None,
        Values::Signs(scale) => Some(&scale[head * d..(head + 1) * d]),
    };
    run.count(Op::Compare, Width::F32, if scale.is_some() { 3 } else { 2 } * n * d);
    if mean {
        run.count(Op::Divide, Width::F32, n);
        run.count(Op::Mul, Width::F32, n * d);
    }
    if scale.is_some() {
        run.count(Op::Mul, Width::F32, n * d);
    }
    let float = run.encoder.arithmetic == Arithmetic::Float;
    if float {
        // Scores, the softmax, its threshold, the masked sum.
        run.macs(Width::F32, n * n * d);
        run.count(Op::Mul, Width::F32, n * n);
        run.count(Op::Compare, Width::F32, 3 * n * n);
        run.count(Op::Add, Width::F32, 2 * n * n);
        run.count(Op::Function, Width::F32, n * n);
        run.count(Op::Divide, Width::F32, n * n);
        run.count(Op::Add, Width::F32, n * n * d);
    } else {
        // Distances, their least, the threshold, how many pass it.
        run.macs(Width::I1, n * n * d);
        run.count(Op::Compare, Width::I8, 2 * n * n);
        run.count(Op::Add, Width::I1, n * n);
        if scale.is_some() {
            run.macs(Width::I1, n * n * d);
            run.count(Op::Shift, Width::I32, n * d);
            run.count(Op::Add, Width::I32, n * d);
        } else {
            // Which values are added depends on the data; the most that can be.
            run.count(Op::Add, Width::F32, n * n * d);
        }
    }
    let level = run.encoder.level();
    run.rows(n, d, || {
        let (mut out, counts) = if float {
            floats(&q.values, &k.values, &v.values, d, beta, scale.is_some())
        } else {
            bits(level, &q.values, &k.values, &v.values, d, beta, scale.is_some())?
        };
        for (row, &count) in out.chunks_exact_mut(d).zip(&counts) {
            let factor = if mean { 1.0 / count as f32 } else { 1.0 };
            for (i, o) in row.iter_mut().enumerate() {
                *o *= factor * scale.map_or(1.0, |s| s[i]);
            }
        }
        Ok(out)
    })
}

fn bits(
    level: Level,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    d: usize,
    beta: f64,
    signs: bool,
) -> Result<(Vec<f32>, Vec<u32>), BitFault> {
    let margin = packed::margin_of(beta, d);
    let (q, k) = (Signs::pack(q, d)?, Signs::pack(k, d)?);
    let mut counts = vec![0; q.rows()];
    if !signs {
        let mut out = vec![0.0; v.len()];
        packed::attend_floats(level, &q, &k, v, margin, &mut out, &mut counts)?;
        return Ok((out, counts));
    }
    let v = Signs::pack(v, d)?;
    let mut sums = vec![0; q.rows() * d];
    packed::attend_counted(level, &q, &k, &v, margin, &mut sums, &mut counts)?;
    Ok((sums.into_iter().map(|s| s as f32).collect(), counts))
}

/// From the definition, in f64: softmax of the signs' scores, threshold, masked sum.
fn floats(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    d: usize,
    beta: f64,
    signs: bool,
) -> (Vec<f32>, Vec<u32>) {
    let sign =
        |x: &[f32]| -> Vec<f64> { x.iter().map(|&v| if v >= 0.0 { 1.0 } else { -1.0 }).collect() };
    // One column of ones more counts the chosen keys.
    let values: Vec<f64> = if signs { sign(v) } else { wide(v) };
    let counted: Vec<f64> =
        values.chunks_exact(d).flat_map(|row| row.iter().copied().chain([1.0])).collect();
    let out = reference::bivit::attend(&sign(q), &sign(k), &counted, d, d + 1, beta);
    let rows = out.chunks_exact(d + 1);
    (
        rows.clone().flat_map(|row| row[..d].iter().map(|&x| x as f32)).collect(),
        rows.map(|row| row[d] as u32).collect(),
    )
}

impl Codes {
    fn codes(&self, level: Level, x: &[f32], d: usize, bits: usize) -> Result<Vec<u16>, BitFault> {
        let mut codes = vec![0; x.len() / d];
        match self {
            Self::Kernel(hash) => hash.codes_at(level, x, &mut codes)?,
            Self::Planes(planes) => {
                for (token, code) in x.chunks_exact(d).zip(&mut codes) {
                    for (b, plane) in planes.chunks_exact(d).take(bits).enumerate() {
                        let y: f32 = token.iter().zip(plane).map(|(x, p)| x * p).sum();
                        *code |= u16::from(y >= 0.0) << b;
                    }
                }
            }
        }
        Ok(codes)
    }

    /// Codes as ±1, from the definition in f64.
    fn signs(&self, x: &[f64], d: usize, bits: usize) -> Vec<f64> {
        let responses = match self {
            Self::Kernel(hash) => reference::ecoformer::responses(
                &reference::ecoformer::Hash {
                    dim: d,
                    anchors: wide(hash.anchors()),
                    planes: wide(hash.planes()),
                    means: wide(hash.means()),
                    sigma: None,
                },
                x,
            ),
            Self::Planes(planes) => {
                let planes = wide(planes);
                let dot = |x: &[f64], p: &[f64]| x.iter().zip(p).map(|(x, p)| x * p).sum::<f64>();
                x.chunks_exact(d)
                    .flat_map(|x| planes.chunks_exact(d).take(bits).map(move |p| dot(x, p)))
                    .collect()
            }
        };
        responses.into_iter().map(|y| if y >= 0.0 { 1.0 } else { -1.0 }).collect()
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&v| v as f32).collect()
}
