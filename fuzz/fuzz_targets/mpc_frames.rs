//! Frames as a connection reads them.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use undertone_mpc::channel::Limits;
use undertone_mpc::channel::tls::frames_of;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { frame: 1 << 12, timeout: Duration::from_millis(1) };
    let Ok(frames) = frames_of(bytes, limits) else { return };
    let taken: usize = frames.iter().map(|(_, payload)| 16 + payload.len()).sum();
    assert!(taken <= bytes.len());
    assert!(frames.iter().all(|(_, payload)| payload.len() <= 1 << 12));
});
