//! The `undertone` command: arguments and rendering, nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod bench;
mod calibrate;
mod certificates;
mod compare;
mod examples;
mod infer;
mod plan;
#[cfg(feature = "client")]
mod query;
mod render;
mod serve;
mod worlds;

/// One trained transformer, run where it must not be seen or has no room.
///
/// Without a command, `compare` runs on the shipped models and images.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: compare::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Classify the same inputs in every world, side by side.
    Compare(compare::Options),
    /// What a model costs in each world, without running it.
    Plan(plan::Options),
    /// Classify images or compare sentences with one model.
    Infer(infer::Options),
    /// Measure the range of every site on training data and store it in the model's config.json.
    Calibrate(calibrate::Options),
    /// Make certificates for a server and its clients.
    Certificates(certificates::Options),
    /// Compute on ciphertexts for clients, without a key to read them.
    Serve(serve::Options),
    /// Have a server compute on an encrypted input.
    #[cfg(feature = "client")]
    Query(query::Options),
    /// Time a model in each world, one thread.
    Bench(bench::Options),
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
struct Common {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Print tables as Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Threads; by default one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Common {
    fn threads(&self) -> usize {
        match self.threads {
            Some(n) => usize::from(n),
            None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// One model folder.
#[derive(Debug, Clone, Args)]
struct ModelFolder {
    /// The model's folder: config.json and model.safetensors.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
}

impl ModelFolder {
    fn load(&self) -> anyhow::Result<undertone_model::Model> {
        load(&self.model)
    }
}

fn load(folder: &std::path::Path) -> anyhow::Result<undertone_model::Model> {
    use anyhow::Context as _;
    undertone_model::Model::load(folder).with_context(|| format!("model {}", folder.display()))
}

/// Whether a command's checks held.
enum Outcome {
    Good,
    CheckFailed,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Compare(cli.compare)) {
        Command::Compare(options) => compare::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Infer(options) => infer::run(&options),
        Command::Calibrate(options) => calibrate::run(&options),
        Command::Certificates(options) => certificates::run(&options),
        Command::Serve(options) => serve::run(&options),
        #[cfg(feature = "client")]
        Command::Query(options) => query::run(&options),
        Command::Bench(options) => bench::run(&options),
    };
    match result {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::from(2)
        }
    }
}

/// An error and its causes on one line, each once: many errors quote their cause already.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string().replace('\n', " ")) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}
