//! The client of `party`: inputs, answers, and a comparison with the float world on request.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use undertone_core::{Mask, Shape};
use undertone_model::Model;
use undertone_model::float::{Float, Fused};
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;
use undertone_model::text::TextEncoder;
use undertone_mpc::party::{Request, Task, ask};
use undertone_tls::Identity;

use crate::examples::Examples;
use crate::infer::{Answer, cosines, interpret, label, print};
use crate::render::{argmax, say};
use crate::worlds::progress;
use crate::{Outcome, load, party};

#[derive(Debug, Clone, Args)]
pub(crate) struct ClientOptions {
    /// Client: images to classify (PNG or JPEG).
    images: Vec<PathBuf>,
    /// Client: a sentence to embed; may be given more than once.
    #[arg(long, value_name = "SENTENCE", conflicts_with = "images")]
    text: Vec<String>,
    /// Client: test images of a data set, as for `compare`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["images", "text"])]
    data: Option<PathBuf>,
    /// Client with --data: at most so many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Client: compare with the float world of this model folder, which a real client has not.
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
    /// Client with --check: fail where a smaller share of classes agrees.
    #[arg(long, value_name = "SHARE", requires = "check", default_value_t = 0.0)]
    require_agreement: f64,
}

impl ClientOptions {
    /// Whether any input was given.
    pub(crate) fn given(&self) -> bool {
        !self.images.is_empty() || !self.text.is_empty() || self.data.is_some()
    }
}

/// An input's name, its rows, and the right class where it is known.
struct Inputs {
    names: Vec<String>,
    rows: Vec<Vec<f32>>,
    labels: Option<Vec<usize>>,
}

fn inputs(options: &ClientOptions, folder: &Path, model: &Model) -> anyhow::Result<Inputs> {
    if let Some(data) = &options.data {
        let examples = Examples::test(model, Path::new("models"), Some(data), options.limit)?;
        return Ok(Inputs {
            names: (0..examples.len()).map(|i| i.to_string()).collect(),
            rows: (0..examples.len()).map(|i| examples.rows(i, i + 1).to_vec()).collect(),
            labels: Some(examples.labels),
        });
    }
    let mut names = Vec::new();
    let mut rows = Vec::new();
    for path in &options.images {
        let vit = model.config.vit().context("the model does not read images")?;
        let name = path.display().to_string();
        let picture = Picture::load(path).with_context(|| name.clone())?;
        let values = picture.to_input(vit, Resize::Refuse).with_context(|| name.clone())?;
        rows.push(model.rows(&EncoderInput::Image(&values))?);
        names.push(name);
    }
    if !options.text.is_empty() {
        let encoder = TextEncoder::load(folder, &model.config)?;
        for text in &options.text {
            let tokens = encoder.encode(text)?;
            rows.push(model.rows(&EncoderInput::Tokens { ids: &tokens.ids, mask: None })?);
            names.push(text.clone());
        }
    }
    if rows.is_empty() {
        bail!("nothing to do: name images, sentences with --text, or a data set with --data");
    }
    Ok(Inputs { names, rows, labels: None })
}

pub(crate) fn run(options: &party::Options) -> anyhow::Result<Outcome> {
    let task = Task::client(&options.dir)?;
    let model = &task.model;
    let given = inputs(&options.client, &options.dir, model)?;
    let width = model.input_shape(1, 1).cols;
    let tokens =
        given.rows.iter().map(|r| u32::try_from(r.len() / width)).collect::<Result<_, _>>()?;
    let request = Request { session: rand::random(), argmax: options.argmax, tokens };
    let mut outputs: Vec<Vec<f32>> = Vec::new();
    let bar = progress(given.rows.len(), "between two parties");
    let finished = ask(
        &task,
        options.server,
        &Identity::load(&options.dir)?,
        options.limits(),
        &options.preparation(),
        options.emulate,
        (&request, &given.rows),
        &mut |_, output| {
            bar.inc(1);
            outputs.push(output);
        },
    )?;
    bar.finish_and_clear();
    let mut answers = Vec::with_capacity(outputs.len());
    for (name, output) in given.names.iter().zip(&outputs) {
        answers.push(if options.argmax {
            let class = output.first().map_or(0, |c| *c as usize);
            Answer::Label { input: name.clone(), class, label: label(model, class) }
        } else {
            interpret(model, name.clone(), output.clone())?
        });
    }
    let cosines = cosines(&answers);
    let check = match &options.client.check {
        Some(folder) => Some(Check::of(folder, &given, &outputs, options.argmax)?),
        None => None,
    };
    if options.common.json {
        crate::render::json(&json!({
            "version": 1,
            "world": "shared",
            "answers": answers,
            "cosines": cosines,
            "cost": party::cost(&finished),
            "check": check.as_ref().map(Check::value),
        }))?;
    } else {
        // A data set is too long to list.
        if options.client.data.is_none() {
            print(&options.common, &answers, &cosines);
        }
        let (setup, online) = (finished.setup.as_secs_f64(), finished.online.as_secs_f64());
        say!("{}", party::line(&finished));
        say!("weights {setup:.2} s, then {online:.2} s for {} input(s)", outputs.len());
        if let Some(check) = &check {
            say!("{}", check.line());
        }
    }
    let agrees = check.is_none_or(|c| c.agreement() >= options.client.require_agreement);
    let good = agrees && party::as_planned(&finished);
    Ok(if good { Outcome::Good } else { Outcome::CheckFailed })
}

/// What the float world of the whole model says to the same inputs.
struct Check {
    examples: usize,
    agree: usize,
    right: Option<(usize, usize)>,
    max_error: Option<f32>,
    max_cosine_error: Option<f64>,
}

impl Check {
    fn of(
        folder: &Path,
        given: &Inputs,
        shown: &[Vec<f32>],
        only_class: bool,
    ) -> anyhow::Result<Self> {
        let model = load(folder)?;
        let mut float = Float::new();
        let encoder = model.prepare::<_, Fused>(&mut float)?;
        let width = model.input_shape(1, 1).cols;
        let (mut agree, mut error) = (0, 0f32);
        let (mut right, mut float_right) = (0, 0);
        let mut answers = [Vec::new(), Vec::new()];
        let classifies = model.weights.classifier.is_some();
        for (i, (rows, shown)) in given.rows.iter().zip(shown).enumerate() {
            let shape = Shape::new(1, rows.len() / width, width);
            let want = model.run::<_, Fused>(&mut float, &encoder, shape, rows, &Mask::NONE)?;
            if classifies {
                let class = if only_class { shown[0] as usize } else { argmax(shown) };
                agree += usize::from(class == argmax(&want));
                if let Some(labels) = &given.labels {
                    right += usize::from(class == labels[i]);
                    float_right += usize::from(argmax(&want) == labels[i]);
                }
            } else {
                answers[0].push(interpret(&model, String::new(), want.clone())?);
                answers[1].push(interpret(&model, String::new(), shown.clone())?);
            }
            if !only_class {
                error = shown.iter().zip(&want).fold(error, |m, (a, b)| m.max((a - b).abs()));
            }
        }
        let [want, got] = answers.map(|a| cosines(&a));
        let worst =
            want.iter().zip(&got).map(|(a, b)| (a.cosine - b.cosine).abs()).reduce(f64::max);
        Ok(Self {
            examples: shown.len(),
            agree: if classifies { agree } else { shown.len() },
            right: given.labels.as_ref().map(|_| (right, float_right)),
            max_error: (!only_class).then_some(error),
            max_cosine_error: worst,
        })
    }

    fn agreement(&self) -> f64 {
        self.agree as f64 / self.examples as f64
    }

    fn line(&self) -> String {
        let mut line = format!("float agrees on {} of {}", self.agree, self.examples);
        if let Some((right, float)) = self.right {
            line += &format!("; {right} right, float {float}");
        }
        if let Some(error) = self.max_error {
            line += &format!("; outputs differ by at most {error:.2e}");
        }
        if let Some(error) = self.max_cosine_error {
            line += &format!("; cosines by at most {error:.2e}");
        }
        line
    }

    fn value(&self) -> Value {
        json!({
            "examples": self.examples,
            "agree": self.agree,
            "correct": self.right.map(|r| r.0),
            "float_correct": self.right.map(|r| r.1),
            "max_error": self.max_error,
            "max_cosine_error": self.max_cosine_error,
        })
    }
}
