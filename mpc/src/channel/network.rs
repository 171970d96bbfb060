use crate::{Error, Result};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A network: to emulate one, or to predict what a program takes on it.
#[derive(Clone, Copy, Debug, PartialEq)]
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

impl std::str::FromStr for Network {
    type Err = Error;

    /// `lan`, `wan`, or the round trip in milliseconds and the bandwidth in Mbit/s: `40,352`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "lan" => return Ok(Self::LAN),
            "wan" => return Ok(Self::WAN),
            _ => {}
        }
        let number = |t: &str| t.trim().parse::<f64>().ok().filter(|x| x.is_finite());
        let parsed = text.split_once(',').and_then(|(a, b)| Some((number(a)?, number(b)?)));
        match parsed {
            Some((trip, mbit)) if (0.0..=60e3).contains(&trip) && mbit >= 0.001 => {
                let delay = Duration::from_secs_f64(trip / 2e3);
                Ok(Self { delay, bandwidth: mbit * 1e6 })
            }
            _ => {
                let expected = "lan, wan or RTT_MS,MBIT, such as 40,352";
                Err(Error::Shape {
                    operation: "network",
                    expected: expected.into(),
                    got: text.into(),
                })
            }
        }
    }
}

/// When frames of one direction arrive, each after those sent before it.
pub(super) struct Pace {
    network: Network,
    free: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(network: Network) -> Self {
        Self { network, free: Mutex::new(Instant::now()) }
    }

    /// The arrival of a frame of this length that sets out now.
    pub(super) fn arrival(&self, bytes: usize) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let on_wire = bytes as f64 * 8.0 / self.network.bandwidth;
        *free = (*free).max(Instant::now()) + Duration::from_secs_f64(on_wire);
        *free + self.network.delay
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks_are_read_as_round_trip_and_bandwidth() {
        assert_eq!("wan".parse::<Network>().unwrap(), Network::WAN);
        assert_eq!("40,352".parse::<Network>().unwrap(), Network::WAN);
        for wrong in ["", "40", "40,", "-1,5", "1,0", "nan,1", "1e9,1", "far"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
