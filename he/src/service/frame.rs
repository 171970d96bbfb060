//! Frames on a connection: a header of sixteen bytes, then a payload whose length was checked
//! before any memory was taken for it.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `UTSV` |
//! | 2 | version, little endian: 1 |
//! | 1 | kind |
//! | 1 | zero |
//! | 8 | payload length, little endian |

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::{Limits, ServiceError};

/// First bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"UTSV";
/// The version of the protocol.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 16;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Client: the hashes of parameters and job that it expects (or zeros). Server: its own, and
    /// the job's description.
    Hello = 1,
    /// Client: is this key registered? Server: a byte, one or zero.
    Known = 2,
    /// Client: evaluation keys. Server: the key identifier, once they are stored.
    Register = 3,
    /// Client: a key identifier and encrypted inputs. Server: encrypted outputs.
    Evaluate = 4,
    /// Server: a code and a sentence; then it closes the connection.
    Refused = 5,
}

impl FrameKind {
    const ALL: [Self; 5] =
        [Self::Hello, Self::Known, Self::Register, Self::Evaluate, Self::Refused];
}

/// A frame's header, checked.
///
/// # Errors
/// [`ServiceError::Frame`] for bytes that no peer of this version writes.
pub fn parse_header(header: &[u8; FRAME_HEADER_BYTES]) -> Result<(FrameKind, u64), ServiceError> {
    let wrong = |what| Err(ServiceError::Frame { what });
    if header[..4] != FRAME_MAGIC {
        return wrong("wrong magic");
    }
    if header[4..6] != PROTOCOL_VERSION.to_le_bytes() {
        return wrong("another version of the protocol");
    }
    let Some(kind) = FrameKind::ALL.into_iter().find(|&k| k as u8 == header[6]) else {
        return wrong("unknown kind");
    };
    if header[7] != 0 {
        return wrong("reserved byte is not zero");
    }
    let mut length = [0; 8];
    length.copy_from_slice(&header[8..]);
    Ok((kind, u64::from_le_bytes(length)))
}

impl Limits {
    /// How long so many bytes may take.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        self.patience + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }
}

async fn within<T>(
    time: Duration,
    operation: &'static str,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, ServiceError> {
    match timeout(time, work).await {
        Err(_) => Err(ServiceError::Timeout { operation, after: time }),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(ServiceError::Closed),
        Ok(result) => result.map_err(ServiceError::io(operation)),
    }
}

/// Waits for a header.
pub(super) async fn read_header(
    from: &mut (impl AsyncRead + Unpin),
    wait: Duration,
) -> Result<(FrameKind, u64), ServiceError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    within(wait, "waiting for a frame", from.read_exact(&mut header)).await?;
    parse_header(&header)
}

/// A payload of a length that the caller has found acceptable.
pub(super) async fn read_payload(
    from: &mut (impl AsyncRead + Unpin),
    length: u64,
    limits: &Limits,
) -> Result<Vec<u8>, ServiceError> {
    let mut payload = vec![0; length as usize];
    let time = limits.time_for(length);
    within(time, "receiving a frame", from.read_exact(&mut payload)).await?;
    Ok(payload)
}

/// Sends a frame whose payload is given in pieces.
pub(super) async fn write_frame(
    to: &mut (impl AsyncWrite + Unpin),
    kind: FrameKind,
    pieces: &[&[u8]],
    limits: &Limits,
) -> Result<(), ServiceError> {
    let length: u64 = pieces.iter().map(|p| p.len() as u64).sum();
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&FRAME_MAGIC);
    header[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    header[6] = kind as u8;
    header[8..].copy_from_slice(&length.to_le_bytes());
    within(limits.time_for(length), "sending a frame", async {
        to.write_all(&header).await?;
        for piece in pieces {
            to.write_all(piece).await?;
        }
        to.flush().await
    })
    .await
}
