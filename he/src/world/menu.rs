//! What a configuration may ask of this world.

use undertone_core::attention::{Context, Heads, Kind, Variant};
use undertone_core::encoder::Activation;
use undertone_core::{Bound, Fault, Made, Menu, Num, Poly, Role};

use super::tensor::Value;
use super::{Ckks, Engine, Packed};

/// The polynomial operators of the core. Power-Softmax computes its queries scaled so that row
/// sums enter the reciprocal without a further level.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

impl<E: Engine + Sync> Menu<Ckks<E>> for Encrypted {
    fn check(kind: &Kind) -> Result<(), Fault> {
        <Poly as Menu<Ckks<E>>>::check(kind)
    }

    fn attend(
        w: &mut Ckks<E>,
        kind: &Kind,
        mut x: Heads<Ckks<E>>,
        at: &Context<'_>,
    ) -> Made<Ckks<E>> {
        if let Kind::Power { p, variant } = *kind {
            let eps = match variant {
                Variant::Lipschitz { eps } => eps,
                _ => Num::ZERO,
            };
            let domain = at.bound(Role::Denominator).offset(eps);
            if let (Some(wish), Value::Waiting(q)) =
                (w.query_factor(&x.q, domain, p), &mut x.q.value)
            {
                q.wish = wish;
            }
        }
        Poly::attend(w, kind, x, at)
    }

    fn activate(
        w: &mut Ckks<E>,
        activation: &Activation<Ckks<E>>,
        x: Packed<E::Ct>,
        domain: Bound,
        on: Bound,
    ) -> Made<Ckks<E>> {
        Poly::activate(w, activation, x, domain, on)
    }
}

impl<E: Engine + Sync> Ckks<E> {
    fn query_factor(&self, q: &Packed<E::Ct>, domain: Bound, exponent: u8) -> Option<f64> {
        let range = domain.range?;
        let reciprocal = self.accuracy.reciprocal(range.lo.to_f64(), range.hi.to_f64());
        Some(reciprocal.query_factor(&q.packing, exponent))
    }
}
