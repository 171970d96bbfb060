//! Parsers of bytes from outside, on strange and on mutated bytes: errors, never panics. The fuzz
//! targets `mpc_request`, `mpc_store` and `mpc_frames` hold the same with coverage.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use std::path::Path;
use undertone_mpc::channel::tls::frames_of;
use undertone_mpc::channel::{Greeting, Limits};
use undertone_mpc::party::Request;
use undertone_mpc::preprocess::Store;

fn seed(name: &str) -> Vec<u8> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    std::fs::read(seeds.join(name)).unwrap()
}

/// Bytes from anywhere, or a seed with some bytes replaced and its end cut off or extended.
fn bytes(seeds: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let anything = prop::collection::vec(any::<u8>(), 0..300);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let end = prop_oneof![Just(None), any::<prop::sample::Index>().prop_map(Some)];
    let mutated = (prop::sample::select(seeds), changes, end).prop_map(|(name, changes, end)| {
        let mut bytes = seed(name);
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    });
    prop_oneof![anything, mutated]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn requests_and_greetings(bytes in bytes(&["mpc_request/request", "mpc_request/greeting"])) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), &bytes[..]);
        }
        let ours = Greeting { party: 0, session: [0; 16], program: [0; 32], section: 0 };
        if let Ok(section) = ours.meet(&bytes) {
            prop_assert_eq!(&bytes[64..68], &section.to_le_bytes());
        }
    }

    #[test]
    fn stores(bytes in bytes(&["mpc_store/one-section"])) {
        if let Ok(mut store) = Store::in_memory(bytes) {
            prop_assert!(store.party() < 2);
            for section in 0..store.sections().min(9) {
                if store.begin(section).is_ok() {
                    prop_assert!(store.begin(section).is_err());
                }
            }
        }
    }

    #[test]
    fn frames(bytes in bytes(&["mpc_frames/two"])) {
        let limits = Limits { frame: 64, ..Limits::default() };
        let frames = frames_of(&bytes, limits).unwrap();
        let taken: usize = frames.iter().map(|(_, payload)| 16 + payload.len()).sum();
        prop_assert!(taken <= bytes.len());
        prop_assert!(frames.iter().all(|(_, payload)| payload.len() <= 64));
    }
}

#[test]
fn the_seeds_are_whole() {
    assert!(Request::decode(&seed("mpc_request/request")).is_ok());
    let ours = Greeting { party: 0, session: [0; 16], program: [0; 32], section: 0 };
    assert_eq!(ours.meet(&seed("mpc_request/greeting")).unwrap(), 3);
    let mut store = Store::in_memory(seed("mpc_store/one-section")).unwrap();
    assert!(store.begin(0).is_ok());
    assert_eq!(frames_of(&seed("mpc_frames/two"), Limits::default()).unwrap().len(), 2);
}
