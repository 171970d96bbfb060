//! Edge-MoE's published and derived figures.
#![allow(clippy::unwrap_used)]

use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::engine::Blind;
use undertone_fpga_sim::simulate::{Loads, Mode, Options, Report, simulate};
use undertone_fpga_sim::workload::Workload;
use undertone_fpga_sim::{mapping, timestamp};

fn run(workload: &str, mode: Mode, loads: Loads, width_bits: u64) -> Report {
    let mut arch = Arch::preset("edge-moe-zcu102").unwrap();
    arch.memory.width_bits = width_bits;
    simulate(&arch, &Workload::builtin(workload).unwrap(), &Options { mode, loads, plain: false })
        .unwrap()
}

fn sum(report: &Report, names: &[&str]) -> u64 {
    report.steps.iter().filter(|s| names.contains(&s.name.as_str())).map(|s| s.latency_cycles).sum()
}

#[test]
fn ideal_cycles_are_the_sources() {
    for (workload, linear, attention, ffn, even, odd, total, serial) in [
        ("m3vit", 74_304, 204_336, 148_608, 439_632, 454_080, 5_436_000, 6_541_920),
        ("m3vit-224", 113_472, 472_800, 226_944, 832_128, 854_192, 10_230_816, 11_336_736),
    ] {
        let r = run(workload, Mode::Ideal, Loads::Hidden, 256);
        assert_eq!(sum(&r, &["0.query", "0.key", "0.value", "0.projection"]), linear);
        assert_eq!(sum(&r, &["0.scores", "0.mix"]), attention);
        assert_eq!(sum(&r, &["0.scores"]), attention / 2);
        assert_eq!(sum(&r, &["0.ffn1", "0.ffn2"]), ffn);
        assert_eq!(sum(&r, &["1.experts"]), ffn);
        let layer = |l: &str| -> u64 {
            r.steps
                .iter()
                .filter(|s| s.name.split('.').next() == Some(l))
                .map(|s| s.latency_cycles)
                .sum()
        };
        assert_eq!((layer("0"), layer("1")), (even, odd));
        assert_eq!(r.latency_cycles, total);
        let s = run(workload, Mode::Ideal, Loads::Serial, 256);
        assert_eq!(s.latency_cycles, serial);
        let experts: Vec<_> = s.steps.iter().filter(|s| s.name == "1.experts").collect();
        assert_eq!(experts[0].load_cycles, 147_456);
    }
}

/// Leaps change nothing, at full size: every count of every stage of both kinds of layer.
#[test]
fn leaps_change_nothing() {
    let mut arch = Arch::preset("edge-moe-zcu102").unwrap();
    for width_bits in [128, 256] {
        arch.memory.width_bits = width_bits;
        for step in &Workload::builtin("m3vit").unwrap().steps[..25] {
            let g = mapping::graph(&arch, step).unwrap();
            let plain = timestamp::Options { leap: false };
            let plain = timestamp::run_with(&g, plain, &mut Blind).unwrap();
            assert_eq!(timestamp::run(&g).unwrap(), plain, "{} at {width_bits} bits", step.name);
        }
    }
}

/// 34.5 ms is what CoQMoE's published 155 frames a second at 5.35 times the
/// baseline imply, if Edge-MoE is that baseline.
#[test]
fn both_readings_of_the_published_latency() {
    const PUBLISHED_MS: f64 = 5.35e3 / 155.0;
    for (workload, width, from, to) in [("m3vit-224", 256, 34.0, 36.0), ("m3vit", 128, 29.0, 34.5)]
    {
        for loads in [Loads::Overlapped, Loads::Serial] {
            let r = run(workload, Mode::Full, loads, width);
            println!(
                "{workload} at {width} bits, {loads:?}: {} cycles, {:.2} ms, {:+.1} % from {PUBLISHED_MS:.2} ms",
                r.latency_cycles,
                r.latency_ms,
                100.0 * (r.latency_ms / PUBLISHED_MS - 1.0)
            );
            if loads == Loads::Overlapped {
                assert!((from..to).contains(&r.latency_ms), "{}", r.latency_ms);
            }
        }
    }
}
