//! Reports, outputs, sizing and exploration.
#![allow(clippy::unwrap_used)]

use undertone_fpga_sim::arch::{Arch, PRESETS};
use undertone_fpga_sim::explore::{Grid, Shard, pareto};
use undertone_fpga_sim::graph::Window;
use undertone_fpga_sim::simulate::{Loads, Mode, Options, Report, simulate};
use undertone_fpga_sim::workload::{Encoder, Weighting, Workload};
use undertone_fpga_sim::{energy, mapping, output, sizing, stepped, timestamp};

fn report() -> Report {
    let arch = Arch::preset("edge-moe-zcu102").unwrap();
    simulate(&arch, &Workload::builtin("m3vit").unwrap(), &Options::default()).unwrap()
}

#[test]
fn every_preset_runs_every_workload_it_has_units_for() {
    for preset in PRESETS {
        let arch = Arch::preset(preset).unwrap();
        for name in ["deit-t", "deit-s", "minilm", "m3vit"] {
            if preset == "systolic-16x16" && name == "m3vit" {
                continue;
            }
            // The stepped engine of the shared port takes its time: two layers are enough there.
            let mut workload = Workload::builtin(name).unwrap();
            workload.steps.truncate(24);
            let r = simulate(&arch, &workload, &Options::default()).unwrap();
            assert!(r.latency_cycles >= r.ideal_cycles, "{preset} {name}");
            assert_eq!(r.products, workload.products());
            assert!(r.steps.iter().all(|s| s.utilisation <= 1.0), "{preset} {name}");
        }
    }
}

#[test]
fn every_weighting_and_softmax_form_has_a_mapping() {
    use undertone_fpga_sim::arch::SoftmaxForm::{Online, Shift, SinglePass, TwoPass};
    let mut seen = Vec::new();
    for weighting in [
        Weighting::Softmax,
        Weighting::Power,
        Weighting::ReluSoftmax,
        Weighting::Scaling,
        Weighting::EcoFormer { bits: 16 },
        Weighting::BiVit,
    ] {
        for form in [TwoPass, Online, SinglePass, Shift] {
            let mut arch = Arch::preset("edge-moe-zcu102").unwrap();
            arch.softmax.form = form;
            let encoder = Encoder { weighting, layers: 1, experts: None, ..Encoder::m3vit() };
            let r = simulate(&arch, &encoder.workload("one layer"), &Options::default()).unwrap();
            let attention = r.units[1].busy_cycles;
            seen.push((weighting, form, attention));
        }
    }
    let of = |w, f| seen.iter().find(|s| (s.0, s.1) == (w, f)).unwrap().2;
    // A second pass over the scores costs; one-bit keys and codes save.
    assert!(of(Weighting::Softmax, TwoPass) > of(Weighting::Softmax, Shift) + 129 * 129);
    assert!(of(Weighting::BiVit, Shift) < of(Weighting::Softmax, Shift) / 2);
    assert!(of(Weighting::EcoFormer { bits: 16 }, Shift) < of(Weighting::Softmax, Shift) / 4);
}

#[test]
fn energy_adds_up_and_is_traceable() {
    let r = report();
    let sum: f64 = r.energy.lines.iter().map(|l| l.energy_pj).sum();
    assert!((sum / r.energy.total_pj - 1.0).abs() < 1e-12);
    for line in &r.energy.lines {
        if line.entry != "static_mw" {
            let entry = energy::TABLE.iter().find(|e| e.id == line.entry).unwrap();
            assert!(
                (line.events as f64 * entry.pj - line.energy_pj).abs() <= 1e-9 * line.energy_pj
            );
        }
    }
    // The account is linear: 20 % on every constant is 20 % on the total.
    let all: f64 = r.energy.lines.iter().map(|l| l.sensitivity_20_percent).sum();
    assert!((all - 20.0).abs() < 1e-9);
    // One constant changed in the description moves the total by its share.
    let mut arch = Arch::preset("edge-moe-zcu102").unwrap();
    arch.energy.static_mw *= 1.2;
    let more = simulate(&arch, &Workload::builtin("m3vit").unwrap(), &Options::default()).unwrap();
    let line = r.energy.lines.iter().find(|l| l.entry == "static_mw").unwrap();
    let change = 100.0 * (more.energy.total_pj / r.energy.total_pj - 1.0);
    assert!((change - line.sensitivity_20_percent).abs() < 1e-9);
}

#[test]
fn traffic_is_what_the_shapes_say() {
    let r = report();
    let query = r.steps.iter().find(|s| s.name == "0.query").unwrap();
    assert_eq!(query.weight_bytes, 192 * 192 * 2);
    assert_eq!(query.read_bytes - query.weight_bytes, 129 * 192 * 4);
    assert_eq!(query.written_bytes, 129 * 192 * 4);
    let experts = r.steps.iter().find(|s| s.name == "1.experts").unwrap();
    assert_eq!(experts.weight_bytes, 147_456 * 32);
}

#[test]
fn outputs_parse() {
    let r = report();
    let trace: serde_json::Value = serde_json::from_str(&output::perfetto(&r)).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let end = events
        .iter()
        .filter_map(|e| Some(e["ts"].as_f64()? + e["dur"].as_f64()?))
        .fold(0.0, f64::max);
    assert!((end / 1e3 - r.latency_ms).abs() < 1e-6);
    let csv = output::compute_report(&r);
    let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv.as_bytes());
    assert_eq!(
        rows.headers().unwrap().iter().take(7).collect::<Vec<_>>(),
        [
            "LayerID",
            "Total Cycles (incl. prefetch)",
            "Total Cycles",
            "Stall Cycles",
            "Overall Util %",
            "Mapping Efficiency %",
            "Compute Util %"
        ]
    );
    assert_eq!(rows.records().count(), r.steps.iter().filter(|s| s.products > 0).count());
    assert_eq!(
        output::bandwidth_report(&r).lines().count(),
        1 + r.steps.iter().filter(|s| s.products > 0).count()
    );
    let page = output::html(&r);
    assert!(
        page.contains("<svg")
            && !page.contains("http")
            && !page.contains("NaN")
            && !page.contains("inf")
    );
    let json = serde_json::to_value(&r).unwrap();
    for key in ["latency_cycles", "latency_ms", "read_bytes", "bandwidth_gb_per_s"] {
        assert!(json.get(key).is_some(), "{key}");
    }
}

#[test]
fn wave_holds_every_start() {
    let arch = Arch::preset("edge-moe-zcu102").unwrap();
    let workload = Workload::builtin("m3vit").unwrap();
    let add = workload.steps.iter().find(|s| s.name == "0.add1").unwrap();
    let g = mapping::graph(&arch, add).unwrap();
    let mut wave = Vec::new();
    output::vcd(&g, 3333, &mut wave).unwrap();
    let mut parser = vcd::Parser::new(wave.as_slice());
    let header = parser.parse_header().unwrap();
    let unit = header.find_var(&["dataflow", "vector"]).unwrap().code;
    // High while iterations start in consecutive cycles: add up the lengths.
    let (mut now, mut since, mut high) = (0u64, None, 0u64);
    for command in parser {
        match command.unwrap() {
            vcd::Command::Timestamp(t) => now = t,
            vcd::Command::ChangeScalar(code, value) if code == unit => {
                if value == vcd::Value::V1 {
                    since = Some(now);
                } else if let Some(start) = since.take() {
                    high += now - start;
                }
            }
            _ => {}
        }
    }
    assert_eq!(high / 3333, 129 * 24);
}

#[test]
fn smallest_depths_keep_the_time_and_none_can_shrink() {
    let arch = Arch::preset("edge-moe-zcu102").unwrap();
    let workload = Encoder { tokens: 17, dim: 48, ..Encoder::m3vit() }.workload("small");
    for name in ["0.scores", "0.mix", "0.ffn1", "1.experts"] {
        let step = workload.steps.iter().find(|s| s.name == name).unwrap();
        let mut g = mapping::graph(&arch, step).unwrap();
        let sizing = sizing::minimal(&g).unwrap();
        for (fifo, (_, depth)) in g.fifos.iter_mut().zip(&sizing.depths) {
            fifo.depth = *depth;
        }
        assert_eq!(timestamp::run(&g).unwrap().cycles, sizing.cycles, "{name}");
        assert_eq!(stepped::run(&g).unwrap().cycles, sizing.cycles, "{name}");
        for f in 0..g.fifos.len() {
            let mut less = g.clone();
            less.fifos[f].depth -= 1;
            if less.fifos[f].depth < less.fifos[f].initial.max(1) {
                continue;
            }
            let slower = timestamp::run(&less).map_or(true, |o| o.cycles > sizing.cycles);
            assert!(slower, "{name}: {} can shrink", g.fifos[f].name);
        }
    }
}

#[test]
fn shared_ports_are_fair_and_lose_nothing() {
    // Two equal readers of one port finish together, in twice the time of one.
    let arch = Arch::preset("small-edge").unwrap();
    let mut one = undertone_fpga_sim::graph::Graph::default();
    let port = undertone_fpga_sim::graph::Port {
        name: "p".into(),
        beat_bytes: arch.memory.width_bits / 8,
        burst_beats: 16,
        outstanding: 4,
        read_overhead: 20,
        write_overhead: 5,
        dram: undertone_fpga_sim::graph::Dram::default(),
    };
    let p = one.port(port);
    let mut two = one.clone();
    let add = |g: &mut undertone_fpga_sim::graph::Graph, n: u64| {
        for k in 0..n {
            let f = g.fifo(&format!("f{k}"), 2, 8);
            let s = g.stage(&format!("read{k}"), 1, 1, 1600, &[], &[(f, Window::ALWAYS)]);
            let direction = undertone_fpga_sim::graph::Direction::Read;
            g.bind(
                s,
                undertone_fpga_sim::graph::Access {
                    port: p,
                    direction,
                    address: k << 20,
                    region_bytes: 1 << 20,
                },
            );
            g.stage(&format!("sink{k}"), 1, 1, 1600, &[(f, Window::ALWAYS)], &[]);
        }
    };
    add(&mut one, 1);
    add(&mut two, 2);
    assert!(timestamp::run(&two).is_err());
    let (one, two) = (stepped::run(&one).unwrap(), stepped::run(&two).unwrap());
    assert_eq!(two.cycles, one.cycles + 1600);
    assert!(two.stages[0].finish.abs_diff(two.stages[2].finish) <= 16);
}

const GRID: &str = r#"
base = "edge-moe-zcu102"
workload = "deit-t"
mode = "ideal"
[grid]
"linear.rows" = [8, 16, 32]
"attention.lanes" = [2, 4, 0]
"memory.width_bits" = [128, 256]
"#;

#[test]
fn exploration_resumes_shards_and_merges() {
    let grid = Grid::parse(GRID).unwrap();
    assert_eq!(grid.points(), 18);
    let mut lines = String::new();
    let whole = grid
        .run(Shard::ALL, "", |l| {
            lines += l;
            lines += "\n";
            Ok(())
        })
        .unwrap();
    assert_eq!(whole.len(), 18);
    assert_eq!(lines.lines().count(), 19);
    assert_eq!(whole.iter().filter(|p| p.costs.is_err()).count(), 6);
    // Broken off in the middle of a line: the rest is done, nothing twice.
    let cut: String = lines.chars().take(lines.len() / 2).collect();
    let mut more = 0;
    let resumed = grid
        .run(Shard::ALL, &cut, |_| {
            more += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(resumed, whole);
    assert_eq!(more, 18 - (cut.lines().count() - 2));
    let mut parts = vec![String::new(), String::new(), String::new()];
    for (i, part) in parts.iter_mut().enumerate() {
        let shard: Shard = format!("{i}/3").parse().unwrap();
        grid.run(shard, "", |l| {
            *part += l;
            *part += "\n";
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(grid.merge(&parts).unwrap(), whole);
    assert!(grid.merge(&parts[..2]).is_err());
    let other = Grid::parse(&GRID.replace("[128, 256]", "[128, 512]")).unwrap();
    assert!(other.merge(&parts).is_err());
    for bad in ["3/3", "a/b", "1", "-1/2"] {
        assert!(bad.parse::<Shard>().is_err());
    }
    let front = pareto(&whole);
    let costs = |p: &&undertone_fpga_sim::explore::Point| *p.costs.as_ref().unwrap();
    for p in &front {
        for q in whole.iter().filter(|q| q.costs.is_ok()) {
            let (a, b) = (costs(&q), costs(p));
            let better = a.latency_ms < b.latency_ms
                && a.energy_pj <= b.energy_pj
                && a.dsp <= b.dsp
                && a.bram36 <= b.bram36;
            assert!(!better, "{:?} over {:?}", q.settings, p.settings);
        }
    }
    assert!(!front.is_empty() && front.len() < whole.len());
}

#[test]
fn loads_order() {
    let arch = Arch::preset("edge-moe-zcu102").unwrap();
    let workload = Workload::builtin("m3vit").unwrap();
    for mode in [Mode::Ideal, Mode::Full] {
        let run = |loads| {
            simulate(&arch, &workload, &Options { mode, loads, plain: false })
                .unwrap()
                .latency_cycles
        };
        let (hidden, overlapped, serial) =
            (run(Loads::Hidden), run(Loads::Overlapped), run(Loads::Serial));
        assert!(hidden <= overlapped && overlapped < serial, "{hidden} {overlapped} {serial}");
    }
}

/// Traces of shipped models: the simulator's products are the model's own.
#[test]
fn models_become_workloads_through_the_core_s_trace() {
    use undertone_core::Full;
    use undertone_core::trace::{Operators, Step};
    use undertone_fpga_sim::workload::Operator;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let arch = Arch::preset("edge-moe-zcu102").unwrap();
    for name in ["vit-fmnist", "recall-hetero"] {
        let model = undertone_model::Model::load(&root.join(name)).unwrap();
        let shape = model.input_shape(1, model.task_tokens());
        let nodes = undertone_model::trace::record::<Operators>(&model, shape).unwrap();
        let workload = Workload::from_trace(name, &nodes);
        // Linear layers cost rows × inputs × outputs, whatever they are called.
        let linear: u64 = nodes
            .iter()
            .filter_map(|n| match n.step {
                Step::MatmulPublic(w) => {
                    Some((n.shape.batch * n.shape.rows * w.shape.rows * w.shape.cols) as u64)
                }
                _ => None,
            })
            .sum();
        let simulated: u64 = workload
            .steps
            .iter()
            .filter(|s| matches!(s.operator, Operator::Linear { .. }))
            .map(|s| s.operator.products())
            .sum();
        assert_eq!(simulated, linear, "{name}");
        assert!(workload.steps.iter().any(|s| matches!(s.operator, Operator::Scores { .. })));
        let whole = simulate(&arch, &workload, &Options::default()).unwrap();
        // Operator by operator the same model runs too, on the units it has.
        let nodes = undertone_model::trace::record::<Full>(&model, shape).unwrap();
        let composed = Workload::from_trace(name, &nodes);
        let composed = simulate(&arch, &composed, &Options::default()).unwrap();
        println!(
            "{name}: {} cycles with the attention unit, {} without",
            whole.latency_cycles, composed.latency_cycles
        );
        assert!(whole.latency_cycles > 0 && composed.latency_cycles > 0);
    }
}
