//! Plain f64 forms of the papers' equations: slow, obvious, the oracle of every fast form.

pub mod bivit;
pub mod ecoformer;
