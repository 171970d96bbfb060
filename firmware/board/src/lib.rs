//! What a firmware needs of its board under emulation: a start, text, an exit code, and counters of
//! instructions and stack.
//!
//! The same program runs on a host, where it prints the same results without counts: that is how
//! a board's results are checked bit for bit.
//!
//! Output is written without `core::fmt`, and no function here can panic, so that a panic symbol
//! in a firmware is its kernel's.
#![cfg_attr(target_os = "none", no_std)]

#[cfg(all(target_os = "none", target_arch = "arm"))]
pub use cortex_m_rt;
#[cfg(all(target_os = "none", target_arch = "riscv32"))]
pub use riscv_rt;

mod counter;
mod file;
mod out;
mod place;
pub mod stack;

pub use counter::instructions;
pub use file::Input;
pub use out::{Digest, exit, print, print_number, print_signed};
pub use place::Place;

/// The program's entry: `main!(run)` starts `fn run()` on a board or a host and exits with 0.
#[macro_export]
macro_rules! main {
    ($run:path) => {
        #[cfg(all(target_os = "none", target_arch = "arm"))]
        #[$crate::cortex_m_rt::entry]
        fn start() -> ! {
            $run();
            $crate::exit(0)
        }
        #[cfg(all(target_os = "none", target_arch = "riscv32"))]
        #[$crate::riscv_rt::entry]
        fn start() -> ! {
            $run();
            $crate::exit(0)
        }
        #[cfg(not(target_os = "none"))]
        fn main() {
            $run();
        }
    };
}

/// Runs a kernel twice, once for its stack and once for its instructions, and prints a line
/// `name instructions stack digest`; on a host both counts are `-`. `state` holds the results;
/// the kernel writes all of them, so both runs leave the same.
pub fn measure<T>(name: &str, state: &mut T, kernel: fn(&mut T), digest: fn(&T) -> Digest) {
    let stack = stack::used(|| kernel(state));
    let counted = instructions(|| kernel(state));
    print(name);
    for count in [counted, stack.map(|bytes| bytes as u64)] {
        print(" ");
        match count {
            Some(n) => print_number(n),
            None => print("-"),
        }
    }
    print(" ");
    digest(state).print();
    print("\n");
}

/// Prints a line `name - - digest`, for results that are checked and not counted.
pub fn check(name: &str, digest: Digest) {
    print(name);
    print(" - - ");
    digest.print();
    print("\n");
}
