//! `compare`: the same inputs through the same model in every world.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use undertone_binary::energy::Prices;

use crate::examples::Examples;
use crate::onebit::OneBit;
use crate::render::{argmax, count, energy, json, say, table};
use crate::worlds::{self, Report, WorldName};
use crate::{Common, Energy, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Folder of model folders.
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Only models whose name contains this; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// No models whose name contains this; may be given more than once.
    #[arg(long, value_name = "NAME")]
    except: Vec<String>,
    /// Test data: a folder with the IDX files of Fashion-MNIST, or with one folder a class. By
    /// default the images that ship with the models.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// At most so many examples.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Only these worlds beside float; may be given more than once. By default those of each model.
    #[arg(long, value_name = "NAME")]
    world: Vec<WorldName>,
    /// Fail (exit 1) unless every world agrees with the float world on at least this fraction of
    /// the examples.
    #[arg(long, value_name = "FRACTION")]
    require_agreement: Option<f64>,
    #[command(flatten)]
    energy: Energy,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Comparison {
    version: u32,
    tasks: Vec<TaskTable>,
}

#[derive(Debug, Serialize)]
struct TaskTable {
    task: String,
    examples: usize,
    rows: Vec<Row>,
}

/// One model in one world.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    attention: String,
    world: &'static str,
    correct: usize,
    accuracy: f64,
    agree_with_float: usize,
    max_logit_error: f64,
    mean_logit_error: f64,
    cpu_seconds: f64,
    operations: u64,
    operations_per_example: u64,
    /// Additions and multiplications priced, where the table prices them all.
    #[serde(skip_serializing_if = "Option::is_none")]
    energy_pj_per_example: Option<f64>,
    saturated: u64,
    /// Test accuracies of the training runs of all seeds, where the model has its log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seed_accuracies: Vec<f64>,
}

/// What `training.json` holds that tables show.
#[derive(Debug, Default, Deserialize)]
struct Training {
    /// By seed.
    #[serde(default)]
    accuracy_percent: std::collections::BTreeMap<String, f64>,
}

impl Options {
    /// Float first, then the worlds asked for or else a model's own.
    fn worlds(&self, own: &[WorldName]) -> Vec<WorldName> {
        let others = if self.world.is_empty() { own } else { &self.world };
        let others = others.iter().copied().filter(|world| *world != WorldName::Float);
        [WorldName::Float].into_iter().chain(others).collect()
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let prices = options.energy.load()?;
    let mut tasks: Vec<TaskTable> = Vec::new();
    for folder in folders(options)? {
        let (data, threads) = (options.data.as_deref(), options.common.threads());
        let (rows, examples) = match OneBit::load(&folder)? {
            Some(model) => {
                let examples = Examples::test(&model, &options.models, data, options.limit)?;
                let run = |world, bar: &_| model.run(world, &examples, threads, bar);
                let worlds = options.worlds(&model.worlds());
                (compare(&folder, model.kinds(), &worlds, &prices, &examples, run)?, examples)
            }
            None => {
                let model = crate::load(&folder)?;
                let examples = Examples::test(&model, &options.models, data, options.limit)?;
                let run = |world, bar: &_| worlds::run(world, &model, &examples, threads, bar);
                let kinds = model.config.kinds().into_keys().collect::<Vec<_>>().join(" + ");
                let worlds = options.worlds(&WorldName::ALL);
                (compare(&folder, kinds, &worlds, &prices, &examples, run)?, examples)
            }
        };
        match tasks.iter_mut().find(|t| t.task == examples.name) {
            Some(task) => task.rows.extend(rows),
            None => {
                let (task, examples) = (examples.name.clone(), examples.len());
                tasks.push(TaskTable { task, examples, rows });
            }
        }
    }
    let comparison = Comparison { version: 1, tasks };
    if options.common.json {
        json(&comparison)?;
    } else {
        comparison.tasks.iter().for_each(|task| print(options, task));
    }
    let Some(fraction) = options.require_agreement else {
        return Ok(Outcome::Good);
    };
    let mut outcome = Outcome::Good;
    for task in &comparison.tasks {
        for row in &task.rows {
            let agreement = row.agree_with_float as f64 / task.examples as f64;
            if agreement < fraction {
                eprintln!("{} in the {} world agrees on {agreement:.4}", row.model, row.world);
                outcome = Outcome::CheckFailed;
            }
        }
    }
    Ok(outcome)
}

/// The chosen model folders in a folder and in its folders, in order of their names; those with
/// one-bit attention come last.
fn folders(options: &Options) -> anyhow::Result<Vec<PathBuf>> {
    let Options { models, only, except, .. } = options;
    let read = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder).with_context(|| {
            format!("{}: run from the project's root, or give --models", folder.display())
        })?;
        Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?)
    };
    let is_model = |path: &PathBuf| {
        let weights = ["model.safetensors", undertone_binary::model::PACKED];
        path.join("config.json").exists() && weights.iter().any(|w| path.join(w).exists())
    };
    let mut folders = Vec::new();
    for path in read(models)? {
        if is_model(&path) {
            folders.push(path);
        } else if path.is_dir() {
            folders.extend(read(&path)?.into_iter().filter(is_model));
        }
    }
    folders.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let contains = |part: &String| name.contains(part.as_str());
        (only.is_empty() || only.iter().any(contains)) && !except.iter().any(contains)
    });
    folders.sort_by_key(|path| (undertone_binary::model::is_one_bit(path), path.clone()));
    if folders.is_empty() {
        bail!("{}: no model folder matches", models.display());
    }
    Ok(folders)
}

fn compare(
    folder: &Path,
    attention: String,
    worlds: &[WorldName],
    prices: &Prices,
    examples: &Examples,
    run: impl Fn(WorldName, &ProgressBar) -> anyhow::Result<Report>,
) -> anyhow::Result<Vec<Row>> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let training = std::fs::read_to_string(folder.join("training.json"))
        .ok()
        .map(|text| serde_json::from_str::<Training>(&text))
        .transpose()
        .with_context(|| format!("{name}/training.json"))?
        .unwrap_or_default();
    let mut reports = Vec::new();
    for &world in worlds {
        let bar = worlds::progress(examples.len(), &format!("{name}, {}", world.name()));
        reports.push((world, run(world, &bar)?));
        bar.finish_and_clear();
    }
    let (_, float) = &reports[0];
    Ok(reports
        .iter()
        .map(|(world, report)| {
            let mut row = row(*world, report, float, examples);
            row.model.clone_from(&name);
            row.attention.clone_from(&attention);
            row.energy_pj_per_example =
                prices.arithmetic(&report.counts).map(|e| e / examples.len() as f64);
            row.seed_accuracies = training.accuracy_percent.values().map(|a| a / 100.0).collect();
            row
        })
        .collect())
}

fn row(world: WorldName, report: &Report, float: &Report, examples: &Examples) -> Row {
    let pairs = || report.logits.iter().zip(&float.logits);
    let correct = report.logits.iter().zip(&examples.labels).filter(|(l, y)| argmax(l) == **y);
    let correct = correct.count();
    let errors = pairs().flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| f64::from((a - b).abs()));
    let (mut max, mut total, mut n) = (0.0f64, 0.0, 0usize);
    for error in errors {
        max = max.max(error);
        total += error;
        n += 1;
    }
    let operations = report.counts.total();
    Row {
        model: String::new(),
        attention: String::new(),
        world: world.name(),
        correct,
        accuracy: correct as f64 / examples.len() as f64,
        agree_with_float: pairs().filter(|(a, b)| argmax(a) == argmax(b)).count(),
        max_logit_error: max,
        mean_logit_error: total / n.max(1) as f64,
        cpu_seconds: report.cpu_seconds,
        operations,
        operations_per_example: operations / examples.len() as u64,
        energy_pj_per_example: None,
        saturated: report.saturated,
        seed_accuracies: Vec::new(),
    }
}

fn print(options: &Options, task: &TaskTable) {
    say!("{}: {} examples\n", task.task, task.examples);
    let header = [
        "model",
        "attention",
        "world",
        "correct",
        "accuracy",
        "agree",
        "max error",
        "mean error",
        "CPU s",
        "ops/example",
        "energy",
        "seeds",
    ];
    let rows = task.rows.iter().map(|r| {
        let error = |x: f64| if r.world == "float" { "–".to_owned() } else { format!("{x:.4}") };
        vec![
            r.model.clone(),
            r.attention.clone(),
            r.world.to_owned(),
            format!("{}/{}", r.correct, task.examples),
            format!("{:.2} %", 100.0 * r.accuracy),
            format!("{}", r.agree_with_float),
            error(r.max_logit_error),
            error(r.mean_logit_error),
            format!("{:.2}", r.cpu_seconds),
            count(r.operations_per_example),
            energy(r.energy_pj_per_example),
            spread(&r.seed_accuracies),
        ]
    });
    say!("{}\n", table(&options.common, &header, 3, rows.collect()));
}

/// Mean and standard deviation over seeds, in percent.
fn spread(accuracies: &[f64]) -> String {
    if accuracies.is_empty() {
        return String::new();
    }
    let n = accuracies.len() as f64;
    let mean = accuracies.iter().sum::<f64>() / n;
    let variance = accuracies.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    format!("{:.2} ± {:.2} ({})", 100.0 * mean, 100.0 * variance.sqrt(), accuracies.len())
}
