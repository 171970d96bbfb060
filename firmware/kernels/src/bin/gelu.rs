#![cfg_attr(target_os = "none", no_std, no_main)]
//! Counts `gelu`.
undertone_board::main!(undertone_kernels::gelu::run);
