//! Declared costs.
