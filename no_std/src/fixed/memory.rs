//! Memory, tensors and formats of the fixed-point world.

use super::requant::{Narrow, half_up, mul_shift};
use crate::{Fault, Shape};
use core::fmt::Debug;
use core::ops::Range;
use undertone_dsp::Block;

/// Fraction bits that formats may have.
pub(super) const FRACTIONS: core::ops::RangeInclusive<i16> = -16..=24;

/// The memory of a fixed-point world.
pub trait Memory: Send {
    /// Whether values are there.
    const REAL: bool;
    /// Tensor elements; empty in a plan.
    fn tensors(&mut self) -> &mut [i16] {
        self.all().tensors
    }
    /// Everything.
    fn all(&mut self) -> Buffers<'_>;
}

/// What a memory holds; all empty in a plan.
#[derive(Debug, Default)]
pub struct Buffers<'m> {
    /// Tensor elements.
    pub tensors: &'m mut [i16],
    /// Wide accumulators of the attention kernels.
    pub wide: &'m mut [i64],
    /// Packed signs and what is counted on them.
    pub words: &'m mut [u32],
}

/// How much memory a run takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Tensor elements, 2 bytes each.
    pub tensors: usize,
    /// Wide accumulators, 8 bytes each.
    pub wide: usize,
    /// Words of signs, 4 bytes each.
    pub words: usize,
}

impl Needed {
    /// All of it.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        2 * self.tensors + 8 * self.wide + 4 * self.words
    }
}

/// How prepared operands are stored: in [`Flash`], or in memory that a host owns.
pub trait Storage: Clone + Debug + Send + Sync + 'static {
    /// An array.
    type Of<T: Copy + Debug + Send + Sync + 'static>: AsRef<[T]> + Clone + Debug + Send + Sync;
}

/// Operands that are constants of the program.
#[derive(Clone, Copy, Debug)]
pub struct Flash;

impl Storage for Flash {
    type Of<T: Copy + Debug + Send + Sync + 'static> = &'static [T];
}

/// Memory provided by the caller. [`Fixed::needed`](super::Fixed::needed) of a plan tells how much.
#[derive(Debug)]
pub struct Arena<'m> {
    /// Tensor elements.
    pub tensors: &'m mut [i16],
    /// Accumulators: one for each column of a head.
    pub wide: &'m mut [i64],
    /// Words of signs.
    pub words: &'m mut [u32],
}

impl Memory for Arena<'_> {
    const REAL: bool = true;
    fn all(&mut self) -> Buffers<'_> {
        Buffers { tensors: self.tensors, wide: self.wide, words: self.words }
    }
}

/// Memory of a size known when the program is compiled: a world in it can be a static.
#[derive(Clone, Debug)]
pub struct Inline<const T: usize, const W: usize, const S: usize> {
    tensors: [i16; T],
    wide: [i64; W],
    words: [u32; S],
}

impl<const T: usize, const W: usize, const S: usize> Inline<T, W, S> {
    /// All zero.
    pub const EMPTY: Self = Self { tensors: [0; T], wide: [0; W], words: [0; S] };
}

impl<const T: usize, const W: usize, const S: usize> Memory for Inline<T, W, S> {
    const REAL: bool = true;
    fn all(&mut self) -> Buffers<'_> {
        Buffers { tensors: &mut self.tensors, wide: &mut self.wide, words: &mut self.words }
    }
}

/// No memory: the world plans.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absent;

impl Memory for Absent {
    const REAL: bool = false;
    fn all(&mut self) -> Buffers<'_> {
        Buffers::default()
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

/// A prepared public operand.
#[derive(Clone, Debug)]
pub enum Operand<S: Storage> {
    /// A linear weight.
    Linear {
        /// Number of inputs.
        inputs: usize,
        /// Number of outputs.
        outputs: usize,
        /// The matrix [outputs, inputs].
        weight: Weight<S>,
        /// Fraction bits of the weight, or of the scales of its rows.
        frac: i16,
        /// Bias `[outputs]` and its fraction bits.
        bias: Option<(S::Of<i16>, i16)>,
    },
    /// A tensor that broadcasts.
    Vector {
        /// Its shape.
        shape: Shape,
        /// Its values.
        values: S::Of<i16>,
        /// Their fraction bits.
        frac: i16,
    },
}

/// A weight matrix, a row an output.
#[derive(Clone, Debug)]
pub enum Weight<S: Storage> {
    /// 16-bit values, row after row.
    Halves(S::Of<i16>),
    /// Bytes in blocks of four rows ([`bytes::block`](super::bytes::block)), and a scale a row.
    Bytes {
        /// The blocks.
        blocks: S::Of<Block>,
        /// The scales `[outputs]`.
        scale: S::Of<i16>,
    },
    /// Signs, least bit first, each row from a word on (1 is +1), and a scale a row.
    Signs {
        /// The words.
        words: S::Of<u32>,
        /// The scales `[outputs]`.
        scale: S::Of<i16>,
        /// Whether the product reads the signs of its input too.
        of_signs: bool,
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

    /// The same for 16-bit addends; within 32 bits where their formats lie near each other.
    #[inline(always)]
    pub(super) fn halves(self, a: i16, b: i16) -> i64 {
        if self.left_a <= 14 && self.left_b <= 14 && self.right >= 0 && self.right < 31 {
            let sum = (i32::from(a) << self.left_a) + (i32::from(b) << self.left_b);
            return half_up(sum, self.right).into();
        }
        self.apply(a.into(), b.into())
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
    f: impl Fn(i16, i16) -> i64,
) -> u64 {
    let (shape, other) = (la.shape, lb.shape);
    let mut saturated = 0;
    let mut one = |x: &mut i16, y: i16| {
        let (value, over) = i16::narrow(f(*x, y));
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

pub(super) fn vector<'p, S: Storage>(
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
