//! What an encoder is given, checked against its configuration.

use crate::config::{Config, Input, VitInput};

/// One example.
#[derive(Clone, Copy, Debug)]
pub enum EncoderInput<'a> {
    /// A normalised image, `[channels, side, side]`, for a `vit`.
    Image(&'a [f32]),
    /// Token ids for a `bert`, all of token type 0.
    Tokens {
        /// The ids.
        ids: &'a [u32],
        /// Which ids are not padding; `None` where none is.
        mask: Option<&'a [bool]>,
    },
}

/// An example that does not fit the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// An image for a text model or text for an image model.
    #[error("the model reads {expected}, but was given {found}")]
    Kind {
        /// What the model reads.
        expected: &'static str,
        /// What it was given.
        found: &'static str,
    },
    /// The image has another number of values.
    #[error("the image has {found} values; the model reads {expected} (channels · side · side)")]
    ImageLength {
        /// Values given.
        found: usize,
        /// Values expected.
        expected: usize,
    },
    /// A pixel is NaN or infinite.
    #[error("the image holds a value that is not finite at index {index}")]
    NotFinite {
        /// Position in the image.
        index: usize,
    },
    /// No token, or nothing but padding.
    #[error("the sequence has no token that is not padding; attention over nothing is undefined")]
    EmptySequence,
    /// More tokens than position embeddings.
    #[error("the sequence has {found} tokens; the model reads at most {limit}: truncate it")]
    TooLong {
        /// Tokens given.
        found: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// An id beyond the vocabulary.
    #[error(
        "token {index} is {id}; the vocabulary has {vocabulary}: is this the model's tokenizer?"
    )]
    UnknownToken {
        /// Position in the sequence.
        index: usize,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The mask has another length than the ids.
    #[error("the mask has {found} entries for {expected} tokens")]
    MaskLength {
        /// Entries of the mask.
        found: usize,
        /// Tokens.
        expected: usize,
    },
}

impl EncoderInput<'_> {
    /// Checks the example and returns its number of tokens, class token included.
    ///
    /// # Errors
    /// [`InputError`] says what does not fit.
    pub fn check(&self, config: &Config) -> Result<usize, InputError> {
        match (&config.input, *self) {
            (Input::Vit(vit), Self::Image(image)) => {
                let (found, expected) = (image.len(), vit.image_len());
                if found != expected {
                    return Err(InputError::ImageLength { found, expected });
                }
                match image.iter().position(|x| !x.is_finite()) {
                    Some(index) => Err(InputError::NotFinite { index }),
                    None => Ok(config.tokens()),
                }
            }
            (Input::Bert(bert), Self::Tokens { ids, mask }) => {
                if let Some(mask) = mask
                    && mask.len() != ids.len()
                {
                    let (found, expected) = (mask.len(), ids.len());
                    return Err(InputError::MaskLength { found, expected });
                }
                let all_padding = mask.is_some_and(|mask| mask.iter().all(|kept| !kept));
                if ids.is_empty() || all_padding {
                    return Err(InputError::EmptySequence);
                }
                if ids.len() > bert.positions {
                    let (found, limit) = (ids.len(), bert.positions);
                    return Err(InputError::TooLong { found, limit });
                }
                let vocabulary = bert.vocabulary;
                match ids.iter().position(|&id| id as usize >= vocabulary) {
                    Some(index) => {
                        Err(InputError::UnknownToken { index, id: ids[index], vocabulary })
                    }
                    None => Ok(ids.len()),
                }
            }
            (Input::Vit(_), Self::Tokens { .. }) => {
                Err(InputError::Kind { expected: "images", found: "tokens" })
            }
            (Input::Bert(_), Self::Image(_)) => {
                Err(InputError::Kind { expected: "tokens", found: "an image" })
            }
        }
    }
}

/// Cuts an image `[channels, side, side]` into rows `[patches, channels · patch · patch]`, patches
/// in reading order and values ordered (channel, row, column), so that a product with the
/// flattened convolution weight is the convolution of Dosovitskiy et al. 2021
/// (arXiv 2010.11929, equation 1).
///
/// The image must have [`VitInput::image_len`] values; missing ones would end the rows early.
pub fn patchify(image: &[f32], vit: &VitInput) -> Vec<f32> {
    let mut rows = vec![0.0; vit.image_len()];
    patchify_into(image, vit, &mut rows);
    rows
}

/// [`patchify`] into memory of [`VitInput::image_len`] values.
pub fn patchify_into(image: &[f32], vit: &VitInput, rows: &mut [f32]) {
    let (side, patch) = (vit.image_size, vit.patch_size);
    let across = side / patch;
    // Runs of `patch` pixels stay together; walk them in the order of the image.
    for (run, pixels) in image.chunks_exact(patch).enumerate() {
        let (line, column) = (run / across, run % across);
        let (channel, y) = (line / side, line % side);
        let row = y / patch * across + column;
        let start = row * vit.patch_len() + (channel * patch + y % patch) * patch;
        rows[start..start + patch].copy_from_slice(pixels);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn vit() -> Config {
        let json = br#"{"model_type": "vit", "image_size": 4, "patch_size": 2, "num_channels": 3,
            "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 4}"#;
        Config::parse(json, None).unwrap()
    }

    fn bert() -> Config {
        let json = br#"{"model_type": "bert", "vocab_size": 9, "max_position_embeddings": 3,
            "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 4}"#;
        Config::parse(json, None).unwrap()
    }

    #[test]
    fn patches_are_ordered_as_the_convolution_sees_them() {
        let vit = vit().vit().unwrap().clone();
        let image: Vec<f32> = (0..48).map(|x| x as f32).collect();
        let rows = patchify(&image, &vit);
        // Patch 1 is the upper right one: columns 2 and 3 of lines 0 and 1 of each channel.
        let wanted = [2.0, 3.0, 6.0, 7.0, 18.0, 19.0, 22.0, 23.0, 34.0, 35.0, 38.0, 39.0];
        assert_eq!(rows[12..24], wanted);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let tokens = |ids, mask| EncoderInput::Tokens { ids, mask };
        let check = |input: EncoderInput<'_>| input.check(&bert()).unwrap_err();
        assert_eq!(tokens(&[1, 2], None).check(&bert()), Ok(2));
        assert_eq!(check(tokens(&[], None)), InputError::EmptySequence);
        assert_eq!(check(tokens(&[1], Some(&[false]))), InputError::EmptySequence);
        assert_eq!(check(tokens(&[1; 4], None)), InputError::TooLong { found: 4, limit: 3 });
        assert_eq!(
            check(tokens(&[1, 9], None)),
            InputError::UnknownToken { index: 1, id: 9, vocabulary: 9 }
        );
        assert_eq!(
            check(tokens(&[1], Some(&[]))),
            InputError::MaskLength { found: 0, expected: 1 }
        );
        assert!(matches!(check(EncoderInput::Image(&[0.0; 48])), InputError::Kind { .. }));

        let check = |input: EncoderInput<'_>| input.check(&vit()).unwrap_err();
        assert_eq!(EncoderInput::Image(&[0.0; 48]).check(&vit()), Ok(5));
        assert_eq!(
            check(EncoderInput::Image(&[0.0; 47])),
            InputError::ImageLength { found: 47, expected: 48 }
        );
        assert_eq!(check(EncoderInput::Image(&[f32::NAN; 48])), InputError::NotFinite { index: 0 });
        assert!(matches!(check(tokens(&[1], None)), InputError::Kind { .. }));
    }
}
