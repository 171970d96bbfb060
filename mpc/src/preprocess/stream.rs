//! Preprocessing on the line: the dealer makes it while the parties run, and nothing is stored.
//!
//! After the greeting the dealer sends each party the digest of the program and a fresh seed. Then
//! it sends chunks, which end where the program says [`Mpc::chunk`]; each is sent once the party has
//! asked for it. A party asks for the next chunk when it has one, so that dealing overlaps the run
//! and nobody holds more than two.

use super::dealer::{Dealer, Program};
use super::{Blank, Section};
use crate::channel::Link;
use crate::mpc::{Format, Mpc};
use crate::prg::{Seed, fresh_seed};
use crate::{Error, Plan, Result};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The stream of chunks; the greeting has stream 0.
const CHUNKS: u64 = 1;
/// Chunks travel in frames of this length.
const PIECE: usize = 1 << 20;
/// The longest chunk that a party takes in: correlations of one input.
const LONGEST: u64 = 1 << 34;
const HEAD: usize = 32 + 16;

/// The dealer's end of a party's line.
pub(crate) struct Line(Arc<dyn Link>);

impl Line {
    /// Sends a chunk when the party asks for it.
    pub(super) fn send(&mut self, chunk: &[u8]) -> Result<()> {
        self.0.receive(CHUNKS, 1)?;
        self.0.send(CHUNKS, (chunk.len() as u64).to_le_bytes().to_vec())?;
        chunk.chunks(PIECE).try_for_each(|piece| self.0.send(CHUNKS, piece.to_vec()))
    }
}

/// The party's end.
pub(crate) struct Feed(Arc<dyn Link>);

impl Feed {
    fn open(link: Arc<dyn Link>) -> Result<Self> {
        link.send(CHUNKS, vec![1])?;
        Ok(Self(link))
    }

    /// The next chunk. Asks for the one after it.
    pub(super) fn next(&mut self) -> Result<Zeroizing<Vec<u8>>> {
        let head = self.0.receive(CHUNKS, 8)?;
        let len = head.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        if len > LONGEST {
            return Err(Error::FrameTooLong { got: len, limit: LONGEST });
        }
        let len = len as usize;
        // Memory grows with what has arrived, not with what was announced.
        let mut chunk = Zeroizing::new(Vec::new());
        while chunk.len() < len {
            let piece = self.0.receive(CHUNKS, PIECE.min(len - chunk.len()))?;
            if chunk.is_empty() {
                chunk.reserve_exact(len.min(1 << 28));
            }
            chunk.extend_from_slice(&piece);
        }
        // The dealer may have finished and gone.
        let _ = self.0.send(CHUNKS, vec![1]);
        Ok(chunk)
    }
}

/// Deals one run of a program to two parties on the line, client first, and returns its plan.
///
/// # Errors
/// The program's own; [`Error::Closed`] or [`Error::Timeout`] where a party goes away.
pub fn deal_streamed(
    parties: [Arc<dyn Link>; 2],
    label: &str,
    format: Format,
    program: Program<'_>,
) -> Result<Plan> {
    let result = stream(&parties, label, format, program);
    if result.is_err() {
        parties.iter().for_each(|p| p.close());
    }
    result
}

fn stream(
    parties: &[Arc<dyn Link>; 2],
    label: &str,
    format: Format,
    program: Program<'_>,
) -> Result<Plan> {
    let mut planner = Mpc::new(format, Box::new(Blank), None);
    program(&mut planner)?;
    let plan = planner.into_plan(label);
    let seeds = [fresh_seed(), fresh_seed()];
    for (party, seed) in parties.iter().zip(&seeds) {
        let mut head = plan.digest().to_vec();
        head.extend(&**seed);
        party.send(CHUNKS, head)?;
    }
    let lines = [Line(Arc::clone(&parties[0])), Line(Arc::clone(&parties[1]))];
    let dealer = Dealer::on_line([&seeds[0], &seeds[1]], lines);
    let mut mpc = Mpc::new(format, Box::new(dealer), None);
    program(&mut mpc)?;
    // The last chunk, and the parties' word that they have it: the line goes when this returns.
    mpc.chunk()?;
    for party in parties {
        party.receive(CHUNKS, 1)?;
    }
    Ok(plan)
}

/// A party's correlations from a dealer on the line, for the program of this digest.
///
/// # Errors
/// [`Error::Handshake`] where the dealer has another program, and the channel's.
pub fn receive_streamed(dealer: Arc<dyn Link>, party: usize, program: [u8; 32]) -> Result<Section> {
    let head = Zeroizing::new(dealer.receive(CHUNKS, HEAD)?);
    let (digest, bytes) = head.split_at(32);
    if digest != program {
        let short = |d: &[u8]| d.iter().take(4).map(|b| format!("{b:02x}")).collect();
        let (ours, theirs) = (short(&program), short(digest));
        return Err(Error::Handshake { field: "dealer's program", ours, theirs });
    }
    let mut seed = Seed::default();
    seed.copy_from_slice(bytes);
    Section::streamed(party, &seed, Feed::open(dealer)?)
}
