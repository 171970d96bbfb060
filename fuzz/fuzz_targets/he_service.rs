//! What client and server read from each other: frame headers, lists of ciphertexts, and the
//! description of a job.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use undertone_he::ckks::{Ciphertext, Context, KeyId, Params};
use undertone_he::service::{HeadJob, Job, parse_ciphertexts, parse_header};

static CTX: LazyLock<Arc<Context>> = LazyLock::new(|| {
    let params = Params { levels: 1, digits: 1, ..Params::TEST_N12 };
    Context::new(params).expect("a valid set")
});

static SEEDED: &[u8] = include_bytes!("../../he/tests/data/wire-v1/seeded");

fn id() -> KeyId {
    let mut id = [0; 16];
    id.copy_from_slice(&SEEDED[40..56]);
    KeyId(id)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&mode, rest)) = bytes.split_first() else { return };
    match mode % 4 {
        0 => {
            if let Some(header) = rest.first_chunk() {
                let _ = parse_header(header);
            }
        }
        1 => {
            let _ = parse_ciphertexts(&CTX, id(), usize::from(mode / 4 % 3), rest);
        }
        2 => {
            let list = [SEEDED, rest].concat();
            let one: Result<Vec<Ciphertext>, _> = parse_ciphertexts(&CTX, id(), 1, &list);
            assert_eq!(one.is_ok(), rest.is_empty());
            let _ = parse_ciphertexts(&CTX, id(), 2, &list);
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(rest)
                && let Ok(job) = HeadJob::from_description(text, true)
            {
                assert_eq!(job.description(), text);
            }
        }
    }
});
