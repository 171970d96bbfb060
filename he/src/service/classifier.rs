//! The job of a whole model on one encrypted image.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use undertone_model::Model;
use undertone_model::config::Config;

use super::{Job, MAX_DESCRIPTION, ServiceError, described};
use crate::ckks::{Automorphism, Ciphertext, Context, Evaluator, Params, Security};
use crate::classifier::{ACCURACY, Classifier, ClassifierError};
use crate::world::HeError;

/// What client and server must agree on. The configuration has shapes, kinds, calibrated ranges
/// and class names; no weight.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    job: String,
    parameters: String,
    levels: usize,
    automorphisms: usize,
    config: serde_json::Value,
}

const NAME: &str = "classifier";

/// A model as a job: the server's circuit; and, from its description and without weights, what a
/// client needs to encrypt an image for it, to make its keys and to read the result.
pub struct ClassifierJob {
    classifier: Classifier,
    automorphisms: Vec<Automorphism>,
    description: String,
}

impl ClassifierJob {
    /// The server's side: a classifier, and the text of the `config.json` that it was loaded with.
    ///
    /// # Errors
    /// [`ServiceError::Description`] where the text alone does not give the model's configuration,
    /// or is too long.
    pub fn new(classifier: Classifier, config: &[u8]) -> Result<Self, ServiceError> {
        let parsed = Config::parse(config, None).map_err(wrong)?;
        if parsed != classifier.model().config {
            return Err(wrong(
                "config.json alone is another model: move what \
                              preprocessor_config.json says into its block `undertone`",
            ));
        }
        let plan = classifier.plan();
        let description = Description {
            job: NAME.into(),
            parameters: classifier.context().params().name.into(),
            levels: plan.levels,
            automorphisms: plan.automorphisms.len(),
            config: serde_json::from_slice(config).map_err(wrong)?,
        };
        let description = serde_json::to_string(&description).map_err(wrong)?;
        if description.len() > MAX_DESCRIPTION {
            return Err(wrong(format!("config.json has {} bytes", config.len())));
        }
        let automorphisms = plan.automorphisms.iter().copied().collect();
        Ok(Self { classifier, automorphisms, description })
    }

    /// The client's side, from what a server describes. Parameter sets without a claim of security
    /// are refused unless `insecure` is set.
    ///
    /// # Errors
    /// [`ServiceError::Description`].
    pub fn from_description(text: &str, insecure: bool) -> Result<Self, ServiceError> {
        let d: Description = described(text, NAME)?;
        let params = Params::by_name(&d.parameters)
            .ok_or_else(|| wrong(format!("unknown parameter set {:?}", d.parameters)))?;
        if params.security == Security::Insecure && !insecure {
            return Err(wrong(format!("parameter set {} claims no security", params.name)));
        }
        let config = serde_json::to_vec(&d.config).map_err(wrong)?;
        let config = Config::parse(&config, None).map_err(wrong)?;
        // Before memory is taken for placeholders of the weights.
        let (values, most) = (config.tokens() * config.width, params.slots());
        let small = |x: usize| x <= 16 * most;
        if values > most || config.depth() > 64 || !small(config.mlp_width) || !small(config.width)
        {
            return Err(wrong(format!("the model does not fit {}", params.name)));
        }
        // Keys, levels and packing depend on the configuration alone.
        let model = Model::random(config, 0).map_err(wrong)?;
        let classifier = Classifier::with(model, params, ACCURACY).map_err(|(_, e)| wrong(e))?;
        let plan = classifier.plan();
        if (plan.levels, plan.automorphisms.len()) != (d.levels, d.automorphisms) {
            return Err(wrong("the server plans another circuit: use the same version"));
        }
        let automorphisms = plan.automorphisms.iter().copied().collect();
        Ok(Self { classifier, automorphisms, description: text.to_owned() })
    }

    /// The circuit. On the client's side its weights are placeholders.
    #[must_use]
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }
}

fn wrong(problem: impl ToString) -> ServiceError {
    ServiceError::Description { problem: problem.to_string() }
}

impl Job for ClassifierJob {
    fn context(&self) -> &Arc<Context> {
        self.classifier.context()
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn automorphisms(&self) -> &[Automorphism] {
        &self.automorphisms
    }

    fn inputs(&self) -> usize {
        1
    }

    fn outputs(&self) -> usize {
        1
    }

    fn evaluate(
        &self,
        server: &Arc<Evaluator>,
        inputs: Vec<Ciphertext>,
    ) -> Result<Vec<Ciphertext>, HeError> {
        let [image] = inputs.as_slice() else {
            return Err(undertone_core::Fault::Parameter {
                what: "ciphertexts of an image",
                got: inputs.len() as i64,
            }
            .into());
        };
        match self.classifier.run(server, image) {
            Ok(logits) => Ok(vec![logits]),
            Err(ClassifierError::World(e)) => Err(e),
            Err(ClassifierError::Scheme(e)) => Err(e.into()),
            // The classifier was built, so model and parameters have been accepted.
            Err(_) => {
                Err(undertone_core::Fault::Parameter { what: "the classifier", got: 0 }.into())
            }
        }
    }
}
