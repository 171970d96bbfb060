//! Every level of every kernel against the portable form (same bits) and the f64 references.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use undertone_binary::ecoformer::{self, Hash, Sigma, Variant};
use undertone_binary::reference;
use undertone_binary::{Level, Signs, bivit};
use undertone_core::binary as core;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    // Twelve uniforms: close enough to a normal distribution for test data.
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

fn normals(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| normal(rng)).collect()
}

fn signs(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Signs {
    Signs::pack(&normals(rng, rows * dim), dim).unwrap()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn the_machine_has_levels() {
    let levels: Vec<_> = Level::available().collect();
    assert_eq!(levels[0], Level::Portable);
    eprintln!("levels compared: {levels:?}");
}

#[test]
fn distances_agree_at_every_level() {
    let mut rng = rng(1);
    for (n, m, d) in
        [(1, 1, 1), (3, 65, 16), (5, 64, 24), (7, 130, 64), (2, 49, 100), (4, 200, 255)]
    {
        let (q, k) = (signs(&mut rng, n, d), signs(&mut rng, m, d));
        let (qf, kf) = (q.unpack(), k.unpack());
        for level in Level::available() {
            let mut out = vec![0; n * m];
            bivit::distances(level, &q, &k, &mut out).unwrap();
            for i in 0..n {
                for j in 0..m {
                    let differ = (0..d).filter(|&c| qf[i * d + c] != kf[j * d + c]).count();
                    assert_eq!(usize::from(out[i * m + j]), differ, "{level:?} {n} {m} {d}");
                }
            }
        }
    }
}

/// The threshold on Hamming distances selects what softmax and T = max/4 select: 120,000 rows.
#[test]
fn the_threshold_form_equals_the_softmax_form() {
    let mut rng = rng(2);
    for d in [16, 24, 32, 48, 64, 128] {
        let margin = bivit::margin(d);
        let (queries, keys) = (20_000, 49);
        // Fresh keys every 200 queries, of all skews: real heads are far from uniform signs.
        for batch in 0..queries / 200 {
            let bias = (batch % 10) as f32 * 0.25;
            let q: Vec<f32> = (0..200 * d).map(|_| normal(&mut rng) + bias).collect();
            let k: Vec<f32> = (0..keys * d).map(|_| normal(&mut rng) + bias).collect();
            let (q, k) = (Signs::pack(&q, d).unwrap(), Signs::pack(&k, d).unwrap());
            let mut distances = vec![0; 200 * keys];
            bivit::distances(Level::best(), &q, &k, &mut distances).unwrap();
            for row in distances.chunks_exact(keys) {
                let scores: Vec<f64> = row
                    .iter()
                    .map(|&h| (d as f64 - 2.0 * f64::from(h)) / (d as f64).sqrt())
                    .collect();
                let soft = reference::bivit::softmax(&scores);
                let expected = reference::bivit::approximate(&soft, 0.25).bits;
                let least = u32::from(*row.iter().min().unwrap());
                let got: Vec<bool> = row.iter().map(|&h| u32::from(h) <= least + margin).collect();
                assert_eq!(got, expected, "d = {d}");
            }
        }
    }
}

#[test]
fn margins_are_floors() {
    for d in 1..=4096 {
        let exact = (2.0f64.ln() * (d as f64).sqrt()).floor() as u32;
        assert_eq!(bivit::margin(d), exact, "d = {d}");
        assert_eq!(bivit::margin_of(0.25, d), exact.min(255));
    }
}

#[test]
fn bivit_attention_agrees_at_every_level_and_with_the_softmax_reference() {
    let mut rng = rng(3);
    for (n, d, c) in
        [(1, 16, 16), (49, 16, 16), (50, 24, 20), (65, 64, 64), (196, 64, 72), (130, 128, 9)]
    {
        let (q, k, v) = (signs(&mut rng, n, d), signs(&mut rng, n, d), signs(&mut rng, n, c));
        let oracle = reference::bivit::attend(
            &wide(&q.unpack()),
            &wide(&k.unpack()),
            &wide(&v.unpack()),
            d,
            c,
            0.25,
        );
        for level in Level::available() {
            let mut out = vec![0; n * c];
            bivit::attend_at(level, &q, &k, &v, bivit::margin(d), &mut out).unwrap();
            assert_eq!(out.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), oracle, "{level:?}");
        }
        let bits = bivit::attend_signs(&q, &k, &v, bivit::margin(d)).unwrap();
        let floats: Vec<f32> = oracle.iter().map(|&x| x as f32).collect();
        assert_eq!(bits, Signs::pack(&floats, c).unwrap());
    }
}

/// The u32 kernels of a microcontroller give what the u64 kernels give.
#[test]
fn word_sizes_agree() {
    let mut rng = rng(4);
    let (n, d) = (49, 48);
    let x = normals(&mut rng, n * d);
    fn run<W: core::Word>(x: &[f32], n: usize, d: usize) -> Vec<i32> {
        let mut words = vec![W::ZERO; n * core::words_for::<W>(d)];
        core::pack_signs(x, d, &mut words).unwrap();
        let rows = core::BitRows::new(&words, n, d).unwrap();
        let mut turned = vec![W::ZERO; d * core::words_for::<W>(n)];
        rows.transpose(&mut turned).unwrap();
        let v = core::BitRows::new(&turned, d, n).unwrap();
        let scratch = core::bivit::Scratch {
            distances: &mut vec![0; n],
            mask: &mut vec![W::ZERO; core::words_for::<W>(n)],
        };
        let mut out = vec![0; n * d];
        core::bivit::attend(rows, rows, v, core::margin(d), scratch, &mut out).unwrap();
        out
    }
    let expected = run::<u64>(&x, n, d);
    assert_eq!(run::<u32>(&x, n, d), expected);
    assert_eq!(run::<u16>(&x, n, d), expected);
}

fn hash(rng: &mut ChaCha8Rng, dim: usize, m: usize, bits: usize, sigma: Sigma) -> Hash {
    let anchors: Vec<f64> = wide(&normals(rng, m * dim));
    let anchors =
        reference::ecoformer::normalised(&anchors, dim).iter().map(|&a| a as f32).collect();
    let planes = normals(rng, bits * m);
    let means = (0..m).map(|_| 0.6 + 0.05 * normal(rng)).collect();
    Hash::new(dim, anchors, planes, means, sigma).unwrap()
}

#[test]
fn codes_agree_at_every_level_and_with_the_reference() {
    let mut rng = rng(5);
    let (mut near, mut all) = (0, 0);
    for (n, dim, m, bits, sigma) in [
        (1, 16, 25, 16, Sigma::Dynamic),
        (49, 16, 25, 16, Sigma::Dynamic),
        (196, 64, 25, 16, Sigma::Dynamic),
        (77, 50, 7, 5, Sigma::Dynamic),
        (100, 64, 40, 12, Sigma::Frozen(0.9)),
        (1000, 32, 25, 16, Sigma::Frozen(1.1)),
    ] {
        let hash = hash(&mut rng, dim, m, bits, sigma);
        let x: Vec<f32> = normals(&mut rng, n * dim).iter().map(|v| 3.0 * v).collect();
        let oracle = reference::ecoformer::Hash {
            dim,
            anchors: wide(hash.anchors()),
            planes: wide(hash.planes()),
            means: wide(hash.means()),
            sigma: if let Sigma::Frozen(s) = sigma { Some(f64::from(s)) } else { None },
        };
        let y = reference::ecoformer::responses(&oracle, &wide(&x));
        let mut portable = vec![0; n];
        hash.codes_at(Level::Portable, &x, &mut portable).unwrap();
        for (i, &y) in y.iter().enumerate() {
            all += 1;
            if y.abs() > 1e-5 {
                assert_eq!(portable[i / bits] >> (i % bits) & 1 == 1, y > 0.0, "y = {y}");
            } else {
                near += 1;
            }
        }
        for level in Level::available() {
            let mut codes = vec![0; n];
            hash.codes_at(level, &x, &mut codes).unwrap();
            assert_eq!(codes, portable, "{level:?} n {n} d {dim} m {m}");
        }
    }
    eprintln!("{near} of {all} responses within 1e-5 of zero");
    assert!(near < all / 1000);
}

/// Many tokens, some with responses that only rounding decides: two anchors that lie alike and planes
/// that cancel make y = t exactly.
#[test]
fn doubtful_codes_are_the_portable_ones() {
    for (dim, m, bits) in [(64, 25, 16), (16, 25, 16), (128, 40, 9)] {
        let mut rng = rng(dim as u64);
        let mut anchors = normals(&mut rng, m * dim);
        let twin = anchors[..dim].to_vec();
        anchors[dim..2 * dim].copy_from_slice(&twin);
        let mut planes = normals(&mut rng, bits * m);
        planes[..m].fill(0.0);
        (planes[0], planes[1]) = (3.0, -3.0);
        let mut means: Vec<f32> = (0..m).map(|_| 0.4).collect();
        means[1] = means[0];
        let hash = Hash::new(dim, anchors, planes, means, Sigma::Dynamic).unwrap();
        let mut x = normals(&mut rng, 3000 * dim);
        x[..dim].fill(0.0);
        let mut portable = vec![0; 3000];
        hash.codes_at(Level::Portable, &x, &mut portable).unwrap();
        for level in Level::available() {
            let mut codes = vec![0; 3000];
            hash.codes_at(level, &x, &mut codes).unwrap();
            assert_eq!(codes, portable, "{level:?} {dim}");
        }
    }
}

/// Anchors and tokens at the ends of what words of 16 bits hold: zero, one-hot, huge, tiny, and widths
/// that no line divides.
#[test]
fn hostile_anchors_and_tokens_agree() {
    for (dim, m) in [(64, 25), (17, 33), (1, 3), (200, 25)] {
        for sigma in [Sigma::Dynamic, Sigma::Frozen(1.0), Sigma::Frozen(1e-4), Sigma::Frozen(1e6)] {
            let mut rng = rng((dim + m) as u64);
            let mut anchors = normals(&mut rng, m * dim);
            anchors[..dim].fill(0.0);
            anchors[dim..2 * dim].fill(0.0);
            anchors[dim] = 1.0;
            let planes = normals(&mut rng, 16 * m);
            let mut x = normals(&mut rng, 600 * dim);
            // One-hot tokens of either sign, large and small ones.
            for (i, token) in x.chunks_exact_mut(dim).enumerate().take(100) {
                match i % 4 {
                    0 => {
                        token.fill(0.0);
                        token[i % dim] = if i % 8 == 0 { 1.0 } else { -1.0 };
                    }
                    1 => token.iter_mut().for_each(|v| *v *= 1e17),
                    2 => token.iter_mut().for_each(|v| *v *= 1e-17),
                    _ => token.fill(-0.5),
                }
            }
            for scale in [1.0, 1e16, 1e-16, 1e-36] {
                let anchors = anchors.iter().map(|a| a * scale).collect();
                let hash = Hash::new(dim, anchors, planes.clone(), vec![0.7; m], sigma).unwrap();
                let mut portable = vec![0; 600];
                hash.codes_at(Level::Portable, &x, &mut portable).unwrap();
                for level in Level::available() {
                    let mut codes = vec![0; 600];
                    hash.codes_at(level, &x, &mut codes).unwrap();
                    assert_eq!(codes, portable, "{level:?} {dim} {m} {sigma:?} {scale:e}");
                }
            }
        }
    }
}

/// Few and many attended keys, alone and in pairs: wide margins choose all, none choose few.
#[test]
fn sparse_and_dense_rows_agree() {
    for (n, d, c) in [(49, 16, 16), (300, 64, 64), (517, 32, 100), (1000, 64, 130), (65, 8, 3)] {
        let mut rng = rng((n + c) as u64);
        let (q, k, v) = (signs(&mut rng, n, d), signs(&mut rng, n, d), signs(&mut rng, n, c));
        for margin in [0, 1, 3, 9, 255] {
            let mut expected = vec![0; n * c];
            bivit::attend_at(Level::Portable, &q, &k, &v, margin, &mut expected).unwrap();
            for level in Level::available() {
                let (mut out, mut counts) = (vec![0; n * c], vec![0; n]);
                bivit::attend_counted(level, &q, &k, &v, margin, &mut out, &mut counts).unwrap();
                assert_eq!(out, expected, "{level:?} {n} {d} {c} {margin}");
                assert!(counts.iter().all(|&count| count >= 1 && count as usize <= n));
            }
        }
    }
}

#[test]
fn hashed_attention_agrees_at_every_level_and_linear_equals_quadratic() {
    let mut rng = rng(6);
    for (n, bits, c) in
        [(1, 16, 16), (49, 16, 16), (196, 16, 64), (70, 5, 100), (64, 12, 7), (33, 8, 128)]
    {
        let codes: Vec<u16> =
            (0..n).map(|_| rng.random::<u16>() & (u16::MAX >> (16 - bits))).collect();
        let v = normals(&mut rng, n * c);
        let h: Vec<f64> = codes
            .iter()
            .flat_map(|c| (0..bits).map(move |b| if c >> b & 1 == 1 { 1.0 } else { -1.0 }))
            .collect();
        for variant in [Variant::Exact, Variant::Repo] {
            let oracle = reference::ecoformer::attend(&h, bits, &wide(&v), c, variant);
            let mut portable = vec![0.0; n * c];
            ecoformer::attend_at(Level::Portable, &codes, &codes, bits, &v, variant, &mut portable)
                .unwrap();
            for (a, b) in portable.iter().zip(&oracle) {
                assert!((f64::from(*a) - b).abs() < 1e-6, "{a} {b} {variant:?} {n} {bits} {c}");
            }
            for level in Level::available() {
                let mut out = vec![0.0f32; n * c];
                ecoformer::attend_at(level, &codes, &codes, bits, &v, variant, &mut out).unwrap();
                let same = out.iter().zip(&portable).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{level:?} {variant:?} {n} {bits} {c}");
            }
        }
    }
}

#[test]
fn the_released_code_differs_from_the_paper() {
    let codes = [0b0011, 0b0101, 0b1100];
    let v = [1.0, 2.0, 4.0];
    let (mut exact, mut repo) = ([0.0; 3], [0.0; 3]);
    ecoformer::attend(&codes, &codes, 4, &v, Variant::Exact, &mut exact).unwrap();
    ecoformer::attend(&codes, &codes, 4, &v, Variant::Repo, &mut repo).unwrap();
    assert!(exact.iter().zip(repo).any(|(a, b)| (a - b).abs() > 0.3));
}

#[test]
fn the_optimal_threshold_is_no_worse_than_any_other() {
    let mut rng = rng(7);
    for _ in 0..300 {
        let scores: Vec<f64> = (0..40).map(|_| f64::from(normal(&mut rng)) * 2.0).collect();
        let row = reference::bivit::softmax(&scores);
        let best = reference::bivit::optimal(&row, 50);
        // A fixed point of the alternation: neither half step moves it.
        assert_eq!(reference::bivit::optimal(&row, 51).bits, best.bits);
        let five = reference::bivit::optimal(&row, reference::bivit::ROUNDS).error(&row, true);
        let start = reference::bivit::optimal(&row, 0).error(&row, true);
        assert!(best.error(&row, true) <= five + 1e-15 && five <= start + 1e-15);
        let without = reference::bivit::approximate(&row, 0.25).error(&row, false);
        assert!(five <= without);
    }
}

proptest! {
    #[test]
    fn bits_go_to_bitvec_and_back(rows in 1usize..9, dim in 1usize..200, seed: u64) {
        let s = signs(&mut rng(seed), rows, dim);
        let bits = s.to_bits();
        prop_assert_eq!(bits.len(), rows * dim);
        prop_assert_eq!(Signs::from_bits(&bits, dim).unwrap(), s.clone());
        prop_assert_eq!(Signs::pack(&s.unpack(), dim).unwrap(), s.clone());
        prop_assert_eq!(s.transposed().unwrap().transposed().unwrap(), s);
    }

    /// Attention does not care about the order of keys, and a common flip of q and k changes nothing.
    #[test]
    fn binary_attention_has_its_symmetries(n in 1usize..80, dim in 1usize..80, seed: u64) {
        let mut rng = rng(seed);
        let (q, k, v) = (normals(&mut rng, 3 * dim), normals(&mut rng, n * dim), normals(&mut rng, n * 8));
        let run = |q: &[f32], k: &[f32], v: &[f32]| {
            let mut out = vec![0; 24];
            let pack = |x: &[f32], d| Signs::pack(x, d).unwrap();
            bivit::attend(&pack(q, dim), &pack(k, dim), &pack(v, 8), bivit::margin(dim), &mut out).unwrap();
            out
        };
        let turned = |x: &[f32], w: usize| x.chunks_exact(w).rev().flatten().copied().collect::<Vec<_>>();
        let flipped = |x: &[f32]| x.iter().map(|v| -v).collect::<Vec<_>>();
        let plain = run(&q, &k, &v);
        prop_assert_eq!(&run(&q, &turned(&k, dim), &turned(&v, 8)), &plain);
        prop_assert_eq!(&run(&flipped(&q), &flipped(&k), &v), &plain);
    }

    /// Outputs are means of values: between the least and the greatest of their channel.
    #[test]
    fn hashed_attention_averages(n in 1usize..60, bits in 1usize..=16, seed: u64) {
        let mut rng = rng(seed);
        let codes: Vec<u16> = (0..n).map(|_| rng.random::<u16>() & (u16::MAX >> (16 - bits))).collect();
        let v = normals(&mut rng, n);
        let mut out = vec![0.0; n];
        ecoformer::attend(&codes, &codes, bits, &v, Variant::Exact, &mut out).unwrap();
        let (lo, hi) = v.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
        prop_assert!(out.iter().all(|&o| o >= lo - 1e-4 && o <= hi + 1e-4));
    }
}
