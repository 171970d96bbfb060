//! The operands of an encoder in one file, little-endian, each on a multiple of four bytes.

use undertone_core::encoder::{Activation, Norm};
use undertone_core::fixed::{Block, Operand, Weight};

use super::Host;
use crate::build::Prepared;
use crate::fixed::Owned;

/// The values of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// 16-bit numbers.
    Halves(Vec<i16>),
    /// Words of signs.
    Words(Vec<u32>),
    /// Bytes of four rows side by side.
    Blocks(Vec<Block>),
}

impl Values {
    /// How many elements.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Halves(values) => values.len(),
            Self::Words(words) => words.len(),
            Self::Blocks(blocks) => blocks.len(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Halves(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Words(words) => words.iter().flat_map(|w| w.to_le_bytes()).collect(),
            Self::Blocks(blocks) => {
                blocks.iter().flat_map(|b| b.0).flat_map(|quad| quad.0).map(|x| x as u8).collect()
            }
        }
    }
}

/// One array of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Array {
    /// The static that holds it.
    pub(super) name: String,
    /// Its values.
    pub(super) values: Values,
    /// Its first byte in the file.
    pub(super) at: usize,
}

/// All of them, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Weights {
    pub(super) arrays: Vec<Array>,
    /// Whole words.
    pub(super) file: Vec<u8>,
}

impl Weights {
    fn add(&mut self, name: String, values: Values) {
        let at = self.file.len();
        self.file.extend(values.bytes());
        self.file.resize(self.file.len().next_multiple_of(4), 0);
        self.arrays.push(Array { name, values, at });
    }

    fn halves(&mut self, name: String, values: &[i16]) {
        self.add(name, Values::Halves(values.to_vec()));
    }

    fn operand(&mut self, name: &str, operand: &Operand<Owned>) {
        match operand {
            Operand::Linear { weight, bias, .. } => {
                let scale = match weight {
                    Weight::Halves(values) => {
                        self.halves(name.to_owned(), values);
                        None
                    }
                    Weight::Bytes { blocks, scale } => {
                        self.add(name.to_owned(), Values::Blocks(blocks.clone()));
                        Some(scale)
                    }
                    Weight::Signs { words, scale, .. } => {
                        self.add(name.to_owned(), Values::Words(words.clone()));
                        Some(scale)
                    }
                };
                if let Some(scale) = scale {
                    self.halves(format!("{name}_SCALE"), scale);
                }
                if let Some((bias, _)) = bias {
                    self.halves(format!("{name}_BIAS"), bias);
                }
            }
            Operand::Vector { values, .. } => self.halves(name.to_owned(), values),
        }
    }

    fn norm(&mut self, name: &str, norm: &Norm<Host>) {
        let (Norm::Layer { gain, bias, .. } | Norm::Affine { gain, bias }) = norm;
        self.operand(&format!("{name}_GAIN"), gain);
        self.operand(&format!("{name}_BIAS"), bias);
    }
}

/// The arrays of an encoder, named as `source` refers to them.
pub(super) fn collect(encoder: &Prepared<Host>) -> Weights {
    let mut w = Weights::default();
    if let Some(embed) = &encoder.embed {
        w.operand("EMBED", embed);
    }
    if let Some(position) = &encoder.position {
        w.operand("POSITION", position);
    }
    if let Some(norm) = &encoder.embed_norm {
        w.norm("EMBED_NORM", norm);
    }
    for (i, layer) in encoder.layers.iter().enumerate() {
        for (name, operand) in [
            ("QUERY", &layer.query),
            ("KEY", &layer.key),
            ("VALUE", &layer.value),
            ("OUT", &layer.out),
            ("UP", &layer.up),
        ] {
            w.operand(&format!("L{i}_{name}"), operand);
        }
        if let Some(down) = &layer.down {
            w.operand(&format!("L{i}_DOWN"), down);
        }
        if let Some(scale) = &layer.context_scale {
            w.operand(&format!("L{i}_CONTEXT_SCALE"), scale);
        }
        w.norm(&format!("L{i}_NORM1"), &layer.norm1);
        w.norm(&format!("L{i}_NORM2"), &layer.norm2);
        if let Activation::Quadratic { a, b } = &layer.activation {
            w.operand(&format!("L{i}_QUADRATIC_A"), a);
            w.operand(&format!("L{i}_QUADRATIC_B"), b);
        }
    }
    if let Some(norm) = &encoder.final_norm {
        w.norm("FINAL_NORM", norm);
    }
    if let Some(classifier) = &encoder.classifier {
        w.operand("CLASSIFIER", classifier);
    }
    w
}
