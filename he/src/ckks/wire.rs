//! One envelope for everything that leaves a process.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `UTHE` |
//! | 2 | version, little endian: 1 |
//! | 1 | kind |
//! | 1 | zero |
//! | 32 | parameter hash |
//! | 16 | key identifier |
//! | 8 | payload length, little endian |
//! | … | payload |
//! | 32 | SHA-256 of all before |
//!
//! The checksum finds accidents. Whoever can write can also make a valid checksum, so it proves
//! no origin; that is the transport's task. The length is checked against what the parameters
//! allow for the kind before anything is allocated, and residues against their prime.
//! Residues take as many bytes as their prime; the uniform half of keys and seeded ciphertexts
//! travels as its seed.

use std::collections::BTreeMap;
use std::io::Read;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::buffer::Rows;
use super::cipher::{Ciphertext, Degree, KeyId, Meta, SeededCiphertext};
use super::context::Context;
use super::evalkeys::{EvaluationKeys, PublicKey, SwitchingKey};

/// First bytes of every artefact.
pub const MAGIC: [u8; 4] = *b"UTHE";
/// The version this library writes and reads.
pub const VERSION: u16 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 64;
/// Bytes after the payload.
pub const CHECKSUM_BYTES: usize = 32;
/// Most switching keys in one set.
const MAX_KEYS: usize = 1024;

/// What an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`Ciphertext`].
    Ciphertext = 1,
    /// A [`SeededCiphertext`].
    SeededCiphertext = 2,
    /// A [`PublicKey`].
    PublicKey = 3,
    /// [`EvaluationKeys`].
    EvaluationKeys = 4,
    /// A secret key; only the client reads it.
    SecretKey = 5,
}

/// Why bytes were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than the envelope says.
    #[error("truncated: {needed} bytes needed, {found} found; transfer it again")]
    Truncated {
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// More bytes than the parameters allow, or than the envelope says.
    #[error("oversized: {found} bytes, at most {limit} allowed for this kind and these parameters")]
    Oversized {
        /// Bytes claimed or found.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Not an envelope.
    #[error("not an artefact of undertone-he: wrong magic")]
    BadMagic,
    /// Another version.
    #[error(
        "version {found} is not supported (this library reads {VERSION}); convert or re-create it"
    )]
    UnsupportedVersion {
        /// The version found.
        found: u16,
    },
    /// Another kind of artefact.
    #[error("kind {found} where {wanted:?} was expected")]
    WrongKind {
        /// The kind found.
        found: u8,
        /// The kind wanted.
        wanted: Kind,
    },
    /// Made under other parameters.
    #[error("the parameter hash differs; both sides must use the same parameter set")]
    WrongParameters,
    /// Belongs to another key.
    #[error("the key identifier differs; use the keys this was made for")]
    WrongKey,
    /// The checksum does not match.
    #[error("corrupted: the checksum does not match; transfer it again")]
    Corrupted,
    /// Contents that no encoder writes.
    #[error("malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The reader failed.
    #[error("reading an artefact failed")]
    Io(#[from] std::io::Error),
}

type Result<T> = std::result::Result<T, WireError>;

/// What travels in an envelope.
pub trait Artefact: Sized {
    /// Its kind.
    const KIND: Kind;

    /// The key it belongs to.
    fn owner(&self) -> KeyId;

    /// Most payload bytes under these parameters.
    fn limit(ctx: &Context) -> usize;

    /// Appends the payload.
    fn write_payload(&self, ctx: &Context, out: &mut Vec<u8>);

    /// Reads a payload of the given owner, whole.
    ///
    /// # Errors
    /// [`WireError::Malformed`], [`WireError::Truncated`].
    fn read_payload(ctx: &Context, key: KeyId, payload: &[u8]) -> Result<Self>;

    /// The envelope.
    ///
    #[cfg_attr(feature = "client", doc = "```")]
    #[cfg_attr(not(feature = "client"), doc = "```text")]
    /// use undertone_he::ckks::{Artefact, Context, Params, PublicKey, SecretKey};
    /// let ctx = Context::new(Params::TEST_N12)?;
    /// let key = SecretKey::generate(&ctx)?.public_key()?;
    /// let bytes = key.to_bytes(&ctx);
    /// let again = PublicKey::from_bytes(&ctx, Some(key.key_id()), &bytes)?;
    /// assert_eq!(again.key_id(), key.key_id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn to_bytes(&self, ctx: &Context) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES];
        self.write_payload(ctx, &mut out);
        let length = out.len() - HEADER_BYTES;
        out[..HEADER_BYTES].copy_from_slice(&header(ctx, Self::KIND, self.owner(), length));
        let checksum = Sha256::digest(&out);
        out.extend_from_slice(&checksum);
        out
    }

    /// From an envelope that must fill `bytes` and, if `key` is given, belong to it.
    ///
    /// # Errors
    /// [`WireError`], by what is wrong.
    fn from_bytes(ctx: &Context, key: Option<KeyId>, bytes: &[u8]) -> Result<Self> {
        let mut reader = bytes;
        let found = bytes.len() as u64;
        let artefact = Self::read_from(ctx, key, &mut reader).map_err(|e| match e {
            WireError::Truncated { needed, .. } => WireError::Truncated { needed, found },
            e => e,
        })?;
        if reader.is_empty() {
            Ok(artefact)
        } else {
            let limit = found - reader.len() as u64;
            Err(WireError::Oversized { found, limit })
        }
    }

    /// From an envelope on a reader. Nothing larger than the header is allocated before the
    /// header has been found acceptable.
    ///
    /// # Errors
    /// [`WireError`], by what is wrong.
    fn read_from(ctx: &Context, key: Option<KeyId>, reader: &mut impl Read) -> Result<Self> {
        let (owner, payload) = open(ctx, key, Self::KIND, Self::limit(ctx), reader)?;
        Self::read_payload(ctx, owner, &payload)
    }
}

/// The bytes before a payload of this length.
pub(crate) fn header(ctx: &Context, kind: Kind, owner: KeyId, length: usize) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..4].copy_from_slice(&MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[6] = kind as u8;
    out[8..40].copy_from_slice(&ctx.hash);
    out[40..56].copy_from_slice(&owner.0);
    out[56..].copy_from_slice(&(length as u64).to_le_bytes());
    out
}

/// Owner and payload of an envelope. The payload's memory is zeroized: it may be a secret key.
pub(crate) fn open(
    ctx: &Context,
    key: Option<KeyId>,
    kind: Kind,
    limit: usize,
    reader: &mut impl Read,
) -> Result<(KeyId, Zeroizing<Vec<u8>>)> {
    let mut header = [0; HEADER_BYTES];
    fill(reader, &mut header)?;
    let (owner, length) = check_header(ctx, key, kind, limit, &header)?;
    let mut payload = Zeroizing::new(vec![0; length]);
    fill(reader, &mut payload)?;
    let mut checksum = [0; CHECKSUM_BYTES];
    fill(reader, &mut checksum)?;
    let mut hash = Sha256::new();
    hash.update(header);
    hash.update(&payload);
    if hash.finalize()[..] != checksum {
        return Err(WireError::Corrupted);
    }
    Ok((owner, payload))
}

fn fill(reader: &mut impl Read, into: &mut [u8]) -> Result<()> {
    let mut at = 0;
    while at < into.len() {
        match reader.read(&mut into[at..]) {
            Ok(0) => {
                return Err(WireError::Truncated { needed: into.len() as u64, found: at as u64 });
            }
            Ok(k) => at += k,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn check_header(
    ctx: &Context,
    key: Option<KeyId>,
    wanted: Kind,
    limit: usize,
    header: &[u8; HEADER_BYTES],
) -> Result<(KeyId, usize)> {
    let mut r = Reader(header);
    if r.array()? != MAGIC {
        return Err(WireError::BadMagic);
    }
    let version = u16::from_le_bytes(r.array()?);
    if version != VERSION {
        return Err(WireError::UnsupportedVersion { found: version });
    }
    let [kind, zero] = r.array()?;
    if kind != wanted as u8 {
        return Err(WireError::WrongKind { found: kind, wanted });
    }
    if zero != 0 {
        return Err(WireError::Malformed { what: "reserved byte is not zero" });
    }
    if r.array::<32>()? != ctx.hash {
        return Err(WireError::WrongParameters);
    }
    let owner = KeyId(r.array()?);
    if key.is_some_and(|k| k != owner) {
        return Err(WireError::WrongKey);
    }
    let (found, limit) = (u64::from_le_bytes(r.array()?), limit as u64);
    if found > limit {
        return Err(WireError::Oversized { found, limit });
    }
    Ok((owner, found as usize))
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (needed, found) = (count as u64, self.0.len() as u64);
        let (head, rest) =
            self.0.split_at_checked(count).ok_or(WireError::Truncated { needed, found })?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const K: usize>(&mut self) -> Result<[u8; K]> {
        let mut out = [0; K];
        out.copy_from_slice(self.take(K)?);
        Ok(out)
    }

    fn u16(&mut self) -> Result<usize> {
        Ok(usize::from(u16::from_le_bytes(self.array()?)))
    }

    /// Rows modulo the first `count` primes.
    fn rows(&mut self, ctx: &Context, count: usize) -> Result<Rows> {
        let all = self.take(ctx.n() * row_bytes(ctx, 0..count))?;
        let mut rows = Rows::scratch(ctx.n(), count);
        let mut at = 0;
        for (prime, row) in rows.rows_mut().enumerate() {
            let (p, width) = (ctx.modulus(prime).p, residue_bytes(ctx, prime));
            let bytes = &all[at..at + ctx.n() * width];
            at += bytes.len();
            let mut largest = 0;
            for (x, bytes) in row.iter_mut().zip(bytes.chunks_exact(width)) {
                let mut word = [0; 8];
                word[..width].copy_from_slice(bytes);
                *x = u64::from_le_bytes(word);
                largest = largest.max(*x);
            }
            if largest >= p {
                return Err(WireError::Malformed { what: "a residue is not below its prime" });
            }
        }
        Ok(rows)
    }

    fn end(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(WireError::Malformed { what: "bytes after the contents" })
        }
    }
}

fn residue_bytes(ctx: &Context, prime: usize) -> usize {
    (ctx.modulus(prime).p.ilog2() + 1).div_ceil(8) as usize
}

/// Bytes of one residue modulo each of the primes.
fn row_bytes(ctx: &Context, primes: std::ops::Range<usize>) -> usize {
    primes.map(|p| residue_bytes(ctx, p)).sum()
}

fn write_rows(ctx: &Context, rows: &Rows, out: &mut Vec<u8>) {
    for (prime, row) in rows.rows().enumerate() {
        let width = residue_bytes(ctx, prime);
        for x in row {
            out.extend_from_slice(&x.to_le_bytes()[..width]);
        }
    }
}

fn read_level(ctx: &Context, r: &mut Reader<'_>) -> Result<usize> {
    let level = r.u16()?;
    if level > ctx.top_level() {
        return Err(WireError::Malformed { what: "level above the top" });
    }
    Ok(level)
}

/// Bytes of an envelope around a payload.
fn envelope_bytes(payload: usize) -> usize {
    HEADER_BYTES + payload + CHECKSUM_BYTES
}

impl Ciphertext {
    /// Bytes of the envelope of such a ciphertext.
    #[must_use]
    pub fn wire_bytes(ctx: &Context, meta: Meta) -> usize {
        envelope_bytes(4 + meta.parts * ctx.n() * row_bytes(ctx, 0..meta.level + 1))
    }
}

impl SeededCiphertext {
    /// Bytes of the envelope of one at a level.
    #[must_use]
    pub fn wire_bytes(ctx: &Context, level: usize) -> usize {
        envelope_bytes(34 + ctx.n() * row_bytes(ctx, 0..level + 1))
    }
}

impl Artefact for Ciphertext {
    const KIND: Kind = Kind::Ciphertext;

    fn owner(&self) -> KeyId {
        self.key
    }

    fn limit(ctx: &Context) -> usize {
        4 + 3 * ctx.n() * row_bytes(ctx, 0..ctx.q_count())
    }

    fn write_payload(&self, ctx: &Context, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.level as u16).to_le_bytes());
        out.push(match self.degree {
            Degree::One => 1,
            Degree::Two => 2,
        });
        out.push(self.parts.len() as u8);
        for part in &self.parts {
            write_rows(ctx, part, out);
        }
    }

    fn read_payload(ctx: &Context, key: KeyId, payload: &[u8]) -> Result<Self> {
        let mut r = Reader(payload);
        let level = read_level(ctx, &mut r)?;
        let [degree, parts] = r.array()?;
        let degree = match degree {
            1 => Degree::One,
            2 => Degree::Two,
            _ => return Err(WireError::Malformed { what: "scale degree" }),
        };
        if !(2..=3).contains(&parts) {
            return Err(WireError::Malformed { what: "number of parts" });
        }
        let parts = (0..parts).map(|_| r.rows(ctx, level + 1)).collect::<Result<_>>()?;
        r.end()?;
        Ok(Self { parts, level, degree, key, parameters: ctx.hash })
    }
}

impl Artefact for SeededCiphertext {
    const KIND: Kind = Kind::SeededCiphertext;

    fn owner(&self) -> KeyId {
        self.key
    }

    fn limit(ctx: &Context) -> usize {
        34 + ctx.n() * row_bytes(ctx, 0..ctx.q_count())
    }

    fn write_payload(&self, ctx: &Context, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.level as u16).to_le_bytes());
        out.extend_from_slice(&self.seed);
        write_rows(ctx, &self.c0, out);
    }

    fn read_payload(ctx: &Context, key: KeyId, payload: &[u8]) -> Result<Self> {
        let mut r = Reader(payload);
        let level = read_level(ctx, &mut r)?;
        let seed = r.array()?;
        let c0 = r.rows(ctx, level + 1)?;
        r.end()?;
        Ok(Self { seed, c0, level, key, parameters: ctx.hash })
    }
}

impl Artefact for PublicKey {
    const KIND: Kind = Kind::PublicKey;

    fn owner(&self) -> KeyId {
        self.key
    }

    fn limit(ctx: &Context) -> usize {
        32 + ctx.n() * row_bytes(ctx, 0..ctx.q_count())
    }

    fn write_payload(&self, ctx: &Context, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.seed);
        write_rows(ctx, &self.b, out);
    }

    fn read_payload(ctx: &Context, key: KeyId, payload: &[u8]) -> Result<Self> {
        let mut r = Reader(payload);
        let seed = r.array()?;
        let b = r.rows(ctx, ctx.q_count())?;
        r.end()?;
        Ok(Self::expand(ctx, key, seed, b))
    }
}

/// Bytes of a switching key.
fn key_bytes(ctx: &Context) -> usize {
    32 + ctx.digits.len() * ctx.n() * row_bytes(ctx, 0..ctx.primes.len())
}

fn write_key(ctx: &Context, key: &SwitchingKey, out: &mut Vec<u8>) {
    out.extend_from_slice(&key.seed);
    for b in &key.b {
        write_rows(ctx, b, out);
    }
}

fn read_key(ctx: &Context, r: &mut Reader<'_>) -> Result<SwitchingKey> {
    let seed = r.array()?;
    let b =
        (0..ctx.digits.len()).map(|_| r.rows(ctx, ctx.primes.len())).collect::<Result<Vec<_>>>()?;
    Ok(SwitchingKey::expand(ctx, seed, b))
}

impl EvaluationKeys {
    /// Payload bytes of a set for relinearization and so many automorphisms.
    pub(crate) fn payload_bytes(ctx: &Context, automorphisms: usize) -> usize {
        3 + key_bytes(ctx) + automorphisms * (4 + key_bytes(ctx))
    }

    /// Bytes of the envelope of such a set.
    #[must_use]
    pub fn wire_bytes(ctx: &Context, automorphisms: usize) -> usize {
        envelope_bytes(Self::payload_bytes(ctx, automorphisms))
    }
}

impl Artefact for EvaluationKeys {
    const KIND: Kind = Kind::EvaluationKeys;

    fn owner(&self) -> KeyId {
        self.key
    }

    fn limit(ctx: &Context) -> usize {
        3 + MAX_KEYS * (4 + key_bytes(ctx))
    }

    fn write_payload(&self, ctx: &Context, out: &mut Vec<u8>) {
        out.push(u8::from(self.relinearization.is_some()));
        out.extend_from_slice(&(self.galois.len() as u16).to_le_bytes());
        if let Some(key) = &self.relinearization {
            write_key(ctx, key, out);
        }
        for (&g, key) in &self.galois {
            out.extend_from_slice(&(g as u32).to_le_bytes());
            write_key(ctx, key, out);
        }
    }

    fn read_payload(ctx: &Context, key: KeyId, payload: &[u8]) -> Result<Self> {
        let mut r = Reader(payload);
        let [has] = r.array()?;
        let count = r.u16()?;
        let relinearization = match has {
            0 => None,
            1 => Some(read_key(ctx, &mut r)?),
            _ => return Err(WireError::Malformed { what: "relinearization flag" }),
        };
        let mut galois = BTreeMap::new();
        let mut last = 1;
        for _ in 0..count {
            let g = u32::from_le_bytes(r.array()?) as usize;
            // Ascending, so each once.
            if g.is_multiple_of(2) || g <= last || g >= 2 * ctx.n() {
                return Err(WireError::Malformed { what: "Galois element" });
            }
            last = g;
            galois.insert(g, read_key(ctx, &mut r)?);
        }
        r.end()?;
        Ok(Self { key, parameters: ctx.hash, relinearization, galois })
    }
}
