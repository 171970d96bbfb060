//! One page that needs nothing else: timeline, roofline, energy, tables.

use crate::simulate::{Report, StepReport};
use std::fmt::Write as _;

const WIDTH: f64 = 1000.0;
const COLOURS: [&str; 7] =
    ["#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b7791f", "#718096", "#9b2c2c"];

/// Components of the energy account, in the order of their colours.
const COMPONENTS: [&str; 7] =
    ["linear", "attention", "vector", "softmax", "on_chip_memory", "static", "external_memory"];

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A thousands separator makes cycles readable.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

/// The page.
pub fn html(report: &Report) -> String {
    let mut h = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        h,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">
<title>{w} on {a}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:1040px;margin:2em auto;padding:0 1em;color:#1a202c}}
h2{{margin-top:2em}} table{{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}}
td,th{{padding:2px 8px;border-bottom:1px solid #e2e8f0;text-align:right}} td:first-child,th:first-child{{text-align:left}}
svg{{width:100%;height:auto}} .facts{{display:flex;flex-wrap:wrap;gap:1em 2.5em}} .facts b{{display:block;font-size:1.5em}}
details{{margin-top:1em}} .note{{color:#4a5568}}
</style><h1>{w} on {a}</h1><div class=\"facts\">",
        w = escape(&report.workload),
        a = escape(&report.arch)
    );
    for (label, value) in [
        ("latency", format!("{:.3} ms", report.latency_ms)),
        ("cycles", grouped(report.latency_cycles)),
        ("ideal cycles", grouped(report.ideal_cycles)),
        ("throughput", format!("{:.1} of {:.1} GOP/s", report.throughput_gops, report.peak_gops)),
        ("external memory", format!("{:.2} GB/s", report.bandwidth_gb_per_s)),
        ("energy", format!("{:.2} mJ", report.energy.total_pj / 1e9)),
        (
            "DSP, BRAM36 (estimate)",
            format!("{}, {}", report.resources.dsp, report.resources.bram36),
        ),
    ] {
        let _ = write!(h, "<div>{label}<b>{value}</b></div>");
    }
    h.push_str("</div>");
    if !report.exceeds.is_empty() {
        let _ = write!(h, "<p>The device lacks: {}.</p>", report.exceeds.join(", "));
    }
    timeline(&mut h, report);
    units(&mut h, report);
    roofline(&mut h, report);
    energy(&mut h, report);
    steps(&mut h, &report.steps);
    h.push_str("</html>\n");
    h
}

fn timeline(h: &mut String, report: &Report) {
    let scale = (WIDTH - 90.0) / report.latency_cycles.max(1) as f64;
    let _ = write!(h, "<h2>Timeline</h2><svg viewBox=\"0 0 {WIDTH} 190\" role=\"img\">");
    for (row, name) in ["linear", "attention", "vector", "no weights"].iter().enumerate() {
        let y = 10 + 40 * row;
        let _ = write!(h, "<text x=\"0\" y=\"{}\" font-size=\"14\">{name}</text>", y + 20);
    }
    for s in &report.steps {
        let x = 90.0 + s.start_cycles as f64 * scale;
        let (y, w) = (10 + 40 * s.unit as usize, (s.latency_cycles as f64 * scale).max(0.3));
        let _ = write!(
            h,
            "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{w:.2}\" height=\"30\" fill=\"{}\"><title>{}: {} cycles</title></rect>",
            COLOURS[s.unit as usize],
            escape(&s.name),
            grouped(s.latency_cycles)
        );
        if s.load_wait_cycles > 0 {
            let w = (s.load_wait_cycles as f64 * scale).max(0.3);
            let _ = write!(
                h,
                "<rect x=\"{:.2}\" y=\"130\" width=\"{w:.2}\" height=\"30\" fill=\"{}\"><title>{} waits for weights: {} cycles</title></rect>",
                x - w,
                COLOURS[6],
                escape(&s.name),
                grouped(s.load_wait_cycles)
            );
        }
    }
    for tick in 0..=5 {
        let x = 90.0 + (WIDTH - 90.0) * f64::from(tick) / 5.0;
        let anchor = if tick == 5 { "end" } else { "middle" };
        let ms = report.latency_ms * f64::from(tick) / 5.0;
        let _ = write!(
            h,
            "<text x=\"{x}\" y=\"182\" font-size=\"12\" text-anchor=\"{anchor}\">{ms:.2} ms</text>"
        );
    }
    h.push_str("</svg>");
}

fn units(h: &mut String, report: &Report) {
    h.push_str("<h2>Units</h2><table><tr><th>unit<th>busy cycles<th>share of latency<th>multipliers in use<th>waiting for input<th>output full<th>waiting for weights</tr>");
    for u in &report.units {
        let _ = write!(
            h,
            "<tr><td>{}<td>{}<td>{:.1} %<td>{:.1} %<td>{}<td>{}<td>{}</tr>",
            format!("{:?}", u.unit).to_lowercase(),
            grouped(u.busy_cycles),
            100.0 * u.busy_share,
            100.0 * u.utilisation,
            grouped(u.waiting_cycles),
            grouped(u.frozen_cycles),
            grouped(u.load_wait_cycles)
        );
    }
    h.push_str("</table>");
}

fn roofline(h: &mut String, report: &Report) {
    let points = &report.roofline;
    if points.is_empty() {
        return;
    }
    // Logarithmic axes that hold every point and the ridge of the matrix unit's roof.
    let bandwidth = 2.0 * report.peak_gb_per_s;
    let ridge = report.peak_gops / bandwidth;
    let xs = points.iter().map(|p| p.operations_per_byte).chain([ridge]);
    let (mut x0, mut x1) = xs.fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
    (x0, x1) = (x0 / 2.0, x1 * 2.0);
    let y1 = report.peak_gops * 2.0;
    let y0 = points.iter().map(|p| p.attained_gops).fold(y1, f64::min).max(1e-6) / 2.0;
    let px = |x: f64| 60.0 + (x / x0).ln() / (x1 / x0).ln() * (WIDTH - 80.0);
    let py = |y: f64| 350.0 - (y / y0).ln() / (y1 / y0).ln() * 330.0;
    let roof = |x: f64| (x * bandwidth).min(report.peak_gops);
    let _ = write!(h, "<h2>Roofline</h2><svg viewBox=\"0 0 {WIDTH} 390\" role=\"img\">");
    for (n, value) in (-6..12).flat_map(|e| [1.0, 2.0, 5.0].map(|d| (d, d * 10f64.powi(e)))) {
        // Between powers of ten only where there is room.
        if (x0..x1).contains(&value) && (n == 1.0 || x1 / x0 < 1e4) {
            let x = px(value);
            let _ = write!(
                h,
                "<line x1=\"{x:.1}\" y1=\"20\" x2=\"{x:.1}\" y2=\"350\" stroke=\"#e2e8f0\"/><text x=\"{x:.1}\" y=\"365\" font-size=\"12\" text-anchor=\"middle\">{value}</text>"
            );
        }
        if (y0..y1).contains(&value) && (n == 1.0 || y1 / y0 < 1e4) {
            let y = py(value);
            let _ = write!(
                h,
                "<line x1=\"60\" y1=\"{y:.1}\" x2=\"980\" y2=\"{y:.1}\" stroke=\"#e2e8f0\"/><text x=\"54\" y=\"{:.1}\" font-size=\"12\" text-anchor=\"end\">{value}</text>",
                y + 4.0
            );
        }
    }
    let _ = write!(
        h,
        "<polyline fill=\"none\" stroke=\"#1a202c\" stroke-width=\"2\" points=\"{:.1},{:.1} {:.1},{:.1} {:.1},{:.1}\"/>",
        px(x0),
        py(roof(x0).max(y0)),
        px(ridge),
        py(report.peak_gops),
        px(x1),
        py(report.peak_gops)
    );
    // Where a unit other than the matrix unit has its own, lower ceiling.
    let mut ceilings: Vec<(f64, usize)> = Vec::new();
    for (p, s) in points.iter().zip(report.steps.iter().filter(|s| s.products > 0)) {
        let own = (p.roof_gops, s.unit as usize);
        if !p.memory_bound && own.0 < report.peak_gops && !ceilings.contains(&own) {
            ceilings.push(own);
        }
    }
    for (gops, unit) in ceilings {
        let (from, y) = (px((gops / bandwidth).max(x0)), py(gops.max(y0)));
        let _ = write!(
            h,
            "<line x1=\"{from:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{}\" stroke-dasharray=\"6 4\"/><text x=\"{:.1}\" y=\"{:.1}\" font-size=\"12\" text-anchor=\"end\">{gops:.1}</text>",
            px(x1),
            COLOURS[unit],
            px(x1),
            y - 4.0
        );
    }
    for (p, s) in points.iter().zip(report.steps.iter().filter(|s| s.products > 0)) {
        let _ = write!(
            h,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{}\" fill-opacity=\"0.6\"><title>{}: {:.2} operations/byte, {:.2} GOP/s</title></circle>",
            px(p.operations_per_byte),
            py(p.attained_gops.max(y0)),
            COLOURS[s.unit as usize],
            escape(&p.name),
            p.operations_per_byte,
            p.attained_gops
        );
    }
    let _ = write!(
        h,
        "<text x=\"{}\" y=\"385\" font-size=\"12\" text-anchor=\"end\">operations for each byte of external memory</text><text x=\"0\" y=\"14\" font-size=\"12\">GOP/s; peak of the matrix unit {:.1}</text></svg><p class=\"note\">Both axes logarithmic. Blue: matrix unit, orange: attention, green: vector; broken lines: the ceilings of units with fewer multipliers. Hover a point for its operator.</p>",
        WIDTH - 20.0,
        report.peak_gops
    );
}

fn energy(h: &mut String, report: &Report) {
    let account = &report.energy;
    let _ = write!(h, "<h2>Energy</h2><svg viewBox=\"0 0 {WIDTH} 40\" role=\"img\">");
    let mut x = 0.0;
    let total = account.total_pj.max(1e-12);
    let colour = |component: &str| {
        let n = COMPONENTS.iter().position(|c| *c == component).unwrap_or_default();
        COLOURS[n % COLOURS.len()]
    };
    for line in &account.lines {
        let w = line.energy_pj / total * WIDTH;
        let _ = write!(
            h,
            "<rect x=\"{x:.2}\" y=\"0\" width=\"{w:.2}\" height=\"36\" fill=\"{}\"><title>{} {}: {:.3} mJ</title></rect>",
            colour(line.component),
            line.component,
            line.entry,
            line.energy_pj / 1e9
        );
        x += w;
    }
    h.push_str("</svg><table><tr><th>component<th>table entry<th>events<th>mJ<th>share<th>total, entry ±20 %</tr>");
    for line in &account.lines {
        let _ = write!(
            h,
            "<tr><td><span style=\"background:{}\">&emsp;</span> {}<td>{}<td>{}<td>{:.4}<td>{:.1} %<td>±{:.2} %</tr>",
            colour(line.component),
            line.component,
            line.entry,
            grouped(line.events),
            line.energy_pj / 1e9,
            100.0 * line.energy_pj / total,
            line.sensitivity_20_percent
        );
    }
    h.push_str("</table><p class=\"note\">");
    for entry in &account.table {
        let _ = write!(
            h,
            "{}: {} pJ for each {} ({}). ",
            entry.id, entry.pj, entry.event, entry.source
        );
    }
    for declared in &account.declared {
        let _ = write!(h, "{}. ", escape(declared));
    }
    h.push_str("</p>");
}

fn steps(h: &mut String, steps: &[StepReport]) {
    h.push_str("<details><summary>All operators</summary><table><tr><th>operator<th>start<th>cycles<th>ideal<th>utilisation<th>read bytes<th>written bytes<th>tier</tr>");
    for s in steps {
        let _ = write!(
            h,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.1} %<td>{}<td>{}<td>{}</tr>",
            escape(&s.name),
            grouped(s.start_cycles),
            grouped(s.latency_cycles),
            grouped(s.ideal_cycles),
            100.0 * s.utilisation,
            grouped(s.read_bytes),
            grouped(s.written_bytes),
            s.tier
        );
    }
    h.push_str("</table></details>");
}
