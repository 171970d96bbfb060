//! `query`: encrypts an input, has a server compute, decrypts the output.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use undertone_he::ckks::{Artefact as _, CHECKSUM_BYTES, Context, Degree, HEADER_BYTES, SecretKey};
use undertone_he::service::{Client, HeadJob, Job as _, Limits};
use undertone_tls::Identity;

use crate::render::{bytes, json, table};
use crate::{Common, Outcome};

/// The secret key is made on first use and stays in its file; evaluation keys are registered with
/// the server when it does not know them.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The client's folder of `undertone certificates`.
    #[arg(long, value_name = "DIR")]
    certificates: PathBuf,
    /// The server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7300")]
    server: SocketAddr,
    /// The secret key's file.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// JSON with `q`, `k` and `v`, a list of rows each.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Accept parameter sets that claim no security.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    common: Common,
}

/// Inputs beyond this are no head's.
const MAX_INPUT: u64 = 64 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    q: Vec<Vec<f64>>,
    k: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct Answer {
    output: Vec<Vec<f64>>,
    /// Against the exact head in f64, which the client can compute here.
    worst_error: f64,
    registered: bool,
    sent_bytes: u64,
    received_bytes: u64,
    seconds: f64,
}

/// The secret key of a file, or a new one.
fn secret_key(path: &Path, ctx: &Arc<Context>) -> anyhow::Result<SecretKey> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(file) => {
            let most = (HEADER_BYTES + ctx.params().n() + CHECKSUM_BYTES) as u64;
            if file.len() > most {
                bail!("{shown}: {} bytes; a secret key has {most}", file.len());
            }
            let bytes = std::fs::read(path).with_context(|| shown.to_string())?;
            let bytes = zeroize::Zeroizing::new(bytes);
            SecretKey::from_secret_bytes(ctx, &bytes).with_context(|| shown.to_string())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let secret = SecretKey::generate(ctx)?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(path).with_context(|| shown.to_string())?;
            file.write_all(&secret.to_secret_bytes()).with_context(|| shown.to_string())?;
            Ok(secret)
        }
        Err(e) => Err(e).with_context(|| shown.to_string()),
    }
}

fn matrix(name: &str, rows: &[Vec<f64>], n: usize, d: usize) -> anyhow::Result<Vec<f64>> {
    if rows.len() != n || rows.iter().any(|r| r.len() != d) {
        bail!("{name}: the server's head takes {n} rows of {d} numbers");
    }
    if rows.iter().flatten().any(|x| !x.is_finite()) {
        bail!("{name}: a number is not finite");
    }
    Ok(rows.concat())
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let shown = options.input.display();
    let size = std::fs::metadata(&options.input).with_context(|| shown.to_string())?.len();
    if size > MAX_INPUT {
        bail!("{shown}: {size} bytes, at most {MAX_INPUT}");
    }
    let text = std::fs::read_to_string(&options.input).with_context(|| shown.to_string())?;
    let input: Input = serde_json::from_str(&text).with_context(|| shown.to_string())?;
    let identity = Identity::load(&options.certificates)?;
    let mut client = Client::connect(options.server, &identity, Limits::default())?;
    let job = HeadJob::from_description(client.description(), options.insecure)?;
    let (ctx, head) = (job.context(), job.head());
    let (n, d) = (head.packing.tokens, head.packing.features);
    let [q, k, v] = [("q", &input.q), ("k", &input.k), ("v", &input.v)]
        .map(|(name, rows)| matrix(name, rows, n, d));
    let (q, k, v) = (q?, k?, v?);
    let (lo, hi) = head.measure_row_sums(&q, &k);
    if lo < head.row_sums.0 || hi > head.row_sums.1 {
        bail!(
            "row sums from {lo:.3e} to {hi:.3e} leave the server's calibrated range {:.3e} to \
             {:.3e}; scale the queries, or ask for a server with a wider range",
            head.row_sums.0,
            head.row_sums.1
        );
    }
    let secret = secret_key(&options.secret, ctx)?;

    let start = Instant::now();
    let (mut sent_bytes, mut registered) = (0, false);
    if !client.knows(secret.key_id())? {
        let keys = secret.evaluation_keys(job.automorphisms())?.to_bytes(ctx);
        sent_bytes += keys.len() as u64;
        client.register_bytes(secret.key_id(), &keys)?;
        registered = true;
    }
    let slots = head.pack(&q, &k, &v)?;
    let mut inputs = Vec::with_capacity(job.inputs());
    for x in [slots.q, slots.k, slots.v].iter().flatten() {
        inputs.push(secret.encrypt(&ctx.encode_as(x, job.level(), Degree::One)?)?);
    }
    sent_bytes += inputs.iter().map(|x| x.to_bytes(ctx).len() as u64).sum::<u64>();
    let outputs = client.evaluate(ctx, secret.key_id(), &inputs, job.outputs())?;
    let received_bytes = outputs.iter().map(|x| x.to_bytes(ctx).len() as u64).sum();
    let seconds = start.elapsed().as_secs_f64();
    let found = job.unpack(&secret.decrypt_real(&outputs[0])?)?;
    let exact = head.exact(&q, &k, &v);
    let worst_error = found.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let output = found.chunks(d).map(<[f64]>::to_vec).collect();
    let answer = Answer { output, worst_error, registered, sent_bytes, received_bytes, seconds };
    if options.common.json {
        json(&answer)?;
    } else {
        let rows = answer.output.iter().enumerate().map(|(i, row)| {
            std::iter::once(i.to_string()).chain(row.iter().map(|x| format!("{x:.6}"))).collect()
        });
        let columns: Vec<String> = (0..d).map(|c| c.to_string()).collect();
        let header: Vec<&str> =
            std::iter::once("token").chain(columns.iter().map(String::as_str)).collect();
        println!("{}", table(&options.common, &header, 1, rows.collect()));
        println!(
            "{} up{}, {} down, {seconds:.2} s; largest error against the exact head {worst_error:.1e}",
            bytes(answer.sent_bytes),
            if registered { " with evaluation keys" } else { "" },
            bytes(answer.received_bytes),
        );
    }
    Ok(Outcome::Good)
}
