//! A whole model on one encrypted image: patch projection, layers, pooling and classifier.
//!
//! One ciphertext goes up, one comes down. [`Classifier`] is what both sides derive from the same
//! model folder: packing, levels, and the keys that a client must make.

use std::sync::Arc;

use undertone_core::{Bound, Fault, Made, Mask, Role, Shape, Site, Unsupported, World as _};
use undertone_model::config::{HeadKind, NormKind};
use undertone_model::host::{Host, Weight};
use undertone_model::reference::{self, Matrix};
use undertone_model::weights::Embeddings;
use undertone_model::{Model, Prepared};

use crate::ckks::{
    Ciphertext, CkksError, Complex, Context, Degree, EvaluationKeys, Evaluator, Meta, Params,
    ParamsError, Plaintext, SeededCiphertext, switching_key_bytes,
};
use crate::world::{
    Accuracy, Ckks, Clear, Encrypted, Engine, HeError, Ledger, Packed, Packing, Planned,
    PublicMatrix, Slots,
};

/// Why a model cannot be run on encrypted images, or an image was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The world refused.
    #[error(transparent)]
    World(#[from] HeError),
    /// The scheme refused.
    #[error(transparent)]
    Scheme(#[from] CkksError),
    /// The parameter set was refused.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The model is not one for encrypted inference.
    #[error("encrypted inference: {found} is not offered; use {wanted}")]
    Model {
        /// What the model has.
        found: &'static str,
        /// What it may have.
        wanted: &'static str,
    },
    /// No parameter set has enough levels.
    #[error(
        "encrypted inference: the model needs {needed} levels, the largest set has {available}; \
         use fewer layers or narrower domains"
    )]
    TooDeep {
        /// Levels of the circuit.
        needed: usize,
        /// Levels of the largest set.
        available: usize,
    },
    /// An input of another size.
    #[error("encrypted inference: an image of {found} values where the model reads {wanted}")]
    Input {
        /// Values found.
        found: usize,
        /// Values wanted.
        wanted: usize,
    },
}

type Result<T, E = ClassifierError> = std::result::Result<T, E>;

/// How closely the shipped models' reciprocals are approximated: within 1 %, up to twice the
/// greatest row sum of the training data, since what lies beyond is lost. Below, where a row sum
/// is next to nothing, the reciprocal merely saturates.
pub const ACCURACY: Accuracy = Accuracy { tolerance: 0.01, below: 1.5, above: 2.0 };

/// A model with everything that follows from it and a parameter set.
pub struct Classifier {
    model: Model,
    ctx: Arc<Context>,
    packing: Packing,
    accuracy: Accuracy,
    plan: Planned,
}

impl Classifier {
    /// With the smallest secure set that has enough levels.
    ///
    /// # Errors
    /// [`ClassifierError`], by what is wrong.
    pub fn new(model: Model) -> Result<Self> {
        let sets = [Params::N15_LEVELS14, Params::N16_LEVELS27, Params::N16_LEVELS34];
        let mut model = model;
        let mut needed = 0;
        for params in sets {
            // Cheap to find out: without data, and with levels to spare.
            match Self::with(model, params, ACCURACY) {
                Ok(classifier) => return Ok(classifier),
                Err((back, ClassifierError::TooDeep { needed: n, .. })) => {
                    needed = n;
                    model = *back;
                }
                Err((_, e)) => return Err(e),
            }
        }
        Err(ClassifierError::TooDeep { needed, available: sets[sets.len() - 1].levels })
    }

    /// With a chosen set and accuracy; the model comes back where they do not fit.
    ///
    /// # Errors
    /// [`ClassifierError`], by what is wrong.
    pub fn with(
        model: Model,
        params: Params,
        accuracy: Accuracy,
    ) -> Result<Self, (Box<Model>, ClassifierError)> {
        let prepared = check(&model).and_then(|()| Ok(Context::new(params)?)).and_then(|ctx| {
            let c = &model.config;
            let packing = Packing::rolling(ctx.slots(), c.tokens(), c.width, c.heads)
                .map_err(HeError::from)?;
            Ok((ctx, packing))
        });
        let (ctx, packing) = match prepared {
            Ok(prepared) => prepared,
            Err(e) => return Err((Box::new(model), e)),
        };
        let mut this = Self { model, ctx, packing, accuracy, plan: Planned::default() };
        match this.planned() {
            Ok(plan) => {
                this.plan = plan;
                Ok(this)
            }
            Err(e) => Err((Box::new(this.model), e)),
        }
    }

    /// Runs without data, from just the level that the circuit needs.
    fn planned(&self) -> Result<Planned> {
        let run = |level: usize| {
            let ledger = Arc::new(Ledger::from_level(self.ctx.clone(), level));
            let fresh = Meta { level, degree: Degree::One, parts: 2 };
            self.run_on(&ledger, &fresh).map(|_| ledger.planned())
        };
        let available = self.ctx.top_level();
        match run(available) {
            Ok(plan) => run(plan.levels),
            Err(ClassifierError::World(HeError::Ckks(CkksError::LevelExhausted { .. }))) => {
                Err(ClassifierError::TooDeep { needed: available + 1, available })
            }
            Err(e) => Err(e),
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The parameter set, made ready.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Where the elements stand.
    #[must_use]
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// What a run costs, and the automorphisms whose keys it needs. The input is encrypted at
    /// level `levels`.
    #[must_use]
    pub fn plan(&self) -> &Planned {
        &self.plan
    }

    /// Bytes of the expanded evaluation keys in the server's memory.
    #[must_use]
    pub fn key_bytes(&self) -> usize {
        (self.plan.automorphisms.len() + 1) * switching_key_bytes(&self.ctx)
    }

    /// Bytes of the evaluation keys that the client sends once.
    #[must_use]
    pub fn sent_key_bytes(&self) -> usize {
        EvaluationKeys::wire_bytes(&self.ctx, self.plan.automorphisms.len())
    }

    /// Bytes of an encrypted image on its way up.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        SeededCiphertext::wire_bytes(&self.ctx, self.plan.levels)
    }

    /// Bytes of the encrypted logits on their way down: all levels are used up.
    #[must_use]
    pub fn answer_bytes(&self) -> usize {
        Ciphertext::wire_bytes(&self.ctx, Meta { level: 0, degree: Degree::One, parts: 2 })
    }

    /// Classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.model.weights.classifier.as_ref().map_or(0, |c| c.outputs)
    }

    /// The client's part: the model's input rows ([`Model::rows`]), ready to encrypt.
    ///
    /// # Errors
    /// [`ClassifierError::Input`] for an image of another size.
    pub fn pack(&self, rows: &[f32]) -> Result<Plaintext> {
        Ok(self.ctx.encode_as(&self.slots(rows)?, self.plan.levels, Degree::One)?)
    }

    fn slots(&self, rows: &[f32]) -> Result<Vec<Complex>> {
        let shape = self.model.input_shape(1, self.packing.tokens);
        if rows.len() != shape.len() {
            return Err(ClassifierError::Input { found: rows.len(), wanted: shape.len() });
        }
        let rows: Vec<f64> = rows.iter().map(|&x| x.into()).collect();
        Ok(self.packing.pack_input(&rows, shape.cols).map_err(HeError::from)?)
    }

    /// The client's part: the keys that a server needs for this model.
    ///
    /// # Errors
    /// [`CkksError::Randomness`].
    #[cfg(feature = "client")]
    pub fn evaluation_keys(&self, secret: &crate::ckks::SecretKey) -> Result<EvaluationKeys> {
        let each: Vec<_> = self.plan.automorphisms.iter().copied().collect();
        Ok(secret.evaluation_keys(&each)?)
    }

    /// The client's part: the logits in decrypted slots.
    #[must_use]
    pub fn unpack(&self, slots: &[f64]) -> Vec<f64> {
        self.packing.unpack(slots, 1, self.classes(), 1.0)
    }

    /// The server's part: classifies an encrypted image with evaluation keys alone.
    ///
    /// # Errors
    /// Wrong key or parameters, missing keys, a ciphertext of too low a level.
    pub fn run(&self, server: &Arc<Evaluator>, image: &Ciphertext) -> Result<Ciphertext> {
        self.run_on(server, image)
    }

    /// The circuit in the clear, and the predicted standard deviation of the scheme's error in
    /// each logit.
    ///
    /// # Errors
    /// [`ClassifierError::Input`] for an image of another size.
    pub fn clear(&self, rows: &[f32]) -> Result<(Vec<f64>, Vec<f64>)> {
        let engine = Arc::new(Clear::new(self.ctx.clone()));
        let input = Slots::new(&self.ctx, &self.slots(rows)?, self.plan.levels);
        let out = self.run_on(&engine, &input)?;
        let deviations: Vec<f64> = out.variances().iter().map(|v| v.sqrt()).collect();
        Ok((self.unpack(&out.real()), self.unpack(&deviations)))
    }

    fn run_on<E: Engine + Sync>(&self, engine: &Arc<E>, image: &E::Ct) -> Result<E::Ct> {
        engine.phase("input");
        let mut w = Ckks::new(engine.clone(), self.accuracy);
        let encoder: Prepared<Ckks<E>> = self.model.prepare::<_, Encrypted>(&mut w)?;
        let columns = self.model.input_shape(1, self.packing.tokens).cols;
        let input = w.admit_input(self.packing, columns, image)?;
        let calibration = &self.model.calibration;
        let out = encoder.run::<Encrypted>(&mut w, input, &Mask::NONE, calibration)?;
        let (shape, out) = (w.shape(&out), w.settle(out)?);
        let wanted = Shape::new(1, 1, self.classes());
        match out.ciphertexts() {
            [ct] if shape == wanted => Ok(ct.clone()),
            _ => {
                Err(HeError::from(Fault::Shape { op: "logits", left: shape, right: wanted }).into())
            }
        }
    }

    /// The same polynomials in plain `f64`, written as [`undertone_model::reference`] is: no
    /// packing, no levels, no worlds.
    ///
    /// # Errors
    /// [`ClassifierError::Input`] for an image of another size.
    pub fn polynomial(&self, rows: &[f32]) -> Result<Vec<f64>> {
        self.plain(rows, |layer, x| {
            // `check` has found the range.
            let (lo, hi) = row_sums(&self.model, layer).unwrap_or((1.0, 2.0));
            let eps = eps(&self.model.config.layers[layer].heads[0]);
            self.accuracy.reciprocal(lo + eps, hi + eps).value(x)
        })
    }

    /// The model in plain `f64` with a true division.
    ///
    /// # Errors
    /// [`ClassifierError::Input`] for an image of another size.
    pub fn exact(&self, rows: &[f32]) -> Result<Vec<f64>> {
        self.plain(rows, |_, x| 1.0 / x)
    }

    fn plain(&self, rows: &[f32], reciprocal: impl Fn(usize, f64) -> f64) -> Result<Vec<f64>> {
        let c = &self.model.config;
        let w = &self.model.weights;
        let shape = self.model.input_shape(1, self.packing.tokens);
        if rows.len() != shape.len() {
            return Err(ClassifierError::Input { found: rows.len(), wanted: shape.len() });
        }
        let Embeddings::Vit { projection, position, .. } = &w.embeddings else {
            return Err(NOT_AN_IMAGE);
        };
        let affine = |x: &Matrix, n: &undertone_model::weights::Norm| {
            reference::norm(x, NormKind::Affine, n, 0.0)
        };
        let patches = Matrix::from_f32(shape.rows, shape.cols, rows);
        let mut x = reference::linear(&patches, projection);
        x.add(&Matrix::from_f32(shape.rows, c.width, position));
        for (number, (layer, w)) in c.layers.iter().zip(&w.layers).enumerate() {
            let normed = affine(&x, &w.attention_norm);
            let [q, k, v] = [&w.query, &w.key, &w.value].map(|l| reference::linear(&normed, l));
            let mut context = Matrix::zeros(shape.rows, c.width);
            let d = c.head_width();
            for (head, kind) in layer.heads.iter().enumerate() {
                let HeadKind::Power { p, eps, .. } = *kind else { return Err(NOT_POWER) };
                let of = head * d..(head + 1) * d;
                let [q, k, v] = [&q, &k, &v].map(|m| m.columns(of.clone()));
                let mut out = Matrix::zeros(shape.rows, d);
                for i in 0..shape.rows {
                    let dot = |j: usize| {
                        q.row(i).iter().zip(k.row(j)).map(|(a, b)| a * b).sum::<f64>()
                            / (d as f64).sqrt()
                    };
                    let weights: Vec<f64> =
                        (0..shape.rows).map(|j| dot(j).powi(p as i32)).collect();
                    let inverse = reciprocal(number, weights.iter().sum::<f64>() + eps);
                    for (j, weight) in weights.iter().enumerate() {
                        for (o, v) in out.row_mut(i).iter_mut().zip(v.row(j)) {
                            *o += weight * inverse * v;
                        }
                    }
                }
                context.set_columns(of, &out);
            }
            x.add(&reference::linear(&context, &w.output));
            let mut hidden = reference::linear(&affine(&x, &w.mlp_norm), &w.up);
            let Some(quadratic) = &w.quadratic else { return Err(NOT_QUADRATIC) };
            for i in 0..shape.rows {
                for (j, x) in hidden.row_mut(i).iter_mut().enumerate() {
                    *x = f64::from(quadratic.a[j]) * *x * *x + f64::from(quadratic.b[j]) * *x;
                }
            }
            x.add(&match &w.down {
                Some(down) => reference::linear(&hidden, down),
                None => hidden,
            });
        }
        if let Some(norm) = &w.final_norm {
            x = affine(&x, norm);
        }
        let pooled = reference::pool(&x, c.pooling, &vec![true; shape.rows]);
        Ok(w.classifier
            .as_ref()
            .map_or(pooled.data.clone(), |l| reference::linear(&pooled, l).data))
    }
}

const NOT_AN_IMAGE: ClassifierError =
    ClassifierError::Model { found: "a model of text", wanted: "a model of images" };
const NOT_POWER: ClassifierError = ClassifierError::Model {
    found: "an attention other than Power-Softmax with p and ε alike in all heads",
    wanted: "`power` without `mean`",
};
const NOT_QUADRATIC: ClassifierError =
    ClassifierError::Model { found: "an activation other than quadratic", wanted: "`quadratic`" };

/// The calibrated range of a layer's row sums.
fn row_sums(model: &Model, layer: usize) -> Option<(f64, f64)> {
    model.calibration.get(Site::layer(layer as u16, Role::Denominator))
}

fn eps(head: &HeadKind) -> f64 {
    match head {
        HeadKind::Power { eps, .. } => *eps,
        _ => 0.0,
    }
}

/// Refuses what would fail later or cost more levels than any set has, by name.
fn check(model: &Model) -> Result<()> {
    use undertone_model::config::{Activation, NormPosition, Pooling};
    let c = &model.config;
    let vit = c.vit().ok_or(NOT_AN_IMAGE)?;
    let refused = |found, wanted| Err(ClassifierError::Model { found, wanted });
    if vit.class_token || c.pooling != Pooling::Mean {
        return refused("a class token", "mean pooling");
    }
    if model.weights.classifier.is_none() {
        return refused("a model without classifier", "a classifier");
    }
    if c.norm_position != NormPosition::Pre || c.layers.iter().any(|l| l.norm != NormKind::Affine) {
        return refused("a norm with a secret divisor", "pre-norm `affine`, a folded BatchNorm");
    }
    for (number, layer) in c.layers.iter().enumerate() {
        let alike = layer.heads.iter().all(|h| *h == layer.heads[0]);
        if !alike || !matches!(layer.heads[0], HeadKind::Power { mean: false, .. }) {
            return Err(NOT_POWER);
        }
        if layer.activation != Activation::Quadratic {
            return Err(NOT_QUADRATIC);
        }
        if row_sums(model, number).is_none() {
            return refused("a model without calibrated ranges", "`undertone calibrate` first");
        }
    }
    Ok(())
}

impl<E: Engine + Sync> Host for Ckks<E> {
    fn linear(&mut self, w: Weight<'_>) -> Result<PublicMatrix, HeError> {
        let shape = Shape::new(1, w.inputs, w.outputs);
        if w.weight.len() != shape.len() || w.bias.is_some_and(|b| b.len() != w.outputs) {
            let left = Shape::new(1, 1, w.weight.len());
            return Err(Fault::Shape { op: "linear weight", left, right: shape }.into());
        }
        let values = (0..w.inputs)
            .flat_map(|i| w.weight.iter().skip(i).step_by(w.inputs).map(|&x| x.into()))
            .collect();
        let bias = w.bias.map(|b| b.iter().map(|&x| x.into()).collect());
        Ok(PublicMatrix { shape, values, bias })
    }

    fn vector(&mut self, shape: Shape, values: &[f32]) -> Result<PublicMatrix, HeError> {
        if values.len() != shape.len() {
            let left = Shape::new(1, 1, values.len());
            return Err(Fault::Shape { op: "public vector", left, right: shape }.into());
        }
        Ok(PublicMatrix { shape, values: values.iter().map(|&x| x.into()).collect(), bias: None })
    }

    fn secret(&mut self, _: Shape, _: &[f32], _: Bound) -> Made<Self> {
        Err(keyless("bringing values in", "encrypt on the client, then Ckks::admit_input"))
    }

    fn reveal(&mut self, _: &Packed<E::Ct>) -> Result<Vec<f32>, HeError> {
        Err(keyless("taking values out", "Ckks::settle, then decrypt on the client"))
    }
}

/// The server's world has no secret key, so it can neither encrypt nor decrypt.
fn keyless(operator: &'static str, instead: &'static str) -> HeError {
    let needs = "the secret key";
    Fault::Unsupported(Unsupported { operator, needs, world: "ckks", instead }).into()
}
