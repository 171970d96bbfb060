use super::{Attended, Context, Denominator, Heads, Variant, check};
use crate::{
    Approximate, Axis, Bound, Compare, Fault, Form, Function, Made, Mask, Multiply, Num, Range,
    Role, World,
};

/// Power-Softmax (arXiv 2410.09457): weights sᵖ for an even p, masks multiplicative.
///
/// # Errors
/// An odd exponent, the stable variant (it compares: [`power_stable`]), shapes that do not go
/// together, and whatever the world reports.
pub fn power<W: Multiply + Approximate>(
    w: &mut W,
    x: Heads<W>,
    p: u8,
    variant: Variant,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    super::Kind::Power { p, variant }.check()?;
    let eps = match variant {
        Variant::Plain => Num::ZERO,
        Variant::Lipschitz { eps } | Variant::LengthAgnostic { eps } => eps,
        Variant::Stable { .. } => {
            return Err(Fault::Unsupported(crate::Unsupported {
                operator: "stable Power-Softmax",
                needs: "comparisons",
                world: W::NAME,
                instead: "the Lipschitz variant",
            })
            .into());
        }
    };
    let s = scores(w, &x, at)?;
    let keys = w.shape(&s).cols;
    let weights = raise(w, s, p, at.bound(Role::Scores), at.bound(Role::Weights))?;
    if let Variant::LengthAgnostic { .. } = variant {
        let weights = w.mask(weights, &at.mask, Num::ZERO)?;
        let den_bound = at.bound(Role::Denominator);
        let num_bound = at.bound(Role::Numerator);
        let (num, den) = sums(w, &weights, &x.v, num_bound.inner(), den_bound.inner())?;
        let num = w.divide_by_count(num, &at.mask, keys, num_bound)?;
        let den = w.divide_by_count(den, &at.mask, keys, den_bound)?;
        let domain = den_bound.offset(eps);
        let den = w.offset(den, eps, domain.inner_range(domain.range))?;
        Ok(Attended { num, den: Denominator::Secret(den, domain) })
    } else {
        over_row_sum(w, weights, &x.v, eps, at)
    }
}

/// Power-Softmax in its stable variant: s/(‖s‖∞ + δ) raised to p. Needs comparisons, so it is for
/// training and for worlds that have them.
///
/// # Errors
/// As [`power`].
pub fn power_stable<W: Multiply + Approximate + Compare>(
    w: &mut W,
    x: Heads<W>,
    p: u8,
    delta: Num,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    super::Kind::Power { p, variant: Variant::Stable { delta } }.check()?;
    let bound = at.bound(Role::Scores);
    let s = scores(w, &x, at)?;
    let s = w.mask(s, &at.mask, Num::ZERO)?;
    let plus = w.copy(&s)?;
    let plus = w.relu(plus, bound.inner())?;
    let minus = w.copy(&s)?;
    let minus = w.scale(minus, Num::int(-1), bound.inner())?;
    let minus = w.relu(minus, bound.inner())?;
    // |s| = max(s, 0) + max(−s, 0)
    let magnitude = w.add(plus, &minus, bound.inner())?;
    let norm = w.max(&magnitude)?;

    let range = |r: Range| Range::new(delta, Num::new(1, r.ceil_log2()).plus(delta));
    let norm_bound = bound.inner_range(bound.range.map(range));
    let inverse =
        w.map(norm, Function::Reciprocal, norm_bound, super::inverse_bound(norm_bound))?;
    let unit = bound.inner_range(Some(Range::new(Num::int(-1), Num::ONE)));
    let s = w.mul(s, &inverse, unit)?;
    let weights = raise(w, s, p, unit, at.bound(Role::Weights))?;
    over_row_sum(w, weights, &x.v, Num::ZERO, at)
}

/// ReLU-softmax (MPCViT, section 3): weights max(s, 0), denominator ε + Σw.
///
/// # Errors
/// Shapes that do not go together, and whatever the world reports.
pub fn relu_softmax<W: Multiply + Approximate + Compare>(
    w: &mut W,
    x: Heads<W>,
    eps: Num,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    let s = scores(w, &x, at)?;
    let weights = w.relu(s, at.bound(Role::Weights))?;
    over_row_sum(w, weights, &x.v, eps, at)
}

/// 2Quad (MPCFormer, section 3.2): weights (s + c)², denominator ε + Σw. MPCViT's code has c = 0.
///
/// # Errors
/// Shapes that do not go together, and whatever the world reports.
pub fn two_quad<W: Multiply + Approximate>(
    w: &mut W,
    x: Heads<W>,
    c: Num,
    eps: Num,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    let s = scores(w, &x, at)?;
    let shifted = at.bound(Role::Scores).offset(c);
    let s = if c.is_zero() { s } else { w.offset(s, c, shifted.inner_range(shifted.range))? };
    let weights = w.square(s, at.bound(Role::Weights))?;
    over_row_sum(w, weights, &x.v, eps, at)
}

/// max(s, 0)²/n (MPCViT's search space; no secret denominator).
///
/// # Errors
/// Shapes that do not go together, and whatever the world reports.
pub fn relu_squared<W: Multiply + Compare>(
    w: &mut W,
    x: Heads<W>,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    let s = scores(w, &x, at)?;
    let keys = w.shape(&s).cols;
    let s = w.relu(s, at.bound(Role::Scores).inner())?;
    let weights = w.square(s, at.bound(Role::Weights))?;
    let weights = w.mask(weights, &at.mask, Num::ZERO)?;
    let num = w.matmul(&weights, &x.v, Form::Nn, at.bound(Role::Numerator))?;
    Ok(Attended { num, den: Denominator::Count(keys) })
}

fn scores<W: Multiply>(w: &mut W, x: &Heads<W>, at: &Context<'_>) -> Made<W> {
    check(w, x, &at.mask)?;
    w.matmul(&x.q, &x.k, Form::Nt, at.bound(Role::Scores))
}

/// Weights masked, then numerator and ε + row sum.
fn over_row_sum<W: Multiply>(
    w: &mut W,
    weights: W::Secret,
    v: &W::Secret,
    eps: Num,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    let weights =
        if at.mask == Mask::NONE { weights } else { w.mask(weights, &at.mask, Num::ZERO)? };
    let den_bound = at.bound(Role::Denominator);
    let (num, den) = sums(w, &weights, v, at.bound(Role::Numerator), den_bound)?;
    let domain = den_bound.offset(eps);
    let den =
        if eps.is_zero() { den } else { w.offset(den, eps, domain.inner_range(domain.range))? };
    Ok(Attended { num, den: Denominator::Secret(den, domain) })
}

fn sums<W: Multiply>(
    w: &mut W,
    weights: &W::Secret,
    v: &W::Secret,
    num: Bound,
    den: Bound,
) -> Result<(W::Secret, W::Secret), W::Error> {
    w.join(
        |w| w.matmul(weights, v, Form::Nn, num),
        |w: &mut W| World::sum(w, weights, Axis::Cols, den),
    )
}

/// sᵖ for an even p by squarings and at most one product a bit of p/2.
fn raise<W: Multiply>(w: &mut W, s: W::Secret, p: u8, domain: Bound, on: Bound) -> Made<W> {
    let power_bound = |e: u8| {
        let range = |r: Range| {
            Range::new(Num::ZERO, Num::new(1, r.ceil_log2().saturating_mul(i16::from(e))))
        };
        domain.inner_range(domain.range.map(range))
    };
    let bound = |e: u8| if e == p { on } else { power_bound(e) };
    let half = p / 2;
    let mut square = w.square(s, bound(2))?;
    let mut exponent = 2u8;
    let mut result: Option<(W::Secret, u8)> = None;
    let mut bits = half;
    loop {
        if bits & 1 == 1 {
            result = Some(match result {
                None if bits == 1 => return Ok(square),
                None => (w.copy(&square)?, exponent),
                Some((r, e)) => (w.mul(r, &square, bound(e + exponent))?, e + exponent),
            });
        }
        bits >>= 1;
        if bits == 0 {
            break;
        }
        exponent *= 2;
        square = w.square(square, bound(exponent))?;
    }
    match result {
        Some((r, _)) => Ok(r),
        // `half` is at least 1, so a bit was set.
        None => {
            Err(Fault::Parameter { what: "exponent of power attention", got: i64::from(p) }.into())
        }
    }
}
