//! Elementwise rows, the router, and experts one after another.

use super::{Builder, weight_beats};
use crate::graph::{Direction, Phase, Window};

/// Rows of blocks through the elementwise unit, from `sources` streams.
pub(super) fn rowwise(b: &mut Builder<'_>, tokens: u64, blocks: u64, sources: usize) {
    let v = b.arch.vector.clone();
    let bits = v.words * u64::from(b.arch.formats.activation_bits);
    let ins: Vec<_> = (0..sources)
        .map(|s| {
            (b.read(&format!("x{s}"), 2, bits, tokens * blocks, tokens * blocks), Window::ALWAYS)
        })
        .collect();
    let y = b.write("y", 2, bits, tokens * blocks);
    let stage =
        b.graph.stage("vector", 1, v.latency, tokens * blocks, &ins, &[(y, Window::ALWAYS)]);
    if v.token_gap > 0 && tokens > 1 {
        let stage = &mut b.graph.stages[stage.0];
        let phase = Phase {
            iterations: blocks,
            gap: 0,
            inputs: vec![Window::ALWAYS; sources],
            outputs: vec![Window::ALWAYS],
        };
        let later = Phase { gap: v.token_gap, ..phase.clone() };
        stage.program = core::iter::once(phase).chain((1..tokens).map(|_| later.clone())).collect();
    }
}

/// The router: products, statistics (with their interval) and the best, one
/// token after the other; then zeros for the experts' sums.
pub(super) fn gate(b: &mut Builder<'_>, tokens: u64, dim: u64, experts: u64, chosen: u64) {
    let v = b.arch.vector.clone();
    let bits = u64::from(b.arch.formats.activation_bits);
    let blocks = dim.div_ceil(v.words);
    let x = b.read("x", 2, v.words * bits, tokens * blocks, tokens * blocks);
    let queues = b.graph.fifo("queues", 2, u32::try_from(chosen * (32 + bits)).unwrap_or(u32::MAX));
    let each = blocks + v.gate_softmax_interval * experts + experts + v.token_gap;
    b.graph.stage(
        "gate",
        1,
        v.latency,
        tokens * each,
        &[(x, Window::prefix(blocks, each))],
        &[(queues, Window::last_of(each))],
    );
    let zero = b.write("zero", 2, v.words * bits, tokens * blocks);
    // The queues are complete before the first expert's sums are cleared.
    let ready = b.graph.fifo("ready", 1, 1);
    b.graph.stage(
        "queue",
        1,
        1,
        tokens,
        &[(queues, Window::ALWAYS)],
        &[(ready, Window::last_of(tokens))],
    );
    let all = tokens * blocks;
    b.graph.stage("clear", 1, 1, all, &[(ready, Window::first_of(all))], &[(zero, Window::ALWAYS)]);
}

/// Expert by expert: a loader and the linear unit share two weight buffers,
/// reads follow the queue of tokens, writes scale and accumulate.
pub(super) fn experts(b: &mut Builder<'_>, queues: &[u64], dim: u64, hidden: u64) {
    let l = b.arch.linear.clone();
    let bits = u64::from(b.arch.formats.activation_bits);
    let (din, dout) = (dim.div_ceil(l.rows), dim.div_ceil(l.columns));
    let (hin, hout) = (hidden.div_ceil(l.rows), hidden.div_ceil(l.columns));
    let work: Vec<u64> = queues.iter().copied().filter(|q| *q > 0).collect();
    let total: u64 = work.iter().sum();
    if total == 0 {
        return;
    }
    let buffers = b.arch.buffers.ping_pong;
    let (full, free) = b.graph.ping_pong("weights");
    if !buffers {
        b.graph.fifos[free.0].initial = 1;
    }
    let x = b.read("x", l.fifo_depth, l.rows * bits, total * (din + hin), total * din);
    let y = b.write("y", 2, l.columns * bits, total * (hout + dout));
    let mut loader = Vec::new();
    let mut unit = Vec::new();
    for q in work {
        for (ins, outs, inputs, outputs) in [(din, hout, dim, hidden), (hin, dout, hidden, dim)] {
            let beats = weight_beats(b.arch, inputs, outputs);
            loader.push(Phase {
                iterations: beats,
                gap: 0,
                inputs: vec![Window::first_of(beats)],
                outputs: vec![Window::last_of(beats)],
            });
            let n = q * ins * outs;
            unit.push(Phase {
                iterations: n,
                gap: 0,
                inputs: vec![Window::prefix(ins, outs * ins), Window::first_of(n)],
                outputs: vec![Window::last_of(ins), Window::last_of(n)],
            });
        }
    }
    let bytes: u64 =
        loader.iter().map(|p| p.iterations).sum::<u64>() * b.arch.memory.width_bits / 8;
    let load = b.graph.stage("load", 1, 1, 1, &[(free, Window::ALWAYS)], &[(full, Window::ALWAYS)]);
    b.graph.stages[load.0].program = loader;
    b.bind(load, Direction::Read, bytes);
    let unit_id = b.graph.stage(
        "linear",
        l.interval,
        l.latency,
        1,
        &[(x, Window::ALWAYS), (full, Window::ALWAYS)],
        &[(y, Window::ALWAYS), (free, Window::ALWAYS)],
    );
    b.graph.stages[unit_id.0].program = unit;
}

/// A unit that reads one or two streams of words and writes one, for operators
/// whose inner schedule is a plain loop.
pub(super) fn stream(b: &mut Builder<'_>, cycles: u64, words: u64, sources: usize) {
    let a = b.arch.attention.clone();
    let bits = a.block_words * u64::from(b.arch.formats.activation_bits);
    let blocks = words.div_ceil(a.block_words);
    let each = (cycles / blocks).max(1);
    let ins: Vec<_> = (0..sources)
        .map(|s| (b.read(&format!("x{s}"), 2, bits, blocks, blocks), Window::first_of(each)))
        .collect();
    let y = b.write("y", 2, bits, blocks);
    b.graph.stage(
        "codes",
        a.interval,
        a.latency,
        blocks * each,
        &ins,
        &[(y, Window::last_of(each))],
    );
}
