//! The `undertone` command: arguments and rendering, nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod bench;
mod calibrate;
mod certificates;
mod compare;
#[cfg(feature = "client")]
mod decrypt;
#[cfg(feature = "client")]
mod encrypt;
mod encrypted;
mod examples;
mod explore;
mod export;
mod fit_hash;
mod infer;
mod infer_encrypted;
#[cfg(feature = "client")]
mod keygen;
mod onebit;
mod pack;
mod party;
mod party_client;
mod plan;
mod plan_ckks;
mod plan_mpc;
mod price;
#[cfg(feature = "client")]
mod query;
mod render;
mod search;
mod serve;
mod shape;
mod simulate;
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
    /// One figure of a model's plan, by the names that `search` knows.
    Price(price::Options),
    /// Choose each head's kind of attention so that the model stays within a cost, and retrain it.
    Search(Box<search::Options>),
    /// Classify images or compare sentences with one model.
    Infer(infer::Options),
    /// Measure the range of every site on training data and store it in the model's config.json.
    Calibrate(calibrate::Options),
    /// Infer between two processes: a client with the input, a server with the weights.
    Party(Box<party::Options>),
    /// Make a model folder with random weights, for costs: a published shape, any kind a head.
    Shape(shape::Options),
    /// Write a crate that runs a model on a microcontroller, with golden results.
    Export(export::Options),
    /// Fit EcoFormer's hashes to a model's own activations: a new model folder.
    FitHash(fit_hash::Options),
    /// Write a one-bit model as one small file, its weights a bit each.
    Pack(pack::Options),
    /// Make certificates for a server and its clients.
    Certificates(certificates::Options),
    /// Compute on ciphertexts for clients, without a key to read them.
    Serve(serve::Options),
    /// Have a server compute on an encrypted input.
    #[cfg(feature = "client")]
    Query(query::Options),
    /// Time a model in each world, one thread.
    Bench(bench::Options),
    /// Simulate a model or a list of operators on an FPGA, cycle by cycle.
    Simulate(Box<simulate::Options>),
    /// Simulate a grid of architectures and print the Pareto front.
    Explore(Box<explore::Options>),
    /// Make a client's keys for encrypted inference with one model.
    #[cfg(feature = "client")]
    Keygen(keygen::Options),
    /// Encrypt images with a client's secret key.
    #[cfg(feature = "client")]
    Encrypt(encrypt::Options),
    /// Classify encrypted images with evaluation keys alone: the server's side.
    InferEncrypted(infer_encrypted::Options),
    /// Decrypt the answers with the client's secret key.
    #[cfg(feature = "client")]
    Decrypt(decrypt::Options),
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

/// What operations cost.
#[derive(Debug, Clone, Args)]
struct Energy {
    /// Prices of operations in picojoules (TOML). By default Horowitz's 45 nm figures.
    #[arg(long = "energy", value_name = "TABLE")]
    table: Option<PathBuf>,
}

impl Energy {
    fn load(&self) -> anyhow::Result<undertone_binary::energy::Prices> {
        Ok(undertone_binary::energy::Prices::load(self.table.as_deref())?)
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
        Command::Price(options) => price::run(&options),
        Command::Search(options) => search::run(&options),
        Command::Infer(options) => infer::run(&options),
        Command::Calibrate(options) => calibrate::run(&options),
        Command::Party(options) => party::run(&options),
        Command::Shape(options) => shape::run(&options),
        Command::Export(options) => export::run(&options),
        Command::FitHash(options) => fit_hash::run(&options),
        Command::Pack(options) => pack::run(&options),
        Command::Certificates(options) => certificates::run(&options),
        Command::Serve(options) => serve::run(&options),
        #[cfg(feature = "client")]
        Command::Query(options) => query::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Explore(options) => explore::run(&options),
        #[cfg(feature = "client")]
        Command::Keygen(options) => keygen::run(&options),
        #[cfg(feature = "client")]
        Command::Encrypt(options) => encrypt::run(&options),
        Command::InferEncrypted(options) => infer_encrypted::run(&options),
        #[cfg(feature = "client")]
        Command::Decrypt(options) => decrypt::run(&options),
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
