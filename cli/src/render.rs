//! Tables for people, JSON for programs.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::Common;

/// A table with a header; every column but the first `left` is right-aligned.
pub(crate) fn table(
    common: &Common,
    header: &[&str],
    left: usize,
    rows: Vec<Vec<String>>,
) -> Table {
    let mut table = Table::new();
    table.load_preset(if common.markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_cell_alignment(if i < left {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        });
    }
    table
}

/// `println!`, except that a reader who has had enough (`| head`) ends the program in peace.
macro_rules! say {
    ($($text:tt)*) => { $crate::render::line(format_args!($($text)*)) };
}
pub(crate) use say;

pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    use std::io::{ErrorKind, Write as _};
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => {
            eprintln!("error: standard output: {e}");
            std::process::exit(2)
        }
        Ok(()) => {}
    }
}

/// Prints a value as JSON on standard output.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A count with a decimal prefix: 12.3 M.
pub(crate) fn count(n: u64) -> String {
    let (value, prefix) = scaled(n);
    if prefix.is_empty() { format!("{n}") } else { format!("{value:.1} {prefix}") }
}

/// A size with a decimal prefix: 12.3 MB.
pub(crate) fn bytes(n: u64) -> String {
    let (value, prefix) = scaled(n);
    if prefix.is_empty() { format!("{n} B") } else { format!("{value:.1} {prefix}B") }
}

/// An energy from picojoules: 12.3 µJ; a dash where it is not known.
pub(crate) fn energy(picojoules: Option<f64>) -> String {
    let Some(mut value) = picojoules else { return "–".to_owned() };
    for unit in ["pJ", "nJ", "µJ", "mJ"] {
        if value < 1000.0 {
            return format!("{value:.2} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.2} J")
}

fn scaled(n: u64) -> (f64, &'static str) {
    let mut value = n as f64;
    for prefix in ["", "k", "M", "G"] {
        if value < 1000.0 {
            return (value, prefix);
        }
        value /= 1000.0;
    }
    (value, "T")
}

/// The index of the greatest value; the first of equals.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let best = values
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best });
    best.0
}
