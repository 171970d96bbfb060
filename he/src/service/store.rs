//! Evaluation keys on disk, by key identifier.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ServiceError, envelope};
use crate::ckks::{Context, EvaluationKeys, KeyId};

type Result<T> = std::result::Result<T, ServiceError>;

/// A folder of evaluation keys. A file appears under its name only when it is complete and on
/// disk, so a crash loses nothing that was confirmed and leaves nothing half-written.
///
/// One process at a time may use a folder.
pub struct KeyStore {
    folder: PathBuf,
    ctx: Arc<Context>,
    most: usize,
    known: Mutex<HashSet<KeyId>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn unhex(name: &str) -> Option<KeyId> {
    if name.len() != 32 || !name.is_ascii() {
        return None;
    }
    let mut id = [0; 16];
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&name[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(KeyId(id))
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> ServiceError + '_ {
    move |source| ServiceError::Store { path: path.to_path_buf(), source }
}

impl KeyStore {
    /// Opens or makes a folder, for keys of these parameters and at most so many.
    ///
    /// # Errors
    /// [`ServiceError::Store`].
    pub fn open(folder: &Path, ctx: Arc<Context>, most: usize) -> Result<Self> {
        // Parameter sets keep out of each other's way.
        let folder = folder.join(hex(&ctx.parameter_hash()[..8]));
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
        let mut known = HashSet::new();
        for entry in std::fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            match path.extension().and_then(|e| e.to_str()) {
                Some("keys") => known.extend(unhex(stem)),
                // What a crash left.
                Some("part") => std::fs::remove_file(&path).map_err(at(&path))?,
                _ => {}
            }
        }
        Ok(Self { folder, ctx, most, known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, HashSet<KeyId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: KeyId, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", hex(&key.0)))
    }

    /// Whether keys are stored under an identifier.
    #[must_use]
    pub fn contains(&self, key: KeyId) -> bool {
        self.known().contains(&key)
    }

    /// Number of identifiers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known().len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stores an envelope of evaluation keys that was found valid. The same bytes again are
    /// welcome, others under the same identifier are not.
    ///
    /// # Errors
    /// [`ServiceError::KeyTaken`], [`ServiceError::Full`], [`ServiceError::Store`].
    pub fn put(&self, key: KeyId, bytes: &[u8]) -> Result<()> {
        // Held throughout: one writer at a time.
        let mut known = self.known();
        let path = self.path(key, "keys");
        if known.contains(&key) {
            let same = std::fs::read(&path).map_err(at(&path))? == bytes;
            return if same { Ok(()) } else { Err(ServiceError::KeyTaken) };
        }
        if known.len() >= self.most {
            return Err(ServiceError::Full { what: "stored evaluation keys" });
        }
        let part = self.path(key, "part");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            // The name itself, too.
            #[cfg(unix)]
            std::fs::File::open(&self.folder)?.sync_all()?;
            Ok(())
        };
        write().map_err(at(&path))?;
        known.insert(key);
        Ok(())
    }

    /// The keys under an identifier. A file that is damaged is set aside, and the client asked to
    /// register again.
    ///
    /// # Errors
    /// [`ServiceError::UnknownKey`], [`ServiceError::Store`].
    pub fn get(&self, key: KeyId) -> Result<EvaluationKeys> {
        use crate::ckks::Artefact;
        if !self.contains(key) {
            return Err(ServiceError::UnknownKey);
        }
        let path = self.path(key, "keys");
        let size = std::fs::metadata(&path).map_err(at(&path))?.len();
        let damaged = size > envelope(EvaluationKeys::limit(&self.ctx));
        let read = || -> Result<Option<EvaluationKeys>> {
            let bytes = std::fs::read(&path).map_err(at(&path))?;
            Ok(EvaluationKeys::from_bytes(&self.ctx, Some(key), &bytes).ok())
        };
        match if damaged { None } else { read()? } {
            Some(keys) => Ok(keys),
            None => {
                let mut known = self.known();
                std::fs::rename(&path, self.path(key, "damaged")).map_err(at(&path))?;
                known.remove(&key);
                Err(ServiceError::UnknownKey)
            }
        }
    }
}
