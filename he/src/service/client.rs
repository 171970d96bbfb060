//! The client's end of the connection. It handles ciphertexts; the secret key stays with its
//! caller.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use undertone_tls::Identity;

use super::frame::{FrameKind, read_header, read_payload, write_frame};
use super::{
    Limits, MAX_DESCRIPTION, Refusal, SERVER_NAME, ServiceError, ciphertexts_limit,
    parse_ciphertexts,
};
use crate::ckks::{Artefact, Ciphertext, Context, EvaluationKeys, KeyId, SeededCiphertext};

type Result<T> = std::result::Result<T, ServiceError>;

/// A connection to a server. Calls block; not for use inside another asynchronous runtime.
pub struct Client {
    runtime: Runtime,
    stream: TlsStream<TcpStream>,
    limits: Limits,
    parameters: [u8; 32],
    description: String,
}

impl Client {
    /// Connects and learns what the server computes.
    ///
    /// # Errors
    /// Nobody there, or not with a certificate of the authority.
    pub fn connect(address: SocketAddr, identity: &Identity, limits: Limits) -> Result<Self> {
        Self::connect_expecting(address, identity, limits, [0; 32], [0; 32])
    }

    /// As [`Client::connect`], where the parameters' hash and the digest of the job's description
    /// are known; zeros take any.
    ///
    /// # Errors
    /// As [`Client::connect`], and [`ServiceError::Refused`] with [`Refusal::Different`].
    pub fn connect_expecting(
        address: SocketAddr,
        identity: &Identity,
        limits: Limits,
        parameters: [u8; 32],
        job: [u8; 32],
    ) -> Result<Self> {
        let starting = ServiceError::io("starting the network runtime");
        let runtime = Builder::new_current_thread().enable_all().build().map_err(starting)?;
        let connector = TlsConnector::from(identity.client_config()?);
        let late = |_| ServiceError::Timeout { operation: "connecting", after: limits.patience };
        let failed = ServiceError::io("connecting");
        let mut stream = runtime.block_on(async {
            let connect = async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
                connector.connect(name, stream).await
            };
            timeout(limits.patience, connect).await.map_err(late)?.map_err(failed)
        })?;
        let hello = runtime.block_on(async {
            write_frame(&mut stream, FrameKind::Hello, &[&parameters, &job], &limits).await?;
            reply(&mut stream, FrameKind::Hello, 64 + MAX_DESCRIPTION as u64, &limits).await
        })?;
        let (hashes, description) = hello
            .split_at_checked(64)
            .ok_or(ServiceError::Frame { what: "a greeting has 64 bytes or more" })?;
        let mut parameters = [0; 32];
        parameters.copy_from_slice(&hashes[..32]);
        let description = String::from_utf8(description.to_vec())
            .map_err(|_| ServiceError::Frame { what: "the description is not text" })?;
        Ok(Self { runtime, stream, limits, parameters, description })
    }

    /// What the server says that it computes, as JSON. It is the server's word.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The hash of the server's parameters.
    #[must_use]
    pub fn parameter_hash(&self) -> [u8; 32] {
        self.parameters
    }

    fn ask(&mut self, kind: FrameKind, pieces: &[&[u8]], limit: u64) -> Result<Vec<u8>> {
        let Self { runtime, stream, limits, .. } = self;
        runtime.block_on(async {
            if let Err(error) = write_frame(stream, kind, pieces, limits).await {
                // A server that refuses says why before it closes.
                return match reply(stream, kind, 0, limits).await {
                    Err(refused @ ServiceError::Refused { .. }) => Err(refused),
                    _ => Err(error),
                };
            }
            reply(stream, kind, limit, limits).await
        })
    }

    /// Whether the server has evaluation keys under this identifier.
    ///
    /// # Errors
    /// [`ServiceError`], by what went wrong.
    pub fn knows(&mut self, key: KeyId) -> Result<bool> {
        Ok(self.ask(FrameKind::Known, &[&key.0], 1)? == [1])
    }

    /// Registers evaluation keys.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] with the server's reason.
    pub fn register(&mut self, ctx: &Context, keys: &EvaluationKeys) -> Result<()> {
        self.register_bytes(keys.key_id(), &keys.to_bytes(ctx))
    }

    /// As [`Client::register`], from their envelope.
    ///
    /// # Errors
    /// As [`Client::register`].
    pub fn register_bytes(&mut self, key: KeyId, envelope: &[u8]) -> Result<()> {
        if self.ask(FrameKind::Register, &[envelope], 16)? == key.0 {
            Ok(())
        } else {
            Err(ServiceError::Frame { what: "the server confirmed another key" })
        }
    }

    /// Has the job computed on encrypted inputs.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] with the server's reason, [`ServiceError::Artefact`] for outputs
    /// that are none of this key's.
    pub fn evaluate(
        &mut self,
        ctx: &Context,
        key: KeyId,
        inputs: &[SeededCiphertext],
        outputs: usize,
    ) -> Result<Vec<Ciphertext>> {
        let inputs: Vec<Vec<u8>> = inputs.iter().map(|x| x.to_bytes(ctx)).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let bytes = self.evaluate_bytes(key, &inputs, ciphertexts_limit(ctx, outputs))?;
        parse_ciphertexts(ctx, key, outputs, &bytes)
    }

    /// As [`Client::evaluate`], on envelopes; `limit` bounds the reply's bytes.
    ///
    /// # Errors
    /// As [`Client::evaluate`].
    pub fn evaluate_bytes(&mut self, key: KeyId, inputs: &[&[u8]], limit: u64) -> Result<Vec<u8>> {
        let pieces: Vec<&[u8]> =
            std::iter::once(key.0.as_slice()).chain(inputs.iter().copied()).collect();
        self.ask(FrameKind::Evaluate, &pieces, limit)
    }
}

/// The answer to a request.
async fn reply(
    stream: &mut TlsStream<TcpStream>,
    wanted: FrameKind,
    limit: u64,
    limits: &Limits,
) -> Result<Vec<u8>> {
    let (kind, length) = read_header(stream, limits.idle).await?;
    let limit = if kind == FrameKind::Refused { 2048 } else { limit };
    if length > limit {
        return Err(ServiceError::Oversized { kind, found: length, limit });
    }
    let payload = read_payload(stream, length, limits).await?;
    if kind == wanted {
        return Ok(payload);
    }
    match (kind, payload.split_first()) {
        (FrameKind::Refused, Some((&code, message))) => {
            let why = Refusal::ALL.into_iter().find(|&r| r as u8 == code);
            let message =
                String::from_utf8_lossy(message).chars().filter(|c| !c.is_control()).collect();
            Err(ServiceError::Refused { why: why.unwrap_or(Refusal::Failed), message })
        }
        _ => Err(ServiceError::OutOfOrder { found: kind, wanted: "the answer" }),
    }
}
