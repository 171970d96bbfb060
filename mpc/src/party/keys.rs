use super::task::EMBEDDINGS;
use crate::channel::tls::Role;
use crate::{Error, Result};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use undertone_model::Model;
use undertone_tls::Authority;

/// Makes one folder a role, `client`, `server` and `dealer`, to be handed out: the role's
/// certificate and key, the authority's certificate, and what the role may know of the model: the
/// configuration, and for the client of a text model its tokenizer and embedding table. The
/// authority's key is not kept.
///
/// # Errors
/// A folder that exists already, and files that cannot be read or written.
pub fn set_up(model: &Path, folder: &Path) -> Result<()> {
    let authority = Authority::new()?;
    let loaded = Model::load(model)?;
    for role in Role::ALL {
        let to = folder.join(role.name());
        fs::DirBuilder::new().recursive(true).create(folder).map_err(Error::io("creating keys"))?;
        fs::DirBuilder::new().mode(0o700).create(&to).map_err(Error::io("creating keys"))?;
        authority.issue(role.subject())?.save(&to)?;
        if role != Role::Server {
            copy(model, &to, "config.json")?;
        }
        if role == Role::Client {
            for file in ["preprocessor_config.json", "tokenizer.json"] {
                if model.join(file).exists() {
                    copy(model, &to, file)?;
                }
            }
            if loaded.config.bert().is_some() {
                loaded
                    .weights
                    .write_embeddings(&to.join(EMBEDDINGS))
                    .map_err(Error::io("writing"))?;
            }
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, file: &str) -> Result<()> {
    let bytes = fs::read(from.join(file)).map_err(Error::io("reading the model"))?;
    write(to, file, &bytes)
}

/// A new file that only its owner reads.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(name));
    file.and_then(|mut f| f.write_all(bytes)).map_err(Error::io("writing keys"))
}
