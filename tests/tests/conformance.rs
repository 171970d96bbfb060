//! Every world, held to the same suite.

use undertone_core::Full;
use undertone_model::float::Float;

undertone_tests::conformance!(float, Float::new(), Full, 1e-5);

#[test]
fn float_comparisons() {
    undertone_tests::operations::comparisons(&mut Float::new, 0.0);
}
