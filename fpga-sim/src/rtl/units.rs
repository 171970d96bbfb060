//! The reciprocal and the GELU unit.

use super::{Design, table};
use undertone_core::fixed::edge_moe::GELU_GAP;

/// 1/x of a 64-bit word by three Newton steps; output `{exponent[8], mantissa[32]}`,
/// mantissa 0 for x = 0. Equals [`undertone_core::fixed::recip::recip`].
pub fn reciprocal() -> Design {
    let mut steps = String::new();
    // Registers of step k: r and d; error on the way.
    for k in 0..3 {
        let (a, b) = (3 + 2 * k, 4 + 2 * k);
        steps.push_str(&format!(
            "      v{a} <= v{p}; z{a} <= z{p}; n{a} <= n{p}; d{a} <= d{p}; r{a} <= r{p}; x{a} <= 64'h8000000000000000 - dr{p};
      v{b} <= v{a}; z{b} <= z{a}; n{b} <= n{a}; d{b} <= d{a}; r{b} <= r{a} + rx{a}[65:32];\n",
            p = a - 1
        ));
    }
    let mut declarations = String::new();
    for k in 1..=8 {
        declarations.push_str(&format!(
            "  reg v{k}, z{k}; reg [5:0] n{k}; reg [31:0] d{k}; reg [33:0] r{k}; reg signed [63:0] x{k};\n"
        ));
    }
    for k in [2, 4, 6] {
        declarations
            .push_str(&format!("  wire [63:0] dr{k} = {{32'b0, d{k}}} * {{30'b0, r{k}}};\n"));
    }
    for k in [3, 5, 7] {
        declarations.push_str(&format!(
            "  wire signed [32:0] h{k} = x{k} >>> 31;
  wire signed [67:0] rx{k} = $signed({{34'b0, r{k}}}) * $signed({{{{35{{h{k}[32]}}}}, h{k}}});\n"
        ));
    }
    let verilog = format!(
        "module reciprocal(
  input clk, input rst,
  input [63:0] in0_data, input in0_empty, output in0_pop,
  output [39:0] out0_data, output out0_push, input out0_full);
  function [5:0] zeros(input [63:0] x);
    integer i;
    begin
      zeros = 6'd63;
      for (i = 0; i < 64; i = i + 1) if (x[i]) zeros = 6'd63 - i[5:0];
    end
  endfunction
{declarations}
  reg v9;
  reg [31:0] m9;
  reg [7:0] e9;
  wire en = !(v9 && out0_full);
  assign in0_pop = en && !in0_empty;
  assign out0_push = v9 && en;
  wire [5:0] lead = zeros(in0_data);
  wire [63:0] shifted = in0_data << lead;
  wire [33:0] rounded = ({{1'b0, shifted[63:31]}} + 34'd1) >> 1;
  wire [63:0] seed = {{32'b0, d1}} * 64'd4042266945;
  always @(posedge clk) begin
    if (rst) begin
      v1 <= 0; v2 <= 0; v3 <= 0; v4 <= 0; v5 <= 0; v6 <= 0; v7 <= 0; v8 <= 0; v9 <= 0;
    end else if (en) begin
      v1 <= !in0_empty; z1 <= in0_data == 64'd0; n1 <= lead; d1 <= rounded[32] ? 32'hffffffff : rounded[31:0];
      v2 <= v1; z2 <= z1; n2 <= n1; d2 <= d1; r2 <= 34'd6063400418 - {{2'b0, seed[63:32]}};
{steps}      v9 <= v8; m9 <= z8 ? 32'd0 : (r8 > 34'hffffffff) ? 32'hffffffff : (r8 < 34'h80000000) ? 32'h80000000 : r8[31:0];
      e9 <= {{2'b0, n8}} - 8'd95;
    end
  end
  assign out0_data = {{e9, m9}};
endmodule
"
    );
    Design { name: "reciprocal".into(), verilog, inputs: vec![64], outputs: vec![40], latency: 9 }
}

/// GELU in Q10.22: relu(x) − δ(|x|) from 177 entries with linear
/// interpolation. Equals [`undertone_core::fixed::edge_moe::gelu`].
pub fn gelu() -> Design {
    let values: Vec<u64> = GELU_GAP.iter().map(|v| u64::from(*v)).collect();
    // δ rises, then falls: differences are signed 18-bit words.
    let rises: Vec<u64> = GELU_GAP
        .windows(2)
        .map(|w| ((i64::from(w[1]) - i64::from(w[0])) & 0x3_ffff).unsigned_abs())
        .collect();
    let verilog = format!(
        "module gelu(
  input clk, input rst,
  input [31:0] in0_data, input in0_empty, output in0_pop,
  output [31:0] out0_data, output out0_push, input out0_full);
{}{}
  reg v1, v2, v3, v4;
  wire en = !(v4 && out0_full);
  assign in0_pop = en && !in0_empty;
  assign out0_push = v4 && en;
  wire [31:0] x = in0_data;
  reg [31:0] z1, p1, p2, p3, y4;
  reg [21:0] a2, a3;
  reg signed [17:0] b2;
  reg [16:0] w2;
  wire listed = z1[31:17] < 15'd176;
  wire signed [35:0] rise = b2 * $signed({{1'b0, w2}});
  reg signed [18:0] r3;
  always @(posedge clk) begin
    if (rst) begin v1 <= 0; v2 <= 0; v3 <= 0; v4 <= 0; end
    else if (en) begin
      v1 <= !in0_empty; z1 <= x[31] ? -x : x; p1 <= x[31] ? 32'd0 : x;
      v2 <= v1; p2 <= p1; w2 <= z1[16:0];
      a2 <= listed ? gap(z1[24:17]) : 22'd0; b2 <= listed ? rises(z1[24:17]) : 18'd0;
      v3 <= v2; p3 <= p2; a3 <= a2; r3 <= rise >>> 17;
      v4 <= v3; y4 <= p3 - ({{10'b0, a3}} + {{{{13{{r3[18]}}}}, r3}});
    end
  end
  assign out0_data = y4;
endmodule
",
        table("gap", 8, 22, &values),
        table("rises", 8, 18, &rises),
    );
    Design { name: "gelu".into(), verilog, inputs: vec![32], outputs: vec![32], latency: 4 }
}
