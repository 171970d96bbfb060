//! Closed forms: the first tier. Each function says under which conditions it
//! holds and returns `None` elsewhere; inside, it equals the engines exactly.
//!
//! They are critical paths. A stream from memory delivers beat `m` at
//! `R + m` as long as requests run ahead (`R ≤ (O − 1)·B`), and because the
//! times that a stage waits for and the times at which it could start are both
//! linear between the corners of its loop nest, the latest start is reached at
//! a corner.

use crate::arch::{Arch, Dataflow, SoftmaxForm};
use crate::graph::{Graph, Window};
use crate::mapping::attention_cycles;
use crate::workload::{Operator, Weighting};

/// A chain of stages that each pass one token per iteration:
/// `Σ(latency + 1) − 1 + (n − 1)·λ`, where λ is the largest interval, or 2
/// where a FIFO of depth 1 takes turns.
///
/// Holds for a linear chain without ports whose windows are all
/// [`Window::ALWAYS`].
pub fn chain(graph: &Graph) -> Option<u64> {
    let n = graph.stages.first()?.iterations();
    let (mut cycles, mut rate) = (0u64, 1u64);
    for (i, stage) in graph.stages.iter().enumerate() {
        let single = stage.program.len() == 1
            && stage.program[0].gap == 0
            && stage.program[0]
                .inputs
                .iter()
                .chain(&stage.program[0].outputs)
                .all(|w| *w == Window::ALWAYS);
        let ins = usize::from(i > 0);
        let outs = usize::from(i + 1 < graph.stages.len());
        if !single
            || stage.access.is_some()
            || stage.iterations() != n
            || stage.inputs.len() != ins
            || stage.outputs.len() != outs
            || (ins == 1 && graph.stages[i - 1].outputs != stage.inputs)
        {
            return None;
        }
        cycles += stage.latency + 1;
        rate = rate.max(stage.interval);
        if let Some(f) = stage.outputs.first() {
            let fifo = &graph.fifos[f.0];
            if fifo.initial > 0 {
                return None;
            }
            if fifo.depth == 1 {
                rate = rate.max(2);
            }
        }
    }
    Some(cycles - 1 + (n - 1) * rate)
}

/// Cycles to read `beats` beats and drop them: bursts of `B`, `O` under way,
/// request overhead `R`: burst `r` starts at
/// `R + (r mod O)·B + ⌊r/O⌋·max(R + B, O·B)`.
///
/// Holds without DRAM timing, for a stage of interval and latency 1 whose
/// reader never blocks.
pub fn read_stream(arch: &Arch, beats: u64) -> Option<u64> {
    let m = &arch.memory;
    if m.dram_banks > 0 || m.dram_refresh_interval > 0 || beats == 0 {
        return None;
    }
    let (burst, out, overhead) = (m.burst_beats, m.outstanding, m.read_overhead);
    let last = (beats - 1) / burst;
    let start =
        overhead + (last % out) * burst + (last / out) * (overhead + burst).max(out * burst);
    Some(start + (beats - 1) % burst + 1)
}

/// Conditions under which memory streams a beat a cycle to private ports.
fn streams(arch: &Arch, reads: u64, writes: u64) -> bool {
    let m = &arch.memory;
    m.dram_banks == 0
        && m.dram_refresh_interval == 0
        && m.ports >= reads.max(writes)
        && m.read_overhead <= (m.outstanding - 1) * m.burst_beats
        && m.write_overhead < (m.outstanding - 1) * m.burst_beats
}

const fn beats(arch: &Arch, bits: u64) -> u64 {
    let n = bits.div_ceil(arch.memory.width_bits);
    if n == 0 { 1 } else { n }
}

/// The linear unit between memory and memory.
///
/// Holds if the FIFO holds a token's blocks, an output leaves faster than the
/// next is made, and memory streams.
pub fn linear(arch: &Arch, operator: &Operator) -> Option<u64> {
    let Operator::Linear { tokens, inputs, outputs, .. } = *operator else { return None };
    let l = &arch.linear;
    let bits = u64::from(arch.formats.activation_bits);
    let (ins, outs) = (inputs.div_ceil(l.rows), outputs.div_ceil(l.columns));
    let (c_in, c_out) = (beats(arch, l.rows * bits), beats(arch, l.columns * bits));
    if l.dataflow != Dataflow::Broadcast
        || !streams(arch, 1, 1)
        || c_out > ins * l.interval
        || (c_in > l.interval && l.fifo_depth < 2 * ins + 2)
        || l.fifo_depth < 2
    {
        return None;
    }
    let arrive = |block: u64| arch.memory.read_overhead + (block + 1) * c_in + 1;
    let total = tokens * outs * ins;
    let mut last = 0;
    for token in [0, tokens - 1] {
        for block in [0, ins - 1] {
            let index = token * outs * ins + block;
            last = last.max(arrive(token * ins + block) + (total - 1 - index) * l.interval);
        }
    }
    Some(last + l.latency + 1 + (c_out - 1) + arch.memory.write_overhead.max(1))
}

/// QKᵀ with its statistics, between memory and memory.
///
/// Holds for softmax in one pass if a row of scores leaves as fast as it is
/// made and memory streams.
pub fn scores(arch: &Arch, operator: &Operator) -> Option<u64> {
    let Operator::Scores { tokens: n, heads, dim, weighting: Weighting::Softmax } = *operator
    else {
        return None;
    };
    let (a, s) = (&arch.attention, &arch.softmax);
    let bits = u64::from(arch.formats.activation_bits);
    let (lanes, blocks) = (a.lanes, dim.div_ceil(a.block_words));
    let c = beats(arch, a.block_words * bits);
    let (c_score, c_info) = (beats(arch, heads * bits), beats(arch, 2 * heads * bits));
    if s.form == SoftmaxForm::TwoPass
        || n <= lanes
        || !streams(arch, 2, 2)
        || a.fifo_depth < 2
        || c_score > s.interval
        || c_info > s.interval
    {
        return None;
    }
    let total = attention_cycles(n, lanes, blocks);
    let rate = c.max(a.interval);
    let first = arch.memory.read_overhead + c + 1;
    let logit = |key: u64| first + (key * blocks + blocks - 1) * rate + a.latency + 1;
    let keys = total / blocks;
    // Statistics wait for the scores, or the scores for the statistics.
    let last = (logit(keys - 1) + (lanes - 1) * s.interval)
        .max(logit(0) + (keys * lanes - 1) * s.interval);
    // Where lanes divide the tokens, the last score and the last row's statistics leave together.
    let tail = if n.is_multiple_of(lanes) { c_score.max(c_info) } else { c_score } - 1;
    Some(last + s.latency + 1 + tail + arch.memory.write_overhead.max(1))
}

/// Cycles of an operator's graph where a closed form holds.
pub fn operator(arch: &Arch, operator: &Operator) -> Option<u64> {
    match operator {
        Operator::Linear { tokens, inputs, outputs, .. }
            if arch.linear.dataflow == Dataflow::WeightStationary =>
        {
            let l = &arch.linear;
            Some(crate::mapping::systolic_cycles(l.rows, l.columns, *tokens, *outputs, *inputs) + 1)
        }
        Operator::Linear { .. } => linear(arch, operator),
        Operator::Scores { .. } => scores(arch, operator),
        _ => None,
    }
}
