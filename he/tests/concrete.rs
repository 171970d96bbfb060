//! One bootstrapped table in two libraries: `concrete-core`, the deprecated predecessor of
//! `tfhe::core_crypto`, as differential oracle of the TFHE world.
#![allow(clippy::unwrap_used)]

use concrete_core::prelude::*;
use undertone_core::Shape;
use undertone_he::tfhe::{Clear, Engine, Keys, Precision, Products, Tfhe};

const BITS: u32 = 4;
/// Of the padded message in a torus of 64 bits.
const SHIFT: u32 = 63 - BITS;

/// table[x] for every x, by concrete-core. The parameters are for correctness, not for security.
fn concrete(table: &[i64; 1 << BITS]) -> Vec<i64> {
    let (lwe, glwe, size) = (LweDimension(600), GlweDimension(1), PolynomialSize(2048));
    let (levels, base) = (DecompositionLevelCount(2), DecompositionBaseLog(15));
    let (small, large) = (Variance(2f64.powi(-40)), Variance(2f64.powi(-100)));
    let mut engine = DefaultEngine::new(Box::new(UnixSeeder::new(0))).unwrap();
    let mut fft = FftEngine::new(()).unwrap();
    let input_key: LweSecretKey64 = engine.generate_new_lwe_secret_key(lwe).unwrap();
    let glwe_key: GlweSecretKey64 = engine.generate_new_glwe_secret_key(glwe, size).unwrap();
    let key: LweBootstrapKey64 =
        engine.generate_new_lwe_bootstrap_key(&input_key, &glwe_key, base, levels, large).unwrap();
    let key: FftFourierLweBootstrapKey64 = fft.convert_lwe_bootstrap_key(&key).unwrap();
    let output_key: LweSecretKey64 =
        engine.transform_glwe_secret_key_to_lwe_secret_key(glwe_key).unwrap();

    // Each entry fills a box; the boxes are centred on their inputs, and half of the first one
    // comes round negated.
    let width = size.0 >> BITS;
    let boxes: Vec<u64> = (0..size.0 + width / 2)
        .skip(width / 2)
        .map(|i| {
            let entry = (table[i / width % table.len()] as u64) << SHIFT;
            if i < size.0 { entry } else { entry.wrapping_neg() }
        })
        .collect();
    let boxes = engine.create_plaintext_vector_from(&boxes).unwrap();
    let accumulator =
        engine.trivially_encrypt_glwe_ciphertext(glwe.to_glwe_size(), &boxes).unwrap();
    (0..table.len() as u64)
        .map(|x| {
            let plain = engine.create_plaintext_from(&(x << SHIFT)).unwrap();
            let input = engine.encrypt_lwe_ciphertext(&input_key, &plain, small).unwrap();
            let mut output = engine.zero_encrypt_lwe_ciphertext(&output_key, small).unwrap();
            fft.discard_bootstrap_lwe_ciphertext(&mut output, &input, &accumulator, &key).unwrap();
            let plain = engine.decrypt_lwe_ciphertext(&output_key, &output).unwrap();
            let raw = engine.retrieve_plaintext(&plain).unwrap();
            // Rounded, with its sign: entries are integers modulo 2^(BITS + 1).
            (raw as i64).wrapping_add(1 << (SHIFT - 1)) >> SHIFT
        })
        .collect()
}

#[test]
fn one_table_in_two_libraries() {
    let table: [i64; 1 << BITS] = std::array::from_fn(|x| (x as i64 * x as i64) % 13 - 6);
    let theirs = concrete(&table);

    let (keys, server) = Keys::generate(Precision::Four);
    let interval = (0, (1 << BITS) - 1);
    let xs = (0..1 << BITS).map(|x| keys.encrypt(&server, x, interval).unwrap()).collect();
    let cells = server.look_up(xs, 0, &table).unwrap();
    let server = std::sync::Arc::new(server);
    let world = Tfhe::new(server.clone(), Products::Tables);
    let ours = world.admit(Shape::new(1, 1, 1 << BITS), (-6, 9), 0, cells).unwrap();
    let ours = keys.decrypt(&server, &ours);
    let clear = Clear::new(BITS, 5).look_up((0..1 << BITS).collect(), 0, &table).unwrap();
    assert_eq!(theirs, clear);
    assert_eq!(ours, clear);
}
