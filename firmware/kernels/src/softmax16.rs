//! Softmax in one pass by shifts, to 16-bit probabilities.

use core::hint::black_box;
use undertone_board::{Digest, check, measure};
use undertone_core::fixed::shift::softmax;

use crate::inputs::longs;

/// Fraction bits of a logit, in octaves.
pub const FRAC: u32 = 10;
/// A row of 64: logits in ±8 octaves.
pub static ROW_64: [i32; 64] = longs(1, 14);
/// A row of 197.
pub static ROW_197: [i32; 197] = longs(2, 14);

/// The kernel as counted.
#[inline(never)]
pub fn kernel_softmax16(x: &[i32], out: &mut [u16]) -> bool {
    softmax::<FRAC, u16>(x, 16, out).is_ok()
}

/// Rows that break careless kernels: what they are, and their values.
pub fn hostile(visit: &mut dyn FnMut(&str, &[i32])) {
    visit("softmax16/one", &[-7]);
    visit("softmax16/equal", &[3; 64]);
    visit("softmax16/lowest", &[i32::MIN; 64]);
    visit("softmax16/highest", &[i32::MAX; 64]);
    let mut spike = [i32::MIN; 64];
    spike[63] = i32::MAX;
    visit("softmax16/spike", &spike);
    visit("softmax16/longest", &[0; LONGEST]);
}

/// The longest row checked on a board.
pub const LONGEST: usize = 1024;

/// Counts the rows and checks the hostile ones.
pub fn run() {
    measure(
        "softmax16/64",
        &mut [0; 64],
        |out| _ = kernel_softmax16(black_box(&ROW_64), out),
        |out| Digest::EMPTY.with(out),
    );
    measure(
        "softmax16/197",
        &mut [0; 197],
        |out| _ = kernel_softmax16(black_box(&ROW_197), out),
        |out| Digest::EMPTY.with(out),
    );
    hostile(&mut |name, x| {
        let mut out = [0; LONGEST];
        if let Some(out) = out.get_mut(..x.len()) {
            kernel_softmax16(x, out);
            check(name, Digest::EMPTY.with(out));
        }
    });
}
