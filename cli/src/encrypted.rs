//! What the commands of encrypted inference share: the circuit of a model, and artefacts on disk.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use undertone_he::Classifier;
use undertone_he::ckks::{Artefact, Context, KeyId, Params, Security};
use undertone_he::classifier::ACCURACY;
#[cfg(feature = "client")]
use {
    undertone_he::ckks::Plaintext,
    undertone_model::image::{Picture, Resize},
    undertone_model::input::EncoderInput,
};

use crate::ModelFolder;

/// The model, and the parameter set that both sides must name alike.
#[derive(Debug, Clone, Args)]
pub(crate) struct Circuit {
    #[command(flatten)]
    pub(crate) folder: ModelFolder,
    /// CKKS parameter set; by default the smallest 128-bit one with enough levels. Sets named
    /// test-… are insecure.
    #[arg(long, value_name = "SET")]
    pub(crate) params: Option<String>,
}

impl Circuit {
    pub(crate) fn classifier(&self) -> anyhow::Result<Classifier> {
        let model = self.folder.load()?;
        let classifier = match &self.params {
            None => Classifier::new(model)?,
            Some(name) => {
                let Some(params) = Params::by_name(name) else {
                    let names: Vec<&str> = Params::ALL.iter().map(|p| p.name).collect();
                    bail!("--params {name}: there are {}", names.join(", "));
                };
                Classifier::with(model, params, ACCURACY).map_err(|(_, e)| e)?
            }
        };
        if classifier.context().params().security == Security::Insecure {
            eprintln!(
                "warning: {} is insecure: for tests only",
                classifier.context().params().name
            );
        }
        Ok(classifier)
    }
}

/// Bits of security, as the set claims them.
pub(crate) fn security(ctx: &Context) -> &'static str {
    match ctx.params().security {
        Security::Classical128 => "128 bits",
        Security::Insecure => "none",
    }
}

/// Reads an artefact; `key` is the key it must belong to.
pub(crate) fn read<A: Artefact>(
    ctx: &Context,
    key: Option<KeyId>,
    path: &Path,
) -> anyhow::Result<A> {
    let open = || -> anyhow::Result<A> {
        let mut reader = BufReader::new(File::open(path)?);
        let artefact = A::read_from(ctx, key, &mut reader)?;
        if std::io::Read::read(&mut reader, &mut [0])? > 0 {
            bail!("bytes after the artefact: write one artefact a file");
        }
        Ok(artefact)
    };
    open().with_context(|| path.display().to_string())
}

/// Writes an artefact and tells its size.
pub(crate) fn write(artefact: &impl Artefact, ctx: &Context, path: &Path) -> anyhow::Result<u64> {
    let bytes = artefact.to_bytes(ctx);
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut writer = BufWriter::new(file);
    writer
        .write_all(&bytes)
        .and_then(|()| writer.flush())
        .with_context(|| path.display().to_string())?;
    Ok(bytes.len() as u64)
}

/// Writes a secret so that its owner alone can read it; an existing file is never replaced.
#[cfg(feature = "client")]
pub(crate) fn write_secret(bytes: &[u8], path: &Path) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(bytes));
    written.with_context(|| format!("{}: a secret key is never replaced", path.display()))
}

/// A file of its own for each input: in a folder, with a suffix.
pub(crate) fn beside(folder: &Path, input: &Path, suffix: &str) -> anyhow::Result<PathBuf> {
    let stem = input.file_stem().with_context(|| format!("{}: no file name", input.display()))?;
    Ok(folder.join(stem).with_extension(suffix))
}

/// Reads a secret key; its bytes are wiped from memory afterwards.
#[cfg(feature = "client")]
pub(crate) fn read_secret(
    ctx: &std::sync::Arc<Context>,
    path: &Path,
) -> anyhow::Result<undertone_he::ckks::SecretKey> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    undertone_he::ckks::SecretKey::read_secret(ctx, &mut file)
        .with_context(|| path.display().to_string())
}

/// An image of a file, ready to encrypt.
#[cfg(feature = "client")]
pub(crate) fn image(
    classifier: &Classifier,
    path: &Path,
    resize: Resize,
) -> anyhow::Result<Plaintext> {
    let model = classifier.model();
    let vit = model.config.vit().context("the model does not read images")?;
    let picture = Picture::load(path).and_then(|p| p.to_input(vit, resize));
    let picture = picture.with_context(|| path.display().to_string())?;
    Ok(classifier.pack(&model.rows(&EncoderInput::Image(&picture))?)?)
}
