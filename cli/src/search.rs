//! `search`: which heads need dear attention. `undertone-train` learns it and asks this program for
//! prices; here the request is checked and the front shown.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use undertone_model::limits::read_bounded;
use undertone_mpc::party::Task;

use crate::plan_mpc::Saved;
use crate::price::{self, Cost, How};
use crate::render::{json, say, table};
use crate::{Common, ModelFolder, Outcome};

/// What a saved plan or a front may have.
const JSON_BYTES: u64 = 1 << 26;
const INSTALL: &str = "install it with `pip install -e train` in the project's folder, or name a \
                       Python that has it with --python";

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// What is to stay low.
    #[arg(long, value_enum)]
    cost: Cost,
    /// Amounts not to exceed, such as 10s, 600kB, 30uJ or 1.2M, separated by commas: a model each.
    #[arg(long, value_name = "AMOUNT,…", value_delimiter = ',', required_unless_present = "mu")]
    budget: Vec<String>,
    /// Fractions of all heads that keep the dearer of two kinds, as published: a model each.
    #[arg(long, value_name = "μ,…", value_delimiter = ',')]
    mu: Vec<f64>,
    /// Kinds of attention to choose from; undertone-train knows softmax, power2, power4, relu,
    /// scaling, two_quad, relu_squared, uniform.
    #[arg(long, value_name = "KIND,…", default_value = "scaling,relu")]
    kinds: String,
    /// What the model was trained on: Fashion-MNIST's files, or class folders under train and test
    /// (also in a zip). Not for tasks that are generated.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// The recipe of undertone-train that the model was trained by. By default as training.json in
    /// its folder says.
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<String>,
    /// A plan of this model (`plan --world mpc --json`) made on the machine that will run it:
    /// latencies are then for that machine.
    #[arg(long, value_name = "FILE", conflicts_with = "rates")]
    plan: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Epochs of the search, and of each retraining.
    #[arg(long, value_name = "N", default_value_t = 10)]
    search_epochs: u32,
    #[arg(long, value_name = "N", default_value_t = 40)]
    epochs: u32,
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u32,
    /// Where runs are kept; the same command goes on from there after an interruption.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Folder for the found models.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A Python that has undertone-train. By default the command undertone-train is run.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// Everything after `--` goes to `undertone-train search`, such as --gelu or --scratch.
    #[arg(last = true, value_name = "OPTION")]
    more: Vec<OsString>,
    #[command(flatten)]
    common: Common,
}

/// What `undertone-train search --json` answers, as far as the table needs it.
#[derive(Debug, Deserialize)]
struct Front {
    plot: PathBuf,
    models: Vec<Found>,
}

#[derive(Debug, Deserialize)]
struct Found {
    name: String,
    kinds: String,
    cost: f64,
    accuracy_percent: f64,
    dominated: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let command = command(options)?;
    let front: Value = serde_json::from_str(&answer(command)?)
        .context("undertone-train answered with something else than a front")?;
    if options.common.json {
        json(&front)?;
    } else {
        print(options, &Front::deserialize(&front).context("the front of undertone-train")?);
    }
    Ok(Outcome::Good)
}

/// Checks the request and writes it as undertone-train wants it.
fn command(options: &Options) -> anyhow::Result<Command> {
    price::check(options.cost, &options.how)?;
    // A folder that cannot be loaded is named here, not after minutes.
    options.folder.load()?;
    let unit = options.cost.unit();
    let budgets = options.budget.iter().map(|b| unit.parse(b));
    let budgets = budgets.collect::<anyhow::Result<Vec<_>>>().context("--budget")?;
    if let Some(mu) = options.mu.iter().find(|mu| !(0.0..=1.0).contains(*mu)) {
        bail!("--mu {mu}: a fraction of all heads, from 0 to 1");
    }
    let mut command = match &options.python {
        Some(python) => {
            let mut command = Command::new(python);
            command.args(["-m", "undertone_train.cli"]);
            command
        }
        None => Command::new("undertone-train"),
    };
    let me = std::env::current_exe().context("the path of this program")?;
    command.arg("search").arg(recipe(options)?);
    command.arg("--teacher").arg(&options.folder.model).arg("--undertone").arg(me);
    command.args(["--cost", &options.cost.name(), "--kinds", &options.kinds, "--json"]);
    command.args(["--budget", &join(&budgets), "--mu", &join(&options.mu)]);
    command.args(["--search-epochs", &options.search_epochs.to_string()]);
    command.args(["--epochs", &options.epochs.to_string(), "--seed", &options.seed.to_string()]);
    command.arg("--runs").arg(&options.runs).arg("--models").arg(&options.out);
    if let Some(data) = &options.data {
        command.arg("--data").arg(data);
    }
    for argument in pricing(options)? {
        // One word each: `--price=--rates=…`, since a value that begins with a hyphen is none.
        command.arg(format!("--price={argument}"));
    }
    if let Some(threads) = options.common.threads {
        command.env("OMP_NUM_THREADS", threads.to_string());
    }
    command.args(&options.more);
    Ok(command)
}

/// What `undertone price` gets beside model and cost.
fn pricing(options: &Options) -> anyhow::Result<Vec<String>> {
    let mut all = options.how.arguments();
    if let Some(path) = &options.plan {
        if !matches!(options.cost, Cost::Mpc | Cost::MpcLan | Cost::MpcWan) {
            bail!("--plan tells the speed of a machine for --cost mpc-lan, mpc-wan or mpc");
        }
        let context = || format!("plan {}", path.display());
        let saved: Saved = serde_json::from_slice(&read_bounded(path, JSON_BYTES)?)
            .with_context(context)
            .context("wanted the output of `undertone plan --world mpc --json`")?;
        let task = Task::dealer(&options.folder.model)?;
        if saved.config_sha256 != task.digest() {
            bail!(
                "{}: a plan of another model than {} (SHA-256 of config.json {:.12}…, here {:.12}…)",
                path.display(),
                options.folder.model.display(),
                saved.config_sha256,
                task.digest(),
            );
        }
        all.push(format!("--rates={}", saved.rates));
    }
    Ok(all)
}

/// The recipe that the model was trained by.
fn recipe(options: &Options) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Training {
        recipe: String,
    }
    if let Some(recipe) = &options.recipe {
        return Ok(recipe.clone());
    }
    let path = options.folder.model.join("training.json");
    let read = || -> anyhow::Result<Training> {
        Ok(serde_json::from_slice(&read_bounded(&path, JSON_BYTES)?)?)
    };
    let training = read().with_context(|| {
        format!("{} does not say how the model was trained: give --recipe", path.display())
    })?;
    Ok(training.recipe)
}

fn join(values: &[f64]) -> String {
    values.iter().map(f64::to_string).collect::<Vec<_>>().join(",")
}

/// Runs undertone-train; its progress goes to a terminal, its error becomes ours.
fn answer(mut command: Command) -> anyhow::Result<String> {
    let name = Path::new(command.get_program()).display().to_string();
    let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{name} is not there: {INSTALL}")
        }
        Err(error) => return Err(error).context(name),
    };
    // Standard output is one JSON text at the end: it fits while errors are read, or is read after.
    let stdout = child.stdout.take().context("no standard output")?;
    let out = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.take(JSON_BYTES).read_to_string(&mut text).map(|_| text)
    });
    let shown = std::io::stderr().is_terminal();
    let mut last = String::new();
    for line in BufReader::new(child.stderr.take().context("no standard error")?).lines() {
        let line = line?;
        if shown && !line.starts_with("error: ") {
            eprintln!("{line}");
        }
        if !line.trim().is_empty() {
            last = line;
        }
    }
    let status = child.wait()?;
    let text = out.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
    if status.success() {
        return Ok(text);
    }
    if last.contains("No module named 'undertone_train'") {
        bail!("{name} has no undertone-train: {INSTALL}");
    }
    match last.strip_prefix("error: ") {
        Some(error) => bail!("{error}"),
        None => bail!("undertone-train ended with {status}: {last}"),
    }
}

fn print(options: &Options, front: &Front) {
    let rows = front.models.iter().map(|m| {
        vec![
            m.name.clone(),
            m.kinds.clone(),
            options.cost.unit().show(m.cost),
            format!("{:.2} %", m.accuracy_percent),
            if m.dominated { "dominated" } else { "front" }.to_owned(),
        ]
    });
    let cost = options.cost.name();
    let header = ["model", "heads, a group a layer", &cost, "accuracy", ""];
    say!("{}", table(&options.common, &header, 2, rows.collect()));
    say!("\nmodels: {}; plot: {}", options.out.display(), front.plot.display());
}
