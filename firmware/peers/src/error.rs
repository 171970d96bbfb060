//! The greatest distance of each result from the same computation in f64, in units of its last
//! place. On the board, in software.

use undertone_board::{print, print_number};
use undertone_kernels::{matvec, softmax8};

use crate::crates::{FLOW_SCALE, W, X, flow_softmax, nn_linear, nn_softmax};

fn show(name: &str, error: f64) {
    print("error ");
    print(name);
    print(" ");
    print_number((error * 1000.0 + 0.5) as u64);
    print("\n");
}

fn away(want: f64, got: i8) -> f64 {
    libm::fabs(want.clamp(-128.0, 127.0) - f64::from(got))
}

/// Probabilities in units of 1/256 with the zero point −128.
fn softmax<const N: usize>(name: &str, x: &[i8; N], kernel: impl Fn(&[i8; N], &mut [i8; N])) {
    let mut out = [0; N];
    kernel(x, &mut out);
    let sum: f64 = x.iter().map(|&v| libm::exp(f64::from(v) / 16.0)).sum();
    let want = |v: i8| 256.0 * libm::exp(f64::from(v) / 16.0) / sum - 128.0;
    show(name, x.iter().zip(out).map(|(&v, o)| away(want(v), o)).fold(0.0, f64::max));
}

fn product(row: usize) -> f64 {
    let row = W.iter().skip(64 * row).take(64);
    row.zip(&X).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()
}

fn linear(name: &str, out: &[i8; 64]) {
    let want = |i: usize| {
        let s = matvec::SCALES[i];
        (product(i) + f64::from(s.bias)) * f64::from(s.multiplier) * libm::exp2(-f64::from(s.shift))
    };
    show(name, (0..64).map(|i| away(want(i), out[i])).fold(0.0, f64::max));
}

/// microflow's product, which has one scale a tensor.
pub(crate) fn flow(out: &[i8; 64]) {
    let want = |i: usize| (product(i) + f64::from(matvec::SCALES[i].bias)) * FLOW_SCALE;
    show("flow_linear/64x64", (0..64).map(|i| away(want(i), out[i])).fold(0.0, f64::max));
}

pub(crate) fn run(
    cmsis_64: fn(&[i8; 64], &mut [i8; 64]),
    cmsis_197: fn(&[i8; 197], &mut [i8; 197]),
    cmsis_linear: fn(&mut [i8; 64]),
) {
    let (short, long) = (&softmax8::ROW_64, &softmax8::ROW_197);
    softmax("softmax8/64", short, |x, o| _ = softmax8::kernel_softmax8(x, 64, o));
    softmax("softmax8/197", long, |x, o| _ = softmax8::kernel_softmax8(x, 197, o));
    softmax("cmsis_softmax/64", short, cmsis_64);
    softmax("cmsis_softmax/197", long, cmsis_197);
    softmax("nn_softmax/64", short, nn_softmax);
    softmax("nn_softmax/197", long, nn_softmax);
    softmax("flow_softmax/64", short, flow_softmax);
    softmax("flow_softmax/197", long, flow_softmax);
    let mut out = [0; 64];
    matvec::kernel_matvec_requant(&matvec::X, &mut out);
    linear("matvec_requant/64x64", &out);
    cmsis_linear(&mut out);
    linear("cmsis_linear/64x64", &out);
    nn_linear(&mut out);
    linear("nn_linear/64x64", &out);
}
