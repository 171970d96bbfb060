//! `keygen`: the keys of one client for one model.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use undertone_he::ckks::SecretKey;

use crate::encrypted::{Circuit, security, write, write_secret};
use crate::render::{bytes, json, say};
use crate::{Common, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    circuit: Circuit,
    /// Folder for secret.key, which stays with the client, and evaluation.keys for the server.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Serialize)]
struct Keys {
    version: u32,
    parameters: &'static str,
    log_qp_bits: f64,
    security: &'static str,
    key_id: String,
    switching_keys: usize,
    evaluation_keys_bytes: u64,
    /// Expanded, in the server's memory.
    evaluation_keys_memory_bytes: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let classifier = options.circuit.classifier()?;
    let ctx = classifier.context();
    let out = &options.out;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let secret = SecretKey::generate(ctx)?;
    write_secret(&secret.to_secret_bytes(), &out.join("secret.key"))?;
    let keys = classifier.evaluation_keys(&secret)?;
    let size = write(&keys, ctx, &out.join("evaluation.keys"))?;
    let keys = Keys {
        version: 1,
        parameters: ctx.params().name,
        log_qp_bits: ctx.chain().log_qp,
        security: security(ctx),
        key_id: secret.key_id().0.iter().map(|b| format!("{b:02x}")).collect(),
        switching_keys: keys.count(),
        evaluation_keys_bytes: size,
        evaluation_keys_memory_bytes: keys.size_bytes(ctx) as u64,
    };
    if options.common.json {
        json(&keys)?;
    } else {
        say!(
            "{}: {} set {} (logQP {:.0}), {} switching keys, {} to send to the server",
            out.display(),
            keys.security,
            keys.parameters,
            keys.log_qp_bits,
            keys.switching_keys,
            bytes(keys.evaluation_keys_bytes),
        );
    }
    Ok(Outcome::Good)
}
