//! Menus: which operators a run-time configuration may ask of a world, and in which form.
//!
//! A configuration is data; what a world can do is a type. A menu is where both meet: it knows at
//! compile time what its world offers and answers at run time. Worlds with fused forms (online
//! softmax in fixed point, say) bring a menu of their own and fall back to these.

use crate::attention::{self, Context, Heads, Kind, Variant};
use crate::encoder::{Activation, Norm};
use crate::{
    Approximate, Axis, Bound, Compare, Fault, Function, Made, Multiply, Num, Range, Unsupported,
};

/// The operators that a configuration may ask for.
pub trait Menu<W: Multiply + Approximate> {
    /// Whether the kind is offered; asked when a model is loaded.
    ///
    /// # Errors
    /// What the kind needs and what runs instead; bad constants.
    fn check(kind: &Kind) -> Result<(), Fault>;

    /// Attention of one kind for all heads of the batch: normalised output (b·h, n, d).
    ///
    /// # Errors
    /// An operator that is not offered, shapes that do not go together, the world's errors.
    fn attend(w: &mut W, kind: &Kind, x: Heads<W>, at: &Context<'_>) -> Made<W>;

    /// The activation of a feed-forward block.
    ///
    /// # Errors
    /// An activation that is not offered, the world's errors.
    fn activate(
        w: &mut W,
        activation: &Activation<W>,
        x: W::Secret,
        domain: Bound,
        on: Bound,
    ) -> Made<W>;

    /// Layer norm or affine norm of each row.
    ///
    /// # Errors
    /// The world's errors.
    fn normalise(w: &mut W, norm: &Norm<W>, x: &W::Secret, variance: Bound, on: Bound) -> Made<W> {
        norm_rows(w, norm, x, variance, on)
    }
}

/// What runs with products and approximations: everything polynomial.
#[derive(Clone, Copy, Debug)]
pub struct Poly;

impl<W: Multiply + Approximate> Menu<W> for Poly {
    fn check(kind: &Kind) -> Result<(), Fault> {
        kind.check()?;
        match kind {
            Kind::Softmax | Kind::ReluSoftmax { .. } | Kind::ReluSquared | Kind::Bivit { .. } => {
                Err(unsupported::<W>(kind))
            }
            Kind::Power { variant: Variant::Stable { .. }, .. } => Err(unsupported::<W>(kind)),
            _ => Ok(()),
        }
    }

    fn attend(w: &mut W, kind: &Kind, x: Heads<W>, at: &Context<'_>) -> Made<W> {
        let attended = match *kind {
            Kind::Power { p, variant } => attention::power(w, x, p, variant, at)?,
            Kind::Scaling => attention::scaling(w, x, at)?,
            Kind::TwoQuad { c, eps } => attention::two_quad(w, x, c, eps, at)?,
            Kind::Uniform => attention::uniform(w, x, at)?,
            Kind::Softmax | Kind::ReluSoftmax { .. } | Kind::ReluSquared | Kind::Bivit { .. } => {
                return Err(unsupported::<W>(kind).into());
            }
        };
        attention::normalise(w, attended, at)
    }

    fn activate(
        w: &mut W,
        activation: &Activation<W>,
        x: W::Secret,
        domain: Bound,
        on: Bound,
    ) -> Made<W> {
        match activation {
            Activation::Identity => Ok(x),
            Activation::Map(f) => w.map(x, *f, domain, on),
            Activation::Quadratic { a, b } => {
                // a·x² + b·x = (a·x + b)·x: one product of secrets.
                let scaled = w.copy(&x)?;
                let scaled = w.mul_public(scaled, a, on.inner())?;
                let inner = w.add_public(scaled, b, on.inner())?;
                w.mul(inner, &x, on)
            }
            Activation::Relu => Err(Fault::Unsupported(Unsupported {
                operator: "ReLU",
                needs: "comparisons",
                world: W::NAME,
                instead: "a quadratic activation or GELU",
            })
            .into()),
        }
    }
}

/// What runs where comparisons run too: every operator of the core.
#[derive(Clone, Copy, Debug)]
pub struct Full;

impl<W: Multiply + Approximate + Compare> Menu<W> for Full {
    fn check(kind: &Kind) -> Result<(), Fault> {
        kind.check()?;
        match kind {
            Kind::Bivit { .. } => Err(unsupported::<W>(kind)),
            _ => Ok(()),
        }
    }

    fn attend(w: &mut W, kind: &Kind, x: Heads<W>, at: &Context<'_>) -> Made<W> {
        let attended = match *kind {
            Kind::Softmax => attention::softmax(w, x, at)?,
            Kind::ReluSoftmax { eps } => attention::relu_softmax(w, x, eps, at)?,
            Kind::ReluSquared => attention::relu_squared(w, x, at)?,
            Kind::Power { p, variant: Variant::Stable { delta } } => {
                attention::power_stable(w, x, p, delta, at)?
            }
            _ => return Poly::attend(w, kind, x, at),
        };
        attention::normalise(w, attended, at)
    }

    fn activate(
        w: &mut W,
        activation: &Activation<W>,
        x: W::Secret,
        domain: Bound,
        on: Bound,
    ) -> Made<W> {
        match activation {
            Activation::Relu => w.relu(x, on),
            _ => Poly::activate(w, activation, x, domain, on),
        }
    }
}

fn unsupported<W: Multiply>(kind: &Kind) -> Fault {
    Fault::Unsupported(Unsupported {
        operator: kind.name(),
        needs: if matches!(kind, Kind::Bivit { .. }) { "packed signs" } else { "comparisons" },
        world: W::NAME,
        instead: "power attention",
    })
}

/// LayerNorm (Ba et al. 2016) as a composition, or the affine norm.
fn norm_rows<W: Multiply + Approximate>(
    w: &mut W,
    norm: &Norm<W>,
    x: &W::Secret,
    variance: Bound,
    on: Bound,
) -> Made<W> {
    match norm {
        Norm::Affine { gain, bias } => {
            let y = w.copy(x)?;
            let y = w.mul_public(y, gain, on.inner())?;
            w.add_public(y, bias, on)
        }
        Norm::Layer { gain, bias, eps } => {
            let cols = w.shape(x).cols;
            let inverse = Num::int(cols as i64).inverse();
            // |mean| ≤ the greatest magnitude of x, whose format the world knows.
            let like_x = variance.inner();
            let total = w.sum(x, Axis::Cols, like_x)?;
            let mean = w.scale(total, inverse, like_x)?;
            let centred = w.copy(x)?;
            let centred = w.sub(centred, &mean, like_x)?;
            let square = w.copy(&centred)?;
            let square = w.square(square, like_x)?;
            let total = w.sum(&square, Axis::Cols, like_x)?;
            let var = w.scale(total, inverse, variance)?;
            let domain = variance.offset(*eps);
            let var = w.offset(var, *eps, domain.inner_range(domain.range))?;
            let root = w.map(var, Function::Rsqrt, domain, rsqrt_bound(domain))?;
            let y = w.mul(centred, &root, on.inner())?;
            let y = w.mul_public(y, gain, on.inner())?;
            w.add_public(y, bias, on)
        }
    }
}

/// An upper bound of x^-1/2 where x lies in a positive bound, as a power of two.
fn rsqrt_bound(of: Bound) -> Bound {
    let range = of.range.filter(|r| !r.lo.is_negative() && !r.lo.is_zero()).map(|r| {
        // x ≥ 2^(e-1) gives x^-1/2 ≤ 2^((1-e)/2), rounded up.
        let e = r.lo.ceil_log2() - 1;
        Range::new(Num::ZERO, Num::new(1, (1 - e).div_euclid(2) + 1))
    });
    of.inner_range(range)
}
