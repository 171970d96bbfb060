//! Resources by yosys against the estimate.

use crate::attention::ATTENTION;
use crate::have;
use rayon::prelude::*;
use std::process::Command;
use undertone_fpga_sim::resources::{memory_bram36, product_dsps};
use undertone_fpga_sim::rtl::{self, Array, Design};

/// Cells of a module after `synth_xilinx -family xcup`.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Cells {
    lut: u64,
    ff: u64,
    dsp: u64,
    bram36: u64,
    bram18: u64,
}

fn synthesise(design: &Design) -> Cells {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("unit.v");
    std::fs::write(&file, &design.verilog).unwrap();
    let script = format!(
        "read_verilog {}; synth_xilinx -family xcup -top {}; stat",
        file.display(),
        design.name
    );
    let out =
        Command::new("yosys").args(["-q", "-p", &script, "-l", "/dev/stdout"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let mut cells = Cells::default();
    let last = text.rsplit("Number of cells").next().unwrap();
    for line in last.lines() {
        let mut words = line.split_whitespace();
        let (Some(cell), Some(Ok(n))) = (words.next(), words.next().map(str::parse::<u64>)) else {
            continue;
        };
        match cell {
            c if c.starts_with("LUT") => cells.lut += n,
            c if c.starts_with("FD") => cells.ff += n,
            "DSP48E2" => cells.dsp += n,
            "RAMB36E2" => cells.bram36 += n,
            "RAMB18E2" => cells.bram18 += n,
            _ => {}
        }
    }
    cells
}

#[test]
fn synthesis_meets_the_estimate() {
    if !have("yosys") {
        return;
    }
    let pe = Array {
        rows: 4,
        columns: 4,
        ins: 1,
        outs: 1,
        input_bits: 32,
        weight_bits: 16,
        sum_bits: 48,
    };
    let weights: Vec<Vec<i32>> =
        (0..4).map(|c| (0..4).map(|r| 7919 * (c + 1) - 104_729 / (r + 2)).collect()).collect();
    let (lanes, words) = (u64::from(ATTENTION.lanes), 4);
    let stage = |name| rtl::attention_stage(ATTENTION, name);
    let table = [
        (rtl::shift_recurrence(), 0, 0, 124, 36),
        (rtl::edge_moe_recurrence(), product_dsps(32, 32), 0, 154, 32),
        (rtl::weight_buffer(576, 4096), 0, memory_bram36(576, 4096), 0, 0),
        (rtl::gelu(), product_dsps(18, 18), 0, 298, 254),
        (rtl::shift_sum(), 1, 0, 581, 316),
        (rtl::edge_moe_exp(), 4 * product_dsps(65, 65), 0, 2877, 563),
        (rtl::edge_moe_sum(), 4 * product_dsps(65, 65) + product_dsps(32, 32), 0, 3188, 696),
        (rtl::reciprocal(), product_dsps(33, 33) + 6 * product_dsps(35, 33), 0, 1685, 575),
        (rtl::array(pe, &weights), 16 * product_dsps(32, 16), 0, 2350, 1253),
        (stage("products"), lanes * (words + product_dsps(40, 33)), 0, 1684, 895),
        (stage("weights"), 1, 0, 920, 454),
        (stage("mix"), words * product_dsps(26, 16), 0, 1025, 535),
        (stage("divide"), words * product_dsps(48, 33), 0, 3319, 398),
    ];
    println!("| module | LUT | FF | DSP | BRAM36 |\n|---|---:|---:|---:|---:|");
    // Synthesised in parallel, printed and compared in order.
    let cells: Vec<Cells> = table.par_iter().map(|row| synthesise(&row.0)).collect();
    for ((design, dsp, bram36, lut, ff), cells) in table.into_iter().zip(cells) {
        let bram = cells.bram36 + cells.bram18.div_ceil(2);
        println!("| {} | {} | {} | {} | {bram} |", design.name, cells.lut, cells.ff, cells.dsp);
        // Look-up tables and flip-flops are yosys 0.23's; other versions may differ by a fifth.
        for (what, got, want) in [("LUT", cells.lut, lut), ("FF", cells.ff, ff)] {
            assert!(
                5 * got.abs_diff(want) <= want,
                "{}: {got} {what}, about {want} expected",
                design.name
            );
        }
        assert_eq!(cells.dsp, dsp, "{}: DSP", design.name);
        assert_eq!(bram, bram36, "{}: BRAM", design.name);
    }
}
