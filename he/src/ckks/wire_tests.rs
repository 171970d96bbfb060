//! Envelopes: round trips, refusals by name, and arbitrary bytes.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::tests::{party, values};
use super::*;

struct Fixture {
    ctx: Arc<Context>,
    secret: SecretKey,
    seeded: Vec<u8>,
    cipher: Vec<u8>,
    public: Vec<u8>,
    keys: Vec<u8>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let params = Params { levels: 2, digits: 2, ..Params::TEST_N12 };
    let p = party(params, &[Automorphism::Rotate(1)]);
    let x = p.ctx.encode_as(&values(20, 64), 2, Degree::One).unwrap();
    let seeded = p.secret.encrypt(&x).unwrap();
    let public = p.secret.public_key().unwrap();
    let cipher = p.ev.square(&seeded.expand(&p.ctx).unwrap()).unwrap();
    Fixture {
        seeded: seeded.to_bytes(&p.ctx),
        cipher: cipher.to_bytes(&p.ctx),
        public: public.to_bytes(&p.ctx),
        keys: p.ev.keys().to_bytes(&p.ctx),
        secret: p.secret,
        ctx: p.ctx,
    }
});

fn refused<A: Artefact>(bytes: &[u8]) -> WireError {
    A::from_bytes(&FIXTURE.ctx, None, bytes).err().unwrap()
}

#[test]
fn everything_survives_the_journey() {
    let f = &*FIXTURE;
    let id = Some(f.secret.key_id());
    let again = SecretKey::from_secret_bytes(&f.ctx, &f.secret.to_secret_bytes()).unwrap();
    let seeded = SeededCiphertext::from_bytes(&f.ctx, id, &f.seeded).unwrap();
    let x = seeded.expand(&f.ctx).unwrap();
    assert_eq!(again.decrypt(&x).unwrap(), f.secret.decrypt(&x).unwrap());
    let keys = EvaluationKeys::from_bytes(&f.ctx, id, &f.keys).unwrap();
    let ev = Evaluator::new(f.ctx.clone(), Arc::new(keys)).unwrap();
    let square = ev.square(&x).unwrap();
    // The same keys give the same ciphertext, bit by bit.
    assert_eq!(square.to_bytes(&f.ctx), f.cipher);
    assert!(ev.rotate(&square, 1).is_ok());
    let public = PublicKey::from_bytes(&f.ctx, id, &f.public).unwrap();
    let plain = f.ctx.encode(&[0.25], 1).unwrap();
    let c = public.encrypt(&f.ctx, &plain).unwrap();
    assert!((again.decrypt_real(&c).unwrap()[0] - 0.25).abs() < 1e-6);
    for bytes in [&f.seeded, &f.cipher, &f.public, &f.keys] {
        assert_eq!(bytes[..4], MAGIC);
    }
    // The uniform half stays at home.
    assert!(f.keys.len() * 2 < ev.keys().size_bytes(&f.ctx) + 1000);
}

#[test]
fn refusals_have_names() {
    let f = &*FIXTURE;
    let whole = &f.cipher;
    assert!(matches!(refused::<Ciphertext>(&whole[..10]), WireError::Truncated { .. }));
    let short = &whole[..whole.len() - 1];
    assert!(matches!(refused::<Ciphertext>(short), WireError::Truncated { .. }));
    let mut long = whole.clone();
    long.push(0);
    assert!(matches!(refused::<Ciphertext>(&long), WireError::Oversized { .. }));
    let with = |at: usize, byte: u8| {
        let mut b = whole.clone();
        b[at] = byte;
        b
    };
    assert!(matches!(refused::<Ciphertext>(&with(0, b'X')), WireError::BadMagic));
    let version = refused::<Ciphertext>(&with(4, 9));
    assert!(matches!(version, WireError::UnsupportedVersion { found: 9 }));
    assert!(matches!(refused::<PublicKey>(whole), WireError::WrongKind { found: 1, .. }));
    assert!(matches!(refused::<Ciphertext>(&with(7, 1)), WireError::Malformed { .. }));
    let flipped = whole[8] ^ 1;
    assert!(matches!(refused::<Ciphertext>(&with(8, flipped)), WireError::WrongParameters));
    // A length that the parameters cannot have is refused before anything is read.
    assert!(matches!(refused::<Ciphertext>(&with(63, 0x7f)), WireError::Oversized { .. }));
    let flipped = whole[1000] ^ 4;
    assert!(matches!(refused::<Ciphertext>(&with(1000, flipped)), WireError::Corrupted));
    let other = Some(KeyId([1; 16]));
    let wrong = Ciphertext::from_bytes(&f.ctx, other, whole).err().unwrap();
    assert!(matches!(wrong, WireError::WrongKey));
    let elsewhere = Context::new(Params::TEST_N12).unwrap();
    let wrong = Ciphertext::from_bytes(&elsewhere, None, whole).err().unwrap();
    assert!(matches!(wrong, WireError::WrongParameters));
    let mut secret = f.secret.to_secret_bytes();
    secret[100] ^= 1;
    let wrong = SecretKey::from_secret_bytes(&f.ctx, &secret).err().unwrap();
    assert!(matches!(wrong, WireError::Corrupted));
}

/// A valid checksum over changed contents: what an attacker can make.
fn resealed(bytes: &[u8], at: usize, byte: u8) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut out = bytes.to_vec();
    let end = out.len() - CHECKSUM_BYTES;
    let at = HEADER_BYTES + at % (end - HEADER_BYTES);
    out[at] = byte;
    let checksum = Sha256::digest(&out[..end]);
    out[end..].copy_from_slice(&checksum);
    out
}

#[test]
fn a_residue_beyond_its_prime_is_malformed() {
    let f = &*FIXTURE;
    let bytes = resealed(&f.cipher, 4 + 6, 0xff);
    assert!(matches!(refused::<Ciphertext>(&bytes), WireError::Malformed { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let f = &*FIXTURE;
        let mut framed = f.cipher[..HEADER_BYTES].to_vec();
        framed.extend_from_slice(&bytes);
        for b in [&bytes, &framed] {
            prop_assert!(Ciphertext::from_bytes(&f.ctx, None, b).is_err());
            prop_assert!(EvaluationKeys::from_bytes(&f.ctx, None, b).is_err());
            prop_assert!(SecretKey::from_secret_bytes(&f.ctx, b).is_err());
        }
    }

    #[test]
    fn changed_contents_never_panic(which in 0usize..4, at in any::<usize>(), byte in any::<u8>()) {
        let f = &*FIXTURE;
        let whole = [&f.seeded, &f.cipher, &f.public, &f.keys][which];
        // Mostly the few bytes that carry structure.
        let bytes = resealed(whole, if at % 2 == 0 { at / 2 % 40 } else { at }, byte);
        let _ = SeededCiphertext::from_bytes(&f.ctx, None, &bytes);
        let _ = Ciphertext::from_bytes(&f.ctx, None, &bytes);
        let _ = PublicKey::from_bytes(&f.ctx, None, &bytes);
        let _ = EvaluationKeys::from_bytes(&f.ctx, None, &bytes);
    }

    #[test]
    fn any_flipped_bit_is_found(at in any::<usize>(), bit in 0u32..8) {
        let f = &*FIXTURE;
        let mut bytes = f.seeded.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // The key identifier alone may be anything where none is demanded, but not silently.
        prop_assert!(SeededCiphertext::from_bytes(&f.ctx, Some(f.secret.key_id()), &bytes).is_err());
    }
}
