//! Weights, ranges and the encoder, all in flash. Written by `undertone export`.

#[allow(unused_imports)]
use undertone_core::attention::{Kind, Variant};
use undertone_core::encoder::{Activation, Encoder, Group, Groups, Layer, Norm, NormPosition, Pooling};
use undertone_core::fixed::{Block, Flash, Operand, Quad, Weight};
#[allow(unused_imports)]
use undertone_core::{Function, Num, Range, Ranges, Role, Shape, Site};

use crate::World;

/// Words on a multiple of four bytes.
#[repr(C, align(4))]
struct Words<const N: usize>([i16; N]);

// Read when the crate is compiled.
const FILE: &[u8] = include_bytes!("weights.bin");

/// The words from a byte of the file on.
const fn words<const N: usize>(at: usize) -> Words<N> {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = i16::from_le_bytes([FILE[at + 2 * i], FILE[at + 2 * i + 1]]);
        i += 1;
    }
    Words(out)
}

/// Signs, 32 to a word.
#[allow(unused)]
const fn signs<const N: usize>(at: usize) -> [u32; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        let b = at + 4 * i;
        out[i] = u32::from_le_bytes([FILE[b], FILE[b + 1], FILE[b + 2], FILE[b + 3]]);
        i += 1;
    }
    out
}

/// Bytes, four rows side by side.
#[allow(unused)]
const fn blocks<const N: usize>(at: usize) -> [Block; N] {
    let mut out = [Block([Quad([0; 4]); 4]); N];
    let mut i = 0;
    while i < 16 * N {
        out[i / 16].0[i / 4 % 4].0[i % 4] = FILE[at + i] as i8;
        i += 1;
    }
    out
}

#[allow(unused)]
const fn halves(values: &'static [i16]) -> Weight<Flash> {
    Weight::Halves(values)
}

#[allow(unused)]
const fn in_bytes(blocks: &'static [Block], scale: &'static [i16]) -> Weight<Flash> {
    Weight::Bytes { blocks, scale }
}

#[allow(unused)]
const fn in_signs(words: &'static [u32], scale: &'static [i16], of_signs: bool) -> Weight<Flash> {
    Weight::Signs { words, scale, of_signs }
}

#[allow(unused)]
const fn linear(
    inputs: usize,
    outputs: usize,
    weight: Weight<Flash>,
    frac: i16,
    bias: Option<(&'static [i16], i16)>,
) -> Operand<Flash> {
    Operand::Linear { inputs, outputs, weight, frac, bias }
}

#[allow(unused)]
const fn vector(shape: Shape, values: &'static [i16], frac: i16) -> Operand<Flash> {
    Operand::Vector { shape, values, frac }
}

const fn range(lo: Num, hi: Num) -> Range {
    Range::new(lo, hi)
}

