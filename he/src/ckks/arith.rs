//! Arithmetic modulo one prime below 2⁵⁰, with Montgomery radix 2⁵².
//!
//! The radix is that of the AVX-512 IFMA multipliers. Every backend computes the same integers,
//! lazily reduced ones included, so results never depend on the processor.

/// Operands and radix of the multipliers: 52 bits.
pub(crate) const RADIX_BITS: u32 = 52;
/// The low 52 bits.
pub(crate) const MASK: u64 = (1 << RADIX_BITS) - 1;

/// A prime below 2⁵⁰ and what reduction by it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Modulus {
    /// The prime.
    pub(crate) p: u64,
    /// −p⁻¹ mod 2⁵².
    pub(crate) neg_inv: u64,
    /// 2⁵² mod p: one, in Montgomery form.
    pub(crate) one: u64,
    /// 2¹⁰⁴ mod p: turns a residue into its Montgomery form.
    pub(crate) r2: u64,
}

/// A fixed factor w with ⌊w·2⁵²/p⌋ (Shoup), for exact products by a constant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shoup {
    pub(crate) w: u64,
    pub(crate) quotient: u64,
}

impl Modulus {
    pub(crate) fn new(p: u64) -> Self {
        // tfhe-ntt 0.7 is wrong for many primes between 2^50.4 and 2^51; the lazy bounds below
        // (four times p within 52 bits) need p < 2^50 as well.
        assert!(p > 1 << 20 && p < 1 << 50 && p % 2 == 1, "modulus out of range");
        let mut inv = 1u64;
        for _ in 0..6 {
            inv = inv.wrapping_mul(2u64.wrapping_sub(p.wrapping_mul(inv)));
        }
        let one = ((1u128 << RADIX_BITS) % p as u128) as u64;
        Self {
            p,
            neg_inv: inv.wrapping_neg() & MASK,
            one,
            r2: ((one as u128 * one as u128) % p as u128) as u64,
        }
    }

    /// a·b mod p.
    pub(crate) fn mul(&self, a: u64, b: u64) -> u64 {
        ((a as u128 * b as u128) % self.p as u128) as u64
    }

    /// a^e mod p.
    pub(crate) fn pow(&self, mut a: u64, mut e: u64) -> u64 {
        let mut r = 1;
        while e > 0 {
            if e & 1 == 1 {
                r = self.mul(r, a);
            }
            a = self.mul(a, a);
            e >>= 1;
        }
        r
    }

    /// a⁻¹ mod p, for a not divisible by p.
    pub(crate) fn inv(&self, a: u64) -> u64 {
        self.pow(a % self.p, self.p - 2)
    }

    /// a·2⁵² mod p.
    pub(crate) fn to_montgomery(self, a: u64) -> u64 {
        self.mul(a % self.p, self.one)
    }

    /// The constant with its Shoup quotient.
    pub(crate) fn shoup(&self, w: u64) -> Shoup {
        let w = w % self.p;
        Shoup { w, quotient: (((w as u128) << RADIX_BITS) / self.p as u128) as u64 }
    }

    /// The residue of a signed integer.
    pub(crate) fn reduce_i128(&self, x: i128) -> u64 {
        x.rem_euclid(self.p as i128) as u64
    }
}

/// Whether p is prime: Miller–Rabin with the bases that decide every 64-bit integer.
pub(crate) fn is_prime(p: u64) -> bool {
    if p < 2 {
        return false;
    }
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if BASES.iter().any(|&b| p.is_multiple_of(b)) {
        return BASES.contains(&p);
    }
    let mul = |a: u64, b: u64| ((a as u128 * b as u128) % p as u128) as u64;
    let (d, s) = ((p - 1) >> (p - 1).trailing_zeros(), (p - 1).trailing_zeros());
    BASES.iter().all(|&b| {
        let (mut x, mut a, mut e) = (1, b, d);
        while e > 0 {
            if e & 1 == 1 {
                x = mul(x, a);
            }
            a = mul(a, a);
            e >>= 1;
        }
        if x == 1 || x == p - 1 {
            return true;
        }
        (1..s).any(|_| {
            x = mul(x, x);
            x == p - 1
        })
    })
}
