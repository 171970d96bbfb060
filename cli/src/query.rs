//! `query`: encrypts an input, has a server compute, decrypts the output.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use undertone_he::ckks::{Artefact as _, Context, Degree, Plaintext, SecretKey};
use undertone_he::service::{ClassifierJob, Client, HeadJob, Job, Limits};
use undertone_model::image::Resize;
use undertone_tls::Identity;

use crate::encrypted::{image, read_secret, write_secret};
use crate::infer::{interpret, print};
use crate::render::{bytes, json, say, table};
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
    /// Images (PNG or JPEG) for a server that runs a model.
    #[arg(required_unless_present = "input")]
    images: Vec<PathBuf>,
    /// For a server that runs a head: JSON with `q`, `k` and `v`, a list of rows each.
    #[arg(long, value_name = "FILE", conflicts_with = "images")]
    input: Option<PathBuf>,
    /// Scale images of another size.
    #[arg(long)]
    resize: bool,
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

#[derive(Debug, Serialize)]
struct Classes {
    answers: Vec<crate::infer::Answer>,
    registered: bool,
    sent_bytes: u64,
    received_bytes: u64,
    seconds: f64,
}

/// The secret key of a file, or a new one.
fn secret_key(path: &Path, ctx: &Arc<Context>) -> anyhow::Result<SecretKey> {
    if path.exists() {
        return read_secret(ctx, path);
    }
    let secret = SecretKey::generate(ctx)?;
    write_secret(&secret.to_secret_bytes(), path)?;
    Ok(secret)
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

/// A connection to a server, the client's key, and what went over the line.
struct Session {
    client: Client,
    secret: SecretKey,
    registered: bool,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Session {
    fn new(mut client: Client, job: &dyn Job, secret: SecretKey) -> anyhow::Result<Self> {
        let (mut sent_bytes, mut registered) = (0, false);
        if !client.knows(secret.key_id())? {
            let keys = secret.evaluation_keys(job.automorphisms())?.to_bytes(job.context());
            sent_bytes += keys.len() as u64;
            client.register_bytes(secret.key_id(), &keys)?;
            registered = true;
        }
        Ok(Self { client, secret, registered, sent_bytes, received_bytes: 0 })
    }

    /// Encrypts an input, has it evaluated, and decrypts the first ciphertext of the output.
    fn ask(&mut self, job: &dyn Job, plain: &[Plaintext]) -> anyhow::Result<Vec<f64>> {
        let ctx = job.context();
        let inputs: Vec<_> =
            plain.iter().map(|x| self.secret.encrypt(x)).collect::<Result<_, _>>()?;
        let size = |bytes: Vec<u8>| bytes.len() as u64;
        self.sent_bytes += inputs.iter().map(|x| size(x.to_bytes(ctx))).sum::<u64>();
        let outputs = self.client.evaluate(ctx, self.secret.key_id(), &inputs, job.outputs())?;
        self.received_bytes += outputs.iter().map(|x| size(x.to_bytes(ctx))).sum::<u64>();
        let output = outputs.first().context("the server sent no output")?;
        Ok(self.secret.decrypt_real(output)?)
    }

    fn summary(&self, seconds: f64) -> String {
        format!(
            "{} up{}, {} down, {seconds:.2} s",
            bytes(self.sent_bytes),
            if self.registered { " with evaluation keys" } else { "" },
            bytes(self.received_bytes),
        )
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let identity = Identity::load(&options.certificates)?;
    match &options.input {
        Some(input) => {
            // Before a connection is made.
            let input = read(input)?;
            let client = Client::connect(options.server, &identity, Limits::default())?;
            head(options, client, &input)
        }
        None => {
            let client = Client::connect(options.server, &identity, Limits::default())?;
            images(options, client)
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Input> {
    let shown = path.display();
    let size = std::fs::metadata(path).with_context(|| shown.to_string())?.len();
    if size > MAX_INPUT {
        bail!("{shown}: {size} bytes, at most {MAX_INPUT}");
    }
    let text = std::fs::read_to_string(path).with_context(|| shown.to_string())?;
    serde_json::from_str(&text).with_context(|| shown.to_string())
}

/// Classifies images on a server that runs a model.
fn images(options: &Options, client: Client) -> anyhow::Result<Outcome> {
    let job = ClassifierJob::from_description(client.description(), options.insecure)?;
    let classifier = job.classifier();
    // Without weights: shapes and class names are all that a client has.
    let model = classifier.model();
    let resize = if options.resize { Resize::Scale } else { Resize::Refuse };
    let mut plain = Vec::new();
    for path in &options.images {
        plain.push(image(classifier, path, resize)?);
    }
    let secret = secret_key(&options.secret, job.context())?;
    let start = Instant::now();
    let mut session = Session::new(client, &job, secret)?;
    let mut answers = Vec::new();
    for (path, plain) in options.images.iter().zip(plain) {
        let logits = classifier.unpack(&session.ask(&job, &[plain])?);
        let input = path.display().to_string();
        answers.push(interpret(model, input, logits.iter().map(|&x| x as f32).collect())?);
    }
    let seconds = start.elapsed().as_secs_f64();
    if options.common.json {
        json(&Classes {
            answers,
            registered: session.registered,
            sent_bytes: session.sent_bytes,
            received_bytes: session.received_bytes,
            seconds,
        })?;
    } else {
        print(&options.common, &answers, &[]);
        say!("{}", session.summary(seconds));
    }
    Ok(Outcome::Good)
}

/// One attention head on a server that runs a head.
fn head(options: &Options, client: Client, input: &Input) -> anyhow::Result<Outcome> {
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
    let mut session = Session::new(client, &job, secret)?;
    let slots = head.pack(&q, &k, &v)?;
    let plain: Vec<_> = [slots.q, slots.k, slots.v]
        .iter()
        .flatten()
        .map(|x| ctx.encode_as(x, job.level(), Degree::One))
        .collect::<Result<_, _>>()?;
    let found = job.unpack(&session.ask(&job, &plain)?)?;
    let seconds = start.elapsed().as_secs_f64();
    let exact = head.exact(&q, &k, &v);
    let worst_error = found.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let answer = Answer {
        output: found.chunks(d).map(<[f64]>::to_vec).collect(),
        worst_error,
        registered: session.registered,
        sent_bytes: session.sent_bytes,
        received_bytes: session.received_bytes,
        seconds,
    };
    if options.common.json {
        json(&answer)?;
    } else {
        let rows = answer.output.iter().enumerate().map(|(i, row)| {
            std::iter::once(i.to_string()).chain(row.iter().map(|x| format!("{x:.6}"))).collect()
        });
        let columns: Vec<String> = (0..d).map(|c| c.to_string()).collect();
        let header: Vec<&str> =
            std::iter::once("token").chain(columns.iter().map(String::as_str)).collect();
        say!("{}", table(&options.common, &header, 1, rows.collect()));
        let summary = session.summary(seconds);
        say!("{summary}; largest error against the exact head {worst_error:.1e}");
    }
    Ok(Outcome::Good)
}
