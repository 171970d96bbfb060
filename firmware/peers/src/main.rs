//! Other libraries' kernels, counted by the same counter on the same board as ours.
#![no_std]
#![no_main]

use core::hint::black_box;
use undertone_board::{Digest, measure};
use undertone_kernels::{attention, attention8, matvec, softmax8};

mod crates;
mod error;

// SAFETY: as declared in head.c; every pointer below is to as many bytes as it reads or writes.
unsafe extern "C" {
    fn cmsis_head(
        q: *const i8,
        k: *const i8,
        vt: *const i8,
        n: i32,
        d: i32,
        scratch: *mut i8,
        out: *mut i8,
    );
    fn cmsis_softmax(x: *const i8, n: i32, out: *mut i8);
    fn cmsis_linear(
        x: *const i8,
        w: *const i8,
        bias: *const i32,
        multiplier: *const i32,
        shift: *const i32,
        inner: i32,
        rows: i32,
        out: *mut i8,
    );
}

fn head<const N: usize, const ND: usize>(qkv: &[[i8; ND]; 3], out: &mut [i8; ND]) {
    let mut scratch = [[0i8; N]; 2];
    // V counts as transposed already: other values, the same work.
    let [q, k, vt] = black_box(qkv);
    // SAFETY: N·D bytes each, and 2·N of scratch.
    unsafe {
        cmsis_head(
            q.as_ptr(),
            k.as_ptr(),
            vt.as_ptr(),
            N as i32,
            (ND / N) as i32,
            scratch.as_mut_ptr().cast(),
            out.as_mut_ptr(),
        );
    }
}

fn softmax<const N: usize>(x: &[i8; N], out: &mut [i8; N]) {
    // SAFETY: N bytes each.
    unsafe { cmsis_softmax(black_box(x).as_ptr(), N as i32, out.as_mut_ptr()) };
}

/// 64 × 64 bytes to bytes, a multiplier a row.
fn linear(out: &mut [i8; 64]) {
    let (x, w) = (black_box(&crates::X), &crates::W);
    // SAFETY: 64 of each, 64·64 weights.
    unsafe {
        cmsis_linear(
            x.as_ptr(),
            w.as_ptr(),
            crates::BIAS.as_ptr(),
            crates::MULTIPLIER.as_ptr(),
            crates::SHIFT.as_ptr(),
            64,
            64,
            out.as_mut_ptr(),
        );
    }
}

fn run() {
    measure("cmsis_softmax/64", &mut [0; 64], |o| softmax(&softmax8::ROW_64, o), |o| Digest::EMPTY.with(o));
    measure("cmsis_softmax/197", &mut [0; 197], |o| softmax(&softmax8::ROW_197, o), |o| Digest::EMPTY.with(o));
    measure("cmsis_head/49x16", &mut [0; 784], |o| head::<49, 784>(&attention8::SMALL, o), |o| Digest::EMPTY.with(o));
    measure("cmsis_head/197x64", &mut [0; 12_608], |o| head::<197, 12_608>(&attention8::LARGE, o), |o| Digest::EMPTY.with(o));
    measure("cmsis_linear/64x64", &mut [0; 64], linear, |o| Digest::EMPTY.with(o));
    crates::run();
    softmax8::run();
    matvec::run();
    attention8::run();
    attention8::run_large();
    attention::run();
    attention::run_large();
    error::run(softmax::<64>, softmax::<197>, linear);
}

undertone_board::main!(run);
