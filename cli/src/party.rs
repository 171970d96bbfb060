//! `party`: one role of an inference between two processes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use undertone_mpc::channel::tls::Listener;
use undertone_mpc::channel::{Limits, Network};
use undertone_mpc::party::{
    Finished, Preparation, Request, Task, deal_files, serve_dealer, serve_one, set_up,
};
use undertone_mpc::{Cost, Plan};
use undertone_tls::Identity;

use crate::render::{bytes, say};
use crate::{Common, Outcome, party_client};

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// Makes certificates: one folder a role, to be handed out.
    Authority,
    /// Deals correlated randomness to both parties; trusted.
    Dealer,
    /// Has the weights.
    Server,
    /// Has the input and learns the output.
    Client,
}

/// The parties trust one dealer and otherwise follow the protocol while being curious; docs/mpc.md
/// says what that means and how to set the three up.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The role of this process.
    #[arg(long)]
    role: Role,
    /// The role's folder, as `--role authority` made it; for `authority`, the folder to make.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The model's folder: authority and server need it.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Where the dealer listens, or is found.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7311")]
    dealer: SocketAddr,
    /// Where the server listens, or is found.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7310")]
    pub(crate) server: SocketAddr,
    /// Server and client: preprocessing from this file instead of a dealer on the line.
    #[arg(long, value_name = "FILE")]
    prep: Option<PathBuf>,
    /// Dealer: write preprocessing to CLIENT_FILE and SERVER_FILE instead of serving it.
    #[arg(long, value_names = ["CLIENT_FILE", "SERVER_FILE"], num_args = 2)]
    files: Option<Vec<PathBuf>>,
    /// Dealer with --files: tokens of each input of a session; by default one image.
    #[arg(long, value_name = "N,…", value_delimiter = ',', requires = "files")]
    tokens: Option<Vec<u32>>,
    /// End after so many sessions; with --files, how many to deal (1).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    sessions: Option<u32>,
    /// Client, and dealer with --files: show the client the class alone.
    #[arg(long)]
    pub(crate) argmax: bool,
    /// How long a party waits for another, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    /// Server and client: let frames arrive as on this network, `lan`, `wan` or RTT_MS,MBIT.
    #[arg(long, value_name = "NETWORK")]
    pub(crate) emulate: Option<Network>,
    #[command(flatten)]
    pub(crate) client: party_client::ClientOptions,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Options {
    pub(crate) fn limits(&self) -> Limits {
        Limits { timeout: Duration::from_secs(self.timeout), ..Limits::default() }
    }

    pub(crate) fn preparation(&self) -> Preparation {
        self.prep.clone().map_or(Preparation::Dealer(self.dealer), Preparation::File)
    }

    fn model(&self) -> anyhow::Result<&PathBuf> {
        self.model.as_ref().context("--model is missing: this role needs the whole folder")
    }

    /// A line for people, or the value for programs.
    fn say(&self, line: &str, value: Value) {
        if self.common.json {
            say!("{value}");
        } else {
            say!("{line}");
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if options.role != Role::Client && options.client.given() {
        bail!("inputs are the client's: --role client");
    }
    match options.role {
        Role::Authority => {
            set_up(options.model()?, &options.dir)?;
            let line = format!(
                "{}: give client/, server/ and dealer/ to whom they are for",
                options.dir.display()
            );
            options.say(&line, json!({"folder": options.dir}));
            Ok(Outcome::Good)
        }
        Role::Dealer => dealer(options),
        Role::Server => server(options),
        Role::Client => party_client::run(options),
    }
}

fn dealer(options: &Options) -> anyhow::Result<Outcome> {
    let task = Task::dealer(&options.dir)?;
    if let Some(files) = &options.files {
        let images = || u32::try_from(task.model.task_tokens()).map(|t| vec![t]);
        let tokens = options.tokens.clone().map_or_else(images, Ok)?;
        let request = Request { session: [0; 16], argmax: options.argmax, tokens };
        let paths = [files[0].as_path(), files[1].as_path()];
        let sections = options.sections();
        let plan = deal_files(&task, &request, paths, sections)?;
        let [a, b] = plan.cost().preprocessing.map(|n| n * u64::from(sections));
        let line = format!(
            "{sections} session(s): {} for the client, {} for the server",
            bytes(a),
            bytes(b)
        );
        options
            .say(&line, json!({"sessions": sections, "stored_bytes": {"client": a, "server": b}}));
        return Ok(Outcome::Good);
    }
    let listener =
        Listener::bind(options.dealer, &Identity::load(&options.dir)?, options.limits())?;
    let address = listener.address()?;
    options.say(&format!("dealer on {address}"), json!({"dealer": address}));
    let failed = Mutex::new(false);
    serve_dealer(&task, &listener, options.sessions, &|session| match session {
        Ok(done) => {
            let [a, b] = done.plan.cost().preprocessing;
            let seconds = done.took.as_secs_f64();
            let line = format!(
                "{} input(s): dealt {} to the client, {} to the server in {seconds:.2} s",
                done.inputs,
                bytes(a),
                bytes(b)
            );
            let sent = json!({"client": a, "server": b});
            options.say(
                &line,
                json!({"inputs": done.inputs, "sent_bytes": sent, "wall_seconds": seconds}),
            );
        }
        Err(error) => {
            eprintln!("error: {error}");
            *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        }
    })?;
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if failed {
        bail!("a session failed")
    }
    Ok(Outcome::Good)
}

impl Options {
    fn sections(&self) -> u32 {
        self.sessions.unwrap_or(1)
    }
}

fn server(options: &Options) -> anyhow::Result<Outcome> {
    let model = options.model()?;
    let task = Task::server(model).with_context(|| format!("model {}", model.display()))?;
    let identity = Identity::load(&options.dir)?;
    let listener = Listener::bind(options.server, &identity, options.limits())?;
    let address = listener.address()?;
    options.say(&format!("server on {address}"), json!({"server": address}));
    let (mut served, mut failed) = (0, false);
    while options.sessions.is_none_or(|n| served < n) {
        let limits = options.limits();
        let preparation = options.preparation();
        match serve_one(&task, &listener, &identity, limits, &preparation, options.emulate) {
            Ok(run) => {
                served += 1;
                let value = json!({"cost": cost(&run)});
                let seconds = (run.setup + run.online).as_secs_f64();
                options.say(&format!("{}; {seconds:.2} s", line(&run)), value);
            }
            // Nobody came within the limit: the next may.
            Err(undertone_mpc::Error::Timeout { operation: "accepting", .. }) => {}
            Err(
                error @ (undertone_mpc::Error::Used { .. }
                | undertone_mpc::Error::Preprocessing { .. }),
            ) => {
                return Err(error.into());
            }
            Err(error) => {
                served += 1;
                failed = true;
                eprintln!("error: {error}");
            }
        }
    }
    if failed {
        bail!("a session failed")
    }
    Ok(Outcome::Good)
}

/// Whether what was counted is what was planned, in every phase.
pub(crate) fn as_planned(run: &Finished) -> bool {
    let planned: Vec<(&str, &Cost)> = Plan::phases(&run.plan).collect();
    run.report.phases().collect::<Vec<_>>() == planned
}

pub(crate) fn line(run: &Finished) -> String {
    let c = run.report.cost();
    format!(
        "{} exchanges ({} deep), {} from the client, {} from the server, {} + {} preprocessing, {} planned",
        c.exchanges,
        c.depth,
        bytes(c.sent[0]),
        bytes(c.sent[1]),
        bytes(c.preprocessing[0]),
        bytes(c.preprocessing[1]),
        if as_planned(run) { "as" } else { "NOT as" }
    )
}

pub(crate) fn cost(run: &Finished) -> Value {
    let c = run.report.cost();
    let sides = |[client, server]: [u64; 2]| json!({"client": client, "server": server});
    json!({
        "exchanges": c.exchanges,
        "depth": c.depth,
        "sent_bytes": sides(c.sent),
        "preprocessing_bytes": sides(c.preprocessing),
        "as_planned": as_planned(run),
        "setup_seconds": run.setup.as_secs_f64(),
        "online_seconds": run.online.as_secs_f64(),
    })
}
