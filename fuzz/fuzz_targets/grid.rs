//! Grids in TOML, and result files of explorations.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_fpga_sim::explore::{Grid, Shard};
use undertone_fpga_sim::simulate::Mode;

fuzz_target!(|text: &str| {
    // A grid, a line of dashes, what an earlier run left.
    let (grid, results) = text.split_once("\n---\n").unwrap_or((text, ""));
    let Ok(grid) = Grid::parse(grid) else { return };
    assert_eq!(grid.fingerprint(), grid.clone().fingerprint());
    // Only what is quick: ideal cycles of few points.
    if grid.mode == Mode::Ideal && grid.points() <= 4 {
        if let Ok(points) = grid.run(Shard::ALL, results, |_| Ok(())) {
            assert_eq!(points.len() as u64, grid.points());
        }
    } else {
        _ = grid.merge(&[results.to_owned()]);
    }
});
