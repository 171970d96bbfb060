//! One head of online softmax attention. No n×n matrix exists.

use core::hint::black_box;
use undertone_board::{Digest, measure};
use undertone_core::fixed::attention::{Head, Mask, Rows, scratch_len, softmax};
use undertone_core::fixed::{KernelError, Requant, math::LOG2_E_Q62};

use crate::inputs::words;

/// A head of n tokens of width d, and room for its result.
pub struct State<const D: usize, const ND: usize> {
    scratch: [i64; D],
    /// The result, row by row.
    pub out: [i16; ND],
}

impl<const D: usize, const ND: usize> State<D, ND> {
    /// Room for a result.
    pub const EMPTY: Self = Self { scratch: [0; D], out: [0; ND] };
}

/// Queries, keys and values of 49 tokens of width 16, 11 fraction bits.
pub static SMALL: [[i16; 784]; 3] = [words(15, 12), words(16, 12), words(17, 15)];
/// Queries, keys and values of 197 tokens of width 64, 11 fraction bits.
pub static LARGE: [[i16; 12_608]; 3] = [words(18, 11), words(19, 11), words(20, 15)];

/// The kernel as counted.
///
/// # Errors
/// As [`softmax`].
#[inline(never)]
pub fn kernel_attention(
    qkv: [&[i16]; 3],
    d: usize,
    scratch: &mut [i64],
    out: &mut [i16],
) -> Result<(), KernelError> {
    let n = out.len().checked_div(d).unwrap_or(0);
    let [q, k, v] = qkv.map(|x| Rows::new(x, n, d, d));
    // Queries carry 1/√d already.
    let score = Requant::scaled(LOG2_E_Q62, 22, 10);
    let head = Head { q: q?, k: k?, v: v?, score, mask: Mask::default() };
    softmax::<10, _>(&head, 0, scratch, out, d).map(|_| ())
}

fn run_head<const D: usize, const ND: usize>(
    qkv: &'static [[i16; ND]; 3],
    state: &mut State<D, ND>,
) {
    const { assert!(scratch_len(D) == D) };
    let [q, k, v] = black_box(qkv);
    // A refusal leaves zeros, which no digest of a good run has.
    let _ = kernel_attention([q, k, v], D, &mut state.scratch, &mut state.out);
}

/// Counts the small head.
pub fn run() {
    let mut state = State::<16, 784>::EMPTY;
    measure("attention/49x16", &mut state, |s| run_head(&SMALL, s), |s| Digest::EMPTY.with(&s.out));
}

/// Counts the large head; its result alone needs 25 KB.
pub fn run_large() {
    let mut state = State::<64, 12_608>::EMPTY;
    measure(
        "attention/197x64",
        &mut state,
        |s| run_head(&LARGE, s),
        |s| Digest::EMPTY.with(&s.out),
    );
}
