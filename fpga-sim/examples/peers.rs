//! One matrix product and one softmax in this simulator, in Verilator and in SCALE-Sim, side by
//! side in one run; prints a Markdown table. Needs `verilator` and, for SCALE-Sim, a Python that
//! has it (`fpga-sim/peers/scalesim.py` says how):
//!
//! ```text
//! cargo run --release -p undertone-fpga-sim --example peers -- scalesim/bin/python
//! ```

use cpu_time::ThreadTime;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::engine::Blind;
use undertone_fpga_sim::graph::{FifoId, Graph, Window};
use undertone_fpga_sim::rtl::{self, Array, Bench};
use undertone_fpga_sim::workload::{Operator, Step};
use undertone_fpga_sim::{Result, mapping, stepped, timestamp};

/// Tokens, outputs and inputs of the product; the softmax is over as many rows of as many scores.
const GEMM: (u64, u64, u64) = (129, 192, 192);

/// Median processor seconds of five runs, and what they gave.
fn median(mut f: impl FnMut() -> Result<u64>) -> Result<(u64, f64)> {
    let (mut seconds, mut cycles) = (Vec::new(), 0);
    for _ in 0..5 {
        let start = ThreadTime::now();
        cycles = f()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((cycles, seconds[2]))
}

fn row(task: &str, tool: &str, (cycles, seconds): (u64, f64)) {
    let rate = cycles as f64 / seconds / 1e6;
    println!("| {task} | {tool} | {cycles} | {:.3} | {rate:.3} |", seconds * 1e3);
}

/// The unit between a source and sinks that never wait.
fn alone(unit: impl Fn(&mut Graph, FifoId, FifoId), inputs: u64, outputs: u64) -> Graph {
    let mut g = Graph::default();
    let (i, o) = (g.fifo("in", 2, 64), g.fifo("out", 2, 64));
    g.stage("source", 1, 1, inputs, &[], &[(i, Window::ALWAYS)]);
    unit(&mut g, i, o);
    g.stage("sink", 1, 1, outputs, &[(o, Window::ALWAYS)], &[]);
    g
}

fn ours(task: &str, g: &Graph) -> Result<()> {
    row(task, "undertone, timestamp engine", median(|| Ok(timestamp::run(g)?.cycles))?);
    let plain =
        || Ok(timestamp::run_with(g, timestamp::Options { leap: false }, &mut Blind)?.cycles);
    row(task, "undertone, timestamp engine without leaps", median(plain)?);
    row(task, "undertone, stepped engine", median(|| Ok(stepped::run(g)?.cycles))?);
    Ok(())
}

/// Builds one unit with Verilator and runs it without stalls.
fn verilator(
    task: &str,
    design: rtl::Design,
    words: &[u64],
    outputs: u64,
) -> core::result::Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let benches = [Bench { design, input_depths: vec![2], output_depths: vec![2] }];
    std::fs::write(dir.path().join("top.v"), rtl::top(&benches))?;
    std::fs::write(dir.path().join("main.cpp"), rtl::harness(&benches))?;
    let built = Command::new("verilator")
        .current_dir(dir.path())
        .args(["--cc", "top.v", "--exe", "main.cpp", "--top-module", "top", "--build", "-O3"])
        .args(["-j", "2", "-Wno-fatal", "-Wno-WIDTH", "-Wno-UNUSED", "-CFLAGS", "-O3"])
        .args(["--Mdir", "obj"])
        .output()?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into());
    }
    let mut bytes = Vec::new();
    let mut put = |w: u64| bytes.extend(w.to_le_bytes());
    put(words.len() as u64);
    words.iter().for_each(|_| put(0));
    words.iter().for_each(|w| put(*w));
    put(outputs);
    (0..outputs).for_each(|_| put(0));
    let (from, to) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::write(&from, bytes)?;
    let mut runs = Vec::new();
    for _ in 0..5 {
        let out =
            Command::new(dir.path().join("obj/Vtop")).args([&from, &to]).arg("9999999").output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let mut numbers = text.split_whitespace().filter_map(|w| w.parse::<f64>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(cycles), Some(seconds)) => runs.push((cycles as u64, seconds)),
            _ => return Err(format!("no figures in {text:?}").into()),
        }
    }
    runs.sort_by(|a, b| a.1.total_cmp(&b.1));
    row(task, "Verilator, generated RTL", runs[2]);
    Ok(())
}

fn scale_sim(task: &str, python: &str) -> core::result::Result<(), Box<dyn Error>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/scalesim.py");
    let (m, n, k) = GEMM;
    let out = Command::new(python).arg(script).args([m, n, k].map(|x| x.to_string())).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // M, N, K, cycles, …; then a line that begins with `# CYCLES cycles in SECONDS s`.
    let rows = text.lines().find(|l| l.starts_with(&format!("{m},{n},{k},")));
    let cycles = rows.and_then(|l| l.split(',').nth(3)?.parse().ok());
    let seconds = text.lines().find_map(|l| l.strip_prefix("# ")?.split(' ').nth(3)?.parse().ok());
    let (Some(cycles), Some(seconds)) = (cycles, seconds) else {
        return Err(format!("{text}{}", String::from_utf8_lossy(&out.stderr)).into());
    };
    row(task, "SCALE-Sim 3.0.0, weight-stationary 16 × 16", (cycles, seconds));
    Ok(())
}

fn main() -> core::result::Result<(), Box<dyn Error>> {
    println!("| task | simulator | simulated cycles | ms of processor time | M cycles/s |");
    println!("|---|---|---:|---:|---:|");
    let (m, n, k) = GEMM;
    let task = format!("{m} × {k} × {n} product, 16 × 16 multipliers");
    let arch = Arch::preset("edge-moe-zcu102")?;
    let operator =
        Operator::Linear { tokens: m, inputs: k, outputs: n, gelu: false, resident: false };
    ours(&task, &mapping::graph(&arch, &Step { name: "product".into(), operator })?)?;
    // The bench's words have 64 bits: as many multipliers with words of 4 bits.
    let a = Array {
        rows: 16,
        columns: 16,
        ins: (k / 16) as u32,
        outs: (n / 16) as u32,
        input_bits: 4,
        weight_bits: 4,
        sum_bits: 8,
    };
    let weights: Vec<Vec<i32>> =
        (0..n).map(|o| (0..k).map(|i| ((o * 7 + i * 5) % 15) as i32 - 7).collect()).collect();
    let words: Vec<u64> = (0..m * k / 16).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    verilator(&task, rtl::array(a, &weights), &words, m * n / 16)?;
    if let Some(python) = std::env::args().nth(1) {
        scale_sim(&task, &python)?;
    }
    let task = format!("statistics of {m} rows of {m} scores");
    let latency = rtl::shift_sum().latency;
    let unit = |g: &mut Graph, i, o| {
        let outs = [(o, Window::last_of(m))];
        g.stage("unit", 1, latency, m * m, &[(i, Window::ALWAYS)], &outs);
    };
    ours(&task, &alone(unit, m * m, m))?;
    let scores: Vec<u64> =
        (0..m * m).map(|i| (i * 7919 % 20_480) | u64::from(i % m == m - 1) << 32).collect();
    verilator(&task, rtl::shift_sum(), &scores, m)?;
    println!("\nSCALE-Sim has no softmax.");
    Ok(())
}
