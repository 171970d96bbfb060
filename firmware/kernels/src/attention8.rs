//! One head of attention on bytes, as CMSIS-NN has it.

use core::hint::black_box;
use undertone_board::{Digest, measure};
use undertone_core::fixed::KernelError;
use undertone_core::fixed::attention8::{Head8, Scratch8, fours, tiles};
use undertone_dsp::{Four, Scale, Tile};

use crate::inputs::bytes;
use crate::softmax8::SOFTMAX;

/// Queries, keys and values of 49 tokens of width 16.
pub static SMALL: [[i8; 784]; 3] = [bytes(15), bytes(16), bytes(17)];
/// Queries, keys and values of 197 tokens of width 64.
pub static LARGE: [[i8; 12_608]; 3] = [bytes(18), bytes(19), bytes(20)];

/// A head's scratch and result: N tokens of width D, `KT` and `VT` tiles, `F` fours.
struct State<const KT: usize, const VT: usize, const F: usize, const N: usize, const ND: usize> {
    keys: [Tile; KT],
    values: [Tile; VT],
    row: [Four; F],
    sums: [[i32; 4]; F],
    bytes: [[i8; 2]; N],
    out: [i8; ND],
}

/// The kernel as counted.
///
/// # Errors
/// As [`Head8::run`].
#[inline(never)]
pub fn kernel_attention8(
    tokens: usize,
    width: usize,
    qkv: [&[i8]; 3],
    scratch: &mut Scratch8<'_>,
    out: &mut [i8],
) -> Result<(), KernelError> {
    let score = Scale { bias: 0, multiplier: 1 << 30, shift: 37 };
    let value = Scale { bias: 0, multiplier: 1 << 30, shift: 38 };
    let [q, k, v] = qkv;
    Head8 { tokens, width, score, value, softmax: &SOFTMAX }.run(q, k, v, scratch, out)
}

fn count<const KT: usize, const VT: usize, const F: usize, const N: usize, const ND: usize>(
    name: &str,
    qkv: &'static [[i8; ND]; 3],
    run: fn(&mut (State<KT, VT, F, N, ND>, &'static [[i8; ND]; 3])),
) {
    let state = State {
        keys: [Tile([0; 16]); KT],
        values: [Tile([0; 16]); VT],
        row: [Four([0; 4]); F],
        sums: [[0; 4]; F],
        bytes: [[0; 2]; N],
        out: [0; ND],
    };
    measure(name, &mut (state, qkv), run, |s| Digest::EMPTY.with(&s.0.out));
}

fn one<const KT: usize, const VT: usize, const F: usize, const N: usize, const ND: usize>(
    state: &mut (State<KT, VT, F, N, ND>, &'static [[i8; ND]; 3]),
) {
    let (s, qkv) = state;
    let [q, k, v] = black_box(*qkv);
    let mut scratch = Scratch8 {
        keys: &mut s.keys,
        values: &mut s.values,
        row: &mut s.row,
        sums: s.sums.as_flattened_mut(),
        bytes: s.bytes.as_flattened_mut(),
    };
    // A refusal leaves zeros, which no digest of a good run has.
    let _ = kernel_attention8(N, ND / N, [q, k, v], &mut scratch, &mut s.out);
}

/// Counts the small head.
pub fn run() {
    count(
        "attention8/49x16",
        &SMALL,
        one::<{ tiles(49, 16) }, { tiles(16, 49) }, { fours(49) }, 49, 784>,
    );
}

/// Counts the large head.
pub fn run_large() {
    count(
        "attention8/197x64",
        &LARGE,
        one::<{ tiles(197, 64) }, { tiles(64, 197) }, { fours(197) }, 197, 12_608>,
    );
}
