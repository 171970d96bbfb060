//! The fixed-point world on a host: operands quantised and owned, memory allocated from the plan.

use undertone_core::fixed::{Absent, Fixed, Memory, Online, Operand, Tensor, frac_for};
use undertone_core::{
    Bound, Counts, Domains as _, Fault, Made, Mask, Num, Role, Shape, Site, World,
};

use crate::build::{Model, Prepared};
use crate::host::{Host, Weight};

/// A value with so many fraction bits, as it enters the world.
pub(crate) fn to_fixed(value: f32, frac: i16) -> i64 {
    (f64::from(value) * f64::from(frac).exp2()).round_ties_even() as i64
}

/// The finest 16-bit format of some values, and the values in it.
fn quantise(op: &'static str, shape: Shape, values: &[f32]) -> Result<(Vec<i16>, i16), Fault> {
    if values.len() != shape.len() {
        return Err(Fault::Shape { op, left: Shape::new(1, 1, values.len()), right: shape });
    }
    let max = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let frac = if max > 0.0 { frac_for(Num::of(f64::from(max)).ceil_log2()) } else { 15 };
    let unit = f64::from(frac).exp2();
    let round = |&x: &f32| (f64::from(x) * unit).round_ties_even().clamp(-32768.0, 32767.0) as i16;
    Ok((values.iter().map(round).collect(), frac))
}

impl<M: Memory> Host for Fixed<M, Vec<i16>> {
    fn linear(&mut self, w: Weight<'_>) -> Result<Operand<Vec<i16>>, Fault> {
        let shape = Shape::new(1, w.outputs, w.inputs);
        let (weight, frac) = quantise("linear", shape, w.weight)?;
        let bias = match w.bias {
            Some(bias) => Some(quantise("linear bias", Shape::new(1, 1, w.outputs), bias)?),
            None => None,
        };
        Ok(Operand::Linear { inputs: w.inputs, outputs: w.outputs, weight, frac, bias })
    }

    fn vector(&mut self, shape: Shape, values: &[f32]) -> Result<Operand<Vec<i16>>, Fault> {
        let (values, frac) = quantise("vector", shape, values)?;
        Ok(Operand::Vector { shape, values, frac })
    }

    fn secret(&mut self, shape: Shape, values: &[f32], on: Bound) -> Made<Self> {
        if M::REAL && values.len() != shape.len() {
            let left = Shape::new(1, 1, values.len());
            return Err(Fault::Shape { op: "input", left, right: shape });
        }
        self.input(shape, on, |i, frac| to_fixed(values.get(i).copied().unwrap_or(0.0), frac))
    }

    fn reveal(&mut self, x: &Tensor) -> Result<Vec<f32>, Fault> {
        let shape = self.shape(x);
        let unit = f64::from(-x.frac()).exp2();
        let mut out = Vec::with_capacity(shape.len());
        for batch in 0..shape.batch {
            for row in 0..shape.rows {
                out.extend(self.row(x, batch, row)?.iter().map(|&q| (f64::from(q) * unit) as f32));
            }
        }
        Ok(out)
    }
}

/// Memory on the heap.
#[derive(Clone, Debug, Default)]
pub struct Heap {
    tensors: Vec<i16>,
    wide: Vec<i64>,
}

impl Memory for Heap {
    const REAL: bool = true;
    fn tensors(&mut self) -> &mut [i16] {
        &mut self.tensors
    }
    fn both(&mut self) -> (&mut [i16], &mut [i64]) {
        (&mut self.tensors, &mut self.wide)
    }
}

/// A fixed-point world with room for so many tensor elements and accumulators.
#[must_use]
pub fn heap(tensors: usize, wide: usize) -> Fixed<Heap, Vec<i16>> {
    Fixed::over(Heap { tensors: vec![0; tensors], wide: vec![0; wide] })
}

/// What a run of a model on inputs of a shape will count and need.
///
/// # Errors
/// Sites without a range, shapes that do not go together, kinds that are not offered.
pub fn plan(model: &Model, shape: Shape) -> Result<Plan, Fault> {
    let mut w = Fixed::<Absent, Vec<i16>>::ledger();
    let encoder = model.prepare::<_, Online>(&mut w)?;
    let on = model.calibration.bound(Site::outside(Role::Input));
    let input = w.input(shape, on, |_, _| 0)?;
    let output = encoder.run::<Online>(&mut w, input, &Mask::NONE, &model.calibration)?;
    let (tensors, wide) = w.needed();
    let output_shape = w.shape(&output);
    Ok(Plan { counts: *w.counts(), tensors, wide, depth: output.depth(), output: output_shape })
}

/// The plan of a fixed-point run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Operations.
    pub counts: Counts,
    /// Tensor elements of working memory, 2 bytes each.
    pub tensors: usize,
    /// Accumulators of working memory, 8 bytes each.
    pub wide: usize,
    /// World operations on the longest path.
    pub depth: u32,
    /// The shape of the output.
    pub output: Shape,
}

impl Plan {
    /// Bytes of working memory.
    #[must_use]
    pub const fn scratch_bytes(&self) -> usize {
        2 * self.tensors + 8 * self.wide
    }
}

/// A fixed-point model ready to run: its encoder, and memory of the size that its plan asks for.
pub struct FixedModel<'a> {
    model: &'a Model,
    world: Fixed<Heap, Vec<i16>>,
    encoder: Prepared<Fixed<Heap, Vec<i16>>>,
    shape: Shape,
    plan: Plan,
}

/// One run of a [`FixedModel`].
#[derive(Clone, Debug)]
pub struct FixedRun {
    /// The revealed output.
    pub output: Vec<f32>,
    /// Fraction bits of the output: `output · 2^frac` is what the world holds.
    pub frac: i16,
    /// Operations counted.
    pub counts: Counts,
    /// Elements that saturated.
    pub saturated: u64,
}

impl<'a> FixedModel<'a> {
    /// Prepares a calibrated model for inputs of a shape.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn new(model: &'a Model, shape: Shape) -> Result<Self, Fault> {
        let plan = plan(model, shape)?;
        let mut world = heap(plan.tensors, plan.wide);
        let encoder = model.prepare::<_, Online>(&mut world)?;
        Ok(Self { model, world, encoder, shape, plan })
    }

    /// What each run counts and needs.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs the model on one input.
    ///
    /// # Errors
    /// The world's faults.
    pub fn run(&mut self, values: &[f32]) -> Result<FixedRun, Fault> {
        let w = &mut self.world;
        w.clear();
        let on = self.model.calibration.bound(Site::outside(Role::Input));
        let input = w.secret(self.shape, values, on)?;
        let output = self.encoder.run::<Online>(w, input, &Mask::NONE, &self.model.calibration)?;
        let frac = output.frac();
        let output = w.reveal(&output)?;
        Ok(FixedRun { output, frac, counts: *w.counts(), saturated: w.saturated() })
    }
}
