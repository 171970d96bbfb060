//! Plain Verilog of the units, made to be the proof of the simulator: literal
//! widths, inlined tables, one clock. Every unit keeps the contract of
//! [`crate::graph`]: a pipeline whose clock enable falls while a token that is
//! due finds its FIFO full. [`Bench`] puts registered FIFOs around a
//! unit, [`harness`] is the C++ that drives several benches in Verilator with
//! given random stalls and writes down every pop and push.

mod attention;
mod bench;
mod linear;
mod softmax;
mod units;

pub use attention::{
    DIVIDE, MIX, PRODUCTS, RECIPROCAL, STATISTICS, Scores, attention, attention_stage, scores,
};
pub use bench::{Bench, harness, top};
pub use linear::{Array, array, weight_buffer};
pub use softmax::{edge_moe_exp, edge_moe_recurrence, edge_moe_sum, shift_recurrence, shift_sum};
pub use units::{gelu, reciprocal};

use std::fmt::Write as _;

/// A generated unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Design {
    /// Name of its top module.
    pub name: String,
    /// Verilog of the module and all it needs.
    pub verilog: String,
    /// Bits of each input token.
    pub inputs: Vec<u32>,
    /// Bits of each output token, at most 128.
    pub outputs: Vec<u32>,
    /// Enabled cycles from taking an input to the push of its result.
    pub latency: u64,
}

/// A `case` table as a Verilog function of one argument.
fn table(name: &str, index_bits: u32, bits: u32, values: &[u64]) -> String {
    let mut v = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        v,
        "  function [{}:0] {name}(input [{}:0] i);\n    case (i)",
        bits - 1,
        index_bits - 1
    );
    for (i, value) in values.iter().enumerate() {
        let _ = writeln!(v, "      {index_bits}'d{i}: {name} = {bits}'h{value:x};");
    }
    let _ = writeln!(v, "      default: {name} = {bits}'h0;\n    endcase\n  endfunction");
    v
}
