use super::Link;
use crate::{Error, Result};
use std::fmt::Write;

/// The version of the protocol between parties.
pub const VERSION: u32 = 1;

const LEN: usize = 8 + 4 + 4 + 16 + 32 + 4;
const MAGIC: &[u8; 8] = b"UTMPC2PC";

/// What the parties compare before any secret moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The sender: 0 the client, 1 the server.
    pub party: u32,
    /// The session that the dealer named.
    pub session: [u8; 16],
    /// The digest of the program: label, number format and plan, hence every shape.
    pub program: [u8; 32],
    /// The first section that the sender has not begun.
    pub section: u32,
}

impl Greeting {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.party.to_le_bytes());
        out.extend(self.session);
        out.extend(self.program);
        out.extend(self.section.to_le_bytes());
        out
    }

    /// Greets the peer and returns the section that both begin: the later one.
    ///
    /// # Errors
    /// [`Error::Handshake`] names the first field that differs; both parties get it.
    pub fn exchange(&self, link: &dyn Link) -> Result<u32> {
        self.meet(&link.exchange(0, self.encode(), LEN)?)
    }

    /// The section that both begin, given the peer's greeting.
    ///
    /// # Errors
    /// [`Error::Handshake`] names the first field that differs.
    pub fn meet(&self, theirs: &[u8]) -> Result<u32> {
        if theirs.len() != LEN {
            let (expected, got) = (LEN as u64, theirs.len() as u64);
            return Err(Error::Desync { operation: "length of a greeting", expected, got });
        }
        let word = |at: usize| {
            u32::from_le_bytes([theirs[at], theirs[at + 1], theirs[at + 2], theirs[at + 3]])
        };
        let differs =
            |field, ours: String, theirs: String| Err(Error::Handshake { field, ours, theirs });
        if &theirs[..8] != MAGIC {
            return differs("magic", hex(MAGIC), hex(&theirs[..8]));
        }
        if word(8) != VERSION {
            return differs("version", VERSION.to_string(), word(8).to_string());
        }
        if word(12) != 1 - self.party {
            return differs("role", (1 - self.party).to_string(), word(12).to_string());
        }
        if theirs[16..32] != self.session {
            return differs("session", hex(&self.session), hex(&theirs[16..32]));
        }
        if theirs[32..64] != self.program {
            return differs("program", hex(&self.program), hex(&theirs[32..64]));
        }
        Ok(self.section.max(word(64)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}
