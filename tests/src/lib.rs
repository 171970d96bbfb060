//! One conformance suite for every world.
//!
//! A world instantiates it in one line (`tests/tests/conformance.rs`):
//!
//! ```text
//! undertone_tests::conformance!(float, Float::new(), undertone_core::Full, 1e-5);
//! ```
//!
//! Every operation of the traits is held to plain f64 arithmetic on random tensors, and every
//! attention kind of the menu to [`attention::reference`].

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod attention;
pub mod models;
pub mod operations;
pub mod shapes;

use undertone_core::{Bound, Num, Role, Shape, Site};

/// Numbers that are the same on every machine: splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [lo, hi), a multiple of 2^-12 so that 16-bit worlds hold it exactly when small.
    pub fn uniform(&mut self, lo: f64, hi: f64) -> f32 {
        let x = lo + (hi - lo) * (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((x * 4096.0).floor() / 4096.0) as f32
    }

    /// A tensor of uniform values.
    pub fn tensor(&mut self, shape: Shape, lo: f64, hi: f64) -> Vec<f32> {
        (0..shape.len()).map(|_| self.uniform(lo, hi)).collect()
    }
}

/// The bound of given values, as calibration would find it.
#[must_use]
pub fn bound_of(values: &[f64]) -> Bound {
    let lo = values.iter().copied().fold(f64::MAX, f64::min);
    let hi = values.iter().copied().fold(f64::MIN, f64::max);
    Bound::known(Site::outside(Role::Embedding), Num::of(lo), Num::of(hi))
}

/// Asserts that a world's values are those wanted, to `tolerance` relative to the greatest
/// magnitude wanted (or to one, if that is greater).
pub fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of values");
    let scale = want.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    for (i, (&g, &x)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - x).abs();
        assert!(
            error <= tolerance * scale,
            "{what}: element {i} is {g}, wanted {x} (error {error:.2e}, allowed {:.2e})",
            tolerance * scale
        );
    }
}

/// Instantiates the suite for a world: module name, constructor, menu, tolerance, and the kinds
/// of attention that its menu offers (all of them by default).
#[macro_export]
macro_rules! conformance {
    ($name:ident, $world:expr, $menu:ty, $tolerance:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            #[test]
            fn linear_operations() {
                $crate::operations::linear(&mut || $world, $tolerance);
            }
            #[test]
            fn products() {
                $crate::operations::products(&mut || $world, $tolerance);
            }
            #[test]
            fn functions() {
                $crate::operations::functions(&mut || $world, $tolerance);
            }
            #[test]
            fn attention_kinds() {
                $crate::attention::kinds::<_, $menu>(&mut || $world, $tolerance);
            }
            #[test]
            fn attention_laws() {
                $crate::attention::laws::<_, $menu>(&mut || $world, $tolerance);
            }
            #[test]
            fn refusals() {
                $crate::operations::refusals(&mut || $world);
            }
        }
    };
}
