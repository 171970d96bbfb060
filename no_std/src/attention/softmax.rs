use super::{Attended, Context, Denominator, Heads, check};
use crate::{Approximate, Axis, Bound, Compare, Form, Function, Multiply, Num, Range, Role};

/// Softmax attention (Vaswani et al. 2017, equation 1): weights exp(s − max s), denominator Σw.
///
/// Masked keys are taken out twice: before the maximum, so that they cannot dwarf the others, and
/// after the exponential, so that they weigh nothing.
///
/// # Errors
/// Shapes that do not go together, an unfitting mask, and whatever the world reports.
pub fn softmax<W: Multiply + Approximate + Compare>(
    w: &mut W,
    x: Heads<W>,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    check(w, &x, &at.mask)?;
    let scores = at.bound(Role::Scores);
    let s = w.matmul(&x.q, &x.k, Form::Nt, scores)?;
    let s = match (at.mask.is_none(), scores.range) {
        (true, _) => s,
        (false, Some(range)) => w.mask(s, &at.mask, range.lo)?,
        (false, None) => w.mask(s, &at.mask, const { Num::new(-1, 20) })?,
    };
    let max = w.max(&s)?;
    let shifted = shifted_bound(scores);
    let d = w.sub(s, &max, shifted)?;
    let e = w.map(d, Function::Exp, shifted, at.bound(Role::Weights))?;
    let e = w.mask(e, &at.mask, Num::ZERO)?;
    let den_bound = at.bound(Role::Denominator);
    let (num, den) = w.join(
        |w| w.matmul(&e, &x.v, Form::Nn, at.bound(Role::Numerator)),
        |w| w.sum(&e, Axis::Cols, den_bound),
    )?;
    Ok(Attended { num, den: Denominator::Secret(den, den_bound) })
}

/// The bound of s − max s: from minus the width of the scores' range to zero. Beyond −2⁵ an
/// exponential is under 2e-14, so a wider range would only cost precision.
fn shifted_bound(scores: Bound) -> Bound {
    let range = scores.range.map(|r| {
        let width = if r.ceil_log2() < 4 { r.ceil_log2() + 1 } else { 5 };
        Range::new(Num::new(-1, width), Num::ZERO)
    });
    scores.inner_range(range)
}
