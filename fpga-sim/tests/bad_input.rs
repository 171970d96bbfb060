//! Impossible descriptions, workloads and graphs are named errors; no text panics.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::explore::Grid;
use undertone_fpga_sim::graph::{Access, Direction, Dram, Graph, Port, Window};
use undertone_fpga_sim::simulate::{Options, simulate};
use undertone_fpga_sim::workload::{Operator, Step, Weighting, Workload};
use undertone_fpga_sim::{Error, stepped, timestamp};

const ZCU102: &str = include_str!("../presets/edge-moe-zcu102.toml");

fn both(g: &Graph) -> Error {
    let (a, b) = (timestamp::run(g).unwrap_err(), stepped::run(g).unwrap_err());
    match (&a, &b) {
        // Both name a cycle of waits; where several close at once they may name different ones.
        (Error::Deadlock { at_cycle: x, .. }, Error::Deadlock { at_cycle: y, .. }) => {
            assert_eq!(x, y)
        }
        _ => assert_eq!(a, b),
    }
    a
}

fn pair(depth: u64) -> Graph {
    let mut g = Graph::default();
    let f = g.fifo("f", depth, 8);
    g.stage("source", 1, 1, 10, &[], &[(f, Window::ALWAYS)]);
    g.stage("sink", 1, 1, 10, &[(f, Window::ALWAYS)], &[]);
    g
}

#[test]
fn zero_depth() {
    assert_eq!(both(&pair(0)), Error::ZeroDepth { fifo: "f".into() });
    assert_eq!(both(&pair(u64::MAX)), Error::TooDeep { fifo: "f".into(), depth: u64::MAX });
}

#[test]
fn zero_bandwidth() {
    let mut g = pair(2);
    let port = g.port(Port {
        name: "hp0".into(),
        beat_bytes: 0,
        burst_beats: 16,
        outstanding: 1,
        read_overhead: 0,
        write_overhead: 0,
        dram: Dram::default(),
    });
    let access = Access { port, direction: Direction::Read, address: 0, region_bytes: 64 };
    g.stages[0].access = Some(access);
    assert!(matches!(both(&g), Error::ZeroBandwidth { field: "beat_bytes", .. }));
}

#[test]
fn cyclic_graph() {
    let mut g = Graph::default();
    let (a, b) = (g.fifo("a", 2, 8), g.fifo("b", 2, 8));
    g.stage("x", 1, 1, 10, &[(b, Window::ALWAYS)], &[(a, Window::ALWAYS)]);
    g.stage("y", 1, 1, 10, &[(a, Window::ALWAYS)], &[(b, Window::ALWAYS)]);
    assert_eq!(both(&g), Error::Cyclic { stages: vec!["x".into(), "y".into()] });
    // With a token on the way it is a loop that runs: two stages in turn.
    g.fifos[b.0].initial = 1;
    let cycles = timestamp::run(&g).unwrap().cycles;
    assert_eq!(cycles, stepped::run(&g).unwrap().cycles);
    assert_eq!(cycles, 39);
}

#[test]
fn cycle_counter_overflow() {
    let mut g = pair(2);
    for s in &mut g.stages {
        s.program[0].iterations = u64::MAX / 2;
        s.interval = 4;
    }
    assert_eq!(both(&g), Error::Overflow { at: "source".into() });
    let step = Step {
        name: "huge".into(),
        operator: Operator::Linear {
            tokens: 1 << 39,
            inputs: 1 << 39,
            outputs: 1 << 39,
            gelu: false,
            resident: false,
        },
    };
    let workload = Workload { name: "w".into(), steps: vec![step] };
    let arch = Arch::parse(ZCU102).unwrap();
    assert_eq!(
        simulate(&arch, &workload, &Options::default()),
        Err(Error::Overflow { at: "huge".into() })
    );
}

#[test]
fn unbalanced_and_malformed_graphs() {
    let mut g = pair(2);
    g.stages[1].program[0].iterations = 9;
    assert_eq!(both(&g), Error::Unbalanced { fifo: "f".into(), pushed: 10, popped: 9 });
    let mut g = pair(2);
    g.stages[0].latency = 0;
    assert!(matches!(both(&g), Error::Stage { .. }));
    let mut g = pair(2);
    g.stages[0].program[0].outputs[0].period = 0;
    assert!(matches!(both(&g), Error::Stage { .. }));
}

#[test]
fn deadlock_names_its_cycle() {
    let mut g = Graph::default();
    let (a, b) = (g.fifo("first", 4, 8), g.fifo("second", 4, 8));
    let late = Window { period: 20, from: 10, to: 20, step: 1, until: u64::MAX };
    g.stage("fork", 1, 1, 20, &[], &[(a, Window::prefix(10, 20)), (b, late)]);
    g.stage("join", 1, 1, 10, &[(a, Window::ALWAYS), (b, Window::ALWAYS)], &[]);
    let Error::Deadlock { cycle, .. } = both(&g) else { panic!() };
    let text = cycle.to_string();
    assert_eq!(
        text,
        "`fork` waits for `join` (full `first`); `join` waits for `fork` (empty `second`)"
    );
    let Err(Error::Deadlock { cycle, .. }) = undertone_fpga_sim::sizing::run(&g) else { panic!() };
    assert!(cycle.to_string().ends_with("Enough: `first` depth 10"), "{cycle}");
    g.fifos[a.0].depth = 10;
    assert_eq!(timestamp::run(&g).unwrap(), stepped::run(&g).unwrap());
    g.fifos[a.0].depth = 9;
    both(&g);
}

#[test]
fn values_have_lines_and_reasons() {
    for (from, to, key) in [
        ("clock_mhz = 300.0", "clock_mhz = -1.0", "clock_mhz"),
        ("fifo_depth = 48 ", "fifo_depth = 0 ", "linear.fifo_depth"),
        ("width_bits = 256", "width_bits = 0", "memory.width_bits"),
        ("width_bits = 256", "width_bits = 12", "memory.width_bits"),
        ("burst_beats = 16", "burst_beats = 512", "memory.burst_beats"),
        ("dram_refresh_interval = 0", "dram_refresh_interval = 1\ndram_hit = 5", ""),
        ("interval = 1\nlatency = 8\nfifo_depth = 48", "latency = 8\nfifo_depth = 48", ""),
        ("lanes = 4", "lanes = \"four\"", ""),
        ("lanes = 4", "lanes = -4", ""),
        ("lanes = 4", "lanes = 4\nlane = 4", ""),
        ("name = \"edge", "nom = \"edge", ""),
        ("static_source = \"assumed", "static_source = \"", "energy.static_source"),
    ] {
        assert!(ZCU102.contains(from), "{from}");
        let text = ZCU102.replacen(from, to, 1);
        match Arch::parse(&text).unwrap_err() {
            Error::Value { key: found, line, .. } => {
                assert_eq!(found, key);
                let line = text.lines().nth(line.unwrap() - 1).unwrap();
                assert!(line.starts_with(found.rsplit('.').next().unwrap()), "{line}");
            }
            Error::Parse { line, reason, .. } => {
                assert!(key.is_empty() && line > 0 && !reason.is_empty(), "{to}: {line} {reason}");
            }
            other => panic!("{other}"),
        }
    }
    let text = ZCU102.replace("lanes = 4", "lanes = 4\nlane = 4");
    let line = 1 + text.lines().position(|l| l.starts_with("lane = 4")).unwrap();
    let unknown = Arch::parse(&text).unwrap_err().to_string();
    assert!(unknown.contains(&format!("line {line}: unknown field `lane`")), "{unknown}");
    let large = " ".repeat((1 << 20) + 1);
    assert!(matches!(Arch::parse(&large), Err(Error::TooLarge { .. })));
}

#[test]
fn memory_too_small() {
    let mut arch = Arch::parse(ZCU102).unwrap();
    arch.memory.bytes = 1 << 20;
    let workload = Workload::builtin("m3vit").unwrap();
    let e = simulate(&arch, &workload, &Options::default()).unwrap_err();
    assert!(matches!(e, Error::OutOfMemory { memory: "external memory", .. }), "{e}");
    let mut arch = Arch::parse(ZCU102).unwrap();
    arch.buffers.weight_bytes = 65_536;
    // Dense layers are cut into tiles, but an expert must fit.
    let e = simulate(&arch, &workload, &Options::default()).unwrap_err();
    assert!(matches!(e, Error::OutOfMemory { memory: "weight buffer", .. }), "{e}");
    let dense = Workload::builtin("deit-t").unwrap();
    let tiled = simulate(&arch, &dense, &Options::default()).unwrap();
    assert!(tiled.steps.iter().any(|s| s.name == "0.ffn1/1"));
    assert_eq!(tiled.products, dense.products());
}

#[test]
fn impossible_shapes() {
    let arch = Arch::parse(ZCU102).unwrap();
    for operator in [
        Operator::Linear { tokens: 0, inputs: 1, outputs: 1, gelu: false, resident: false },
        Operator::Scores { tokens: 9, heads: 5, dim: 8, weighting: Weighting::Softmax },
        Operator::Scores { tokens: 4, heads: 2, dim: 8, weighting: Weighting::Softmax },
        Operator::Gate { tokens: 4, dim: 8, experts: 2, chosen: 3 },
        Operator::Experts { queues: vec![5], dim: 8, hidden: 8, tokens: 4 },
    ] {
        let workload =
            Workload { name: "w".into(), steps: vec![Step { name: "s".into(), operator }] };
        let e = simulate(&arch, &workload, &Options::default()).unwrap_err();
        assert!(matches!(e, Error::Workload { .. }), "{e}");
    }
    assert!(Workload::builtin("gpt").is_err());
    let systolic = Arch::preset("systolic-16x16").unwrap();
    let e =
        simulate(&systolic, &Workload::builtin("m3vit").unwrap(), &Options::default()).unwrap_err();
    assert!(matches!(e, Error::Unmapped { .. }), "{e}");
}

#[test]
fn topologies() {
    let conv = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n\
                Conv1, 224, 224, 7, 7, 3, 64, 2,\n";
    let w = Workload::scale_sim("resnet", conv).unwrap();
    assert_eq!(w.products(), 109 * 109 * 147 * 64);
    for (text, line) in [
        ("Layer, M, N, K,\na, 1, 2,\n", 2),
        ("Layer, M, N, K,\na, 1, 2, 3,\nb, 1, x, 3,\n", 3),
        ("l,a,b,c,d,e,f,g,\nc, 5, 5, 7, 7, 3, 64, 2,\n", 2),
        ("l,a,b,c,d,e,f,g,\nc, 5, 5, 3, 3, 3, 64, 0,\n", 2),
    ] {
        match Workload::scale_sim("t", text) {
            Err(Error::Parse { line: found, .. }) => assert_eq!(found, line),
            other => panic!("{other:?}"),
        }
    }
    assert!(Workload::scale_sim("t", "Layer, M, N, K,\na, 0, 2, 3,\n").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn toml_never_panics(text in "\\PC*") {
        let _ = Arch::parse(&text);
        let _ = Grid::parse(&text);
    }

    #[test]
    fn broken_descriptions_never_panic(at in 0usize..2000, with in "[ -~\n]{0,6}", drop in 0usize..8) {
        let mut text: Vec<u8> = ZCU102.bytes().collect();
        let at = at.min(text.len());
        let end = (at + drop).min(text.len());
        text.splice(at..end, with.bytes());
        if let Ok(text) = String::from_utf8(text) {
            // What still parses must also check.
            if let Ok(arch) = Arch::parse(&text) {
                prop_assert!(arch.check().is_ok());
            }
        }
    }

    #[test]
    fn csv_never_panics(text in "\\PC*", rows in proptest::collection::vec("[a-z0-9,.: -]{0,40}", 0..6)) {
        let _ = Workload::scale_sim("t", &text);
        let _ = Workload::scale_sim("t", &format!("Layer, M, N, K,\n{}", rows.join("\n")));
    }

    #[test]
    fn numbers_never_panic(numbers in proptest::collection::vec(any::<u64>(), 3..8)) {
        let row = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let text = format!("Layer, M, N, K,\nx, {row},\n");
        if let Ok(w) = Workload::scale_sim("t", &text) {
            let ideal = Options { mode: undertone_fpga_sim::simulate::Mode::Ideal, ..Options::default() };
            let _ = simulate(&Arch::parse(ZCU102).unwrap(), &w, &ideal);
        }
    }
}
