//! `plan`: what a model costs in each world, without running it.

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use undertone_core::{Counts, Full, Mask, Op};
use undertone_model::Model;
use undertone_model::fixed;
use undertone_model::float::{Float, Fused};
use undertone_model::trace;

use crate::render::{bytes, count, json, table};
use crate::worlds::WorldName;
use crate::{Common, ModelFolder, Outcome, plan_mpc};

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    folder: ModelFolder,
    /// Only this world; `mpc` is planned for two parties, and only when named.
    #[arg(long)]
    world: Option<Place>,
    /// Number of tokens, for models that read text. By default the longest sequence of the
    /// model's task, or its positions.
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    #[command(flatten)]
    two_parties: plan_mpc::TwoParties,
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
    /// Secret-shared between a client and a server.
    Mpc,
}

impl Place {
    /// Whether a world of this process is meant.
    fn is(self, world: WorldName) -> bool {
        matches!((self, world), (Self::Float, WorldName::Float) | (Self::Fixed, WorldName::Fixed))
    }
}

#[derive(Debug, Serialize)]
struct Plan {
    version: u32,
    parameters: usize,
    tokens: usize,
    /// World operations on the longest path, and in all.
    graph_depth: u32,
    graph_nodes: usize,
    worlds: Vec<WorldPlan>,
}

#[derive(Debug, Serialize)]
struct WorldPlan {
    world: &'static str,
    operations: u64,
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
    if options.world == Some(Place::Mpc) {
        return plan_mpc::run(
            &options.folder,
            options.tokens,
            &options.two_parties,
            &options.common,
        );
    }
    if options.two_parties.given() {
        bail!("--network, --argmax and --inputs belong to --world mpc");
    }
    let model = options.folder.load()?;
    let tokens = options.tokens.unwrap_or_else(|| model.task_tokens());
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
    for world in WorldName::ALL {
        if options.world.is_some_and(|w| !w.is(world)) {
            continue;
        }
        worlds.push(match world {
            WorldName::Float => {
                let counts = float_counts(&model, shape)?;
                plan(world, &counts, None, 4 * parameters)
            }
            WorldName::Fixed => {
                let plan_ = fixed::plan(&model, shape)?;
                plan(world, &plan_.counts, Some(plan_.scratch_bytes()), 2 * parameters)
            }
        });
    }
    let plan = Plan {
        version: 1,
        parameters,
        tokens: shape.rows,
        graph_depth: graph.iter().map(|n| n.depth).max().unwrap_or(0),
        graph_nodes: graph.len(),
        worlds,
    };
    if options.common.json {
        json(&plan)?;
    } else {
        print(options, &plan);
    }
    Ok(Outcome::Good)
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

fn plan(
    world: WorldName,
    counts: &Counts,
    scratch_bytes: Option<usize>,
    weight_bytes: usize,
) -> WorldPlan {
    let counts_ = counts.iter().map(|(op, width, count)| Cell {
        operation: op.name(),
        width: width.name(),
        count,
    });
    WorldPlan {
        world: world.name(),
        operations: counts.total(),
        scratch_bytes,
        weight_bytes,
        counts: counts_.collect(),
    }
}

fn print(options: &Options, plan: &Plan) {
    println!(
        "{} parameters, {} tokens; {} world operations, longest path {}",
        count(plan.parameters as u64),
        plan.tokens,
        plan.graph_nodes,
        plan.graph_depth
    );
    let mut header = vec!["world", "weights", "scratch", "operations"];
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
        ];
        row.extend(Op::ALL.iter().map(|op| of(op.name())));
        row
    });
    println!("{}", table(&options.common, &header, 1, rows.collect()));
}
