//! QKᵀ with running statistics, the attention pipeline of Edge-MoE's order in
//! the shift form, at any small size.

use super::{Design, softmax::shift_sum};
use std::fmt::Write as _;

/// Shape of a generated pipeline. Words are signed 16-bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scores {
    /// Tokens: queries and keys, more than lanes.
    pub tokens: u32,
    /// Queries under way at once.
    pub lanes: u32,
    /// Blocks of a token; a block is four words.
    pub blocks: u32,
    /// From the sum of products to a score in octaves with 10 fraction bits: shift right, half up.
    pub shift: u32,
    /// Depth of the FIFO between products and statistics.
    pub depth: u32,
}

/// The pipeline: inputs are query blocks and key blocks in Edge-MoE's order,
/// outputs are scores (one lane a token) and, row by row, `{max, sum}`.
///
/// The statistics are [`super::shift_sum`] with one state a lane; the latency
/// of the products is 3, that of the statistics 6.
pub fn scores(s: Scores) -> Design {
    let verilog = [products(s), statistics(s), wrapper(s)].concat();
    Design {
        name: "scores".into(),
        verilog,
        inputs: vec![64, 64],
        outputs: vec![32, 72],
        latency: 3,
    }
}

fn products(s: Scores) -> String {
    let Scores { tokens, lanes, blocks, shift, .. } = s;
    let rounds = tokens.div_ceil(lanes);
    let rest = (tokens + lanes - 1) % lanes;
    // The last key of the last round: a partial round, or a full one.
    let (last_round, last_key) =
        if rest == 0 { (rounds - 1, tokens - 1) } else { (rounds, rest - 1) };
    let mut v = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        v,
        "module products(
  input clk, input rst,
  input [63:0] in0_data, input in0_empty, output in0_pop,
  input [63:0] in1_data, input in1_empty, output in1_pop,
  output [{}:0] out0_data, output out0_push, input out0_full);
  reg [15:0] round, key, block;
  reg v1, v2, v3, first1, first2, last1, last2;
  reg [63:0] k1;
  wire loads = key < 16'd{lanes} && round * 16'd{lanes} + key < 16'd{tokens};
  wire en = !(v3 && out0_full);
  wire go = en && !in1_empty && (!loads || !in0_empty);
  assign in0_pop = go && loads;
  assign in1_pop = go;
  assign out0_push = v3 && en;",
        32 * lanes - 1
    );
    let mut clocked = String::new();
    for l in 0..lanes {
        let _ = writeln!(
            v,
            "  reg [63:0] kept{l} [0:{}]; reg [63:0] q{l}; reg signed [39:0] s{l};
  reg signed [31:0] p{l}_0, p{l}_1, p{l}_2, p{l}_3;
  wire mine{l} = loads && key == 16'd{l};
  wire signed [39:0] n{l} = (first2 ? 40'sd0 : s{l}) + p{l}_0 + p{l}_1 + p{l}_2 + p{l}_3;
  wire signed [39:0] y{l} = ((s{l} >>> {}) + 40'sd1) >>> 1;",
            blocks - 1,
            shift - 1
        );
        let _ = writeln!(
            clocked,
            "      q{l} <= mine{l} ? in0_data : kept{l}[block];
      if (go && mine{l}) kept{l}[block] <= in0_data;
      if (v2) s{l} <= n{l};"
        );
        for w in 0..4 {
            let _ = writeln!(
                clocked,
                "      p{l}_{w} <= $signed(q{l}[{0} +: 16]) * $signed(k1[{0} +: 16]);",
                16 * w
            );
        }
    }
    let out: Vec<String> = (0..lanes).rev().map(|l| format!("y{l}[31:0]")).collect();
    let _ = writeln!(
        v,
        "  always @(posedge clk) begin
    if (rst) begin v1 <= 0; v2 <= 0; v3 <= 0; round <= 0; key <= 0; block <= 0; end
    else if (en) begin
      v1 <= go; k1 <= in1_data; first1 <= block == 0; last1 <= block == 16'd{last_block};
      if (go) begin
        block <= (block == 16'd{last_block}) ? 16'd0 : block + 16'd1;
        if (block == 16'd{last_block}) begin
          if (round == 16'd{last_round} && key == 16'd{last_key}) begin key <= 0; round <= 0; end
          else if (key == 16'd{last_token}) begin key <= 0; round <= round + 16'd1; end
          else key <= key + 16'd1;
        end
      end
      v2 <= v1; first2 <= first1; last2 <= last1;
      v3 <= v2 && last2;
{clocked}    end
  end
  assign out0_data = {{{}}};
endmodule",
        out.join(", "),
        last_block = blocks - 1,
        last_token = tokens - 1,
    );
    v
}

/// [`shift_sum`] with a state for each lane: the recurrences read and write the
/// state of the lane in their stage.
fn statistics(s: Scores) -> String {
    let Scores { tokens, lanes, .. } = s;
    let rounds = tokens.div_ceil(lanes);
    let rest = (tokens + lanes - 1) % lanes;
    let (last_round, last_key) =
        if rest == 0 { (rounds - 1, tokens - 1) } else { (rounds, rest - 1) };
    // The datapath is the single-row unit's; only its head (where elements come from), its two
    // states and its outputs differ.
    let unit = shift_sum().verilog;
    let Some((_, tables)) = unit.split_once("out0_full);\n") else { return String::new() };
    let tables = tables.split("  reg v1").next().unwrap_or_default();
    format!(
        "module statistics(
  input clk, input rst,
  input [{top}:0] in0_data, input in0_empty, output in0_pop,
  output [31:0] out0_data, output out0_push, input out0_full,
  output [71:0] out1_data, output out1_push, input out1_full);
{tables}
  reg [15:0] round, key, lane;
  reg [{top}:0] held;
  reg v1, v2, v3, v4, v5, v6, l1, l2, l3, l4, l5, l6, n1, n2, n3, n4, n5;
  reg [15:0] j1, j2, j3, j4, j5;
  wire en = !(v6 && (out0_full || (l6 && out1_full)));
  wire needs = lane == 0;
  wire go = en && (!needs || !in0_empty);
  assign in0_pop = go && needs;
  assign out0_push = v6 && en;
  assign out1_push = v6 && l6 && en;
  wire [{top}:0] words = needs ? in0_data : held;
  wire signed [31:0] x = words[32 * lane +: 32];
  wire signed [31:0] xc = (x > 32'sd2147482623) ? 32'sd2147482623 : x;
  wire signed [31:0] up = xc + 32'sd1023;
  // A row begins with the key of its lane's number and ends one key earlier in the next round.
  wire begins = key == lane;
  wire [15:0] end_key = (lane == 0) ? 16'd{last_token} : lane - 16'd1;
  wire [15:0] query = (key >= lane) ? round * 16'd{lanes} + lane : round * 16'd{lanes} - 16'd{lanes} + lane;
  wire ends = key == end_key && (key >= lane || round != 0) && query < 16'd{tokens};
  reg signed [31:0] x1, x2, y1, y2, y3, y4, y5, y6;
  reg signed [21:0] c1;
  reg signed [21:0] m [0:{last_lane}];
  reg signed [21:0] m2, m3, m4, m5, m6;
  wire signed [21:0] base = n1 ? -22'sd2097152 : m[j1];
  wire signed [21:0] raised = (c1 > base) ? c1 : base;
  wire [22:0] by = raised - base;
  reg [5:0] b2, b3, b4, b5;
  wire signed [33:0] d = $signed({{m2, 10'b0}}) - x2;
  wire [15:0] d16 = (d > 34'sd65535) ? 16'hffff : d[15:0];
  reg [24:0] a3;
  reg [19:0] f3;
  reg [3:0] w3;
  reg [5:0] o3, o4;
  wire [23:0] fall = f3 * w3;
  reg [24:0] p4;
  wire [25:0] moved = {{p4, 1'b0}} >> o4;
  reg [24:0] e5;
  reg [39:0] s [0:{last_lane}];
  reg [39:0] s6;
  wire [39:0] prior = n5 ? 40'd0 : s[j5];
  wire [39:0] after = (prior >> b5) + e5;
  always @(posedge clk) begin
    if (rst) begin v1 <= 0; v2 <= 0; v3 <= 0; v4 <= 0; v5 <= 0; v6 <= 0; round <= 0; key <= 0; lane <= 0; end
    else if (en) begin
      v1 <= go; l1 <= ends; n1 <= begins; j1 <= lane; x1 <= xc; y1 <= x; c1 <= up[31:10];
      if (go) begin
        if (needs) held <= in0_data;
        lane <= (lane == 16'd{last_lane}) ? 16'd0 : lane + 16'd1;
        if (lane == 16'd{last_lane}) begin
          if (round == 16'd{last_round} && key == 16'd{last_key}) begin key <= 0; round <= 0; end
          else if (key == 16'd{last_token}) begin key <= 0; round <= round + 16'd1; end
          else key <= key + 16'd1;
        end
      end
      v2 <= v1; l2 <= l1; n2 <= n1; j2 <= j1; x2 <= x1; y2 <= y1; m2 <= raised; b2 <= (by > 23'd63) ? 6'd63 : by[5:0];
      if (v1) m[j1] <= raised;
      v3 <= v2; l3 <= l2; n3 <= n2; j3 <= j2; y3 <= y2; m3 <= m2; b3 <= b2;
      a3 <= segment(d16[9:4]); f3 <= falling(d16[9:4]); w3 <= d16[3:0]; o3 <= d16[15:10];
      v4 <= v3; l4 <= l3; n4 <= n3; j4 <= j3; y4 <= y3; m4 <= m3; b4 <= b3; o4 <= o3; p4 <= a3 - (fall >> 4);
      v5 <= v4; l5 <= l4; n5 <= n4; j5 <= j4; y5 <= y4; m5 <= m4; b5 <= b4; e5 <= (o4 > 6'd25) ? 25'd0 : ((moved + 26'd1) >> 1);
      if (v5) s[j5] <= after;
      v6 <= v5; l6 <= l5; y6 <= y5; m6 <= m5; s6 <= after;
    end
  end
  assign out0_data = y6;
  assign out1_data = {{{{10{{m6[21]}}}}, m6, s6}};
endmodule
",
        top = 32 * lanes - 1,
        last_token = tokens - 1,
        last_lane = lanes - 1,
    )
}

fn wrapper(s: Scores) -> String {
    let w = 32 * s.lanes;
    format!(
        "module scores(
  input clk, input rst,
  input [63:0] in0_data, input in0_empty, output in0_pop,
  input [63:0] in1_data, input in1_empty, output in1_pop,
  output [31:0] out0_data, output out0_push, input out0_full,
  output [71:0] out1_data, output out1_push, input out1_full);
  wire [{t}:0] d, q; wire push, full, pop, empty;
  products a(.clk(clk), .rst(rst), .in0_data(in0_data), .in0_empty(in0_empty), .in0_pop(in0_pop), .in1_data(in1_data), .in1_empty(in1_empty), .in1_pop(in1_pop), .out0_data(d), .out0_push(push), .out0_full(full));
  fifo #(.W({w}), .D({depth})) f(.clk(clk), .rst(rst), .push(push), .din(d), .full(full), .pop(pop), .dout(q), .empty(empty));
  statistics b(.clk(clk), .rst(rst), .in0_data(q), .in0_empty(empty), .in0_pop(pop), .out0_data(out0_data), .out0_push(out0_push), .out0_full(out0_full), .out1_data(out1_data), .out1_push(out1_push), .out1_full(out1_full));
endmodule
",
        t = w - 1,
        depth = s.depth
    )
}
