//! Tensors of the world: ciphertexts, or public affine images of ciphertexts that wait.
//!
//! Linear layers, norms without a secret divisor, residual connections, biases and pooling are
//! all public affine maps. They are composed in the clear and computed when a product of secrets
//! needs their result: an encoder then spends one level between two products of secrets, however
//! many layers lie there, and the consumer decides the layout that the result is born in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use undertone_core::{Fault, Shape};

use super::{Layout, Packing};

/// A matrix of each head, or of all heads side by side.
pub struct Packed<C> {
    pub(super) shape: Shape,
    pub(super) packing: Packing,
    pub(super) value: Value<C>,
}

pub(super) enum Value<C> {
    Held(Held<C>),
    Waiting(Affine<C>),
}

/// Ciphertexts in a layout; slots times `factor` are the values.
#[derive(Clone)]
pub(super) struct Held<C> {
    pub(super) layout: Layout,
    pub(super) factor: f64,
    pub(super) cts: Vec<C>,
}

impl<C: Clone> Packed<C> {
    pub(super) fn held(shape: Shape, packing: Packing, held: Held<C>) -> Self {
        Self { shape, packing, value: Value::Held(held) }
    }

    /// The layout, once computed.
    #[must_use]
    pub fn layout(&self) -> Option<Layout> {
        match &self.value {
            Value::Held(held) => Some(held.layout),
            Value::Waiting(_) => None,
        }
    }

    /// The packing.
    #[must_use]
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// What decrypted slots are to be multiplied by; one for what is not computed yet.
    #[must_use]
    pub fn factor(&self) -> f64 {
        match &self.value {
            Value::Held(held) => held.factor,
            Value::Waiting(_) => 1.0,
        }
    }

    /// The ciphertexts; none for what is not computed yet.
    #[must_use]
    pub fn ciphertexts(&self) -> &[C] {
        match &self.value {
            Value::Held(held) => &held.cts,
            Value::Waiting(_) => &[],
        }
    }

    /// Columns of all heads side by side.
    pub(super) fn columns(&self) -> usize {
        self.shape.batch * self.shape.cols
    }

    /// As an affine image, if it can be one.
    pub(super) fn affine(self, op: &'static str) -> Result<Affine<C>, super::HeError> {
        let columns = self.columns();
        match self.value {
            Value::Waiting(affine) => Ok(affine),
            Value::Held(Held { layout, factor, cts }) => {
                let (columns, replicas, repeats) = match layout {
                    Layout::Spread => (columns, 1, true),
                    Layout::Sparse => (columns, 1, false),
                    Layout::Rows if self.packing.heads == 1 => (1, self.packing.features, false),
                    found => {
                        return Err(super::HeError::Layout { op, found, wanted: Layout::Sparse });
                    }
                };
                Ok(Affine::of(Base {
                    once: cts,
                    repeats,
                    rolling: None,
                    columns,
                    replicas,
                    factor,
                    cache: Mutex::default(),
                }))
            }
        }
    }
}

/// Rotations already computed, by (rolling, ciphertext, level), then blocks.
pub(super) type Rotations<C> = BTreeMap<(bool, usize, usize), BTreeMap<usize, Arc<C>>>;

/// Ciphertexts that affine images refer to.
pub(super) struct Base<C> {
    /// Valid in sparse layout: a ciphertext for every F columns.
    pub(super) once: Vec<C>,
    /// Whether they are valid in spread layout too.
    pub(super) repeats: bool,
    /// The same in rolling layout.
    pub(super) rolling: Option<Vec<C>>,
    pub(super) columns: usize,
    /// Adjacent blocks that hold the same column; more than one only below F columns.
    pub(super) replicas: usize,
    pub(super) factor: f64,
    pub(super) cache: Mutex<Rotations<C>>,
}

impl<C> Base<C> {
    /// The ciphertexts from which a layout can be computed without copying tokens.
    pub(super) fn source(&self, layout: Layout) -> Option<(bool, &[C])> {
        match layout {
            Layout::Sparse => Some((false, &self.once)),
            Layout::Spread if self.repeats => Some((false, &self.once)),
            Layout::Rolling => self.rolling.as_deref().map(|cts| (true, cts)),
            _ => None,
        }
    }

    /// The column that a block of a ciphertext holds for an output block.
    pub(super) fn column(&self, p: &Packing, ct: usize, from: usize, to: usize) -> Option<usize> {
        let column = if self.replicas > 1 {
            (from % self.replicas == to % self.replicas).then_some(from / self.replicas)?
        } else {
            ct * p.features + p.column_of(from)
        };
        (column < self.columns).then_some(column)
    }
}

/// Σ base·matrix + bias, summed over the rows if `pooled`.
pub(super) struct Affine<C> {
    pub(super) terms: Vec<Term<C>>,
    pub(super) bias: Bias,
    pub(super) pooled: bool,
    /// Stored slots times this are to be the values, once computed.
    pub(super) wish: f64,
}

/// One row for all tokens, or a row a token.
#[derive(Clone)]
pub(super) struct Bias {
    pub(super) rows: usize,
    pub(super) values: Vec<f64>,
}

pub(super) struct Term<C> {
    pub(super) base: Arc<Base<C>>,
    /// Row-major, the base's columns by the tensor's.
    pub(super) matrix: Arc<Vec<f64>>,
}

impl<C> Clone for Term<C> {
    fn clone(&self) -> Self {
        Self { base: self.base.clone(), matrix: self.matrix.clone() }
    }
}

impl<C> Clone for Affine<C> {
    fn clone(&self) -> Self {
        let (terms, bias) = (self.terms.clone(), self.bias.clone());
        Self { terms, bias, ..*self }
    }
}

/// a (rows × inner) times b (inner × cols).
fn product(a: &[f64], b: &[f64], inner: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; a.len() / inner * cols];
    for (row, out) in a.chunks_exact(inner).zip(out.chunks_exact_mut(cols)) {
        for (&x, b) in row.iter().zip(b.chunks_exact(cols)) {
            out.iter_mut().zip(b).for_each(|(o, &y)| *o += x * y);
        }
    }
    out
}

impl<C> Affine<C> {
    /// The base itself.
    pub(super) fn of(base: Base<C>) -> Self {
        let columns = base.columns;
        let mut unit = vec![0.0; columns * columns];
        unit.iter_mut().step_by(columns + 1).for_each(|x| *x = 1.0);
        Self {
            terms: vec![Term { base: Arc::new(base), matrix: Arc::new(unit) }],
            bias: Bias { rows: 1, values: vec![0.0; columns] },
            pooled: false,
            wish: 1.0,
        }
    }

    fn columns(&self) -> usize {
        self.bias.values.len() / self.bias.rows
    }

    /// self·W for a row-major matrix of self's columns by `cols`.
    pub(super) fn times(mut self, w: &[f64], cols: usize) -> Self {
        let inner = self.columns();
        for term in &mut self.terms {
            term.matrix = Arc::new(product(&term.matrix, w, inner, cols));
        }
        self.bias.values = product(&self.bias.values, w, inner, cols);
        self
    }

    /// Every column times its own factor.
    pub(super) fn scaled(mut self, by: impl Fn(usize) -> f64) -> Self {
        let columns = self.columns();
        let scale = |values: &mut [f64]| {
            values.iter_mut().enumerate().for_each(|(at, x)| *x *= by(at % columns));
        };
        for term in &mut self.terms {
            scale(Arc::make_mut(&mut term.matrix).as_mut_slice());
        }
        scale(&mut self.bias.values);
        self
    }

    /// Repeats its single column.
    fn widened(self, columns: usize) -> Self {
        self.times(&vec![1.0; columns], columns)
    }

    /// self + sign·b; one column of b is repeated.
    pub(super) fn plus(
        mut self,
        b: &Self,
        sign: f64,
        op: &'static str,
        shapes: [Shape; 2],
    ) -> Result<Self, Fault> {
        let [left, right] = shapes;
        let columns = self.columns();
        let b = b.clone().scaled(|_| sign);
        let b = if b.columns() == 1 && columns > 1 { b.widened(columns) } else { b };
        if b.columns() != columns || b.pooled != self.pooled {
            return Err(Fault::Shape { op, left, right });
        }
        self.add_bias(&b.bias);
        for term in b.terms {
            match self.terms.iter_mut().find(|t| Arc::ptr_eq(&t.base, &term.base)) {
                Some(own) => Arc::make_mut(&mut own.matrix)
                    .iter_mut()
                    .zip(term.matrix.iter())
                    .for_each(|(x, y)| *x += y),
                None => self.terms.push(term),
            }
        }
        Ok(self)
    }

    /// Adds a bias of the same columns.
    pub(super) fn add_bias(&mut self, b: &Bias) {
        if self.bias.rows < b.rows {
            self.bias.values = self.bias.values.repeat(b.rows);
            self.bias.rows = b.rows;
        }
        let whole = self.bias.values.len();
        for (at, x) in self.bias.values.iter_mut().enumerate() {
            *x += b.values[if b.values.len() == whole { at } else { at % b.values.len() }];
        }
    }

    /// Summed over its rows.
    pub(super) fn summed(mut self, rows: usize) -> Self {
        let columns = self.columns();
        let repeat = if self.bias.rows == 1 { rows as f64 } else { 1.0 };
        let mut sum = vec![0.0; columns];
        for row in self.bias.values.chunks_exact(columns) {
            sum.iter_mut().zip(row).for_each(|(s, x)| *s += repeat * x);
        }
        self.bias = Bias { rows: 1, values: sum };
        self.pooled = true;
        self
    }

    /// With self = α·b + β column by column: α, and β as a bias.
    fn in_terms_of(&self, b: &Self) -> Option<(Vec<f64>, Bias)> {
        let columns = self.columns();
        let alike = columns == b.columns()
            && self.terms.len() == b.terms.len()
            && self.terms.iter().zip(&b.terms).all(|(x, y)| Arc::ptr_eq(&x.base, &y.base))
            && !self.pooled
            && !b.pooled;
        if !alike {
            return None;
        }
        let mut alpha = vec![0.0; columns];
        for (c, alpha) in alpha.iter_mut().enumerate() {
            let column = |a: &Self| -> Vec<f64> {
                let of = |t: &Term<C>| t.matrix.iter().skip(c).step_by(columns).copied().collect();
                a.terms.iter().flat_map(|t| -> Vec<f64> { of(t) }).collect()
            };
            let (x, y) = (column(self), column(b));
            let greatest = (0..y.len()).max_by(|&i, &j| y[i].abs().total_cmp(&y[j].abs()))?;
            *alpha = x[greatest] / y[greatest];
            let rest = x.iter().zip(&y).map(|(x, y)| (x - *alpha * y).abs()).fold(0.0, f64::max);
            let alike = alpha.abs() > 1e-6 && rest <= 1e-9 * x[greatest].abs();
            if !alike {
                return None;
            }
        }
        let rows = self.bias.rows.max(b.bias.rows);
        let mut beta = Bias { rows, values: vec![0.0; rows * columns] };
        for (at, x) in beta.values.iter_mut().enumerate() {
            let of = |bias: &Bias| bias.values[at % bias.values.len()];
            *x = of(&self.bias) - alpha[at % columns] * of(&b.bias);
        }
        Some((alpha, beta))
    }

    /// self·b as α·u² − γ, where both are images of one tensor, column by column: the square is
    /// completed, so that one of them is computed instead of two. None where u would be so much
    /// greater than b that precision suffered.
    pub(super) fn as_square(&self, b: &Self) -> Option<Square<C>> {
        let (factors, beta) = self.in_terms_of(b)?;
        let columns = factors.len();
        let half = |at: usize| beta.values[at] / (2.0 * factors[at % columns]);
        let each = 0..beta.values.len();
        if !each.clone().all(|at| half(at).abs() <= 16.0) {
            return None;
        }
        let of = |f: &dyn Fn(usize) -> f64| Bias {
            rows: beta.rows,
            values: each.clone().map(f).collect(),
        };
        let mut root = b.clone();
        root.add_bias(&of(&half));
        let offset = of(&|at| -factors[at % columns] * half(at).powi(2));
        Some(Square { root, factors, offset })
    }
}

/// factors·root² + offset.
pub(super) struct Square<C> {
    pub(super) root: Affine<C>,
    pub(super) factors: Vec<f64>,
    pub(super) offset: Bias,
}
