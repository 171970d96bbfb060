//! A model as a crate for a microcontroller: quantised weights as flash data, scratch of the exact
//! size, an example program and golden results.
//!
//! The crate runs `undertone-core`'s fixed-point world, the same code as [`crate::fixed`] on a
//! host, so its logits are the host's bit for bit.

use std::path::{Path, PathBuf};

use undertone_core::fixed::{Absent, Fixed, frac_for};
use undertone_core::{Domains as _, Fault, Role, Site};

use crate::build::Prepared;
use crate::config::VitInput;
use crate::fixed::{self, FixedModel, Owned, Plan, Source, to_fixed};
use crate::image::normalised;

mod estimate;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod weights;

pub use estimate::{Estimate, PICOJOULES_A_CYCLE, counted, estimate};
pub use target::{Region, TARGETS, Target};

/// The world whose operands are exported.
type Host = Fixed<Absent, Owned>;

/// The most examples whose results are compiled into the crate.
pub const EMBEDDED: usize = 4;

/// An input with its name and, where it is known, its class.
#[derive(Clone, Debug)]
pub struct Example {
    /// What it is called in the crate.
    pub name: String,
    /// The pixels of an image, line by line with the channels of a pixel side by side; empty for
    /// a model that reads text.
    pub pixels: Vec<u8>,
    /// What the encoder is fed.
    pub rows: Vec<f32>,
}

/// What to export.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a, S> {
    /// The model, calibrated.
    pub model: &'a S,
    /// Its name: letters, digits, hyphens and underscores.
    pub name: &'a str,
    /// Where it is to run.
    pub target: &'a Target,
    /// Inputs whose results the crate is checked with: the first [`EMBEDDED`] are compiled in, all
    /// go into a file.
    pub examples: &'a [Example],
    /// The checkout of this project that the crate takes `undertone-core` from.
    pub checkout: &'a Path,
}

/// Bytes that a model needs, and what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Weights, position embeddings, norms.
    pub weight_bytes: usize,
    /// Pixel tables, calibrated ranges, golden inputs and results.
    pub table_bytes: usize,
    /// Code, by the measured bound of the target.
    pub code_bytes: usize,
    /// All of these.
    pub flash_bytes: usize,
    /// Activations and accumulators, exactly.
    pub scratch_bytes: usize,
    /// Stack, by the measured bound of the target.
    pub stack_bytes: usize,
    /// Scratch, stack and the program's own buffer of one input.
    pub ram_bytes: usize,
    /// Arithmetic operations of one input, exactly.
    pub operations: u64,
}

/// A crate, not yet written.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its files, by path within the crate.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// What it needs.
    pub figures: Figures,
}

/// Why a model is not exported.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The model does not run in fixed point.
    #[error("the model cannot run in fixed point: {0}")]
    Fault(#[from] Fault),
    /// The model needs more memory than there is.
    #[error(
        "the model does not fit: it needs {needed} bytes of {memory} ({parts}), the board has \
         {available}; choose a smaller model, a larger board or --{option} SIZE"
    )]
    Memory {
        /// Flash or RAM.
        memory: &'static str,
        /// The option that sets its size.
        option: &'static str,
        /// Bytes needed.
        needed: usize,
        /// What they are for.
        parts: String,
        /// Bytes there are.
        available: usize,
    },
    /// A name that is no crate's.
    #[error("`{0}` cannot name a crate: start with a letter and use letters, digits, - and _ only")]
    Name(String),
    /// An example that is not an input of the model.
    #[error("example `{name}` has {got} {what}, the model reads {expected}")]
    Example {
        /// The example.
        name: String,
        /// Pixels or values.
        what: &'static str,
        /// How many it has.
        got: usize,
        /// How many it should have.
        expected: usize,
    },
}

/// What a model needs on a target, checked against what there is.
///
/// # Errors
/// [`ExportError::Memory`] and [`ExportError::Fault`].
pub fn figures(
    model: &impl Source,
    target: &Target,
    embedded: usize,
) -> Result<(Figures, Plan), ExportError> {
    let plan = fixed::plan(model, model.shape())?;
    let encoder: Prepared<Host> = model.encoder(&mut Fixed::ledger())?;
    let weight_bytes = weights::collect(&encoder).file.len();
    let sample = sample_len(model);
    let tables = model.vit().map_or(0, |vit| 512 * vit.channels);
    // A range is a site and two numbers of 16 bytes.
    let ranges = 40 * model.calibration().iter().count();
    let table_bytes = tables + ranges + embedded * (sample + 2 * plan.output.len());
    let (code_bytes, stack_bytes) = (target.code_bytes, target.stack_bytes);
    let scratch_bytes = plan.memory.bytes();
    let figures = Figures {
        weight_bytes,
        table_bytes,
        code_bytes,
        flash_bytes: weight_bytes + table_bytes + code_bytes,
        scratch_bytes,
        stack_bytes,
        ram_bytes: scratch_bytes + stack_bytes + sample,
        operations: plan.counts.total(),
    };
    let check = |memory, option, needed: usize, parts: String, available: u32| {
        let available = available as usize;
        if needed <= available {
            return Ok(());
        }
        Err(ExportError::Memory { memory, option, needed, parts, available })
    };
    let parts = format!("weights {weight_bytes}, tables {table_bytes}, code {code_bytes}");
    check("flash", "flash", figures.flash_bytes, parts, target.flash.bytes)?;
    let parts = format!("activations {scratch_bytes}, stack {stack_bytes}, input {sample}");
    check("RAM", "ram", figures.ram_bytes, parts, target.ram.bytes)?;
    Ok((figures, plan))
}

/// Bytes of one input as the crate reads it: pixels, or 16-bit rows.
fn sample_len(model: &impl Source) -> usize {
    model.vit().map_or(2 * model.shape().len(), VitInput::image_len)
}

/// Makes the crate of a model.
///
/// # Errors
/// [`ExportError`] says why not.
pub fn export<S: Source>(request: &Request<'_, S>) -> Result<Export, ExportError> {
    let Request { model, name, target, examples, checkout } = *request;
    let crate_like = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(crate_like) {
        return Err(ExportError::Name(name.to_owned()));
    }
    let (figures, plan) = figures(model, target, examples.len().min(EMBEDDED))?;
    let encoder: Prepared<Host> = model.encoder(&mut Fixed::ledger())?;
    let weights = weights::collect(&encoder);
    let shape = model.shape();
    let on = model.calibration().bound(Site::outside(Role::Input));
    let range = on.range.ok_or(Fault::Uncalibrated(on.site))?;
    let frac = frac_for(range.ceil_log2());

    let mut host = FixedModel::new(model, shape)?;
    let (mut inputs, mut golden) = (Vec::new(), Vec::new());
    let mut output_frac = 0;
    for example in examples {
        let fit = |what, got: usize, expected: usize| {
            let name = example.name.clone();
            if got == expected {
                Ok(())
            } else {
                Err(ExportError::Example { name, what, got, expected })
            }
        };
        fit("values", example.rows.len(), shape.len())?;
        match model.vit() {
            Some(vit) => {
                fit("pixels", example.pixels.len(), vit.image_len())?;
                inputs.extend_from_slice(&example.pixels);
            }
            None => {
                let clamp = |q: i64| q.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
                let values = example.rows.iter().map(|&x| clamp(to_fixed(x, frac)));
                inputs.extend(values.flat_map(i16::to_le_bytes));
            }
        }
        let run = host.run(&example.rows)?;
        output_frac = run.frac;
        golden.push(run.output.iter().map(|&x| to_fixed(x, run.frac) as i16).collect());
    }
    let tables = match model.vit() {
        Some(vit) => normalised(vit)
            .iter()
            .map(|table| {
                let clamp = |q: i64| q.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
                table.iter().map(|&x| clamp(to_fixed(x, frac))).collect()
            })
            .collect(),
        None => Vec::new(),
    };
    let parts = source::Parts {
        name,
        target,
        checkout,
        examples,
        vit: model.vit(),
        labels: model.labels(),
        calibration: model.calibration(),
        figures: &figures,
        plan: &plan,
        encoder: &encoder,
        weights: &weights,
        input: shape,
        sample: sample_len(model),
        tables,
        golden,
        inputs,
        output_frac,
    };
    Ok(Export { files: source::files(&parts), figures })
}
