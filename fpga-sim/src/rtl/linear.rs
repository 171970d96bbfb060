//! The linear unit: a broadcast array in one flattened loop over output block
//! and input block, weights on chip.

use super::Design;
use std::fmt::Write as _;

/// Shape of a generated linear unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Array {
    /// Inputs taken in a cycle.
    pub rows: u32,
    /// Outputs computed in a cycle.
    pub columns: u32,
    /// Input blocks of a token.
    pub ins: u32,
    /// Output blocks of a token.
    pub outs: u32,
    /// Bits of an input word.
    pub input_bits: u32,
    /// Bits of a weight.
    pub weight_bits: u32,
    /// Bits of a sum.
    pub sum_bits: u32,
}

/// A linear unit with `weights[output][input]` inlined. Input: `rows` words,
/// the first in the low bits; output: `columns` sums.
///
/// Equals [`undertone_core::fixed::linear::dot`] for each output.
pub fn array(a: Array, weights: &[Vec<i32>]) -> Design {
    let Array { rows, columns, ins, outs, input_bits: ib, weight_bits: wb, sum_bits: sb } = a;
    let (in_width, out_width, word) = (rows * ib, columns * sb, rows * columns * wb);
    let blocks = ins * outs;
    let mut v = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        v,
        "module array(
  input clk, input rst,
  input [{}:0] in0_data, input in0_empty, output in0_pop,
  output [{}:0] out0_data, output out0_push, input out0_full);
  function [{}:0] weight(input [15:0] i);
    case (i)",
        in_width - 1,
        out_width - 1,
        word - 1
    );
    for block in 0..blocks {
        let (out, inp) = (block / ins, block % ins);
        // Most significant word first: column by column, row by row.
        let mut bits = Vec::new();
        for c in (0..columns).rev() {
            for r in (0..rows).rev() {
                let value = weights
                    .get((out * columns + c) as usize)
                    .and_then(|w| w.get((inp * rows + r) as usize))
                    .copied()
                    .unwrap_or(0);
                let masked = i64::from(value) & ((1i64 << wb) - 1);
                bits.push(format!("{wb}'d{masked}"));
            }
        }
        let _ = writeln!(v, "      16'd{block}: weight = {{{}}};", bits.join(", "));
    }
    let _ = writeln!(
        v,
        "      default: weight = 0;
    endcase
  endfunction
  reg [{iw}:0] kept [0:{last_in}];
  reg [15:0] at, col;
  reg v1, v2, v3, first1, first2, last1, last2;
  reg [{iw}:0] x1;
  reg [{ww}:0] w1;
  wire needs = at < 16'd{ins};
  wire en = !(v3 && out0_full);
  wire go = en && (!needs || !in0_empty);
  assign in0_pop = go && needs;
  assign out0_push = v3 && en;
  wire [{iw}:0] x = needs ? in0_data : kept[col];",
        iw = in_width - 1,
        ww = word - 1,
        last_in = ins - 1,
    );
    let pb = ib + wb;
    let mut shift = String::new();
    for c in 0..columns {
        for r in 0..rows {
            let _ = writeln!(
                v,
                "  reg signed [{}:0] p{c}_{r}; wire signed [{}:0] x{c}_{r} = x1[{} +: {ib}]; wire signed [{}:0] w{c}_{r} = w1[{} +: {wb}];",
                pb - 1,
                ib - 1,
                r * ib,
                wb - 1,
                (c * rows + r) * wb
            );
            let _ = writeln!(shift, "      p{c}_{r} <= x{c}_{r} * w{c}_{r};");
        }
        let sum: Vec<String> = (0..rows).map(|r| format!("p{c}_{r}")).collect();
        let _ = writeln!(
            v,
            "  reg signed [{s}:0] s{c}; wire signed [{s}:0] n{c} = (first2 ? {sb}'sd0 : s{c}) + {};",
            sum.join(" + "),
            s = sb - 1
        );
        let _ = writeln!(shift, "      if (v2) s{c} <= n{c};");
    }
    let out: Vec<String> = (0..columns).rev().map(|c| format!("s{c}")).collect();
    let _ = writeln!(
        v,
        "  always @(posedge clk) begin
    if (rst) begin v1 <= 0; v2 <= 0; v3 <= 0; at <= 0; col <= 0; end
    else if (en) begin
      v1 <= go; x1 <= x; w1 <= weight(at); first1 <= col == 0; last1 <= col == 16'd{last_in};
      if (go) begin
        if (needs) kept[col] <= in0_data;
        col <= (col == 16'd{last_in}) ? 16'd0 : col + 16'd1;
        at <= (at == 16'd{last}) ? 16'd0 : at + 16'd1;
      end
      v2 <= v1; first2 <= first1; last2 <= last1;
{shift}      v3 <= v2 && last2;
    end
  end
  assign out0_data = {{{}}};
endmodule",
        out.join(", "),
        last_in = ins - 1,
        last = blocks - 1,
    );
    Design {
        name: "array".into(),
        verilog: v,
        inputs: vec![in_width],
        outputs: vec![out_width],
        latency: 3,
    }
}

/// A simple dual-port memory, as a weight buffer is one.
pub fn weight_buffer(depth: u32, width: u32) -> Design {
    let address = 32 - (depth - 1).leading_zeros();
    let verilog = format!(
        "module weight_buffer(input clk, input we, input [{a}:0] wa, input [{w}:0] wd, input [{a}:0] ra, output reg [{w}:0] rd);
  (* ram_style = \"block\" *) reg [{w}:0] words [0:{d}];
  always @(posedge clk) begin
    if (we) words[wa] <= wd;
    rd <= words[ra];
  end
endmodule
",
        a = address - 1,
        w = width - 1,
        d = depth - 1
    );
    Design {
        name: "weight_buffer".into(),
        verilog,
        inputs: vec![],
        outputs: vec![width],
        latency: 1,
    }
}
