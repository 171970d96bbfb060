//! Protocols over masked wires, semi-honest, with correlations from preprocessing.
//!
//! Every protocol is a method of [`Mpc`](crate::Mpc) and runs in each of its roles. [`declared`]
//! states each one's cost as a formula of its shape; tests hold formula, plan and run equal.

mod compare;
pub mod declared;
mod exponential;
mod linear;
mod norm;
mod open;
mod series;
mod softmax;
mod table;
mod truncate;

pub use series::{Series, fit, plain};
pub use table::{Tables, Tabulated};

use crate::preprocess::Lane;

/// `f` of each element.
pub(crate) fn each(a: &Lane, f: impl Fn(u64) -> u64) -> Lane {
    a.as_ref().map(|a| a.iter().map(|&x| f(x)).collect())
}

/// `f` of each pair of elements.
pub(crate) fn both(a: &Lane, b: &Lane, f: impl Fn(u64, u64) -> u64) -> Lane {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.iter().zip(b).map(|(&x, &y)| f(x, y)).collect()),
        _ => None,
    }
}

/// A party's index as a factor: the leading party adds public terms.
pub(crate) const fn only(leads: bool, x: u64) -> u64 {
    if leads { x } else { 0 }
}
