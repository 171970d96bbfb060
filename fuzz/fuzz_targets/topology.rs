//! SCALE-Sim topologies in CSV and lists of operators in JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_fpga_sim::arch::Arch;
use undertone_fpga_sim::simulate::{Mode, Options, simulate};
use undertone_fpga_sim::workload::Workload;

fuzz_target!(|text: &str| {
    let arch = Arch::preset("edge-moe-zcu102").expect("presets parse");
    let ideal = Options { mode: Mode::Ideal, ..Options::default() };
    for workload in [Workload::scale_sim("csv", text), Workload::json(text)].into_iter().flatten() {
        let written = serde_json::to_string(&workload).expect("what parses can be written");
        assert_eq!(Workload::json(&written).as_ref(), Ok(&workload));
        // Tiles of a layer are steps of their own: not too many.
        if workload.products() < 1 << 40 {
            _ = simulate(&arch, &workload, &ideal);
        }
    }
});
