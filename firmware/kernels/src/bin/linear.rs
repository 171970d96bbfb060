#![cfg_attr(target_os = "none", no_std, no_main)]
//! Counts `linear`.
undertone_board::main!(undertone_kernels::linear::run);
