//! `export`: a model as a crate for a microcontroller.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use undertone_model::export::{self, Example, Figures, Request, TARGETS, Target};
use undertone_model::fixed::{ByteWeights, Source};

use crate::examples::{Examples, Reads};
use crate::onebit::OneBit;
use crate::render::{bytes, json, say, table};
use crate::{Common, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// The core: cortex-m4, cortex-m7, cortex-m33, cortex-m3, cortex-m0 or riscv32.
    #[arg(long, value_name = "NAME", value_parser = target)]
    target: Target,
    /// The folder of the crate: new, empty, or of an earlier export.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The board's flash, such as 512K.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    flash: Option<u32>,
    /// The board's RAM, such as 128K.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    ram: Option<u32>,
    /// Folder of the images that ship with the models, unless --data is given.
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Test data for the golden results, as for `compare`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// At most so many golden results; the first four are compiled in.
    #[arg(long, value_name = "N", default_value_t = 40)]
    limit: usize,
    /// How linear weights are held: int8, bytes with a scale a channel, or int16. One-bit weights
    /// stay bits.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Weights::Int8)]
    weights: Weights,
    /// The checkout of undertone that the crate takes its code from. By default the one that this
    /// program was built in.
    #[arg(long, value_name = "DIR")]
    checkout: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Formats of linear weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Weights {
    Int8,
    Int16,
}

fn target(name: &str) -> Result<Target, String> {
    Target::named(name).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        format!("targets are {}", names.join(", "))
    })
}

/// Bytes: a number, or one with K or M.
fn size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1u32 << 10),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    let number: Option<u32> = digits.parse().ok();
    number
        .and_then(|n| n.checked_mul(unit))
        .filter(|n| *n > 0)
        .ok_or_else(|| "a size is a number of bytes, or one with K or M: 512K".to_owned())
}

#[derive(Debug, Serialize)]
struct Written {
    version: u32,
    target: &'static str,
    core: &'static str,
    folder: String,
    examples: usize,
    flash_available_bytes: u32,
    ram_available_bytes: u32,
    figures: Figures,
}

/// The file that tells an earlier export from somebody's folder.
const MARK: &str = "undertone.json";

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    match OneBit::load(&options.folder.model)? {
        Some(model) => held(options, model.in_fixed(), &model),
        None => {
            let model = options.folder.load()?;
            held(options, &model, &model)
        }
    }
}

/// Exports a model with its weights held as asked.
fn held(options: &Options, model: &impl Source, reads: &impl Reads) -> anyhow::Result<Outcome> {
    match options.weights {
        Weights::Int8 => write(options, &ByteWeights(model), reads),
        Weights::Int16 => write(options, model, reads),
    }
}

fn write(options: &Options, model: &impl Source, reads: &impl Reads) -> anyhow::Result<Outcome> {
    let target = options.target.clone().with_memory(options.flash, options.ram);
    let out = &options.out;
    // Refused before anything is computed or written.
    export::figures(model, &target, export::EMBEDDED.min(options.limit))
        .with_context(|| target.to_string())?;
    if out.exists() && !out.join(MARK).exists() && out.read_dir()?.next().is_some() {
        bail!("{}: not empty and no earlier export; choose another folder", out.display());
    }
    let checkout = match &options.checkout {
        Some(folder) => folder.clone(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
    };
    let checkout = checkout
        .canonicalize()
        .ok()
        .filter(|c| c.join("no_std/Cargo.toml").exists() && c.join("firmware/board").exists())
        .with_context(|| {
            format!("{}: no checkout of undertone; name one with --checkout", checkout.display())
        })?;
    let examples = Examples::test(reads, &options.models, options.data.as_deref(), options.limit)?;
    let examples: Vec<Example> = (0..examples.len())
        .map(|i| Example {
            name: examples.names[i].clone(),
            pixels: examples.pixels.get(i).cloned().unwrap_or_default(),
            rows: examples.rows(i, i + 1).to_vec(),
        })
        .collect();
    let folder = options.folder.model.canonicalize()?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let request =
        Request { model, name: &name, target: &target, examples: &examples, checkout: &checkout };
    let made = export::export(&request)?;
    for (path, content) in &made.files {
        let path = out.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    // The versions that this project is tested with; cargo completes what is missing.
    let lock = checkout.join("firmware/Cargo.lock");
    if lock.exists() && !out.join("Cargo.lock").exists() {
        std::fs::copy(&lock, out.join("Cargo.lock")).context("Cargo.lock")?;
    }
    let written = Written {
        version: 1,
        target: target.name,
        core: target.core,
        folder: out.display().to_string(),
        examples: examples.len(),
        flash_available_bytes: target.flash.bytes,
        ram_available_bytes: target.ram.bytes,
        figures: made.figures,
    };
    if options.common.json {
        json(&written)?;
    } else {
        print(options, &written);
    }
    Ok(Outcome::Good)
}

fn print(options: &Options, written: &Written) {
    let f = &written.figures;
    let row = |memory: &str, what: &str, n: usize| {
        vec![memory.to_owned(), what.to_owned(), bytes(n as u64)]
    };
    let rows = vec![
        row("flash", "weights", f.weight_bytes),
        row("flash", "tables, golden results", f.table_bytes),
        row("flash", "code, at most", f.code_bytes),
        row("flash", "in all", f.flash_bytes),
        row("flash", "there is", written.flash_available_bytes as usize),
        row("RAM", "activations, accumulators", f.scratch_bytes),
        row("RAM", "stack, at most", f.stack_bytes),
        row("RAM", "in all", f.ram_bytes),
        row("RAM", "there is", written.ram_available_bytes as usize),
    ];
    say!("{}\n", table(&options.common, &["memory", "for", "size"], 2, rows));
    say!(
        "{}: a crate for {} with {} golden results. There: cargo run --release",
        written.folder,
        written.core,
        written.examples
    );
}
