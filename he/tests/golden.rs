//! Files of the first version of the wire format. They must stay readable, byte for byte, for as
//! long as the version is supported; a new version adds a folder of its own.
//!
//! `UNDERTONE_BLESS=1 cargo test -p undertone-he --test golden` writes the folder anew.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use undertone_he::ckks::{
    Artefact, Automorphism, Backend, Ciphertext, Context, Degree, EvaluationKeys, Evaluator,
    Params, PublicKey, SecretKey, SeededCiphertext, VERSION, WireError,
};

const PARAMS: Params = Params { levels: 1, digits: 1, ..Params::TEST_N12 };
const VALUES: [f64; 4] = [0.25, -0.5, 1.0, -1.75];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/wire-v1").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).unwrap()
}

fn bless() {
    let ctx = Context::new(PARAMS).unwrap();
    let secret = SecretKey::generate(&ctx).unwrap();
    let x = secret.encrypt(&ctx.encode_as(&VALUES, 1, Degree::One).unwrap()).unwrap();
    let keys = secret.evaluation_keys(&[Automorphism::Rotate(1)]).unwrap();
    let keys_bytes = keys.to_bytes(&ctx);
    let ev = Evaluator::new(ctx.clone(), Arc::new(keys)).unwrap();
    let square = ev.square(&x.expand(&ctx).unwrap()).unwrap();
    std::fs::create_dir_all(file("")).unwrap();
    for (name, bytes) in [
        ("secret", &*secret.to_secret_bytes()),
        ("seeded", &x.to_bytes(&ctx)),
        ("cipher", &square.to_bytes(&ctx)),
        ("public", &secret.public_key().unwrap().to_bytes(&ctx)),
        ("keys", &keys_bytes),
    ] {
        std::fs::write(file(name), bytes).unwrap();
    }
}

#[test]
fn the_first_version_is_read_and_written() {
    if std::env::var_os("UNDERTONE_BLESS").is_some() {
        bless();
    }
    // Whatever the processor offers: the same bytes.
    for backend in Backend::available() {
        let ctx = Context::with_backend(PARAMS, backend).unwrap();
        let secret = SecretKey::from_secret_bytes(&ctx, &read("secret")).unwrap();
        assert_eq!(*secret.to_secret_bytes(), read("secret"));
        let id = Some(secret.key_id());
        let seeded = SeededCiphertext::from_bytes(&ctx, id, &read("seeded")).unwrap();
        assert_eq!(seeded.to_bytes(&ctx), read("seeded"));
        let x = seeded.expand(&ctx).unwrap();
        for (found, wanted) in secret.decrypt_real(&x).unwrap().iter().zip(VALUES) {
            assert!((found - wanted).abs() < 1e-7, "{found} {wanted}");
        }
        let keys = EvaluationKeys::from_bytes(&ctx, id, &read("keys")).unwrap();
        assert_eq!(keys.to_bytes(&ctx), read("keys"));
        let ev = Evaluator::new(ctx.clone(), Arc::new(keys)).unwrap();
        let square = ev.square(&x).unwrap();
        assert_eq!(square.to_bytes(&ctx), read("cipher"), "{}", backend.name());
        let cipher = Ciphertext::from_bytes(&ctx, id, &read("cipher")).unwrap();
        let shifted = secret.decrypt_real(&ev.rotate(&cipher, 1).unwrap()).unwrap();
        for (found, wanted) in shifted.iter().zip(&VALUES[1..]) {
            assert!((found - wanted * wanted).abs() < 1e-6, "{found} {wanted}");
        }
        let public = PublicKey::from_bytes(&ctx, id, &read("public")).unwrap();
        assert_eq!(public.to_bytes(&ctx), read("public"));
        let y = public.encrypt(&ctx, &ctx.encode(&VALUES, 1).unwrap()).unwrap();
        assert!((secret.decrypt_real(&y).unwrap()[3] + 1.75).abs() < 1e-6);
    }
}

#[test]
fn other_versions_are_named() {
    let ctx = Context::new(PARAMS).unwrap();
    for version in [0, VERSION + 1, u16::MAX] {
        let mut bytes = read("seeded");
        bytes[4..6].copy_from_slice(&version.to_le_bytes());
        let refused = SeededCiphertext::from_bytes(&ctx, None, &bytes).err().unwrap();
        assert!(matches!(refused, WireError::UnsupportedVersion { found } if found == version));
    }
}
