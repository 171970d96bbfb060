#![cfg_attr(target_os = "none", no_std, no_main)]
//! Counts `softmax16`.
undertone_board::main!(undertone_kernels::softmax16::run);
