//! What a client asks for, and a peer's greeting.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_mpc::channel::Greeting;
use undertone_mpc::party::Request;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    let ours = Greeting { party: 0, session: [0; 16], program: [0; 32], section: 0 };
    if let Ok(section) = ours.meet(bytes) {
        assert_eq!(bytes[64..68], section.to_le_bytes());
    }
});
