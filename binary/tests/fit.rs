//! The fit of the hash against the released PyTorch code: `golden/ksh.safetensors` holds two heads of
//! clustered activations (4 images × 49 tokens × 16), the starting planes, and what
//! `KernelSH.train_hashing_weight_woeig` of ziplab/EcoFormer (commit a277f9e) made of them, with its
//! responses on the training tokens and on fresh ones.
#![allow(clippy::unwrap_used, missing_docs)]

use safetensors::SafeTensors;
use undertone_binary::fit::{Activations, Initial, Keep, Options, Start, fit, fit_from};
use undertone_binary::reference::ecoformer as reference;
use undertone_binary::{BitFault, Level};

const GOLDEN: &[u8] = include_bytes!("golden/ksh.safetensors");
const HEADS: usize = 2;
const TOKENS: usize = 49;
const DIM: usize = 16;
const M: usize = 25;
const BITS: usize = 16;

fn tensor(name: &str, head: usize) -> Vec<f32> {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.shape()[0], HEADS);
    let all: Vec<f32> =
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let each = all.len() / HEADS;
    all[head * each..(head + 1) * each].to_vec()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn codes_equal_those_of_the_released_fit() {
    let (mut checked, mut near) = (0, 0);
    let inputs: Vec<Vec<f32>> = (0..HEADS).map(|h| tensor("activations", h)).collect();
    let heads: Vec<Activations<'_>> =
        inputs.iter().map(|x| Activations { values: x, tokens: TOKENS, dim: DIM }).collect();
    let initial = (0..HEADS)
        .map(|h| Initial {
            anchors: wide(&tensor("anchors", h)),
            planes: wide(&tensor("start", h)),
        })
        .collect();
    let options = Options { keep: Keep::Layer, ..Options::default() };
    let layer = fit_from(&heads, initial, &options).unwrap();
    for (head, fitted) in layer.iter().enumerate() {
        let worst = fitted
            .hash
            .planes
            .iter()
            .zip(tensor("planes", head))
            .map(|(a, b)| (a - f64::from(b)).abs())
            .fold(0.0, f64::max);
        println!("head {head}: planes differ by at most {worst:.1e}");
        for (a, b) in fitted.hash.means.iter().zip(tensor("means", head)) {
            assert!((a - f64::from(b)).abs() < 1e-6);
        }
        let hash = fitted.dynamic().unwrap();
        for (inputs, responses) in [("activations", "responses"), ("test", "test_responses")] {
            let (x, y) = (tensor(inputs, head), tensor(responses, head));
            for (image, y) in x.chunks_exact(TOKENS * DIM).zip(y.chunks_exact(TOKENS * BITS)) {
                for level in Level::available() {
                    let mut codes = vec![0; TOKENS];
                    hash.codes_at(level, image, &mut codes).unwrap();
                    for (i, &y) in y.iter().enumerate() {
                        if y.abs() > 1e-5 {
                            checked += 1;
                            assert_eq!(codes[i / BITS] >> (i % BITS) & 1 == 1, y > 0.0, "y = {y}");
                        } else {
                            near += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{checked} bits equal, {near} within 1e-5 of zero");
    assert!(checked > 10_000 && near * 100 < checked);
}

/// The same optimisation with S formed and subtracted from, as the released code does it.
#[test]
fn the_implicit_similarity_equals_the_explicit_one() {
    let x = tensor("activations", 0);
    let options = Options { bits: 4, iterations: 7, rate: 0.05, ..Options::default() };
    let activations = Activations { values: &x, tokens: TOKENS, dim: DIM };
    let anchors = wide(&tensor("anchors", 0));
    let start = wide(&tensor("start", 0)[..4 * M]);
    let initial = vec![Initial { anchors: anchors.clone(), planes: start.clone() }];
    let fitted = &fit_from(&[activations], initial, &options).unwrap()[0];

    let images = x.len() / (TOKENS * DIM);
    let mut kernels = Vec::new();
    let mut s = Vec::new();
    for image in x.chunks_exact(TOKENS * DIM) {
        let unit = reference::normalised(&wide(image), DIM);
        kernels.extend(reference::kernels(&unit, &anchors, DIM, None).0);
        let mut matrix = vec![0.0; TOKENS * TOKENS];
        for i in 0..TOKENS {
            let cosine: Vec<f64> = (0..TOKENS)
                .map(|j| (0..DIM).map(|c| unit[i * DIM + c] * unit[j * DIM + c]).sum())
                .collect();
            let mut order: Vec<usize> = (0..TOKENS).collect();
            order.sort_by(|&a, &b| cosine[b].total_cmp(&cosine[a]));
            order[..10].iter().for_each(|&j| matrix[i * TOKENS + j] = 4.0);
            order[TOKENS - 10..].iter().for_each(|&j| matrix[i * TOKENS + j] = -4.0);
        }
        s.push(matrix);
    }
    for a in 0..M {
        let mean = (0..images * TOKENS).map(|i| kernels[i * M + a]).sum::<f64>()
            / (images * TOKENS) as f64;
        (0..images * TOKENS).for_each(|i| kernels[i * M + a] -= mean);
    }
    let z = |a: &[f64], i: usize| -> f64 { (0..M).map(|j| kernels[i * M + j] * a[j]).sum() };
    let loss = |s: &[Vec<f64>], y: &[f64]| -> f64 {
        let mut form = 0.0;
        for (b, s) in s.iter().enumerate() {
            for i in 0..TOKENS {
                for j in 0..TOKENS {
                    form += y[b * TOKENS + i] * s[i * TOKENS + j] * y[b * TOKENS + j];
                }
            }
        }
        -form / (images * TOKENS * 4) as f64
    };
    for bit in 0..4 {
        let first = &start[bit * M..(bit + 1) * M];
        let mut a = first.to_vec();
        let mut velocity = [0.0; M];
        let soft = |a: &[f64]| -> Vec<f64> {
            (0..images * TOKENS).map(|i| 2.0 / (1.0 + (-z(a, i)).exp()) - 1.0).collect()
        };
        for _ in 0..7 {
            // The gradient by central differences of the loss: no derivation to get wrong twice.
            let gradient: Vec<f64> = (0..M)
                .map(|j| {
                    let at = |h: f64| {
                        let mut moved = a.clone();
                        moved[j] += h;
                        loss(&s, &soft(&moved))
                    };
                    (at(1e-5) - at(-1e-5)) / 2e-5
                })
                .collect();
            for j in 0..M {
                velocity[j] = 0.9 * velocity[j] + gradient[j];
                a[j] -= 0.05 * (gradient[j] + 0.9 * velocity[j]);
            }
        }
        let hard = |a: &[f64]| -> Vec<f64> {
            (0..images * TOKENS).map(|i| if z(a, i) > 0.0 { 1.0 } else { -1.0 }).collect()
        };
        let (before, after) = (loss(&s, &hard(first)), loss(&s, &hard(&a)));
        assert!((before - fitted.bits[bit].before).abs() < 1e-9);
        assert!((after - fitted.bits[bit].after).abs() < 1e-9);
        let kept = if after < before { &a[..] } else { first };
        for (ours, theirs) in fitted.hash.planes[bit * M..].iter().zip(kept) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
        }
        let y = hard(kept);
        for (b, s) in s.iter_mut().enumerate() {
            for i in 0..TOKENS {
                for j in 0..TOKENS {
                    s[i * TOKENS + j] -= y[b * TOKENS + i] * y[b * TOKENS + j];
                }
            }
        }
    }
}

#[test]
fn eigen_initialisation_starts_lower() {
    let x = tensor("activations", 1);
    let activations = Activations { values: &x, tokens: TOKENS, dim: DIM };
    let run = |start| {
        let options = Options { start, seed: 3, ..Options::default() };
        fit(&[activations], &options).unwrap().remove(0)
    };
    let (normal, eigen) = (run(Start::Normal), run(Start::Eigen));
    assert!(
        eigen.bits[0].before < normal.bits[0].before,
        "the relaxed optimum beats a random plane"
    );
    let codes = |f: &undertone_binary::fit::Fitted| {
        let hash = f.dynamic().unwrap();
        x.chunks_exact(TOKENS * DIM).map(|i| hash.codes(i).unwrap()).collect::<Vec<_>>()
    };
    println!(
        "similar pairs nearer than dissimilar ones: normal {:.3}, eigen {:.3}",
        ranking(&x, &codes(&normal)),
        ranking(&x, &codes(&eigen))
    );
    assert!(ranking(&x, &codes(&eigen)) > 0.8);
}

/// How often a token's most similar token has a nearer code than its least similar one (ties half).
fn ranking(x: &[f32], codes: &[Vec<u16>]) -> f64 {
    let (mut wins, mut all) = (0.0, 0.0);
    for (image, codes) in x.chunks_exact(TOKENS * DIM).zip(codes) {
        let unit = reference::normalised(&wide(image), DIM);
        for i in 0..TOKENS {
            let cosine =
                |j: usize| -> f64 { (0..DIM).map(|c| unit[i * DIM + c] * unit[j * DIM + c]).sum() };
            let mut others: Vec<usize> = (0..TOKENS).filter(|&j| j != i).collect();
            others.sort_by(|&a, &b| cosine(b).total_cmp(&cosine(a)));
            let distance = |j: usize| (codes[i] ^ codes[j]).count_ones();
            let (near, far) = (distance(others[0]), distance(*others.last().unwrap()));
            wins += if near < far {
                1.0
            } else if near == far {
                0.5
            } else {
                0.0
            };
            all += 1.0;
        }
    }
    wins / all
}

#[test]
fn fits_refuse_what_they_cannot_fit() {
    let x = vec![1.0; 40];
    let activations = |values| Activations { values, tokens: 5, dim: 4 };
    let small = Options { anchors: 3, bits: 2, ..Options::default() };
    assert!(fit(&[activations(&x)], &small).is_ok(), "equal tokens fit, to equal codes");
    let many = Options { anchors: 6, ..small };
    assert!(matches!(fit(&[activations(&x)], &many), Err(BitFault::Limit { most: 5, got: 6, .. })));
    let wide = Options { bits: 17, ..small };
    assert!(matches!(fit(&[activations(&x)], &wide), Err(BitFault::Limit { most: 16, .. })));
    assert!(matches!(fit(&[activations(&x[1..])], &small), Err(BitFault::Size { .. })));
    assert!(matches!(fit(&[activations(&[])], &small), Err(BitFault::Empty { .. })));
    let mut bad = x.clone();
    bad[7] = f32::NAN;
    assert!(matches!(fit(&[activations(&bad)], &small), Err(BitFault::NotFinite { index: 7, .. })));
}
