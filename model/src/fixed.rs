//! The fixed-point world on a host: operands quantised and owned, memory allocated from the plan.

use undertone_core::fixed::{Absent, Buffers, Fixed, Memory, Needed, Online, Operand, Storage};
use undertone_core::fixed::{Tensor, Weight, frac_for};
use undertone_core::{
    Bound, Counts, Domains as _, Fault, Made, Mask, Num, Role, Shape, Site, World,
};

use crate::build::{Model, Prepared};
use crate::config::VitInput;
use crate::domains::Calibration;
use crate::host::{self, Host};

mod bytes;

pub use bytes::ByteWeights;

/// Operands that a host owns.
#[derive(Clone, Copy, Debug)]
pub struct Owned;

impl Storage for Owned {
    type Of<T: Copy + std::fmt::Debug + Send + Sync + 'static> = Vec<T>;
}

/// What runs in fixed point: an encoder with its ranges, and what it reads.
pub trait Source {
    /// The encoder, its operands quantised.
    ///
    /// # Errors
    /// What fixed point cannot hold or does not offer.
    fn encoder<M: Memory>(
        &self,
        w: &mut Fixed<M, Owned>,
    ) -> Result<Prepared<Fixed<M, Owned>>, Fault>;
    /// The ranges of its sites.
    fn calibration(&self) -> &Calibration;
    /// How it reads images, where it does.
    fn vit(&self) -> Option<&VitInput>;
    /// Its classes in order.
    fn labels(&self) -> &[String];
    /// The shape of one usual input.
    fn shape(&self) -> Shape;
}

impl Source for Model {
    fn encoder<M: Memory>(
        &self,
        w: &mut Fixed<M, Owned>,
    ) -> Result<Prepared<Fixed<M, Owned>>, Fault> {
        self.prepare::<_, Online>(w)
    }

    fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    fn vit(&self) -> Option<&VitInput> {
        self.config.vit()
    }

    fn labels(&self) -> &[String] {
        self.config.labels.as_deref().unwrap_or_default()
    }

    fn shape(&self) -> Shape {
        self.input_shape(1, self.task_tokens())
    }
}

/// A value with so many fraction bits, as it enters the world.
pub(crate) fn to_fixed(value: f32, frac: i16) -> i64 {
    (f64::from(value) * f64::from(frac).exp2()).round_ties_even() as i64
}

/// The finest 16-bit format of some values, and the values in it.
///
/// # Errors
/// Another number of values than the shape has.
pub fn quantise(op: &'static str, shape: Shape, values: &[f32]) -> Result<(Vec<i16>, i16), Fault> {
    if values.len() != shape.len() {
        return Err(Fault::Shape { op, left: Shape::new(1, 1, values.len()), right: shape });
    }
    let max = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let frac = if max > 0.0 { frac_for(Num::of(f64::from(max)).ceil_log2()) } else { 15 };
    let unit = f64::from(frac).exp2();
    let round = |&x: &f32| (f64::from(x) * unit).round_ties_even().clamp(-32768.0, 32767.0) as i16;
    Ok((values.iter().map(round).collect(), frac))
}

impl<M: Memory> Host for Fixed<M, Owned> {
    fn linear(&mut self, w: host::Weight<'_>) -> Result<Operand<Owned>, Fault> {
        let shape = Shape::new(1, w.outputs, w.inputs);
        let (weight, frac) = quantise("linear", shape, w.weight)?;
        let bias = match w.bias {
            Some(bias) => Some(quantise("linear bias", Shape::new(1, 1, w.outputs), bias)?),
            None => None,
        };
        let weight = Weight::Halves(weight);
        Ok(Operand::Linear { inputs: w.inputs, outputs: w.outputs, weight, frac, bias })
    }

    fn vector(&mut self, shape: Shape, values: &[f32]) -> Result<Operand<Owned>, Fault> {
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
    words: Vec<u32>,
}

impl Memory for Heap {
    const REAL: bool = true;
    fn all(&mut self) -> Buffers<'_> {
        Buffers { tensors: &mut self.tensors, wide: &mut self.wide, words: &mut self.words }
    }
}

/// A fixed-point world with so much memory.
#[must_use]
pub fn heap(size: Needed) -> Fixed<Heap, Owned> {
    Fixed::over(Heap {
        tensors: vec![0; size.tensors],
        wide: vec![0; size.wide],
        words: vec![0; size.words],
    })
}

/// What a run of a model on inputs of a shape will count and need.
///
/// # Errors
/// Sites without a range, shapes that do not go together, kinds that are not offered.
pub fn plan(source: &impl Source, shape: Shape) -> Result<Plan, Fault> {
    let mut w = Fixed::<Absent, Owned>::ledger();
    let encoder = source.encoder(&mut w)?;
    let on = source.calibration().bound(Site::outside(Role::Input));
    let input = w.input(shape, on, |_, _| 0)?;
    let output = encoder.run::<Online>(&mut w, input, &Mask::NONE, source.calibration())?;
    let output_shape = w.shape(&output);
    Ok(Plan {
        counts: *w.counts(),
        memory: w.needed(),
        depth: output.depth(),
        output: output_shape,
    })
}

/// The plan of a fixed-point run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Operations.
    pub counts: Counts,
    /// Working memory.
    pub memory: Needed,
    /// World operations on the longest path.
    pub depth: u32,
    /// The shape of the output.
    pub output: Shape,
}

/// A fixed-point model ready to run: its encoder, and memory of the size that its plan asks for.
pub struct FixedModel<'a> {
    calibration: &'a Calibration,
    world: Fixed<Heap, Owned>,
    encoder: Prepared<Fixed<Heap, Owned>>,
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
    pub fn new(source: &'a impl Source, shape: Shape) -> Result<Self, Fault> {
        let plan = plan(source, shape)?;
        let mut world = heap(plan.memory);
        let encoder = source.encoder(&mut world)?;
        Ok(Self { calibration: source.calibration(), world, encoder, shape, plan })
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
        let on = self.calibration.bound(Site::outside(Role::Input));
        let input = w.secret(self.shape, values, on)?;
        let output = self.encoder.run::<Online>(w, input, &Mask::NONE, self.calibration)?;
        let frac = output.frac();
        let output = w.reveal(&output)?;
        Ok(FixedRun { output, frac, counts: *w.counts(), saturated: w.saturated() })
    }
}
