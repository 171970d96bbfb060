//! Memory, tensors and formats of the fixed-point world.

use super::requant::{Narrow, mul_shift};
use crate::{Fault, Shape};
use core::ops::Range;

/// Fraction bits that formats may have.
pub(super) const FRACTIONS: core::ops::RangeInclusive<i16> = -16..=24;

/// The memory of a fixed-point world.
pub trait Memory: Send {
    /// Whether values are there.
    const REAL: bool;
    /// Tensor elements; empty in a plan.
    fn tensors(&mut self) -> &mut [i16];
    /// Tensor elements and, beside them, the wide accumulators of the attention kernels.
    fn both(&mut self) -> (&mut [i16], &mut [i64]);
}

/// Memory provided by the caller. [`Fixed::needed`](super::Fixed::needed) of a plan tells how much.
#[derive(Debug)]
pub struct Arena<'m> {
    /// Tensor elements.
    pub tensors: &'m mut [i16],
    /// Accumulators: one for each column of a head.
    pub wide: &'m mut [i64],
}

impl Memory for Arena<'_> {
    const REAL: bool = true;
    fn tensors(&mut self) -> &mut [i16] {
        self.tensors
    }
    fn both(&mut self) -> (&mut [i16], &mut [i64]) {
        (self.tensors, self.wide)
    }
}

/// Memory of a size known when the program is compiled: a world in it can be a static.
#[derive(Clone, Debug)]
pub struct Inline<const T: usize, const W: usize> {
    tensors: [i16; T],
    wide: [i64; W],
}

impl<const T: usize, const W: usize> Inline<T, W> {
    /// All zero.
    pub const EMPTY: Self = Self { tensors: [0; T], wide: [0; W] };
}

impl<const T: usize, const W: usize> Memory for Inline<T, W> {
    const REAL: bool = true;
    fn tensors(&mut self) -> &mut [i16] {
        &mut self.tensors
    }
    fn both(&mut self) -> (&mut [i16], &mut [i64]) {
        (&mut self.tensors, &mut self.wide)
    }
}

/// No memory: the world plans.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absent;

impl Memory for Absent {
    const REAL: bool = false;
    fn tensors(&mut self) -> &mut [i16] {
        &mut []
    }
    fn both(&mut self) -> (&mut [i16], &mut [i64]) {
        (&mut [], &mut [])
    }
}

/// Where a tensor lies. Heads that were split stay interleaved, so splitting moves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) at: usize,
    pub(super) shape: Shape,
    pub(super) heads: usize,
}

impl Layout {
    pub(super) const fn stride(&self) -> usize {
        self.heads * self.shape.cols
    }

    pub(super) const fn start(&self, batch: usize) -> usize {
        let (image, head) = (batch / self.heads, batch % self.heads);
        self.at + image * self.shape.rows * self.stride() + head * self.shape.cols
    }

    pub(super) const fn row(&self, batch: usize, row: usize) -> Range<usize> {
        let start = self.start(batch) + row * self.stride();
        start..start + self.shape.cols
    }

    /// The same tensor in memory that starts `by` later.
    pub(super) const fn rebased(self, by: usize) -> Self {
        Self { at: self.at - by, ..self }
    }

    pub(super) const fn end(&self) -> usize {
        self.at + self.shape.len()
    }
}

/// A tensor of the fixed-point world: a handle into its memory. Not `Copy`: an operation that
/// consumes a handle may reuse its memory.
#[derive(Debug)]
pub struct Tensor {
    pub(super) layout: Layout,
    /// Fraction bits.
    pub(super) frac: i16,
    /// Operations on the longest path that led here.
    pub(super) depth: u32,
}

impl Tensor {
    /// Fraction bits: an element q stands for q·2^-frac.
    #[must_use]
    pub const fn frac(&self) -> i16 {
        self.frac
    }

    /// World operations on the longest path from the inputs to this tensor.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }
}

/// A prepared public operand: 16-bit values with a binary point.
#[derive(Clone, Debug)]
pub enum Operand<S> {
    /// A linear weight.
    Linear {
        /// Number of inputs.
        inputs: usize,
        /// Number of outputs.
        outputs: usize,
        /// Row-major [outputs, inputs].
        weight: S,
        /// Fraction bits of the weight.
        frac: i16,
        /// Bias `[outputs]` and its fraction bits.
        bias: Option<(S, i16)>,
    },
    /// A tensor that broadcasts.
    Vector {
        /// Its shape.
        shape: Shape,
        /// Its values.
        values: S,
        /// Their fraction bits.
        frac: i16,
    },
}

/// The finest format that holds magnitudes up to `2^e`.
#[must_use]
pub const fn frac_for(e: i16) -> i16 {
    let frac = 15 - if e < -9 { -9 } else { e };
    if frac < *FRACTIONS.start() { *FRACTIONS.start() } else { frac }
}

/// Two addends brought to one binary point, and their sum to the result's.
#[derive(Clone, Copy)]
pub(super) struct Align {
    left_a: i32,
    left_b: i32,
    right: i32,
}

impl Align {
    pub(super) fn new(a: i16, b: i16, to: i16) -> Self {
        let common = a.max(b);
        Self {
            left_a: i32::from(common - a),
            left_b: i32::from(common - b),
            right: i32::from(common - to),
        }
    }

    #[inline]
    pub(super) const fn apply(self, a: i64, b: i64) -> i64 {
        mul_shift((a << self.left_a) + (b << self.left_b), 1, self.right)
    }
}

pub(super) fn copy(from: &[i16], row: Range<usize>, col: usize, out: &mut [i16]) {
    let row = from.get(row).unwrap_or_default();
    let row = row.get(col..).unwrap_or_default();
    out.iter_mut().zip(row).for_each(|(o, x)| *o = *x);
}

pub(super) fn zip_rows(
    a: &mut [i16],
    la: Layout,
    b: &[i16],
    lb: Layout,
    f: impl Fn(i64, i64) -> i64,
) -> u64 {
    let (shape, other) = (la.shape, lb.shape);
    let mut saturated = 0;
    let mut one = |x: &mut i16, y: i16| {
        let (value, over) = i16::narrow(f((*x).into(), y.into()));
        *x = value;
        saturated += u64::from(over);
    };
    for batch in 0..shape.batch {
        for row in 0..shape.rows {
            let from = lb.row(batch.min(other.batch - 1), row.min(other.rows - 1));
            let from = b.get(from).unwrap_or_default();
            let own = a.get_mut(la.row(batch, row)).unwrap_or_default();
            match from {
                [single] => own.iter_mut().for_each(|x| one(x, *single)),
                _ => own.iter_mut().zip(from).for_each(|(x, &y)| one(x, y)),
            }
        }
    }
    saturated
}

/// Bits by which a sum of `n` terms may outgrow one.
pub(super) const fn growth(n: usize) -> i16 {
    (usize::BITS - n.saturating_sub(1).leading_zeros()) as i16
}

pub(super) fn vector<'p, S: AsRef<[i16]>>(
    op: &'static str,
    p: &'p Operand<S>,
) -> Result<(Shape, &'p [i16], i16), Fault> {
    match p {
        Operand::Vector { shape, values, frac } => Ok((*shape, values.as_ref(), *frac)),
        Operand::Linear { inputs, outputs, .. } => {
            let shape = Shape::new(1, *inputs, *outputs);
            Err(Fault::Shape { op, left: shape, right: shape })
        }
    }
}
