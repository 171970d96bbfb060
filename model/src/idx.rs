//! IDX, the format of MNIST and Fashion-MNIST: big-endian sizes and bytes, often in gzip
//! (<http://yann.lecun.com/exdb/mnist/>).

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::limits::{self, ReadError};

/// Images of one size, one byte a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxImages {
    /// Lines of an image.
    pub height: usize,
    /// Pixels of a line.
    pub width: usize,
    /// `[images, height, width]`.
    pixels: Vec<u8>,
}

/// A refused IDX file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdxError {
    /// The file could not be read within its limit.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The gzip stream is broken.
    #[error("the gzip stream is broken: {0}")]
    Gzip(std::io::Error),
    /// The decompressed data exceeds the limit.
    #[error("the file decompresses to more than the limit of {limit} bytes")]
    Bomb {
        /// The limit.
        limit: u64,
    },
    /// The first bytes are not those of the expected kind.
    #[error(
        "the file begins with {found:#010x}; expected {expected:#010x} ({kind} of unsigned bytes)"
    )]
    Magic {
        /// What was expected to be in the file.
        kind: &'static str,
        /// The first four bytes, or fewer padded with zeros.
        found: u32,
        /// The first four bytes of such a file.
        expected: u32,
    },
    /// An image has no pixels, or more than the limit per side.
    #[error("images of {height}×{width}; expected sides of 1 to {limit}")]
    Side {
        /// Lines.
        height: u32,
        /// Pixels of a line.
        width: u32,
        /// The limit.
        limit: u32,
    },
    /// The file is shorter or longer than its header says.
    #[error("the file has {found} bytes; its header describes {expected}")]
    Length {
        /// Bytes found.
        found: u64,
        /// Bytes described.
        expected: u64,
    },
}

impl IdxImages {
    /// Reads an image file, decompressing it if it is gzip.
    ///
    /// # Errors
    /// [`IdxError`] names what is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, IdxError> {
        Self::parse(&limits::read_bounded(path, limits::IDX_BYTES)?)
    }

    /// Parses the bytes of an image file, decompressing them if they are gzip.
    ///
    /// # Errors
    /// As [`IdxImages::load`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IdxError> {
        let mut bytes = decompress(bytes)?;
        let [_, height, width] = header(&bytes, "images", 0x803)?;
        let limit = limits::IMAGE_SIDE;
        if !((1..=limit).contains(&height) && (1..=limit).contains(&width)) {
            return Err(IdxError::Side { height, width, limit });
        }
        bytes.drain(..16);
        Ok(Self { height: height as usize, width: width as usize, pixels: bytes })
    }

    /// Images.
    pub fn len(&self) -> usize {
        self.pixels.len() / (self.height * self.width)
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// The pixels of an image, line by line.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.pixels.chunks_exact(self.height * self.width).nth(index)
    }
}

/// Reads a label file, decompressing it if it is gzip.
///
/// # Errors
/// [`IdxError`] names what is wrong with the file.
pub fn load_labels(path: &Path) -> Result<Vec<u8>, IdxError> {
    parse_labels(&limits::read_bounded(path, limits::IDX_BYTES)?)
}

/// Parses the bytes of a label file, decompressing them if they are gzip.
///
/// # Errors
/// As [`load_labels`].
pub fn parse_labels(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    let mut bytes = decompress(bytes)?;
    let [_] = header(&bytes, "labels", 0x801)?;
    bytes.drain(..8);
    Ok(bytes)
}

/// Checks magic and length and returns the sizes.
fn header<const N: usize>(
    bytes: &[u8],
    kind: &'static str,
    expected: u32,
) -> Result<[u32; N], IdxError> {
    let (words, _) = bytes.as_chunks::<4>();
    let mut first = [0; 4];
    first[..bytes.len().min(4)].copy_from_slice(&bytes[..bytes.len().min(4)]);
    let found = u32::from_be_bytes(first);
    if bytes.len() < 4 || found != expected {
        return Err(IdxError::Magic { kind, found, expected });
    }
    let start = 4 + 4 * N as u64;
    let mut sizes = [0; N];
    for (index, size) in sizes.iter_mut().enumerate() {
        let Some(word) = words.get(index + 1) else {
            return Err(IdxError::Length { found: bytes.len() as u64, expected: start });
        };
        *size = u32::from_be_bytes(*word);
    }
    // Three 32-bit sizes can exceed 64 bits.
    let product = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size.into()));
    let expected = product.and_then(|product| product.checked_add(start)).unwrap_or(u64::MAX);
    if bytes.len() as u64 != expected {
        return Err(IdxError::Length { found: bytes.len() as u64, expected });
    }
    Ok(sizes)
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.to_vec());
    }
    let mut out = Vec::new();
    let limit = limits::IDX_BYTES;
    let mut stream = MultiGzDecoder::new(bytes).take(limit + 1);
    stream.read_to_end(&mut out).map_err(IdxError::Gzip)?;
    if out.len() as u64 > limit {
        return Err(IdxError::Bomb { limit });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file(magic: u32, sizes: &[u32], data: &[u8]) -> Vec<u8> {
        let words = std::iter::once(&magic).chain(sizes);
        words.flat_map(|word| word.to_be_bytes()).chain(data.iter().copied()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut stream = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        stream.write_all(bytes).unwrap();
        stream.finish().unwrap()
    }

    #[test]
    fn reads_images_and_labels_plain_and_compressed() {
        let images = file(0x803, &[2, 2, 3], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        for bytes in [images.clone(), gzip(&images)] {
            let images = IdxImages::parse(&bytes).unwrap();
            assert_eq!((images.len(), images.height, images.width), (2, 2, 3));
            assert_eq!(images.get(1), Some(&[6, 7, 8, 9, 10, 11][..]));
            assert_eq!(images.get(2), None);
        }
        let labels = file(0x801, &[3], &[7, 8, 9]);
        for bytes in [labels.clone(), gzip(&labels)] {
            assert_eq!(parse_labels(&bytes).unwrap(), [7, 8, 9]);
        }
    }

    #[test]
    fn refuses_broken_files_by_name() {
        let images = |sizes: &[u32], data: &[u8]| IdxImages::parse(&file(0x803, sizes, data));
        assert!(matches!(
            IdxImages::parse(&file(0x801, &[1], &[1])),
            Err(IdxError::Magic { found: 0x801, expected: 0x803, .. })
        ));
        assert!(matches!(IdxImages::parse(&[]), Err(IdxError::Magic { .. })));
        assert!(matches!(images(&[1], &[]), Err(IdxError::Length { found: 8, expected: 16 })));
        assert!(matches!(
            images(&[2, 1, 2], &[0; 3]),
            Err(IdxError::Length { found: 19, expected: 20 })
        ));
        assert!(matches!(images(&[1, 1, 1], &[0; 2]), Err(IdxError::Length { .. })));
        assert!(matches!(images(&[u32::MAX; 3], &[0; 2]), Err(IdxError::Length { .. })));
        assert!(matches!(images(&[5, 0, 3], &[]), Err(IdxError::Side { .. })));
        let whole = gzip(&file(0x801, &[3], &[7, 8, 9]));
        assert!(matches!(parse_labels(&whole[..whole.len() - 9]), Err(IdxError::Gzip(_))));
    }

    #[test]
    fn a_decompression_bomb_is_stopped() {
        // Members of a gzip file are concatenated: 1,025 of 1 MiB of zeros.
        let member = gzip(&vec![0; 1 << 20]);
        let error = parse_labels(&member.repeat(1025)).unwrap_err();
        assert!(matches!(error, IdxError::Bomb { .. }));
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_bytes(
            magic in prop_oneof![Just(vec![]), Just(vec![0, 0, 8, 1]), Just(vec![0, 0, 8, 3]),
                                 Just(vec![0x1f, 0x8b, 8])],
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [magic, bytes].concat();
            _ = IdxImages::parse(&bytes);
            _ = parse_labels(&bytes);
        }
    }
}
