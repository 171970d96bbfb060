//! Every artefact of the CKKS scheme, as bytes, as a payload in a valid envelope, and as a valid
//! artefact with some bytes changed. What is accepted must encode to the same bytes.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use undertone_he::ckks::{
    Artefact, CHECKSUM_BYTES, Ciphertext, Context, EvaluationKeys, HEADER_BYTES, Params,
    PublicKey, SecretKey, SeededCiphertext,
};

static CTX: LazyLock<Arc<Context>> = LazyLock::new(|| {
    let params = Params { levels: 1, digits: 1, ..Params::TEST_N12 };
    Context::new(params).expect("a valid set")
});

static VALID: [&[u8]; 5] = [
    include_bytes!("../../he/tests/data/wire-v1/cipher"),
    include_bytes!("../../he/tests/data/wire-v1/seeded"),
    include_bytes!("../../he/tests/data/wire-v1/public"),
    include_bytes!("../../he/tests/data/wire-v1/keys"),
    include_bytes!("../../he/tests/data/wire-v1/secret"),
];

fn again<A: Artefact>(bytes: &[u8]) {
    if let Ok(artefact) = A::from_bytes(&CTX, None, bytes) {
        assert!(artefact.to_bytes(&CTX) == bytes, "one encoding each");
    }
}

fn all(bytes: &[u8]) {
    again::<Ciphertext>(bytes);
    again::<SeededCiphertext>(bytes);
    again::<PublicKey>(bytes);
    again::<EvaluationKeys>(bytes);
    if let Ok(secret) = SecretKey::from_secret_bytes(&CTX, bytes) {
        assert!(*secret.to_secret_bytes() == bytes);
    }
}

/// With the length and checksum that belong to it: what an attacker can make.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() - HEADER_BYTES) as u64;
    bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&mode, rest)) = bytes.split_first() else { return };
    let whole = VALID[usize::from(mode % 5)];
    let body = &whole[..whole.len() - CHECKSUM_BYTES];
    match mode / 5 % 3 {
        0 => all(rest),
        1 => {
            let mut out = body[..HEADER_BYTES].to_vec();
            out.extend_from_slice(rest);
            all(&sealed(out));
        }
        _ => {
            let mut out = body.to_vec();
            for change in rest.chunks_exact(4) {
                let at = u16::from_le_bytes([change[0], change[1]]) as usize;
                // Half of the changes meet the few bytes that carry structure.
                let at = if change[2] & 1 == 0 { at % 128 } else { at * 7 };
                let at = at % (out.len() + 1);
                match change[2] >> 1 & 3 {
                    0 if at > HEADER_BYTES => out.truncate(at),
                    1 => out.insert(at, change[3]),
                    _ if at < out.len() => out[at] = change[3],
                    _ => {}
                }
            }
            all(&sealed(out));
        }
    }
});
