//! What each protocol costs, as a formula of its shape, written apart from the protocols.
//!
//! The tests hold formula, plan and counted run equal at random shapes, and the table in
//! `docs/mpc.md` is printed from here. `n` counts elements; `bits` is the modulus and `scale` the
//! fraction bits of the argument; `fraction` those of a settled value. Bytes are one party's; both
//! send alike. Preprocessing is that of client and server.

use super::truncate::wrap_bits;
use super::{Series, Tables};
use crate::cost::Cost;
use crate::preprocess::{comparison_len, point_len, relation_len};
use crate::ring::{Product, packed_len};
use undertone_core::Function;

/// One exchange in which tensors of these elements and bits are opened.
#[must_use]
pub fn open(tensors: &[(usize, u32)]) -> Cost {
    let sent: usize = tensors.iter().map(|&(n, bits)| packed_len(n, bits)).sum();
    Cost { exchanges: 1, depth: 1, sent: [sent as u64; 2], ..Cost::default() }
}

/// `count` relations of `n` results of `bits` bits.
fn relations(count: usize, n: usize, bits: u32) -> Cost {
    let [client, server] = relation_len(n, bits);
    stored([client * count as u64, server * count as u64])
}

fn stored(preprocessing: [u64; 2]) -> Cost {
    Cost { preprocessing, ..Cost::default() }
}

fn in_turn(parts: impl IntoIterator<Item = Cost>) -> Cost {
    parts.into_iter().fold(Cost::default(), Cost::then)
}

/// A tensor that one party brings: it alone sends.
#[must_use]
pub fn input(owner: usize, n: usize) -> Cost {
    let mut sent = [0; 2];
    sent[owner] = 8 * n as u64;
    Cost { exchanges: 1, depth: 1, sent, ..Cost::default() }
}

/// A result shown to one party: the other sends.
#[must_use]
pub fn reveal(to: usize, n: usize, bits: u32) -> Cost {
    let mut sent = [0; 2];
    sent[1 - to] = packed_len(n, bits) as u64;
    Cost { exchanges: 1, depth: 1, sent, ..Cost::default() }
}

/// An elementwise product of open tensors.
#[must_use]
pub fn mul(n: usize, bits: u32) -> Cost {
    relations(1, n, bits)
}

/// A matrix product of open tensors.
#[must_use]
pub fn matmul(of: &Product, bits: u32) -> Cost {
    relations(1, of.len(), bits)
}

/// [`Mpc::settle`](crate::Mpc::settle)
#[must_use]
pub fn settle(n: usize, bits: u32, scale: u32, fraction: u32) -> Cost {
    settle_all(&[(n, bits, scale.saturating_sub(fraction))])
}

/// Tensors of (elements, modulus, bits to drop), settled in one exchange.
fn settle_all(tensors: &[(usize, u32, u32)]) -> Cost {
    let sent: Vec<(usize, u32)> = tensors.iter().map(|t| (t.0, 1)).collect();
    let dealt = tensors.iter().map(|&(n, bits, k)| relations(1, n, wrap_bits(bits, k)));
    in_turn(dealt).then(open(&sent))
}

/// [`Mpc::reduce`](crate::Mpc::reduce)
#[must_use]
pub fn reduce(n: usize, bits: u32, by: u32) -> Cost {
    relations(1, n, bits - by)
}

/// [`Mpc::floor`](crate::Mpc::floor)
#[must_use]
pub fn floor(n: usize, bits: u32, by: u32) -> Cost {
    in_turn([
        open(&[(n, bits)]),
        stored(comparison_len(n, by.max(1))),
        open(&[(n, 1)]),
        relations(2, n, 64),
        relations(1, n, wrap_bits(bits, by)),
    ])
}

/// Comparisons of an open tensor with any number of thresholds.
fn at_least(n: usize, bits: u32) -> Cost {
    stored(comparison_len(n, bits - 1)).then(relations(1, n, 1))
}

/// [`Mpc::is_nonnegative`](crate::Mpc::is_nonnegative)
#[must_use]
pub fn is_nonnegative(n: usize, bits: u32) -> Cost {
    open(&[(n, bits)]).then(at_least(n, bits))
}

/// [`Mpc::relu`](crate::Mpc::relu)
#[must_use]
pub fn relu(n: usize, bits: u32) -> Cost {
    in_turn([is_nonnegative(n, bits), open(&[(n, 1)]), relations(2, n, bits)])
}

/// The pairs of each level of a tree over `cols` columns.
fn levels(cols: usize) -> impl Iterator<Item = usize> {
    let mut left = cols;
    std::iter::from_fn(move || {
        let pairs = left / 2;
        left -= pairs;
        (pairs > 0).then_some(pairs)
    })
}

/// [`Mpc::max_rows`](crate::Mpc::max_rows)
#[must_use]
pub fn max_rows(rows: usize, cols: usize, bits: u32) -> Cost {
    in_turn(levels(cols).map(|pairs| relu(rows * pairs, bits)))
}

/// [`Mpc::argmax_rows`](crate::Mpc::argmax_rows)
#[must_use]
pub fn argmax_rows(rows: usize, cols: usize, bits: u32) -> Cost {
    in_turn(levels(cols).map(|pairs| {
        let n = rows * pairs;
        in_turn([
            open(&[(n, bits), (n, 16)]),
            at_least(n, bits),
            open(&[(n, 1)]),
            relations(2, n, bits),
            relations(2, n, 16),
        ])
    }))
}

/// [`Mpc::exp`](crate::Mpc::exp)
#[must_use]
pub fn exp(n: usize, bits: u32, scale: u32) -> Cost {
    in_turn([
        is_nonnegative(n, bits),
        stored(comparison_len(n, scale + 4)),
        open(&[(n, 1), (n, 1)]),
        relations(8, n, 64),
    ])
}

/// [`Mpc::apply`](crate::Mpc::apply)
#[must_use]
pub fn apply(n: usize, bits: u32, scale: u32, f: &Series) -> Cost {
    let modulus = if f.right.0 { 64.min(bits + 42u32.saturating_sub(scale)) } else { 64 };
    let tail = if f.right.0 { relations(2, n, bits) } else { relations(1, n, 64) };
    in_turn([
        is_nonnegative(n, bits),
        open(&[(n, 1), (n, 1)]),
        relations(1 + 4 * f.harmonics.len(), n, modulus),
        tail,
    ])
}

/// [`Mpc::look_up`](crate::Mpc::look_up)
#[must_use]
pub fn look_up(n: usize, t: &Tables) -> Cost {
    let keys = t.parts.iter().map(|part| stored(point_len(n, part.bits)));
    let steps = t.thresholds.len();
    let choice = if steps == 0 {
        Cost::default()
    } else {
        let mut opened = vec![(n, 1); steps];
        opened.extend(vec![(n, 64); 3 * steps]);
        in_turn([at_least(n, t.window), open(&opened), relations(6 * steps, n, 64)])
    };
    in_turn([
        open(&[(n, t.window)]),
        in_turn(keys),
        choice,
        open(&[(n, 64), (n, 64)]),
        relations(1, n, 64),
    ])
}

/// [`Mpc::inverse`](crate::Mpc::inverse) of a settled argument, and the fraction bits of its
/// result. `None` where it has no protocol.
#[must_use]
pub fn inverse(
    n: usize,
    f: Function,
    domain: (f64, f64),
    tolerance: f64,
    fraction: u32,
) -> Option<(Cost, u32)> {
    let tables = Tables::of(f, domain, tolerance, fraction).ok()?;
    Some((look_up(n, &tables), tables.scale()))
}

fn divide_rows(
    (rows, cols): (usize, usize),
    domain: (f64, f64),
    bits: u32,
    fraction: u32,
) -> Option<Cost> {
    let n = rows * cols;
    let tolerance = super::softmax::TOLERANCE;
    let (cost, scale) = inverse(rows, Function::Reciprocal, domain, tolerance, fraction)?;
    let drop = scale - fraction;
    let direct = 64 >= 2 * fraction + 3 + drop;
    let modulus = if direct { bits.min(64 - drop) } else { bits };
    let early = if direct { reduce(rows, 64, drop) } else { settle(rows, 64, scale, fraction) };
    let early = if direct && drop == 0 { Cost::default() } else { early };
    Some(in_turn([
        cost,
        early,
        open(&[(n, bits), (rows, 64)]),
        mul(n, modulus),
        settle(n, modulus, 2 * fraction, fraction),
    ]))
}

/// [`Mpc::softmax`](crate::Mpc::softmax) of settled rows.
#[must_use]
pub fn softmax(rows: usize, cols: usize, range: u32, fraction: u32) -> Option<Cost> {
    let n = rows * cols;
    let bits = (fraction + range + 3).max(fraction + 6);
    Some(in_turn([
        max_rows(rows, cols, bits),
        exp(n, bits, fraction),
        settle(n, 64, super::exponential::result_scale(super::softmax::SLACK), fraction),
        divide_rows((rows, cols), (0.9, cols as f64 * 1.01), 64, fraction)?,
    ]))
}

/// [`Mpc::relu_softmax`](crate::Mpc::relu_softmax) of settled rows.
#[must_use]
pub fn relu_softmax(rows: usize, cols: usize, range: u32, eps: f64, fraction: u32) -> Option<Cost> {
    let hi = libm::exp2(f64::from(range)) * cols as f64;
    let lo = libm::exp2(-f64::from(fraction)).max(eps);
    Some(relu(rows * cols, 64).then(divide_rows((rows, cols), (lo, hi), 64, fraction)?))
}

/// [`Mpc::two_quad`](crate::Mpc::two_quad) of settled rows.
#[must_use]
pub fn two_quad(rows: usize, cols: usize, range: u32, eps: f64, fraction: u32) -> Option<Cost> {
    let n = rows * cols;
    let hi = libm::exp2(2.0 * f64::from(range)) * cols as f64;
    let lo = libm::exp2(-f64::from(fraction)).max(eps);
    Some(in_turn([
        open(&[(n, 64)]),
        mul(n, 64),
        settle(n, 64, 2 * fraction, fraction),
        divide_rows((rows, cols), (lo, hi), 64, fraction)?,
    ]))
}

/// [`Mpc::layer_norm`](crate::Mpc::layer_norm) of settled rows, with or without gain and bias; the
/// result is not settled. 1/n is a public factor of 16 bits less its trailing zeros.
#[must_use]
pub fn layer_norm(
    rows: usize,
    cols: usize,
    affine: bool,
    domain: (f64, f64),
    fraction: u32,
) -> Option<Cost> {
    let n = rows * cols;
    let mean = super::linear::scale_gain(1.0 / cols as f64, super::norm::MEAN);
    let tolerance = super::softmax::TOLERANCE;
    let (root, scale) = inverse(rows, Function::Rsqrt, domain, tolerance, fraction)?;
    let direct = super::norm::direct(cols, domain.1, fraction);
    let variance = (rows, 64, if direct { fraction + mean } else { fraction });
    let again = settle_all(&[(rows, 64, mean)]);
    let gained = [relations(1, n, 64), settle_all(&[variance, (n, 64, fraction)])];
    Some(in_turn([
        settle(n, 64, fraction + mean, fraction),
        open(&[(n, 64)]),
        mul(n, 64),
        if affine { in_turn(gained) } else { settle_all(&[variance]) },
        if direct { Cost::default() } else { again },
        root,
        settle(rows, 64, scale, fraction),
        if affine { open(&[(rows, 64), (n, 64)]) } else { open(&[(rows, 64)]) },
        mul(n, 64),
    ]))
}
