//! From an operator to the dataflow graph that runs it, and to its ideal
//! number of cycles.
//!
//! The graphs follow Edge-MoE's HLS source: streams of blocks between small
//! processes, external memory at both ends. Ideal means initiation intervals
//! of 1, no latency and memory that never waits.

mod moe;

use crate::arch::{Arch, Dataflow, SoftmaxForm};
use crate::error::{Error, Result};
use crate::graph::{Access, Direction, FifoId, Graph, Phase, PortId, StageId, Window};
use crate::workload::{Operator, Step, Weighting};
use moe::{experts, gate, rowwise, stream};

/// Unit that does an operator's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// The matrix unit.
    Linear,
    /// The attention unit.
    Attention,
    /// The elementwise unit.
    Vector,
}

impl Operator {
    /// The unit that does the work.
    pub const fn unit(&self) -> Unit {
        match self {
            Self::Linear { .. } | Self::Experts { .. } => Unit::Linear,
            Self::Scores { .. } | Self::Mix { .. } => Unit::Attention,
            Self::Norm { .. } | Self::Add { .. } | Self::Elementwise { .. } | Self::Gate { .. } => {
                Unit::Vector
            }
        }
    }
}

/// `len·⌈out/C⌉·⌈in/R⌉`: cycles of a linear layer on a broadcast unit.
pub fn linear_cycles(arch: &Arch, tokens: u64, inputs: u64, outputs: u64) -> u64 {
    tokens * outputs.div_ceil(arch.linear.columns) * inputs.div_ceil(arch.linear.rows)
}

/// Beats of a layer's weights at one row of `R` words a beat (Edge-MoE's
/// `out·⌈in/16⌉` at 256 bits), or more where the port is narrower.
pub fn weight_beats(arch: &Arch, inputs: u64, outputs: u64) -> u64 {
    let words = (arch.memory.width_bits / u64::from(arch.formats.weight_bits)).max(1);
    let beat_cost = u64::from(arch.formats.weight_bits).div_ceil(arch.memory.width_bits);
    outputs * inputs.div_ceil(words) * beat_cost
}

/// Iterations of the reordered attention: lane `j` begins its query at key
/// `j`, so queries load one block a cycle and never stall the keys:
/// `⌊(N+P−1)/P⌋·N·D/B + ((N+P−1) mod P)·D/B`.
///
/// ```
/// use undertone_fpga_sim::mapping::attention_cycles;
/// assert_eq!(attention_cycles(129, 4, 192 / 8), 102_168);
/// assert_eq!(attention_cycles(197, 4, 192 / 8), 236_400);
/// ```
pub const fn attention_cycles(tokens: u64, lanes: u64, blocks: u64) -> u64 {
    let n = tokens + lanes - 1;
    (n / lanes) * tokens * blocks + (n % lanes) * blocks
}

/// Cycles of a weight-stationary systolic array, in SCALE-Sim's count (index
/// of the last cycle): `folds·(2R+C+M−2) − 1`.
///
/// ```
/// assert_eq!(undertone_fpga_sim::mapping::systolic_cycles(16, 16, 129, 192, 192), 25_199);
/// ```
pub const fn systolic_cycles(rows: u64, columns: u64, m: u64, n: u64, k: u64) -> u64 {
    let folds = k.div_ceil(rows) * n.div_ceil(columns);
    folds * (2 * rows + columns + m - 2) - 1
}

/// Words of a query or key block and blocks of a token, by weighting.
fn attention_blocks(arch: &Arch, dim: u64, weighting: Weighting) -> u64 {
    match weighting {
        // One bit a word: a block of the same bits holds that many more words.
        Weighting::BiVit => {
            dim.div_ceil(arch.attention.block_words * u64::from(arch.formats.activation_bits))
        }
        _ => dim.div_ceil(arch.attention.block_words),
    }
}

/// Ideal cycles of an operator, weights already loaded.
///
/// # Errors
/// A bad shape, or more lanes than tokens.
pub fn ideal_cycles(arch: &Arch, step: &Step) -> Result<u64> {
    step.operator.check(&step.name)?;
    let vector = |tokens: u64, dim: u64| tokens * dim.div_ceil(arch.vector.words);
    Ok(match &step.operator {
        Operator::Linear { tokens, inputs, outputs, .. } => match arch.linear.dataflow {
            Dataflow::Broadcast => linear_cycles(arch, *tokens, *inputs, *outputs),
            Dataflow::WeightStationary => {
                systolic_cycles(arch.linear.rows, arch.linear.columns, *tokens, *outputs, *inputs)
                    + 1
            }
        },
        Operator::Scores { tokens, dim, weighting, .. }
        | Operator::Mix { tokens, dim, weighting, .. } => {
            let lanes = arch.attention.lanes;
            if *tokens <= lanes {
                return Err(Error::Workload {
                    operator: step.name.clone(),
                    reason: "reordered attention needs more tokens than lanes",
                });
            }
            let blocks = attention_blocks(arch, *dim, *weighting);
            let scores = matches!(step.operator, Operator::Scores { .. });
            match weighting {
                // Keys × values once, then queries: both passes run over codes of `bits` bits a head.
                Weighting::EcoFormer { bits } => tokens * blocks * u64::from(*bits).div_ceil(lanes),
                // The sum of exponentials needs the maximum first: one more pass over the stored scores.
                Weighting::Softmax if scores && arch.softmax.form == SoftmaxForm::TwoPass => {
                    attention_cycles(*tokens, lanes, blocks) + tokens * tokens
                }
                _ => attention_cycles(*tokens, lanes, blocks),
            }
        }
        Operator::Norm { tokens, dim }
        | Operator::Add { tokens, dim }
        | Operator::Elementwise { tokens, dim } => vector(*tokens, *dim),
        Operator::Gate { tokens, dim, experts, .. } => {
            // Read and multiply, softmax statistics, the best; then the experts' sums are cleared.
            let each = dim.div_ceil(arch.vector.words)
                + arch.vector.gate_softmax_interval * experts
                + experts;
            tokens * each + vector(*tokens, *dim)
        }
        Operator::Experts { queues, dim, hidden, .. } => queues
            .iter()
            .map(|q| {
                linear_cycles(arch, *q, *dim, *hidden) + linear_cycles(arch, *q, *hidden, *dim)
            })
            .sum(),
    })
}

/// Weight loads of an operator in beats, in order; what ping-pong would hide.
pub fn loads(arch: &Arch, operator: &Operator) -> Vec<u64> {
    match operator {
        Operator::Linear { inputs, outputs, resident: false, .. } => {
            vec![weight_beats(arch, *inputs, *outputs)]
        }
        Operator::Experts { queues, dim, hidden, .. } => queues
            .iter()
            .filter(|q| **q > 0)
            .flat_map(|_| [weight_beats(arch, *dim, *hidden), weight_beats(arch, *hidden, *dim)])
            .collect(),
        _ => Vec::new(),
    }
}

/// Builds graphs over one architecture: hands out ports and streams.
struct Builder<'a> {
    arch: &'a Arch,
    graph: Graph,
    ports: Vec<PortId>,
    reads: usize,
    writes: usize,
    address: u64,
}

impl<'a> Builder<'a> {
    fn new(arch: &'a Arch) -> Self {
        let mut graph = Graph::default();
        let ports =
            (0..arch.memory.ports).map(|p| graph.port(arch.port(&format!("axi{p}")))).collect();
        Self { arch, graph, ports, reads: 0, writes: 0, address: 0 }
    }

    /// Beats of a token of `bits` bits.
    fn beats(&self, bits: u64) -> u64 {
        bits.div_ceil(self.arch.memory.width_bits).max(1)
    }

    fn bind(&mut self, stage: StageId, direction: Direction, region_bytes: u64) {
        let turn = match direction {
            Direction::Read => &mut self.reads,
            Direction::Write => &mut self.writes,
        };
        let port = self.ports[*turn % self.ports.len()];
        *turn += 1;
        // Whole bursts keep every one inside its 4 KiB boundary.
        let burst = self.arch.memory.burst_beats * self.arch.memory.width_bits / 8;
        let region_bytes = region_bytes.max(1).next_multiple_of(burst);
        let access = Access { port, direction, address: self.address, region_bytes };
        self.address += region_bytes;
        self.graph.bind(stage, access);
    }

    /// A stream of `tokens` tokens of `bits` bits from memory; the region
    /// holds `distinct` of them and is read over and over.
    fn read(&mut self, name: &str, depth: u64, bits: u64, tokens: u64, distinct: u64) -> FifoId {
        let beats = self.beats(bits);
        let fifo = self.graph.fifo(name, depth, u32::try_from(bits).unwrap_or(u32::MAX));
        let stage = self.graph.stage(
            &format!("read_{name}"),
            1,
            1,
            tokens * beats,
            &[],
            &[(fifo, Window::last_of(beats))],
        );
        self.bind(stage, Direction::Read, distinct * beats * self.arch.memory.width_bits / 8);
        fifo
    }

    /// A stream of tokens to memory.
    fn write(&mut self, name: &str, depth: u64, bits: u64, tokens: u64) -> FifoId {
        let beats = self.beats(bits);
        let fifo = self.graph.fifo(name, depth, u32::try_from(bits).unwrap_or(u32::MAX));
        let stage = self.graph.stage(
            &format!("write_{name}"),
            1,
            1,
            tokens * beats,
            &[(fifo, Window::first_of(beats))],
            &[],
        );
        self.bind(stage, Direction::Write, tokens * beats * self.arch.memory.width_bits / 8);
        fifo
    }
}

/// The dataflow graphs of an operator, run one after the other, memory and
/// latencies included. Nearly always there is one; softmax in two passes reads
/// the stored scores again.
///
/// # Errors
/// A bad shape, or an operator that the architecture has no unit for.
pub fn graphs(arch: &Arch, step: &Step) -> Result<Vec<Graph>> {
    let mut all = vec![graph(arch, step)?];
    if let Operator::Scores { tokens, heads, weighting: Weighting::Softmax, .. } = step.operator
        && arch.softmax.form == SoftmaxForm::TwoPass
    {
        all.push(second_pass(arch, tokens, heads)?);
    }
    Ok(all)
}

/// read_scores → exponentials and sums → write_info.
fn second_pass(arch: &Arch, tokens: u64, heads: u64) -> Result<Graph> {
    let mut b = Builder::new(arch);
    let bits = heads * u64::from(arch.formats.activation_bits);
    let all = tokens * tokens;
    let x = b.read("scores", arch.attention.fifo_depth, bits, all, all);
    let y = b.write("info", arch.attention.fifo_depth, 2 * bits, tokens);
    let s = &arch.softmax;
    b.graph.stage(
        "sums",
        s.interval,
        s.latency,
        all,
        &[(x, Window::ALWAYS)],
        &[(y, Window::last_of(tokens))],
    );
    b.graph.check()?;
    Ok(b.graph)
}

/// The first (nearly always the only) graph of an operator.
///
/// # Errors
/// As [`graphs`].
pub fn graph(arch: &Arch, step: &Step) -> Result<Graph> {
    ideal_cycles(arch, step)?;
    let mut b = Builder::new(arch);
    match &step.operator {
        Operator::Linear { tokens, inputs, outputs, .. } => match arch.linear.dataflow {
            Dataflow::Broadcast => linear(&mut b, *tokens, *inputs, *outputs),
            Dataflow::WeightStationary => systolic(&mut b, *tokens, *inputs, *outputs),
        },
        Operator::Scores { tokens, heads, dim, weighting } => match weighting {
            Weighting::EcoFormer { .. } => {
                stream(&mut b, ideal_cycles(arch, step)?, *tokens * dim, 2)
            }
            _ => scores(
                &mut b,
                *tokens,
                *heads,
                attention_blocks(arch, *dim, *weighting),
                *weighting,
            ),
        },
        Operator::Mix { tokens, heads, dim, weighting } => match weighting {
            Weighting::EcoFormer { .. } => {
                stream(&mut b, ideal_cycles(arch, step)?, *tokens * dim, 1)
            }
            _ => mix(&mut b, *tokens, *heads, attention_blocks(arch, *dim, *weighting)),
        },
        Operator::Norm { tokens, dim } | Operator::Elementwise { tokens, dim } => {
            rowwise(&mut b, *tokens, dim.div_ceil(arch.vector.words), 1);
        }
        Operator::Add { tokens, dim } => {
            rowwise(&mut b, *tokens, dim.div_ceil(arch.vector.words), 2)
        }
        Operator::Gate { tokens, dim, experts, chosen } => {
            gate(&mut b, *tokens, *dim, *experts, *chosen)
        }
        Operator::Experts { queues, dim, hidden, .. } => {
            if arch.linear.dataflow == Dataflow::WeightStationary {
                return Err(Error::Unmapped {
                    operator: step.name.clone(),
                    needs: "a broadcast matrix unit with gating queues",
                    arch: arch.name.clone(),
                });
            }
            experts(&mut b, queues, *dim, *hidden);
        }
    }
    b.graph.check()?;
    Ok(b.graph)
}

/// read_x → linear unit → write_y: one flattened loop over token, output block, input block.
fn linear(b: &mut Builder<'_>, tokens: u64, inputs: u64, outputs: u64) {
    let l = b.arch.linear.clone();
    let bits = u64::from(b.arch.formats.activation_bits);
    let (ins, outs) = (inputs.div_ceil(l.rows), outputs.div_ceil(l.columns));
    let x = b.read("x", l.fifo_depth, l.rows * bits, tokens * ins, tokens * ins);
    let y = b.write("y", 2, l.columns * bits, tokens * outs);
    b.graph.stage(
        "linear",
        l.interval,
        l.latency,
        tokens * outs * ins,
        &[(x, Window::prefix(ins, outs * ins))],
        &[(y, Window::last_of(ins))],
    );
}

/// One fold after another: R cycles of weights, then M + R + C − 2 of streaming.
fn systolic(b: &mut Builder<'_>, m: u64, k: u64, n: u64) {
    let l = b.arch.linear.clone();
    let folds = k.div_ceil(l.rows) * n.div_ceil(l.columns);
    let fold = 2 * l.rows + l.columns + m - 2;
    b.graph.stage("array", 1, 1, folds * fold, &[], &[]);
}

/// Timing of the two stages that make scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreStages {
    /// Queries and keys.
    pub tokens: u64,
    /// Queries under way at once.
    pub lanes: u64,
    /// Blocks of a token.
    pub blocks: u64,
    /// Interval and latency of the products.
    pub products: (u64, u64),
    /// Interval and latency of the statistics.
    pub statistics: (u64, u64),
    /// Depth and width in bits of the FIFO between them.
    pub between: (u64, u32),
}

impl ScoreStages {
    /// Adds products and statistics: query and key blocks come from `q` and
    /// `k`, scores leave by `out`, one lane a token, and a row's statistics by
    /// `info` once its lane has seen all keys.
    pub fn add(&self, g: &mut Graph, q: FifoId, k: FifoId, out: FifoId, info: Option<FifoId>) {
        let Self { lanes, .. } = *self;
        let logits = self.add_products(g, q, k);
        let keys = self.keys();
        let stage = g.stage(
            "statistics",
            self.statistics.0,
            self.statistics.1,
            keys * lanes,
            &[(logits, Window::first_of(lanes))],
            &[(out, Window::ALWAYS)],
        );
        let Some(info) = info else { return };
        let (head, ends) = self.row_ends();
        let phase = |iterations, info| Phase {
            iterations,
            gap: 0,
            inputs: vec![Window::first_of(lanes)],
            outputs: vec![Window::ALWAYS, info],
        };
        let stage = &mut g.stages[stage.0];
        stage.outputs.push(info);
        stage.program = vec![phase(head, Window::NEVER), phase(keys * lanes - head, ends)];
    }

    /// Keys that pass, all rounds together.
    fn keys(&self) -> u64 {
        attention_cycles(self.tokens, self.lanes, self.blocks) / self.blocks
    }

    fn add_products(&self, g: &mut Graph, q: FifoId, k: FifoId) -> FifoId {
        let Self { tokens: n, lanes, blocks, .. } = *self;
        let logits = g.fifo("qk", self.between.0, self.between.1);
        let loaded = (n / lanes) * n * blocks + (n % lanes) * blocks;
        g.stage(
            "products",
            self.products.0,
            self.products.1,
            self.keys() * blocks,
            &[(q, Window::prefix(lanes * blocks, n * blocks).until(loaded)), (k, Window::ALWAYS)],
            &[(logits, Window::last_of(blocks))],
        );
        logits
    }

    /// Iterations, one a key and lane, before the first row ends, and in which after that rows
    /// end: lane 0 has seen all keys with the last key of a round, lane j with key j − 1 of the
    /// next.
    fn row_ends(&self) -> (u64, Window) {
        let Self { tokens: n, lanes, .. } = *self;
        let finished = (n / lanes) * n * lanes + (n % lanes) * (lanes + 1);
        ((n - 1) * lanes, Window::comb(lanes, lanes + 1, n * lanes).until(finished))
    }

    /// Adds the whole of attention in one pass: products → weights → mix →
    /// reciprocal → divide, with FIFOs of the depth of `between`. Value rows
    /// come from `v` in the order of the keys, rows of results leave by `out`.
    pub fn add_attention(
        &self,
        g: &mut Graph,
        [q, k, v]: [FifoId; 3],
        out: FifoId,
        tail: AttentionTail,
    ) {
        let (lanes, depth) = (self.lanes, self.between.0);
        let logits = self.add_products(g, q, k);
        let all = self.keys() * lanes;
        let [weights, sums, numerators, reciprocals] =
            [("weights", 73), ("sums", 64), ("numerators", 192), ("reciprocals", 40)]
                .map(|(name, bits)| g.fifo(name, depth, bits));
        let (interval, latency) = self.statistics;
        let once = [(logits, Window::first_of(lanes))];
        g.stage("weights", interval, latency, all, &once, &[(weights, Window::ALWAYS)]);
        let (head, ends) = self.row_ends();
        let ins = [(weights, Window::ALWAYS), (v, Window::first_of(lanes))];
        let outs = [(sums, Window::NEVER), (numerators, Window::NEVER)];
        let mix = g.stage("mix", 1, tail.mix, all, &ins, &outs);
        let first = g.stages[mix.0].program[0].clone();
        g.stages[mix.0].program = vec![
            Phase { iterations: head, ..first.clone() },
            Phase { iterations: all - head, outputs: vec![ends; 2], ..first },
        ];
        let (sum, reciprocal) = ([(sums, Window::ALWAYS)], [(reciprocals, Window::ALWAYS)]);
        g.stage("reciprocal", 1, tail.reciprocal, self.tokens, &sum, &reciprocal);
        let both = [(numerators, Window::ALWAYS), (reciprocals, Window::ALWAYS)];
        g.stage("divide", 1, tail.divide, self.tokens, &both, &[(out, Window::ALWAYS)]);
    }
}

/// Latencies of the stages behind the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionTail {
    /// From a weight to its row's numerators.
    pub mix: u64,
    /// The reciprocal.
    pub reciprocal: u64,
    /// The division.
    pub divide: u64,
}

/// read_q, read_k → products → statistics → write_scores, write_info.
fn scores(b: &mut Builder<'_>, tokens: u64, heads: u64, blocks: u64, weighting: Weighting) {
    let (a, s) = (b.arch.attention.clone(), b.arch.softmax.clone());
    let (n, lanes, bits) = (tokens, a.lanes, u64::from(b.arch.formats.activation_bits));
    let block_bits = a.block_words * bits;
    let total = attention_cycles(n, lanes, blocks);
    let q = b.read("q", a.fifo_depth, block_bits, n * blocks, n * blocks);
    let k = b.read("k", a.fifo_depth, block_bits, total, n * blocks);
    let out = b.write("scores", a.fifo_depth, heads * bits, total / blocks * lanes);
    // Plain scaling divides by N and needs no statistics of a row.
    let info = (weighting != Weighting::Scaling)
        .then(|| b.write("info", a.fifo_depth, 2 * heads * bits, n));
    let stages = ScoreStages {
        tokens,
        lanes,
        blocks,
        products: (a.interval, a.latency),
        statistics: (if weighting == Weighting::Softmax { s.interval } else { 1 }, s.latency),
        between: (a.fifo_depth, u32::try_from(lanes * heads * bits).unwrap_or(u32::MAX)),
    };
    stages.add(&mut b.graph, q, k, out, info);
}

/// read_scores → pack, read_info, read_v → products → write_mixed.
fn mix(b: &mut Builder<'_>, tokens: u64, heads: u64, blocks: u64) {
    let a = b.arch.attention.clone();
    let (n, lanes, bits) = (tokens, a.lanes, u64::from(b.arch.formats.activation_bits));
    let block_bits = a.block_words * bits;
    let total = attention_cycles(n, lanes, blocks);
    let keys = total / blocks;
    let v = b.read("v", a.fifo_depth, block_bits, total, n * blocks);
    let weights = b.read("scores", a.fifo_depth, heads * bits, keys * lanes, keys * lanes);
    let info = b.read("info", a.fifo_depth.max(lanes), 2 * heads * bits, n, n);
    let packed = b.graph.fifo(
        "packed",
        a.fifo_depth,
        u32::try_from(lanes * heads * bits).unwrap_or(u32::MAX),
    );
    let out = b.write("mixed", a.fifo_depth, block_bits, n * blocks);
    b.graph.stage(
        "pack",
        1,
        1,
        keys * lanes,
        &[(weights, Window::ALWAYS)],
        &[(packed, Window::last_of(lanes))],
    );
    let loaded = (n / lanes) * n * blocks + (n % lanes) * blocks;
    let ins = [
        (v, Window::ALWAYS),
        (packed, Window::first_of(blocks)),
        (info, Window::comb(lanes, blocks, n * blocks).until(loaded)),
    ];
    let stage =
        b.graph.stage("products", a.interval, a.latency, total, &ins, &[(out, Window::ALWAYS)]);
    // Lane 0 finishes with the last value of a round, lane j with value j − 1 of the next.
    let head = (n - 1) * blocks;
    let finished = (n / lanes) * n * blocks + (n % lanes) * blocks;
    let stage = &mut b.graph.stages[stage.0];
    // Both phases start at a multiple of the block count; the second starts one key
    // before a round does.
    stage.program = vec![
        Phase {
            iterations: head,
            gap: 0,
            inputs: vec![
                Window::ALWAYS,
                Window::first_of(blocks),
                Window::comb(lanes, blocks, n * blocks),
            ],
            outputs: vec![Window::NEVER],
        },
        Phase {
            iterations: total - head,
            gap: 0,
            inputs: vec![
                Window::ALWAYS,
                Window::first_of(blocks),
                Window {
                    period: n * blocks,
                    from: blocks,
                    to: lanes * blocks + 1,
                    step: blocks,
                    until: loaded.saturating_sub(head),
                },
            ],
            outputs: vec![Window::prefix(lanes * blocks, n * blocks).until(finished)],
        },
    ];
}
