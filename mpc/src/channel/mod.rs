//! Channels between the two parties: frames on numbered streams, with limits.
//!
//! A protocol exchanges: both parties send at once and both wait for the other's frame. Streams
//! keep branches that overlap apart; the frames of one stream arrive in order, and their sequence
//! numbers are checked. A frame's payload length is known to the receiver beforehand, so a peer
//! running another program is noticed at the first frame that differs.
//!
//! | channel | between | for |
//! |---|---|---|
//! | [`memory::pair`] | threads of one process | tests, benchmarks, local use |
//! | [`memory::delayed_pair`] | the same, with a delay and a bandwidth | emulated networks |
//! | [`tls`] | processes, TCP with mutual TLS | use |

mod handshake;
pub mod memory;
mod network;
pub mod tls;

pub use handshake::{Greeting, VERSION};
pub use network::Network;

use crate::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limits of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest payload of a frame, in bytes.
    pub frame: usize,
    /// How long a party waits for the other.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame: 1 << 26, timeout: Duration::from_secs(60) }
    }
}

/// A connection to the other party. Sending never waits for the peer; receiving does, up to the
/// limit.
pub trait Link: Send + Sync {
    /// Sends a frame.
    ///
    /// # Errors
    /// A closed channel, or a payload over the cap.
    fn send(&self, stream: u64, payload: Vec<u8>) -> Result<()>;

    /// Receives the next frame of a stream, whose payload has `len` bytes.
    ///
    /// # Errors
    /// A closed channel, a silent peer, a frame of another length.
    fn receive(&self, stream: u64, len: usize) -> Result<Vec<u8>>;

    /// Both parties send a frame and receive the other's, at once.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`receive`](Self::receive).
    fn exchange(&self, stream: u64, payload: Vec<u8>, len: usize) -> Result<Vec<u8>> {
        self.send(stream, payload)?;
        self.receive(stream, len)
    }

    /// Closes both directions: whoever waits on either side gets [`Error::Closed`].
    fn close(&self);
}

/// A payload with its place in its stream and the moment at which it has arrived.
struct Frame {
    number: u32,
    ready: Option<Instant>,
    payload: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    received: u32,
}

#[derive(Default)]
struct Inner {
    streams: HashMap<u64, Queue>,
    closed: bool,
    /// Set where a frame came in that the limits forbid.
    oversized: Option<(u64, u64)>,
}

/// Frames that came in and wait for their reader.
#[derive(Default)]
struct Inbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Inbox {
    fn push(&self, stream: u64, frame: Frame) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.streams.entry(stream).or_default().frames.push_back(frame);
        drop(inner);
        self.changed.notify_all();
    }

    fn drain(&self) -> Vec<(u64, Vec<u8>)> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = inner.streams.drain();
        queues.flat_map(|(s, q)| q.frames.into_iter().map(move |f| (s, f.payload))).collect()
    }

    fn close(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }

    fn refuse(&self, got: u64, limit: u64) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).oversized = Some((got, limit));
        self.close();
    }

    fn is_closed(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    fn pop(&self, stream: u64, len: usize, limits: &Limits) -> Result<Vec<u8>> {
        let operation = "receiving";
        let deadline = Instant::now() + limits.timeout;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((got, limit)) = inner.oversized {
                return Err(Error::FrameTooLong { got, limit });
            }
            let queue = inner.streams.entry(stream).or_default();
            let now = Instant::now();
            // Frames that are in stay readable after the peer has closed.
            let ready = queue.frames.front().map(|f| f.ready.filter(|&at| at > now));
            let until = match ready {
                Some(None) => {
                    let Some(frame) = queue.frames.pop_front() else { continue };
                    let number = queue.received;
                    queue.received = number.wrapping_add(1);
                    return check(&frame, number, len).map(|()| frame.payload);
                }
                Some(Some(at)) => at.min(deadline),
                None if inner.closed => return Err(Error::Closed { operation }),
                None => deadline,
            };
            if now >= deadline {
                return Err(Error::Timeout { operation, after: limits.timeout });
            }
            let wait = until.saturating_duration_since(now);
            (inner, _) =
                self.changed.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn check(frame: &Frame, number: u32, len: usize) -> Result<()> {
    if frame.number != number {
        let (expected, got) = (number.into(), frame.number.into());
        return Err(Error::Desync { operation: "sequence of frames", expected, got });
    }
    if frame.payload.len() != len {
        let (expected, got) = (len as u64, frame.payload.len() as u64);
        return Err(Error::Desync { operation: "length of a frame", expected, got });
    }
    Ok(())
}

/// Numbers outgoing frames by stream.
#[derive(Default)]
struct Numbers(Mutex<HashMap<u64, u32>>);

impl Numbers {
    fn next(&self, stream: u64) -> u32 {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = numbers.entry(stream).or_default();
        let this = *number;
        *number = this.wrapping_add(1);
        this
    }
}
