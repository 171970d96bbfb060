//! Prints the published energy rows of EcoFormer and BiViT's table of operations and sizes beside
//! what the ledger derives from the models' shapes.
//!
//! `cargo run --release -p undertone-binary --example energy [-- PRICES.toml]`

use undertone_binary::energy::pyramid::{self, Attention, Counting, ECOFORMER, PUBLISHED, like};
use undertone_binary::energy::{MOST_TABLE_BYTES, Prices, ops};
use undertone_core::{Counts, Op};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prices = match std::env::args().nth(1) {
        None => Prices::horowitz(),
        Some(path) => {
            let bytes = std::fs::metadata(&path)?.len();
            if bytes > MOST_TABLE_BYTES as u64 {
                return Err(format!("{path}: {bytes} bytes is no price table").into());
            }
            Prices::parse(&std::fs::read_to_string(path)?)?
        }
    };
    ecoformer(&prices)?;
    println!();
    bivit();
    Ok(())
}

fn ecoformer(prices: &Prices) -> Result<(), Box<dyn std::error::Error>> {
    println!("EcoFormer, one 224 × 224 image, G operations and mJ, prices: {}", prices.name());
    println!("(published in parentheses; = where every printed digit agrees)\n");
    println!(
        "| {:<12} | {:<9} | {:>15} | {:>15} | {:>17} |   | with squarings: mul, mJ |",
        "model", "attention", "mul", "add", "energy"
    );
    println!("|---|---|---|---|---|---|---|");
    let numbers = |c: &Counts| -> Result<[f64; 3], Box<dyn std::error::Error>> {
        Ok([c.of(Op::Mul) as f64 / 1e9, c.of(Op::Add) as f64 / 1e9, prices.picojoules(c)? / 1e9])
    };
    for row in PUBLISHED {
        let ours = numbers(&pyramid::count(&row.model, row.attention, Counting::Published))?;
        let full = numbers(&pyramid::count(&row.model, row.attention, Counting::WithSquarings))?;
        let cells: Vec<String> =
            ours.iter().zip(row.printed).map(|(&v, p)| format!("{} ({p})", like(v, p))).collect();
        let same = ours.iter().zip(row.printed).all(|(&v, p)| like(v, p) == p);
        let name = if row.attention == Attention::Softmax { "softmax" } else { "EcoFormer" };
        println!(
            "| {:<12} | {:<9} | {:>15} | {:>15} | {:>17} | {} | {:.2}, {:.2} |",
            row.model.name,
            name,
            cells[0],
            cells[1],
            cells[2],
            if same { "=" } else { "≈" },
            full[0],
            full[2],
        );
    }
    println!(
        "\nAttention alone (the last stage is softmax in both), softmax energy over EcoFormer energy:"
    );
    for model in pyramid::PVT_V2.iter().chain([&pyramid::TWINS_S]) {
        let of = |attention, counting| {
            prices.picojoules(&pyramid::count_attention(model, attention, counting))
        };
        let softmax = of(Attention::Softmax, Counting::Published)?;
        println!(
            "  {:<12} {:.0}× as published, {:.0}× with the squarings",
            model.name,
            softmax / of(ECOFORMER, Counting::Published)?,
            softmax / of(ECOFORMER, Counting::WithSquarings)?,
        );
    }
    Ok(())
}

fn bivit() {
    println!(
        "BiViT, one image, OPs = BOPs/64 + FLOPs, MB = 10⁶ bytes (published in parentheses)\n"
    );
    println!("| model | float GOPs | binary GOPs | float MB | binary MB | |");
    println!("|---|---|---|---|---|---|");
    for row in ops::published() {
        let s = &row.shapes;
        let ours = [
            s.float_ops() / 1e9,
            s.binary_ops() / 1e9,
            s.float_megabytes(),
            s.binary_bytes() / 1e6,
        ];
        let cells: Vec<String> =
            ours.iter().zip(row.printed).map(|(&v, p)| format!("{} ({p})", like(v, p))).collect();
        let same = ours.iter().zip(row.printed).all(|(&v, p)| like(v, p) == p);
        println!("| {} | {} | {} |", s.name, cells.join(" | "), if same { "=" } else { "≈" });
    }
    println!("\nWhy two sizes differ is in the documentation of `energy::ops`.");
}
