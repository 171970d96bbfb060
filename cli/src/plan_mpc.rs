//! `plan --world mpc`: what a model costs between two parties, by layer and kind of head.

use std::path::Path;

use anyhow::bail;
use clap::Args;
use serde::{Deserialize, Serialize};
use undertone_mpc::channel::Network;
use undertone_mpc::party::{Request, Task};
use undertone_mpc::{Cost, Rates, Work};

use crate::render::{bytes, json, say, table};
use crate::{Common, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct TwoParties {
    /// With --world mpc: the network, `lan` (0.3 ms round trip, 1 Gbit/s), `wan` (40 ms,
    /// 352 Mbit/s) or RTT_MS,MBIT; by default both named ones.
    #[arg(long, value_name = "NETWORK")]
    network: Option<Network>,
    /// With --world mpc: the client learns the class alone.
    #[arg(long)]
    argmax: bool,
    /// With --world mpc: inputs of one session, which share the opened weights.
    #[arg(long, value_name = "N")]
    inputs: Option<usize>,
    /// With --world mpc: seconds of a hash, a multiply-add, a word and an exchange, as `rates` of
    /// an earlier plan names them, instead of measuring this machine.
    #[arg(long, value_name = "H,M,W,E")]
    rates: Option<Speeds>,
}

impl TwoParties {
    /// Whether anything was asked.
    pub(crate) fn given(&self) -> bool {
        self.network.is_some() || self.argmax || self.inputs.is_some() || self.rates.is_some()
    }

    /// The same on another network, and at known speeds.
    pub(crate) fn with(&self, network: Network, rates: Speeds) -> Self {
        Self { network: Some(network), rates: Some(rates), ..self.clone() }
    }

    /// The same as words of a command line.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let network = self
            .network
            .map(|n| format!("--network={},{}", 2e3 * n.delay.as_secs_f64(), n.bandwidth / 1e6));
        let argmax = self.argmax.then(|| "--argmax".to_owned());
        let inputs = self.inputs.map(|n| format!("--inputs={n}"));
        let rates = self.rates.map(|r| format!("--rates={r}"));
        [network, argmax, inputs, rates].into_iter().flatten().collect()
    }

    /// The network that was asked for.
    pub(crate) fn network(&self) -> Option<Network> {
        self.network
    }

    /// The speeds that were given, else those of this machine.
    pub(crate) fn speeds(&self) -> anyhow::Result<Speeds> {
        match self.rates {
            Some(rates) => Ok(rates),
            None => Ok(Rates::measure()?.into()),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    version: u32,
    world: &'static str,
    /// SHA-256 of the model's config.json, on which everything but the speeds depends.
    config_sha256: String,
    tokens: usize,
    inputs: usize,
    /// Seconds a unit of work, measured on this machine just now unless they were given.
    rates: Speeds,
    phases: Vec<Phase>,
    /// Everything before the first input: it does not depend on one.
    setup: Phase,
    /// Everything from the first input on.
    pub(crate) online: Phase,
}

/// Seconds a unit of work.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Speeds {
    hash_seconds: f64,
    product_seconds: f64,
    word_seconds: f64,
    exchange_seconds: f64,
}

impl From<Rates> for Speeds {
    fn from(rates: Rates) -> Self {
        Self {
            hash_seconds: rates.hash,
            product_seconds: rates.product,
            word_seconds: rates.word,
            exchange_seconds: rates.exchange,
        }
    }
}

impl From<Speeds> for Rates {
    fn from(speeds: Speeds) -> Self {
        Self {
            hash: speeds.hash_seconds,
            product: speeds.product_seconds,
            word: speeds.word_seconds,
            exchange: speeds.exchange_seconds,
        }
    }
}

impl std::str::FromStr for Speeds {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Result<Vec<f64>, _> = text.split(',').map(|p| p.trim().parse()).collect();
        match parts.as_deref() {
            Ok(&[hash_seconds, product_seconds, word_seconds, exchange_seconds])
                if parts.iter().flatten().all(|x| (0.0..1.0).contains(x)) =>
            {
                Ok(Self { hash_seconds, product_seconds, word_seconds, exchange_seconds })
            }
            _ => bail!("four numbers of seconds, from 0 to 1, separated by commas"),
        }
    }
}

impl std::fmt::Display for Speeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [h, m, w, e] =
            [self.hash_seconds, self.product_seconds, self.word_seconds, self.exchange_seconds];
        write!(f, "{h:e},{m:e},{w:e},{e:e}")
    }
}

/// What a saved plan says of where it was made and for what.
#[derive(Debug, Deserialize)]
pub(crate) struct Saved {
    pub(crate) config_sha256: String,
    pub(crate) rates: Speeds,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sides {
    pub(crate) client: u64,
    server: u64,
}

impl From<[u64; 2]> for Sides {
    fn from([client, server]: [u64; 2]) -> Self {
        Self { client, server }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Phase {
    phase: String,
    exchanges: u64,
    pub(crate) depth: u64,
    pub(crate) sent_bytes: Sides,
    preprocessing_bytes: Sides,
    work: Units,
    compute_seconds: f64,
    /// depth · (one-way delay + exchange) + bytes / bandwidth + compute, for each network.
    pub(crate) latency_seconds: Vec<f64>,
}

/// One party's local work.
#[derive(Debug, Serialize)]
struct Units {
    hashes: u64,
    products: u64,
    words: u64,
}

/// Rates, and networks with their names.
pub(crate) struct Maker {
    rates: Rates,
    networks: Vec<(String, Network)>,
}

impl Maker {
    fn phase(&self, name: &str, cost: &Cost, work: &Work) -> Phase {
        let compute = self.rates.seconds(work);
        let of = |n: &Network| self.rates.latency(cost, work, n);
        Phase {
            phase: name.to_owned(),
            exchanges: cost.exchanges,
            depth: cost.depth,
            sent_bytes: cost.sent.into(),
            preprocessing_bytes: cost.preprocessing.into(),
            work: Units { hashes: work.hashes, products: work.products, words: work.words },
            compute_seconds: compute,
            latency_seconds: self.networks.iter().map(|(_, n)| of(n)).collect(),
        }
    }
}

pub(crate) fn run(
    folder: &ModelFolder,
    tokens: Option<usize>,
    options: &TwoParties,
    common: &Common,
) -> anyhow::Result<Outcome> {
    let (maker, plan) = make(&folder.model, tokens, options)?;
    if common.json {
        json(&plan)?;
    } else {
        print(common, &maker, &plan);
    }
    Ok(Outcome::Good)
}

/// Plans a folder, of which nothing but the configuration is read: a plan needs no weights.
pub(crate) fn make(
    folder: &Path,
    tokens: Option<usize>,
    options: &TwoParties,
) -> anyhow::Result<(Maker, Plan)> {
    let task = Task::dealer(folder)?;
    let tokens = tokens.unwrap_or_else(|| task.model.task_tokens());
    let inputs = options.inputs.unwrap_or(1);
    if inputs == 0 || inputs > Request::MOST_INPUTS {
        bail!("--inputs {inputs}: 1 to {} in one session", Request::MOST_INPUTS);
    }
    let tokens_ = u32::try_from(tokens).unwrap_or(u32::MAX);
    let request =
        Request { session: [0; 16], argmax: options.argmax, tokens: vec![tokens_; inputs] };
    let planned = task.plan(&request)?;
    let named = |name: &str, n| (name.to_owned(), n);
    let networks = match options.network {
        Some(network) => {
            let trip = 2e3 * network.delay.as_secs_f64();
            vec![(format!("{trip} ms, {} Mbit/s", network.bandwidth / 1e6), network)]
        }
        None => vec![named("LAN", Network::LAN), named("WAN", Network::WAN)],
    };
    let speeds = options.speeds()?;
    let maker = Maker { rates: speeds.into(), networks };
    // Phases that overlap count once in the depth of the whole.
    let setup = planned.works().find(|(name, ..)| *name == "weights");
    let setup = setup.map_or_else(Default::default, |(_, cost, work)| (*cost, *work));
    let whole = planned.cost();
    let sides = |a: [u64; 2], b: [u64; 2]| [a[0] - b[0], a[1] - b[1]];
    let rest = Cost {
        exchanges: whole.exchanges - setup.0.exchanges,
        depth: whole.depth - setup.0.depth,
        sent: sides(whole.sent, setup.0.sent),
        preprocessing: sides(whole.preprocessing, setup.0.preprocessing),
    };
    let works = planned.works().filter(|(name, ..)| *name != "weights");
    let online = (rest, works.fold(Work::default(), |sum, (_, _, work)| sum.plus(*work)));
    let plan = Plan {
        version: 1,
        world: "shared",
        config_sha256: task.digest().to_owned(),
        tokens,
        inputs,
        rates: speeds,
        phases: planned.works().map(|(name, cost, work)| maker.phase(name, cost, work)).collect(),
        setup: maker.phase("set-up: weights", &setup.0, &setup.1),
        online: maker.phase("online: all inputs", &online.0, &online.1),
    };
    Ok((maker, plan))
}

fn print(common: &Common, maker: &Maker, plan: &Plan) {
    say!(
        "two parties, {} input(s) of {} tokens; estimated for this machine: compute, and {:.2} ms \
         an exchange",
        plan.inputs,
        plan.tokens,
        1e3 * plan.rates.exchange_seconds
    );
    let names: Vec<String> = maker.networks.iter().map(|(name, _)| format!("{name} s")).collect();
    let mut header = vec![
        "phase",
        "exchanges",
        "depth",
        "client sends",
        "server sends",
        "client stores",
        "server stores",
        "compute s",
    ];
    header.extend(names.iter().map(String::as_str));
    let rows = plan.phases.iter().chain([&plan.setup, &plan.online]).map(|p| {
        let mut row = vec![
            p.phase.clone(),
            p.exchanges.to_string(),
            p.depth.to_string(),
            bytes(p.sent_bytes.client),
            bytes(p.sent_bytes.server),
            bytes(p.preprocessing_bytes.client),
            bytes(p.preprocessing_bytes.server),
            format!("{:.3}", p.compute_seconds),
        ];
        row.extend(p.latency_seconds.iter().map(|s| format!("{s:.3}")));
        row
    });
    say!("{}", table(common, &header, 1, rows.collect()));
}
