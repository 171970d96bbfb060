//! The baseline's vector code. All `unsafe` of the benchmark is here.

use std::hint::black_box;
use undertone_core::binary::hash::{EXP2, ROUND};

/// The softmax's exponentials in place, 2^(factor·(s − max s)), and their sum.
pub(crate) fn exponentials(row: &mut [f32], factor: f32) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: detected.
        return unsafe { x86::exponentials(row, factor) };
    }
    lanes(row, factor)
}

#[inline(always)]
fn lanes(row: &mut [f32], factor: f32) -> f32 {
    const LANES: usize = 64;
    let mut most = [f32::MIN; LANES];
    let (whole, rest) = row.as_chunks_mut::<LANES>();
    for chunk in whole.iter() {
        for l in 0..LANES {
            most[l] = if chunk[l] > most[l] { chunk[l] } else { most[l] };
        }
    }
    let most = most.iter().chain(rest.iter()).copied().fold(f32::MIN, f32::max);
    let exp = |s: f32| {
        let z = (s - most) * factor;
        let z = if z > -126.0 { z } else { -126.0 };
        let rounded = z + ROUND;
        let f = z - (rounded - ROUND);
        // Degree 5 is enough for a softmax: 2e-6.
        let mut p = EXP2[1];
        for &c in &EXP2[2..] {
            p = p.mul_add(f, c);
        }
        f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
    };
    let mut sums = [0.0f32; LANES];
    for chunk in whole {
        for l in 0..LANES {
            chunk[l] = exp(chunk[l]);
            sums[l] += chunk[l];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for s in rest {
        *s = exp(*s);
        sum += *s;
    }
    sum
}

/// Cycles a nanosecond, from a chain of dependent multiplications and rotations (three cycles and one
/// on every x86-64 core of the last decade); `clock` is a thread's CPU time in seconds.
pub(crate) fn gigahertz(clock: impl Fn() -> f64) -> f64 {
    const STEPS: u32 = 1_000_000;
    let run = || {
        let start = clock();
        let mut x = black_box(3u64);
        for _ in 0..STEPS {
            x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
        black_box(x);
        clock() - start
    };
    let best = (0..20).map(|_| run()).fold(f64::MAX, f64::min);
    4.0 * f64::from(STEPS) / best / 1e9
}

/// What one ceiling loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ceiling {
    /// Fused multiply-adds of floats.
    Float,
    /// Exclusive or, byte popcount and byte addition.
    Bits,
}

/// Seconds that `rounds` of a ceiling's loop take, and the multiply-accumulates in them; `None` where
/// the machine lacks the instructions.
pub(crate) fn ceiling(which: Ceiling, rounds: u32, clock: impl Fn() -> f64) -> Option<(f64, f64)> {
    #[cfg(target_arch = "x86_64")]
    if undertone_binary::Level::best() == undertone_binary::Level::Avx512 {
        let best = (0..20)
            .map(|_| {
                let start = clock();
                // SAFETY: the level implies the instructions.
                unsafe {
                    match which {
                        Ceiling::Float => x86::float_ceiling(rounds),
                        Ceiling::Bits => x86::bits_ceiling(rounds),
                    }
                }
                clock() - start
            })
            .fold(f64::MAX, f64::min);
        let each = match which {
            Ceiling::Float => 16.0 * 16.0,
            Ceiling::Bits => 512.0 * 8.0,
        };
        return Some((best, f64::from(rounds) * each));
    }
    let _ = (which, rounds, clock);
    None
}

/// Int8 attention: keys and values packed for VNNI; `None` where the machine lacks it.
pub(crate) struct Int8 {
    n: usize,
    d: usize,
    keys: Vec<i8>,
    values: Vec<i8>,
    offsets: Vec<i32>,
    scores: Vec<f32>,
    weights: Vec<u8>,
    factor: f32,
    scale: f32,
}

impl Int8 {
    /// Quantizes and packs one head, symmetric with one scale a tensor; `d` a multiple of 16.
    pub(crate) fn new(k: &[f32], v: &[f32], n: usize, d: usize, query_scale: f32) -> Option<Self> {
        if undertone_binary::Level::best() != undertone_binary::Level::Avx512
            || !d.is_multiple_of(16)
        {
            return None;
        }
        let (ks, vs) = (scale_of(k), scale_of(v));
        let padded = n.next_multiple_of(64);
        let mut keys = vec![0; padded * d];
        let mut values = vec![0; padded * d];
        let mut offsets = vec![0; padded];
        for j in 0..n {
            for c in 0..d {
                let key = (k[j * d + c] / ks).round() as i8;
                offsets[j] += 128 * i32::from(key);
                keys[((j / 16 * (d / 4) + c / 4) * 16 + j % 16) * 4 + c % 4] = key;
                let value = (v[j * d + c] / vs).round() as i8;
                values[((j / 4 * (d / 16) + c / 16) * 16 + c % 16) * 4 + j % 4] = value;
            }
        }
        let factor = std::f32::consts::LOG2_E / (d as f32).sqrt() * query_scale * ks;
        Some(Self {
            n,
            d,
            keys,
            values,
            offsets,
            scores: vec![0.0; 4 * padded],
            weights: vec![0; 4 * padded],
            factor,
            scale: vs,
        })
    }

    /// Queries as bytes, 128 for zero.
    pub(crate) fn queries(q: &[f32]) -> (Vec<u8>, f32) {
        let s = scale_of(q);
        (q.iter().map(|v| ((v / s).round() as i32 + 128) as u8).collect(), s)
    }

    /// Attention of quantized queries, `out` in floats.
    pub(crate) fn attend(&mut self, q: &[u8], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the constructor checked the level; buffers are the constructor's.
        unsafe {
            x86::int8(
                q,
                &self.keys,
                &self.values,
                &self.offsets,
                self.n,
                self.d,
                self.factor,
                self.scale,
                &mut self.scores,
                &mut self.weights,
                out,
            );
        }
    }
}

fn scale_of(x: &[f32]) -> f32 {
    x.iter().fold(1e-9f32, |m, v| m.max(v.abs())) / 127.0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    pub(super) unsafe fn exponentials(row: &mut [f32], factor: f32) -> f32 {
        super::lanes(row, factor)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn float_ceiling(rounds: u32) {
        let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        let mut sums: [__m512; 16] = std::array::from_fn(|i| _mm512_set1_ps(i as f32));
        for _ in 0..rounds {
            for s in &mut sums {
                *s = _mm512_fmadd_ps(*s, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bitalg")]
    pub(super) unsafe fn bits_ceiling(rounds: u32) {
        let x: [__m512i; 8] = std::array::from_fn(|i| _mm512_set1_epi8(black_box(i as i8)));
        let mut sums = [_mm512_setzero_si512(); 8];
        for i in 0..rounds {
            let y = _mm512_set1_epi32(i as i32);
            for (s, x) in sums.iter_mut().zip(&x) {
                *s = _mm512_add_epi8(*s, _mm512_popcnt_epi8(_mm512_xor_si512(*x, y)));
            }
        }
        black_box((sums, x));
    }

    /// # Safety
    /// Needs AVX-512 F, BW, VNNI; buffers as `Int8::new` makes them.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
    pub(super) unsafe fn int8(
        q: &[u8],
        keys: &[i8],
        values: &[i8],
        offsets: &[i32],
        n: usize,
        d: usize,
        factor: f32,
        scale: f32,
        scores: &mut [f32],
        weights: &mut [u8],
        out: &mut [f32],
    ) {
        let padded = offsets.len();
        let quads = d / 4;
        for (q, out) in q.chunks(4 * d).zip(out.chunks_mut(4 * d)) {
            let rows = q.len() / d;
            // Four queries always: a short last block repeats its last one.
            let starts: [usize; 4] = std::array::from_fn(|i| i.min(rows - 1) * d);
            for j in (0..padded).step_by(32) {
                let mut sums = [[_mm512_setzero_si512(); 2]; 4];
                for c in 0..quads {
                    // SAFETY: 16 keys of 4 bytes; `keys` holds padded · d bytes.
                    let k: [__m512i; 2] = std::array::from_fn(|h| unsafe {
                        _mm512_loadu_si512(
                            keys.as_ptr().add(((j / 16 + h) * quads + c) * 64).cast(),
                        )
                    });
                    for i in 0..4 {
                        // SAFETY: four bytes of one of the block's queries.
                        let four = unsafe {
                            q.as_ptr().add(starts[i] + 4 * c).cast::<i32>().read_unaligned()
                        };
                        let four = _mm512_set1_epi32(four);
                        for h in 0..2 {
                            sums[i][h] = _mm512_dpbusd_epi32(sums[i][h], four, k[h]);
                        }
                    }
                }
                for i in 0..4 {
                    for h in 0..2 {
                        let at = j + 16 * h;
                        // SAFETY: within the padded rows.
                        unsafe {
                            let offset = _mm512_loadu_si512(offsets.as_ptr().add(at).cast());
                            let s = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[i][h], offset));
                            _mm512_storeu_ps(scores.as_mut_ptr().add(i * padded + at), s);
                        }
                    }
                }
            }
            let mut inverse = [0.0f32; 4];
            for i in 0..4 {
                let row = &mut scores[i * padded..][..n];
                super::lanes(row, factor);
                let weights = &mut weights[i * padded..][..n];
                let mut total = 0u32;
                for (w, s) in weights.iter_mut().zip(&*row) {
                    // SAFETY: exponentials lie in 0…1.
                    *w = unsafe { (s * 255.0 + 0.5).to_int_unchecked::<i32>() } as u8;
                }
                weights.iter().for_each(|w| total += u32::from(*w));
                inverse[i] = scale / total as f32;
            }
            for c in 0..d / 16 {
                let mut sums = [_mm512_setzero_si512(); 4];
                for j in 0..padded / 4 {
                    // SAFETY: four keys of 16 channels; `values` holds padded · d bytes.
                    let v = unsafe {
                        _mm512_loadu_si512(values.as_ptr().add((j * (d / 16) + c) * 64).cast())
                    };
                    for i in 0..4 {
                        // SAFETY: four weights of the padded row.
                        let four = unsafe {
                            weights.as_ptr().add(i * padded + 4 * j).cast::<i32>().read_unaligned()
                        };
                        sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_set1_epi32(four), v);
                    }
                }
                for i in 0..rows {
                    let y = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), _mm512_set1_ps(inverse[i]));
                    // SAFETY: 16 of the row's `d` channels.
                    unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(i * d + 16 * c), y) };
                }
            }
        }
    }
}
