//! Attention, written once over the world traits.
//!
//! Every kind is a sum of weighted values over a denominator: an operator returns both
//! ([`Attended`]) and [`normalise`] divides last, once, after the product with V. Queries arrive
//! scaled by d^-1/2 (folded into the query projection when a model is loaded), so scores are
//! q·k plainly.
//!
//! | function | weight of key j | denominator | needs |
//! |---|---|---|---|
//! | [`softmax`] | exp(sⱼ − max s) | Σw | [`Compare`](crate::Compare) |
//! | [`power`] | sⱼᵖ, p even | ε + Σw | [`Approximate`] |
//! | [`relu_softmax`] | max(sⱼ, 0) | ε + Σw | [`Compare`](crate::Compare) |
//! | [`scaling`] | sⱼ | number of keys | [`Multiply`] |
//! | [`two_quad`] | (sⱼ + c)² | ε + Σw | [`Approximate`] |
//! | [`relu_squared`] | max(sⱼ, 0)² | number of keys | [`Compare`](crate::Compare) |
//! | [`uniform`] | 1 | number of keys | [`World`] |

mod kind;
mod linear;
mod polynomial;
mod softmax;

pub use kind::{Kind, Variant};
pub use linear::{scaling, uniform};
pub use polynomial::{power, power_stable, relu_softmax, relu_squared, two_quad};
pub use softmax::softmax;

use crate::{
    Approximate, Bound, Domains, Fault, Function, Made, Mask, Multiply, Role, Site, World,
};

/// The inputs of one attention call: heads in the batch, (b·h, n, d) each, queries scaled.
pub struct Heads<W: World> {
    /// Queries.
    pub q: W::Secret,
    /// Keys.
    pub k: W::Secret,
    /// Values.
    pub v: W::Secret,
}

/// Where an attention call stands in its model: its mask, its site and the calibrated ranges.
pub struct Context<'a> {
    /// Which keys a query may see.
    pub mask: Mask<'a>,
    /// The site of the call; its role is replaced as the operator goes along.
    pub site: Site,
    /// Calibrated ranges.
    pub domains: &'a dyn Domains,
}

impl Context<'_> {
    /// The bound of a role within this call.
    #[must_use]
    pub fn bound(&self, role: Role) -> Bound {
        self.domains.bound(self.site.role(role))
    }
}

/// Numerator and denominator of an attention.
pub struct Attended<W: World> {
    /// Σ w·v, (b·h, n, d).
    pub num: W::Secret,
    /// What it is to be divided by.
    pub den: Denominator<W>,
}

/// What a numerator is divided by.
pub enum Denominator<W: World> {
    /// The number of visible keys among so many: public.
    Count(usize),
    /// A secret row sum (b·h, n, 1), positive within its bound.
    Secret(W::Secret, Bound),
}

/// Divides a numerator by its denominator.
///
/// # Errors
/// Whatever the world reports.
pub fn normalise<W: Multiply + Approximate>(
    w: &mut W,
    attended: Attended<W>,
    at: &Context<'_>,
) -> Made<W> {
    let on = at.bound(Role::Context);
    match attended.den {
        Denominator::Count(keys) => w.divide_by_count(attended.num, &at.mask, keys, on),
        Denominator::Secret(sum, domain) => {
            let inverse = inverse_bound(domain);
            let reciprocal = w.map(sum, Function::Reciprocal, domain, inverse)?;
            w.mul(attended.num, &reciprocal, on)
        }
    }
}

/// The bound of 1/x where x lies in a positive bound.
fn inverse_bound(of: Bound) -> Bound {
    let range = of
        .range
        .filter(|r| !r.lo.is_negative() && !r.lo.is_zero())
        .map(|r| crate::Range::new(r.hi.inverse(), r.lo.inverse()));
    of.inner_range(range)
}

/// Checks that Q, K and V go together and that the mask fits.
fn check<W: World>(w: &W, x: &Heads<W>, mask: &Mask<'_>) -> Result<(), Fault> {
    let (q, k, v) = (w.shape(&x.q), w.shape(&x.k), w.shape(&x.v));
    if q.is_empty() || k.is_empty() || v.is_empty() {
        return Err(Fault::Empty { op: "attention", shape: if q.is_empty() { q } else { k } });
    }
    if q.batch != k.batch || q.cols != k.cols {
        return Err(Fault::Shape { op: "attention: queries and keys", left: q, right: k });
    }
    if k.batch != v.batch || k.rows != v.rows {
        return Err(Fault::Shape { op: "attention: keys and values", left: k, right: v });
    }
    let scores = q.with_cols(k.rows);
    if mask.fits(scores) {
        Ok(())
    } else {
        Err(Fault::Shape { op: "attention: mask", left: scores, right: scores })
    }
}
