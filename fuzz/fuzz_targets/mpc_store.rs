//! Files of preprocessing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_mpc::preprocess::Store;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut store) = Store::in_memory(bytes.to_vec()) {
        assert!(store.party() < 2);
        for section in 0..store.sections().min(9) {
            _ = store.begin(section);
            assert!(store.begin(section).is_err() || store.next() > section);
        }
    }
});
