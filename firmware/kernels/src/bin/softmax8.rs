#![cfg_attr(target_os = "none", no_std, no_main)]
//! Counts `softmax8`.
undertone_board::main!(undertone_kernels::softmax8::run);
