//! Chrome's trace format, which ui.perfetto.dev opens.

use crate::simulate::Report;
use serde_json::{Value, json};

/// A trace with a track for each unit and one for each reason to wait; times
/// are microseconds of simulated time.
pub fn perfetto(report: &Report) -> String {
    let micros = |cycles: u64| cycles as f64 / report.clock_mhz;
    let mut events: Vec<Value> = Vec::new();
    let tracks =
        ["linear", "attention", "vector", "wait: weights", "wait: input", "wait: output full"];
    for (tid, name) in tracks.iter().enumerate() {
        events.push(
            json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": tid, "args": {"name": name}}),
        );
    }
    events.push(json!({"name": "process_name", "ph": "M", "pid": 1, "tid": 0,
        "args": {"name": format!("{} on {}", report.workload, report.arch)}}));
    let mut slice = |name: &str, tid: usize, start: u64, cycles: u64, args: Value| {
        if cycles > 0 {
            events.push(json!({"name": name, "ph": "X", "pid": 1, "tid": tid,
                "ts": micros(start), "dur": micros(cycles), "args": args}));
        }
    };
    for s in &report.steps {
        let tid = s.unit as usize;
        slice(
            &s.name,
            tid,
            s.start_cycles,
            s.latency_cycles,
            json!({"latency_cycles": s.latency_cycles, "ideal_cycles": s.ideal_cycles, "utilisation": s.utilisation,
                "read_bytes": s.read_bytes, "written_bytes": s.written_bytes, "tier": s.tier}),
        );
        let none = json!({});
        slice(&s.name, 3, s.start_cycles - s.load_wait_cycles, s.load_wait_cycles, none.clone());
        // Waits inside an operator are sums: drawn from its start, clipped to its time.
        slice(&s.name, 4, s.start_cycles, s.waiting_cycles.min(s.latency_cycles), none.clone());
        slice(&s.name, 5, s.start_cycles, s.frozen_cycles.min(s.latency_cycles), none);
    }
    json!({"traceEvents": events, "displayTimeUnit": "ns"}).to_string()
}
