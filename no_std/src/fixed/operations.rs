//! Products, functions and comparisons of the fixed-point world.

use super::memory::{Memory, Storage, Tensor, growth};
use super::requant::{Narrow, mul_shift};
use super::table;
use super::world::Fixed;
use super::{edge_moe, math};
use crate::{Approximate, Bound, Compare, Fault, Form, Function, Made, Multiply, Op, Width, check};

impl<M: Memory, S: Storage> Multiply for Fixed<M, S> {
    fn mul(&mut self, a: Tensor, b: &Tensor, on: Bound) -> Made<Self> {
        check::broadcast("mul", a.layout.shape, b.layout.shape)?;
        self.live("mul", &a)?;
        self.live("mul", b)?;
        let frac = self.format(on, a.frac + b.frac - 15)?;
        let shift = i32::from(a.frac + b.frac - frac);
        self.count(Op::Mul, a.layout.shape.len());
        self.zip(&a, b, |x, y| mul_shift(x * y, 1, shift));
        Ok(Tensor { frac, depth: a.depth.max(b.depth) + 1, ..a })
    }

    fn square(&mut self, a: Tensor, on: Bound) -> Made<Self> {
        self.live("square", &a)?;
        let frac = self.format(on, 2 * a.frac - 15)?;
        let shift = i32::from(2 * a.frac - frac);
        self.count(Op::Mul, a.layout.shape.len());
        self.each(&a, |x| mul_shift(x * x, 1, shift));
        Ok(Tensor { frac, depth: a.depth + 1, ..a })
    }

    fn matmul(&mut self, a: &Tensor, b: &Tensor, form: Form, on: Bound) -> Made<Self> {
        let shape = check::product(a.layout.shape, b.layout.shape, form)?;
        self.live("matmul", a)?;
        self.live("matmul", b)?;
        let (la, lb) = (a.layout, b.layout);
        let inner = if form == Form::Tn { la.shape.rows } else { la.shape.cols };
        let wide = a.frac + b.frac;
        let frac = self.format(on, wide - 15 - growth(inner))?;
        let shift = i32::from(wide - frac);
        self.counts.mac(Width::I16, (shape.len() * inner) as u64);
        self.count(Op::Shift, shape.len());
        let heads = match form {
            Form::Nt | Form::Tn => 1,
            Form::Nn => lb.heads.max(la.heads),
        };
        self.build(shape, heads, frac, a.depth.max(b.depth), |below, batch, row, out| {
            let at = |i: usize| i64::from(below.get(i).copied().unwrap_or(0));
            let (a0, b0) = (la.start(batch), lb.start(batch));
            let mut saturated = 0;
            for (col, o) in out.iter_mut().enumerate() {
                let total: i64 = (0..inner)
                    .map(|t| match form {
                        Form::Nn => at(a0 + row * la.stride() + t) * at(b0 + t * lb.stride() + col),
                        Form::Nt => at(a0 + row * la.stride() + t) * at(b0 + col * lb.stride() + t),
                        Form::Tn => at(a0 + t * la.stride() + row) * at(b0 + t * lb.stride() + col),
                    })
                    .sum();
                let (value, over) = i16::narrow(mul_shift(total, 1, shift));
                *o = value;
                saturated += u64::from(over);
            }
            saturated
        })
    }
}

impl<M: Memory, S: Storage> Approximate for Fixed<M, S> {
    fn map(&mut self, a: Tensor, f: Function, domain: Bound, on: Bound) -> Made<Self> {
        self.live("map", &a)?;
        let derived = match f {
            Function::Exp => 14,
            Function::Sigmoid | Function::Tanh => 15,
            Function::Gelu | Function::Silu | Function::Softplus => a.frac,
            Function::Reciprocal | Function::Rsqrt => 8,
        };
        let frac = self.format(on, derived)?;
        self.count(Op::Function, a.layout.shape.len());
        let (from, to) = (a.frac, frac);
        if f == Function::Gelu && (0..=15).contains(&from) {
            // The usual activation, without the choice of a function for every element.
            let (frac32, shift) = (from as u32, i32::from(from - to));
            self.each(&a, |x| mul_shift(edge_moe::gelu16(x as i16, frac32).into(), 1, shift));
            return Ok(Tensor { frac, depth: a.depth + 1, ..a });
        }
        let mut outside = false;
        self.each(&a, |x| {
            evaluate(f, x, from, to).unwrap_or_else(|| {
                outside = true;
                i64::MAX
            })
        });
        if outside {
            return Err(Fault::OutOfDomain { site: domain.site });
        }
        Ok(Tensor { frac, depth: a.depth + 1, ..a })
    }
}

/// A function of a 16-bit argument; `None` outside the domain of reciprocals.
fn evaluate(f: Function, x: i64, from: i16, to: i16) -> Option<i64> {
    // The functions of `math` take and give 48 fraction bits.
    let wide = |f: fn(i64) -> i64| {
        let x = mul_shift(x, 1, i32::from(from) - 48);
        mul_shift(f(x), 1, 48 - i32::from(to))
    };
    let (from32, to32) = (u32::from(from.unsigned_abs()), u32::from(to.unsigned_abs()));
    let positive = |g: fn(i64, u32, u32) -> Option<i64>| {
        // Negative fractions have no unsigned form: widen the argument, shift the result.
        let (x, frac) = if from < 0 { (x << from32, 0) } else { (x, from32) };
        if to < 0 { g(x, frac, 0).map(|y| mul_shift(y, 1, to32 as i32)) } else { g(x, frac, to32) }
    };
    Some(match f {
        Function::Exp => wide(math::exp),
        Function::Reciprocal => positive(table::reciprocal)?,
        Function::Rsqrt => positive(table::inverse_root)?,
        Function::Gelu => wide(math::gelu),
        Function::Sigmoid => wide(math::sigmoid),
        Function::Softplus => wide(math::softplus),
        Function::Tanh => wide(math::tanh),
        Function::Silu => {
            let q48 = mul_shift(x, 1, i32::from(from) - 48);
            mul_shift(x, math::sigmoid(q48), i32::from(from) + 48 - i32::from(to))
        }
    })
}

impl<M: Memory, S: Storage> Compare for Fixed<M, S> {
    fn relu(&mut self, a: Tensor, on: Bound) -> Made<Self> {
        self.live("relu", &a)?;
        let frac = self.format(on, a.frac)?;
        let shift = i32::from(a.frac - frac);
        self.count(Op::Compare, a.layout.shape.len());
        self.each(&a, |x| mul_shift(x.max(0), 1, shift));
        Ok(Tensor { frac, depth: a.depth + 1, ..a })
    }

    fn max(&mut self, a: &Tensor) -> Made<Self> {
        self.live("max", a)?;
        let source = a.layout;
        self.count(Op::Compare, source.shape.len());
        let shape = source.shape.with_cols(1);
        self.build(shape, source.heads, a.frac, a.depth, |below, batch, row, out| {
            let row = below.get(source.row(batch, row)).unwrap_or_default();
            if let ([o], Some(&max)) = (out, row.iter().max()) {
                *o = max;
            }
            0
        })
    }
}
