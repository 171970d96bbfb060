//! poulpy on the primitives and the head of `he/peers/run`, with its IFMA backend, on one thread.
//!
//! `poulpy-peer FILE`: the file has n, d and the range of the row sums, then Q, K and V, row by
//! row. Output: a name and a number a line; times are milliseconds of processor time, medians.
//!
//! The head is the one that `peers.py` runs: every shift of K and V in real slots, x⁴ by two
//! squarings, and 1/s = Π (1 + e^(2^i)), e = 1 − s (Goldschmidt). Each result is as narrow as its
//! remaining capacity allows, so that later operations cost less.

use std::collections::HashMap;
use std::hint::black_box;

use cpu_time::ProcessTime;
use poulpy_ckks::api::{
    CKKSAddOps, CKKSAllOpsTmpBytes, CKKSDecryptOps, CKKSEncodingHostOps, CKKSEncryptOps,
    CKKSModuleInfos, CKKSMulOps, CKKSNegOps, CKKSRotateOps,
};
use poulpy_ckks::layouts::{CKKSCiphertextAlloc, CKKSCiphertextOwned, CKKSPlaintextAlloc};
use poulpy_ckks::{CKKSInfos, GLWEPlaintextMeta, Scale, SetCKKSInfos, SlotsKind};
use poulpy_core::api::{
    GLWEAutomorphismKeyPreparedFactory, GLWESecretPreparedFactory, GLWESecretSampling,
    GLWETensorKeyPreparedFactory,
};
use poulpy_core::layouts::prepared::GLWESecretPrepared;
use poulpy_core::layouts::{
    BackendGLWESecret, Base2K, GGLWELayout, GLWEAutomorphismKeyAlloc, GLWEAutomorphismKeyLayout,
    GLWEAutomorphismKeyPrepared, GLWELayout, GLWESecretAlloc, GLWETensorKeyAlloc,
    GLWETensorKeyLayout, GLWETensorKeyPrepared, LWEInfos, Rank, TorusPrecision, k_digit_of,
};
use poulpy_core::{GLWEAutomorphismKeyEncryptSk, GLWETensorKeyEncryptSk};
use poulpy_cpu_avx512::NTT3x42Ifma;
use poulpy_hal::api::{ScratchOwnedAlloc, ScratchOwnedBorrow};
use poulpy_hal::layouts::{Backend, Module, ScratchOwned};
use poulpy_hal::source::Source;

type Error = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Error>;
type Ciphertext = CKKSCiphertextOwned<NTT3x42Ifma>;
type Bytes = <NTT3x42Ifma as Backend>::OwnedBuf;

const LOG_N: usize = 15;
const SLOTS: usize = 1 << (LOG_N - 1);
/// Bits of a limb, below the 56 that this backend allows.
const BASE: usize = 52;
/// Bits of a value's integer part that a plaintext keeps.
const INTEGER: usize = 12;

/// What a parameter set needs to be told.
#[derive(Clone, Copy)]
struct Set {
    /// log₂ of the scale.
    delta: usize,
    /// Bits of a fresh ciphertext.
    k: usize,
    /// Limbs of a digit of a key switch.
    digit: usize,
}

impl Set {
    /// The auxiliary part of a key: a digit and log₂N bits of noise.
    fn auxiliary(self) -> usize {
        self.digit * BASE + LOG_N
    }

    fn log_qp(self) -> usize {
        self.k + self.auxiliary()
    }

    fn ciphertext(self) -> GLWELayout {
        GLWELayout {
            n: (1usize << LOG_N).into(),
            base2k: BASE.into(),
            k: self.k.into(),
            rank: Rank(1),
        }
    }

    fn tensor_key(self) -> GLWETensorKeyLayout {
        let k_digit = k_digit_of(BASE, self.digit);
        GLWETensorKeyLayout {
            n: (1usize << LOG_N).into(),
            base2k: BASE.into(),
            dnum: GGLWELayout::dnum_for_input(TorusPrecision(self.k as u32), k_digit),
            k_aux: self.auxiliary().into(),
            rank: Rank(1),
            k_digit,
        }
    }

    fn rotation_key(self) -> GLWEAutomorphismKeyLayout {
        let t = self.tensor_key();
        GLWEAutomorphismKeyLayout {
            n: t.n,
            base2k: t.base2k,
            dnum: t.dnum,
            k_aux: t.k_aux,
            rank: t.rank,
            k_digit: t.k_digit,
        }
    }

    fn meta(self) -> GLWEPlaintextMeta {
        GLWEPlaintextMeta {
            scale: Scale::Log(self.delta),
            slots: SlotsKind::Complex,
            log_sparsity: 0,
        }
    }
}

/// A party that holds everything: keys, and room to compute in.
struct Party {
    set: Set,
    module: Module<NTT3x42Ifma>,
    secret: GLWESecretPrepared<Bytes, NTT3x42Ifma>,
    relinearization: GLWETensorKeyPrepared<Bytes, NTT3x42Ifma>,
    rotations: HashMap<i64, GLWEAutomorphismKeyPrepared<Bytes, NTT3x42Ifma>>,
    scratch: ScratchOwned<NTT3x42Ifma>,
    noise: [Source; 2],
}

impl Party {
    fn new(set: Set, steps: &[usize]) -> Self {
        let module = Module::<NTT3x42Ifma>::new(1 << LOG_N);
        let mut noise = [Source::new([1; 32]), Source::new([2; 32])];
        let layout = set.ciphertext();
        let mut raw: BackendGLWESecret<NTT3x42Ifma> = module.glwe_secret_alloc_from_infos(&layout);
        // Uniform ternary, as the other libraries' secrets.
        module.glwe_secret_fill_ternary_prob(&mut raw, 2.0 / 3.0, &mut Source::new([3; 32]));
        let mut secret = module.glwe_secret_prepared_alloc_from_infos(&layout);
        module.glwe_secret_prepare(&mut secret, &raw);

        let mut fresh = module.ckks_ciphertext_alloc_from_glwe_infos(&layout);
        fresh.set_meta(set.meta());
        let (tensor, rotation) = (set.tensor_key(), set.rotation_key());
        let bytes = module.ckks_all_ops_with_atk_tmp_bytes(&fresh, &fresh, &tensor, &rotation);
        let encoding = CKKSEncodingHostOps::<NTT3x42Ifma, f64>::ckks_encoding_host_tmp_bytes(
            &module, SLOTS,
        );
        let mut scratch = ScratchOwned::<NTT3x42Ifma>::alloc(bytes.max(encoding));

        let [xe, xa] = &mut noise;
        let mut key = module.glwe_tensor_key_alloc_from_infos(&tensor);
        module.glwe_tensor_key_encrypt_sk(&mut key, &raw, xe, xa, &mut scratch.borrow());
        let mut relinearization = module.glwe_tensor_key_prepared_alloc_from_infos(&tensor);
        module.glwe_tensor_key_prepare(&mut relinearization, &key, &mut scratch.borrow());
        let mut rotations = HashMap::new();
        for &step in steps {
            let element = module.ckks_galois_element(step as i64);
            let mut key = module.glwe_automorphism_key_alloc_from_infos(&rotation);
            let room = &mut scratch.borrow();
            module.glwe_automorphism_key_encrypt_sk(&mut key, element, &raw, xe, xa, room);
            let mut ready = module.glwe_automorphism_key_prepared_alloc_from_infos(&rotation);
            module.glwe_automorphism_key_prepare(&mut ready, &key, room);
            rotations.insert(element, ready);
        }
        Self { set, module, secret, relinearization, rotations, scratch, noise }
    }

    fn empty(&self, k: usize) -> Ciphertext {
        self.module.ckks_ciphertext_alloc(Base2K(BASE as u32), k.into())
    }

    fn encrypt(&mut self, values: &[f64]) -> Result<Ciphertext> {
        let (base, k) = (Base2K(BASE as u32), self.set.delta + INTEGER);
        let mut plain = self.module.ckks_plaintext_alloc_from_slots(SLOTS, base, k.into());
        plain.set_meta(self.set.meta());
        let (zeros, room) = (vec![0.0; SLOTS], &mut self.scratch.borrow());
        self.module.ckks_encode_slots_host_into(&mut plain, values, &zeros, room)?;
        let mut out = self.module.ckks_ciphertext_alloc_from_glwe_infos(&self.set.ciphertext());
        let [xe, xa] = &mut self.noise;
        self.module.ckks_encrypt_sk(&mut out, &plain, &self.secret, xe, xa, room)?;
        Ok(out)
    }

    fn decrypt(&mut self, x: &Ciphertext) -> Result<Vec<f64>> {
        let k = x.log_delta() + x.log_budget().min(INTEGER);
        let base = Base2K(BASE as u32);
        let mut plain = self.module.ckks_plaintext_alloc_from_slots(SLOTS, base, k.into());
        plain.set_meta(self.set.meta());
        let room = &mut self.scratch.borrow();
        self.module.ckks_decrypt(&mut plain, x, &self.secret, room)?;
        let (mut re, mut im) = (vec![0.0f64; SLOTS], vec![0.0; SLOTS]);
        self.module.ckks_decode_slots_host_into(&plain, &mut re, &mut im, room)?;
        Ok(re)
    }

    /// a·b, relinearized, as wide as what is left.
    fn mul(&mut self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        let mut out = self.empty(a.log_budget().min(b.log_budget()));
        let room = &mut self.scratch.borrow();
        self.module.ckks_mul_into(&mut out, a, b, &self.relinearization, room)?;
        Ok(out)
    }

    fn square(&mut self, a: &Ciphertext) -> Result<Ciphertext> {
        let mut out = self.empty(a.log_budget());
        let room = &mut self.scratch.borrow();
        self.module.ckks_square_into(&mut out, a, &self.relinearization, room)?;
        Ok(out)
    }

    fn add(&mut self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        let mut out = self.empty(a.k().as_usize().min(b.k().as_usize()));
        self.module.ckks_add_into(&mut out, a, b, &mut self.scratch.borrow())?;
        Ok(out)
    }

    fn rotate(&mut self, a: &Ciphertext, step: usize) -> Result<Ciphertext> {
        let mut out = self.empty(a.k().as_usize());
        let room = &mut self.scratch.borrow();
        self.module.ckks_rotate_into(step as i64, &mut out, a, &self.rotations, room)?;
        Ok(out)
    }

    fn with_rotated(&mut self, a: &Ciphertext, step: usize) -> Result<Ciphertext> {
        let turned = self.rotate(a, step)?;
        self.add(a, &turned)
    }

    /// 1 + a.
    fn one_plus(&mut self, a: &Ciphertext) -> Result<Ciphertext> {
        let mut out = a.clone();
        self.module.ckks_add_one_assign(&mut out, &mut self.scratch.borrow())?;
        Ok(out)
    }

    fn negate(&mut self, a: &Ciphertext) -> Result<Ciphertext> {
        let mut out = a.clone();
        self.module.ckks_neg_assign(&mut out)?;
        Ok(out)
    }
}

/// Sizes, rotations and slots of the head; slot c·stride + s·n + i.
struct Layout {
    n: usize,
    d: usize,
    stride: usize,
    shifts: usize,
    pairs: usize,
}

impl Layout {
    fn new(n: usize, d: usize) -> Self {
        let stride = SLOTS / d;
        let shifts = stride / n;
        Self { n, d, stride, shifts, pairs: n.div_ceil(shifts) }
    }

    fn over_features(&self) -> Vec<usize> {
        (0..self.d.ilog2()).map(|r| self.stride << r).collect()
    }

    fn over_shifts(&self) -> Vec<usize> {
        (0..self.shifts.min(self.n).ilog2()).map(|r| self.n << r).collect()
    }

    /// x[i][c] everywhere, or x[(i + t·shifts + s) mod n][c].
    fn pack(&self, x: &[f64], t: Option<usize>) -> Vec<f64> {
        (0..SLOTS)
            .map(|at| {
                let (c, s, i) = (at / self.stride, at % self.stride / self.n, at % self.n);
                let row = t.map_or(i, |t| (i + t * self.shifts + s) % self.n);
                x[row * self.d + c]
            })
            .collect()
    }
}

fn head(
    p: &mut Party,
    l: &Layout,
    q: &Ciphertext,
    pairs: &[[Ciphertext; 2]],
    doublings: usize,
) -> Result<Ciphertext> {
    let mut sums: Option<[Ciphertext; 2]> = None;
    for [k, v] in pairs {
        let mut s = p.mul(q, k)?;
        for step in l.over_features() {
            s = p.with_rotated(&s, step)?;
        }
        let square = p.square(&s)?;
        let w = p.square(&square)?;
        let wv = p.mul(&w, v)?;
        sums = Some(match sums {
            None => [wv, w],
            Some([num, den]) => [p.add(&num, &wv)?, p.add(&den, &w)?],
        });
    }
    let [mut num, mut den] = sums.ok_or("no keys")?;
    for step in l.over_shifts() {
        num = p.with_rotated(&num, step)?;
        den = p.with_rotated(&den, step)?;
    }
    let minus = p.negate(&den)?;
    let mut e = p.one_plus(&minus)?;
    let mut inverse = p.one_plus(&e)?;
    for _ in 1..doublings {
        e = p.square(&e)?;
        let factor = p.one_plus(&e)?;
        inverse = p.mul(&inverse, &factor)?;
    }
    p.mul(&num, &inverse)
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).ok_or("a file with the head's inputs")?;
    let text = std::fs::read_to_string(path)?;
    let numbers: Vec<f64> =
        text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
    let [n, d, low, high] = *numbers.first_chunk().ok_or("four numbers in front")?;
    let (n, d) = (n as usize, d as usize);
    let [q, k, v] = [0, 1, 2].map(|i| &numbers[4 + i * n * d..4 + (i + 1) * n * d]);

    // Fifteen digits of a limb and three of four limbs: 18 and 14 squarings at a scale of 2^40.
    let many = Set { delta: 40, k: 15 * BASE, digit: 1 };
    let few = Set { delta: 40, k: 12 * BASE, digit: 4 };
    for (set, suffix) in [(few, ""), (many, ".digits")] {
        let mut p = Party::new(set, &[1]);
        let values: Vec<f64> = (0..SLOTS).map(|i| (0.37 * i as f64).sin()).collect();
        let x = p.encrypt(&values)?;
        println!("log_qp{suffix} {}", set.log_qp());
        println!("multiply{suffix} {:.3}", median(7, || p.mul(&x, &x))?);
        println!("rotate{suffix} {:.3}", median(7, || p.rotate(&x, 1))?);
        let product = p.mul(&x, &x)?;
        let turned = p.rotate(&product, 1)?;
        let found = p.decrypt(&turned)?;
        // Which way a rotation turns is a convention.
        let error = |by: usize| {
            let wanted = (0..SLOTS).map(|i| values[(i + by) % SLOTS].powi(2));
            found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        println!("bits{suffix} {:.1}", -error(1).min(error(SLOTS - 1)).log2());
    }

    let l = Layout::new(n, d);
    // Row sums times c lie in 1 ± e; e to the power 2^doublings is below the tolerance.
    let (c, e) = (2.0 / (low + high), (high - low) / (high + low));
    let doublings = (3e-7f64.ln() / e.ln()).log2().ceil() as usize;
    // The capacity, spread over the levels and the result.
    let set = Set { delta: (few.k - INTEGER) / (doublings + 5), ..few };
    if set.delta < 30 {
        return Err("the capacity does not suffice for this range of row sums".into());
    }
    let mut p = Party::new(set, &[l.over_features(), l.over_shifts()].concat());
    let scale = c.powf(0.25) / (d as f64).sqrt();
    let scaled: Vec<f64> = q.iter().map(|x| x * scale).collect();
    let eq = p.encrypt(&l.pack(&scaled, None))?;
    let mut pairs = Vec::new();
    for t in 0..l.pairs {
        pairs.push([p.encrypt(&l.pack(k, Some(t)))?, p.encrypt(&l.pack(v, Some(t)))?]);
    }
    let mut out = None;
    let time = median(3, || {
        out = Some(head(&mut p, &l, &eq, &pairs, doublings)?);
        Ok(())
    })?;
    let found = p.decrypt(&out.ok_or("no result")?)?;
    let mut worst = 0.0f64;
    for i in 0..n {
        let row = |x: &[f64], i: usize| x[i * d..(i + 1) * d].to_vec();
        let dot = |j: usize| row(q, i).iter().zip(row(k, j)).map(|(a, b)| a * b).sum::<f64>();
        let w: Vec<f64> = (0..n).map(|j| (dot(j) / (d as f64).sqrt()).powi(4)).collect();
        let total: f64 = w.iter().sum();
        for c in 0..d {
            let exact = (0..n).map(|j| w[j] * v[j * d + c]).sum::<f64>() / total;
            worst = worst.max((found[c * l.stride + i] - exact).abs());
        }
    }
    println!("head_log_qp {}", set.log_qp());
    println!("head_levels {}", doublings + 4);
    println!("head {time:.1}");
    println!("head_bits {:.1}", -worst.log2());
    Ok(())
}

/// Milliseconds of processor time, after one call to warm up.
fn median<T>(count: usize, mut f: impl FnMut() -> Result<T>) -> Result<f64> {
    black_box(f()?);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = ProcessTime::now();
        black_box(f()?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[count / 2])
}
