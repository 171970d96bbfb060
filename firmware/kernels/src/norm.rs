//! Layer norm of a row of 64.

use core::hint::black_box;
use undertone_board::{Digest, check, measure};
use undertone_core::fixed::{Bias, norm::LayerNorm};

use crate::inputs::words;

/// The row.
pub static ROW: [i16; 64] = words(5, 12);
/// Gains with 12 fraction bits.
pub static GAIN: [i16; 64] = words(6, 13);
/// Offsets with 12 fraction bits.
pub static BIAS: [i16; 64] = words(7, 12);

/// The norm: ε = 1e-6, 10 fraction bits in, 12 out.
#[must_use]
pub fn norm() -> LayerNorm<'static> {
    LayerNorm {
        eps_q48: 281_474_977,
        in_frac: 10,
        gamma: &GAIN,
        gamma_frac: 12,
        beta: Bias { data: &BIAS, frac: 12 },
        out_frac: 12,
    }
}

/// The kernel as counted.
#[inline(never)]
pub fn kernel_norm(x: &[i16], out: &mut [i16]) -> bool {
    norm().apply(x, out).is_ok()
}

/// Counts the row, and checks a constant one and one of extremes.
pub fn run() {
    measure(
        "norm/64",
        &mut [0; 64],
        |out| _ = kernel_norm(black_box(&ROW), out),
        |out| Digest::EMPTY.with(out),
    );
    let mut extremes = [i16::MIN; 64];
    for x in extremes.iter_mut().step_by(2) {
        *x = i16::MAX;
    }
    for (name, x) in [("norm/equal", [17; 64]), ("norm/extremes", extremes)] {
        let mut out = [0; 64];
        kernel_norm(&x, &mut out);
        check(name, Digest::EMPTY.with(&out));
    }
}
