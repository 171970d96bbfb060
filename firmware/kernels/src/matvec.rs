//! 8-bit matrix times vector, 64 × 64, on the DSP instructions where there are any.

use core::hint::black_box;
use undertone_board::{Digest, measure};
use undertone_dsp::{Block, Quad, Scale, matvec, matvec_requant, pack, portable};

use crate::inputs::bytes;

/// The matrix, packed in flash.
pub static W: [Block; 256] = pack(&bytes::<4096>(12), 64);
/// The vector.
pub static X: [Quad; 16] = {
    let flat = bytes::<64>(13);
    let mut out = [Quad([0; 4]); 16];
    let mut i = 0;
    while i < 64 {
        out[i / 4].0[i % 4] = flat[i];
        i += 1;
    }
    out
};
/// How sums become bytes.
pub static SCALES: [Scale; 64] = {
    let offsets = bytes::<64>(14);
    let mut out = [Scale { bias: 0, multiplier: 1 << 30, shift: 40 }; 64];
    let mut i = 0;
    while i < 64 {
        out[i].bias = offsets[i] as i32 * 64;
        out[i].multiplier += (i as i32) << 23;
        i += 1;
    }
    out
};

/// The kernel as counted.
#[inline(never)]
pub fn kernel_matvec(x: &[Quad; 16], out: &mut [i32; 64]) {
    matvec(&W, x, out);
}

/// The kernel as counted, to bytes.
#[inline(never)]
pub fn kernel_matvec_requant(x: &[Quad; 16], out: &mut [i8; 64]) {
    matvec_requant(&W, x, &SCALES, out);
}

/// The portable twin, as counted.
#[inline(never)]
pub fn kernel_matvec_portable(x: &[Quad; 16], out: &mut [i8; 64]) {
    portable::matvec_requant(&W, x, &SCALES, out);
}

/// Counts all three.
pub fn run() {
    measure(
        "matvec/64x64",
        &mut [0; 64],
        |out| kernel_matvec(black_box(&X), out),
        |out| Digest::EMPTY.with(out),
    );
    measure(
        "matvec_requant/64x64",
        &mut [0; 64],
        |out| kernel_matvec_requant(black_box(&X), out),
        |out| Digest::EMPTY.with(out),
    );
    measure(
        "matvec_portable/64x64",
        &mut [0; 64],
        |out| kernel_matvec_portable(black_box(&X), out),
        |out| Digest::EMPTY.with(out),
    );
}
