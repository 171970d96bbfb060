//! Base conversion: from residues modulo some primes of the chain to residues modulo the others
//! (Halevi, Polyakov, Shoup 2018, *An Improved RNS Variant of the BFV Scheme*, eq. 3).
//!
//! With D = Πqᵢ over the sources and yᵢ = xᵢ·(D/qᵢ)⁻¹ mod qᵢ, the centred value is
//! x = Σ yᵢ·(D/qᵢ) − v·D with v = round(Σ yᵢ/qᵢ), exactly. The last term is one more source row
//! with the factor −D.

use super::arith::{Modulus, Shoup};
use super::buffer::Rows;
use super::context::Context;
use super::kernels::{Convert, ModDown, Sources};

/// The constants of one conversion.
pub(crate) struct BaseConversion {
    /// Source primes, by index in the chain.
    pub(crate) sources: Vec<usize>,
    /// (D/qᵢ)⁻¹·N⁻¹ mod qᵢ: the inverse transform leaves a factor N.
    y: Vec<Shoup>,
    reciprocals: Vec<(u32, u64)>,
    /// For each prime of the chain: (D/qᵢ) for every source, then −D, in Montgomery form.
    targets: Vec<Vec<u64>>,
    /// D⁻¹ modulo each prime that is not a source.
    inverses: Vec<Shoup>,
}

/// Source rows of a conversion: one yᵢ for each source, then v.
pub(crate) struct Prepared {
    rows: Rows,
}

impl BaseConversion {
    pub(crate) fn new(moduli: &[Modulus], n: usize, sources: &[usize]) -> Self {
        let without = |i: usize, m: &Modulus| {
            sources
                .iter()
                .filter(|&&j| j != i)
                .fold(1, |product, &j| m.mul(product, moduli[j].p % m.p))
        };
        let y = sources
            .iter()
            .map(|&i| {
                let m = &moduli[i];
                m.shoup(m.inv(m.mul(without(i, m), n as u64)))
            })
            .collect();
        let reciprocals = sources
            .iter()
            .map(|&i| {
                let q = moduli[i].p;
                let bits = q.ilog2() + 1;
                (bits - 32, ((1u128 << (bits + 31)) / q as u128) as u64)
            })
            .collect();
        let targets = moduli
            .iter()
            .map(|m| {
                let minus_d = m.p - without(usize::MAX, m) % m.p;
                sources
                    .iter()
                    .map(|&i| m.to_montgomery(without(i, m)))
                    .chain([m.to_montgomery(minus_d)])
                    .collect()
            })
            .collect();
        let inverses = moduli
            .iter()
            .map(|m| match without(usize::MAX, m) {
                0 => Shoup::default(),
                d => m.shoup(m.inv(d)),
            })
            .collect();
        Self { sources: sources.to_vec(), y, reciprocals, targets, inverses }
    }

    /// Takes the source rows (in the transformed domain, one for each source) to y and v.
    pub(crate) fn prepare<'a>(
        &self,
        ctx: &Context,
        source_rows: impl Iterator<Item = &'a [u64]>,
    ) -> Prepared {
        let mut rows = Rows::scratch(ctx.n(), self.sources.len() + 1);
        let mut ys: Vec<&mut [u64]> = rows.rows_mut().collect();
        // The last row is computed from the others.
        if let Some(v) = ys.pop() {
            for ((y, row), &prime) in ys.iter_mut().zip(source_rows).zip(&self.sources) {
                y.copy_from_slice(row);
                ctx.inverse_scaled(prime, y);
            }
            let moduli: Vec<&Modulus> = self.sources.iter().map(|&i| ctx.modulus(i)).collect();
            let (by, reciprocals) = (&self.y, &self.reciprocals);
            ctx.backend.run(Sources { v, ys: &mut ys, by, reciprocals, moduli: &moduli });
        }
        Prepared { rows }
    }

    /// The converted value modulo one prime, transformed.
    pub(crate) fn target(&self, ctx: &Context, from: &Prepared, prime: usize, dst: &mut [u64]) {
        let ys: Vec<&[u64]> = from.rows.rows().collect();
        ctx.backend.run(Convert { dst, ys: &ys, cs: &self.targets[prime], m: ctx.modulus(prime) });
        ctx.forward(prime, dst);
    }

    /// dst = (acc − converted)/D modulo one prime: the rounded quotient by D.
    pub(crate) fn divide(
        &self,
        ctx: &Context,
        from: &Prepared,
        prime: usize,
        acc: &[u64],
        scratch: &mut [u64],
        dst: &mut [u64],
    ) {
        self.target(ctx, from, prime, scratch);
        let (by, m) = (self.inverses[prime], ctx.modulus(prime));
        ctx.backend.run(ModDown { dst, acc, part: scratch, by, m });
    }
}
