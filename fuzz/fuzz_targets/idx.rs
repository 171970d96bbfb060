//! IDX images and labels, plain and gzip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_model::idx::{IdxImages, parse_labels};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(images) = IdxImages::parse(bytes) {
        let size = images.height * images.width;
        assert!((0..images.len().min(9)).all(|i| images.get(i).is_some_and(|x| x.len() == size)));
        assert!(images.get(images.len()).is_none());
    }
    _ = parse_labels(bytes);
});
