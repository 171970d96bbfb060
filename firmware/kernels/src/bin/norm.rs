#![cfg_attr(target_os = "none", no_std, no_main)]
//! Counts `norm`.
undertone_board::main!(undertone_kernels::norm::run);
