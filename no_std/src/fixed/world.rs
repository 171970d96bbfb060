//! The fixed-point world: 16-bit tensors in memory that the caller provides.
//!
//! A tensor is `i16` with a binary point of its own, chosen from the bound of its site: the finest
//! format that holds the calibrated range. Values beyond it saturate, which is counted
//! ([`Fixed::saturated`]). Accumulators are exact and cannot overflow.
//!
//! Memory is a stack: operations allocate on top, and [`World::scope`] keeps the results of a
//! computation and takes the rest back. Over [`Absent`] memory the world is its own ledger: it
//! counts what a run counts and tells how much memory the run needs.

use super::linear::{self, Dims};
use super::memory::{
    Absent, Align, Arena, Buffers, FRACTIONS, Layout, Memory, Needed, Operand, Storage,
};
use super::memory::{Tensor, Weight, copy, frac_for, growth, vector, zip_rows};
use super::requant::{Narrow, Requant, Scaled, mul_shift};
use super::{Bias, KernelError, bytes, signs};
use crate::binary::words_for;
use crate::{Axis, Bound, Counts, Fault, Made, Mask, Num, Op, Role, Shape, Width, World, check};

/// The fixed-point world. `S` stores prepared operands: [`Flash`](super::Flash), or what a host owns.
#[derive(Debug)]
pub struct Fixed<M, S> {
    pub(super) memory: M,
    pub(super) counts: Counts,
    pub(super) saturated: u64,
    top: usize,
    needed: Needed,
    storage: core::marker::PhantomData<fn() -> S>,
}

impl<S: Storage> Fixed<Absent, S> {
    /// A world that plans.
    #[must_use]
    pub fn ledger() -> Self {
        Self::over(Absent)
    }
}

impl<'m, S: Storage> Fixed<Arena<'m>, S> {
    /// A world in the caller's memory.
    #[must_use]
    pub fn new(tensors: &'m mut [i16], wide: &'m mut [i64], words: &'m mut [u32]) -> Self {
        Self::over(Arena { tensors, wide, words })
    }
}

impl<M: Memory, S: Storage> Fixed<M, S> {
    /// A world in memory of any kind.
    pub const fn over(memory: M) -> Self {
        let storage = core::marker::PhantomData;
        let needed = Needed { tensors: 0, wide: 0, words: 0 };
        Self { memory, counts: Counts::NONE, saturated: 0, top: 0, needed, storage }
    }

    /// Operations counted so far.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Elements that left their format and were clamped.
    #[must_use]
    pub const fn saturated(&self) -> u64 {
        self.saturated
    }

    /// The most memory in use so far.
    #[must_use]
    pub const fn needed(&self) -> Needed {
        self.needed
    }

    /// Takes all memory back and counts from zero. Handles made before are stale afterwards.
    pub const fn clear(&mut self) {
        self.top = 0;
        self.counts = Counts::NONE;
        self.saturated = 0;
    }

    pub(super) fn alloc(
        &mut self,
        shape: Shape,
        heads: usize,
        frac: i16,
        depth: u32,
    ) -> Result<Tensor, Fault> {
        let layout = Layout { at: self.top, shape, heads };
        let needed = self.top.saturating_add(shape.len());
        if M::REAL && needed > self.memory.tensors().len() {
            return Err(Fault::Memory { needed, available: self.memory.tensors().len() });
        }
        self.top = needed;
        self.needed.tensors = self.needed.tensors.max(needed);
        Ok(Tensor { layout, frac, depth: depth + 1 })
    }

    /// Notes that an attention kernel needs so many accumulators.
    pub(super) fn reserve_wide(&mut self, len: usize) -> Result<(), Fault> {
        self.needed.wide = self.needed.wide.max(len);
        let available = self.memory.all().wide.len();
        if M::REAL && len > available {
            return Err(Fault::Memory { needed: len, available });
        }
        Ok(())
    }

    /// Notes that a kernel on signs needs so many words.
    pub(super) fn reserve_words(&mut self, len: usize) -> Result<(), Fault> {
        self.needed.words = self.needed.words.max(len);
        let available = self.memory.all().words.len();
        if M::REAL && len > available {
            return Err(Fault::Memory { needed: len, available });
        }
        Ok(())
    }

    /// Fails on a handle whose memory has been taken back.
    pub(super) fn live(&self, op: &'static str, x: &Tensor) -> Result<(), Fault> {
        if x.layout.end() <= self.top { Ok(()) } else { Err(Fault::Stale { op }) }
    }

    /// The format of a result: from its bound; from its operands for a value inside an operator.
    pub(super) fn format(&self, on: Bound, derived: i16) -> Result<i16, Fault> {
        match on.range {
            Some(range) => Ok(frac_for(range.ceil_log2())),
            None if on.site.role == Role::Inner => {
                Ok(derived.clamp(*FRACTIONS.start(), *FRACTIONS.end()))
            }
            None => Err(Fault::Uncalibrated(on.site)),
        }
    }

    pub(super) const fn count(&mut self, op: Op, n: usize) {
        self.counts.add(op, Width::I16, n as u64);
    }

    /// A product's arithmetic without its bias. Bytes count as halfwords: that is what they meet.
    fn count_product(&mut self, weight: &Weight<S>, m: usize, k: usize, n: usize) {
        match weight {
            Weight::Halves(_) => self.counts.mac(Width::I16, (m * n * k) as u64),
            Weight::Bytes { .. } => {
                self.counts.mac(Width::I16, (m * n * k) as u64);
                self.counts.add(Op::Mul, Width::I32, (m * n) as u64);
            }
            Weight::Signs { of_signs, .. } => {
                if *of_signs {
                    self.count(Op::Compare, m * k);
                    self.counts.mac(Width::I1, (m * n * k) as u64);
                } else {
                    self.counts.add(Op::Add, Width::I32, (m * n * k) as u64);
                }
                self.counts.add(Op::Mul, Width::I32, (m * n) as u64);
            }
        }
        self.count(Op::Shift, m * n);
    }

    /// Replaces every element of `a` by a function of it.
    pub(super) fn each(&mut self, a: &Tensor, mut f: impl FnMut(i64) -> i64) {
        let range = a.layout.at..a.layout.end();
        let mut saturated = 0;
        for x in self.memory.tensors().get_mut(range).unwrap_or_default() {
            let (value, over) = i16::narrow(f((*x).into()));
            *x = value;
            saturated += u64::from(over);
        }
        self.saturated += saturated;
    }

    /// Replaces every element of `a` by a function of it and the element of `b` that broadcasts
    /// to it, both in memory.
    pub(super) fn zip(&mut self, a: &Tensor, b: &Tensor, f: impl Fn(i64, i64) -> i64) {
        let (a, b) = (a.layout, b.layout);
        let memory = self.memory.tensors();
        let saturated = if !M::REAL {
            0
        } else if a.at < b.at {
            let (low, high) = memory.split_at_mut(b.at);
            zip_rows(low, a, high, b.rebased(b.at), f)
        } else {
            let (low, high) = memory.split_at_mut(a.at);
            zip_rows(high, a.rebased(a.at), low, b, f)
        };
        self.saturated += saturated;
    }

    /// The same with a public operand.
    fn zip_public(
        &mut self,
        a: &Tensor,
        shape: Shape,
        values: &[i16],
        f: impl Fn(i64, i64) -> i64,
    ) {
        if M::REAL {
            let b = Layout { at: 0, shape, heads: 1 };
            self.saturated += zip_rows(self.memory.tensors(), a.layout, values, b, f);
        }
    }

    /// Makes a tensor row by row from another one. The callback gets the whole memory below the
    /// result, the batch, the row and the result's row.
    pub(super) fn build(
        &mut self,
        shape: Shape,
        heads: usize,
        frac: i16,
        depth: u32,
        mut f: impl FnMut(&[i16], usize, usize, &mut [i16]) -> u64,
    ) -> Result<Tensor, Fault> {
        let heads = if shape.batch.is_multiple_of(heads) { heads } else { 1 };
        let made = self.alloc(shape, heads, frac, depth)?;
        if M::REAL {
            let (below, own) = self.memory.tensors().split_at_mut(made.layout.at);
            let layout = made.layout.rebased(made.layout.at);
            for batch in 0..shape.batch {
                for row in 0..shape.rows {
                    if let Some(out) = own.get_mut(layout.row(batch, row)) {
                        self.saturated += f(below, batch, row, out);
                    }
                }
            }
        }
        Ok(made)
    }

    /// The same matrices, each in one piece.
    pub(super) fn contiguous(&mut self, a: Tensor) -> Result<Tensor, Fault> {
        if a.layout.heads == 1 {
            Ok(a)
        } else {
            self.gather(&a, a.layout.shape, |b, row| (b, row, 0))
        }
    }

    /// A tensor whose rows are pieces of rows of `a`: the callback tells batch, row and column.
    fn gather(
        &mut self,
        a: &Tensor,
        shape: Shape,
        from: impl Fn(usize, usize) -> (usize, usize, usize),
    ) -> Result<Tensor, Fault> {
        self.live("gather", a)?;
        self.count(Op::Move, shape.len());
        let source = a.layout;
        self.build(shape, 1, a.frac, a.depth, |below, batch, row, out| {
            let (batch, row, col) = from(batch, row);
            copy(below, source.row(batch, row), col, out);
            0
        })
    }

    /// a ± b in the format of `on`, in one rounding.
    fn combine(
        &mut self,
        op: &'static str,
        a: Tensor,
        b: &Tensor,
        on: Bound,
        sign: i64,
    ) -> Result<Tensor, Fault> {
        check::broadcast(op, a.layout.shape, b.layout.shape)?;
        self.live(op, &a)?;
        self.live(op, b)?;
        let frac = self.format(on, a.frac.min(b.frac) - 1)?;
        let align = Align::new(a.frac, b.frac, frac);
        self.count(Op::Add, a.layout.shape.len());
        self.zip(&a, b, |x, y| align.apply(x, sign * y));
        Ok(Tensor { frac, depth: a.depth.max(b.depth) + 1, ..a })
    }
}

impl From<KernelError> for Fault {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Length { kernel, expected, got, .. } => Self::Shape {
                op: kernel,
                left: Shape::new(1, 1, got),
                right: Shape::new(1, 1, expected),
            },
            KernelError::EmptyRow { kernel, .. } => {
                Self::Empty { op: kernel, shape: Shape::default() }
            }
            KernelError::Overflow { kernel, index } => {
                Self::Overflow { op: kernel, terms: index + 1, limit: index }
            }
            KernelError::Domain { what, got, .. } => Self::Parameter { what, got },
        }
    }
}

/// Fraction bits of public addends.
const FINE: i16 = 30;

impl<M: Memory, S: Storage> World for Fixed<M, S> {
    const NAME: &'static str = "fixed-point";
    type Secret = Tensor;
    type Public = Operand<S>;
    type Error = Fault;

    fn shape(&self, x: &Tensor) -> Shape {
        x.layout.shape
    }

    fn copy(&mut self, x: &Tensor) -> Made<Self> {
        self.live("copy", x)?;
        let source = x.layout;
        self.count(Op::Move, source.shape.len());
        self.build(source.shape, source.heads, x.frac, x.depth, |below, batch, row, out| {
            copy(below, source.row(batch, row), 0, out);
            0
        })
    }

    fn add(&mut self, a: Tensor, b: &Tensor, on: Bound) -> Made<Self> {
        self.combine("add", a, b, on, 1)
    }

    fn sub(&mut self, a: Tensor, b: &Tensor, on: Bound) -> Made<Self> {
        self.combine("sub", a, b, on, -1)
    }

    fn scale(&mut self, a: Tensor, k: Num, on: Bound) -> Made<Self> {
        self.live("scale", &a)?;
        let e = if k.is_zero() { 0 } else { k.ceil_log2() };
        let frac = self.format(on, a.frac.saturating_sub(e))?;
        // 30 significant bits of the factor.
        let bits = 30 - e;
        let factor = k.to_fixed(bits);
        let shift = i32::from(a.frac + bits - frac);
        self.count(Op::Mul, a.layout.shape.len());
        self.each(&a, |x| mul_shift(x, factor, shift));
        Ok(Tensor { frac, depth: a.depth + 1, ..a })
    }

    fn offset(&mut self, a: Tensor, k: Num, on: Bound) -> Made<Self> {
        self.live("offset", &a)?;
        // A value inside an operator gets a format that holds the sum for certain.
        let frac = self.format(on, frac_for(k.ceil_log2().max(15 - a.frac) + 1))?;
        let align = Align::new(a.frac, FINE, frac);
        let k = k.to_fixed(FINE);
        self.count(Op::Add, a.layout.shape.len());
        self.each(&a, |x| align.apply(x, k));
        Ok(Tensor { frac, depth: a.depth + 1, ..a })
    }

    fn add_public(&mut self, a: Tensor, p: &Operand<S>, on: Bound) -> Made<Self> {
        let (shape, values, p_frac) = vector("add_public", p)?;
        check::broadcast("add_public", a.layout.shape, shape)?;
        self.live("add_public", &a)?;
        let frac = self.format(on, a.frac.min(p_frac) - 1)?;
        let align = Align::new(a.frac, p_frac, frac);
        self.count(Op::Add, a.layout.shape.len());
        self.zip_public(&a, shape, values, |x, y| align.apply(x, y));
        Ok(Tensor { frac, depth: a.depth + 1, ..a })
    }

    fn mul_public(&mut self, a: Tensor, p: &Operand<S>, on: Bound) -> Made<Self> {
        let (shape, values, p_frac) = vector("mul_public", p)?;
        check::broadcast("mul_public", a.layout.shape, shape)?;
        self.live("mul_public", &a)?;
        let frac = self.format(on, a.frac + p_frac - 15)?;
        let shift = i32::from(a.frac + p_frac - frac);
        self.count(Op::Mul, a.layout.shape.len());
        self.zip_public(&a, shape, values, |x, y| mul_shift(x * y, 1, shift));
        Ok(Tensor { frac, depth: a.depth + 1, ..a })
    }

    fn matmul_public(&mut self, x: &Tensor, w: &Operand<S>, on: Bound) -> Made<Self> {
        let Operand::Linear { inputs, outputs, weight, frac: w_frac, bias } = w else {
            let right = vector("matmul_public", w)?.0;
            return Err(Fault::Shape { op: "matmul_public", left: x.layout.shape, right });
        };
        let (k, n) = (*inputs, *outputs);
        let shape = check::linear(x.layout.shape, k, n)?;
        self.live("matmul_public", x)?;
        let copy;
        let x = if x.layout.heads == 1 {
            x
        } else {
            copy = self.gather(x, x.layout.shape, |b, row| (b, row, 0))?;
            &copy
        };
        // Signs have no binary point.
        let of_signs = matches!(weight, Weight::Signs { of_signs: true, .. });
        let wide = if of_signs { *w_frac } else { x.frac + w_frac };
        let frac = self.format(on, wide - 15 - growth(k))?;
        let (m, from) = (shape.batch * shape.rows, x.layout.at..x.layout.end());
        self.count_product(weight, m, k, n);
        if bias.is_some() {
            self.count(Op::Add, m * n);
        }
        let made = self.alloc(shape, 1, frac, x.depth)?;
        if of_signs {
            self.reserve_words(words_for::<u32>(k))?;
        }
        if M::REAL {
            let Buffers { tensors, words: packed, .. } = self.memory.all();
            let (below, own) = tensors.split_at_mut(made.layout.at);
            let x = below.get(from).unwrap_or_default();
            let out = own.get_mut(..shape.len()).unwrap_or_default();
            let bias = bias
                .as_ref()
                .map(|(b, f)| (Bias { data: b.as_ref(), frac: (*f).into() }, i32::from(wide)));
            let shift = i32::from(wide - frac);
            let dims = Dims { m, k, n };
            self.saturated += match weight {
                Weight::Halves(weight) => {
                    let requant = [Requant { multiplier: 1, shift }];
                    let form = linear::Form::NT;
                    linear::matmul(form, dims, x, weight.as_ref(), bias, &requant, out)?
                }
                Weight::Bytes { blocks, scale } => {
                    let finish = Scaled { scale: scale.as_ref(), bias, shift };
                    bytes::matmul(dims, x, blocks.as_ref(), finish, out)?
                }
                Weight::Signs { words, scale, .. } => {
                    let finish = Scaled { scale: scale.as_ref(), bias, shift };
                    if of_signs {
                        signs::of_signs(dims, x, words.as_ref(), finish, packed, out)?
                    } else {
                        signs::matmul(dims, x, words.as_ref(), finish, out)?
                    }
                }
            };
        }
        Ok(made)
    }

    fn sum(&mut self, a: &Tensor, axis: Axis, on: Bound) -> Made<Self> {
        self.live("sum", a)?;
        let (source, shape, terms) = match axis {
            Axis::Rows => (a.layout, a.layout.shape.with_rows(1), a.layout.shape.rows),
            Axis::Cols => (a.layout, a.layout.shape.with_cols(1), a.layout.shape.cols),
        };
        let frac = self.format(on, a.frac - growth(terms))?;
        let shift = i32::from(a.frac - frac);
        self.count(Op::Add, source.shape.len());
        self.build(shape, source.heads, frac, a.depth, |below, batch, row, out| {
            let mut saturated = 0;
            for (col, o) in out.iter_mut().enumerate() {
                let total: i64 = match axis {
                    Axis::Cols => {
                        let row = below.get(source.row(batch, row)).unwrap_or_default();
                        row.iter().map(|&x| i64::from(x)).sum()
                    }
                    Axis::Rows => (0..source.shape.rows)
                        .filter_map(|row| below.get(source.row(batch, row).start + col))
                        .map(|&x| i64::from(x))
                        .sum(),
                };
                let (value, over) = i16::narrow(mul_shift(total, 1, shift));
                *o = value;
                saturated += u64::from(over);
            }
            saturated
        })
    }

    fn rows(&mut self, a: &Tensor, from: usize, len: usize) -> Made<Self> {
        let shape = check::slice("rows", a.layout.shape, from, len, Axis::Rows)?;
        self.gather(a, shape, |batch, row| (batch, from + row, 0))
    }

    fn repeat_rows(&mut self, a: &Tensor, n: usize) -> Made<Self> {
        let shape = check::broadcast("repeat_rows", a.layout.shape.with_rows(n), a.layout.shape)?;
        self.gather(a, shape, |batch, _| (batch, 0, 0))
    }

    fn columns(&mut self, a: &Tensor, from: usize, len: usize) -> Made<Self> {
        let shape = check::slice("columns", a.layout.shape, from, len, Axis::Cols)?;
        self.gather(a, shape, |batch, row| (batch, row, from))
    }

    fn concat(&mut self, a: Tensor, b: &Tensor, on: Bound) -> Made<Self> {
        let shape = check::beside(a.layout.shape, b.layout.shape)?;
        self.live("concat", &a)?;
        self.live("concat", b)?;
        let frac = self.format(on, a.frac.min(b.frac))?;
        let (left, right) = (a.layout, b.layout);
        let shifts = (i32::from(a.frac - frac), i32::from(b.frac - frac));
        self.count(Op::Move, shape.len());
        self.build(shape, 1, frac, a.depth.max(b.depth), |below, batch, row, out| {
            let (a, b) = (below.get(left.row(batch, row)), below.get(right.row(batch, row)));
            let a = a.unwrap_or_default().iter().map(|&x| mul_shift(x.into(), 1, shifts.0));
            let b = b.unwrap_or_default().iter().map(|&x| mul_shift(x.into(), 1, shifts.1));
            let mut saturated = 0;
            for (o, wide) in out.iter_mut().zip(a.chain(b)) {
                let (value, over) = i16::narrow(wide);
                *o = value;
                saturated += u64::from(over);
            }
            saturated
        })
    }

    fn split_heads(&mut self, a: Tensor, heads: usize) -> Made<Self> {
        let shape = check::split(a.layout.shape, heads)?;
        let a = self.contiguous(a)?;
        Ok(Tensor { layout: Layout { shape, heads, ..a.layout }, ..a })
    }

    fn merge_heads(&mut self, a: Tensor, heads: usize) -> Made<Self> {
        let shape = check::merge(a.layout.shape, heads)?;
        if a.layout.heads == heads {
            return Ok(Tensor { layout: Layout { shape, heads: 1, ..a.layout }, ..a });
        }
        self.live("merge_heads", &a)?;
        let (source, cols) = (a.layout, a.layout.shape.cols);
        self.count(Op::Move, shape.len());
        self.build(shape, 1, a.frac, a.depth, |below, image, row, out| {
            for (head, part) in out.chunks_mut(cols.max(1)).enumerate() {
                copy(below, source.row(image * heads + head, row), 0, part);
            }
            0
        })
    }

    fn mask(&mut self, a: Tensor, mask: &Mask<'_>, fill: Num) -> Made<Self> {
        let shape = a.layout.shape;
        check::mask(shape, shape.cols, mask)?;
        self.live("mask", &a)?;
        let fill = i16::narrow(fill.to_fixed(a.frac)).0;
        if !mask.is_none() {
            for batch in 0..shape.batch {
                for row in 0..shape.rows {
                    let visible = mask.visible(shape, batch, row);
                    let own = self.memory.tensors().get_mut(a.layout.row(batch, row));
                    if let Some(hidden) = own.unwrap_or_default().get_mut(visible..) {
                        hidden.fill(fill);
                    }
                }
            }
        }
        Ok(a)
    }

    fn divide_by_count(
        &mut self,
        a: Tensor,
        mask: &Mask<'_>,
        keys: usize,
        on: Bound,
    ) -> Made<Self> {
        let scores = a.layout.shape.with_cols(keys);
        check::mask(a.layout.shape, keys, mask)?;
        self.live("divide_by_count", &a)?;
        let frac = self.format(on, a.frac)?;
        self.count(Op::Mul, a.layout.shape.len());
        let mut saturated = 0;
        for batch in 0..scores.batch {
            for row in 0..scores.rows {
                let inverse = Num::int(mask.visible(scores, batch, row) as i64).inverse();
                let factor = inverse.to_fixed(30);
                let shift = i32::from(a.frac + 30 - frac);
                let own = self.memory.tensors().get_mut(a.layout.row(batch, row));
                for x in own.unwrap_or_default() {
                    let (value, over) = i16::narrow(mul_shift((*x).into(), factor, shift));
                    *x = value;
                    saturated += u64::from(over);
                }
            }
        }
        self.saturated += saturated;
        Ok(Tensor { frac, depth: a.depth + 1, ..a })
    }

    fn replace(&mut self, old: Tensor, new: Tensor) -> Made<Self> {
        let (from, to) = (new.layout, old.layout);
        if to.end() > from.at || to.shape.len() != from.shape.len() || from.end() != self.top {
            return Ok(new);
        }
        if M::REAL {
            self.memory.tensors().copy_within(from.at..from.end(), to.at);
        }
        self.top = from.at;
        Ok(Tensor { layout: Layout { at: to.at, ..from }, ..new })
    }

    fn scope<const N: usize>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<[Tensor; N], Fault>,
    ) -> Result<[Tensor; N], Fault> {
        let mark = self.top;
        let mut kept = f(self)?;
        // Results move down onto the mark in the order of their addresses; those made before the
        // scope stay where they are.
        let mut order: [usize; N] = core::array::from_fn(|i| i);
        order.sort_unstable_by_key(|&i| kept.get(i).map_or(0, |t| t.layout.at));
        let mut at = mark;
        for i in order {
            let Some(tensor) = kept.get_mut(i) else { continue };
            if tensor.layout.at < mark {
                at = at.max(tensor.layout.end());
                continue;
            }
            let from = tensor.layout.at..tensor.layout.end();
            if M::REAL && tensor.layout.at != at {
                // Both ends are below `top`, which is within the memory.
                self.memory.tensors().copy_within(from, at);
            }
            tensor.layout.at = at;
            at = tensor.layout.end();
        }
        self.top = at;
        Ok(kept)
    }
}

/// Loads and reads tensors: what a host or a firmware does around a run.
impl<M: Memory, S: Storage> Fixed<M, S> {
    /// Brings values in: the callback gives element i in fixed point with the fraction bits it is
    /// told.
    ///
    /// # Errors
    /// [`Fault::Empty`], [`Fault::Uncalibrated`] and [`Fault::Memory`].
    pub fn input(
        &mut self,
        shape: Shape,
        on: Bound,
        value: impl Fn(usize, i16) -> i64,
    ) -> Result<Tensor, Fault> {
        if shape.is_empty() {
            return Err(Fault::Empty { op: "input", shape });
        }
        let range = on.range.ok_or(Fault::Uncalibrated(on.site))?;
        let frac = frac_for(range.ceil_log2());
        let made = self.alloc(shape, 1, frac, 0)?;
        let mut saturated = 0;
        let own = self.memory.tensors().get_mut(made.layout.at..made.layout.end());
        for (i, x) in own.unwrap_or_default().iter_mut().enumerate() {
            let (v, over) = i16::narrow(value(i, frac));
            *x = v;
            saturated += u64::from(over);
        }
        self.saturated += saturated;
        Ok(made)
    }

    /// The values of a row.
    ///
    /// # Errors
    /// [`Fault::Stale`] for a handle whose memory has been taken back, and in a plan.
    pub fn row(&mut self, x: &Tensor, batch: usize, row: usize) -> Result<&[i16], Fault> {
        self.live("row", x)?;
        let range = x.layout.row(batch, row);
        self.memory
            .tensors()
            .get(range)
            .map(|row| -> &[i16] { row })
            .ok_or(Fault::Stale { op: "row" })
    }
}
