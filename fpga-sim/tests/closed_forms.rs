//! Closed form = timestamp = stepped, on random configurations.
#![allow(clippy::unwrap_used)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::graph::{Graph, Window};
use undertone_fpga_sim::workload::{Operator, Step, Weighting};
use undertone_fpga_sim::{closed, mapping, stepped, timestamp};

fn agree(graph: &Graph, closed: u64) {
    assert_eq!(timestamp::run(graph).unwrap().cycles, closed, "{graph:?}");
    assert_eq!(stepped::run(graph).unwrap().cycles, closed, "{graph:?}");
}

#[test]
fn chains() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..1000 {
        let mut g = Graph::default();
        let (n, stages) = (rng.random_range(1..300), rng.random_range(1..7));
        let mut last = None;
        for s in 0..stages {
            let next =
                (s + 1 < stages).then(|| g.fifo(&format!("f{s}"), rng.random_range(1..5), 8));
            let ins: Vec<_> = last.map(|f| (f, Window::ALWAYS)).into_iter().collect();
            let outs: Vec<_> = next.map(|f| (f, Window::ALWAYS)).into_iter().collect();
            g.stage(
                &format!("s{s}"),
                rng.random_range(1..6),
                rng.random_range(1..12),
                n,
                &ins,
                &outs,
            );
            last = next;
        }
        agree(&g, closed::chain(&g).unwrap());
    }
}

fn random_arch(rng: &mut ChaCha8Rng) -> Arch {
    let mut arch = Arch::preset("edge-moe-zcu102").unwrap();
    let pick = |rng: &mut ChaCha8Rng, from: &[u64]| from[rng.random_range(0..from.len())];
    arch.memory.width_bits = pick(rng, &[64, 128, 256, 512, 1024]);
    arch.memory.burst_beats = pick(rng, &[1, 4, 16, 32]);
    arch.memory.outstanding = rng.random_range(2..=16);
    arch.memory.read_overhead = rng.random_range(0..=100);
    arch.memory.write_overhead = rng.random_range(0..=30);
    arch.linear.rows = pick(rng, &[4, 8, 16]);
    arch.linear.columns = pick(rng, &[4, 8, 16]);
    arch.linear.interval = rng.random_range(1..=3);
    arch.linear.latency = rng.random_range(1..=20);
    arch.linear.fifo_depth = rng.random_range(2..=48);
    arch.attention.lanes = rng.random_range(1..=6);
    arch.attention.block_words = pick(rng, &[4, 8]);
    arch.attention.interval = rng.random_range(1..=3);
    arch.attention.latency = rng.random_range(1..=20);
    arch.attention.fifo_depth = rng.random_range(2..=4);
    arch.softmax.interval = rng.random_range(1..=12);
    arch.softmax.latency = rng.random_range(1..=20);
    arch.check().unwrap();
    arch
}

/// At least 1,000 random configurations of each operator that has a closed form.
#[test]
fn operators() {
    const KINDS: [&str; 6] = ["linear", "scores", "mix", "rowwise", "gate", "experts"];
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut covered, mut tried) = ([0; 6], [0; 6]);
    while covered.iter().any(|n| *n < 1000) {
        let mut arch = random_arch(&mut rng);
        arch.memory.ports = 5;
        arch.vector.words = [4, 8, 16][rng.random_range(0..3)];
        arch.vector.latency = rng.random_range(1..=12);
        arch.vector.token_gap = rng.random_range(0..3);
        arch.buffers.ping_pong = rng.random_bool(0.5);
        let (tokens, heads) = (rng.random_range(7..24), rng.random_range(1..=3));
        let (dim, wide) = (heads * rng.random_range(1..=32), rng.random_range(1..100));
        let weighting = Weighting::Softmax;
        let all = [
            Operator::Linear {
                tokens: rng.random_range(1..20),
                inputs: rng.random_range(1..100),
                outputs: wide,
                gelu: false,
                resident: false,
            },
            Operator::Scores { tokens, heads, dim, weighting },
            Operator::Mix { tokens, heads, dim, weighting },
            match rng.random_range(0..3) {
                0 => Operator::Norm { tokens, dim },
                1 => Operator::Add { tokens, dim },
                _ => Operator::Elementwise { tokens, dim },
            },
            Operator::Gate { tokens, dim, experts: rng.random_range(2..=16), chosen: 2 },
            Operator::Experts {
                queues: (0..rng.random_range(1..5)).map(|_| rng.random_range(0..=4)).collect(),
                dim: wide,
                hidden: rng.random_range(1..100),
                tokens,
            },
        ];
        for (kind, operator) in all.into_iter().enumerate() {
            if covered[kind] >= 1000 {
                continue;
            }
            tried[kind] += 1;
            let Some(cycles) = closed::operator(&arch, &operator) else { continue };
            let step = Step { name: "x".into(), operator: operator.clone() };
            let g = mapping::graph(&arch, &step).unwrap();
            let fast = timestamp::run(&g).unwrap().cycles;
            assert_eq!(fast, stepped::run(&g).unwrap().cycles, "{operator:?}");
            assert_eq!(fast, cycles, "{operator:?} on {arch:?}");
            covered[kind] += 1;
        }
    }
    for ((kind, covered), tried) in KINDS.iter().zip(covered).zip(tried) {
        println!("{kind}: {covered} of {tried} have a closed form, all equal");
    }
}

/// The operators of the preset itself, at full size.
#[test]
fn the_preset_is_covered() {
    let arch = Arch::preset("edge-moe-zcu102").unwrap();
    let workload = undertone_fpga_sim::workload::Workload::builtin("m3vit").unwrap();
    let mut seen = Vec::new();
    for step in &workload.steps[..26] {
        if let Some(cycles) = closed::operator(&arch, &step.operator) {
            let g = mapping::graph(&arch, step).unwrap();
            assert_eq!(timestamp::run(&g).unwrap().cycles, cycles, "{}", step.name);
            seen.push(step.name.as_str());
        }
    }
    for name in ["0.norm1", "0.query", "0.scores", "0.mix", "0.add1", "1.gate", "1.experts"] {
        assert!(seen.contains(&name), "{name} has no closed form; {seen:?} have");
    }
}

#[test]
fn memory_streams() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for _ in 0..1000 {
        let mut arch = random_arch(&mut rng);
        arch.memory.outstanding = rng.random_range(1..=16);
        let beats = rng.random_range(1..600);
        let mut g = Graph::default();
        let port = undertone_fpga_sim::graph::Port {
            name: "p".into(),
            beat_bytes: 32,
            burst_beats: arch.memory.burst_beats,
            outstanding: arch.memory.outstanding,
            read_overhead: arch.memory.read_overhead,
            write_overhead: 0,
            dram: undertone_fpga_sim::graph::Dram::default(),
        };
        let port = g.port(port);
        let s = g.stage("read", 1, 1, beats, &[], &[]);
        let direction = undertone_fpga_sim::graph::Direction::Read;
        g.bind(
            s,
            undertone_fpga_sim::graph::Access {
                port,
                direction,
                address: 0,
                region_bytes: 1 << 20,
            },
        );
        agree(&g, closed::read_stream(&arch, beats).unwrap());
    }
}

#[test]
fn every_mapping_agrees_between_the_engines() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for round in 0..1000 {
        let mut arch = random_arch(&mut rng);
        arch.memory.ports = 5;
        arch.vector.token_gap = rng.random_range(0..3);
        arch.buffers.ping_pong = rng.random_bool(0.5);
        let (tokens, dim, heads) = (rng.random_range(7..20), 4 * rng.random_range(2..=12), 2);
        let operator = match round % 8 {
            0 => Operator::Mix { tokens, heads, dim, weighting: Weighting::Softmax },
            1 => Operator::Norm { tokens, dim },
            2 => Operator::Add { tokens, dim },
            3 => Operator::Gate { tokens, dim, experts: 4, chosen: 2 },
            4 => Operator::Scores { tokens, heads, dim, weighting: Weighting::Scaling },
            5 => Operator::Scores { tokens, heads, dim, weighting: Weighting::BiVit },
            6 => Operator::Scores {
                tokens,
                heads,
                dim,
                weighting: Weighting::EcoFormer { bits: 16 },
            },
            _ => Operator::Experts {
                queues: (0..4).map(|_| rng.random_range(0..=tokens)).collect(),
                dim,
                hidden: 2 * dim,
                tokens,
            },
        };
        let step = Step { name: "x".into(), operator };
        for g in mapping::graphs(&arch, &step).unwrap() {
            let slow = stepped::run(&g).unwrap();
            assert_eq!(timestamp::run(&g).unwrap(), slow, "{step:?} on {arch:?}");
        }
    }
}

#[test]
fn shape_forms_of_the_systolic_array_are_scale_sims() {
    let arch = Arch::preset("systolic-16x16").unwrap();
    for (m, n, k, cycles) in [
        (129, 192, 192, 25_199),
        (129, 768, 192, 100_799),
        (129, 192, 768, 100_799),
        (16, 384, 192, 17_855),
    ] {
        let operator =
            Operator::Linear { tokens: m, inputs: k, outputs: n, gelu: false, resident: false };
        let step = Step { name: "row".into(), operator };
        let run = timestamp::run(&mapping::graph(&arch, &step).unwrap()).unwrap();
        // SCALE-Sim prints the index of the last cycle.
        assert_eq!(run.stages[0].last_start, cycles);
        assert_eq!(mapping::systolic_cycles(16, 16, m, n, k), cycles);
    }
}
