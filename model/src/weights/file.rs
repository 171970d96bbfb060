//! The safetensors container: header first, then one tensor at a time.

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::WeightError;
use super::collect::Source;
use crate::limits;

/// Bytes converted at a time: small enough to stay in cache.
const CHUNK: usize = 64 << 10;

/// An open file whose header agrees with its length.
pub(super) struct TensorFile<R> {
    reader: R,
    /// Where the tensors begin.
    start: u64,
    metadata: Metadata,
    taken: HashSet<String>,
}

impl<R: Read + Seek> TensorFile<R> {
    pub(super) fn open(mut reader: R) -> Result<Self, WeightError> {
        let found = reader.seek(SeekFrom::End(0))?;
        if found > limits::WEIGHT_BYTES {
            return Err(WeightError::TooLarge { found, limit: limits::WEIGHT_BYTES });
        }
        if found < 8 {
            return Err(WeightError::Truncated { found, expected: 8 });
        }
        reader.rewind()?;
        let mut length = [0; 8];
        reader.read_exact(&mut length)?;
        let header = u64::from_le_bytes(length);
        if header > limits::HEADER_BYTES {
            return Err(WeightError::HeaderTooLarge { found: header, limit: limits::HEADER_BYTES });
        }
        let start = 8 + header;
        if found < start {
            return Err(WeightError::Truncated { found, expected: start });
        }
        let mut bytes = vec![0; header as usize];
        reader.read_exact(&mut bytes)?;
        // Parsing checks that tensors follow each other without gaps or overlaps and that each
        // has as many bytes as its shape and type say.
        let metadata: Metadata = serde_json::from_slice(&bytes).map_err(WeightError::Header)?;
        let expected = start.saturating_add(metadata.data_len() as u64);
        if found < expected {
            return Err(WeightError::Truncated { found, expected });
        }
        if found > expected {
            return Err(WeightError::Oversized { found, expected });
        }
        Ok(Self { reader, start, metadata, taken: HashSet::new() })
    }

    /// Refuses tensors that nobody took, except the documented harmless ones.
    pub(super) fn finish(self, classifies: bool) -> Result<(), WeightError> {
        for name in self.metadata.offset_keys() {
            if self.taken.contains(&name) {
                continue;
            }
            let short = name.strip_prefix("bert.").or(name.strip_prefix("vit.")).unwrap_or(&name);
            if short == "embeddings.position_ids" || short.starts_with("cls.") {
                continue;
            }
            if short.starts_with("pooler.") {
                if classifies {
                    return Err(WeightError::Pooler { name });
                }
                continue;
            }
            let found = self.metadata.info(&name).map_or_else(Vec::new, |info| info.shape.clone());
            return Err(WeightError::Unknown { name, found });
        }
        Ok(())
    }
}

impl<R: Read + Seek> Source for TensorFile<R> {
    type Error = WeightError;

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| &info.shape[..])
    }

    fn take(&mut self, name: &str, wanted: &[usize]) -> Result<Vec<f32>, WeightError> {
        let Some(info) = self.metadata.info(name) else {
            return Err(WeightError::Missing { name: name.to_owned(), wanted: wanted.to_vec() });
        };
        if info.shape != wanted {
            return Err(WeightError::Shape {
                name: name.to_owned(),
                found: info.shape.clone(),
                wanted: wanted.to_vec(),
            });
        }
        let decode: fn(&[u8], &mut Vec<f32>) = match info.dtype {
            Dtype::F32 => |bytes, out| {
                let (words, _) = bytes.as_chunks::<4>();
                out.extend(words.iter().map(|&word| f32::from_le_bytes(word)));
            },
            Dtype::F16 => |bytes, out| {
                let (words, _) = bytes.as_chunks::<2>();
                out.extend(words.iter().map(|&word| half::f16::from_le_bytes(word).to_f32()));
            },
            Dtype::BF16 => |bytes, out| {
                let (words, _) = bytes.as_chunks::<2>();
                out.extend(words.iter().map(|&word| half::bf16::from_le_bytes(word).to_f32()));
            },
            other => {
                let found = format!("{other:?}");
                return Err(WeightError::DType { name: name.to_owned(), found });
            }
        };
        let (from, to) = info.data_offsets;
        self.reader.seek(SeekFrom::Start(self.start + from as u64))?;
        let mut left = to - from;
        // The file is at least this long (checked on opening), so the allocation is backed.
        let mut values = Vec::with_capacity(wanted.iter().product());
        let mut chunk = vec![0; CHUNK.min(left)];
        while left > 0 {
            let piece = &mut chunk[..CHUNK.min(left)];
            self.reader.read_exact(piece)?;
            decode(piece, &mut values);
            left -= piece.len();
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let value = values[index];
            return Err(WeightError::NotFinite { name: name.to_owned(), index, value });
        }
        self.taken.insert(name.to_owned());
        Ok(values)
    }
}
