//! `infer`: one model on images or sentences.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use undertone_core::{Full, Mask, Shape};
use undertone_model::Model;
use undertone_model::config::VitInput;
use undertone_model::fixed::{ByteWeights, FixedModel};
use undertone_model::float::{Float, Fused};
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;
use undertone_model::text::TextEncoder;

use crate::examples::Reads as _;
use crate::onebit::OneBit;
use crate::render::{argmax, count, energy, json, say, table};
use crate::worlds::WorldName;
use crate::{Common, Energy, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// Images to classify (PNG or JPEG).
    images: Vec<PathBuf>,
    /// Sentences to embed or classify; may be given more than once.
    #[arg(long, value_name = "SENTENCE", conflicts_with = "images")]
    text: Vec<String>,
    /// The world to run in.
    #[arg(long, default_value = "float")]
    world: WorldName,
    /// Scale images of another size.
    #[arg(long)]
    resize: bool,
    /// Refuse values outside the calibrated ranges: in the float world at every site, in fixed
    /// point those that saturate.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    energy: Energy,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Class {
        input: String,
        class: usize,
        label: String,
        probability: f64,
        logits: Vec<f32>,
        /// What the answer cost; counted for models with one-bit attention.
        #[serde(skip_serializing_if = "Option::is_none")]
        operations: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        energy_pj: Option<f64>,
    },
    /// The class alone.
    Label {
        input: String,
        class: usize,
        label: String,
    },
    Embedding {
        input: String,
        embedding: Vec<f32>,
    },
}

#[derive(Debug, Serialize)]
struct Answers {
    version: u32,
    world: &'static str,
    answers: Vec<Answer>,
    /// Cosines of every pair of sentences, where sentences were embedded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cosines: Vec<Cosine>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Cosine {
    pub(crate) a: usize,
    pub(crate) b: usize,
    pub(crate) cosine: f64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if options.images.is_empty() && options.text.is_empty() {
        bail!("nothing to do: name images, or sentences with --text");
    }
    if let Some(model) = OneBit::load(&options.folder.model)? {
        return one_bit(options, &model);
    }
    let model = options.folder.load()?;
    if options.strict && model.calibration.is_empty() {
        bail!("--strict needs calibrated ranges, and the model has none: calibrate it first");
    }
    let mut answers = Vec::new();
    for path in &options.images {
        let (name, values) = image(options, model.config.vit(), path)?;
        answers.push(answer(options, &model, name, &EncoderInput::Image(&values))?);
    }
    if !options.text.is_empty() {
        let encoder = TextEncoder::load(&options.folder.model, &model.config)?;
        for text in &options.text {
            let tokens = encoder.encode(text).with_context(|| {
                // Enough to tell sentences apart.
                format!("--text {:?}", text.chars().take(40).collect::<String>())
            })?;
            let input = EncoderInput::Tokens { ids: &tokens.ids, mask: None };
            answers.push(answer(options, &model, text.clone(), &input)?);
        }
    }
    show(options, answers)
}

/// Reads an image as the model wants it; also its name.
fn image(
    options: &Options,
    vit: Option<&VitInput>,
    path: &Path,
) -> anyhow::Result<(String, Vec<f32>)> {
    let vit = vit.context("the model does not read images")?;
    let resize = if options.resize { Resize::Scale } else { Resize::Refuse };
    let name = path.display().to_string();
    let picture = Picture::load(path).with_context(|| name.clone())?;
    let values = picture.to_input(vit, resize).with_context(|| name.clone())?;
    Ok((name, values))
}

/// A model with one-bit attention classifies, and what that costs is counted.
fn one_bit(options: &Options, model: &OneBit) -> anyhow::Result<Outcome> {
    if options.strict {
        bail!("--strict is not for one-bit models");
    }
    if !options.text.is_empty() {
        bail!("--text: one-bit models come without a tokenizer; compare runs their task");
    }
    let prices = options.energy.load()?;
    let mut answers = Vec::new();
    for path in &options.images {
        let (name, values) = image(options, model.vit(), path)?;
        let rows = model.rows(&EncoderInput::Image(&values))?;
        let (logits, counts) = model.logits(options.world, &rows).with_context(|| name.clone())?;
        let mut answer = class(name, logits, model.labels());
        if let Answer::Class { operations, energy_pj, .. } = &mut answer {
            (*operations, *energy_pj) = (Some(counts.total()), prices.arithmetic(&counts));
        }
        answers.push(answer);
    }
    show(options, answers)
}

fn show(options: &Options, answers: Vec<Answer>) -> anyhow::Result<Outcome> {
    let cosines = cosines(&answers);
    let answers = Answers { version: 1, world: options.world.name(), answers, cosines };
    if options.common.json {
        json(&answers)?
    } else {
        print(&options.common, &answers.answers, &answers.cosines)
    }
    Ok(Outcome::Good)
}

fn answer(
    options: &Options,
    model: &Model,
    input: String,
    example: &EncoderInput<'_>,
) -> anyhow::Result<Answer> {
    let rows = model.rows(example)?;
    let whole = model.input_shape(1, 1);
    let shape = Shape::new(1, rows.len() / whole.cols, whole.cols);
    let output = match options.world {
        WorldName::Float if options.strict => {
            // The fused forms never hold scores and weights, so they could not check them.
            let mut w = Float::strict();
            let encoder = model.prepare::<_, Full>(&mut w)?;
            model.run::<_, Full>(&mut w, &encoder, shape, &rows, &Mask::NONE)
        }
        WorldName::Float => {
            let mut w = Float::new();
            let encoder = model.prepare::<_, Fused>(&mut w)?;
            model.run::<_, Fused>(&mut w, &encoder, shape, &rows, &Mask::NONE)
        }
        WorldName::Fixed | WorldName::Fixed8 => {
            let run = match options.world {
                WorldName::Fixed => FixedModel::new(model, shape)?.run(&rows),
                _ => FixedModel::new(&ByteWeights(model), shape)?.run(&rows),
            };
            match run {
                Ok(run) if options.strict && run.saturated > 0 => {
                    bail!("{input}: {} values saturated in fixed point", run.saturated)
                }
                run => run.map(|run| run.output),
            }
        }
        WorldName::Binary => bail!("the model has no one-bit attention: see models/one-bit"),
    };
    let output = output.with_context(|| input.clone())?;
    interpret(model, input, output)
}

/// The name of a class.
pub(crate) fn label(model: &Model, class: usize) -> String {
    named(model.config.labels.as_deref(), class)
}

fn named(labels: Option<&[String]>, class: usize) -> String {
    match labels {
        Some(labels) => labels.get(class).cloned().unwrap_or_default(),
        None => class.to_string(),
    }
}

/// What an encoder's output says.
pub(crate) fn interpret(model: &Model, input: String, output: Vec<f32>) -> anyhow::Result<Answer> {
    if let Some(classifier) = &model.weights.classifier {
        if output.len() != classifier.outputs {
            bail!("the model classifies every token (pooling `none`): infer gives one class");
        }
        return Ok(class(input, output, model.config.labels.as_deref()));
    }
    // A sentence's embedding: the mean over its tokens, normalised (sentence-transformers).
    let width = model.config.width;
    let mut embedding = vec![0.0f32; width];
    for row in output.chunks_exact(width) {
        embedding.iter_mut().zip(row).for_each(|(e, x)| *e += x);
    }
    let norm = embedding.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    embedding.iter_mut().for_each(|x| *x /= norm);
    Ok(Answer::Embedding { input, embedding })
}

/// The likeliest class, by its softmax.
fn class(input: String, logits: Vec<f32>, labels: Option<&[String]>) -> Answer {
    let class = argmax(&logits);
    let max = logits[class];
    let total: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    let label = named(labels, class);
    let (operations, energy_pj) = (None, None);
    Answer::Class { input, class, label, probability: 1.0 / total, logits, operations, energy_pj }
}

pub(crate) fn cosines(answers: &[Answer]) -> Vec<Cosine> {
    let mut out = Vec::new();
    for (a, first) in answers.iter().enumerate() {
        for (b, second) in answers.iter().enumerate().skip(a + 1) {
            if let (
                Answer::Embedding { embedding: x, .. },
                Answer::Embedding { embedding: y, .. },
            ) = (first, second)
            {
                let cosine = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                out.push(Cosine { a, b, cosine });
            }
        }
    }
    out
}

pub(crate) fn print(common: &Common, answers: &[Answer], cosines: &[Cosine]) {
    let mut classes = Vec::new();
    let mut header = vec!["input", "class", "probability"];
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Answer::Class { input, label, probability, operations, energy_pj, .. } => {
                let probability = format!("{:.1} %", 100.0 * probability);
                let mut row = vec![input.clone(), label.clone(), probability];
                if let Some(operations) = operations {
                    row.extend([count(*operations), energy(*energy_pj)]);
                    header.extend(["operations", "energy"].iter().skip(header.len() - 3));
                }
                classes.push(row);
            }
            Answer::Label { input, label, .. } => {
                classes.push(vec![input.clone(), label.clone(), "–".to_owned()]);
            }
            Answer::Embedding { input, .. } => say!("[{number}] {input}"),
        }
    }
    if !classes.is_empty() {
        say!("{}", table(common, &header, 2, classes));
    }
    if !cosines.is_empty() {
        let row = |c: &Cosine| vec![c.a.to_string(), c.b.to_string(), format!("{:.5}", c.cosine)];
        let rows = cosines.iter().map(row).collect();
        say!("{}", table(common, &["a", "b", "cosine"], 0, rows));
    }
}
