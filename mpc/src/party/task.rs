use super::Request;
use crate::mpc::{Format, Mpc, Plan};
use crate::world::Fused;
use crate::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;
use undertone_core::{Domains as _, Mask, Role, Site};
use undertone_model::host::Host;
use undertone_model::{Model, config::Config};

/// A client's folder holds the embedding table of a text model in this file.
pub const EMBEDDINGS: &str = "embeddings.safetensors";

/// A model as one role knows it, and the program that all roles run on it.
pub struct Task {
    /// The server has the weights, the client of a text model the embedding table; what a role
    /// does not have is random numbers of the right shape, which its part of the program does not
    /// look at.
    pub model: Model,
    /// The digest of config.json: shapes, kinds and ranges must be the same everywhere.
    digest: String,
}

fn digest(folder: &Path) -> Result<String> {
    let bytes =
        std::fs::read(folder.join("config.json")).map_err(Error::io("reading config.json"))?;
    let hash = Sha256::digest(bytes);
    Ok(hash.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    }))
}

impl Task {
    /// As the server has it: the whole folder.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn server(folder: &Path) -> Result<Self> {
        Ok(Self { model: Model::load(folder)?, digest: digest(folder)? })
    }

    /// As the dealer has it: `config.json` alone.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn dealer(folder: &Path) -> Result<Self> {
        let config = Config::load(folder).map_err(undertone_model::ModelError::from)?;
        Ok(Self { model: Model::random(config, 0)?, digest: digest(folder)? })
    }

    /// As the client has it: `config.json`, and for text the embedding table.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn client(folder: &Path) -> Result<Self> {
        let config = Config::load(folder).map_err(undertone_model::ModelError::from)?;
        let model = if config.bert().is_some() {
            Model::with_embeddings(config, &folder.join(EMBEDDINGS))?
        } else {
            Model::random(config, 0)?
        };
        Ok(Self { model, digest: digest(folder)? })
    }

    /// SHA-256 of `config.json`, in hexadecimal: the model but for its weights.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Refuses a request that the model has no answer for.
    ///
    /// # Errors
    /// [`Error::Shape`] for a number of tokens that the model does not read, a class asked of a
    /// model without a classifier, or ranges that were never calibrated.
    pub fn check(&self, request: &Request) -> Result<()> {
        let model = &self.model;
        if model.calibration.is_empty() {
            let reason = "config.json has no calibrated ranges: run `undertone calibrate` first";
            return Err(Error::Unsupported { operation: "two parties", reason: reason.into() });
        }
        if model.weights.classifier.is_some() && model.config.labels.is_none() {
            let reason = "config.json names no classes (id2label), so nobody but the server could \
                          know how many there are";
            return Err(Error::Unsupported { operation: "two parties", reason: reason.into() });
        }
        if request.argmax && model.weights.classifier.is_none() {
            return Err(Error::shape("argmax", "a model with a classifier", "none"));
        }
        let most = model.tokens();
        let images = model.config.vit().is_some();
        let fits =
            |t: u32| if images { t as usize == most } else { (1..=most).contains(&(t as usize)) };
        match request.tokens.iter().find(|t| !fits(**t)) {
            Some(t) => Err(Error::shape("tokens", if images { most..=most } else { 1..=most }, t)),
            None => Ok(()),
        }
    }

    /// What both parties call the program.
    #[must_use]
    pub fn label(&self, request: &Request) -> String {
        format!("{} argmax={} tokens={:?}", self.digest, request.argmax, request.tokens)
    }

    /// What the request will cost.
    ///
    /// # Errors
    /// As [`check`](Self::check), and ranges without room in the ring.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        self.check(request)?;
        Plan::of(&self.label(request), Format::default(), |mpc| {
            self.run(mpc, request, &[], &mut Instant::now(), &mut |_, _| ())
        })
    }

    /// The program: weights once, then each input. `inputs` holds the client's rows
    /// ([`Model::rows`]); other roles give none. `ready` becomes the moment at which the first input's
    /// turn comes. `answer` gets the number of an input and what the
    /// client learns of it, logits or a class; elsewhere zeros.
    ///
    /// # Errors
    /// The channel's and the preprocessing's; ranges without room in the ring.
    pub fn run(
        &self,
        mpc: &mut Mpc,
        request: &Request,
        inputs: &[Vec<f32>],
        ready: &mut Instant,
        answer: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Result<()> {
        let model = &self.model;
        mpc.phase("weights");
        let encoder = model.prepare::<_, Fused>(mpc)?;
        let on = model.calibration.bound(Site::outside(Role::Input));
        for (number, tokens) in request.tokens.iter().enumerate() {
            mpc.chunk()?;
            if number == 0 {
                *ready = Instant::now();
            }
            mpc.phase("input");
            let shape = model.input_shape(1, *tokens as usize);
            let rows = inputs.get(number).map_or(&[][..], Vec::as_slice);
            let input = mpc.secret(shape, rows, on)?;
            let output = encoder.run::<Fused>(mpc, input, &Mask::NONE, &model.calibration)?;
            mpc.phase("output");
            let shown = if request.argmax {
                let class = mpc.reveal_argmax(&output)?.unwrap_or_default();
                class.iter().map(|c| *c as f32).collect()
            } else {
                Host::reveal(mpc, &output)?
            };
            answer(number, shown);
        }
        Ok(())
    }
}
