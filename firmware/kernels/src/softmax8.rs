//! Softmax of 8-bit rows by table.

use core::hint::black_box;
use undertone_board::{Digest, check, measure};
use undertone_core::fixed::table_softmax::TableSoftmax;

use crate::inputs::bytes;

/// Logits with the unit 1/16.
pub static SOFTMAX: TableSoftmax = TableSoftmax::new(TableSoftmax::octaves_q24(1, 16));
/// A row of 64.
pub static ROW_64: [i8; 64] = bytes(1);
/// A row of 197.
pub static ROW_197: [i8; 197] = bytes(2);
/// Three rows of 49.
pub static ROWS_49: [i8; 147] = bytes(3);

/// The kernel as counted.
#[inline(never)]
pub fn kernel_softmax8(x: &[i8], cols: usize, out: &mut [i8]) -> bool {
    SOFTMAX.rows(x, cols, out).is_ok()
}

/// The longest row checked on a board.
pub const LONGEST: usize = 2048;

/// Rows that break careless kernels: what they are, and their values.
pub fn hostile(visit: &mut dyn FnMut(&str, usize, &[i8])) {
    visit("softmax8/one", 1, &[-7]);
    visit("softmax8/rows", 49, &ROWS_49);
    visit("softmax8/equal", 64, &[3; 64]);
    visit("softmax8/lowest", 64, &[-128; 64]);
    visit("softmax8/highest", 64, &[127; 64]);
    let mut spike = [-128; 64];
    spike[63] = 127;
    visit("softmax8/spike", 64, &spike);
    visit("softmax8/longest", LONGEST, &[0; LONGEST]);
}

/// Counts the rows and checks the hostile ones.
pub fn run() {
    let digest = |out: &[i8]| Digest::EMPTY.with(out);
    measure(
        "softmax8/64",
        &mut [0; 64],
        |out| _ = kernel_softmax8(black_box(&ROW_64), 64, out),
        |out| Digest::EMPTY.with(out),
    );
    measure(
        "softmax8/197",
        &mut [0; 197],
        |out| _ = kernel_softmax8(black_box(&ROW_197), 197, out),
        |out| Digest::EMPTY.with(out),
    );
    hostile(&mut |name, cols, x| {
        let mut out = [0; LONGEST];
        if let Some(out) = out.get_mut(..x.len()) {
            kernel_softmax8(x, cols, out);
            check(name, digest(out));
        }
    });
}
