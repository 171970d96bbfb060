//! Both parties in one process, at once or as if a network lay between them.

use super::{Frame, Inbox, Limits, Link, Numbers};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A network to emulate. Frames are held back for as long as it would take; senders never wait.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// One-way delay.
    pub delay: Duration,
    /// Bits per second, in each direction.
    pub bandwidth: f64,
}

impl Network {
    /// The wide-area network of the published comparisons: 20 ms one way, 352 Mbit/s.
    pub const WAN: Self = Self { delay: Duration::from_millis(20), bandwidth: 352e6 };
    /// A local network: 150 µs one way, 1 Gbit/s.
    pub const LAN: Self = Self { delay: Duration::from_micros(150), bandwidth: 1e9 };
}

/// One end of a pair.
pub struct Memory {
    limits: Limits,
    own: Arc<Inbox>,
    peer: Arc<Inbox>,
    numbers: Numbers,
    network: Option<(Network, Mutex<Instant>)>,
}

/// Two connected ends.
#[must_use]
pub fn pair(limits: Limits) -> [Arc<Memory>; 2] {
    connect(limits, None)
}

/// Two ends with a network between them.
///
/// Every frame arrives after the one-way delay and the time that it and what was sent before it
/// take on the wire. Framing overhead is not charged.
#[must_use]
pub fn delayed_pair(limits: Limits, network: Network) -> [Arc<Memory>; 2] {
    connect(limits, Some(network))
}

fn connect(limits: Limits, network: Option<Network>) -> [Arc<Memory>; 2] {
    let inboxes = [Arc::new(Inbox::default()), Arc::new(Inbox::default())];
    [0, 1].map(|i: usize| {
        Arc::new(Memory {
            limits,
            own: Arc::clone(&inboxes[i]),
            peer: Arc::clone(&inboxes[1 - i]),
            numbers: Numbers::default(),
            network: network.map(|n| (n, Mutex::new(Instant::now()))),
        })
    })
}

impl Link for Memory {
    fn send(&self, stream: u64, payload: Vec<u8>) -> Result<()> {
        if payload.len() > self.limits.frame {
            let (got, limit) = (payload.len() as u64, self.limits.frame as u64);
            return Err(Error::FrameTooLong { got, limit });
        }
        if self.peer.is_closed() {
            return Err(Error::Closed { operation: "sending" });
        }
        let ready = self.network.as_ref().map(|(network, free)| {
            let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
            let on_wire = payload.len() as f64 * 8.0 / network.bandwidth;
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(on_wire);
            *free + network.delay
        });
        let number = self.numbers.next(stream);
        self.peer.push(stream, Frame { number, ready, payload });
        Ok(())
    }

    fn receive(&self, stream: u64, len: usize) -> Result<Vec<u8>> {
        self.own.pop(stream, len, &self.limits)
    }

    fn close(&self) {
        self.own.close();
        self.peer.close();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.close();
    }
}
