//! Simulated cycles a second of processor time, with and without leaps, on whole M³ViT.
//! `cargo run --release -p undertone-fpga-sim --example speed`

use cpu_time::ThreadTime;
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::simulate::{Options, simulate};
use undertone_fpga_sim::workload::{Operator, Step, Weighting, Workload};
use undertone_fpga_sim::{Result, engine, mapping, stepped, timestamp};

/// Median processor seconds of some runs: others may use the machine too.
fn median<T>(mut f: impl FnMut() -> Result<T>) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..7 {
        let start = ThreadTime::now();
        std::hint::black_box(f()?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[3])
}

fn main() -> Result<()> {
    let arch = Arch::preset("edge-moe-zcu102")?;
    for name in ["m3vit", "m3vit-224"] {
        let workload = Workload::builtin(name)?;
        let cycles = simulate(&arch, &workload, &Options::default())?.latency_cycles;
        for (what, plain) in [
            ("leaps, equal operators once", false),
            ("plain timestamp engine, every operator", true),
        ] {
            let s =
                median(|| simulate(&arch, &workload, &Options { plain, ..Options::default() }))?;
            println!(
                "{name}: {what}: {:.2} ms, {:.1} M cycles/s",
                s * 1e3,
                cycles as f64 / s / 1e6
            );
        }
        // Every operator on the engine, none reused: the honest middle.
        let mut total = 0;
        let graphs: Vec<_> = workload
            .steps
            .iter()
            .map(|s| mapping::graphs(&arch, s))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        let s = median(|| {
            total = graphs.iter().map(|g| Ok(timestamp::run(g)?.cycles)).sum::<Result<u64>>()?;
            Ok(total)
        })?;
        println!(
            "{name}: timestamp engine with leaps, every operator: {:.2} ms, {:.1} M cycles/s",
            s * 1e3,
            total as f64 / s / 1e6
        );
    }
    // Where the time goes: every kind of operator of M³ViT once.
    let workload = Workload::builtin("m3vit")?;
    for step in &workload.steps[..25] {
        if step.name.starts_with("0.") || step.name.contains("gate") || step.name.contains("expert")
        {
            for g in mapping::graphs(&arch, step)? {
                let cycles = timestamp::run(&g)?.cycles;
                let s = median(|| timestamp::run(&g))?;
                println!(
                    "{}: {cycles} cycles, {:.3} ms, {:.0} M cycles/s",
                    step.name,
                    s * 1e3,
                    cycles as f64 / s / 1e6
                );
            }
        }
    }
    let operator =
        Operator::Scores { tokens: 129, heads: 3, dim: 192, weighting: Weighting::Softmax };
    let g = mapping::graph(&arch, &Step { name: "scores".into(), operator })?;
    let cycles = timestamp::run(&g)?.cycles;
    for (what, s) in [
        ("timestamp, leaps", median(|| timestamp::run(&g))?),
        (
            "timestamp, plain",
            median(|| {
                timestamp::run_with(&g, timestamp::Options { leap: false }, &mut engine::Blind)
            })?,
        ),
        ("stepped", median(|| stepped::run(&g))?),
    ] {
        println!(
            "scores at N = 129, {what}: {cycles} cycles, {:.2} ms, {:.1} M cycles/s",
            s * 1e3,
            cycles as f64 / s / 1e6
        );
    }
    Ok(())
}
