//! Where an encoder's tensors come from: a `model.safetensors`, or a packed checkpoint. The order of
//! requests is the packed format's order of tensors, so one reader serves both and cannot drift.

use super::LoadError;
use crate::Signs;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

/// Bytes of the largest weights that are read.
pub const MOST_WEIGHT_BYTES: u64 = 1 << 30;

/// Something that hands out tensors by name and shape.
pub(super) trait Source {
    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError>;
    fn signs(&mut self, name: &str, rows: usize, dim: usize) -> Result<Signs, LoadError>;
}

/// Tensors of a `model.safetensors`.
pub(super) struct Folder<'a> {
    pub(super) tensors: SafeTensors<'a>,
}

impl Folder<'_> {
    fn data(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8], LoadError> {
        let Ok(tensor) = self.tensors.tensor(name) else {
            return Err(LoadError::Missing { tensor: name.into(), wanted: shape.to_vec() });
        };
        if tensor.dtype() != dtype || tensor.shape() != shape {
            return Err(LoadError::Shape {
                tensor: name.into(),
                found: format!("{:?} {:?}", tensor.dtype(), tensor.shape()),
                wanted: format!("{dtype:?} {shape:?}"),
            });
        }
        Ok(tensor.data())
    }
}

impl Source for Folder<'_> {
    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let data = self.data(name, Dtype::F32, shape)?;
        let values: Vec<f32> =
            data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if values.iter().any(|v| !v.is_finite()) {
            return Err(LoadError::NotFinite { tensor: name.into() });
        }
        Ok(values)
    }

    /// Bytes of eight signs, least significant first, rows of ⌈dim/8⌉.
    fn signs(&mut self, name: &str, rows: usize, dim: usize) -> Result<Signs, LoadError> {
        let stride = dim.div_ceil(8);
        let data = self.data(name, Dtype::U8, &[rows, stride])?;
        signs_from_bytes(name, data, rows, dim)
    }
}

fn signs_from_bytes(name: &str, data: &[u8], rows: usize, dim: usize) -> Result<Signs, LoadError> {
    let mut words = Vec::with_capacity(rows * dim.div_ceil(64));
    for row in data.chunks_exact(dim.div_ceil(8)) {
        for eight in row.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..eight.len()].copy_from_slice(eight);
            words.push(u64::from_le_bytes(bytes));
        }
    }
    Signs::from_words(words, rows, dim)
        .map_err(|fault| LoadError::Bits { tensor: name.into(), fault })
}

/// How a packed checkpoint holds the parameters that stay numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32: the packed encoder gives what the unpacked one gives.
    Exact,
    /// One byte a value and one scale a tensor, max|x|/127.
    Byte,
}

const MAGIC: &[u8; 8] = b"undtbits";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 1 + 8 + 8;
const CHECKSUM: usize = 8;

fn short_hash(bytes: &[u8]) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&Sha256::digest(bytes)[..8]);
    out
}

/// Reads through to a folder and writes what it read into a packed checkpoint.
pub(super) struct Packer<'a> {
    pub(super) folder: Folder<'a>,
    pub(super) precision: Precision,
    pub(super) out: Vec<u8>,
}

impl Source for Packer<'_> {
    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let values = self.folder.floats(name, shape)?;
        match self.precision {
            Precision::Exact => self.out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Precision::Byte => {
                let most = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let scale = if most > 0.0 { most / 127.0 } else { 1.0 };
                self.out.extend(scale.to_le_bytes());
                self.out.extend(values.iter().map(|v| (v / scale).round() as i8 as u8));
            }
        }
        Ok(values)
    }

    fn signs(&mut self, name: &str, rows: usize, dim: usize) -> Result<Signs, LoadError> {
        let signs = self.folder.signs(name, rows, dim)?;
        for row in signs.words().chunks_exact(dim.div_ceil(64)) {
            let bytes = row.iter().flat_map(|w| w.to_le_bytes());
            self.out.extend(bytes.take(dim.div_ceil(8)));
        }
        Ok(signs)
    }
}

impl Packer<'_> {
    /// The whole checkpoint: magic, version, precision, hash of the configuration, length, tensors,
    /// checksum.
    pub(super) fn finish(self, config: &[u8]) -> Vec<u8> {
        let mut file = Vec::with_capacity(HEADER + self.out.len() + CHECKSUM);
        file.extend(MAGIC);
        file.extend(VERSION.to_le_bytes());
        file.push(u8::from(self.precision == Precision::Byte));
        file.extend(short_hash(config));
        file.extend((self.out.len() as u64).to_le_bytes());
        file.extend(self.out);
        let sum = short_hash(&file);
        file.extend(sum);
        file
    }
}

/// Tensors of a packed checkpoint, in order.
pub(super) struct Packed<'a> {
    rest: &'a [u8],
    precision: Precision,
}

impl<'a> Packed<'a> {
    /// Checks everything around the tensors.
    pub(super) fn open(file: &'a [u8], config: &[u8]) -> Result<Self, LoadError> {
        let broken = |what| LoadError::Packed { what };
        if file.len() < HEADER + CHECKSUM {
            return Err(broken("shorter than its header"));
        }
        let (body, sum) = file.split_at(file.len() - CHECKSUM);
        if &body[..8] != MAGIC {
            return Err(broken("no packed checkpoint: its first bytes are not `undtbits`"));
        }
        if body[8..12] != VERSION.to_le_bytes() {
            return Err(broken("of another version than 1; pack the model again"));
        }
        if sum != short_hash(body) {
            return Err(broken("damaged: its checksum does not hold"));
        }
        let precision = match body[12] {
            0 => Precision::Exact,
            1 => Precision::Byte,
            _ => return Err(broken("of an unknown precision")),
        };
        if body[13..21] != short_hash(config) {
            return Err(broken("packed for another config.json"));
        }
        let rest = &body[HEADER..];
        if body[21..29] != (rest.len() as u64).to_le_bytes() {
            return Err(broken("not as long as its header says"));
        }
        Ok(Self { rest, precision })
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], LoadError> {
        let Some((taken, rest)) = self.rest.split_at_checked(bytes) else {
            return Err(LoadError::Packed { what: "shorter than its configuration needs" });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Refuses bytes that no tensor asked for.
    pub(super) fn finish(self) -> Result<(), LoadError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(LoadError::Packed { what: "longer than its configuration needs" })
        }
    }
}

impl Source for Packed<'_> {
    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let count = shape.iter().product::<usize>();
        let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let values: Vec<f32> = match self.precision {
            Precision::Exact => self.take(4 * count)?.chunks_exact(4).map(number).collect(),
            Precision::Byte => {
                let scale = number(self.take(4)?);
                self.take(count)?.iter().map(|&b| f32::from(b as i8) * scale).collect()
            }
        };
        if values.iter().any(|v| !v.is_finite()) {
            return Err(LoadError::NotFinite { tensor: name.into() });
        }
        Ok(values)
    }

    fn signs(&mut self, name: &str, rows: usize, dim: usize) -> Result<Signs, LoadError> {
        let data = self.take(rows * dim.div_ceil(8))?;
        signs_from_bytes(name, data, rows, dim)
    }
}
