//! `plan`: what a model costs in each world, without running it.

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use undertone_binary::energy::Prices;
use undertone_core::{Counts, Full, Mask, Op};
use undertone_model::Model;
use undertone_model::export;
use undertone_model::fixed::{self, ByteWeights};
use undertone_model::float::{Float, Fused};
use undertone_model::trace;

use crate::onebit::OneBit;
use crate::render::{bytes, count, energy, json, say, table};
use crate::worlds::WorldName;
use crate::{Common, Energy, ModelFolder, Outcome, plan_ckks, plan_mpc};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// Only this world; `ckks` (one encrypted image) and `mpc` (two parties) only when named.
    #[arg(long)]
    world: Option<Place>,
    /// Also estimate instructions, cycles and energy on this core; cortex-m4 is priced.
    #[arg(long, value_name = "CORE", value_parser = ["cortex-m4"])]
    target: Option<String>,
    /// Number of tokens, for models that read text. By default the longest sequence of the
    /// model's task, or its positions.
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    #[command(flatten)]
    encrypted: plan_ckks::Encrypted,
    #[command(flatten)]
    two_parties: plan_mpc::TwoParties,
    #[command(flatten)]
    energy: Energy,
    #[command(flatten)]
    common: Common,
}

/// Where a model can be planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Place {
    /// 32-bit floating point.
    Float,
    /// 16-bit fixed point.
    Fixed,
    /// The same with 8-bit linear weights.
    Fixed8,
    /// One-bit attention and weights.
    Binary,
    /// On ciphertexts.
    Ckks,
    /// Secret-shared between a client and a server.
    Mpc,
}

impl Place {
    /// The world of this process that is meant.
    fn local(self) -> Option<WorldName> {
        match self {
            Self::Float => Some(WorldName::Float),
            Self::Fixed => Some(WorldName::Fixed),
            Self::Fixed8 => Some(WorldName::Fixed8),
            Self::Binary => Some(WorldName::Binary),
            Self::Ckks | Self::Mpc => None,
        }
    }
}

/// The fixed-point world on a core: estimates, and the count where there is one.
#[derive(Debug, Serialize)]
pub(crate) struct TargetPlan {
    core: String,
    pub(crate) estimated_instructions: u64,
    estimated_cycles: u64,
    estimated_energy_pj: u64,
    /// Counted under emulation.
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_instructions: Option<u64>,
    /// Estimated over counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) version: u32,
    pub(crate) parameters: usize,
    pub(crate) tokens: usize,
    /// World operations on the longest path, and in all; one-bit models have no traced graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) graph_depth: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) graph_nodes: Option<usize>,
    pub(crate) worlds: Vec<WorldPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<TargetPlan>,
}

#[derive(Debug, Serialize)]
pub(crate) struct WorldPlan {
    pub(crate) world: &'static str,
    pub(crate) operations: u64,
    /// Additions and multiplications priced with the table in use, where it prices them all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) energy_pj: Option<f64>,
    /// The same as EcoFormer's authors count: without the squarings of the hash's distances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) energy_without_squarings_pj: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scratch_bytes: Option<usize>,
    weight_bytes: usize,
    counts: Vec<Cell>,
}

#[derive(Debug, Serialize)]
struct Cell {
    operation: &'static str,
    width: &'static str,
    count: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if options.world == Some(Place::Ckks) {
        if options.tokens.is_some() {
            bail!("--world ckks reads images, whose tokens are the model's: leave --tokens out");
        }
        if OneBit::load(&options.folder.model)?.is_some() {
            bail!("encrypted inference: one-bit attention is not offered; use `power`");
        }
        return plan_ckks::run(&options.folder, &options.encrypted, &options.common);
    }
    if options.encrypted.given() {
        bail!("--params and --image belong to --world ckks");
    }
    if options.world == Some(Place::Mpc) {
        return plan_mpc::run(
            &options.folder,
            options.tokens,
            &options.two_parties,
            &options.common,
        );
    }
    if options.two_parties.given() {
        bail!("--network, --argmax, --inputs and --rates belong to --world mpc");
    }
    let only = options.world.and_then(Place::local);
    let prices = options.energy.load()?;
    let plan = make(&options.folder, options.tokens, only, options.target.as_deref(), &prices)?;
    show(options, &plan, &prices)
}

/// Plans the worlds of this process, or `only` one, and the core if one is named.
pub(crate) fn make(
    folder: &ModelFolder,
    tokens: Option<usize>,
    only: Option<WorldName>,
    core: Option<&str>,
    prices: &Prices,
) -> anyhow::Result<Plan> {
    if let Some(model) = OneBit::load(&folder.model)? {
        if core.is_some() {
            bail!("--target is for the fixed-point world, which has no one-bit attention");
        }
        return model.plan(tokens, only, prices);
    }
    let usual = tokens.is_none();
    let model = folder.load()?;
    let tokens = tokens.unwrap_or_else(|| model.task_tokens());
    if model.config.vit().is_some() && tokens != model.tokens() {
        bail!("the model reads images of {} tokens: leave --tokens out", model.tokens());
    }
    if tokens == 0 || tokens > model.tokens() {
        bail!("--tokens {tokens}: the model reads 1 to {} tokens", model.tokens());
    }
    let shape = model.input_shape(1, tokens);
    let graph = trace::record::<Full>(&model, shape)?;
    let parameters = model.weights.parameters();
    let mut worlds = Vec::new();
    if only == Some(WorldName::Binary) {
        bail!("the model has no one-bit attention: the binary world runs those of models/one-bit");
    }
    for world in only.map_or(WorldName::ALL.to_vec(), |world| vec![world]) {
        worlds.push(match world {
            WorldName::Float => {
                let counts = float_counts(&model, shape)?;
                plan(world, &counts, None, 4 * parameters, prices)
            }
            WorldName::Fixed => {
                let plan_ = fixed::plan(&model, shape)?;
                plan(world, &plan_.counts, Some(plan_.memory.bytes()), 2 * parameters, prices)
            }
            WorldName::Fixed8 => {
                let plan_ = fixed::plan(&ByteWeights(&model), shape)?;
                plan(world, &plan_.counts, Some(plan_.memory.bytes()), parameters, prices)
            }
            WorldName::Binary => continue,
        });
    }
    let target = match core {
        Some(core) => {
            // Counts are of usual inputs.
            let name = folder.model.file_name().unwrap_or_default().to_string_lossy();
            let counted = if usual { export::counted(&name) } else { None };
            Some(target_plan(core, counted, &fixed::plan(&model, shape)?.counts))
        }
        None => None,
    };
    Ok(Plan {
        version: 1,
        parameters,
        tokens: shape.rows,
        graph_depth: Some(graph.iter().map(|n| n.depth).max().unwrap_or(0)),
        graph_nodes: Some(graph.len()),
        worlds,
        target,
    })
}

fn show(options: &Options, plan: &Plan, prices: &Prices) -> anyhow::Result<Outcome> {
    if options.common.json {
        json(plan)?;
    } else {
        print(options, plan, prices);
    }
    Ok(Outcome::Good)
}

fn target_plan(core: &str, counted: Option<u64>, counts: &Counts) -> TargetPlan {
    let estimate = export::estimate(counts);
    TargetPlan {
        core: core.to_owned(),
        estimated_instructions: estimate.instructions,
        estimated_cycles: estimate.cycles,
        estimated_energy_pj: estimate.energy_pj,
        counted_instructions: counted,
        ratio: counted.map(|n| estimate.instructions as f64 / n as f64),
    }
}

fn float_counts(model: &Model, shape: undertone_core::Shape) -> anyhow::Result<Counts> {
    use undertone_model::host::Host as _;
    let mut w = Float::ledger();
    let encoder = model.prepare::<_, Fused>(&mut w)?;
    let unknown =
        undertone_core::Bound::unknown(undertone_core::Site::outside(undertone_core::Role::Input));
    let input = w.secret(shape, &[], unknown)?;
    encoder.run::<Fused>(&mut w, input, &Mask::NONE, &model.calibration)?;
    Ok(w.counts())
}

pub(crate) fn plan(
    world: WorldName,
    counts: &Counts,
    scratch_bytes: Option<usize>,
    weight_bytes: usize,
    prices: &Prices,
) -> WorldPlan {
    let counts_ = counts.iter().map(|(op, width, count)| Cell {
        operation: op.name(),
        width: width.name(),
        count,
    });
    WorldPlan {
        world: world.name(),
        operations: counts.total(),
        energy_pj: prices.arithmetic(counts),
        energy_without_squarings_pj: None,
        scratch_bytes,
        weight_bytes,
        counts: counts_.collect(),
    }
}

fn print(options: &Options, plan: &Plan, prices: &Prices) {
    print!("{} parameters, {} tokens", count(plan.parameters as u64), plan.tokens);
    if let (Some(nodes), Some(depth)) = (plan.graph_nodes, plan.graph_depth) {
        print!("; {nodes} world operations, longest path {depth}");
    }
    say!("; energy of additions and multiplications: {}", prices.name());
    let mut header = vec!["world", "weights", "scratch", "operations", "energy"];
    header.extend(Op::ALL.iter().map(|op| op.name()));
    let rows = plan.worlds.iter().map(|w| {
        let of = |op: &str| {
            let sum: u64 = w.counts.iter().filter(|c| c.operation == op).map(|c| c.count).sum();
            count(sum)
        };
        let mut row = vec![
            w.world.to_owned(),
            bytes(w.weight_bytes as u64),
            w.scratch_bytes.map_or_else(|| "–".to_owned(), |b| bytes(b as u64)),
            count(w.operations),
            energy(w.energy_pj),
        ];
        row.extend(Op::ALL.iter().map(|op| of(op.name())));
        row
    });
    say!("{}", table(&options.common, &header, 1, rows.collect()));
    for w in &plan.worlds {
        if w.energy_without_squarings_pj.is_some() {
            let without = energy(w.energy_without_squarings_pj);
            say!("{}: {without} without the squarings of distances, as EcoFormer counts", w.world);
        }
    }
    if let Some(t) = &plan.target {
        say!(
            "\n{}, estimated: {} instructions, {} cycles, {:.0} µJ of the core at {} pJ a cycle",
            t.core,
            count(t.estimated_instructions),
            count(t.estimated_cycles),
            t.estimated_energy_pj as f64 / 1e6,
            export::PICOJOULES_A_CYCLE
        );
        if let (Some(counted), Some(ratio)) = (t.counted_instructions, t.ratio) {
            say!(
                "{}, counted under emulation: {} instructions; the estimate is {ratio:.2} of that",
                t.core,
                count(counted)
            );
        }
    }
}
