//! TCP with mutual TLS between processes: a blocking face on tokio tasks.
//!
//! An [`Authority`] issues one certificate a party; each party accepts only certificates of that
//! authority, and the client checks the server's name. Calls block, so they must not be made from
//! inside another asynchronous runtime.

use super::network::Pace;
use super::{Frame, Inbox, Limits, Link, Network, Numbers};
use crate::{Error, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::verify_server_name;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

const HEADER: usize = 16;

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Party 0, who has the input.
    Client,
    /// Party 1, who has the weights.
    Server,
    /// The trusted dealer.
    Dealer,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Dealer];

    /// The name of files and folders.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Dealer => "dealer",
        }
    }

    /// The name in certificates.
    const fn subject(self) -> &'static str {
        match self {
            Self::Client => "undertone-client",
            Self::Server => "undertone-server",
            Self::Dealer => "undertone-dealer",
        }
    }
}

/// Issues the parties' certificates. Its key is not kept.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A party's certificate, its key and the authority it trusts, as PEM.
pub struct Identity {
    /// The party's certificate.
    pub certificate: String,
    /// The party's private key.
    pub key: zeroize::Zeroizing<String>,
    /// The authority's certificate.
    pub authority: String,
}

fn tls(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// Key generation that fails.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate().map_err(tls)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(tls)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).map_err(tls)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// A certificate.
    ///
    /// # Errors
    /// Key generation that fails.
    pub fn issue(&self, role: Role) -> Result<Identity> {
        let key = KeyPair::generate().map_err(tls)?;
        let params = CertificateParams::new(vec![role.subject().into()]).map_err(tls)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(tls)?.pem();
        Ok(Identity {
            certificate,
            key: zeroize::Zeroizing::new(key.serialize_pem()),
            authority: self.certificate.clone(),
        })
    }
}

impl Identity {
    fn parts(&self) -> Result<(RootCertStore, CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes()).map_err(tls)?;
        roots.add(authority).map_err(tls)?;
        let own = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(tls)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(tls)?;
        Ok((roots, own, key))
    }
}

fn runtime() -> Result<Arc<Runtime>> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map(Arc::new)
        .map_err(Error::io("starting the network runtime"))
}

/// The socket of a server or dealer.
pub struct Listener {
    runtime: Arc<Runtime>,
    socket: TcpListener,
    acceptor: TlsAcceptor,
    limits: Limits,
}

impl Listener {
    /// Binds `address`; port 0 lets the system choose.
    ///
    /// # Errors
    /// An address in use, or certificates that do not parse.
    pub fn bind(address: SocketAddr, identity: &Identity, limits: Limits) -> Result<Self> {
        let (roots, own, key) = identity.parts()?;
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(tls)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own], key)
            .map_err(tls)?;
        let runtime = runtime()?;
        let socket = runtime.block_on(TcpListener::bind(address)).map_err(Error::io("binding"))?;
        Ok(Self { runtime, socket, acceptor: TlsAcceptor::from(Arc::new(config)), limits })
    }

    /// The address bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(Error::io("binding"))
    }

    /// Waits for one peer, up to the limit.
    ///
    /// # Errors
    /// [`Error::Timeout`] where nobody came, [`Error::Tls`] for one without a certificate of the
    /// authority.
    pub fn accept(&self) -> Result<Tcp> {
        let limits = self.limits;
        let late = |_| Error::Timeout { operation: "accepting", after: limits.timeout };
        let stream = self.runtime.block_on(async {
            let (stream, _) = timeout(limits.timeout, self.socket.accept())
                .await
                .map_err(late)?
                .map_err(Error::io("accepting"))?;
            stream.set_nodelay(true).map_err(Error::io("accepting"))?;
            timeout(limits.timeout, self.acceptor.accept(stream)).await.map_err(late)?.map_err(tls)
        })?;
        let stream = TlsStream::Server(stream);
        Ok(Tcp::start(Arc::clone(&self.runtime), stream, limits, None))
    }
}

/// Connects to a peer that has a certificate for `role`, trying again until the limit while nobody
/// listens.
///
/// # Errors
/// No such peer within the limit, or one without a certificate of the authority for that role.
pub fn connect(
    address: SocketAddr,
    role: Role,
    identity: &Identity,
    limits: Limits,
) -> Result<Tcp> {
    let (roots, own, key) = identity.parts()?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own], key)
        .map_err(tls)?;
    let runtime = runtime()?;
    let late = |_| Error::Timeout { operation: "connecting", after: limits.timeout };
    let deadline = Instant::now() + limits.timeout;
    let stream = runtime.block_on(async {
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(e) if Instant::now() >= deadline => {
                    return Err(Error::io("connecting")(e));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        stream.set_nodelay(true).map_err(Error::io("connecting"))?;
        let name = ServerName::try_from(role.subject()).map_err(tls)?;
        let connector = TlsConnector::from(Arc::new(config));
        timeout(limits.timeout, connector.connect(name, stream)).await.map_err(late)?.map_err(tls)
    })?;
    Ok(Tcp::start(runtime, TlsStream::Client(stream), limits, Some(role)))
}

type Stream = TlsStream<TcpStream>;

/// An established connection.
pub struct Tcp {
    limits: Limits,
    inbox: Arc<Inbox>,
    numbers: Numbers,
    /// `None` once closed: the writer ends when what was queued is out.
    queue: Mutex<Option<UnboundedSender<Vec<u8>>>>,
    writer: Option<JoinHandle<()>>,
    runtime: Option<Arc<Runtime>>,
    role: Option<Role>,
    pace: Arc<OnceLock<Pace>>,
}

impl Tcp {
    fn start(runtime: Arc<Runtime>, stream: Stream, limits: Limits, role: Option<Role>) -> Self {
        let role = role.or_else(|| certified(&stream));
        let pace = Arc::new(OnceLock::new());
        let (read, write) = split(stream);
        let inbox = Arc::new(Inbox::default());
        let (queue, frames) = unbounded_channel();
        let writer = runtime.spawn(write_frames(write, frames, Arc::clone(&inbox)));
        let frames = read_frames(read, Arc::clone(&inbox), limits.frame as u64, Arc::clone(&pace));
        runtime.spawn(frames);
        Self {
            limits,
            inbox,
            numbers: Numbers::default(),
            queue: Mutex::new(Some(queue)),
            writer: Some(writer),
            runtime: Some(runtime),
            role,
            pace,
        }
    }

    /// Whom the peer's certificate names.
    #[must_use]
    pub fn peer(&self) -> Option<Role> {
        self.role
    }

    /// From now on, frames from the peer count as arrived only when they would have on this
    /// network: emulation, for measuring. The first call stands.
    pub fn emulate(&self, network: Network) {
        let _ = self.pace.set(Pace::new(network));
    }
}

/// The role that the peer's certificate is for.
fn certified(stream: &Stream) -> Option<Role> {
    let (_, session) = stream.get_ref();
    let own = ParsedCertificate::try_from(session.peer_certificates()?.first()?).ok()?;
    Role::ALL.into_iter().find(|role| {
        let name = ServerName::try_from(role.subject());
        name.is_ok_and(|name| verify_server_name(&own, &name).is_ok())
    })
}

async fn write_frames(
    mut stream: WriteHalf<Stream>,
    mut frames: UnboundedReceiver<Vec<u8>>,
    inbox: Arc<Inbox>,
) {
    while let Some(frame) = frames.recv().await {
        if stream.write_all(&frame).await.is_err() || stream.flush().await.is_err() {
            inbox.close();
            return;
        }
    }
    // The peer may be gone already.
    let _ = stream.shutdown().await;
}

/// Everything that a peer's bytes would leave to be received, as (stream, payload): the reader of a
/// connection over a buffer, for fuzzing.
#[doc(hidden)]
pub fn frames_of(bytes: &[u8], limits: Limits) -> Result<Vec<(u64, Vec<u8>)>> {
    let inbox = Arc::new(Inbox::default());
    let reading =
        read_frames(bytes, Arc::clone(&inbox), limits.frame as u64, Arc::new(OnceLock::new()));
    let runtime = Builder::new_current_thread().build().map_err(Error::io("fuzzing"))?;
    runtime.block_on(reading);
    Ok(inbox.drain())
}

async fn read_frames(
    mut stream: impl AsyncRead + Unpin,
    inbox: Arc<Inbox>,
    limit: u64,
    pace: Arc<OnceLock<Pace>>,
) {
    let mut header = [0; HEADER];
    while stream.read_exact(&mut header).await.is_ok() {
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let len = u64::from(word(0));
        if len > limit {
            inbox.refuse(len, limit);
            return;
        }
        let mut payload = vec![0; len as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            break;
        }
        let stream = u64::from(word(8)) << 32 | u64::from(word(4));
        let ready = pace.get().map(|pace| pace.arrival(payload.len()));
        inbox.push(stream, Frame { number: word(12), ready, payload });
    }
    inbox.close();
}

impl Link for Tcp {
    fn send(&self, stream: u64, payload: Vec<u8>) -> Result<()> {
        if payload.len() > self.limits.frame {
            let (got, limit) = (payload.len() as u64, self.limits.frame as u64);
            return Err(Error::FrameTooLong { got, limit });
        }
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        frame.extend((payload.len() as u32).to_le_bytes());
        frame.extend(stream.to_le_bytes());
        frame.extend(self.numbers.next(stream).to_le_bytes());
        frame.extend(payload);
        let closed = Error::Closed { operation: "sending" };
        match &*self.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(queue) => queue.send(frame).map_err(|_| closed),
            None => Err(closed),
        }
    }

    fn receive(&self, stream: u64, len: usize) -> Result<Vec<u8>> {
        self.inbox.pop(stream, len, &self.limits)
    }

    fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.inbox.close();
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.close();
        if let (Some(runtime), Some(writer)) = (self.runtime.take(), self.writer.take()) {
            // What was sent should arrive, but a dead peer must not hold this party up.
            let _ = runtime.block_on(async { timeout(Duration::from_secs(2), writer).await });
            if let Some(runtime) = Arc::into_inner(runtime) {
                runtime.shutdown_background();
            }
        }
    }
}
