//! The operands of an encoder in one file: 16-bit little-endian numbers, each operand on a multiple
//! of four bytes.

use undertone_core::encoder::{Activation, Norm};
use undertone_core::fixed::Operand;

use super::Host;
use crate::build::Prepared;

/// One array of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Array {
    /// The static that holds it.
    pub(super) name: String,
    /// Its values.
    pub(super) values: Vec<i16>,
    /// Its first byte in the file.
    pub(super) at: usize,
}

/// All of them, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Weights {
    pub(super) arrays: Vec<Array>,
}

impl Weights {
    fn add(&mut self, name: String, values: &[i16]) {
        let at = self.bytes();
        self.arrays.push(Array { name, values: values.to_vec(), at });
    }

    fn operand(&mut self, name: &str, operand: &Operand<Vec<i16>>) {
        match operand {
            Operand::Linear { weight, bias, .. } => {
                self.add(name.to_owned(), weight);
                if let Some((bias, _)) = bias {
                    self.add(format!("{name}_BIAS"), bias);
                }
            }
            Operand::Vector { values, .. } => self.add(name.to_owned(), values),
        }
    }

    fn norm(&mut self, name: &str, norm: &Norm<Host>) {
        let (Norm::Layer { gain, bias, .. } | Norm::Affine { gain, bias }) = norm;
        self.operand(&format!("{name}_GAIN"), gain);
        self.operand(&format!("{name}_BIAS"), bias);
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> usize {
        self.arrays.last().map_or(0, |a| (a.at + 2 * a.values.len()).next_multiple_of(4))
    }

    /// The file.
    pub(super) fn file(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        for array in &self.arrays {
            out.resize(array.at, 0);
            out.extend(array.values.iter().flat_map(|v| v.to_le_bytes()));
        }
        out.resize(self.bytes(), 0);
        out
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
