//! `serve`: computes on ciphertexts for whoever has a certificate: a whole model, or one head.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use undertone_he::Classifier;
use undertone_he::ckks::{Params, switching_key_bytes};
use undertone_he::classifier::ACCURACY;
use undertone_he::service::{ClassifierJob, HeadJob, Job, KeyStore, Limits, Server};
use undertone_he::world::{Head, Packing};
use undertone_tls::Identity;

use crate::render::{bytes, say};
use crate::{Common, Outcome};

/// The job is a model on encrypted images, or without --model one Power-Softmax head with Q, K and
/// V encrypted. The server holds no secret key and sees no number of its clients.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The server's folder of `undertone certificates`.
    #[arg(long, value_name = "DIR")]
    certificates: PathBuf,
    /// Where registered evaluation keys are kept.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7300")]
    address: SocketAddr,
    /// Classify encrypted images with this model. Clients learn its config.json, no weight.
    #[arg(long, value_name = "DIR",
          conflicts_with_all = ["tokens", "features", "exponent", "row_sums", "tolerance"])]
    model: Option<PathBuf>,
    /// A head's tokens, a power of two.
    #[arg(long, value_name = "N", default_value_t = 16)]
    tokens: usize,
    /// A head's features, a power of two.
    #[arg(long, value_name = "D", default_value_t = 16)]
    features: usize,
    /// A head's even exponent.
    #[arg(long, value_name = "P", default_value_t = 4)]
    exponent: u8,
    /// Calibrated least and greatest row sum of the powers.
    #[arg(long, value_names = ["LO", "HI"], num_args = 2, default_values_t = [1.0, 400.0])]
    row_sums: Vec<f64>,
    /// Wanted relative error of the reciprocal.
    #[arg(long, value_name = "E", default_value_t = 3e-7)]
    tolerance: f64,
    /// A parameter set by name; by default the smallest that holds the circuit.
    #[arg(long, value_name = "SET")]
    parameters: Option<String>,
    /// Connections at once.
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Seconds of silence after which a client is sent away.
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    idle: u64,
    #[command(flatten)]
    common: Common,
}

/// The job, the level of its inputs, and what it is.
fn job(options: &Options) -> anyhow::Result<(Arc<dyn Job>, usize, String)> {
    let named = match options.parameters.as_deref() {
        None => None,
        Some(name) => match Params::by_name(name) {
            Some(set) => Some(set),
            None => {
                let names: Vec<_> = Params::ALL.iter().map(|p| p.name).collect();
                bail!("no parameter set {name}; there are {}", names.join(", "));
            }
        },
    };
    if let Some(folder) = &options.model {
        let file = folder.join("config.json");
        let config = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let model = crate::load(folder)?;
        let classifier = match named {
            None => Classifier::new(model)?,
            Some(set) => Classifier::with(model, set, ACCURACY).map_err(|(_, e)| e)?,
        };
        let level = classifier.plan().levels;
        let job = ClassifierJob::new(classifier, &config)?;
        return Ok((Arc::new(job), level, folder.display().to_string()));
    }
    let sets = match named {
        None => vec![Params::N15_LEVELS11, Params::N15_LEVELS12, Params::N15_LEVELS13],
        Some(set) => vec![set],
    };
    let &[lo, hi] = options.row_sums.as_slice() else { bail!("--row-sums takes two numbers") };
    if !(lo > 0.0 && hi > lo && hi.is_finite()) {
        bail!("--row-sums: 0 < LO < HI, got {lo} and {hi}");
    }
    if !(1e-12..=0.5).contains(&options.tolerance) {
        bail!("--tolerance: between 1e-12 and 0.5, got {}", options.tolerance);
    }
    let packing = Packing::dense(sets[0].slots(), options.tokens, options.features)?;
    let (exponent, tolerance) = (options.exponent, options.tolerance);
    let job = HeadJob::new(Head { packing, exponent, row_sums: (lo, hi), tolerance }, &sets)?;
    let level = job.level();
    Ok((Arc::new(job), level, "a Power-Softmax head".to_owned()))
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let identity = Identity::load(&options.certificates)?;
    let (job, level, what) = job(options)?;
    let limits = Limits {
        connections: usize::from(options.connections),
        idle: Duration::from_secs(options.idle),
        ..Limits::default()
    };
    let ctx = job.context().clone();
    let store = KeyStore::open(&options.keys, ctx.clone(), limits.stored_keys)?;
    let stored = store.len();
    let key_count = job.automorphisms().len() + 1;
    let server = Server::bind(options.address, &identity, job.clone(), store, limits)?;
    let address = server.address()?;
    if options.common.json {
        say!(
            "{}",
            json!({
                "address": address.to_string(),
                "parameters": ctx.params().name,
                "log_qp_bits": ctx.chain().log_qp,
                "job": what,
                "level": level,
                "switching_keys": key_count,
                "expanded_key_bytes": key_count * switching_key_bytes(&ctx),
                "stored_keys": stored,
            })
        );
    } else {
        let memory = (key_count * switching_key_bytes(&ctx)) as u64;
        say!(
            "{address}: {what}, {}, {key_count} switching keys a client ({} in memory), {stored} stored; \
             interrupt to stop",
            ctx.params().name,
            bytes(memory)
        );
    }
    server.run()?;
    Ok(Outcome::Good)
}
