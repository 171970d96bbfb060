//! Which tensor goes where, for each naming.

use super::{Embeddings, EncoderWeights, LayerWeights, Linear, Norm, Quadratic};
use crate::config::{Activation, Config, Input, Mlp};

/// Where tensors come from: a file, or a generator.
pub(super) trait Source {
    type Error;
    /// The shape of a tensor, if the source has it.
    fn shape(&self, name: &str) -> Option<&[usize]>;
    /// The values of a tensor of exactly this shape.
    fn take(&mut self, name: &str, wanted: &[usize]) -> Result<Vec<f32>, Self::Error>;
}

/// The tensor names of one convention. `{i}` stands for the layer.
struct Naming {
    prefix: &'static str,
    layer: &'static str,
    qkv: Qkv,
    output: &'static str,
    attention_norm: &'static str,
    mlp_norm: &'static str,
    up: &'static str,
    down: &'static str,
    quadratic: &'static str,
    final_norm: &'static str,
    classifier: &'static str,
}

enum Qkv {
    Split([&'static str; 3]),
    Fused(&'static str),
}

const HUGGING_FACE_VIT: Naming = Naming {
    prefix: "vit.",
    layer: "encoder.layer",
    qkv: Qkv::Split([
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ]),
    output: "attention.output.dense",
    attention_norm: "layernorm_before",
    mlp_norm: "layernorm_after",
    up: "intermediate.dense",
    down: "output.dense",
    quadratic: "intermediate.quadratic",
    final_norm: "layernorm",
    classifier: "classifier",
};

const HUGGING_FACE_BERT: Naming = Naming {
    prefix: "bert.",
    layer: "encoder.layer",
    qkv: Qkv::Split(["attention.self.query", "attention.self.key", "attention.self.value"]),
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    mlp_norm: "output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    quadratic: "intermediate.quadratic",
    final_norm: "encoder.LayerNorm",
    classifier: "classifier",
};

const TIMM: Naming = Naming {
    prefix: "",
    layer: "blocks",
    qkv: Qkv::Fused("attn.qkv"),
    output: "attn.proj",
    attention_norm: "norm1",
    mlp_norm: "norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
    quadratic: "mlp.quadratic",
    final_norm: "norm",
    classifier: "head",
};

pub(super) fn collect<S: Source>(
    source: &mut S,
    config: &Config,
) -> Result<EncoderWeights, S::Error> {
    let naming = match &config.input {
        Input::Vit(_) if source.shape("patch_embed.proj.weight").is_some() => TIMM,
        Input::Vit(_) => HUGGING_FACE_VIT,
        Input::Bert(_) => HUGGING_FACE_BERT,
    };
    // The first embedding tells whether the names have the model's prefix, as files of bare
    // encoders do not.
    let first = match &config.input {
        Input::Vit(_) => "embeddings.patch_embeddings.projection.weight",
        Input::Bert(_) => "embeddings.word_embeddings.weight",
    };
    let prefix = if source.shape(first).is_some() { "" } else { naming.prefix };
    let mut reader = Collector { source, config, naming, prefix };
    let embeddings = match &reader.naming.qkv {
        Qkv::Fused(_) => reader.timm_embeddings()?,
        Qkv::Split(_) => reader.embeddings()?,
    };
    let layers = (0..config.depth()).map(|i| reader.layer(i)).collect::<Result<_, _>>()?;
    let final_norm = match config.has_final_norm() {
        true => Some(reader.norm(&format!("{prefix}{}", reader.naming.final_norm))?),
        false => None,
    };
    let classifier = reader.classifier()?;
    Ok(EncoderWeights { embeddings, layers, final_norm, classifier })
}

struct Collector<'a, S> {
    source: &'a mut S,
    config: &'a Config,
    naming: Naming,
    prefix: &'static str,
}

impl<S: Source> Collector<'_, S> {
    fn embeddings(&mut self) -> Result<Embeddings, S::Error> {
        let name = |rest: &str| format!("{}embeddings.{rest}", self.prefix);
        match &self.config.input {
            Input::Vit(_) => self.vit(
                name("patch_embeddings.projection"),
                name("position_embeddings"),
                name("cls_token"),
            ),
            Input::Bert(bert) => {
                let (width, vocabulary) = (self.config.width, bert.vocabulary);
                let word = name("word_embeddings.weight");
                let position = name("position_embeddings.weight");
                let token_type = name("token_type_embeddings.weight");
                let norm = name("LayerNorm");
                Ok(Embeddings::Bert {
                    word: self.source.take(&word, &[vocabulary, width])?,
                    position: self.source.take(&position, &[bert.positions, width])?,
                    token_type: self.source.take(&token_type, &[bert.token_types, width])?,
                    norm: self.norm(&norm)?,
                })
            }
        }
    }

    fn timm_embeddings(&mut self) -> Result<Embeddings, S::Error> {
        self.vit("patch_embed.proj".to_owned(), "pos_embed".to_owned(), "cls_token".to_owned())
    }

    fn vit(
        &mut self,
        projection: String,
        position: String,
        class_token: String,
    ) -> Result<Embeddings, S::Error> {
        let Input::Vit(vit) = &self.config.input else {
            // Both callers have matched on a vit: timm's naming is only chosen for one.
            unreachable!("image embeddings of a text model")
        };
        let (width, side) = (self.config.width, vit.patch_size);
        let kernel = [width, vit.channels, side, side];
        let projection = Linear {
            outputs: width,
            inputs: vit.patch_len(),
            weight: self.source.take(&format!("{projection}.weight"), &kernel)?,
            bias: Some(self.source.take(&format!("{projection}.bias"), &[width])?),
        };
        let position = self.source.take(&position, &[1, self.config.tokens(), width])?;
        let class_token = match vit.class_token {
            true => Some(self.source.take(&class_token, &[1, 1, width])?),
            false => None,
        };
        Ok(Embeddings::Vit { projection, position, class_token })
    }

    fn layer(&mut self, index: usize) -> Result<LayerWeights, S::Error> {
        let Config { width, mlp_width, qkv_bias, .. } = *self.config;
        let name = |rest: &str| format!("{}{}.{index}.{rest}", self.prefix, self.naming.layer);
        let output = name(self.naming.output);
        let attention_norm = name(self.naming.attention_norm);
        let mlp_norm = name(self.naming.mlp_norm);
        let (up, down) = (name(self.naming.up), name(self.naming.down));
        let quadratic = name(self.naming.quadratic);
        let (inner, fused) = match self.config.layers[index].mlp {
            Mlp::Full => (mlp_width, false),
            Mlp::Fused => (width, true),
        };
        let [query, key, value] = match &self.naming.qkv {
            Qkv::Split(names) => {
                let [query, key, value] = names.map(name);
                [
                    self.linear(&query, width, width, qkv_bias)?,
                    self.linear(&key, width, width, qkv_bias)?,
                    self.linear(&value, width, width, qkv_bias)?,
                ]
            }
            Qkv::Fused(fused) => {
                let fused = name(fused);
                split_in_three(self.linear(&fused, 3 * width, width, qkv_bias)?)
            }
        };
        Ok(LayerWeights {
            query,
            key,
            value,
            output: self.linear(&output, width, width, true)?,
            attention_norm: self.norm(&attention_norm)?,
            mlp_norm: self.norm(&mlp_norm)?,
            up: self.linear(&up, inner, width, true)?,
            down: if fused { None } else { Some(self.linear(&down, width, inner, true)?) },
            quadratic: match self.config.layers[index].activation {
                Activation::Quadratic => Some(Quadratic {
                    a: self.source.take(&format!("{quadratic}.a"), &[inner])?,
                    b: self.source.take(&format!("{quadratic}.b"), &[inner])?,
                }),
                _ => None,
            },
        })
    }

    /// With class names there must be a classifier of that many rows; without, there may be one
    /// of any number, since Hugging Face does not write the names of a model with two classes.
    fn classifier(&mut self) -> Result<Option<Linear>, S::Error> {
        let name = self.naming.classifier;
        let classes = match &self.config.labels {
            Some(labels) => Some(labels.len()),
            None => {
                let shape = self.source.shape(&format!("{name}.weight"));
                shape.map(|shape| shape.first().copied().unwrap_or(0))
            }
        };
        classes.map(|classes| self.linear(name, classes, self.config.width, true)).transpose()
    }

    fn linear(
        &mut self,
        name: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Linear, S::Error> {
        Ok(Linear {
            outputs,
            inputs,
            weight: self.source.take(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: match bias {
                true => Some(self.source.take(&format!("{name}.bias"), &[outputs])?),
                false => None,
            },
        })
    }

    fn norm(&mut self, name: &str) -> Result<Norm, S::Error> {
        let width = self.config.width;
        Ok(Norm {
            weight: self.source.take(&format!("{name}.weight"), &[width])?,
            bias: self.source.take(&format!("{name}.bias"), &[width])?,
        })
    }
}

/// timm stacks query, key and value as rows of one matrix, in this order.
fn split_in_three(fused: Linear) -> [Linear; 3] {
    let outputs = fused.outputs / 3;
    let part = |all: &[f32], index: usize| {
        let rows = all.len() / 3;
        all[index * rows..(index + 1) * rows].to_vec()
    };
    [0, 1, 2].map(|index| Linear {
        outputs,
        inputs: fused.inputs,
        weight: part(&fused.weight, index),
        bias: fused.bias.as_ref().map(|bias| part(bias, index)),
    })
}
