//! Every world, held to the same suite.

use undertone_core::Full;
use undertone_core::fixed::{Needed, Online};
use undertone_model::fixed::heap;
use undertone_model::float::{Float, Fused};

undertone_tests::conformance!(float, Float::new(), Full, 1e-5);
undertone_tests::conformance!(float_fused, Float::new(), Fused, 1e-5);
const ROOM: Needed = Needed { tensors: 1 << 16, wide: 64, words: 0 };

undertone_tests::conformance!(fixed, heap(ROOM), Online, 2e-3);

#[test]
fn fixed_comparisons() {
    undertone_tests::operations::comparisons(&mut || heap(ROOM), 1e-3);
}

#[test]
fn float_comparisons() {
    undertone_tests::operations::comparisons(&mut Float::new, 0.0);
}
