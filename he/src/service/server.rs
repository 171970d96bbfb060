//! The server. Nothing here can decrypt.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use undertone_tls::Identity;

use super::frame::{FrameKind, read_header, read_payload, write_frame};
use super::{Job, KeyStore, Limits, ServiceError, ciphertexts_limit, envelope, parse_ciphertexts};
use crate::ckks::{Artefact, Ciphertext, EvaluationKeys, Evaluator, KeyId};
use crate::world::HeError;

type Result<T> = std::result::Result<T, ServiceError>;

/// Memory is granted in pieces of this size.
const PIECE: u64 = 64 << 10;

struct State {
    job: Arc<dyn Job>,
    store: KeyStore,
    limits: Limits,
    connections: Semaphore,
    memory: Semaphore,
    evaluations: Semaphore,
    /// The keys used last, expanded; the latest in front.
    cache: Mutex<VecDeque<(KeyId, Arc<Evaluator>)>>,
}

/// A bound server that does not serve yet.
pub struct Server {
    runtime: Runtime,
    socket: TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<State>,
}

/// A server at work on threads of its own. Dropping it stops it.
pub struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have stopped by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Server {
    /// Binds an address; port 0 lets the system choose.
    ///
    /// # Errors
    /// [`ServiceError::Io`], [`ServiceError::Tls`].
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        job: Arc<dyn Job>,
        store: KeyStore,
        limits: Limits,
    ) -> Result<Self> {
        let acceptor = TlsAcceptor::from(identity.server_config()?);
        let starting = ServiceError::io("starting the network runtime");
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(starting)?;
        let socket =
            runtime.block_on(TcpListener::bind(address)).map_err(ServiceError::io("binding"))?;
        let pieces = (limits.bytes_in_flight / PIECE).clamp(1, u64::from(u32::MAX)) as usize;
        let state = State {
            job,
            store,
            limits,
            connections: Semaphore::new(limits.connections),
            memory: Semaphore::new(pieces.min(Semaphore::MAX_PERMITS)),
            evaluations: Semaphore::new(limits.evaluations),
            cache: Mutex::default(),
        };
        Ok(Self { runtime, socket, acceptor, state: Arc::new(state) })
    }

    /// The address bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(ServiceError::io("binding"))
    }

    /// Serves until the process is interrupted.
    ///
    /// # Errors
    /// [`ServiceError::Io`] where the system delivers no signals.
    pub fn run(self) -> Result<()> {
        let Self { runtime, socket, acceptor, state } = self;
        runtime.block_on(async {
            tokio::select! {
                () = accept(socket, acceptor, state) => Ok(()),
                signal = tokio::signal::ctrl_c() => {
                    signal.map_err(ServiceError::io("waiting for an interrupt"))
                }
            }
        })
    }

    /// Serves in the background.
    ///
    /// # Errors
    /// The operating system's.
    pub fn spawn(self) -> Result<Running> {
        let address = self.address()?;
        let (stop, stopped) = oneshot::channel();
        let Self { runtime, socket, acceptor, state } = self;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(socket, acceptor, state) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Running { address, stop: Some(stop), thread: Some(thread) })
    }
}

async fn accept(socket: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            // Out of descriptors, say: let others end.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, state) = (acceptor.clone(), state.clone());
        tokio::spawn(async move {
            // A crowd is turned away before its handshakes cost anything.
            let Ok(_place) = state.connections.try_acquire() else { return };
            let Some(mut stream) = shake_hands(stream, &acceptor, &state.limits).await else {
                return;
            };
            if let Err(error) = state.serve(&mut stream).await
                && !matches!(error, ServiceError::Closed)
            {
                let mut message = error.to_string();
                message.truncate(message.floor_char_boundary(1000));
                let pieces: [&[u8]; 2] = [&[error.refusal() as u8], message.as_bytes()];
                // Whoever misbehaved may not listen.
                let _ = write_frame(&mut stream, FrameKind::Refused, &pieces, &state.limits).await;
            }
            let _ = timeout(state.limits.patience, part(&mut stream)).await;
        });
    }
}

/// Closes, and takes what the client still sends: closed over unread bytes, a connection is reset,
/// and the reason for a refusal may be lost with it.
async fn part(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut rest = vec![0; 16 << 10];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    limits: &Limits,
) -> Option<TlsStream<TcpStream>> {
    stream.set_nodelay(true).ok()?;
    timeout(limits.patience, acceptor.accept(stream)).await.ok()?.ok()
}

impl State {
    /// Until the client closes.
    async fn serve(&self, stream: &mut TlsStream<TcpStream>) -> Result<()> {
        let (ctx, job) = (self.job.context().clone(), &self.job);
        let hello = self.receive(stream, &[(FrameKind::Hello, 64)], "a greeting").await?.1;
        let (parameters, digest) = (ctx.parameter_hash(), job.digest());
        let differs = |theirs: &[u8], ours: [u8; 32]| theirs != [0; 32] && theirs != ours;
        if hello.bytes.len() != 64 {
            return Err(ServiceError::Frame { what: "a greeting has 64 bytes" });
        }
        if differs(&hello.bytes[..32], parameters) {
            return Err(ServiceError::Different { what: "parameter set" });
        }
        if differs(&hello.bytes[32..], digest) {
            return Err(ServiceError::Different { what: "job" });
        }
        let pieces: [&[u8]; 3] = [&parameters, &digest, job.description().as_bytes()];
        write_frame(stream, FrameKind::Hello, &pieces, &self.limits).await?;

        let keys = EvaluationKeys::payload_bytes(&ctx, job.automorphisms().len());
        let wanted = [
            (FrameKind::Known, 16),
            (FrameKind::Register, envelope(keys)),
            (FrameKind::Evaluate, 16 + ciphertexts_limit(&ctx, job.inputs())),
        ];
        loop {
            let (kind, frame) = self.receive(stream, &wanted, "a request").await?;
            let reply = match kind {
                FrameKind::Known => vec![u8::from(self.store.contains(frame.key()?))],
                FrameKind::Register => self.register(&frame.bytes).await?,
                _ => self.evaluate(&frame).await?,
            };
            drop(frame);
            write_frame(stream, kind, &[&reply], &self.limits).await?;
        }
    }

    /// A frame of one of the given kinds, each with its limit.
    async fn receive(
        &self,
        stream: &mut TlsStream<TcpStream>,
        wanted: &[(FrameKind, u64)],
        what: &'static str,
    ) -> Result<(FrameKind, Frame<'_>)> {
        let (kind, length) = read_header(stream, self.limits.idle).await?;
        let Some(&(_, limit)) = wanted.iter().find(|(k, _)| *k == kind) else {
            return Err(ServiceError::OutOfOrder { found: kind, wanted: what });
        };
        if length > limit {
            return Err(ServiceError::Oversized { kind, found: length, limit });
        }
        let full = ServiceError::Full { what: "bytes in flight" };
        let pieces = u32::try_from(length.div_ceil(PIECE)).unwrap_or(u32::MAX);
        let Ok(Ok(memory)) = timeout(self.limits.patience, self.memory.acquire_many(pieces)).await
        else {
            return Err(full);
        };
        let bytes = read_payload(stream, length, &self.limits).await?;
        Ok((kind, Frame { bytes, _memory: memory }))
    }

    async fn register(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        // Parsing takes a moment per hundred megabytes; the other connections have threads left.
        tokio::task::block_in_place(|| {
            let ctx = self.job.context();
            let keys = EvaluationKeys::from_bytes(ctx, None, bytes)?;
            let missing = |wanted| Err(ServiceError::MissingKey { wanted });
            if keys.relinearization.is_none() {
                return missing("relinearization".to_string());
            }
            for &what in self.job.automorphisms() {
                if keys.galois(ctx, what).is_none() {
                    return missing(format!("{what:?}"));
                }
            }
            self.store.put(keys.key_id(), bytes)?;
            Ok(keys.key_id().0.to_vec())
        })
    }

    async fn evaluate(&self, frame: &Frame<'_>) -> Result<Vec<u8>> {
        let key = frame.key()?;
        // Cheap refusals come before the queue.
        if !self.store.contains(key) {
            return Err(ServiceError::UnknownKey);
        }
        let closed = ServiceError::Closed;
        let _turn = self.evaluations.acquire().await.map_err(|_| closed)?;
        tokio::task::block_in_place(|| {
            let ctx = self.job.context();
            let inputs = parse_ciphertexts(ctx, key, self.job.inputs(), &frame.bytes[16..])?;
            let outputs = self.job.evaluate(&self.evaluator(key)?, inputs)?;
            Ok(outputs.iter().flat_map(|c: &Ciphertext| c.to_bytes(ctx)).collect())
        })
    }

    fn evaluator(&self, key: KeyId) -> Result<Arc<Evaluator>> {
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = cache();
        if let Some(found) = kept.iter().position(|(k, _)| *k == key)
            && let Some(entry) = kept.remove(found)
        {
            let evaluator = entry.1.clone();
            kept.push_front(entry);
            return Ok(evaluator);
        }
        // Room first: two expanded sets more than allowed may be too many.
        kept.truncate(self.limits.cached_keys.saturating_sub(1));
        drop(kept);
        let keys = Arc::new(self.store.get(key)?);
        let evaluator =
            Arc::new(Evaluator::new(self.job.context().clone(), keys).map_err(HeError::from)?);
        let mut kept = cache();
        kept.push_front((key, evaluator.clone()));
        kept.truncate(self.limits.cached_keys);
        Ok(evaluator)
    }
}

/// A payload with the memory that was granted to it.
struct Frame<'a> {
    bytes: Vec<u8>,
    _memory: SemaphorePermit<'a>,
}

impl Frame<'_> {
    /// The key identifier in front.
    fn key(&self) -> Result<KeyId> {
        let id = self.bytes.first_chunk().ok_or(ServiceError::Frame { what: "no key identifier" });
        Ok(KeyId(*id?))
    }
}
