//! Sentences to token ids, through the model's own `tokenizer.json`.

use std::path::Path;

use tokenizers::{Tokenizer, TruncationParams};

use crate::config::{Config, Input};
use crate::limits::{self, ReadError};

/// A tokenizer set up for one model: truncation at the model's longest sequence, no padding.
pub struct TextEncoder {
    tokenizer: Tokenizer,
}

/// A sentence as a model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIds {
    /// The ids, special tokens included.
    pub ids: Vec<u32>,
    /// Which ids are not padding.
    pub mask: Vec<bool>,
}

/// A refused tokenizer or text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The file could not be read within its limit.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is not a tokenizer.
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    /// The model reads images.
    #[error("text needs a bert; this model reads images")]
    NotText,
    /// No token is left beside the special ones.
    #[error("the text is empty: no token is left beside the special ones")]
    Empty,
    /// The text is longer than the limit.
    #[error("the text has {found} bytes; the limit is {limit}: split it")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The tokenizer failed on the text.
    #[error("the tokenizer failed: {0}")]
    Encode(String),
    /// The tokenizer knows more tokens than the model.
    #[error(
        "tokenizer.json has {found} tokens, but the model's vocabulary {vocabulary}; is it this \
         model's tokenizer?"
    )]
    Vocabulary {
        /// Tokens of the tokenizer.
        found: usize,
        /// Vocabulary of the model.
        vocabulary: usize,
    },
}

impl TextEncoder {
    /// Reads `tokenizer.json` from a model's folder.
    ///
    /// # Errors
    /// [`TextError`] if the file or the model is not one for text, or they do not belong
    /// together.
    pub fn load(folder: &Path, config: &Config) -> Result<Self, TextError> {
        // An image model has no tokenizer: that is what to say, not that a file is missing.
        if !matches!(config.input, Input::Bert(_)) {
            return Err(TextError::NotText);
        }
        let path = folder.join("tokenizer.json");
        Self::parse(&limits::read_bounded(&path, limits::TOKENIZER_BYTES)?, config)
    }

    /// Parses the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`TextEncoder::load`].
    pub fn parse(json: &[u8], config: &Config) -> Result<Self, TextError> {
        let Input::Bert(bert) = &config.input else {
            return Err(TextError::NotText);
        };
        let refused = |error: tokenizers::Error| TextError::Tokenizer(error.to_string());
        let mut tokenizer = Tokenizer::from_bytes(checked(json)?).map_err(refused)?;
        let (found, vocabulary) = (tokenizer.get_vocab_size(true), bert.vocabulary);
        if found > vocabulary {
            return Err(TextError::Vocabulary { found, vocabulary });
        }
        let truncation = TruncationParams { max_length: bert.positions, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(refused)?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer })
    }

    /// Turns one sentence into ids; a longer one than the model reads is cut.
    ///
    /// # Errors
    /// [`TextError::Empty`] where no token is left beside the special ones, and
    /// [`TextError::TooLong`] above [`limits::TEXT_BYTES`].
    pub fn encode(&self, text: &str) -> Result<TokenIds, TextError> {
        if text.len() > limits::TEXT_BYTES {
            return Err(TextError::TooLong { found: text.len(), limit: limits::TEXT_BYTES });
        }
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|error| TextError::Encode(error.to_string()))?;
        if encoding.get_special_tokens_mask().iter().all(|&special| special == 1) {
            return Err(TextError::Empty);
        }
        Ok(TokenIds {
            ids: encoding.get_ids().to_vec(),
            mask: encoding.get_attention_mask().iter().map(|&kept| kept == 1).collect(),
        })
    }
}

/// The JSON in a form that the tokenizers crate takes without a panic.
///
/// Its decoder panics on broken JSON and its precompiled normaliser on a broken table: the whole
/// is parsed first, decoders are left out since nothing is decoded, and precompiled normalisers,
/// which no `bert` has, are refused. What is parsed here is written anew, so that a key that
/// stands twice cannot bring them back.
fn checked(json: &[u8]) -> Result<Vec<u8>, TextError> {
    let refused = |error: serde_json::Error| TextError::Tokenizer(error.to_string());
    let mut value: serde_json::Value = serde_json::from_slice(json).map_err(refused)?;
    let Some(map) = value.as_object_mut() else {
        return Err(TextError::Tokenizer("expected a JSON object".to_owned()));
    };
    if map.contains_key("decoder") {
        map.insert("decoder".to_owned(), serde_json::Value::Null);
    }
    if map.get("normalizer").is_some_and(|n| n.to_string().contains("recompiled")) {
        let what = "precompiled normalizers are not supported; a bert has a BertNormalizer";
        return Err(TextError::Tokenizer(what.to_owned()));
    }
    serde_json::to_vec(&value).map_err(refused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn config(vocabulary: usize) -> Config {
        let json = json!({"model_type": "bert", "vocab_size": vocabulary,
            "max_position_embeddings": 5, "hidden_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 1, "intermediate_size": 4});
        Config::parse(json.to_string().as_bytes(), None).unwrap()
    }

    fn tokenizer() -> Vec<u8> {
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "special": true, "single_word": false,
                   "lstrip": false, "rstrip": false, "normalized": false})
        };
        let json = json!({
            "version": "1.0",
            "added_tokens": [special(0, "[UNK]"), special(1, "[CLS]"), special(2, "[SEP]")],
            "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
            "decoder": null,
            "model": {"type": "WordLevel", "unk_token": "[UNK]",
                      "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "man": 4}}
        });
        json.to_string().into_bytes()
    }

    #[test]
    fn encodes_truncates_and_refuses() {
        let encoder = TextEncoder::parse(&tokenizer(), &config(5)).unwrap();
        let encoded = encoder.encode("a man").unwrap();
        assert_eq!(encoded, TokenIds { ids: vec![1, 3, 4, 2], mask: vec![true; 4] });
        assert_eq!(encoder.encode("a man a man a man").unwrap().ids, [1, 3, 4, 3, 2]);
        assert!(matches!(encoder.encode(""), Err(TextError::Empty)));
        assert!(matches!(encoder.encode("  \n"), Err(TextError::Empty)));
        let long = "a ".repeat(limits::TEXT_BYTES / 2 + 1);
        assert!(matches!(encoder.encode(&long), Err(TextError::TooLong { .. })));
    }

    #[test]
    fn the_tokenizer_must_fit_the_model() {
        let wrong = TextEncoder::parse(&tokenizer(), &config(4));
        assert!(matches!(wrong, Err(TextError::Vocabulary { found: 5, vocabulary: 4 })));
        let broken = TextEncoder::parse(b"{}", &config(5));
        assert!(matches!(broken, Err(TextError::Tokenizer(_))));
    }

    /// Inputs on which the tokenizers crate panics.
    #[test]
    fn refuses_what_would_panic() {
        let parse = |json: &[u8]| TextEncoder::parse(json, &config(5));
        let broken = parse(b"{\"version\": \"1.0\", \"decoder\": \0\0null}");
        assert!(matches!(broken, Err(TextError::Tokenizer(_))));
        for normalizer in [
            json!({"type": "Precompiled", "precompiled_charsmap": "?"}),
            json!({"type": {"Precompiled": null}}),
            json!({"type": "Sequence", "normalizers": [{"type": "Precompiled"}]}),
        ] {
            let mut value: serde_json::Value = serde_json::from_slice(&tokenizer()).unwrap();
            value["normalizer"] = normalizer;
            assert!(matches!(parse(value.to_string().as_bytes()), Err(TextError::Tokenizer(_))));
        }
        let mut value: serde_json::Value = serde_json::from_slice(&tokenizer()).unwrap();
        value["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        assert!(parse(value.to_string().as_bytes()).is_ok());
    }
}
