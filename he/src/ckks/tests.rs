//! The scheme as a whole, on the small insecure ring.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rand::RngCore;

use super::sample::stream;
use super::*;

pub(super) struct Party {
    pub(super) ctx: Arc<Context>,
    pub(super) secret: SecretKey,
    pub(super) ev: Evaluator,
}

pub(super) fn party(params: Params, automorphisms: &[Automorphism]) -> Party {
    party_on(params, automorphisms, Backend::detect())
}

fn party_on(params: Params, automorphisms: &[Automorphism], backend: Backend) -> Party {
    let ctx = Context::with_backend(params, backend).unwrap();
    let secret = SecretKey::generate(&ctx).unwrap();
    let keys = Arc::new(secret.evaluation_keys(automorphisms).unwrap());
    let ev = Evaluator::new(ctx.clone(), keys).unwrap();
    Party { ctx, secret, ev }
}

pub(super) fn values(seed: u64, count: usize) -> Vec<Complex> {
    let mut rng = stream(&[9; 32], seed);
    let mut draw = || (rng.next_u32() as f64 / f64::from(u32::MAX)) * 2.0 - 1.0;
    (0..count).map(|_| Complex::new(draw(), draw())).collect()
}

impl Party {
    fn encrypt(&self, x: &[Complex], level: usize) -> Ciphertext {
        let p = self.ctx.encode_as(x, level, Degree::One).unwrap();
        self.secret.encrypt(&p).unwrap().expand(&self.ctx).unwrap()
    }

    fn expect(&self, x: &Ciphertext, wanted: impl Fn(usize) -> Complex, bits: f64) {
        let found = self.secret.decrypt(x).unwrap();
        let error = found
            .iter()
            .enumerate()
            .map(|(i, f)| (f.re - wanted(i).re).abs().max((f.im - wanted(i).im).abs()))
            .fold(0.0, f64::max);
        assert!(error < (-bits).exp2(), "error 2^{:.1}, wanted 2^-{bits}", error.log2());
    }
}

fn times(a: Complex, b: Complex) -> Complex {
    Complex::new(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)
}

#[test]
fn encodes_and_decodes() {
    let ctx = Context::new(Params::TEST_N12).unwrap();
    let x = values(1, ctx.slots());
    for (level, degree) in [(0, Degree::One), (5, Degree::One), (4, Degree::Two)] {
        let y = ctx.decode(&ctx.encode_as(&x, level, degree).unwrap());
        let error = x
            .iter()
            .zip(&y)
            .map(|(a, b)| (a.re - b.re).abs().max((a.im - b.im).abs()))
            .fold(0.0, f64::max);
        assert!(error < 1e-10, "{error}");
    }
    // Slot j is the value at zeta^(5^j): one product of polynomials is a product of slots.
    let one = ctx.decode(&ctx.encode(&vec![0.5; ctx.slots()], 1).unwrap());
    assert!(one.iter().all(|c| (c.re - 0.5).abs() < 1e-12));
}

#[test]
fn refuses_what_cannot_be_encoded() {
    let ctx = Context::new(Params::TEST_N12).unwrap();
    let many = vec![0.0; ctx.slots() + 1];
    assert!(matches!(ctx.encode(&many, 1), Err(CkksError::TooManyValues { .. })));
    for bad in [f64::NAN, f64::INFINITY, 1e20] {
        assert!(matches!(ctx.encode(&[bad], 0), Err(CkksError::ValueTooLarge { .. })));
    }
    assert!(matches!(ctx.encode(&[0.0], 6), Err(CkksError::NoSuchLevel { level: 6, top: 5 })));
}

#[test]
fn encrypts_both_ways() {
    let p = party(Params::TEST_N12, &[]);
    let x = values(2, p.ctx.slots());
    p.expect(&p.encrypt(&x, 5), |i| x[i], 30.0);
    let message = p.ctx.encode_as(&x, 3, Degree::One).unwrap();
    let public = p.secret.public_key().unwrap();
    let c = public.encrypt(&p.ctx, &message).unwrap();
    assert_eq!(c.level(), 3);
    p.expect(&c, |i| x[i], 25.0);
}

#[test]
fn adds_and_multiplies_down_to_level_zero() {
    let p = party(Params::TEST_N12, &[]);
    let (x, y) = (values(3, p.ctx.slots()), values(4, p.ctx.slots()));
    let (cx, cy) = (p.encrypt(&x, 5), p.encrypt(&y, 5));
    let sum = p.ev.add(&cx, &cy).unwrap();
    p.expect(&sum, |i| Complex::new(x[i].re + y[i].re, x[i].im + y[i].im), 29.0);
    let difference = p.ev.sub(&cx, &cy).unwrap();
    p.expect(&difference, |i| Complex::new(x[i].re - y[i].re, x[i].im - y[i].im), 29.0);
    p.expect(&p.ev.negate(&cx), |i| Complex::new(-x[i].re, -x[i].im), 30.0);

    let mut c = p.ev.mul(&cx, &cy).unwrap();
    let apart = p.ev.relinearize(&p.ev.tensor(&cx, &cy).unwrap(), true).unwrap();
    assert_eq!(c.to_bytes(&p.ctx), apart.to_bytes(&p.ctx));
    let mut wanted: Vec<Complex> = x.iter().zip(&y).map(|(a, b)| times(*a, *b)).collect();
    p.expect(&c, |i| wanted[i], 25.0);
    while c.level() > 0 {
        let low = p.ev.level_down(&cx, c.level()).unwrap();
        c = p.ev.mul(&c, &low).unwrap();
        wanted = wanted.iter().zip(&x).map(|(a, b)| times(*a, *b)).collect();
        p.expect(&c, |i| wanted[i], 24.0);
    }
    let error = p.ev.square(&c).err().unwrap();
    assert_eq!(error, CkksError::LevelExhausted { operation: "multiply", needed: 1, available: 0 });
}

#[test]
fn sums_of_products_share_a_relinearization() {
    let p = party(Params::TEST_N12, &[]);
    let (x, y) = (values(5, p.ctx.slots()), values(6, p.ctx.slots()));
    let (cx, cy) = (p.encrypt(&x, 2), p.encrypt(&y, 2));
    let before = p.ctx.counters().snapshot();
    let mut t = p.ev.tensor(&cx, &cy).unwrap();
    p.ev.add_assign(&mut t, &p.ev.tensor(&cx, &cx).unwrap()).unwrap();
    assert!(matches!(p.ev.tensor(&t, &cx), Err(CkksError::ScaleMismatch { .. })));
    assert!(matches!(p.ev.rotate(&t, 1), Err(CkksError::NotRelinearized { .. })));
    let wanted = |i: usize| times(x[i], Complex::new(x[i].re + y[i].re, x[i].im + y[i].im));
    // Decryption of three parts, relinearization alone, and both at once.
    p.expect(&t, wanted, 25.0);
    let once = p.ev.relinearize(&t, true).unwrap();
    p.expect(&once, wanted, 25.0);
    let apart = p.ev.relinearize(&t, false).unwrap();
    p.expect(&apart, wanted, 25.0);
    p.expect(&p.ev.rescale(&apart).unwrap(), wanted, 25.0);
    let counts = p.ctx.counters().snapshot() - before;
    assert_eq!((counts.products, counts.key_switches, counts.rescales), (2, 2, 2));
}

#[test]
fn plaintext_operands() {
    let p = party(Params::TEST_N12, &[]);
    let (x, y) = (values(7, p.ctx.slots()), values(8, p.ctx.slots()));
    let c = p.encrypt(&x, 4);
    let y_plain = p.ctx.encode_as(&y, 4, Degree::One).unwrap();
    p.expect(
        &p.ev.add_plain(&c, &y_plain).unwrap(),
        |i| Complex::new(x[i].re + y[i].re, x[i].im + y[i].im),
        30.0,
    );
    let product = p.ev.mul_plain(&c, &p.ctx.encode_factor(&y, 4).unwrap()).unwrap();
    let product = p.ev.rescale(&product).unwrap();
    p.expect(&product, |i| times(x[i], y[i]), 26.0);
    let scaled = p.ev.rescale(&p.ev.mul_scalar(&c, -0.37).unwrap()).unwrap();
    p.expect(&scaled, |i| Complex::new(-0.37 * x[i].re, -0.37 * x[i].im), 26.0);
    let shifted = p.ev.add_scalar(&c, 1.25).unwrap();
    p.expect(&shifted, |i| Complex::new(x[i].re + 1.25, x[i].im), 29.0);
    let tripled = p.ev.mul_integer(&c, -3).unwrap();
    p.expect(&tripled, |i| Complex::new(-3.0 * x[i].re, -3.0 * x[i].im), 28.0);
    let turned = p.ev.mul_i(&c).unwrap();
    p.expect(&turned, |i| Complex::new(-x[i].im, x[i].re), 30.0);
    // Mismatches say what is wrong.
    let low = p.ctx.encode_as(&y, 3, Degree::One).unwrap();
    assert!(matches!(p.ev.add_plain(&c, &low), Err(CkksError::LevelMismatch { .. })));
    let squared = p.ctx.encode_as(&y, 4, Degree::Two).unwrap();
    assert!(matches!(p.ev.add_plain(&c, &squared), Err(CkksError::ScaleMismatch { .. })));
    assert!(matches!(p.secret.encrypt(&squared), Err(CkksError::ScaleMismatch { .. })));
    assert!(matches!(p.ev.rescale(&c), Err(CkksError::ScaleMismatch { .. })));
    let lower = p.ev.level_down(&c, 1).unwrap();
    assert!(matches!(p.ev.add(&c, &lower), Err(CkksError::LevelMismatch { .. })));
    assert!(matches!(p.ev.level_down(&lower, 2), Err(CkksError::LevelExhausted { .. })));
}

#[test]
fn rotates_conjugates_and_sums() {
    let all = [
        Automorphism::Rotate(1),
        Automorphism::Rotate(-5),
        Automorphism::Rotate(512),
        Automorphism::Conjugate,
    ];
    let p = party(Params::TEST_N12, &all);
    let slots = p.ctx.slots();
    let x = values(10, slots);
    for level in [5, 2, 0] {
        let c = p.encrypt(&x, level);
        let at = |i: usize, k: i64| x[(i as i64 + k).rem_euclid(slots as i64) as usize];
        for k in [1, -5, 512, 0] {
            p.expect(&p.ev.rotate(&c, k).unwrap(), |i| at(i, k), 25.0);
        }
        let conj = |z: Complex| Complex::new(z.re, -z.im);
        p.expect(&p.ev.conjugate(&c).unwrap(), |i| conj(x[i]), 25.0);
        let before = p.ctx.counters().snapshot();
        let each = p.ev.apply_each(&c, &all).unwrap();
        p.expect(&each[1], |i| at(i, -5), 25.0);
        p.expect(&each[3], |i| conj(x[i]), 25.0);
        let sum = p.ev.add_images(&c, &all[..2], false).unwrap();
        p.expect(
            &sum,
            |i| {
                let (a, b, c) = (at(i, 0), at(i, 1), at(i, -5));
                Complex::new(a.re + b.re + c.re, a.im + b.im + c.im)
            },
            25.0,
        );
        let counts = p.ctx.counters().snapshot() - before;
        assert_eq!((counts.rotations, counts.key_switches, counts.decompositions), (6, 6, 2));
        assert!(matches!(p.ev.rotate(&c, 2), Err(CkksError::MissingKey { .. })));
    }
}

#[test]
fn a_sum_of_images_can_rescale() {
    let p = party(Params::TEST_N12, &[Automorphism::Rotate(3)]);
    let x = values(11, p.ctx.slots());
    let c = p.ev.mul_scalar(&p.encrypt(&x, 4), 0.5).unwrap();
    let y = p.ev.add_images(&c, &[Automorphism::Rotate(3)], true).unwrap();
    assert_eq!((y.level(), y.meta().degree), (3, Degree::One));
    let slots = p.ctx.slots();
    let wanted = |i: usize| {
        let (a, b) = (x[i], x[(i + 3) % slots]);
        Complex::new((a.re + b.re) / 2.0, (a.im + b.im) / 2.0)
    };
    p.expect(&y, wanted, 25.0);
}

#[test]
fn backends_compute_identical_ciphertexts() {
    let backends = Backend::available();
    let first = party_on(Params::TEST_N12, &[Automorphism::Rotate(7)], backends[0]);
    let x = values(12, first.ctx.slots());
    let c = first.encrypt(&x, 5);
    let run = |ev: &Evaluator| {
        let y = ev.mul(&c, &c).unwrap();
        let z = ev.add_images(&y, &[Automorphism::Rotate(7)], false).unwrap();
        ev.level_down(&z, 2).unwrap()
    };
    let expected = run(&first.ev);
    for &backend in &backends[1..] {
        let ctx = Context::with_backend(Params::TEST_N12, backend).unwrap();
        let found = run(&Evaluator::new(ctx, first.ev.keys().clone()).unwrap());
        for (a, b) in expected.parts.iter().zip(&found.parts) {
            assert!(a.rows().eq(b.rows()), "{} differs", backend.name());
        }
    }
}

#[test]
fn foreign_keys_and_parameters_are_refused() {
    let p = party(Params::TEST_N12, &[]);
    let other = party(Params::TEST_N12, &[]);
    let deep = party(Params::TEST_N12_DEEP, &[]);
    let x = values(13, 8);
    let c = p.encrypt(&x, 2);
    assert!(matches!(other.ev.square(&c), Err(CkksError::WrongKey { .. })));
    assert!(matches!(other.secret.decrypt(&c), Err(CkksError::WrongKey { .. })));
    assert!(matches!(deep.ev.square(&c), Err(CkksError::WrongParameters { .. })));
    assert!(matches!(deep.secret.decrypt(&c), Err(CkksError::WrongParameters { .. })));
    let keys = p.ev.keys().clone();
    assert!(matches!(
        Evaluator::new(deep.ctx.clone(), keys),
        Err(CkksError::WrongParameters { .. })
    ));
}

#[test]
fn every_ring_degree_works() {
    for log_n in [12, 13] {
        let params = Params { log_n, levels: 2, digits: 2, ..Params::TEST_N12 };
        let p = party(params, &[Automorphism::Rotate(1)]);
        let x = values(14, p.ctx.slots());
        let c = p.ev.square(&p.encrypt(&x, 2)).unwrap();
        let c = p.ev.rotate(&c, 1).unwrap();
        let slots = p.ctx.slots();
        p.expect(&c, |i| times(x[(i + 1) % slots], x[(i + 1) % slots]), 24.0);
    }
}
