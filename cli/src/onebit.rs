//! Models with one-bit attention: packed bits beside the same model in floating point.

use std::path::Path;

use anyhow::{Context as _, bail};
use cpu_time::ThreadTime;
use indicatif::ProgressBar;
use undertone_binary::energy::Prices;
use undertone_binary::model::{self, Encoder, InFixed};
use undertone_core::{Counts, Shape};
use undertone_model::config::{Task, VitInput};
use undertone_model::domains::Calibration;
use undertone_model::fixed::{self, ByteWeights, FixedModel, Source as _};
use undertone_model::input::{EncoderInput, patchify};

use crate::examples::{Examples, Reads};
use crate::plan::{self, Plan};
use crate::worlds::{self, Report, WorldName};

/// A model with one-bit attention in its worlds.
pub(crate) struct OneBit {
    packed: Encoder,
    float: Encoder,
    fixed: InFixed,
    vit: Option<VitInput>,
    labels: Vec<String>,
}

impl OneBit {
    /// Loads a folder, if its configuration asks for one-bit attention.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Option<Self>> {
        if !model::is_one_bit(folder) {
            return Ok(None);
        }
        let context = || format!("model {}", folder.display());
        let packed = Encoder::load(folder).with_context(context)?;
        let config = packed.config();
        let labels = config.labels().map_err(|i| anyhow::anyhow!("id2label names no class {i}"));
        let labels = labels.with_context(context)?;
        let vit = config.vit();
        let float = packed.clone().in_floats();
        let fixed = packed.in_fixed().with_context(context)?;
        Ok(Some(Self { packed, float, fixed, vit, labels }))
    }

    /// What its layers are, for tables.
    pub(crate) fn kinds(&self) -> String {
        self.packed.config().kinds()
    }

    /// The worlds that run it: fixed point where its attention has a form there and it is
    /// calibrated.
    pub(crate) fn worlds(&self) -> Vec<WorldName> {
        let mut worlds = vec![WorldName::Float, WorldName::Binary];
        if self.fixed.is_calibrated() && fixed::plan(&self.fixed, self.fixed.shape()).is_ok() {
            worlds.push(WorldName::Fixed);
        }
        worlds
    }

    /// The form that fixed point and microcontrollers run.
    pub(crate) fn in_fixed(&self) -> &InFixed {
        &self.fixed
    }

    /// Its layers.
    pub(crate) fn depth(&self) -> usize {
        self.packed.config().undertone.layers.len()
    }

    /// Widens ranges by one example.
    pub(crate) fn record(&self, rows: &[f32], ranges: &mut Calibration) -> anyhow::Result<()> {
        Ok(self.packed.record(rows, ranges)?)
    }

    /// One example in fixed point.
    fn in_integers(&self, world: WorldName, rows: &[f32]) -> anyhow::Result<(Vec<f32>, Counts)> {
        let shape = self.shape(rows.len() / self.packed.config().input_width());
        let run = match world {
            WorldName::Fixed8 => FixedModel::new(&ByteWeights(&self.fixed), shape)?.run(rows)?,
            _ => FixedModel::new(&self.fixed, shape)?.run(rows)?,
        };
        Ok((run.output, run.counts))
    }

    /// Logits of one example, and what was counted.
    pub(crate) fn logits(
        &self,
        world: WorldName,
        rows: &[f32],
    ) -> anyhow::Result<(Vec<f32>, Counts)> {
        match world {
            WorldName::Float => Ok(self.float.run(rows)?),
            WorldName::Binary => Ok(self.packed.run(rows)?),
            WorldName::Fixed | WorldName::Fixed8 => self.in_integers(world, rows),
        }
    }

    /// Runs all examples in a world.
    pub(crate) fn run(
        &self,
        world: WorldName,
        examples: &Examples,
        threads: usize,
        bar: &ProgressBar,
    ) -> anyhow::Result<Report> {
        worlds::spread(world, examples, threads, |from, to| {
            let encoder = match world {
                WorldName::Float => &self.float,
                WorldName::Binary => &self.packed,
                WorldName::Fixed => return worlds::fixed(&self.fixed, examples, from, to, bar),
                WorldName::Fixed8 => {
                    return worlds::fixed(&ByteWeights(&self.fixed), examples, from, to, bar);
                }
            };
            let start = ThreadTime::now();
            let (mut logits, mut counts) = (Vec::with_capacity(to - from), Counts::NONE);
            for at in from..to {
                let (made, counted) = encoder.run(examples.rows(at, at + 1))?;
                logits.push(made);
                counts = counts.plus(&counted);
                bar.inc(1);
            }
            let cpu_seconds = start.elapsed().as_secs_f64();
            Ok(Report { logits, cpu_seconds, counts, saturated: 0 })
        })
    }

    /// What one example costs.
    pub(crate) fn plan(
        &self,
        tokens: Option<usize>,
        only: Option<WorldName>,
        prices: &Prices,
    ) -> anyhow::Result<Plan> {
        let tokens = tokens.unwrap_or_else(|| self.packed.config().tokens());
        let mut worlds = Vec::new();
        for world in only.map_or_else(|| self.worlds(), |world| vec![world]) {
            let encoder = if world == WorldName::Float { &self.float } else { &self.packed };
            if matches!(world, WorldName::Fixed | WorldName::Fixed8) {
                let shape = self.shape(tokens);
                let made = match world {
                    WorldName::Fixed => fixed::plan(&self.fixed, shape)?,
                    _ => fixed::plan(&ByteWeights(&self.fixed), shape)?,
                };
                let (counts, scratch) = (&made.counts, Some(made.memory.bytes()));
                worlds.push(plan::plan(world, counts, scratch, encoder.size().1, prices));
                continue;
            }
            let counts = encoder.plan(tokens)?;
            let mut plan = plan::plan(world, &counts, None, encoder.size().1, prices);
            let squarings = encoder.squarings(tokens);
            if squarings > 0 {
                let mut without = Counts::NONE;
                without.add(undertone_core::Op::Mul, undertone_core::Width::F32, squarings);
                plan.energy_without_squarings_pj = prices
                    .arithmetic(&counts)
                    .zip(prices.arithmetic(&without))
                    .map(|(all, squarings)| all - squarings);
            }
            worlds.push(plan);
        }
        let parameters = self.packed.size().0;
        Ok(Plan {
            version: 1,
            parameters,
            tokens,
            graph_depth: None,
            graph_nodes: None,
            worlds,
            target: None,
        })
    }
}

impl Reads for OneBit {
    fn vit(&self) -> Option<&VitInput> {
        self.vit.as_ref()
    }

    fn labels(&self) -> Option<&[String]> {
        Some(&self.labels)
    }

    fn task(&self) -> Option<Task> {
        self.packed
            .config()
            .undertone
            .task
            .map(|model::Task::Recall { keys, values, pairs }| Task::Recall { keys, values, pairs })
    }

    fn shape(&self, tokens: usize) -> Shape {
        Shape::new(1, tokens, self.packed.config().input_width())
    }

    fn rows(&self, input: &EncoderInput<'_>) -> anyhow::Result<Vec<f32>> {
        match (input, &self.vit) {
            (EncoderInput::Image(image), Some(vit)) => Ok(patchify(image, vit)),
            (EncoderInput::Tokens { ids, mask: None }, None) => Ok(self.packed.embedded(ids)?),
            (EncoderInput::Tokens { mask: Some(_), .. }, None) => {
                bail!("one-bit attention takes no padding: give texts one by one")
            }
            (EncoderInput::Tokens { .. }, Some(_)) => bail!("the model reads images, not tokens"),
            (EncoderInput::Image(_), None) => bail!("the model does not read images"),
        }
    }
}
