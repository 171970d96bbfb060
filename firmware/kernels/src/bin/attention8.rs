#![cfg_attr(target_os = "none", no_std, no_main)]
//! Counts `attention8`.
undertone_board::main!(undertone_kernels::attention8::run);
