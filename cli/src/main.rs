//! The undertone command.
fn main() {}
