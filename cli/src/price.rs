//! `price`: one figure of a plan, which a search is to keep down.

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::simulate::{self, simulate};
use undertone_fpga_sim::workload::Workload;
use undertone_mpc::channel::Network;

use crate::encrypted::Circuit;
use crate::plan_mpc::{Speeds, TwoParties};
use crate::render::{json, say};
use crate::simulate::Source;
use crate::worlds::WorldName;
use crate::{Common, Energy, ModelFolder, Outcome, plan, plan_ckks, plan_mpc};

/// What a model can be asked to cost little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cost {
    /// Seconds online between two parties on a local network, 0.3 ms and 1 Gbit/s.
    MpcLan,
    /// Seconds online between two parties on a wide network, 40 ms and 352 Mbit/s.
    MpcWan,
    /// Seconds online between two parties on the network given with --network.
    Mpc,
    /// Bytes that the client sends online.
    MpcBytes,
    /// Exchanges online that wait for one another.
    MpcExchanges,
    /// Levels of the encrypted circuit (CKKS).
    HeLevels,
    /// Seconds of the encrypted circuit on one core, estimated at the speed of the moment.
    HeSeconds,
    /// Operations in 16-bit fixed point; in the binary world for one-bit models.
    Operations,
    /// Energy of additions and multiplications, in floating point or in the binary world.
    Energy,
    /// Instructions on a Cortex-M4, estimated.
    McuInstructions,
    /// Cycles on the FPGA given with --arch, simulated.
    FpgaCycles,
}

impl Cost {
    /// What its figures are counted in.
    pub(crate) const fn unit(self) -> Unit {
        match self {
            Self::MpcLan | Self::MpcWan | Self::Mpc | Self::HeSeconds => Unit::Seconds,
            Self::MpcBytes => Unit::Bytes,
            Self::Energy => Unit::Picojoules,
            Self::MpcExchanges
            | Self::HeLevels
            | Self::Operations
            | Self::McuInstructions
            | Self::FpgaCycles => Unit::Count,
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// What a figure is counted in. Units are written with a decimal prefix: `1.5s`, `90ms`, `2MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// `s`.
    Seconds,
    /// `B`.
    Bytes,
    /// `J`; figures are in picojoules.
    Picojoules,
    /// Nothing.
    Count,
}

impl Unit {
    /// The letter, and its size in what figures are counted in.
    const fn letter(self) -> (&'static str, f64) {
        match self {
            Self::Seconds => ("s", 1.0),
            Self::Bytes => ("B", 1.0),
            Self::Picojoules => ("J", 1e12),
            Self::Count => ("", 1.0),
        }
    }

    /// What figures in JSON are counted in.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Picojoules => "pj",
            Self::Count => "count",
        }
    }

    /// Reads an amount such as `10s`, `250kB`, `3.5 µJ` or `1.2M`.
    pub(crate) fn parse(self, text: &str) -> anyhow::Result<f64> {
        let (letter, size) = self.letter();
        let wrong = || {
            let example = match self {
                Self::Seconds => "10s or 250ms",
                Self::Bytes => "2MB or 600kB",
                Self::Picojoules => "30uJ or 2mJ",
                Self::Count => "260 or 1.2M",
            };
            format!("{text}: wanted an amount like {example}")
        };
        let text_ = text.trim();
        let end = text_.find(|c: char| c.is_alphabetic() && c != 'e' && c != 'E');
        let (number, rest) = text_.split_at(end.unwrap_or(text_.len()));
        let prefix = rest.strip_suffix(letter).with_context(wrong)?;
        let scale = match prefix {
            "p" => 1e-12,
            "n" => 1e-9,
            "u" | "µ" | "μ" => 1e-6,
            "m" => 1e-3,
            "" => 1.0,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            _ => bail!(wrong()),
        };
        let value = number.trim().parse::<f64>().ok().with_context(wrong)?;
        if !value.is_finite() || value <= 0.0 {
            bail!("{text}: an amount is above zero");
        }
        Ok(value * scale * size)
    }

    /// An amount as people write it, four digits.
    pub(crate) fn show(self, value: f64) -> String {
        let (letter, size) = self.letter();
        let value = value / size;
        let prefixes: &[(f64, &str)] = match self {
            Self::Seconds => &[(1.0, ""), (1e-3, "m"), (1e-6, "µ")],
            Self::Bytes | Self::Count => &[(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")],
            Self::Picojoules => &[(1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")],
        };
        let found = prefixes.iter().find(|(scale, _)| value.abs() >= *scale);
        let (scale, prefix) = found.or(prefixes.last()).copied().unwrap_or((1.0, ""));
        let value = value / scale;
        let whole = self == Self::Count && prefix.is_empty();
        let digits =
            if whole { 0 } else { 3_usize.saturating_sub(value.abs().max(1.0).log10() as usize) };
        format!("{value:.digits$} {prefix}{letter}").trim_end().to_owned()
    }
}

/// How a figure is found.
#[derive(Debug, Clone, Args)]
pub(crate) struct How {
    #[command(flatten)]
    pub(crate) two_parties: TwoParties,
    /// For fpga-cycles: a TOML file, or edge-moe-zcu102, systolic-16x16, small-edge.
    #[arg(long, value_name = "FILE|PRESET", default_value = "edge-moe-zcu102")]
    pub(crate) arch: String,
    #[command(flatten)]
    pub(crate) energy: Energy,
}

impl How {
    /// The same as words of a command line.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut all = self.two_parties.arguments();
        all.push(format!("--arch={}", self.arch));
        all.extend(self.energy.table.as_ref().map(|t| format!("--energy={}", t.display())));
        all
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// What to price.
    #[arg(long, value_enum)]
    cost: Cost,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    common: Common,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Price {
    version: u32,
    cost: String,
    unit: &'static str,
    pub(crate) value: f64,
    /// Seconds a unit of work behind a latency: given again with --rates, the same model has the
    /// same price.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let price = price(&options.folder, options.cost, &options.how)?;
    if options.common.json {
        json(&price)?;
    } else {
        say!("{}", options.cost.unit().show(price.value));
    }
    Ok(Outcome::Good)
}

/// Plans the model where `cost` arises.
pub(crate) fn price(folder: &ModelFolder, cost: Cost, how: &How) -> anyhow::Result<Price> {
    let of = |value, rates: Option<Speeds>| Price {
        version: 1,
        cost: cost.name(),
        unit: cost.unit().name(),
        value,
        rates: rates.map(|r| r.to_string()),
    };
    check(cost, how)?;
    let counted = matches!(cost, Cost::Operations | Cost::Energy | Cost::McuInstructions);
    if !counted && undertone_binary::model::is_one_bit(&folder.model) {
        bail!("{}: that world has no one-bit attention", cost.name());
    }
    let network = match cost {
        Cost::MpcLan => Some(Network::LAN),
        Cost::MpcWan => Some(Network::WAN),
        Cost::Mpc => how.two_parties.network(),
        _ => None,
    };
    if let Some(network) = network {
        let speeds = how.two_parties.speeds()?;
        let asked = how.two_parties.with(network, speeds);
        let (_, plan) = plan_mpc::make(&folder.model, None, &asked)?;
        return Ok(of(plan.online.latency_seconds.iter().sum(), Some(speeds)));
    }
    let value = match cost {
        Cost::MpcBytes | Cost::MpcExchanges => {
            // No figure of time is asked for, so that nothing need be measured.
            let asked = how.two_parties.with(Network::LAN, Speeds::default());
            let (_, plan) = plan_mpc::make(&folder.model, None, &asked)?;
            let online = plan.online;
            (if cost == Cost::MpcBytes { online.sent_bytes.client } else { online.depth }) as f64
        }
        Cost::HeLevels | Cost::HeSeconds => {
            let classifier = Circuit { folder: folder.clone(), params: None }.classifier()?;
            let planned = classifier.plan();
            if cost == Cost::HeLevels {
                planned.levels as f64
            } else {
                plan_ckks::rates(&classifier)?.seconds(&planned.counts)
            }
        }
        Cost::FpgaCycles => {
            let workload: Workload =
                Source::of(&folder.model).load()?.context("the model has no operators")?;
            let arch = Arch::open(&how.arch)?;
            simulate(&arch, &workload, &simulate::Options::default())?.latency_cycles as f64
        }
        Cost::McuInstructions => {
            let prices = how.energy.load()?;
            let only = Some(WorldName::Fixed);
            let plan = plan::make(folder, None, only, Some("cortex-m4"), &prices)?;
            plan.target.context("no core was planned")?.estimated_instructions as f64
        }
        _ => {
            let plan = plan::make(folder, None, None, None, &how.energy.load()?)?;
            let of = |name: &str| plan.worlds.iter().find(|w| w.world == name);
            let (binary, fixed, float) = (of("binary"), of("fixed-point"), of("float"));
            if cost == Cost::Operations {
                binary.or(fixed).context("no world")?.operations as f64
            } else {
                let priced = binary.or(float).and_then(|w| w.energy_pj);
                priced.context("the table does not price every operation of the model")?
            }
        }
    };
    Ok(of(value, None))
}

/// Refuses options that the cost has no use for, so that none is silently without effect.
pub(crate) fn check(cost: Cost, how: &How) -> anyhow::Result<()> {
    match (cost, how.two_parties.network()) {
        (Cost::Mpc, None) => bail!("--cost mpc needs --network lan, wan or RTT_MS,MBIT"),
        (Cost::Mpc, Some(_)) | (_, None) => Ok(()),
        (_, Some(_)) => bail!("--network belongs to --cost mpc"),
    }
}
