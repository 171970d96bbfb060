//! Models with one-bit attention: packed bits beside the same model in floating point.

use std::path::Path;

use anyhow::{Context as _, bail};
use cpu_time::ThreadTime;
use indicatif::ProgressBar;
use undertone_binary::energy::Prices;
use undertone_binary::model::{self, Encoder};
use undertone_core::{Counts, Shape};
use undertone_model::config::{Task, VitInput};
use undertone_model::input::{EncoderInput, patchify};

use crate::examples::{Examples, Reads};
use crate::plan::{self, Plan};
use crate::worlds::{self, Report, WorldName};

/// A model with one-bit attention in both its worlds.
pub(crate) struct OneBit {
    packed: Encoder,
    float: Encoder,
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
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect();
        let vit = (!config.is_text()).then(|| VitInput {
            image_size: config.image_size,
            patch_size: config.patch_size,
            channels: config.num_channels,
            class_token: false,
            pixel_mean: wide(&config.undertone.pixel_mean),
            pixel_std: wide(&config.undertone.pixel_std),
        });
        let float = packed.clone().in_floats();
        Ok(Some(Self { packed, float, vit, labels }))
    }

    /// What its layers are, for tables.
    pub(crate) fn kinds(&self) -> String {
        self.packed.config().kinds()
    }

    fn encoder(&self, world: WorldName) -> anyhow::Result<&Encoder> {
        match world {
            WorldName::Float => Ok(&self.float),
            WorldName::Binary => Ok(&self.packed),
            WorldName::Fixed => {
                bail!("the model has one-bit attention: it runs in the worlds `binary` and `float`")
            }
        }
    }

    /// Logits of one example, and what was counted.
    pub(crate) fn logits(
        &self,
        world: WorldName,
        rows: &[f32],
    ) -> anyhow::Result<(Vec<f32>, Counts)> {
        Ok(self.encoder(world)?.run(rows)?)
    }

    /// Runs all examples in a world.
    pub(crate) fn run(
        &self,
        world: WorldName,
        examples: &Examples,
        threads: usize,
        bar: &ProgressBar,
    ) -> anyhow::Result<Report> {
        let encoder = self.encoder(world)?;
        worlds::spread(world, examples, threads, |from, to| {
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
        if only == Some(WorldName::Fixed) {
            self.encoder(WorldName::Fixed)?;
        }
        let mut worlds = Vec::new();
        for world in WorldName::ONE_BIT {
            if only.is_some_and(|w| w != world) {
                continue;
            }
            let encoder = self.encoder(world)?;
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
