//! The JSON as it stands, and the checks that turn it into a [`Config`].

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Activation, BLOCK_VERSION, BertInput, Config, ConfigError, Domains, HeadKind, Input, Layer,
    Mlp, NormKind, NormPosition, Pooling, Task, VitInput,
};

/// Caps: larger than any published encoder, small enough that sizes multiply without overflow
/// and that a hostile file cannot ask for absurd memory.
const MAX_WIDTH: u64 = 16_384;
const MAX_DEPTH: u64 = 256;
const MAX_IMAGE: u64 = 4_096;
const MAX_TOKENS: u64 = 65_536;
const MAX_VOCABULARY: u64 = 2_000_000;
const MAX_LABELS: usize = 100_000;
const MAX_TASK: u64 = 1_024;

#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    image_size: Option<u64>,
    patch_size: Option<u64>,
    num_channels: Option<u64>,
    hidden_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    intermediate_size: Option<u64>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    qkv_bias: Option<bool>,
    id2label: Option<BTreeMap<String, String>>,
    vocab_size: Option<u64>,
    max_position_embeddings: Option<u64>,
    type_vocab_size: Option<u64>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
    undertone: Option<RawBlock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlock {
    version: u64,
    class_token: Option<bool>,
    pooling: Option<Pooling>,
    norm_position: Option<NormPosition>,
    pixel_mean: Option<Vec<f64>>,
    pixel_std: Option<Vec<f64>>,
    layers: Option<Vec<RawLayer>>,
    #[serde(default)]
    domains: BTreeMap<String, [f64; 2]>,
    task: Option<RawTask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLayer {
    heads: Option<Vec<RawHead>>,
    norm: Option<NormKind>,
    mlp: Option<Mlp>,
    activation: Option<String>,
    #[serde(default)]
    domains: BTreeMap<String, [f64; 2]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHead {
    kind: String,
    p: Option<u64>,
    eps: Option<f64>,
    mean: Option<bool>,
    c: Option<f64>,
}

#[derive(Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
enum RawTask {
    Recall { keys: u64, values: u64, pairs: u64 },
}

#[derive(Deserialize)]
struct RawPreprocessor {
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
    rescale_factor: Option<f64>,
}

pub(super) fn parse(json: &[u8], preprocessor: Option<&[u8]>) -> Result<Config, ConfigError> {
    let broken = |source| ConfigError::Json { file: "config.json", source };
    let raw: Raw = serde_json::from_slice(json).map_err(broken)?;
    // Fields that are not ours have only been skipped; what cannot be written back is refused.
    serde_json::from_slice::<serde_json::Value>(json).map_err(broken)?;
    let model_type = raw.model_type.clone().unwrap_or_default();
    if model_type != "vit" && model_type != "bert" {
        return Err(ConfigError::ModelType { found: model_type });
    }
    refuse_other_functions(&raw)?;
    if let Some(block) = &raw.undertone
        && block.version != BLOCK_VERSION
    {
        return Err(ConfigError::Version { found: block.version, supported: BLOCK_VERSION });
    }

    let need = |field, value: Option<u64>, max| {
        let found =
            value.ok_or_else(|| ConfigError::Missing { field, model_type: model_type.clone() })?;
        in_range(field, found, max)
    };
    let width = need("hidden_size", raw.hidden_size, MAX_WIDTH)?;
    let depth = need("num_hidden_layers", raw.num_hidden_layers, MAX_DEPTH)?;
    let heads = need("num_attention_heads", raw.num_attention_heads, MAX_WIDTH)?;
    let mlp_width = need("intermediate_size", raw.intermediate_size, 4 * MAX_WIDTH)?;
    if !width.is_multiple_of(heads) {
        return Err(ConfigError::HeadsDoNotDivideWidth { heads, width });
    }

    let input = if model_type == "vit" {
        let image = need("image_size", raw.image_size, MAX_IMAGE)?;
        let patch = need("patch_size", raw.patch_size, MAX_IMAGE)?;
        let channels = raw.num_channels.unwrap_or(3);
        Input::Vit(vit_input(image, patch, channels, raw.undertone.as_ref(), preprocessor)?)
    } else {
        let positions = need("max_position_embeddings", raw.max_position_embeddings, MAX_TOKENS)?;
        Input::Bert(BertInput {
            vocabulary: need("vocab_size", raw.vocab_size, MAX_VOCABULARY)?,
            positions,
            token_types: in_range("type_vocab_size", raw.type_vocab_size.unwrap_or(2), 1024)?,
        })
    };
    let is_vit = matches!(input, Input::Vit(_));
    let class_token = matches!(&input, Input::Vit(vit) if vit.class_token);

    let norm_eps = raw.layer_norm_eps.unwrap_or(1e-12);
    non_negative("layer_norm_eps", norm_eps)?;
    let activation = match &raw.hidden_act {
        Some(name) => activation(name)?,
        None => Activation::Gelu,
    };
    let labels = raw.id2label.map(labels).transpose()?;

    let mut config = Config {
        input,
        width,
        heads,
        mlp_width,
        qkv_bias: raw.qkv_bias.unwrap_or(true),
        norm_eps,
        norm_position: if is_vit { NormPosition::Pre } else { NormPosition::Post },
        pooling: if class_token { Pooling::First } else { Pooling::Mean },
        layers: vec![
            Layer {
                heads: vec![HeadKind::Softmax; heads],
                norm: NormKind::LayerNorm,
                mlp: Mlp::Full,
                activation,
                domains: Domains::new(),
            };
            depth
        ],
        domains: Domains::new(),
        labels,
        task: None,
    };
    if let Some(block) = raw.undertone {
        apply(&mut config, block)?;
    }
    Ok(config)
}

/// Fields of Hugging Face models that would change the function computed.
fn refuse_other_functions(raw: &Raw) -> Result<(), ConfigError> {
    if let Some(kind) = &raw.position_embedding_type
        && kind != "absolute"
    {
        return Err(ConfigError::Unsupported {
            field: "position_embedding_type",
            found: kind.clone(),
            expected: "absolute",
        });
    }
    if raw.is_decoder == Some(true) {
        return Err(ConfigError::Unsupported {
            field: "is_decoder",
            found: "true".to_owned(),
            expected: "an encoder",
        });
    }
    Ok(())
}

fn vit_input(
    image_size: usize,
    patch_size: usize,
    channels: u64,
    block: Option<&RawBlock>,
    preprocessor: Option<&[u8]>,
) -> Result<VitInput, ConfigError> {
    if !image_size.is_multiple_of(patch_size) {
        return Err(ConfigError::PatchDoesNotDivideImage { patch: patch_size, image: image_size });
    }
    if channels != 1 && channels != 3 {
        return Err(ConfigError::Channels { found: channels });
    }
    let channels = channels as usize;
    let patches = ((image_size / patch_size) as u64).pow(2);
    in_range("(image_size / patch_size)^2", patches, MAX_TOKENS - 1)?;

    let (mut mean, mut std) = (None, None);
    if let Some(bytes) = preprocessor {
        let raw: RawPreprocessor = serde_json::from_slice(bytes)
            .map_err(|source| ConfigError::Json { file: "preprocessor_config.json", source })?;
        if let Some(factor) = raw.rescale_factor
            && (factor * 255.0 - 1.0).abs() > 1e-4
        {
            return Err(ConfigError::Real {
                field: "rescale_factor".to_owned(),
                found: factor,
                expected: "1/255",
            });
        }
        (mean, std) = (raw.image_mean, raw.image_std);
    }
    if let Some(block) = block {
        mean = block.pixel_mean.clone().or(mean);
        std = block.pixel_std.clone().or(std);
    }
    let mean = mean.unwrap_or_else(|| vec![0.5; channels]);
    let std = std.unwrap_or_else(|| vec![0.5; channels]);
    for (field, list) in [("pixel_mean", &mean), ("pixel_std", &std)] {
        if list.len() != channels {
            return Err(ConfigError::Count {
                field: field.to_owned(),
                found: list.len(),
                expected: channels,
            });
        }
    }
    if let Some(&found) = mean.iter().find(|x| !x.is_finite()) {
        let field = "pixel_mean".to_owned();
        return Err(ConfigError::Real { field, found, expected: "a finite number" });
    }
    // Down to 1e-6: a smaller deviation would push pixels beyond what f32 can take.
    if let Some(&found) = std.iter().find(|x| !(x.is_finite() && **x >= 1e-6)) {
        let field = "pixel_std".to_owned();
        return Err(ConfigError::Real { field, found, expected: "a finite number >= 1e-6" });
    }
    Ok(VitInput {
        image_size,
        patch_size,
        channels,
        class_token: block.and_then(|block| block.class_token).unwrap_or(true),
        pixel_mean: mean,
        pixel_std: std,
    })
}

fn apply(config: &mut Config, block: RawBlock) -> Result<(), ConfigError> {
    config.pooling = block.pooling.unwrap_or(config.pooling);
    config.norm_position = block.norm_position.unwrap_or(config.norm_position);
    config.domains = domains(block.domains)?;
    if matches!(config.input, Input::Bert(_)) {
        let only_vit = [
            ("class_token", block.class_token.is_some()),
            ("pixel_mean", block.pixel_mean.is_some()),
            ("pixel_std", block.pixel_std.is_some()),
        ];
        if let Some((field, _)) = only_vit.into_iter().find(|(_, given)| *given) {
            return Err(ConfigError::Unsupported {
                field,
                found: "given".to_owned(),
                expected: "it only in a vit",
            });
        }
    }
    if let Some(layers) = block.layers {
        count("undertone.layers", layers.len(), config.depth())?;
        for (index, raw) in layers.into_iter().enumerate() {
            let layer = &mut config.layers[index];
            if let Some(heads) = raw.heads {
                count(&format!("undertone.layers[{index}].heads"), heads.len(), config.heads)?;
                layer.heads = heads
                    .into_iter()
                    .enumerate()
                    .map(|(position, head)| head_kind(index, position, head))
                    .collect::<Result<_, _>>()?;
            }
            layer.norm = raw.norm.unwrap_or(layer.norm);
            layer.mlp = raw.mlp.unwrap_or(layer.mlp);
            if let Some(name) = raw.activation {
                layer.activation = activation(&name)?;
            }
            layer.domains = domains(raw.domains)?;
        }
    }
    if let Some(RawTask::Recall { keys, values, pairs }) = block.task {
        config.task = Some(recall(config, keys, values, pairs)?);
    }
    Ok(())
}

fn recall(config: &Config, keys: u64, values: u64, pairs: u64) -> Result<Task, ConfigError> {
    let keys = in_range("undertone.task.keys", keys, MAX_TASK)?;
    let values = in_range("undertone.task.values", values, MAX_TASK)?;
    let pairs = in_range("undertone.task.pairs", pairs, keys as u64)?;
    let Input::Bert(bert) = &config.input else {
        return Err(ConfigError::Unsupported {
            field: "undertone.task",
            found: "recall in a vit".to_owned(),
            expected: "a bert",
        });
    };
    let vocabulary = keys * values + keys;
    if bert.vocabulary != vocabulary {
        let (found, expected) = (bert.vocabulary, vocabulary);
        return Err(ConfigError::Task { field: "vocab_size", found, expected });
    }
    if bert.positions < pairs + 1 {
        return Err(ConfigError::Task {
            field: "max_position_embeddings",
            found: bert.positions,
            expected: pairs + 1,
        });
    }
    Ok(Task::Recall { keys: keys as u32, values: values as u32, pairs: pairs as u32 })
}

fn head_kind(layer: usize, head: usize, raw: RawHead) -> Result<HeadKind, ConfigError> {
    let RawHead { kind, p, eps, mean, c } = raw;
    let given =
        [("p", p.is_some()), ("eps", eps.is_some()), ("mean", mean.is_some()), ("c", c.is_some())];
    let allowed: &[&str] = match kind.as_str() {
        "power" => &["p", "eps", "mean"],
        "relu_softmax" => &["eps"],
        "two_quad" => &["c", "eps"],
        "softmax" | "scaling" | "relu_squared" | "uniform" => &[],
        _ => return Err(ConfigError::UnknownKind { layer, head, kind }),
    };
    let problem =
        |problem: String| ConfigError::Parameter { layer, head, kind: kind.clone(), problem };
    if let Some((name, _)) = given.iter().find(|(name, given)| *given && !allowed.contains(name)) {
        return Err(problem(format!("takes no parameter `{name}`; expected {allowed:?}")));
    }
    let eps_or = |default: f64| match eps.unwrap_or(default) {
        eps if eps.is_finite() && eps >= 0.0 => Ok(eps),
        eps => Err(problem(format!("has eps = {eps}; expected a finite number >= 0"))),
    };
    Ok(match kind.as_str() {
        "softmax" => HeadKind::Softmax,
        "scaling" => HeadKind::Scaling,
        "relu_squared" => HeadKind::ReluSquared,
        "uniform" => HeadKind::Uniform,
        "relu_softmax" => HeadKind::ReluSoftmax { eps: eps_or(1e-5)? },
        "two_quad" => {
            let c = c.unwrap_or(0.0);
            if !c.is_finite() {
                return Err(problem(format!("has c = {c}; expected a finite number")));
            }
            HeadKind::TwoQuad { c, eps: eps_or(1e-5)? }
        }
        _ => {
            let p = p.ok_or_else(|| problem("needs the parameter `p`".to_owned()))?;
            if p == 0 || p % 2 != 0 || p > 64 {
                return Err(ConfigError::Exponent { layer, head, p });
            }
            HeadKind::Power { p: p as u32, eps: eps_or(1e-3)?, mean: mean.unwrap_or(false) }
        }
    })
}

fn activation(name: &str) -> Result<Activation, ConfigError> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        "quadratic" => Ok(Activation::Quadratic),
        "identity" => Ok(Activation::Identity),
        _ => Err(ConfigError::Activation { found: name.to_owned() }),
    }
}

fn labels(map: BTreeMap<String, String>) -> Result<Vec<String>, ConfigError> {
    let count = map.len();
    if count == 0 || count > MAX_LABELS {
        return Err(ConfigError::OutOfRange {
            field: "id2label",
            found: count as u64,
            min: 1,
            max: MAX_LABELS as u64,
        });
    }
    (0..count)
        .map(|class| {
            let name = map.get(&class.to_string()).cloned();
            name.ok_or(ConfigError::Labels { count, missing: class })
        })
        .collect()
}

pub(super) fn domains(raw: BTreeMap<String, [f64; 2]>) -> Result<Domains, ConfigError> {
    raw.into_iter()
        .map(|(site, [lo, hi])| {
            if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
                return Err(ConfigError::Domain { site, lo, hi });
            }
            Ok((site, (lo, hi)))
        })
        .collect()
}

fn in_range(field: &'static str, found: u64, max: u64) -> Result<usize, ConfigError> {
    if found == 0 || found > max {
        return Err(ConfigError::OutOfRange { field, found, min: 1, max });
    }
    Ok(found as usize)
}

fn non_negative(field: &str, found: f64) -> Result<(), ConfigError> {
    if found.is_finite() && found >= 0.0 {
        return Ok(());
    }
    let field = field.to_owned();
    Err(ConfigError::Real { field, found, expected: "a finite number >= 0" })
}

fn count(field: &str, found: usize, expected: usize) -> Result<(), ConfigError> {
    if found == expected {
        return Ok(());
    }
    Err(ConfigError::Count { field: field.to_owned(), found, expected })
}
