//! Units between FIFOs, several in one top module, and the C++ that drives them.

use super::Design;
use std::fmt::Write as _;

/// A unit with FIFOs of given depths around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bench {
    /// The unit.
    pub design: Design,
    /// Depth of the FIFO at each input.
    pub input_depths: Vec<u32>,
    /// Depth of the FIFO at each output.
    pub output_depths: Vec<u32>,
}

/// A registered FIFO: what is pushed in cycle t can be popped from t + 1 on,
/// what is popped in t makes room from t + 1 on.
fn fifo() -> &'static str {
    "module fifo #(parameter W = 1, parameter D = 1) (
  input clk, input rst,
  input push, input [W-1:0] din, output full,
  input pop, output [W-1:0] dout, output empty);
  reg [W-1:0] words [0:D-1];
  reg [15:0] head, tail, count;
  assign full = count == D;
  assign empty = count == 0;
  assign dout = words[head];
  always @(posedge clk) begin
    if (rst) begin head <= 0; tail <= 0; count <= 0; end
    else begin
      if (push) begin words[tail] <= din; tail <= (tail == D-1) ? 0 : tail + 1; end
      if (pop) head <= (head == D-1) ? 0 : head + 1;
      count <= count + {15'b0, push} - {15'b0, pop};
    end
  end
endmodule
"
}

/// One Verilog file: all units, the FIFO, and a module `top` with a 64-bit
/// input port for each stream in and two 64-bit ports for each stream out.
pub fn top(benches: &[Bench]) -> String {
    let mut v = String::from(fifo());
    let mut seen = Vec::new();
    for bench in benches {
        if !seen.contains(&&bench.design.name) {
            v.push_str(&bench.design.verilog);
            seen.push(&bench.design.name);
        }
    }
    let (mut ports, mut body) = (String::new(), String::new());
    // Writing to a String cannot fail.
    for (b, bench) in benches.iter().enumerate() {
        let mut pins = String::new();
        for (i, (width, depth)) in bench.design.inputs.iter().zip(&bench.input_depths).enumerate() {
            let s = format!("b{b}_in{i}");
            let _ = write!(
                ports,
                ",\n  input {s}_push, input [63:0] {s}_data, output {s}_full, output {s}_popped"
            );
            let _ = writeln!(
                body,
                "  wire [{w}:0] {s}_q; wire {s}_empty, {s}_pop;
  fifo #(.W({width}), .D({depth})) {s}(.clk(clk), .rst(rst), .push({s}_push), .din({s}_data[{w}:0]), .full({s}_full), .pop({s}_pop), .dout({s}_q), .empty({s}_empty));
  assign {s}_popped = {s}_pop;",
                w = width - 1
            );
            let _ =
                write!(pins, ", .in{i}_data({s}_q), .in{i}_empty({s}_empty), .in{i}_pop({s}_pop)");
        }
        for (o, (width, depth)) in bench.design.outputs.iter().zip(&bench.output_depths).enumerate()
        {
            let s = format!("b{b}_out{o}");
            let _ = write!(
                ports,
                ",\n  input {s}_pop, output [63:0] {s}_lo, output [63:0] {s}_hi, output {s}_empty, output {s}_pushed"
            );
            let _ = writeln!(
                body,
                "  wire [{w}:0] {s}_d, {s}_q; wire {s}_full, {s}_push;
  wire [127:0] {s}_wide = {{{{{pad}{{1'b0}}}}, {s}_q}};
  fifo #(.W({width}), .D({depth})) {s}(.clk(clk), .rst(rst), .push({s}_push), .din({s}_d), .full({s}_full), .pop({s}_pop), .dout({s}_q), .empty({s}_empty));
  assign {s}_pushed = {s}_push;
  assign {s}_lo = {s}_wide[63:0];
  assign {s}_hi = {s}_wide[127:64];",
                w = width - 1,
                pad = 129 - width
            );
            let _ = write!(
                pins,
                ", .out{o}_data({s}_d), .out{o}_push({s}_push), .out{o}_full({s}_full)"
            );
        }
        let _ = writeln!(body, "  {} b{b}(.clk(clk), .rst(rst){pins});", bench.design.name);
    }
    let _ = write!(v, "module top(\n  input clk, input rst{ports});\n{body}endmodule\n");
    v
}

/// C++ for Verilator: reads from the file `argv[1]`, for each input stream in
/// order, the count (u64), gaps (u64 each) and data (u64 each), and for each
/// output stream the count and gaps; writes to `argv[2]` for each input the
/// cycles in which the unit popped, and for each output the cycles of its
/// pushes, then low and high words as its sink saw them. `argv[3]` bounds the
/// cycles. Prints cycles and processor seconds. All words are little-endian, as the machine's.
pub fn harness(benches: &[Bench]) -> String {
    let (mut sources, mut sinks) = (Vec::new(), Vec::new());
    for (b, bench) in benches.iter().enumerate() {
        sources.extend((0..bench.design.inputs.len()).map(|i| format!("b{b}_in{i}")));
        sinks.extend((0..bench.design.outputs.len()).map(|o| format!("b{b}_out{o}")));
    }
    let (mut offer, mut record) = (String::new(), String::new());
    for (i, s) in sources.iter().enumerate() {
        let _ = writeln!(
            offer,
            "    top->{s}_push = in[{i}].offer(top->{s}_full); top->{s}_data = in[{i}].word();"
        );
        let _ = writeln!(
            record,
            "    if (top->{s}_popped) in[{i}].pops.push_back(t);\n    in[{i}].done(top->{s}_push);"
        );
    }
    for (o, s) in sinks.iter().enumerate() {
        let _ = writeln!(
            offer,
            "    top->{s}_pop = out[{o}].take(t, top->{s}_empty, top->{s}_lo, top->{s}_hi);"
        );
        let _ = writeln!(record, "    if (top->{s}_pushed) out[{o}].pushes.push_back(t);");
    }
    format!(
        r#"#include "Vtop.h"
#include "verilated.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>
typedef std::vector<uint64_t> Words;
static FILE *file;
static uint64_t word() {{ uint64_t w; if (fread(&w, 8, 1, file) != 1) {{ fprintf(stderr, "short input\n"); exit(2); }} return w; }}
static Words words(uint64_t n) {{ Words w(n); for (auto &x : w) x = word(); return w; }}
static void put(const Words &w) {{ uint64_t n = w.size(); fwrite(&n, 8, 1, file); fwrite(w.data(), 8, n, file); }}
// A stage without inputs: starts lie 1 + gap of its own cycles apart, a start is pushed one
// cycle later, and its clock stands while the push finds the FIFO full.
struct Source {{
  Words gap, data, pops; size_t at = 0; uint64_t local = 0, due = 0;
  bool offer(bool full) {{
    if (at < data.size() && local == due) {{ if (full) return false; local++; return true; }}
    local++; return false;
  }}
  uint64_t word() const {{ return at < data.size() ? data[at] : 0; }}
  void done(bool pushed) {{ if (pushed && ++at < data.size()) due += 1 + gap[at]; }}
}};
struct Sink {{
  Words gap, pushes, lo, hi; size_t at = 0; uint64_t next = 0;
  bool take(uint64_t t, bool empty, uint64_t l, uint64_t h) {{
    if (empty || at >= gap.size() || t < next) return false;
    lo.push_back(l); hi.push_back(h);
    if (++at < gap.size()) next = t + 1 + gap[at];
    return true;
  }}
}};
int main(int argc, char **argv) {{
  if (argc != 4) return 2;
  Source in[{ins}]; Sink out[{outs}];
  file = fopen(argv[1], "rb"); if (!file) return 2;
  for (auto &s : in) {{ uint64_t n = ::word(); s.gap = words(n); s.data = words(n); s.due = n ? s.gap[0] + 1 : 0; }}
  for (auto &s : out) {{ uint64_t n = ::word(); s.gap = words(n); s.next = n ? s.gap[0] : 0; }}
  fclose(file);
  uint64_t limit = strtoull(argv[3], 0, 10), t = 0;
  VerilatedContext context; Vtop *top = new Vtop(&context);
  top->rst = 1;
  for (int i = 0; i < 4; i++) {{ top->clk = 0; top->eval(); top->clk = 1; top->eval(); }}
  top->rst = 0; top->clk = 0; top->eval();
  clock_t start = clock();
  for (; t < limit; t++) {{
    bool busy = false;
    for (auto &s : out) busy |= s.at < s.gap.size();
    if (!busy) break;
{offer}    top->eval();
{record}    top->clk = 1; top->eval(); top->clk = 0; top->eval();
  }}
  double seconds = double(clock() - start) / CLOCKS_PER_SEC;
  file = fopen(argv[2], "wb"); if (!file) return 2;
  for (auto &s : in) put(s.pops);
  for (auto &s : out) {{ put(s.pushes); put(s.lo); put(s.hi); }}
  fclose(file);
  top->final(); delete top;
  printf("%llu cycles, %.6f s of processor time\n", (unsigned long long)t, seconds);
  return t < limit ? 0 : 1;
}}
"#,
        ins = sources.len(),
        outs = sinks.len(),
    )
}
