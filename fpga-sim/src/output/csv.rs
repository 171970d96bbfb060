//! SCALE-Sim's report columns.

use crate::mapping::Unit;
use crate::simulate::Report;
use std::fmt::Write as _;

/// `COMPUTE_REPORT.csv`: one row for each operator with products. Prefetch is
/// the weight load, stalls are cycles beyond the ideal ones. Cycles are the
/// index of the last one, as SCALE-Sim counts: one less than the latency.
pub fn compute_report(report: &Report) -> String {
    let mut out = String::from(
        "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, Mapping Efficiency %, Compute Util %,\n",
    );
    for (id, s) in report.steps.iter().filter(|s| s.products > 0).enumerate() {
        let busy = s.utilisation * s.latency_cycles as f64;
        let last = |cycles: u64| cycles.saturating_sub(1);
        let share = |cycles: u64| 100.0 * busy / cycles.max(1) as f64;
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{id}, {}, {}, {}, {:.4}, {:.4}, {:.4},",
            last(s.latency_cycles + s.load_cycles),
            last(s.latency_cycles),
            s.latency_cycles.saturating_sub(s.ideal_cycles),
            share(s.latency_cycles + s.load_cycles),
            share(s.ideal_cycles),
            share(s.latency_cycles),
        );
    }
    out
}

/// `BANDWIDTH_REPORT.csv`: words a cycle. On-chip columns count the operands
/// that the unit takes in a busy cycle, averaged over the operator's time.
pub fn bandwidth_report(report: &Report) -> String {
    let mut out = String::from(
        "LayerID, Avg IFMAP SRAM BW, Avg FILTER SRAM BW, Avg OFMAP SRAM BW, Avg IFMAP DRAM BW, Avg FILTER DRAM BW, Avg OFMAP DRAM BW,\n",
    );
    for (id, s) in report.steps.iter().filter(|s| s.products > 0).enumerate() {
        let cycles = s.latency_cycles.max(1) as f64;
        let rate = |bytes: u64, bits: u32| bytes as f64 * 8.0 / f64::from(bits) / cycles;
        let (a, w) = (report.activation_bits, report.weight_bits);
        let busy = s.ideal_cycles as f64 / cycles;
        let filters = if s.unit == Unit::Linear { report.array.0 * report.array.1 } else { 0 };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{id}, {:.4}, {:.4}, {:.4}, {:.4}, {:.4}, {:.4},",
            report.array.0 as f64 * busy,
            filters as f64 * busy,
            rate(s.written_bytes, a),
            rate(s.read_bytes - s.weight_bytes, a),
            rate(s.weight_bytes, w),
            rate(s.written_bytes, a),
        );
    }
    out
}
