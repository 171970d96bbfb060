//! Hashes fitted to a model's own activations: an ordinary softmax model becomes an EcoFormer.
//!
//! Layer after layer: the queries of the training examples are collected, each head's hash is fitted
//! to them ([`crate::fit`], which never forms the n × n similarity matrix), and the examples go on
//! through the layer as it is now, hashed. Queries and keys then share the query's projection.

use super::config::Config;
use super::encoder::{ANCHORS, Attention, Codes, Encoder};
use super::source::Folder;
use super::{LoadError, MOST_WEIGHT_BYTES, config, read_bounded};
use crate::fit::{self, Activations, Fitted};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use undertone_core::binary::BitFault;

/// Why hashes were not fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The model was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An example or its activations were refused.
    #[error("layer {layer}: {fault}")]
    Layer {
        /// The layer.
        layer: usize,
        /// Why.
        fault: BitFault,
    },
    /// No example was given.
    #[error("no example to fit to; give at least one")]
    NoExample,
}

/// A model with fitted hashes, as its files hold it.
#[derive(Debug)]
pub struct Hashed {
    /// `config.json`.
    pub config: Vec<u8>,
    /// `model.safetensors`.
    pub weights: Vec<u8>,
    /// What each layer's fit did, a head after the other.
    pub layers: Vec<Vec<Fitted>>,
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Fits hashes to a model folder (`config.json` and `model.safetensors` in f32 with Hugging Face's
/// names; attention of any kind) on `examples`, each what [`Encoder::run`] takes. The same options
/// and examples give the same bytes.
///
/// # Errors
/// [`FitError`]: a model that one-bit encoders do not take, examples that do not fit it, values that
/// are not finite, or fewer tokens than the 25 anchors.
pub fn fit_hash(
    folder: &Path,
    examples: &[Vec<f32>],
    options: &fit::Options,
) -> Result<Hashed, FitError> {
    let json = read_bounded(&folder.join("config.json"), config::MOST_CONFIG_BYTES)?;
    let json = hashed_config(&json, options.bits)?;
    let config = Config::parse(&json)?;
    let file = read_bounded(&folder.join("model.safetensors"), MOST_WEIGHT_BYTES)?;
    let mut tensors: Tensors = SafeTensors::deserialize(&file)
        .map_err(LoadError::from)?
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    let stems: Vec<[String; 3]> = (0..config.undertone.layers.len())
        .map(|i| {
            let (query, key) = Encoder::query_and_key(&config, i);
            [query, key, Encoder::layer_name(&config, i)]
        })
        .collect();
    for [query, key, layer] in &stems {
        share(&mut tensors, query, key);
        tensors.retain(|name, _| !name.starts_with(&format!("{layer}.attention.hash.")));
        tensors.remove(&format!("{layer}.attention.value_scale"));
        let d = config.head_width();
        place(
            &mut tensors,
            layer,
            &config,
            options.bits,
            &vec![Head::of(d, options.bits); config.num_attention_heads],
        );
    }
    let bytes = serialise(&tensors)?;
    let mut encoder = Encoder::read(
        config.clone(),
        &mut Folder { tensors: SafeTensors::deserialize(&bytes).map_err(LoadError::from)? },
    )?;
    if examples.is_empty() {
        return Err(FitError::NoExample);
    }
    let at = |layer: usize| move |fault| FitError::Layer { layer, fault };
    let mut streams = Vec::with_capacity(examples.len());
    for rows in examples {
        streams.push(encoder.enter(rows).map_err(at(0))?);
    }
    let mut layers = Vec::with_capacity(stems.len());
    for (i, [.., name]) in stems.iter().enumerate() {
        let fitted = fit_layer(&encoder, i, &streams, options).map_err(at(i))?;
        let mut codes = Vec::with_capacity(fitted.len());
        for head in &fitted {
            codes.push(head.dynamic().map_err(at(i))?);
        }
        place(
            &mut tensors,
            name,
            &config,
            options.bits,
            &codes.iter().map(Head::from).collect::<Vec<_>>(),
        );
        if let Attention::Hashed { codes: own, .. } = &mut encoder.layers[i].attention {
            *own = codes.into_iter().map(|hash| Codes::Kernel(Box::new(hash))).collect();
        }
        layers.push(fitted);
        streams = streams
            .into_iter()
            .map(|stream| encoder.advance(i, stream))
            .collect::<Result<_, _>>()
            .map_err(at(i))?;
    }
    Ok(Hashed { config: json, weights: serialise(&tensors)?, layers })
}

fn fit_layer(
    encoder: &Encoder,
    layer: usize,
    streams: &[super::forward::Stream],
    options: &fit::Options,
) -> Result<Vec<Fitted>, BitFault> {
    let (heads, d) = (encoder.config.num_attention_heads, encoder.config.head_width());
    let mut queries = vec![Vec::new(); heads];
    let mut tokens = 0;
    for stream in streams {
        let rows = encoder.query_of(layer, stream)?;
        tokens = rows.len() / (heads * d);
        for row in rows.chunks_exact(heads * d) {
            for (all, part) in queries.iter_mut().zip(row.chunks_exact(d)) {
                all.extend_from_slice(part);
            }
        }
    }
    let activations: Vec<_> =
        queries.iter().map(|values| Activations { values, tokens, dim: d }).collect();
    let seed = options.seed.wrapping_add(layer as u64);
    fit::fit(&activations, &fit::Options { anchors: ANCHORS, seed, ..*options })
}

/// The configuration with EcoFormer's attention in every head, without ranges that were measured on
/// another attention.
fn hashed_config(json: &[u8], bits: usize) -> Result<Vec<u8>, LoadError> {
    let mut root: Value = serde_json::from_slice(json).map_err(LoadError::Json)?;
    let number = |v: &Value, key: &str| v.get(key).and_then(Value::as_u64).unwrap_or(0).min(256);
    let (heads, depth) = (number(&root, "num_attention_heads"), number(&root, "num_hidden_layers"));
    let activation = root.get("hidden_act").cloned().unwrap_or_else(|| json!("gelu"));
    let refuse = |what| LoadError::Config {
        what,
        got: "not an object".to_owned(),
        wanted: "a model folder of undertone",
    };
    let block = root.get_mut("undertone").and_then(Value::as_object_mut);
    let block = block.ok_or_else(|| refuse("undertone"))?;
    block.remove("domains");
    let layers = block.entry("layers").or_insert_with(|| {
        Value::Array((0..depth).map(|_| json!({ "activation": activation })).collect())
    });
    for layer in layers.as_array_mut().ok_or_else(|| refuse("undertone.layers"))? {
        let layer = layer.as_object_mut().ok_or_else(|| refuse("a layer"))?;
        layer.remove("domains");
        let head = json!({ "kind": "ecoformer", "bits": bits, "variant": "exact" });
        layer.insert("heads".to_owned(), Value::Array(vec![head; heads as usize]));
    }
    let mut out = serde_json::to_vec_pretty(&root).map_err(LoadError::Json)?;
    out.push(b'\n');
    Ok(out)
}

/// The key's tensors repeat the query's.
fn share(tensors: &mut Tensors, query: &str, key: &str) {
    tensors.retain(|name, _| !name.starts_with(&format!("{key}.")));
    for part in ["weight", "weight_bits", "weight_scale", "bias"] {
        if let Some(tensor) = tensors.get(&format!("{query}.{part}")).cloned() {
            tensors.insert(format!("{key}.{part}"), tensor);
        }
    }
}

/// A head's hash as its tensors hold it.
#[derive(Clone)]
struct Head {
    vectors: Vec<f32>,
    anchors: Vec<f32>,
    mean: Vec<f32>,
}

impl Head {
    /// Zeros, before the fit.
    fn of(d: usize, bits: usize) -> Self {
        let zeros = |n: usize| vec![0.0; n];
        Self { vectors: zeros(bits * ANCHORS), anchors: zeros(ANCHORS * d), mean: zeros(ANCHORS) }
    }
}

impl From<&crate::ecoformer::Hash> for Head {
    fn from(hash: &crate::ecoformer::Hash) -> Self {
        Self {
            vectors: hash.planes().to_vec(),
            anchors: hash.anchors().to_vec(),
            mean: hash.means().to_vec(),
        }
    }
}

fn place(tensors: &mut Tensors, layer: &str, config: &Config, bits: usize, heads: &[Head]) {
    let (h, d) = (config.num_attention_heads, config.head_width());
    let bytes = |part: &dyn Fn(&Head) -> &[f32]| -> Vec<u8> {
        heads.iter().flat_map(|head| part(head).iter().flat_map(|v| v.to_le_bytes())).collect()
    };
    for (name, shape, data) in [
        ("vectors", vec![h, bits, ANCHORS], bytes(&|head| &head.vectors)),
        ("anchors", vec![h, ANCHORS, d], bytes(&|head| &head.anchors)),
        ("mean", vec![h, ANCHORS], bytes(&|head| &head.mean)),
    ] {
        tensors.insert(format!("{layer}.attention.hash.{name}"), (Dtype::F32, shape, data));
    }
}

fn serialise(tensors: &Tensors) -> Result<Vec<u8>, LoadError> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, (dtype, shape, data)) in tensors {
        views.push((name, TensorView::new(*dtype, shape.clone(), data)?));
    }
    Ok(safetensors::serialize(views, None)?)
}
