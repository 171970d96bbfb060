//! The portable linear layer: 64 inputs to 64 outputs, 16-bit activations.

use core::hint::black_box;
use undertone_board::{Digest, measure};
use undertone_core::fixed::linear::{Dims, Form, Operand, matmul};
use undertone_core::fixed::{Bias, Requant};

use crate::inputs::{bytes, words};

/// Activations.
pub static X: [i16; 64] = words(8, 16);
/// 16-bit weights.
pub static W16: [i16; 4096] = words(9, 16);
/// 8-bit weights.
pub static W8: [i8; 4096] = bytes(10);
/// Offsets.
pub static BIAS: [i16; 64] = words(11, 16);

fn linear<B: Operand>(x: &[i16], w: &[B], shift: u32, out: &mut [i16]) -> bool {
    let dims = Dims { m: 1, k: 64, n: 64 };
    let bias = Some((Bias { data: &BIAS, frac: 15 }, 15));
    matmul(Form::NT, dims, x, w, bias, &[Requant::fractions(shift, 0)], out).is_ok()
}

/// The kernel as counted, 16-bit weights.
#[inline(never)]
pub fn kernel_linear16(x: &[i16], out: &mut [i16]) -> bool {
    linear(x, &W16, 18, out)
}

/// The kernel as counted, 8-bit weights.
#[inline(never)]
pub fn kernel_linear8(x: &[i16], out: &mut [i16]) -> bool {
    linear(x, &W8, 10, out)
}

/// Counts both.
pub fn run() {
    measure(
        "linear16/64x64",
        &mut [0; 64],
        |out| _ = kernel_linear16(black_box(&X), out),
        |out| Digest::EMPTY.with(out),
    );
    measure(
        "linear8/64x64",
        &mut [0; 64],
        |out| _ = kernel_linear8(black_box(&X), out),
        |out| Digest::EMPTY.with(out),
    );
}
