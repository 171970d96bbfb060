//! Architecture descriptions in TOML: what parses is checked, can be written and read back, and
//! takes a workload without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::simulate::{Mode, Options, simulate};
use undertone_fpga_sim::workload::Encoder;

fuzz_target!(|text: &str| {
    let Ok(arch) = Arch::parse(text) else { return };
    arch.check().expect("what parses is checked");
    let written = toml::to_string(&arch).expect("what parses can be written");
    assert_eq!(Arch::parse(&written).expect("what was written parses"), arch);
    let small = Encoder { tokens: 9, dim: 12, layers: 2, hidden: 24, ..Encoder::m3vit() };
    let ideal = Options { mode: Mode::Ideal, ..Options::default() };
    _ = simulate(&arch, &small.workload("small"), &ideal);
});
