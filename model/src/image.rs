//! PNG and JPEG files to the values a vision transformer reads.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageError, ImageReader, Limits};

use crate::config::VitInput;
use crate::limits::{self, ReadError};

/// A decoded picture of 8-bit gray or color.
#[derive(Clone, Debug)]
pub struct Picture {
    image: DynamicImage,
}

/// What to do with a picture of another size than the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Refuse it.
    Refuse,
    /// Scale it to the model's size with a triangle filter, without keeping its proportions.
    Scale,
}

/// A refused picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file could not be read within its limit.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Not a PNG or JPEG, or a broken one.
    #[error("not a readable PNG or JPEG: {0}")]
    Decode(ImageError),
    /// The picture is larger than the limits of the decoder.
    #[error("the picture is too large to decode: {0}")]
    Limits(ImageError),
    /// The picture has another size than the model reads.
    #[error(
        "the picture is {width}×{height}; the model reads {expected}×{expected}: resize it, or \
         ask for resizing"
    )]
    Size {
        /// Pixels of a line.
        width: u32,
        /// Lines.
        height: u32,
        /// Side of the model's images.
        expected: usize,
    },
    /// The number of pixels does not fit the sides.
    #[error("{found} pixels for a picture of {width}×{height}")]
    Pixels {
        /// Pixels given.
        found: usize,
        /// Pixels of a line.
        width: usize,
        /// Lines.
        height: usize,
    },
}

impl Picture {
    /// Reads a PNG or JPEG file.
    ///
    /// # Errors
    /// [`PictureError`] if it is not one, or exceeds a limit.
    pub fn load(path: &Path) -> Result<Self, PictureError> {
        Self::decode(&limits::read_bounded(path, limits::IMAGE_BYTES)?)
    }

    /// Decodes the bytes of a PNG or JPEG file; the format is read from the bytes.
    ///
    /// # Errors
    /// As [`Picture::load`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PictureError> {
        let refused = |error| match error {
            ImageError::Limits(_) => PictureError::Limits(error),
            _ => PictureError::Decode(error),
        };
        let reader = ImageReader::new(Cursor::new(bytes));
        let mut reader = reader.with_guessed_format().map_err(|e| refused(e.into()))?;
        let mut bounds = Limits::default();
        bounds.max_image_width = Some(limits::IMAGE_SIDE);
        bounds.max_image_height = Some(limits::IMAGE_SIDE);
        bounds.max_alloc = Some(limits::IMAGE_MEMORY);
        reader.limits(bounds);
        Ok(Self { image: reader.decode().map_err(refused)? })
    }

    /// A gray picture from its pixels, line by line.
    ///
    /// # Errors
    /// [`PictureError::Pixels`] unless there are `width`·`height` pixels.
    pub fn gray(width: usize, height: usize, pixels: &[u8]) -> Result<Self, PictureError> {
        let refused = || PictureError::Pixels { found: pixels.len(), width, height };
        let sides = u32::try_from(width).ok().zip(u32::try_from(height).ok());
        let (w, h) = sides.ok_or_else(refused)?;
        // `from_raw` accepts a longer buffer, so the length is checked first.
        if width.checked_mul(height) != Some(pixels.len()) {
            return Err(refused());
        }
        let image = GrayImage::from_raw(w, h, pixels.to_vec()).ok_or_else(refused)?;
        Ok(Self { image: image.into() })
    }

    /// Pixels of a line and lines.
    pub fn size(&self) -> (u32, u32) {
        (self.image.width(), self.image.height())
    }

    /// The values a model reads: `[channels, side, side]`, (pixel/255 − mean)/std per channel.
    ///
    /// Gray becomes RGB by repetition, RGB gray by luma; transparency is dropped and 16-bit
    /// channels keep their upper 8 bits.
    ///
    /// # Errors
    /// [`PictureError::Size`] for another size without [`Resize::Scale`].
    pub fn to_input(&self, vit: &VitInput, resize: Resize) -> Result<Vec<f32>, PictureError> {
        let interleaved = self.to_pixels(vit, resize)?;
        let mut values = Vec::with_capacity(vit.image_len());
        for (channel, table) in normalised(vit).iter().enumerate() {
            let pixels = interleaved.iter().skip(channel).step_by(vit.channels);
            values.extend(pixels.map(|&pixel| table[usize::from(pixel)]));
        }
        Ok(values)
    }

    /// The 8-bit pixels behind [`Picture::to_input`], line by line with the channels of a pixel
    /// side by side.
    ///
    /// # Errors
    /// As [`Picture::to_input`].
    pub fn to_pixels(&self, vit: &VitInput, resize: Resize) -> Result<Vec<u8>, PictureError> {
        let expected = vit.image_size;
        let side = expected as u32;
        let (width, height) = self.size();
        let resized;
        let image = if (width, height) == (side, side) {
            &self.image
        } else if resize == Resize::Scale {
            resized = self.image.resize_exact(side, side, image::imageops::FilterType::Triangle);
            &resized
        } else {
            return Err(PictureError::Size { width, height, expected });
        };
        Ok(match vit.channels {
            1 => image.to_luma8().into_raw(),
            _ => image.to_rgb8().into_raw(),
        })
    }
}

/// The value of each 8-bit pixel, for each channel.
#[must_use]
pub fn normalised(vit: &VitInput) -> Vec<[f32; 256]> {
    let of = |(mean, std): (&f64, &f64)| {
        std::array::from_fn(|pixel| ((pixel as f64 / 255.0 - mean) / std) as f32)
    };
    vit.pixel_mean.iter().zip(&vit.pixel_std).map(of).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::{ImageFormat, RgbImage};
    use proptest::prelude::*;

    use super::*;

    fn vit(side: usize, channels: usize) -> VitInput {
        VitInput {
            image_size: side,
            patch_size: 1,
            channels,
            class_token: false,
            pixel_mean: [0.5, 0.25, 0.0][..channels].to_vec(),
            pixel_std: [0.5, 0.25, 1.0][..channels].to_vec(),
        }
    }

    fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn rgb() -> DynamicImage {
        RgbImage::from_raw(2, 2, (0..12).map(|x| x * 20).collect()).unwrap().into()
    }

    #[test]
    fn png_becomes_planes_of_normalised_channels() {
        let picture = Picture::decode(&encode(&rgb(), ImageFormat::Png)).unwrap();
        let values = picture.to_input(&vit(2, 3), Resize::Refuse).unwrap();
        let at = |pixel: f32, mean: f32, std: f32| (pixel / 255.0 - mean) / std;
        assert!((values[1] - at(60.0, 0.5, 0.5)).abs() < 1e-6);
        assert!((values[4] - at(20.0, 0.25, 0.25)).abs() < 1e-6);
        assert!((values[11] - at(220.0, 0.0, 1.0)).abs() < 1e-6);
        assert_eq!(picture.to_input(&vit(2, 1), Resize::Refuse).unwrap().len(), 4);
    }

    #[test]
    fn jpeg_and_gray_are_read() {
        let gray = Picture::gray(2, 2, &[0, 51, 102, 255]).unwrap();
        let values = gray.to_input(&vit(2, 3), Resize::Refuse).unwrap();
        assert_eq!(values[..2], [-1.0, -0.6]);
        assert_eq!(values[4..6], [-1.0, -0.2]);
        let jpeg = encode(&DynamicImage::new_luma8(8, 8), ImageFormat::Jpeg);
        assert_eq!(Picture::decode(&jpeg).unwrap().size(), (8, 8));
        assert!(matches!(Picture::gray(2, 2, &[0; 5]), Err(PictureError::Pixels { .. })));
        assert!(matches!(Picture::gray(usize::MAX, 2, &[]), Err(PictureError::Pixels { .. })));
    }

    #[test]
    fn another_size_is_refused_unless_resizing_was_asked_for() {
        let picture = Picture::decode(&encode(&rgb(), ImageFormat::Png)).unwrap();
        let error = picture.to_input(&vit(28, 1), Resize::Refuse).unwrap_err().to_string();
        assert!(error.contains("2×2") && error.contains("28×28"), "{error}");
        assert_eq!(picture.to_input(&vit(28, 1), Resize::Scale).unwrap().len(), 784);
    }

    #[test]
    fn broken_and_huge_files_are_refused() {
        let png = encode(&rgb(), ImageFormat::Png);
        for length in [0, 8, 20, png.len() / 2, png.len() - 13] {
            let error = Picture::decode(&png[..length]).unwrap_err();
            assert!(matches!(error, PictureError::Decode(_)), "{length} bytes: {error}");
        }
        assert!(matches!(Picture::decode(b"GIF89a"), Err(PictureError::Decode(_))));
        // One pixel wider than the limit.
        let huge = encode(&DynamicImage::new_luma8(16_385, 1), ImageFormat::Png);
        assert!(matches!(Picture::decode(&huge), Err(PictureError::Limits(_))));
    }

    proptest! {
        #[test]
        fn never_panics_on_changed_bytes(
            jpeg: bool,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let format = if jpeg { ImageFormat::Jpeg } else { ImageFormat::Png };
            let mut bytes = encode(&rgb(), format);
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            _ = Picture::decode(&bytes);
            _ = Picture::decode(&bytes[..cut.index(bytes.len())]);
        }

        #[test]
        fn never_panics_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            _ = Picture::decode(&bytes);
        }
    }
}
