//! The job of a Power-Softmax head with Q, K and V encrypted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Job, ServiceError, described};
use crate::ckks::{Automorphism, Ciphertext, Context, Evaluator, Params};
use crate::world::{HeError, Head, HeadInputs, Layout, Ledger, Packing};

/// What client and server must agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    job: String,
    parameters: String,
    tokens: usize,
    features: usize,
    exponent: u8,
    row_sums: (f64, f64),
    tolerance: f64,
}

const NAME: &str = "power-softmax head";

/// A head as a job: the server's circuit, and what a client needs to pack for it and to read the
/// result.
pub struct HeadJob {
    ctx: Arc<Context>,
    head: Head,
    level: usize,
    automorphisms: Vec<Automorphism>,
    description: String,
}

impl HeadJob {
    /// A head in the first of the parameter sets that holds its circuit.
    ///
    /// # Errors
    /// [`ServiceError::Evaluation`] where none does.
    pub fn new(head: Head, sets: &[Params]) -> Result<Self, ServiceError> {
        let mut last = None;
        for &params in sets {
            match Self::with(head, params) {
                Ok(job) => return Ok(job),
                Err(e) => last = Some(e),
            }
        }
        let problem = "no parameter set was offered".into();
        Err(last.unwrap_or(ServiceError::Description { problem }))
    }

    fn with(head: Head, params: Params) -> Result<Self, ServiceError> {
        let refused =
            |e: crate::ckks::ParamsError| ServiceError::Description { problem: e.to_string() };
        let ctx = Context::new(params).map_err(refused)?;
        if head.packing.slots != ctx.slots() {
            let problem = format!("the packing is not for {}", params.name);
            return Err(ServiceError::Description { problem });
        }
        let ledger = Arc::new(Ledger::new(ctx.clone()));
        head.run(&ledger, head.planned_inputs(ctx.top_level()))?;
        let level = ledger.planned().levels;
        // The automorphisms at the level of use; they do not depend on it today, but may.
        let ledger = Arc::new(Ledger::new(ctx.clone()));
        head.run(&ledger, head.planned_inputs(level))?;
        let automorphisms = ledger.planned().automorphisms.into_iter().collect();
        let description = Description {
            job: NAME.into(),
            parameters: params.name.into(),
            tokens: head.packing.tokens,
            features: head.packing.features,
            exponent: head.exponent,
            row_sums: head.row_sums,
            tolerance: head.tolerance,
        };
        let description = serde_json::to_string(&description)
            .map_err(|e| ServiceError::Description { problem: e.to_string() })?;
        Ok(Self { ctx, head, level, automorphisms, description })
    }

    /// The job that a server describes, for its client. Parameter sets without a claim of security
    /// are refused unless `insecure` is set.
    ///
    /// # Errors
    /// [`ServiceError::Description`].
    pub fn from_description(text: &str, insecure: bool) -> Result<Self, ServiceError> {
        let wrong = |problem: String| ServiceError::Description { problem };
        let d: Description = described(text, NAME)?;
        let params = Params::by_name(&d.parameters)
            .ok_or_else(|| wrong(format!("unknown parameter set {:?}", d.parameters)))?;
        if params.security == crate::ckks::Security::Insecure && !insecure {
            return Err(wrong(format!("parameter set {} claims no security", params.name)));
        }
        let (lo, hi) = d.row_sums;
        let finite = lo > 0.0 && hi > lo && hi.is_finite() && hi / lo <= 1e9;
        let fits = d.tokens <= params.slots() && d.features <= params.slots();
        if !finite || !fits || !(1e-12..=0.5).contains(&d.tolerance) || d.exponent > 16 {
            return Err(wrong("a number is out of range".into()));
        }
        let packing = Packing::dense(params.slots(), d.tokens, d.features)
            .map_err(|e| wrong(e.to_string()))?;
        let (exponent, tolerance) = (d.exponent, d.tolerance);
        let job = Self::with(Head { packing, exponent, row_sums: d.row_sums, tolerance }, params)?;
        // So that both digests agree.
        if job.description == text { Ok(job) } else { Err(wrong("written differently".into())) }
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The level to encrypt inputs at.
    #[must_use]
    pub fn level(&self) -> usize {
        self.level
    }

    /// The output [tokens, features] from its decrypted slots.
    ///
    /// # Errors
    /// What the world refuses.
    pub fn unpack(&self, slots: &[f64]) -> Result<Vec<f64>, ServiceError> {
        let ledger = Arc::new(Ledger::new(self.ctx.clone()));
        let out = self.head.run(&ledger, self.head.planned_inputs(self.level))?;
        let Packing { tokens, features, .. } = self.head.packing;
        Ok(self.head.packing.unpack(slots, tokens, features, out.factor()))
    }

    fn counts(&self) -> [usize; 3] {
        [Layout::Spread, Layout::ShiftedPairs, Layout::ShiftedPairs]
            .map(|layout| self.head.packing.count(layout))
    }
}

impl Job for HeadJob {
    fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn automorphisms(&self) -> &[Automorphism] {
        &self.automorphisms
    }

    fn inputs(&self) -> usize {
        self.counts().iter().sum()
    }

    fn outputs(&self) -> usize {
        1
    }

    fn evaluate(
        &self,
        server: &Arc<Evaluator>,
        inputs: Vec<Ciphertext>,
    ) -> Result<Vec<Ciphertext>, HeError> {
        let [q, k, _] = self.counts();
        let mut inputs = inputs.into_iter();
        let x = HeadInputs {
            q: inputs.by_ref().take(q).collect(),
            k: inputs.by_ref().take(k).collect(),
            v: inputs.collect(),
        };
        let out = self.head.run(server, x)?;
        Ok(out.ciphertexts().to_vec())
    }
}
