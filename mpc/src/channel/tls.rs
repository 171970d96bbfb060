//! TCP with mutual TLS between processes: a blocking face on tokio tasks.
//!
//! Certificates are [`undertone_tls`]'s: one authority issues one for each [`Role`], each party
//! accepts only certificates of that authority, and who connects checks the role. Calls block, so they must not be made from
//! inside another asynchronous runtime.

use super::network::Pace;
use super::{Frame, Inbox, Limits, Link, Network, Numbers};
use crate::{Error, Result};
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
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
use undertone_tls::Identity;

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

    /// The name in certificates, for [`undertone_tls::Authority::issue`].
    #[must_use]
    pub const fn subject(self) -> &'static str {
        match self {
            Self::Client => "undertone-client",
            Self::Server => "undertone-server",
            Self::Dealer => "undertone-dealer",
        }
    }
}

fn tls(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
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
        let acceptor = TlsAcceptor::from(identity.server_config()?);
        let runtime = runtime()?;
        let socket = runtime.block_on(TcpListener::bind(address)).map_err(Error::io("binding"))?;
        Ok(Self { runtime, socket, acceptor, limits })
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
    let connector = TlsConnector::from(identity.client_config()?);
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
