//! `plan --world ckks`: what one encrypted image costs, by layer.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use undertone_he::Classifier;
use undertone_he::ckks::{Counts, Rates};
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;

use crate::encrypted::{Circuit, security};
use crate::render::{bytes, json, say, table};
use crate::{Common, ModelFolder, Outcome};

#[derive(Debug, Clone, Args)]
pub(crate) struct Encrypted {
    /// With --world ckks: the parameter set; by default the smallest 128-bit one with enough
    /// levels.
    #[arg(long, value_name = "SET")]
    params: Option<String>,
    /// With --world ckks: predict the scheme's error for this public image instead of a black one.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

impl Encrypted {
    /// Whether anything was asked.
    pub(crate) fn given(&self) -> bool {
        self.params.is_some() || self.image.is_some()
    }
}

#[derive(Debug, Serialize)]
struct Plan {
    version: u32,
    world: &'static str,
    parameters: Set,
    tokens: usize,
    /// Levels of the circuit; the image is encrypted at this level.
    levels: usize,
    switching_keys: usize,
    /// Sent by the client once.
    evaluation_keys_bytes: usize,
    /// Expanded, in the server's memory.
    evaluation_keys_memory_bytes: usize,
    /// One ciphertext, for each image.
    client_sent_bytes: usize,
    server_sent_bytes: usize,
    /// log₂ of the predicted standard deviation of the scheme's error in a logit, root mean
    /// square over the logits, for the public image.
    predicted_error_log2: f64,
    /// Measured on this machine just now.
    rates: Speeds,
    phases: Vec<Phase>,
    total: Phase,
}

#[derive(Debug, Serialize)]
struct Set {
    name: &'static str,
    ring_degree: usize,
    log_qp_bits: f64,
    security: &'static str,
    levels: usize,
}

#[derive(Debug, Serialize)]
struct Speeds {
    transform_seconds: f64,
    encoding_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Phase {
    phase: String,
    levels: usize,
    products: u64,
    plain_products: u64,
    rotations: u64,
    key_switches: u64,
    decompositions: u64,
    rescales: u64,
    transforms: u64,
    /// Of one core: counts times rates.
    estimated_seconds: f64,
}

impl Phase {
    fn new(phase: &str, levels: usize, counts: &Counts, rates: &Rates) -> Self {
        Self {
            phase: phase.to_owned(),
            levels,
            products: counts.products,
            plain_products: counts.plain_products,
            rotations: counts.rotations,
            key_switches: counts.key_switches,
            decompositions: counts.decompositions,
            rescales: counts.rescales,
            transforms: counts.ntts,
            estimated_seconds: rates.seconds(counts),
        }
    }
}

pub(crate) fn run(
    folder: &ModelFolder,
    options: &Encrypted,
    common: &Common,
) -> anyhow::Result<Outcome> {
    let circuit = Circuit { folder: folder.clone(), params: options.params.clone() };
    let classifier = circuit.classifier()?;
    let (ctx, planned) = (classifier.context(), classifier.plan());
    let rates = rates(&classifier)?;
    let plan = Plan {
        version: 1,
        world: "ckks",
        parameters: Set {
            name: ctx.params().name,
            ring_degree: ctx.params().n(),
            log_qp_bits: ctx.chain().log_qp,
            security: security(ctx),
            levels: ctx.top_level(),
        },
        tokens: classifier.packing().tokens,
        levels: planned.levels,
        switching_keys: planned.automorphisms.len() + 1,
        evaluation_keys_bytes: classifier.sent_key_bytes(),
        evaluation_keys_memory_bytes: classifier.key_bytes(),
        client_sent_bytes: classifier.image_bytes(),
        server_sent_bytes: classifier.answer_bytes(),
        predicted_error_log2: predicted_error(&classifier, options)?.log2(),
        rates: Speeds { transform_seconds: rates.transform, encoding_seconds: rates.encoding },
        phases: planned
            .phases
            .iter()
            .map(|p| Phase::new(&p.name, p.levels, &p.counts, &rates))
            .collect(),
        total: Phase::new("one image", planned.levels, &planned.counts, &rates),
    };
    if common.json {
        json(&plan)?;
    } else {
        print(common, &plan);
    }
    Ok(Outcome::Good)
}

/// What one core of this machine does, measured just now.
pub(crate) fn rates(classifier: &Classifier) -> anyhow::Result<Rates> {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    Ok(one.install(|| Rates::measure(classifier.context(), classifier.plan().levels))?)
}

/// The circuit in the clear on a public image carries the variance of each logit's error.
fn predicted_error(classifier: &Classifier, options: &Encrypted) -> anyhow::Result<f64> {
    let model = classifier.model();
    let vit = model.config.vit().context("the model does not read images")?;
    let rows = match &options.image {
        None => vec![0.0; model.input_shape(1, model.tokens()).len()],
        Some(path) => {
            let picture = Picture::load(path).and_then(|p| p.to_input(vit, Resize::Refuse));
            let picture = picture.with_context(|| path.display().to_string())?;
            model.rows(&EncoderInput::Image(&picture))?
        }
    };
    let (_, deviations) = classifier.clear(&rows)?;
    let squares: f64 = deviations.iter().map(|d| d * d).sum();
    Ok((squares / deviations.len() as f64).sqrt())
}

fn print(common: &Common, plan: &Plan) {
    let set = &plan.parameters;
    say!(
        "one image of {} tokens under CKKS: set {} (N = {}, logQP {:.0}, security {}), {} of its \
         {} levels",
        plan.tokens,
        set.name,
        set.ring_degree,
        set.log_qp_bits,
        set.security,
        plan.levels,
        set.levels
    );
    say!(
        "{} switching keys: {} sent once, {} in the server's memory; an image: {} up, {} down",
        plan.switching_keys,
        bytes(plan.evaluation_keys_bytes as u64),
        bytes(plan.evaluation_keys_memory_bytes as u64),
        bytes(plan.client_sent_bytes as u64),
        bytes(plan.server_sent_bytes as u64)
    );
    say!(
        "predicted error of a logit 2^{:.1}; seconds are estimates for one core of this machine",
        plan.predicted_error_log2
    );
    let header = [
        "phase",
        "levels",
        "products",
        "plaintext products",
        "rotations",
        "key switches",
        "decompositions",
        "rescalings",
        "transforms",
        "estimated s",
    ];
    let rows = plan.phases.iter().chain([&plan.total]).map(|p| {
        vec![
            p.phase.clone(),
            p.levels.to_string(),
            p.products.to_string(),
            p.plain_products.to_string(),
            p.rotations.to_string(),
            p.key_switches.to_string(),
            p.decompositions.to_string(),
            p.rescales.to_string(),
            p.transforms.to_string(),
            format!("{:.2}", p.estimated_seconds),
        ]
    });
    say!("{}", table(common, &header, 1, rows.collect()));
}
