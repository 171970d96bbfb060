//! Files of preprocessing: a header with one seed, length and hash a section, then the sections.
//!
//! A section serves one run of a program. Before its first byte or seed is used, the number of
//! sections begun is written to a journal next to the file and synced, so that a run that dies in
//! the middle, however it dies, burns its section and never shares it with the next run. Copying
//! both file and journal back is noticed by the peer as long as the peer's journal is ahead: the
//! parties agree on the later section. Rolling back both parties at once is not noticed.

use super::stream::Feed;
use super::{BRANCH, Factor, Lane, Preprocess};
use crate::dcf::{ComparisonKeys, PointKeys, Slab};
use crate::prg::{Prg, Seed};
use crate::ring::{Product, packed_len, unpack};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"UTMPCPRE";
const VERSION: u32 = 1;
const FIXED: usize = 8 + 4 + 4 + 16 + 32 + 4;
const ENTRY: usize = 16 + 8 + 32;
const MAX_SECTIONS: u32 = 1 << 16;

pub(crate) struct SectionHeader {
    pub(crate) seed: Seed,
    pub(crate) len: u64,
    pub(crate) hash: [u8; 32],
}

pub(crate) struct Header {
    pub(crate) session: [u8; 16],
    pub(crate) party: u32,
    pub(crate) program: [u8; 32],
    pub(crate) sections: Vec<SectionHeader>,
}

fn wrong(what: &'static str, expected: impl ToString, got: impl ToString) -> Error {
    Error::Preprocessing { what, expected: expected.to_string(), got: got.to_string() }
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.sections.len() * ENTRY + 32);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.party.to_le_bytes());
        out.extend(self.session);
        out.extend(self.program);
        out.extend((self.sections.len() as u32).to_le_bytes());
        for section in &self.sections {
            out.extend(*section.seed);
            out.extend(section.len.to_le_bytes());
            out.extend(section.hash);
        }
        let hash = Sha256::digest(&out);
        out.extend(hash);
        out
    }

    /// Parses a header and checks it against the length of the whole file.
    fn decode(body: &Body, len: u64) -> Result<Self> {
        let word =
            |b: &[u8], at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        if len < FIXED as u64 {
            return Err(wrong("file length", format!("at least {FIXED}"), len));
        }
        let fixed = body.read(0, FIXED)?;
        let fixed = fixed.bytes();
        if &fixed[..8] != MAGIC {
            return Err(wrong("magic", "UTMPCPRE", format!("{:02x?}", &fixed[..8])));
        }
        if word(fixed, 8) != VERSION {
            return Err(wrong("version", VERSION, word(fixed, 8)));
        }
        let (party, sections) = (word(fixed, 12), word(fixed, FIXED - 4));
        if party > 1 {
            return Err(wrong("party", "0 or 1", party));
        }
        if sections > MAX_SECTIONS {
            return Err(wrong("sections", format!("at most {MAX_SECTIONS}"), sections));
        }
        let whole = FIXED + sections as usize * ENTRY + 32;
        if len < whole as u64 {
            return Err(wrong("file length", format!("at least {whole}"), len));
        }
        let bytes = body.read(0, whole)?;
        let bytes = bytes.bytes();
        let (content, hash) = bytes.split_at(whole - 32);
        if Sha256::digest(content).as_slice() != hash {
            return Err(wrong("header checksum", "the dealer's", "another"));
        }
        let mut session = [0; 16];
        session.copy_from_slice(&bytes[16..32]);
        let mut program = [0; 32];
        program.copy_from_slice(&bytes[32..64]);
        let mut total = whole as u64;
        let mut entries = Vec::with_capacity(sections as usize);
        for entry in content[FIXED..].chunks_exact(ENTRY) {
            let mut seed = Seed::default();
            seed.copy_from_slice(&entry[..16]);
            let mut len = [0; 8];
            len.copy_from_slice(&entry[16..24]);
            let len = u64::from_le_bytes(len);
            let mut hash = [0; 32];
            hash.copy_from_slice(&entry[24..]);
            total = total.checked_add(len).ok_or_else(|| wrong("section length", "less", len))?;
            entries.push(SectionHeader { seed, len, hash });
        }
        if total != len {
            return Err(wrong("file length", total, len));
        }
        Ok(Self { session, party, program, sections: entries })
    }
}

/// Where stored bytes come from.
#[derive(Clone)]
enum Body {
    Memory(Arc<Zeroizing<Vec<u8>>>),
    File(Arc<File>),
}

impl Body {
    fn read(&self, at: u64, len: usize) -> Result<Slab> {
        match self {
            Self::Memory(bytes) => {
                let range = at as usize..(at as usize).saturating_add(len);
                let left = (bytes.len() as u64).saturating_sub(at);
                let wanted = len as u64;
                Slab::of(Arc::clone(bytes), range).ok_or(Error::Exhausted { wanted, left })
            }
            Self::File(file) => {
                let mut out = vec![0; len];
                file.read_exact_at(&mut out, at).map_err(Error::io("reading preprocessing"))?;
                Ok(out.into())
            }
        }
    }
}

/// A party's file of preprocessing.
pub struct Store {
    header: Header,
    body: Body,
    journal: Option<PathBuf>,
    begun: u32,
}

impl Store {
    /// Opens a file and its journal.
    ///
    /// # Errors
    /// Files that cannot be read, are cut short or are not the dealer's.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("opening preprocessing"))?;
        let len = file.metadata().map_err(Error::io("opening preprocessing"))?.len();
        let body = Body::File(Arc::new(file));
        let header = Header::decode(&body, len)?;
        let mut name = path.as_os_str().to_owned();
        name.push(".used");
        let journal = PathBuf::from(name);
        let begun = match std::fs::read(&journal) {
            Ok(bytes) => Self::parse(&header, &bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(Error::io("reading the journal")(e)),
        };
        Ok(Self { header, body, journal: Some(journal), begun })
    }

    /// A store over bytes in memory, which remembers what it began but has no journal.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_memory(bytes: Vec<u8>) -> Result<Self> {
        let len = bytes.len() as u64;
        let body = Body::Memory(Arc::new(Zeroizing::new(bytes)));
        let header = Header::decode(&body, len)?;
        Ok(Self { header, body, journal: None, begun: 0 })
    }

    fn parse(header: &Header, bytes: &[u8]) -> Result<u32> {
        let (session, count) =
            bytes.split_at_checked(16).ok_or_else(|| wrong("journal length", 20, bytes.len()))?;
        let count: [u8; 4] =
            count.try_into().map_err(|_| wrong("journal length", 20, bytes.len()))?;
        if session != header.session {
            return Err(wrong("journal session", "this file's", "another"));
        }
        Ok(u32::from_le_bytes(count))
    }

    /// The party this file is for.
    #[must_use]
    pub fn party(&self) -> usize {
        self.header.party as usize
    }

    /// Sections dealt.
    #[must_use]
    pub fn sections(&self) -> u32 {
        self.header.sections.len() as u32
    }

    /// The first section that was not begun.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.begun
    }

    pub(crate) fn session(&self) -> [u8; 16] {
        self.header.session
    }

    pub(crate) fn program(&self) -> [u8; 32] {
        self.header.program
    }

    /// Checks a section's hash and begins it: from here on it is used, whatever happens.
    ///
    /// # Errors
    /// [`Error::Used`] for a section begun before or never dealt, [`Error::Preprocessing`] for a
    /// damaged one (which is not begun), [`Error::Io`] where the journal cannot be synced.
    pub fn begin(&mut self, section: u32) -> Result<Section> {
        let sections = self.sections();
        if section < self.begun || section >= sections {
            return Err(Error::Used { section, sections });
        }
        let entries = &self.header.sections;
        let start = (FIXED + entries.len() * ENTRY + 32) as u64
            + entries[..section as usize].iter().map(|s| s.len).sum::<u64>();
        let entry = &entries[section as usize];
        if digest_of(&self.body, start, entry.len)? != entry.hash {
            return Err(wrong("section checksum", "the dealer's", "another"));
        }
        if let Some(journal) = &self.journal {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(journal)
                .map_err(Error::io("writing the journal"))?;
            let mut bytes = self.header.session.to_vec();
            bytes.extend((section + 1).to_le_bytes());
            file.write_all(&bytes).map_err(Error::io("writing the journal"))?;
            file.sync_all().map_err(Error::io("syncing the journal"))?;
        }
        self.begun = section + 1;
        Ok(Section {
            party: self.party(),
            prg: Prg::new(&entry.seed),
            body: self.body.clone(),
            at: start,
            end: start + entry.len,
            consumed: 0,
            feed: None,
        })
    }
}

fn digest_of(body: &Body, start: u64, len: u64) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut at = start;
    while at < start + len {
        let step = (start + len - at).min(1 << 20);
        hash.update(body.read(at, step as usize)?.bytes());
        at += step;
    }
    Ok(hash.finalize().into())
}

/// One party's correlations for one run. Reading moves on: nothing is given out twice.
pub struct Section {
    party: usize,
    prg: Prg,
    body: Body,
    at: u64,
    end: u64,
    consumed: u64,
    /// Where the next chunk comes from, if the dealer is on the line.
    feed: Option<Feed>,
}

impl Section {
    /// A party's correlations as the dealer sends them: nothing is stored, so nothing can be used
    /// twice.
    pub(crate) fn streamed(party: usize, seed: &Seed, mut feed: Feed) -> Result<Self> {
        let first = feed.next()?;
        let end = first.len() as u64;
        let body = Body::Memory(Arc::new(first));
        Ok(Self { party, prg: Prg::new(seed), body, at: 0, end, consumed: 0, feed: Some(feed) })
    }

    pub(crate) fn from_memory(bytes: Vec<u8>, party: usize) -> Result<Self> {
        let mut store = Store::in_memory(bytes)?;
        if store.party() != party {
            return Err(wrong("party", party, store.party()));
        }
        store.begin(0)
    }

    /// The party this section is for.
    #[must_use]
    pub fn party(&self) -> usize {
        self.party
    }

    fn take(&mut self, len: usize) -> Result<Slab> {
        let left = self.end - self.at;
        if len as u64 > left {
            return Err(Error::Exhausted { wanted: len as u64, left });
        }
        let bytes = self.body.read(self.at, len)?;
        self.at += len as u64;
        self.consumed += len as u64;
        Ok(bytes)
    }

    fn share(&mut self, n: usize, bits: u32) -> Result<Lane> {
        if self.party == 0 {
            return Ok(Some(self.prg.words(n, bits)));
        }
        let bytes = self.take(packed_len(n, bits))?;
        unpack(bytes.bytes(), n, bits).map(Some)
    }

    fn roots(&mut self, n: usize) -> Vec<u128> {
        (0..n).map(|_| self.prg.block()).collect()
    }
}

fn unreadable() -> Error {
    wrong("key length", "the batch's", "another")
}

impl Preprocess for Section {
    fn uniform(&mut self, n: usize, bits: u32) -> Result<Lane> {
        Ok(Some(self.prg.words(n, bits)))
    }

    fn private(&mut self, owner: usize, n: usize, bits: u32) -> Result<Lane> {
        Ok(Some(if owner == self.party { self.prg.words(n, bits) } else { vec![0; n] }))
    }

    fn relation(&mut self, _: &[Factor<'_>], n: usize, bits: u32) -> Result<Lane> {
        self.share(n, bits)
    }

    fn product(
        &mut self,
        of: &Product,
        _: Option<&[u64]>,
        _: Option<&[u64]>,
        bits: u32,
    ) -> Result<Lane> {
        self.share(of.len(), bits)
    }

    fn comparison(
        &mut self,
        _: Option<&[u64]>,
        n: usize,
        levels: u32,
    ) -> Result<Option<ComparisonKeys>> {
        let roots = self.roots(n);
        let stored = self.take(ComparisonKeys::stored_len(n, levels))?;
        ComparisonKeys::over(stored, levels, roots).ok_or_else(unreadable).map(Some)
    }

    fn point(
        &mut self,
        _: Option<&[u64]>,
        n: usize,
        _: u32,
        bits: u32,
    ) -> Result<Option<PointKeys>> {
        let roots = self.roots(n);
        let stored = self.take(PointKeys::stored_len(n, bits))?;
        PointKeys::over(stored, bits, roots).ok_or_else(unreadable).map(Some)
    }

    fn branch(&mut self) -> Result<Box<dyn Preprocess>> {
        let head = self.take(BRANCH as usize)?;
        let len = head.bytes().iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let left = self.end - self.at;
        if len > left {
            return Err(Error::Exhausted { wanted: len, left });
        }
        let start = self.at;
        self.at += len;
        Ok(Box::new(Self {
            party: self.party,
            prg: self.prg.fork(),
            body: self.body.clone(),
            at: start,
            end: start + len,
            consumed: 0,
            feed: None,
        }))
    }

    fn merge(&mut self, _: Box<dyn Preprocess>) -> Result<()> {
        Ok(())
    }

    fn chunk(&mut self) -> Result<()> {
        let Some(feed) = &mut self.feed else { return Ok(()) };
        if self.at != self.end {
            return Err(wrong("chunk", "used up", format!("{} bytes left", self.end - self.at)));
        }
        let next = feed.next()?;
        (self.at, self.end) = (0, next.len() as u64);
        self.body = Body::Memory(Arc::new(next));
        Ok(())
    }

    fn consumed(&self) -> u64 {
        self.consumed
    }
}

/// What the dealer writes into.
pub(crate) struct Sink {
    target: Target,
    pub(crate) position: u64,
}

enum Target {
    /// A file's content, or the chunk that a party is sent next.
    Memory(Cursor<Vec<u8>>),
    File(BufWriter<File>),
}

impl Sink {
    pub(crate) fn memory() -> Self {
        Self { target: Target::Memory(Cursor::default()), position: 0 }
    }

    /// A new file that only its owner reads; an existing one is never overwritten, since its
    /// journal would speak of another.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("creating preprocessing"))?;
        Ok(Self { target: Target::File(BufWriter::with_capacity(1 << 18, file)), position: 0 })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        match &mut self.target {
            Target::Memory(m) => m.write_all(bytes),
            Target::File(f) => f.write_all(bytes),
        }
        .map_err(Error::io("writing preprocessing"))
    }

    /// Overwrites bytes written before.
    pub(crate) fn patch(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let end = self.position;
        let mut go = || match &mut self.target {
            Target::Memory(m) => {
                m.seek(SeekFrom::Start(at))?;
                m.write_all(bytes)?;
                m.seek(SeekFrom::Start(end)).map(|_| ())
            }
            Target::File(f) => {
                f.seek(SeekFrom::Start(at))?;
                f.write_all(bytes)?;
                f.seek(SeekFrom::Start(end)).map(|_| ())
            }
        };
        go().map_err(Error::io("writing preprocessing"))
    }

    pub(crate) fn digest(&mut self, start: u64, len: u64) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        let mut go = || match &mut self.target {
            Target::Memory(m) => {
                hash.update(&m.get_ref()[start as usize..(start + len) as usize]);
                Ok(())
            }
            Target::File(f) => {
                f.flush()?;
                let mut file = f.get_ref();
                file.seek(SeekFrom::Start(start))?;
                let mut chunk = vec![0; 1 << 20];
                let mut left = len;
                while left > 0 {
                    let step = left.min(1 << 20) as usize;
                    file.read_exact(&mut chunk[..step])?;
                    hash.update(&chunk[..step]);
                    left -= step as u64;
                }
                file.seek(SeekFrom::Start(start + len)).map(|_| ())
            }
        };
        go().map_err(Error::io("hashing preprocessing"))?;
        Ok(hash.finalize().into())
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        match &mut self.target {
            Target::Memory(_) => Ok(()),
            Target::File(f) => f.flush().and_then(|()| f.get_ref().sync_all()),
        }
        .map_err(Error::io("writing preprocessing"))
    }

    /// What was written since the last call, in memory.
    pub(crate) fn take(&mut self) -> Result<Zeroizing<Vec<u8>>> {
        self.position = 0;
        let empty = Self { target: Target::Memory(Cursor::default()), position: 0 };
        std::mem::replace(self, empty).into_memory().map(Zeroizing::new)
    }

    pub(crate) fn into_memory(self) -> Result<Vec<u8>> {
        match self.target {
            Target::Memory(m) => Ok(m.into_inner()),
            Target::File(_) => Err(wrong("target", "memory", "a file")),
        }
    }
}
