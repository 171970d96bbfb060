//! Fits EcoFormer's hash to a head's own activations: kernel-based supervised hashing (KSH, Liu et
//! al., CVPR 2012) as EcoFormer uses it (arXiv 2209.09004, section 3.2 and its released code).
//!
//! Each token wants its most similar tokens near and its least similar far: S₀ ∈ {−1, 0, +1} marks
//! the top and bottom k of every row of cosine similarity, and S = b·S₀ is approximated by Σ y yᵀ
//! bit after bit. S is never formed: with y_t the bits found so far,
//!
//! S_r y = b·S₀ y − Σ_{t<r} y_t (y_tᵀ y),
//!
//! and S₀ is sparse. Memory is linear in the tokens.

use crate::ecoformer::{Hash, Sigma};
use crate::reference::ecoformer as reference;
use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use undertone_core::binary::BitFault;

/// How a fit runs; the defaults are the paper's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Bits in a code, at most 16.
    pub bits: usize,
    /// Anchors m.
    pub anchors: usize,
    /// Tokens marked similar and dissimilar in each row.
    pub neighbours: usize,
    /// Gradient steps a bit.
    pub iterations: usize,
    /// Step length of a gradient step.
    pub rate: f64,
    /// Nesterov's momentum.
    pub momentum: f64,
    /// Who decides whether an optimised plane is kept.
    pub keep: Keep,
    /// Where each bit's plane starts.
    pub start: Start,
    /// Seed of anchors and random planes.
    pub seed: u64,
}

/// Who decides whether an optimised plane is kept: it is, where the loss of hard signs falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Each head for itself.
    Head,
    /// All heads of the layer together by their mean loss, as the released code does.
    Layer,
}

/// Where a bit's plane starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A standard normal vector, as the released code trains.
    Normal,
    /// The best relaxed plane: the first eigenvector of KᵀSK a = λKᵀK a, scaled to √(n/aᵀKᵀKa) (KSH).
    Eigen,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bits: 16,
            anchors: 25,
            neighbours: 10,
            iterations: 100,
            rate: 5e-4,
            momentum: 0.9,
            keep: Keep::Head,
            start: Start::Normal,
            seed: 0,
        }
    }
}

/// What one bit's optimisation did to the loss of hard signs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bit {
    /// Loss of the starting plane.
    pub before: f64,
    /// Loss of the optimised plane.
    pub after: f64,
    /// Whether the optimised plane was kept.
    pub kept: bool,
}

/// A fitted hash.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Anchors m × dim, planes bits × m and means m, in f64.
    pub hash: reference::Hash,
    /// The mean of σ over the images, for [`Sigma::Frozen`].
    pub sigma: f64,
    /// One entry a bit.
    pub bits: Vec<Bit>,
}

impl Fitted {
    /// The hash for inference, with σ measured on each input.
    ///
    /// # Errors
    /// [`BitFault`] where a constant left the range of f32.
    pub fn dynamic(&self) -> Result<Hash, BitFault> {
        self.hash(Sigma::Dynamic)
    }

    /// The hash for inference, with σ frozen at its training mean.
    ///
    /// # Errors
    /// [`BitFault`] where a constant left the range of f32.
    pub fn frozen(&self) -> Result<Hash, BitFault> {
        self.hash(Sigma::Frozen(self.sigma as f32))
    }

    fn hash(&self, sigma: Sigma) -> Result<Hash, BitFault> {
        let narrow = |x: &[f64]| x.iter().map(|&v| v as f32).collect();
        let h = &self.hash;
        Hash::new(h.dim, narrow(&h.anchors), narrow(&h.planes), narrow(&h.means), sigma)
    }
}

/// One head's activations: images × tokens × dim.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// The values.
    pub values: &'a [f32],
    /// Tokens of an image; similarity is within an image.
    pub tokens: usize,
    /// Values of a token.
    pub dim: usize,
}

impl Activations<'_> {
    fn check(&self) -> Result<usize, BitFault> {
        const OPERATION: &str = "hash fit";
        let image = self.tokens * self.dim;
        if image == 0 || self.values.is_empty() {
            return Err(BitFault::Empty { operation: OPERATION, what: "the set of activations" });
        }
        let images = self.values.len() / image;
        if images * image != self.values.len() {
            return Err(BitFault::Size {
                operation: OPERATION,
                what: "the number of values (whole images)",
                expected: images * image,
                got: self.values.len(),
            });
        }
        undertone_core::binary::finite(OPERATION, self.values)?;
        Ok(images)
    }
}

/// Fits the hashes of a layer's heads: anchors are random tokens of the first image, the same
/// tokens for each head, as in the released code.
///
/// # Errors
/// [`BitFault`] for empty or ragged activations, values that are not finite, more anchors than an
/// image has tokens, no bits or more than 16.
pub fn fit(heads: &[Activations<'_>], options: &Options) -> Result<Vec<Fitted>, BitFault> {
    let limit = |what, most, got| {
        if got > most {
            Err(BitFault::Limit { operation: "hash fit", what, most, got })
        } else if got == 0 {
            Err(BitFault::Empty { operation: "hash fit", what })
        } else {
            Ok(())
        }
    };
    limit("the bits of a code", undertone_core::binary::hash::MOST_BITS, options.bits)?;
    let mut starts = Vec::with_capacity(heads.len());
    for x in heads {
        x.check()?;
        limit("the anchors (tokens of an image)", x.tokens, options.anchors)?;
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let first = widened(&x.values[..x.tokens * x.dim]);
        let first = reference::normalised(&first, x.dim);
        let anchors: Vec<f64> = index::sample(&mut rng, x.tokens, options.anchors)
            .into_iter()
            .flat_map(|i| first[i * x.dim..(i + 1) * x.dim].iter().copied())
            .collect();
        rng.set_stream(starts.len() as u64 + 1);
        let planes =
            (0..options.bits * options.anchors).map(|_| standard_normal(&mut rng)).collect();
        starts.push(Initial { anchors, planes });
    }
    fit_from(heads, starts, options)
}

/// Where a head's fit starts.
#[derive(Clone, Debug)]
pub struct Initial {
    /// Anchors m × dim: normalised tokens.
    pub anchors: Vec<f64>,
    /// Planes bits × m; [`Start::Eigen`] ignores them.
    pub planes: Vec<f64>,
}

/// [`fit`] from given anchors and planes, one entry a head.
///
/// # Errors
/// As [`fit`].
pub fn fit_from(
    heads: &[Activations<'_>],
    initial: Vec<Initial>,
    options: &Options,
) -> Result<Vec<Fitted>, BitFault> {
    let size = |what, expected, got| {
        if expected == got {
            Ok(())
        } else {
            Err(BitFault::Size { operation: "hash fit", what, expected, got })
        }
    };
    size("the number of heads' starts", heads.len(), initial.len())?;
    let m = options.anchors;
    let mut problems = Vec::with_capacity(heads.len());
    let mut fitted = Vec::with_capacity(heads.len());
    for (x, start) in heads.iter().zip(&initial) {
        let images = x.check()?;
        size("the number of anchor values", m * x.dim, start.anchors.len())?;
        size("the number of starting planes' values", options.bits * m, start.planes.len())?;
        let mut problem = Problem::new(*x, images, &start.anchors, options, heads.len());
        let means = problem.centre();
        let sigma = problem.sigma / images as f64;
        let (dim, anchors, planes) = (x.dim, start.anchors.clone(), Vec::new());
        let hash = reference::Hash { dim, anchors, planes, means, sigma: None };
        fitted.push(Fitted { hash, sigma, bits: Vec::new() });
        problems.push(problem);
    }
    for bit in 0..options.bits {
        let tried: Vec<_> = problems
            .iter()
            .zip(&initial)
            .map(|(problem, initial)| {
                let given = || initial.planes[bit * m..(bit + 1) * m].to_vec();
                let start = match options.start {
                    Start::Normal => given(),
                    Start::Eigen => problem.eigenvector().unwrap_or_else(given),
                };
                problem.optimise(start, options)
            })
            .collect();
        let sum = |f: fn(&Tried) -> f64| tried.iter().map(f).sum::<f64>();
        let layer = sum(|t| t.new.loss) < sum(|t| t.old.loss);
        for ((tried, problem), fitted) in tried.into_iter().zip(&mut problems).zip(&mut fitted) {
            let (before, after) = (tried.old.loss, tried.new.loss);
            let kept = match options.keep {
                Keep::Head => after < before,
                Keep::Layer => layer,
            };
            let chosen = if kept { tried.new } else { tried.old };
            problem.found.push(chosen.signs);
            fitted.hash.planes.extend(chosen.plane);
            fitted.bits.push(Bit { before, after, kept });
        }
    }
    Ok(fitted)
}

/// A plane, its hard signs and their loss.
struct Candidate {
    plane: Vec<f64>,
    signs: Vec<f64>,
    loss: f64,
}

/// A bit's start and what optimisation made of it.
struct Tried {
    old: Candidate,
    new: Candidate,
}

/// Kernels, sparse similarities and the bits found so far.
struct Problem {
    tokens: usize,
    m: usize,
    /// b, the scale of S₀ and of the loss.
    scale: f64,
    heads: usize,
    sigma: f64,
    /// Kernels, images · tokens × m.
    kernels: Vec<f64>,
    /// Per token, its similar and dissimilar tokens (index within the image, ±1).
    near: Vec<Vec<(u32, f64)>>,
    /// Hard signs of the bits found, each images · tokens.
    found: Vec<Vec<f64>>,
}

impl Problem {
    fn new(
        x: Activations<'_>,
        images: usize,
        anchors: &[f64],
        options: &Options,
        heads: usize,
    ) -> Self {
        let m = anchors.len() / x.dim;
        let mut kernels = Vec::with_capacity(images * x.tokens * m);
        let mut near = Vec::with_capacity(images * x.tokens);
        let mut sigma = 0.0;
        for image in x.values.chunks_exact(x.tokens * x.dim) {
            let image = reference::normalised(&widened(image), x.dim);
            let (k, s) = reference::kernels(&image, anchors, x.dim, None);
            kernels.extend(k);
            sigma += s;
            near.extend(similarities(&image, x.dim, options.neighbours));
        }
        let scale = options.bits as f64;
        Self { tokens: x.tokens, m, scale, heads, sigma, kernels, near, found: Vec::new() }
    }

    /// Subtracts the kernels' means and returns them.
    fn centre(&mut self) -> Vec<f64> {
        let rows = self.near.len() as f64;
        let mut means = vec![0.0; self.m];
        for row in self.kernels.chunks_exact(self.m) {
            means.iter_mut().zip(row).for_each(|(s, k)| *s += k);
        }
        means.iter_mut().for_each(|s| *s /= rows);
        for row in self.kernels.chunks_exact_mut(self.m) {
            row.iter_mut().zip(&means).for_each(|(k, s)| *k -= s);
        }
        means
    }

    /// K a.
    fn responses(&self, a: &[f64]) -> Vec<f64> {
        self.kernels
            .chunks_exact(self.m)
            .map(|k| k.iter().zip(a).map(|(k, a)| k * a).sum())
            .collect()
    }

    /// (S + Sᵀ) y, image by image.
    fn twice_symmetric(&self, y: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; y.len()];
        for (i, row) in self.near.iter().enumerate() {
            let first = i / self.tokens * self.tokens;
            for &(j, s) in row {
                let j = first + j as usize;
                out[i] += self.scale * s * y[j];
                out[j] += self.scale * s * y[i];
            }
        }
        for bit in &self.found {
            let images = out
                .chunks_exact_mut(self.tokens)
                .zip(bit.chunks_exact(self.tokens))
                .zip(y.chunks_exact(self.tokens));
            for ((out, bit), y) in images {
                let dot: f64 = bit.iter().zip(y).map(|(b, y)| b * y).sum();
                out.iter_mut().zip(bit).for_each(|(o, b)| *o -= 2.0 * b * dot);
            }
        }
        out
    }

    /// −mean over images and heads of yᵀSy/(N·b).
    fn loss(&self, y: &[f64]) -> f64 {
        let images = (self.near.len() / self.tokens) as f64;
        let form: f64 =
            self.twice_symmetric(y).iter().zip(y).map(|(s, y)| s * y).sum::<f64>() / 2.0;
        -form / (images * self.heads as f64 * self.tokens as f64 * self.scale)
    }

    /// Gradient steps of relaxed signs from `start`.
    fn optimise(&self, start: Vec<f64>, options: &Options) -> Tried {
        let images = (self.near.len() / self.tokens) as f64;
        let weight = -1.0 / (images * self.heads as f64 * self.tokens as f64 * self.scale);
        let mut a = start.clone();
        let mut velocity = vec![0.0; self.m];
        for _ in 0..options.iterations {
            // y = 2·sigmoid(z) − 1 = tanh(z/2), dy/dz = (1 − y²)/2.
            let y: Vec<f64> = self.responses(&a).iter().map(|z| (z / 2.0).tanh()).collect();
            let s = self.twice_symmetric(&y);
            let mut gradient = vec![0.0; self.m];
            for ((k, y), s) in self.kernels.chunks_exact(self.m).zip(&y).zip(&s) {
                let slope = weight * s * (1.0 - y * y) / 2.0;
                gradient.iter_mut().zip(k).for_each(|(g, k)| *g += slope * k);
            }
            for ((a, v), g) in a.iter_mut().zip(&mut velocity).zip(&gradient) {
                *v = options.momentum * *v + g;
                *a -= options.rate * (g + options.momentum * *v);
            }
        }
        let candidate = |plane: Vec<f64>| {
            let signs: Vec<f64> =
                self.responses(&plane).iter().map(|&y| if y > 0.0 { 1.0 } else { -1.0 }).collect();
            let loss = self.loss(&signs);
            Candidate { plane, signs, loss }
        };
        Tried { old: candidate(start), new: candidate(a) }
    }

    /// The relaxed optimum, or `None` where the kernels are degenerate.
    fn eigenvector(&self) -> Option<Vec<f64>> {
        let m = self.m;
        let mut left = Mat::<f64>::zeros(m, m);
        let mut right = Mat::<f64>::zeros(m, m);
        for (i, row) in self.near.iter().enumerate() {
            let k = &self.kernels[i * m..(i + 1) * m];
            let first = i / self.tokens * self.tokens;
            let mut wanted = vec![0.0; m];
            for &(j, s) in row {
                let other = &self.kernels[(first + j as usize) * m..][..m];
                wanted.iter_mut().zip(other).for_each(|(w, o)| *w += self.scale * s * o);
            }
            for p in 0..m {
                for q in 0..m {
                    left[(p, q)] += (k[p] * wanted[q] + k[q] * wanted[p]) / 2.0;
                    right[(p, q)] += k[p] * k[q];
                }
            }
        }
        for bit in &self.found {
            let image = self.tokens * m;
            for (kernels, bit) in
                self.kernels.chunks_exact(image).zip(bit.chunks_exact(self.tokens))
            {
                let mut sum = vec![0.0; m];
                for (k, b) in kernels.chunks_exact(m).zip(bit) {
                    sum.iter_mut().zip(k).for_each(|(s, k)| *s += b * k);
                }
                for p in 0..m {
                    for q in 0..m {
                        left[(p, q)] -= sum[p] * sum[q];
                    }
                }
            }
        }
        let trace: f64 = (0..m).map(|p| right[(p, p)]).sum();
        for p in 0..m {
            right[(p, p)] += 1e-10 * trace / m as f64;
        }
        // With KᵀK = LLᵀ: L⁻¹(KᵀSK)L⁻ᵀ u = λu, a = L⁻ᵀu.
        let lower = right.llt(Side::Lower).ok()?.L().to_owned();
        let inverse = lower.partial_piv_lu().solve(Mat::<f64>::identity(m, m));
        let whole = &inverse * &left * inverse.transpose();
        let eigen = whole.self_adjoint_eigen(Side::Lower).ok()?;
        let a = inverse.transpose() * eigen.U().col(m - 1);
        let length = (a.transpose() * (&right * &a)).sqrt();
        let scale = (self.near.len() as f64).sqrt() / length;
        let plane: Vec<f64> = a.iter().map(|v| v * scale).collect();
        plane.iter().all(|v| v.is_finite()).then_some(plane)
    }
}

/// The most and least similar tokens of each, by cosine; where both meet, dissimilar wins, as in
/// the released code.
fn similarities(image: &[f64], dim: usize, neighbours: usize) -> Vec<Vec<(u32, f64)>> {
    let tokens = image.len() / dim;
    let k = neighbours.min(tokens);
    let mut order: Vec<u32> = (0..tokens as u32).collect();
    image
        .chunks_exact(dim)
        .map(|x| {
            let cosine: Vec<f64> = image
                .chunks_exact(dim)
                .map(|y| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>())
                .collect();
            let by = |a: &u32, b: &u32| {
                cosine[*b as usize].total_cmp(&cosine[*a as usize]).then(a.cmp(b))
            };
            order.sort_unstable_by(by);
            let mut marks: Vec<(u32, f64)> =
                order[tokens - k..].iter().map(|&j| (j, -1.0)).collect();
            let far = tokens - k;
            marks.extend(order[..k.min(far)].iter().map(|&j| (j, 1.0)));
            marks
        })
        .collect()
}

fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// A standard normal number (Box and Muller).
fn standard_normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
