//! Both parties in one process, at once or as if a network lay between them.

use super::network::Pace;
use super::{Frame, Inbox, Limits, Link, Network, Numbers};
use crate::{Error, Result};
use std::sync::Arc;

/// One end of a pair.
pub struct Memory {
    limits: Limits,
    own: Arc<Inbox>,
    peer: Arc<Inbox>,
    numbers: Numbers,
    pace: Option<Pace>,
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
            pace: network.map(Pace::new),
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
        let ready = self.pace.as_ref().map(|pace| pace.arrival(payload.len()));
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
