//! The two recurrences of a softmax in one pass.

use super::{Design, table};
use undertone_core::fixed::shift::POW2_NEG;

/// Sum of a row in the shift form: `s = (s >> k) + e`. Input `{last, x[32]}`,
/// x in octaves with 10 fraction bits; output at a row's last element
/// `{max[32], sum[40]}` (2^15 elements fit).
///
/// Equals [`undertone_core::fixed::shift::RowSum::push`].
pub fn shift_sum() -> Design {
    let values: Vec<u64> = POW2_NEG.iter().map(|v| u64::from(*v)).collect();
    // The segment's rise, so that the interpolation needs one table read.
    let falls: Vec<u64> = POW2_NEG.windows(2).map(|w| u64::from(w[0] - w[1])).collect();
    let verilog = format!(
        "module shift_sum(
  input clk, input rst,
  input [32:0] in0_data, input in0_empty, output in0_pop,
  output [71:0] out0_data, output out0_push, input out0_full);
{}{}
  reg v1, v2, v3, v4, v5, v6, l1, l2, l3, l4, l5;
  wire en = !(v6 && out0_full);
  assign in0_pop = en && !in0_empty;
  assign out0_push = v6 && en;
  // 1: round up to whole octaves
  wire signed [31:0] x = in0_data[31:0];
  wire signed [31:0] xc = (x > 32'sd2147482623) ? 32'sd2147482623 : x;
  wire signed [31:0] up = xc + 32'sd1023;
  reg signed [31:0] x1, x2;
  reg signed [21:0] c1;
  // 2: the maximum, and how far the sum must move
  reg signed [21:0] m, m2, m3, m4, m5;
  reg first;
  wire signed [21:0] base = first ? -22'sd2097152 : m;
  wire signed [21:0] raised = (c1 > base) ? c1 : base;
  wire [22:0] by = raised - base;
  reg [5:0] b2, b3, b4, b5;
  // 3: distance and table
  wire signed [33:0] d = $signed({{m2, 10'b0}}) - x2;
  wire [15:0] d16 = (d > 34'sd65535) ? 16'hffff : d[15:0];
  reg [24:0] a3;
  reg [19:0] f3;
  reg [3:0] w3;
  reg [5:0] o3, o4;
  // 4: interpolation
  wire [23:0] fall = f3 * w3;
  reg [24:0] p4;
  // 5: octaves, half up
  wire [25:0] moved = {{p4, 1'b0}} >> o4;
  reg [24:0] e5;
  // 6: the recurrence
  reg [39:0] s;
  reg fresh;
  reg signed [21:0] m6;
  wire [39:0] prior = fresh ? 40'd0 : s;
  always @(posedge clk) begin
    if (rst) begin
      v1 <= 0; v2 <= 0; v3 <= 0; v4 <= 0; v5 <= 0; v6 <= 0; first <= 1; fresh <= 1;
    end else if (en) begin
      v1 <= !in0_empty; l1 <= in0_data[32]; x1 <= xc; c1 <= up[31:10];
      v2 <= v1; l2 <= l1; x2 <= x1; m2 <= raised; b2 <= (by > 23'd63) ? 6'd63 : by[5:0];
      if (v1) begin m <= raised; first <= l1; end
      v3 <= v2; l3 <= l2; m3 <= m2; b3 <= b2;
      a3 <= segment(d16[9:4]); f3 <= falling(d16[9:4]); w3 <= d16[3:0]; o3 <= d16[15:10];
      v4 <= v3; l4 <= l3; m4 <= m3; b4 <= b3; o4 <= o3; p4 <= a3 - (fall >> 4);
      v5 <= v4; l5 <= l4; m5 <= m4; b5 <= b4; e5 <= (o4 > 6'd25) ? 25'd0 : ((moved + 26'd1) >> 1);
      if (v5) begin s <= (prior >> b5) + e5; fresh <= l5; m6 <= m5; end
      v6 <= v5 && l5;
    end
  end
  assign out0_data = {{{{10{{m6[21]}}}}, m6, s}};
endmodule
",
        table("segment", 6, 25, &values[..64]),
        table("falling", 6, 20, &falls),
    );
    Design { name: "shift_sum".into(), verilog, inputs: vec![33], outputs: vec![72], latency: 6 }
}

/// The bare recurrence `s = (s >> k) + e`, for synthesis beside Edge-MoE's.
pub fn shift_recurrence() -> Design {
    let verilog = "module shift_recurrence(input clk, input rst, input en, input [5:0] k, input [24:0] e, output reg [35:0] s);
  always @(posedge clk) if (rst) s <= 0; else if (en) s <= (s >> k) + e;
endmodule
";
    Design {
        name: "shift_recurrence".into(),
        verilog: verilog.into(),
        inputs: vec![],
        outputs: vec![36],
        latency: 1,
    }
}

/// The bare recurrence `s = floor(s·e) + 1` or `s + e`, for synthesis.
pub fn edge_moe_recurrence() -> Design {
    let verilog = "module edge_moe_recurrence(input clk, input rst, input en, input rise, input signed [31:0] e, output reg signed [31:0] s);
  wire signed [63:0] product = s * e;
  always @(posedge clk) if (rst) s <= 0; else if (en) s <= rise ? $signed(product[53:22]) + 32'sd4194304 : s + e;
endmodule
";
    Design {
        name: "edge_moe_recurrence".into(),
        verilog: verilog.into(),
        inputs: vec![],
        outputs: vec![32],
        latency: 1,
    }
}

const ONE: u128 = 1 << 120;

/// a·b of numbers with 120 fraction bits, each at most 4, in halves of 60 bits.
fn product(a: u128, b: u128) -> u128 {
    const HALF: u128 = (1 << 60) - 1;
    let (ah, al, bh, bl) = (a >> 60, a & HALF, b >> 60, b & HALF);
    ah * bh + ((ah * bl) >> 60) + ((al * bh) >> 60)
}

/// e^-(i·2^-bits), i < 64, in Q1.63: the alternating series in integers, off by less than a unit.
fn exp_fraction(i: u64, bits: u32) -> u64 {
    let (mut term, mut sum, mut k) = (ONE, ONE, 1u128);
    while term > 0 {
        term = ((term * u128::from(i)) >> bits) / k;
        sum = if k % 2 == 1 { sum - term } else { sum + term };
        k += 1;
    }
    u64::try_from((sum + (1 << 56)) >> 57).unwrap_or(u64::MAX)
}

/// e^-n in Q1.63.
fn exp_whole(n: u64) -> u64 {
    // e^-1 by the series above with full steps.
    let (mut term, mut inverse, mut k) = (ONE, ONE, 1u128);
    while term > 0 {
        term /= k;
        inverse = if k % 2 == 1 { inverse - term } else { inverse + term };
        k += 1;
    }
    let power = (0..n).fold(ONE, |p, _| product(p, inverse));
    u64::try_from((power + (1 << 56)) >> 57).unwrap_or(u64::MAX)
}

/// Tables of e^-t by groups of 4, 6, 6, 5 and 5 bits.
fn exp_tables() -> String {
    let whole: Vec<u64> = (0..16).map(exp_whole).collect();
    let part = |entries: u64, bits: u32| -> Vec<u64> {
        (0..entries).map(|i| exp_fraction(i, bits)).collect()
    };
    [
        table("whole", 4, 64, &whole),
        table("first", 6, 64, &part(64, 6)),
        table("second", 6, 64, &part(64, 12)),
        table("third", 5, 64, &part(32, 17)),
        table("fourth", 5, 64, &part(32, 22)),
    ]
    .concat()
}

/// floor(e^-t) with 22 fraction bits; input t as 32 bits, output 32 bits.
///
/// Equals [`undertone_core::fixed::edge_moe::exp_neg_floor`].
pub fn edge_moe_exp() -> Design {
    let verilog = format!(
        "module edge_moe_exp(
  input clk, input rst,
  input [31:0] in0_data, input in0_empty, output in0_pop,
  output [31:0] out0_data, output out0_push, input out0_full);
{}
  reg v1, v2, v3, v4, g1, g2, g3;
  wire en = !(v4 && out0_full);
  assign in0_pop = en && !in0_empty;
  assign out0_push = v4 && en;
  reg [63:0] w1, f1, s1, t1, q1, c2, d2, q2, c3, d3;
  wire [127:0] wf = w1 * f1;
  wire [127:0] st = s1 * t1;
  wire [127:0] dq = d2 * q2;
  wire [127:0] all = c3 * d3;
  reg [22:0] e4;
  wire [31:0] t = in0_data;
  always @(posedge clk) begin
    if (rst) begin v1 <= 0; v2 <= 0; v3 <= 0; v4 <= 0; end
    else if (en) begin
      v1 <= !in0_empty; g1 <= |t[31:26];
      w1 <= whole(t[25:22]); f1 <= first(t[21:16]); s1 <= second(t[15:10]); t1 <= third(t[9:5]); q1 <= fourth(t[4:0]);
      v2 <= v1; g2 <= g1; c2 <= wf[126:63]; d2 <= st[126:63]; q2 <= q1;
      v3 <= v2; g3 <= g2; c3 <= c2; d3 <= dq[126:63];
      v4 <= v3; e4 <= g3 ? 23'd0 : all[126:104];
    end
  end
  assign out0_data = {{9'b0, e4}};
endmodule
",
        exp_tables()
    );
    Design { name: "edge_moe_exp".into(), verilog, inputs: vec![32], outputs: vec![32], latency: 4 }
}

/// Sum of a row as Edge-MoE does it. Input `{last, x[32]}` in Q10.22; output
/// at a row's last element `{bias[32], sum[32]}`.
///
/// Equals [`undertone_core::fixed::edge_moe::SinglePass::push_wrapping`].
pub fn edge_moe_sum() -> Design {
    let verilog = format!(
        "module edge_moe_sum(
  input clk, input rst,
  input [32:0] in0_data, input in0_empty, output in0_pop,
  output [63:0] out0_data, output out0_push, input out0_full);
{}
  reg v1, v2, v3, v4, v5, v6, l1, l2, l3, l4, l5, r1, r2, r3, r4, r5, g2, g3, g4;
  wire en = !(v6 && out0_full);
  assign in0_pop = en && !in0_empty;
  assign out0_push = v6 && en;
  // 1: the new maximum and the distance
  wire signed [31:0] x = in0_data[31:0];
  reg signed [31:0] b, b1, b2, b3, b4, b5, b6;
  reg start;
  wire signed [31:0] base = start ? 32'sh80000000 : b;
  wire signed [32:0] d = base - x;
  wire rise = d[32];
  wire [32:0] size = rise ? -d : d;
  reg [32:0] z1;
  // 2: tables; 3, 4, 5: products
  reg [63:0] w2, f2, s2, t2, q2, c3, d3, q3, c4, d4;
  wire [127:0] wf = w2 * f2;
  wire [127:0] st = s2 * t2;
  wire [127:0] dq = d3 * q3;
  wire [127:0] all = c4 * d4;
  reg signed [31:0] e5;
  // 6: the recurrence
  reg signed [31:0] s;
  reg fresh;
  wire signed [31:0] prior = fresh ? 32'sd0 : s;
  wire signed [63:0] product = prior * e5;
  always @(posedge clk) begin
    if (rst) begin
      v1 <= 0; v2 <= 0; v3 <= 0; v4 <= 0; v5 <= 0; v6 <= 0; start <= 1; fresh <= 1;
    end else if (en) begin
      v1 <= !in0_empty; l1 <= in0_data[32]; r1 <= rise; z1 <= size; b1 <= rise ? x : base;
      if (!in0_empty) begin b <= rise ? x : base; start <= in0_data[32]; end
      v2 <= v1; l2 <= l1; r2 <= r1; b2 <= b1; g2 <= |z1[32:26];
      w2 <= whole(z1[25:22]); f2 <= first(z1[21:16]); s2 <= second(z1[15:10]); t2 <= third(z1[9:5]); q2 <= fourth(z1[4:0]);
      v3 <= v2; l3 <= l2; r3 <= r2; b3 <= b2; g3 <= g2; c3 <= wf[126:63]; d3 <= st[126:63]; q3 <= q2;
      v4 <= v3; l4 <= l3; r4 <= r3; b4 <= b3; g4 <= g3; c4 <= c3; d4 <= dq[126:63];
      v5 <= v4; l5 <= l4; r5 <= r4; b5 <= b4; e5 <= g4 ? 32'sd0 : $signed({{9'b0, all[126:104]}});
      if (v5) begin s <= r5 ? $signed(product[53:22]) + 32'sd4194304 : prior + e5; fresh <= l5; b6 <= b5; end
      v6 <= v5 && l5;
    end
  end
  assign out0_data = {{b6, s}};
endmodule
",
        exp_tables()
    );
    Design { name: "edge_moe_sum".into(), verilog, inputs: vec![33], outputs: vec![64], latency: 6 }
}
