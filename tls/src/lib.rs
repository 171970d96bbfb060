//! Certificates and mutual TLS.
//!
//! An [`Authority`] issues one certificate a participant and then forgets its key. Each
//! participant accepts only certificates of that authority, and who connects checks the name of
//! whom it reaches. Who else may connect is decided by who gets a certificate.
//!
//! ```
//! use undertone_tls::Authority;
//! let authority = Authority::new()?;
//! let (server, client) = (authority.issue("undertone-server")?, authority.issue("alice")?);
//! let accepts = server.server_config()?;
//! let connects = client.client_config()?;
//! # Ok::<(), undertone_tls::TlsError>(())
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

/// Files of a participant's folder.
const FILES: [&str; 3] = ["authority.pem", "certificate.pem", "key.pem"];
/// No certificate file of ours comes near.
const MAX_FILE: u64 = 64 << 10;

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate or key that cannot be made or read.
    #[error("{operation}: {reason}; make a new set of certificates")]
    Certificate {
        /// The operation.
        operation: &'static str,
        /// What the library says.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

type Result<T, E = TlsError> = std::result::Result<T, E>;

fn bad<E: std::fmt::Display>(operation: &'static str) -> impl Fn(E) -> TlsError {
    move |e| TlsError::Certificate { operation, reason: e.to_string() }
}

/// Issues certificates. Its key lives in this value only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// Key generation that fails.
    pub fn new() -> Result<Self> {
        let op = "making an authority";
        let key = KeyPair::generate().map_err(bad(op))?;
        let mut params = CertificateParams::new(Vec::new()).map_err(bad(op))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).map_err(bad(op))?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// A certificate for a name: how a server is addressed, or what a client is called.
    ///
    /// # Errors
    /// A name that no certificate can carry, or key generation that fails.
    pub fn issue(&self, name: &str) -> Result<Identity> {
        let op = "issuing a certificate";
        let key = KeyPair::generate().map_err(bad(op))?;
        let params = CertificateParams::new(vec![name.into()]).map_err(bad(op))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(bad(op))?.pem();
        let key = Zeroizing::new(key.serialize_pem());
        Ok(Identity { certificate, key, authority: self.certificate.clone() })
    }
}

/// A participant's certificate, its key and the authority it trusts, as PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: Zeroizing<String>,
    /// The authority's certificate.
    pub authority: String,
}

impl Identity {
    /// Writes a folder that the participant is given; the key is readable by its owner only.
    ///
    /// # Errors
    /// [`TlsError::File`], also where a file exists already.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let file = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TlsError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(file(folder))?;
        for (name, text) in FILES.into_iter().zip([&self.authority, &self.certificate, &*self.key])
        {
            let path = folder.join(name);
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut to = options.open(&path).map_err(file(&path))?;
            to.write_all(text.as_bytes()).map_err(file(&path))?;
        }
        Ok(())
    }

    /// Reads such a folder.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            let file = |source| TlsError::File { path: path.clone(), source };
            let size = std::fs::metadata(&path).map_err(file)?.len();
            if size > MAX_FILE {
                let source = std::io::Error::other("too large for a certificate");
                return Err(TlsError::File { path, source });
            }
            std::fs::read_to_string(&path).map_err(file)
        };
        Ok(Self {
            authority: read(FILES[0])?,
            certificate: read(FILES[1])?,
            key: read(FILES[2])?.into(),
        })
    }

    fn parts(&self) -> Result<(RootCertStore, CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let op = "reading certificates";
        let mut roots = RootCertStore::empty();
        let authority =
            CertificateDer::from_pem_slice(self.authority.as_bytes()).map_err(bad(op))?;
        roots.add(authority).map_err(bad(op))?;
        let own = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(bad(op))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(bad(op))?;
        Ok((roots, own, key))
    }

    /// For who listens: clients must show a certificate of the authority.
    ///
    /// # Errors
    /// [`TlsError::Certificate`].
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let op = "preparing a server";
        let (roots, own, key) = self.parts()?;
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(bad(op))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad(op))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own], key)
            .map_err(bad(op))?;
        Ok(Arc::new(config))
    }

    /// For who connects.
    ///
    /// # Errors
    /// [`TlsError::Certificate`].
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let op = "preparing a client";
        let (roots, own, key) = self.parts()?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(bad(op))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key)
            .map_err(bad(op))?;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn folders_are_read_back_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("alice");
        let identity = Authority::new().unwrap().issue("alice").unwrap();
        identity.save(&folder).unwrap();
        assert_eq!(*Identity::load(&folder).unwrap().key, *identity.key);
        assert!(matches!(identity.save(&folder), Err(TlsError::File { .. })));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.join("key.pem")).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "nobody else reads the key");
        }
    }

    #[test]
    fn broken_certificates_are_refused() {
        let identity = Authority::new().unwrap().issue("alice").unwrap();
        let broken = Identity { certificate: identity.key.to_string(), ..identity };
        assert!(matches!(broken.client_config(), Err(TlsError::Certificate { .. })));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("authority.pem"), vec![b'x'; 70_000]).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(TlsError::File { .. })));
    }
}
