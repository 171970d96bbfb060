//! Computing what waits: public matrices times ciphertexts.
//!
//! A matrix is applied by its diagonals in baby and giant steps (Halevi and Shoup 2014,
//! *Algorithms in HElib*), all terms and ciphertexts of an affine image together: they share the
//! giant steps, and images of one base share its baby steps. Giant steps go by Horner's rule, so
//! one key serves all of them. Each output costs one level; the mask that keeps other slots
//! empty and every public factor ride along in the diagonals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use rayon::prelude::*;
use undertone_core::{Fault, Made};

use super::tensor::{Affine, Base, Held, Term, Value};
use super::{Ckks, Engine, HeError, Layout, Packed, Packing};
use crate::ckks::{Automorphism, CkksError};

/// The baby steps of one ciphertext of a base, at the level of the product.
struct Source<'a, C> {
    term: usize,
    base: &'a Base<C>,
    index: usize,
    images: BTreeMap<usize, Arc<C>>,
    /// What the images' slots are to be multiplied by.
    factor: f64,
}

/// The diagonals of one ciphertext that matter for each group of output columns.
type Diagonals = Vec<BTreeSet<usize>>;
type Sources<'a, C> = Vec<(Source<'a, C>, Diagonals)>;

impl<E: Engine + Sync> Ckks<E> {
    /// Computes a tensor that waits, in sparse layout.
    ///
    /// # Errors
    /// Too few levels, missing keys, a layout that cannot be mapped linearly.
    pub fn settle(&self, x: Packed<E::Ct>) -> Made<Self> {
        let (shape, packing) = (x.shape, x.packing);
        let held = match x.value {
            Value::Held(held) => held,
            Value::Waiting(affine) => self.compute(&affine, &packing, Layout::Sparse)?,
        };
        Ok(Packed::held(shape, packing, held))
    }

    /// The ciphertexts of a tensor in one of the layouts that a linear layer can produce.
    pub(super) fn laid(
        &self,
        x: &Packed<E::Ct>,
        layout: Layout,
        op: &'static str,
    ) -> Result<Held<E::Ct>, HeError> {
        match &x.value {
            Value::Held(held) if held.layout == layout => Ok(held.clone()),
            // What repeats is also there once.
            Value::Held(held) if (held.layout, layout) == (Layout::Spread, Layout::Sparse) => {
                Ok(held.clone())
            }
            Value::Waiting(affine) => self.compute(affine, &x.packing, layout),
            Value::Held(_) => self.compute(&self.same(x).affine(op)?, &x.packing, layout),
        }
    }

    pub(super) fn compute(
        &self,
        a: &Affine<E::Ct>,
        p: &Packing,
        layout: Layout,
    ) -> Result<Held<E::Ct>, HeError> {
        let e = &self.engine;
        let columns = a.bias.values.len() / a.bias.rows;
        let direct = !a.pooled && a.terms.iter().all(|t| t.base.source(layout).is_some());
        let born = if direct { layout } else { Layout::Sparse };
        let groups = columns.div_ceil(p.features);
        let baby = 1usize << p.features.ilog2().div_ceil(2);

        let sources = self.sources(a, p, born, groups, baby)?;
        let giants = p.features.div_ceil(baby);
        let jobs: Vec<(usize, usize)> =
            (0..groups).flat_map(|g| (0..giants).map(move |k| (g, k))).collect();
        let inner = |&(group, giant): &(usize, usize)| {
            let mut sum: Option<E::Ct> = None;
            for (source, diagonals) in &sources {
                for &d in diagonals[group].range(giant * baby..(giant + 1) * baby) {
                    let slots = self.diagonal(a, p, born, source, group, d, giant * baby);
                    let term = e.mul_slots(&source.images[&(d - giant * baby)], &slots)?;
                    sum = Some(match sum {
                        None => term,
                        Some(sum) => e.add(&sum, &term)?,
                    });
                }
            }
            Ok::<_, CkksError>(sum)
        };
        let inner: Vec<Option<E::Ct>> = jobs.par_iter().map(inner).collect::<Result<_, _>>()?;
        let step = Automorphism::Rotate((baby * p.block()) as i64);
        let finish = |group: usize| -> Result<E::Ct, HeError> {
            let mut total: Option<E::Ct> = None;
            for sum in inner[group * giants..(group + 1) * giants].iter().rev() {
                let turned = match &total {
                    None => None,
                    Some(total) => Some(e.apply_each(total, &[step])?.swap_remove(0)),
                };
                total = match (turned, sum) {
                    (None, sum) => sum.clone(),
                    (turned, None) => turned,
                    (Some(turned), Some(sum)) => Some(e.add(&turned, sum)?),
                };
            }
            // A matrix of zeros would leave nothing to add the bias to.
            let op = "public product with a matrix of zeros";
            let empty = Fault::Parameter { what: op, got: 0 };
            let mut ct = e.rescale(&total.ok_or(empty)?)?;
            if a.pooled {
                ct = self.cyclic_sum(&ct, 1, p.tokens.next_power_of_two())?;
            }
            if a.bias.values.iter().any(|&x| x != 0.0) {
                let bias = p.fill(born, 0.0, |f, _, i| {
                    let c = group * p.features + p.column_of(f);
                    let row = if a.bias.rows == 1 { 0 } else { i };
                    if c < columns { a.bias.values[row * columns + c] / a.wish } else { 0.0 }
                });
                ct = e.add_slots(&ct, &bias)?;
            }
            Ok(if direct || layout == Layout::Sparse { ct } else { self.repeated(&ct, p, layout)? })
        };
        let cts = (0..groups).into_par_iter().map(finish).collect::<Result<_, _>>()?;
        Ok(Held { layout, factor: a.wish, cts })
    }

    /// Copies of what stands once in each block, with a period of the wanted layout.
    fn repeated(&self, ct: &E::Ct, p: &Packing, layout: Layout) -> Result<E::Ct, CkksError> {
        let (period, copies) = match layout {
            Layout::Rolling => (p.key_period, p.key_copies()),
            _ => (p.query_period, p.copies),
        };
        let each: Vec<_> =
            (1..copies).map(|r| Automorphism::Rotate(-((r * period) as i64))).collect();
        if each.is_empty() { Ok(ct.clone()) } else { self.engine.add_images(ct, &each) }
    }

    /// The baby steps that a product needs, from the bases' caches or computed into them.
    fn sources<'a>(
        &self,
        a: &'a Affine<E::Ct>,
        p: &Packing,
        born: Layout,
        groups: usize,
        baby: usize,
    ) -> Result<Sources<'a, E::Ct>, HeError> {
        let e = &self.engine;
        let of = |base: &'a Base<E::Ct>| {
            let found = Layout::Spread;
            base.source(born).ok_or(HeError::Layout { op: "linear layer", found, wanted: born })
        };
        let mut level = usize::MAX;
        for term in &a.terms {
            for ct in of(&term.base)?.1 {
                level = level.min(e.meta(ct).level);
            }
        }
        let mut sources = Vec::new();
        for (number, term) in a.terms.iter().enumerate() {
            let base = &*term.base;
            let (rolling, cts) = of(base)?;
            for (index, ct) in cts.iter().enumerate() {
                let diagonals = diagonals(a, p, number, index, groups);
                let wanted: BTreeSet<usize> =
                    diagonals.iter().flatten().map(|d| d % baby).collect();
                if wanted.is_empty() {
                    continue;
                }
                let (lowered, applied) = self.lower(ct, level, 1.0)?;
                let mut cache = base.cache.lock().unwrap_or_else(PoisonError::into_inner);
                let known = cache.entry((rolling, index, level)).or_default();
                let missing: Vec<usize> =
                    wanted.iter().copied().filter(|b| *b > 0 && !known.contains_key(b)).collect();
                if !missing.is_empty() {
                    let each: Vec<_> = missing
                        .iter()
                        .map(|b| Automorphism::Rotate((b * p.block()) as i64))
                        .collect();
                    let images = e.apply_each(&lowered, &each)?.into_iter().map(Arc::new);
                    known.extend(missing.into_iter().zip(images));
                }
                let mut images: BTreeMap<usize, Arc<E::Ct>> =
                    wanted.iter().filter_map(|b| Some((*b, known.get(b)?.clone()))).collect();
                images.insert(0, Arc::new(lowered));
                let factor = base.factor / applied;
                sources.push((Source { term: number, base, index, images, factor }, diagonals));
            }
        }
        Ok(sources)
    }

    /// The slots to multiply baby step d mod baby by, before the giant step.
    fn diagonal(
        &self,
        a: &Affine<E::Ct>,
        p: &Packing,
        born: Layout,
        source: &Source<'_, E::Ct>,
        group: usize,
        d: usize,
        giant: usize,
    ) -> Vec<f64> {
        let columns = a.bias.values.len() / a.bias.rows;
        let matrix = &a.terms[source.term].matrix;
        let factor = source.factor / a.wish;
        let width = p.features;
        let each: Vec<f64> = (0..width)
            .map(|block| {
                let (from, to) = ((block + d - giant) % width, (block + width - giant) % width);
                let out = group * width + p.column_of(to);
                match source.base.column(p, source.index, from, to) {
                    Some(c) if out < columns => factor * matrix[c * columns + out],
                    _ => 0.0,
                }
            })
            .collect();
        p.fill(born, 0.0, |f, _, _| each[f])
    }
}

/// Which diagonals of a ciphertext's part of the matrix are not zero, for each output ciphertext.
fn diagonals<C>(a: &Affine<C>, p: &Packing, term: usize, index: usize, groups: usize) -> Diagonals {
    let columns = a.bias.values.len() / a.bias.rows;
    let Term { base, matrix } = &a.terms[term];
    let mut out = vec![BTreeSet::new(); groups];
    for to in 0..p.features {
        for from in 0..p.features {
            let Some(c) = base.column(p, index, from, to) else { continue };
            for (group, set) in out.iter_mut().enumerate() {
                let column = group * p.features + p.column_of(to);
                if column < columns && matrix[c * columns + column] != 0.0 {
                    set.insert((from + p.features - to) % p.features);
                }
            }
        }
    }
    out
}
