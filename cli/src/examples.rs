//! Labelled examples for a model: shipped images, a data set, or generated episodes.

use std::path::Path;

use anyhow::{Context as _, bail};
use undertone_core::Shape;
use undertone_model::Model;
use undertone_model::config::{Task, VitInput};
use undertone_model::dataset::{Dataset, Split};
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;
use undertone_model::tasks::recall::Recall;

/// The stream of episodes that models are evaluated on.
const EVALUATION_SEED: u64 = 7;
/// The stream that ranges are calibrated on.
const CALIBRATION_SEED: u64 = 8;

/// What a model reads, for which examples are made.
pub(crate) trait Reads {
    /// The sizes of its images, where it reads images.
    fn vit(&self) -> Option<&VitInput>;
    /// Its classes in order.
    fn labels(&self) -> Option<&[String]>;
    /// The task that it was trained for, where that is generated.
    fn task(&self) -> Option<Task>;
    /// The shape of one example of so many tokens; images have their own number.
    fn shape(&self, tokens: usize) -> Shape;
    /// What the encoder is fed.
    fn rows(&self, input: &EncoderInput<'_>) -> anyhow::Result<Vec<f32>>;
}

impl Reads for Model {
    fn vit(&self) -> Option<&VitInput> {
        self.config.vit()
    }

    fn labels(&self) -> Option<&[String]> {
        self.config.labels.as_deref()
    }

    fn task(&self) -> Option<Task> {
        self.config.task
    }

    fn shape(&self, tokens: usize) -> Shape {
        self.input_shape(1, tokens)
    }

    fn rows(&self, input: &EncoderInput<'_>) -> anyhow::Result<Vec<f32>> {
        Ok(Model::rows(self, input)?)
    }
}

/// Examples of one shape, ready for an encoder.
pub(crate) struct Examples {
    /// What they are, for titles.
    pub(crate) name: String,
    /// The shape of one.
    pub(crate) shape: Shape,
    /// The encoder's input, example after example.
    pub(crate) rows: Vec<f32>,
    /// The right classes.
    pub(crate) labels: Vec<usize>,
    /// What they are called.
    pub(crate) names: Vec<String>,
    /// The 8-bit pixels behind the rows, line by line; none for texts.
    pub(crate) pixels: Vec<Vec<u8>>,
}

impl Examples {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The rows of examples `from..to`.
    pub(crate) fn rows(&self, from: usize, to: usize) -> &[f32] {
        let one = self.shape.len();
        &self.rows[from * one..to * one]
    }

    fn new(name: String, shape: Shape) -> Self {
        Self {
            name,
            shape,
            rows: Vec::new(),
            labels: Vec::new(),
            names: Vec::new(),
            pixels: Vec::new(),
        }
    }

    /// Test examples for a model: `data` if given, else the images beside the models, else
    /// episodes of the model's task.
    pub(crate) fn test(
        model: &impl Reads,
        models: &Path,
        data: Option<&Path>,
        limit: usize,
    ) -> anyhow::Result<Self> {
        match (model.vit(), data) {
            (Some(_), Some(folder)) => Self::dataset(model, folder, Split::Test, limit),
            (Some(_), None) => Self::shipped(model, &models.join("images"), limit),
            (None, _) => Self::episodes(model, EVALUATION_SEED, limit),
        }
    }

    /// Examples to calibrate on: the training half of a data set, or episodes that no evaluation
    /// sees.
    pub(crate) fn calibration(
        model: &impl Reads,
        data: Option<&Path>,
        limit: usize,
    ) -> anyhow::Result<Self> {
        match (model.vit(), data) {
            (Some(_), Some(folder)) => Self::dataset(model, folder, Split::Train, limit),
            (Some(_), None) => bail!("a model that reads images is calibrated on --data DIR"),
            (None, _) => Self::episodes(model, CALIBRATION_SEED, limit),
        }
    }

    fn dataset(
        model: &impl Reads,
        folder: &Path,
        split: Split,
        limit: usize,
    ) -> anyhow::Result<Self> {
        let labels = model.labels();
        let set = Dataset::open(folder, split, labels)
            .with_context(|| format!("data set {}", folder.display()))?;
        let name = match split {
            Split::Test => "test images",
            Split::Train => "training images",
        };
        let mut examples =
            Self::new(format!("{name} of {}", folder.display()), image_shape(model)?);
        for (number, item) in set.iter().take(limit).enumerate() {
            let (picture, label) = item?;
            examples.push_image(model, format!("{number:05}"), &picture, label)?;
        }
        examples.check()
    }

    /// Images that ship with the models: `<number>-<label>.png`, the label as the model names it
    /// in lower case with hyphens.
    fn shipped(model: &impl Reads, folder: &Path, limit: usize) -> anyhow::Result<Self> {
        let labels = model.labels().context("the model names no classes")?;
        let hyphened = |label: &String| label.to_lowercase().replace([' ', '/'], "-");
        let labels: Vec<String> = labels.iter().map(hyphened).collect();
        let entries = std::fs::read_dir(folder).with_context(|| {
            format!("{}: run from the project's root, or give --models or --data", folder.display())
        })?;
        let mut paths = entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|e| e == "png"));
        paths.sort();
        let mut examples =
            Self::new(format!("images of {}", folder.display()), image_shape(model)?);
        for path in paths.into_iter().take(limit) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let label = name
                .split_once('-')
                .and_then(|(_, label)| labels.iter().position(|l| l == label))
                .with_context(|| format!("{name}.png: no class of the model has this name"))?;
            let picture = Picture::load(&path).with_context(|| name.clone())?;
            examples.push_image(model, name, &picture, label)?;
        }
        examples.check()
    }

    fn push_image(
        &mut self,
        model: &impl Reads,
        name: String,
        picture: &Picture,
        label: usize,
    ) -> anyhow::Result<()> {
        let vit = model.vit().context("the model does not read images")?;
        let values = picture.to_input(vit, Resize::Refuse)?;
        self.rows.extend(model.rows(&EncoderInput::Image(&values))?);
        self.pixels.push(picture.to_pixels(vit, Resize::Refuse)?);
        self.names.push(name);
        self.labels.push(label);
        Ok(())
    }

    fn episodes(model: &impl Reads, seed: u64, limit: usize) -> anyhow::Result<Self> {
        let Some(Task::Recall { keys, values, pairs }) = model.task() else {
            bail!("a text model without a task has no labelled examples: use infer --text");
        };
        let task = Recall::new(keys, values, pairs)?;
        let shape = model.shape(pairs as usize + 1);
        let mut examples = Self::new(
            format!("associative recall, {pairs} pairs of {keys} keys and {values} values"),
            shape,
        );
        for index in 0..limit as u64 {
            let episode = task.episode(seed, index);
            let input = EncoderInput::Tokens { ids: &episode.tokens, mask: None };
            examples.rows.extend(model.rows(&input)?);
            examples.names.push(format!("{index:05}"));
            examples.labels.push(episode.label as usize);
        }
        examples.check()
    }

    fn check(self) -> anyhow::Result<Self> {
        if self.labels.is_empty() {
            bail!("no example: is --limit zero, or the folder empty?");
        }
        Ok(self)
    }
}

fn image_shape(model: &impl Reads) -> anyhow::Result<Shape> {
    let vit = model.vit().context("the model does not read images")?;
    Ok(model.shape(vit.patches() + usize::from(vit.class_token)))
}
