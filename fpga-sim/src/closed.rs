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
use crate::mapping::{attention_cycles, weight_beats};
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

/// A·V with the weights of stored scores, between memory and memory.
///
/// Holds if a key's scores arrive as fast as its values are used, and memory
/// streams.
pub fn mix(arch: &Arch, operator: &Operator) -> Option<u64> {
    let Operator::Mix { tokens: n, heads, dim, weighting } = *operator else { return None };
    let a = &arch.attention;
    let bits = u64::from(arch.formats.activation_bits);
    let (lanes, blocks) = (a.lanes, dim.div_ceil(a.block_words));
    let c = beats(arch, a.block_words * bits);
    let (c_score, c_info) = (beats(arch, heads * bits), beats(arch, 2 * heads * bits));
    let rate = c.max(a.interval);
    if matches!(weighting, Weighting::EcoFormer { .. } | Weighting::BiVit)
        || n <= lanes
        || !streams(arch, 3, 1)
        || a.fifo_depth < 2
        || lanes * c_score >= blocks * rate
        || c_info >= blocks * rate
    {
        return None;
    }
    let total = attention_cycles(n, lanes, blocks);
    let overhead = arch.memory.read_overhead;
    // The first product waits for a packed row of scores, for its statistics and its value.
    let value = |block: u64| overhead + (block + 1) * c + 1;
    let packed = overhead + lanes * c_score + 3;
    let first = value(0).max(packed).max(overhead + c_info + 1);
    // Values that came early stand in the FIFO; the reader stands until the first is taken.
    let held = if total > a.fifo_depth { first + 2 + (total - 1 - a.fifo_depth) * c } else { 0 };
    let last = (first + (total - 1) * a.interval).max(value(total - 1)).max(held);
    Some(last + a.latency + 1 + (c - 1) + arch.memory.write_overhead.max(1))
}

/// Norms, sums and elementwise work, row by row.
///
/// Holds if memory streams and a gap between rows, if any, is no longer than a
/// block takes to arrive, or blocks arrive one a cycle.
pub fn rowwise(arch: &Arch, operator: &Operator) -> Option<u64> {
    let (tokens, dim, sources) = match *operator {
        Operator::Norm { tokens, dim } | Operator::Elementwise { tokens, dim } => (tokens, dim, 1),
        Operator::Add { tokens, dim } => (tokens, dim, 2),
        _ => return None,
    };
    let v = &arch.vector;
    let c = beats(arch, v.words * u64::from(arch.formats.activation_bits));
    if !streams(arch, sources, 1) || (c > 1 && v.token_gap + 1 > c) {
        return None;
    }
    let blocks = tokens * dim.div_ceil(v.words);
    let gaps = if c == 1 { (tokens - 1) * v.token_gap } else { 0 };
    let last = arch.memory.read_overhead + blocks * c + 1 + gaps;
    Some(last + v.latency + 1 + (c - 1) + arch.memory.write_overhead.max(1))
}

/// The router, and the clearing of the experts' sums behind it.
///
/// Holds if memory streams and refills the input FIFO between two tokens.
pub fn gate(arch: &Arch, operator: &Operator) -> Option<u64> {
    let Operator::Gate { tokens, dim, experts, .. } = *operator else { return None };
    let v = &arch.vector;
    let c = beats(arch, v.words * u64::from(arch.formats.activation_bits));
    let blocks = dim.div_ceil(v.words);
    // Cycles of a token behind its last block.
    let rest = v.gate_softmax_interval * experts + experts + v.token_gap;
    if !streams(arch, 1, 1) || rest < 3 * c {
        return None;
    }
    // From a token's first block to its last: the first token's arrive one by one; later ones
    // find two in the FIFO and a third before it.
    let later = if blocks < 3 { blocks - 1 } else { 2 + (blocks - 3) * c };
    let first = arch.memory.read_overhead + blocks * c + 1;
    let last = first + rest + (tokens - 1) * (later + 1 + rest);
    // The queue hears of the last token, then zeros are written as fast as memory takes them.
    let clear = last + v.latency + 3;
    Some(clear + 2 + (tokens * blocks - 1) * c + (c - 1) + arch.memory.write_overhead.max(1))
}

/// Experts one after another, their weights loaded into the buffer that is free:
/// the recurrence of loads and work over two layers an expert.
///
/// Holds if the unit's inputs come in time (they do if they come as fast as the
/// unit takes them, or if the FIFO holds a token's and is full again before the
/// next token) and memory streams.
pub fn experts(arch: &Arch, operator: &Operator) -> Option<u64> {
    let Operator::Experts { queues, dim, hidden, .. } = operator else { return None };
    let l = &arch.linear;
    let bits = u64::from(arch.formats.activation_bits);
    let (c_in, c_out) = (beats(arch, l.rows * bits), beats(arch, l.columns * bits));
    let layers = [(*dim, *hidden), (*hidden, *dim)];
    let blocks = layers.map(|(i, o)| (i.div_ceil(l.rows), o.div_ceil(l.columns)));
    let most = blocks[0].0.max(blocks[1].0);
    let refilled = c_in <= l.interval
        || (l.fifo_depth >= most
            && blocks
                .iter()
                .all(|(ins, outs)| (outs - 1) * ins * l.interval >= c_in * (most + 1) + 2));
    if l.dataflow != Dataflow::Broadcast
        || !streams(arch, 2, 1)
        || l.fifo_depth < 2
        || !refilled
        || blocks.iter().any(|(ins, _)| c_out > ins * l.interval)
    {
        return None;
    }
    let overhead = arch.memory.read_overhead;
    // When the loader and the unit can go on, and when the last buffers were free again.
    let (mut loader, mut unit) = (overhead, 0);
    let mut free = [0; 2];
    let mut last = None;
    for tokens in queues.iter().filter(|q| **q > 0) {
        for ((inputs, outputs), (ins, outs)) in layers.into_iter().zip(blocks) {
            let start = loader.max(free[usize::from(!arch.buffers.ping_pong)]);
            loader = start + weight_beats(arch, inputs, outputs);
            let mut first = unit.max(loader + 1);
            if last.is_none() {
                // Nothing else delays the first token's inputs.
                let arrive = |block: u64| overhead + (block + 1) * c_in + 1;
                let late = arrive(ins - 1).saturating_sub((ins - 1) * l.interval);
                first = first.max(arrive(0)).max(late);
            }
            let end = first + (tokens * ins * outs - 1) * l.interval;
            unit = end + l.interval;
            free = [free[1], end + l.latency + 1];
            last = Some(end);
        }
    }
    Some(last? + l.latency + 1 + (c_out - 1) + arch.memory.write_overhead.max(1))
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
        Operator::Mix { .. } => mix(arch, operator),
        Operator::Norm { .. } | Operator::Add { .. } | Operator::Elementwise { .. } => {
            rowwise(arch, operator)
        }
        Operator::Gate { .. } => gate(arch, operator),
        Operator::Experts { .. } => experts(arch, operator),
    }
}
