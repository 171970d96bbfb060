#![cfg_attr(target_os = "none", no_std, no_main)]
//! Counts `matvec`.
undertone_board::main!(undertone_kernels::matvec::run);
