//! Writing calibrated domains back into `config.json`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{BLOCK_VERSION, Config, ConfigError};
use crate::limits;

/// Calibrated ranges (lo, hi) by site name.
pub type Domains = BTreeMap<String, (f64, f64)>;

/// Puts domains into the bytes of a `config.json`, keeping every other field and the order
/// of fields; a block is made where there is none.
///
/// `model` goes to `undertone.domains`, `layers[i]` to `undertone.layers[i].domains`; both
/// replace what stood there. `layers` may be empty, which leaves the layers alone.
///
/// `depth` parses a configuration and tells its layers: [`depth`], or that of another format.
///
/// # Errors
/// The file must be a valid configuration before and after, and `layers` must be empty or have
/// one entry a layer.
pub fn with_domains<E: From<ConfigError>>(
    json: &[u8],
    model: &Domains,
    layers: &[Domains],
    depth: impl Fn(&[u8]) -> Result<usize, E>,
) -> Result<Vec<u8>, E> {
    let expected = depth(json)?;
    if !layers.is_empty() && layers.len() != expected {
        return Err(ConfigError::DomainLayers { found: layers.len(), expected }.into());
    }
    let bytes = put(json, model, layers)?;
    depth(&bytes)?;
    Ok(bytes)
}

/// The layers of a configuration of this crate.
///
/// # Errors
/// What is wrong with it.
pub fn depth(json: &[u8]) -> Result<usize, ConfigError> {
    Ok(Config::parse(json, None)?.depth())
}

fn put(json: &[u8], model: &Domains, layers: &[Domains]) -> Result<Vec<u8>, ConfigError> {
    for (site, &(lo, hi)) in layers.iter().chain([model]).flatten() {
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
            return Err(ConfigError::Domain { site: site.clone(), lo, hi });
        }
    }
    let json_error = |source| ConfigError::Json { file: "config.json", source };
    let mut root: Value = serde_json::from_slice(json).map_err(json_error)?;
    let root_map = root.as_object_mut().ok_or(ConfigError::NotAnObject)?;
    let block = entry(root_map, "undertone", || json!({ "version": BLOCK_VERSION }));
    let block = block.as_object_mut().ok_or(ConfigError::NotAnObject)?;
    block.insert("domains".to_owned(), to_json(model));
    if !layers.is_empty() {
        let empty = || Value::Array(vec![Value::Object(Map::new()); layers.len()]);
        let entries = entry(block, "layers", empty);
        let entries = entries.as_array_mut().ok_or(ConfigError::NotAnObject)?;
        for (entry, domains) in entries.iter_mut().zip(layers) {
            let entry = entry.as_object_mut().ok_or(ConfigError::NotAnObject)?;
            entry.insert("domains".to_owned(), to_json(domains));
        }
    }
    let mut bytes = serde_json::to_vec_pretty(&root).map_err(json_error)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// [`with_domains`] on the `config.json` of a folder: the new file replaces the old one whole,
/// so an interrupted run leaves one or the other.
///
/// # Errors
/// As [`with_domains`], and [`ConfigError::Write`].
pub fn update_domains<E: From<ConfigError>>(
    folder: &Path,
    model: &Domains,
    layers: &[Domains],
    depth: impl Fn(&[u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let path = folder.join("config.json");
    let json = limits::read_bounded(&path, limits::CONFIG_BYTES).map_err(ConfigError::from)?;
    let bytes = with_domains(&json, model, layers, depth)?;
    let temporary = folder.join("config.json.new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(|source| ConfigError::Write { path: path.clone(), source }.into())
}

/// The value at `key`; an absent or null one, which parse alike, becomes the default.
fn entry<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
    default: impl FnOnce() -> Value,
) -> &'a mut Value {
    let value = map.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = default();
    }
    value
}

fn to_json(domains: &Domains) -> Value {
    domains.iter().map(|(site, &(lo, hi))| (site.clone(), json!([lo, hi]))).collect()
}
