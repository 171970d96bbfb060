//! Tables of energy prices.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use undertone_binary::energy::Prices;
use undertone_core::{Counts, Op, Width};

static ONE_EACH: LazyLock<Counts> = LazyLock::new(|| {
    let mut counts = Counts::default();
    for op in Op::ALL {
        for width in Width::ALL {
            counts.add(op, width, 1);
        }
    }
    counts
});

fuzz_target!(|text: &str| {
    let Ok(prices) = Prices::parse(text) else { return };
    if let Ok(energy) = prices.picojoules(&ONE_EACH) {
        assert!(energy >= 0.0);
    }
});
