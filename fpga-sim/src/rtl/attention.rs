//! Attention in Edge-MoE's order and the shift form, at any small size: QKᵀ
//! with running statistics, and the whole from Q, K and V to the output.

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
    /// From the sum of products to a score in octaves with 10 fraction bits: a positive factor,
    /// then a shift right, half up.
    pub multiplier: u32,
    /// The shift, at least 1.
    pub shift: u32,
    /// Depth of the FIFO between products and statistics.
    pub depth: u32,
}

/// The pipeline: inputs are query blocks and key blocks in Edge-MoE's order,
/// outputs are scores (one lane a token) and, row by row, `{max, sum}`.
///
/// The statistics are [`super::shift_sum`] with one state a lane; the latency
/// of the products is [`PRODUCTS`], that of the statistics [`STATISTICS`].
pub fn scores(s: Scores) -> Design {
    let verilog = [
        products("scores_products", s),
        statistics("scores_statistics", s, Tail::Statistics),
        scores_wrapper(s),
    ]
    .concat();
    Design {
        name: "scores".into(),
        verilog,
        inputs: vec![64, 64],
        outputs: vec![32, 72],
        latency: PRODUCTS,
    }
}

/// Enabled cycles of the products.
pub const PRODUCTS: u64 = 4;
/// Enabled cycles of the statistics, or of the weights.
pub const STATISTICS: u64 = 6;
/// Enabled cycles from a weight to its row's numerators.
pub const MIX: u64 = 2;
/// Enabled cycles of the reciprocal.
pub const RECIPROCAL: u64 = 9;
/// Enabled cycles of the division.
pub const DIVIDE: u64 = 2;
/// Bits of a numerator: 2^24 · 2^15 for each of up to 256 keys.
const NUMERATOR: u32 = 48;

/// What leaves the unit that weighs scores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Every score, and `{max, sum}` for each row.
    Statistics,
    /// `{last, first, by, weight, sum}` for each score: what the sum over V needs.
    Weights,
}

/// Softmax attention, whole: inputs are query blocks, key blocks and value rows
/// of four words, all in Edge-MoE's order, the output is a row of four words
/// for each query, divided. Nothing of size n × n is kept.
///
/// Equals [`undertone_core::fixed::attention::softmax`] over the keys in the
/// order in which the query's lane sees them (from its own number on, around).
/// Five stages between FIFOs of `depth`: products, weights, mix, reciprocal, divide.
pub fn attention(s: Scores) -> Design {
    let reciprocal = super::reciprocal().verilog;
    let verilog = [
        products("attention_products", s),
        statistics("attention_weights", s, Tail::Weights),
        mix(s),
        reciprocal.replace("module reciprocal(", "module attention_reciprocal("),
        divide(),
        attention_wrapper(s),
    ]
    .concat();
    Design {
        name: "attention".into(),
        verilog,
        inputs: vec![64, 64, 64],
        outputs: vec![64],
        latency: PRODUCTS,
    }
}

/// One stage of [`attention`] as a design of its own, for synthesis:
/// `products`, `weights`, `mix`, `reciprocal` or `divide`.
pub fn attention_stage(s: Scores, stage: &str) -> Design {
    Design { name: format!("attention_{stage}"), ..attention(s) }
}

fn products(name: &str, s: Scores) -> String {
    let Scores { tokens, lanes, blocks, multiplier, shift, .. } = s;
    let rounds = tokens.div_ceil(lanes);
    let rest = (tokens + lanes - 1) % lanes;
    // The last key of the last round: a partial round, or a full one.
    let (last_base, last_key) =
        if rest == 0 { ((rounds - 1) * lanes, tokens - 1) } else { (rounds * lanes, rest - 1) };
    let mut v = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        v,
        "module {name}(
  input clk, input rst,
  input [63:0] in0_data, input in0_empty, output in0_pop,
  input [63:0] in1_data, input in1_empty, output in1_pop,
  output [{}:0] out0_data, output out0_push, input out0_full);
  // base: the first query of the round
  reg [15:0] base, key, block;
  reg v1, v2, v3, v4, first1, first2, last1, last2;
  reg [63:0] k1;
  wire loads = key < 16'd{lanes} && base + key < 16'd{tokens};
  wire en = !(v4 && out0_full);
  wire go = en && !in1_empty && (!loads || !in0_empty);
  assign in0_pop = go && loads;
  assign in1_pop = go;
  assign out0_push = v4 && en;",
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
  reg signed [72:0] m{l};
  wire signed [72:0] y{l} = ((m{l} >>> {}) + 73'sd1) >>> 1;
  wire [31:0] c{l} = (y{l} > 73'sd2147483647) ? 32'h7fffffff : (y{l} < -73'sd2147483648) ? 32'h80000000 : y{l}[31:0];",
            blocks - 1,
            shift - 1
        );
        let _ = writeln!(
            clocked,
            "      q{l} <= mine{l} ? in0_data : kept{l}[block];
      if (go && mine{l}) kept{l}[block] <= in0_data;
      if (v2) s{l} <= n{l};
      m{l} <= s{l} * $signed({{1'b0, 32'd{multiplier}}});"
        );
        for w in 0..4 {
            let _ = writeln!(
                clocked,
                "      p{l}_{w} <= $signed(q{l}[{0} +: 16]) * $signed(k1[{0} +: 16]);",
                16 * w
            );
        }
    }
    let out: Vec<String> = (0..lanes).rev().map(|l| format!("c{l}")).collect();
    let _ = writeln!(
        v,
        "  always @(posedge clk) begin
    if (rst) begin v1 <= 0; v2 <= 0; v3 <= 0; v4 <= 0; base <= 0; key <= 0; block <= 0; end
    else if (en) begin
      v1 <= go; k1 <= in1_data; first1 <= block == 0; last1 <= block == 16'd{last_block};
      if (go) begin
        block <= (block == 16'd{last_block}) ? 16'd0 : block + 16'd1;
        if (block == 16'd{last_block}) begin
          if (base == 16'd{last_base} && key == 16'd{last_key}) begin key <= 0; base <= 0; end
          else if (key == 16'd{last_token}) begin key <= 0; base <= base + 16'd{lanes}; end
          else key <= key + 16'd1;
        end
      end
      v2 <= v1; first2 <= first1; last2 <= last1;
      v3 <= v2 && last2;
      v4 <= v3;
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
fn statistics(name: &str, s: Scores, tail: Tail) -> String {
    let Scores { tokens, lanes, .. } = s;
    let rounds = tokens.div_ceil(lanes);
    let rest = (tokens + lanes - 1) % lanes;
    let (last_base, last_key) =
        if rest == 0 { ((rounds - 1) * lanes, tokens - 1) } else { (rounds * lanes, rest - 1) };
    // The datapath is the single-row unit's; only its head (where elements come from), its two
    // states and its outputs differ.
    let unit = shift_sum().verilog;
    let Some((_, tables)) = unit.split_once("out0_full);\n") else { return String::new() };
    let tables = tables.split("  reg v1").next().unwrap_or_default();
    let (ports, blocked, outputs) = match tail {
        Tail::Statistics => (
            "output [31:0] out0_data, output out0_push, input out0_full,
  output [71:0] out1_data, output out1_push, input out1_full",
            "out0_full || (l6 && out1_full)",
            "  assign out0_data = y6;
  assign out0_push = v6 && en;
  assign out1_push = v6 && l6 && en;
  assign out1_data = {{10{m6[21]}}, m6, s6};",
        ),
        Tail::Weights => (
            "output [72:0] out0_data, output out0_push, input out0_full",
            "out0_full",
            "  reg n6;
  reg [5:0] b6;
  reg [24:0] e6;
  always @(posedge clk) if (en) begin n6 <= n5; b6 <= b5; e6 <= e5; end
  assign out0_data = {l6, n6, b6, e6, s6};
  assign out0_push = v6 && en;",
        ),
    };
    format!(
        "module {name}(
  input clk, input rst,
  input [{top}:0] in0_data, input in0_empty, output in0_pop,
  {ports});
{tables}
  reg [15:0] base, key, lane;
  reg [{top}:0] held;
  reg v1, v2, v3, v4, v5, v6, l1, l2, l3, l4, l5, l6, n1, n2, n3, n4, n5;
  reg [15:0] j1, j2, j3, j4, j5;
  wire en = !(v6 && ({blocked}));
  wire needs = lane == 0;
  wire go = en && (!needs || !in0_empty);
  assign in0_pop = go && needs;
  wire [{top}:0] words = needs ? in0_data : held;
  wire signed [31:0] x = words[32 * lane +: 32];
  wire signed [31:0] xc = (x > 32'sd2147482623) ? 32'sd2147482623 : x;
  wire signed [31:0] up = xc + 32'sd1023;
  // A row begins with the key of its lane's number and ends one key earlier in the next round.
  wire begins = key == lane;
  wire [15:0] end_key = (lane == 0) ? 16'd{last_token} : lane - 16'd1;
  wire [15:0] query = (key >= lane) ? base + lane : base - 16'd{lanes} + lane;
  wire ends = key == end_key && (key >= lane || base != 0) && query < 16'd{tokens};
  reg signed [31:0] x1, x2, y1, y2, y3, y4, y5, y6;
  reg signed [21:0] c1;
  reg signed [21:0] m [0:{last_lane}];
  reg signed [21:0] m2, m3, m4, m5, m6;
  wire signed [21:0] known = n1 ? -22'sd2097152 : m[j1];
  wire signed [21:0] raised = (c1 > known) ? c1 : known;
  wire [22:0] by = raised - known;
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
    if (rst) begin v1 <= 0; v2 <= 0; v3 <= 0; v4 <= 0; v5 <= 0; v6 <= 0; base <= 0; key <= 0; lane <= 0; end
    else if (en) begin
      v1 <= go; l1 <= ends; n1 <= begins; j1 <= lane; x1 <= xc; y1 <= x; c1 <= up[31:10];
      if (go) begin
        if (needs) held <= in0_data;
        lane <= (lane == 16'd{last_lane}) ? 16'd0 : lane + 16'd1;
        if (lane == 16'd{last_lane}) begin
          if (base == 16'd{last_base} && key == 16'd{last_key}) begin key <= 0; base <= 0; end
          else if (key == 16'd{last_token}) begin key <= 0; base <= base + 16'd{lanes}; end
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
{outputs}
endmodule
",
        top = 32 * lanes - 1,
        last_token = tokens - 1,
        last_lane = lanes - 1,
    )
}

/// Numerators of a row: `a = (a >> by) + w·v`, a state for each lane, and the
/// row's sum beside them.
fn mix(s: Scores) -> String {
    let mut words = String::new();
    let mut clocked = String::new();
    for c in 0..4 {
        let _ = writeln!(
            words,
            "  reg signed [{top}:0] a{c} [0:{last}]; reg signed [41:0] p{c}; reg signed [{top}:0] r{c};
  wire signed [{top}:0] base{c} = n1 ? {NUMERATOR}'sd0 : a{c}[j1];
  wire signed [{top}:0] next{c} = (base{c} >>> b1) + p{c};",
            top = NUMERATOR - 1,
            last = s.lanes - 1,
        );
        let _ = writeln!(
            clocked,
            "      p{c} <= $signed({{1'b0, in0_data[64:40]}}) * $signed(v[{0} +: 16]);
      if (v1) a{c}[j1] <= next{c};
      r{c} <= next{c};",
            16 * c
        );
    }
    format!(
        "module attention_mix(
  input clk, input rst,
  input [72:0] in0_data, input in0_empty, output in0_pop,
  input [63:0] in1_data, input in1_empty, output in1_pop,
  output [63:0] out0_data, output out0_push, input out0_full,
  output [{wide}:0] out1_data, output out1_push, input out1_full);
  reg [15:0] lane, j1;
  reg [63:0] held;
  reg v1, v2, l1, l2, n1;
  reg [5:0] b1;
  reg [39:0] s1, s2;
  wire needs = lane == 0;
  wire en = !(v2 && l2 && (out0_full || out1_full));
  wire go = en && !in0_empty && (!needs || !in1_empty);
  assign in0_pop = go;
  assign in1_pop = go && needs;
  assign out0_push = v2 && l2 && en;
  assign out1_push = out0_push;
  wire [63:0] v = needs ? in1_data : held;
{words}  always @(posedge clk) begin
    if (rst) begin v1 <= 0; v2 <= 0; lane <= 0; end
    else if (en) begin
      v1 <= go; l1 <= in0_data[72]; n1 <= in0_data[71]; b1 <= in0_data[70:65]; s1 <= in0_data[39:0]; j1 <= lane;
      if (go) begin
        if (needs) held <= in1_data;
        lane <= (lane == 16'd{last}) ? 16'd0 : lane + 16'd1;
      end
      v2 <= v1; l2 <= l1; s2 <= s1;
{clocked}    end
  end
  assign out0_data = {{24'd0, s2}};
  assign out1_data = {{r3, r2, r1, r0}};
endmodule
",
        wide = 4 * NUMERATOR - 1,
        last = s.lanes - 1,
    )
}

/// Numerators times `{exponent, mantissa}`, half up, saturated to 16 bits.
fn divide() -> String {
    let mut words = String::new();
    let mut clocked = String::new();
    for c in 0..4 {
        let _ = writeln!(
            words,
            "  wire signed [{top}:0] a{c} = in0_data[{low} +: {NUMERATOR}]; reg signed [{p}:0] p{c}; reg [15:0] y{c};
  wire signed [{p}:0] r{c} = ((p{c} >>> (by - 8'd1)) + {bits}'sd1) >>> 1;",
            top = NUMERATOR - 1,
            low = NUMERATOR * c,
            p = NUMERATOR + 32,
            bits = NUMERATOR + 33,
        );
        let _ = writeln!(
            clocked,
            "      p{c} <= a{c} * $signed({{1'b0, in1_data[31:0]}});
      y{c} <= (r{c} > {bits}'sd32767) ? 16'h7fff : (r{c} < -{bits}'sd32768) ? 16'h8000 : r{c}[15:0];",
            bits = NUMERATOR + 33,
        );
    }
    format!(
        "module attention_divide(
  input clk, input rst,
  input [{wide}:0] in0_data, input in0_empty, output in0_pop,
  input [39:0] in1_data, input in1_empty, output in1_pop,
  output [63:0] out0_data, output out0_push, input out0_full);
  reg v1, v2;
  reg [7:0] by;
  wire en = !(v2 && out0_full);
  wire go = en && !in0_empty && !in1_empty;
  assign in0_pop = go;
  assign in1_pop = go;
  assign out0_push = v2 && en;
{words}  always @(posedge clk) begin
    if (rst) begin v1 <= 0; v2 <= 0; end
    else if (en) begin
      v1 <= go; by <= 8'd0 - in1_data[39:32];
      v2 <= v1;
{clocked}    end
  end
  assign out0_data = {{y3, y2, y1, y0}};
endmodule
",
        wide = 4 * NUMERATOR - 1,
    )
}

/// Pins of an instance: `(port, wire)` pairs, a wire giving `_data`, and the handshakes.
fn pins(inputs: &[&str], outputs: &[&str]) -> String {
    let mut v = String::from(".clk(clk), .rst(rst)");
    for (i, w) in inputs.iter().enumerate() {
        let _ = write!(v, ", .in{i}_data({w}_data), .in{i}_empty({w}_empty), .in{i}_pop({w}_pop)");
    }
    for (o, w) in outputs.iter().enumerate() {
        let _ =
            write!(v, ", .out{o}_data({w}_din), .out{o}_push({w}_push), .out{o}_full({w}_full)");
    }
    v
}

fn attention_wrapper(s: Scores) -> String {
    let mut v = String::from(
        "module attention(
  input clk, input rst,
  input [63:0] in0_data, input in0_empty, output in0_pop,
  input [63:0] in1_data, input in1_empty, output in1_pop,
  input [63:0] in2_data, input in2_empty, output in2_pop,
  output [63:0] out0_data, output out0_push, input out0_full);
  wire [63:0] out0_din;
  assign out0_data = out0_din;
",
    );
    for (name, width) in [
        ("qk", 32 * s.lanes),
        ("weights", 73),
        ("sums", 64),
        ("numerators", 4 * NUMERATOR),
        ("reciprocals", 40),
    ] {
        let _ = writeln!(
            v,
            "  wire [{top}:0] {name}_din, {name}_data; wire {name}_push, {name}_full, {name}_pop, {name}_empty;
  fifo #(.W({width}), .D({depth})) {name}(.clk(clk), .rst(rst), .push({name}_push), .din({name}_din), .full({name}_full), .pop({name}_pop), .dout({name}_data), .empty({name}_empty));",
            top = width - 1,
            depth = s.depth
        );
    }
    for (stage, inputs, outputs) in [
        ("products", &["in0", "in1"][..], &["qk"][..]),
        ("weights", &["qk"], &["weights"]),
        ("mix", &["weights", "in2"], &["sums", "numerators"]),
        ("reciprocal", &["sums"], &["reciprocals"]),
        ("divide", &["numerators", "reciprocals"], &["out0"]),
    ] {
        let _ = writeln!(v, "  attention_{stage} u_{stage}({});", pins(inputs, outputs));
    }
    v.push_str("endmodule\n");
    v
}

fn scores_wrapper(s: Scores) -> String {
    let w = 32 * s.lanes;
    format!(
        "module scores(
  input clk, input rst,
  input [63:0] in0_data, input in0_empty, output in0_pop,
  input [63:0] in1_data, input in1_empty, output in1_pop,
  output [31:0] out0_data, output out0_push, input out0_full,
  output [71:0] out1_data, output out1_push, input out1_full);
  wire [{t}:0] d, q; wire push, full, pop, empty;
  scores_products a(.clk(clk), .rst(rst), .in0_data(in0_data), .in0_empty(in0_empty), .in0_pop(in0_pop), .in1_data(in1_data), .in1_empty(in1_empty), .in1_pop(in1_pop), .out0_data(d), .out0_push(push), .out0_full(full));
  fifo #(.W({w}), .D({depth})) f(.clk(clk), .rst(rst), .push(push), .din(d), .full(full), .pop(pop), .dout(q), .empty(empty));
  scores_statistics b(.clk(clk), .rst(rst), .in0_data(q), .in0_empty(empty), .in0_pop(pop), .out0_data(out0_data), .out0_push(out0_push), .out0_full(out0_full), .out1_data(out1_data), .out1_push(out1_push), .out1_full(out1_full));
endmodule
",
        t = w - 1,
        depth = s.depth
    )
}
