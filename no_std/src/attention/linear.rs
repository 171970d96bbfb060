use super::{Attended, Context, Denominator, Heads, check};
use crate::{Axis, Form, Multiply, Num, Role, World};

/// Scaling attention (MPCViT, section 3): weights s, divided by the number of keys. Without a
/// causal mask it is reordered to Q·(KᵀV), linear in the number of tokens.
///
/// # Errors
/// Shapes that do not go together, and whatever the world reports.
pub fn scaling<W: Multiply>(
    w: &mut W,
    x: Heads<W>,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    check(w, &x, &at.mask)?;
    let keys = w.shape(&x.k).rows;
    let num = if at.mask.is_none() {
        let kv = w.matmul(&x.k, &x.v, Form::Tn, at.bound(Role::Weights))?;
        w.matmul(&x.q, &kv, Form::Nn, at.bound(Role::Numerator))?
    } else {
        let s = w.matmul(&x.q, &x.k, Form::Nt, at.bound(Role::Scores))?;
        let s = w.mask(s, &at.mask, Num::ZERO)?;
        w.matmul(&s, &x.v, Form::Nn, at.bound(Role::Numerator))?
    };
    Ok(Attended { num, den: Denominator::Count(keys) })
}

/// The mean of the values, for every query: the control without which no accuracy claim about an
/// attention means anything. Masks are not offered.
///
/// # Errors
/// A mask, shapes that do not go together, and whatever the world reports.
pub fn uniform<W: World>(
    w: &mut W,
    x: Heads<W>,
    at: &Context<'_>,
) -> Result<Attended<W>, W::Error> {
    check(w, &x, &at.mask)?;
    if !at.mask.is_none() {
        return Err(crate::Fault::Unsupported(crate::Unsupported {
            operator: "uniform attention with a mask",
            needs: "an unmasked sequence",
            world: W::NAME,
            instead: "sequences of equal length",
        })
        .into());
    }
    let (n, keys) = (w.shape(&x.q).rows, w.shape(&x.k).rows);
    let sum = w.sum(&x.v, Axis::Rows, at.bound(Role::Numerator))?;
    let num = w.repeat_rows(&sum, n)?;
    Ok(Attended { num, den: Denominator::Count(keys) })
}
