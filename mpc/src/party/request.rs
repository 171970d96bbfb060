use crate::channel::Link;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"UTMPCREQ";
const VERSION: u32 = 1;
const FIXED: usize = 8 + 4 + 4 + 16 + 4 + 4;
/// The stream of the greeting.
const STREAM: u64 = 0;

/// What a client asks for. All of it is public to server and dealer, and nothing else about the
/// inputs is: how many there are, how many tokens each has, and whether only classes are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names the run; zeros where preprocessing comes from files, which have a name of their own.
    pub session: [u8; 16],
    /// Whether the client learns the class alone.
    pub argmax: bool,
    /// Tokens of each input, in order.
    pub tokens: Vec<u32>,
}

impl Request {
    /// The most inputs of one run.
    pub const MOST_INPUTS: usize = 1 << 16;

    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + 4 * self.tokens.len());
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        // Reserved.
        out.extend([0; 4]);
        out.extend(self.session);
        out.extend(u32::from(self.argmax).to_le_bytes());
        out.extend((self.tokens.len() as u32).to_le_bytes());
        for t in &self.tokens {
            out.extend(t.to_le_bytes());
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`Error::Handshake`] names the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = |field, ours: String, theirs: String| Error::Handshake { field, ours, theirs };
        let Some((head, rest)) = bytes.split_at_checked(FIXED) else {
            let (ours, theirs) = (format!("{FIXED} bytes or more"), bytes.len().to_string());
            return Err(wrong("request length", ours, theirs));
        };
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if &head[..8] != MAGIC {
            return Err(wrong("request magic", "UTMPCREQ".into(), format!("{:02x?}", &head[..8])));
        }
        if word(8) != VERSION {
            return Err(wrong("request version", VERSION.to_string(), word(8).to_string()));
        }
        if word(12) != 0 || word(32) > 1 {
            return Err(wrong("request flags", "0 or 1".into(), word(32).to_string()));
        }
        let count = word(36) as usize;
        if count == 0 || count > Self::MOST_INPUTS || rest.len() != 4 * count {
            let ours = format!("1 to {} inputs and as many numbers", Self::MOST_INPUTS);
            return Err(wrong("inputs", ours, format!("{count} in {} bytes", rest.len())));
        }
        let mut session = [0; 16];
        session.copy_from_slice(&head[16..32]);
        let tokens = rest.as_chunks::<4>().0.iter().map(|t| u32::from_le_bytes(*t)).collect();
        Ok(Self { session, argmax: word(32) == 1, tokens })
    }

    /// Sends the request, its length first.
    ///
    /// # Errors
    /// The channel's.
    pub fn send(&self, link: &dyn Link) -> Result<()> {
        let bytes = self.encode();
        link.send(STREAM, (bytes.len() as u32).to_le_bytes().to_vec())?;
        link.send(STREAM, bytes)
    }

    /// Receives a request.
    ///
    /// # Errors
    /// The channel's, [`Error::FrameTooLong`], and as [`decode`](Self::decode).
    pub fn receive(link: &dyn Link) -> Result<Self> {
        let head = link.receive(STREAM, 4)?;
        let len = head.iter().rev().fold(0usize, |n, b| n << 8 | usize::from(*b));
        let limit = FIXED + 4 * Self::MOST_INPUTS;
        if len > limit {
            return Err(Error::FrameTooLong { got: len as u64, limit: limit as u64 });
        }
        Self::decode(&link.receive(STREAM, len)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_come_back(session: [u8; 16], argmax: bool, tokens in prop::collection::vec(any::<u32>(), 1..9)) {
            let request = Request { session, argmax, tokens };
            let bytes = request.encode();
            prop_assert_eq!(&Request::decode(&bytes).unwrap(), &request);
            for len in 0..bytes.len() {
                prop_assert!(Request::decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn strange_requests_are_refused() {
        let good = Request { session: [3; 16], argmax: true, tokens: vec![5] }.encode();
        for (at, to) in [(0, 0), (8, 2), (12, 1), (32, 2), (36, 0), (36, 2), (39, 1)] {
            let mut bytes = good.clone();
            bytes[at] = to;
            assert!(Request::decode(&bytes).is_err(), "byte {at}");
        }
    }
}
