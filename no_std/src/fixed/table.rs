//! Nonlinear functions of raw integers: tables over a declared domain, and direct evaluation where a table would need
//! too wide a range (exp, reciprocal, reciprocal root).
//!
//! A [`Table`] is built by `const fn` from [`super::math`], so the same bits stand in flash and in memory: no float
//! takes part. It interpolates quadratically through three entries, error at most h³·max|f'''|/15.6 for a step h
//! (Lagrange form), or linearly, error h²·max|f''|/8.

use super::recip::{recip, rsqrt};
use super::requant::{Narrow, mul_shift, round_shift};
use super::shift::pow2_neg;
use super::{KernelError, math};

/// A function that a table can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// e^x.
    Exp,
    /// x·Φ(x), with the Gaussian integral itself.
    Gelu,
    /// 1/(1 + e^-x).
    Sigmoid,
    /// ln(1 + e^x).
    Softplus,
    /// The hyperbolic tangent.
    Tanh,
}

impl Function {
    /// Its value; argument and result in Q15.48.
    #[must_use]
    pub const fn value(self, x: i64) -> i64 {
        match self {
            Self::Exp => math::exp(x),
            Self::Gelu => math::gelu(x),
            Self::Sigmoid => math::sigmoid(x),
            Self::Softplus => math::softplus(x),
            Self::Tanh => math::tanh(x),
        }
    }
}

/// Where arguments lie and where the binary points stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The least argument, raw.
    pub lo: i32,
    /// The greatest argument, raw.
    pub hi: i32,
    /// Fraction bits of an argument, at most 30.
    pub in_frac: u32,
    /// Fraction bits of the result, at most 26.
    pub out_frac: u32,
}

/// `N` equidistant values of a function, of which the first stands at the domain's lower end.
///
/// ```
/// use undertone_core::fixed::table::{Domain, Function, Table};
/// // Sigmoid on [-8, 8] with 12 fraction bits, 15 bits out; built at compile time.
/// const SIGMOID: Table<131> =
///     match Table::new(Function::Sigmoid, Domain { lo: -8 << 12, hi: 8 << 12, in_frac: 12, out_frac: 15 }) {
///         Ok(table) => table,
///         Err(_) => panic!("the domain fits"),
///     };
/// assert_eq!(SIGMOID.quadratic(0), 1 << 14);
/// assert_eq!(SIGMOID.quadratic(1 << 12), 23_955); // 0.731059 · 32,768
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<const N: usize> {
    domain: Domain,
    /// log2 of the step, in raw units of the argument.
    step: u32,
    /// With [`GUARD`] more fraction bits than the result.
    values: [i32; N],
}

/// Bits that entries carry beyond the result's.
pub const GUARD: u32 = 4;

impl<const N: usize> Table<N> {
    /// Tabulates `function`, with the smallest power-of-two step for which `N` ≥ 3 entries span the domain.
    ///
    /// # Errors
    /// [`KernelError::Domain`] for an empty domain, too few entries, formats out of range, or a
    /// value that does not fit 32 bits with [`GUARD`] bits to spare.
    pub const fn new(function: Function, domain: Domain) -> Result<Self, KernelError> {
        let (what, got, lo, hi) = if N < 3 {
            ("entries", N as i64, 3, i64::MAX)
        } else if domain.lo >= domain.hi {
            ("the upper end", domain.hi as i64, domain.lo as i64 + 1, i32::MAX as i64)
        } else if domain.in_frac > 30 {
            ("in_frac", domain.in_frac as i64, 0, 30)
        } else if domain.out_frac > 26 {
            ("out_frac", domain.out_frac as i64, 0, 26)
        } else {
            ("", 0, 0, 0)
        };
        if !what.is_empty() {
            return Err(KernelError::Domain { kernel: "table::Table", what, got, lo, hi });
        }
        // Three entries from any segment on: the last segment used starts at entry N − 3.
        let width = domain.hi as i64 - domain.lo as i64;
        let mut step = 0;
        while (width >> step) >= N as i64 - 2 {
            step += 1;
        }
        let mut values = [0; N];
        let mut i = 0;
        while i < N {
            // The last entries stand beyond the domain, perhaps beyond Q15.48: there every function is flat or an error.
            let x = domain.lo as i64 + ((i as i64) << step);
            let x = mul_shift(x, 1, domain.in_frac as i32 - math::FRAC as i32);
            let y = round_shift(function.value(x), (math::FRAC - domain.out_frac - GUARD) as i32);
            if y > i32::MAX as i64 || y < i32::MIN as i64 {
                return Err(KernelError::Domain {
                    kernel: "table::Table",
                    what: "a value",
                    got: y,
                    lo: i32::MIN as i64,
                    hi: i32::MAX as i64,
                });
            }
            values[i] = y as i32;
            i += 1;
        }
        Ok(Self { domain, step, values })
    }

    /// The domain it was built for.
    #[must_use]
    pub const fn domain(&self) -> Domain {
        self.domain
    }

    /// Whether an argument lies in the domain.
    #[inline]
    #[must_use]
    pub const fn contains(&self, x: i32) -> bool {
        self.domain.lo <= x && x <= self.domain.hi
    }

    /// The segment of an argument clamped to the domain: its first three entries and the position within, below 2^step.
    #[inline]
    fn segment(&self, x: i32) -> ([i64; 3], i64) {
        // Not `clamp`, which panics where the compiler cannot see that lo ≤ hi.
        let offset = x.max(self.domain.lo).min(self.domain.hi).abs_diff(self.domain.lo);
        let at = (offset >> self.step) as usize;
        let within = i64::from(offset & ((1 << self.step) - 1));
        let three = self.values.get(at..).and_then(<[i32]>::first_chunk::<3>);
        (three.copied().unwrap_or_default().map(i64::from), within)
    }

    /// The function by linear interpolation; arguments outside the domain count as its nearer end.
    #[inline]
    #[must_use]
    pub fn linear(&self, x: i32) -> i32 {
        let ([a, b, _], t) = self.segment(x);
        let y = (a << self.step) + (b - a) * t;
        round_shift(y, (self.step + GUARD) as i32) as i32
    }

    /// The function by quadratic interpolation through three entries; arguments outside the domain count as its nearer
    /// end.
    #[inline]
    #[must_use]
    pub fn quadratic(&self, x: i32) -> i32 {
        let ([a, b, c], t) = self.segment(x);
        // Newton's form: a + t·(Δ + (t − 1)/2·Δ²), t in units of the step.
        let bend = round_shift((c - 2 * b + a) * (t - (1 << self.step)), self.step as i32 + 1);
        let y = (a << self.step) + (b - a + bend) * t;
        round_shift(y, (self.step + GUARD) as i32) as i32
    }

    /// Maps a slice by quadratic interpolation.
    ///
    /// # Errors
    /// [`KernelError::Length`] if the slices differ in length.
    pub fn map<O: Narrow>(&self, x: &[i16], out: &mut [O]) -> Result<Mapped, KernelError> {
        map("table::Table", x, out, |v| (self.quadratic(v).into(), self.contains(v)))
    }
}

/// What happened while a function was mapped over a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Arguments outside the domain.
    pub outside: u64,
    /// Results that saturated.
    pub saturated: u64,
}

/// Maps `f`, which returns a value and whether its argument lay in the domain.
///
/// # Errors
/// [`KernelError::Length`] if the slices differ in length.
#[inline]
pub fn map<O: Narrow>(
    kernel: &'static str,
    x: &[i16],
    out: &mut [O],
    f: impl Fn(i32) -> (i64, bool),
) -> Result<Mapped, KernelError> {
    super::check_len(kernel, "out", Some(x.len()), out.len())?;
    let mut count = Mapped::default();
    for (o, &v) in out.iter_mut().zip(x) {
        let (wide, inside) = f(v.into());
        let (value, saturated) = O::narrow(wide);
        *o = value;
        count.outside += u64::from(!inside);
        count.saturated += u64::from(saturated);
    }
    Ok(count)
}

/// e^x by 2^(x·log2 e) and the softmax table: relative error at most 2e-5 plus one unit. For arguments with `in_frac`
/// ≤ 24 fraction bits; saturates at `i64::MAX`.
#[inline]
#[must_use]
pub fn exp(x: i32, in_frac: u32, out_frac: u32) -> i64 {
    // Octaves with 40 fraction bits would overflow for wide arguments: 62 − 33 = 29 bits of log2 e are enough.
    let octaves = mul_shift(x.into(), math::LOG2_E_Q62, 62 + in_frac as i32 - 27);
    let up = -((-octaves) >> 27);
    let below = ((up << 27) - octaves) as u32; // in [0, 1) octave, 27 fraction bits
    let mantissa = i64::from(fraction(below));
    let shift = (24 - i64::from(out_frac) - up).clamp(-100, 100);
    mul_shift(mantissa, 1, shift as i32)
}

/// 2^-f for f in [0, 1) with 27 fraction bits, by the table of [`super::shift`] at its finest spacing and one Taylor
/// step for the bits below: 24 fraction bits.
#[inline]
fn fraction(f: u32) -> u32 {
    const LN2_Q16: u64 = math::LN2_Q64 >> 48;
    let coarse = u64::from(pow2_neg::<11>(f >> 16));
    let fine = u64::from(f & 0xFFFF);
    (coarse - ((coarse * ((fine * LN2_Q16) >> 16)) >> 27)) as u32
}

/// 1/x; `None` for x ≤ 0. Rounded half up, relative error before rounding at most 2^-30.
#[inline]
#[must_use]
pub fn reciprocal(x: i64, in_frac: u32, out_frac: u32) -> Option<i64> {
    let r = recip(u64::try_from(x).ok()?)?;
    Some(r.apply(1, (in_frac + out_frac) as i32))
}

/// 1/√x; `None` for x ≤ 0. Rounded half up, relative error before rounding at most 2^-29.
#[inline]
#[must_use]
pub fn inverse_root(x: i64, in_frac: u32, out_frac: u32) -> Option<i64> {
    // √(raw · 2^-f): an odd f is made even by doubling the argument, or halving it where that would overflow.
    let x = u64::try_from(x).ok()?;
    let (x, frac) = match (in_frac & 1, x.checked_mul(2)) {
        (0, _) => (x, in_frac),
        (_, Some(twice)) => (twice, in_frac + 1),
        (_, None) => (x >> 1, in_frac - 1),
    };
    Some(rsqrt(x)?.apply(1, (frac / 2 + out_frac) as i32))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    fn f64_of(f: Function, x: f64) -> f64 {
        match f {
            Function::Exp => libm::exp(x),
            Function::Gelu => x * 0.5 * libm::erfc(-x / core::f64::consts::SQRT_2),
            Function::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
            Function::Softplus => libm::log1p(libm::exp(-x.abs())) + x.max(0.0),
            Function::Tanh => libm::tanh(x),
        }
    }

    /// Worst error of (linear, quadratic) in output units, on every 16-bit argument; the arguments outside the domain
    /// are compared with the function at its nearer end.
    fn worst<const N: usize>(f: Function, d: Domain) -> (f64, f64) {
        let t = Table::<N>::new(f, d).unwrap();
        let (unit, step) = (libm::exp2(d.out_frac.into()), libm::exp2(-f64::from(d.in_frac)));
        let (mut l, mut q) = (0f64, 0f64);
        for x in i16::MIN..=i16::MAX {
            let want = f64_of(f, f64::from(i32::from(x).clamp(d.lo, d.hi)) * step) * unit;
            l = l.max((f64::from(t.linear(x.into())) - want).abs());
            q = q.max((f64::from(t.quadratic(x.into())) - want).abs());
        }
        (l, q)
    }

    #[test]
    fn tables_on_every_16_bit_argument() {
        let d = |out_frac| Domain { lo: -8 << 12, hi: (8 << 12) - 1, in_frac: 12, out_frac };
        for (f, out_frac) in [
            (Function::Gelu, 12),
            (Function::Sigmoid, 15),
            (Function::Softplus, 12),
            (Function::Tanh, 15),
        ] {
            let (l, q) = worst::<258>(f, d(out_frac));
            std::println!(
                "{f:?}: 258 entries, linear {l:.2}, quadratic {q:.2} units of 2^-{out_frac}"
            );
            assert!(q <= 1.6, "{f:?} {q}");
            assert!(l <= libm::exp2(f64::from(out_frac)) * 4e-4 + 0.6, "{f:?} {l}");
            assert!(worst::<1026>(f, d(out_frac)).1 <= 0.66);
        }
        let narrow = Domain { lo: -3000, hi: 5000, in_frac: 11, out_frac: 10 };
        assert!(worst::<130>(Function::Exp, narrow).1 <= 0.6);
        assert!(worst::<40>(Function::Gelu, narrow).1 <= 0.8);
    }

    #[test]
    fn bad_domains_are_errors() {
        let d = Domain { lo: 0, hi: 0, in_frac: 8, out_frac: 8 };
        assert!(matches!(
            Table::<9>::new(Function::Exp, d),
            Err(KernelError::Domain { what: "the upper end", .. })
        ));
        let d = Domain { hi: 1, ..d };
        assert!(Table::<2>::new(Function::Exp, d).is_err());
        assert!(Table::<3>::new(Function::Exp, Domain { in_frac: 31, ..d }).is_err());
        assert!(Table::<3>::new(Function::Exp, Domain { out_frac: 27, ..d }).is_err());
        let whole = Domain { lo: i32::MIN, hi: i32::MAX, in_frac: 16, out_frac: 16 };
        let t = Table::<65>::new(Function::Tanh, whole).unwrap();
        assert_eq!(t.linear(i32::MIN), -65_536);
        assert_eq!(t.quadratic(i32::MAX), 65_536);
    }

    #[test]
    fn slices_report_what_left_the_domain() {
        let t = Table::<34>::new(
            Function::Exp,
            Domain { lo: -1024, hi: 1024, in_frac: 8, out_frac: 8 },
        )
        .unwrap();
        let mut out = [0i8; 4];
        assert_eq!(
            t.map(&[-1025, 0, 1024, -512], &mut out),
            Ok(Mapped { outside: 1, saturated: 2 })
        );
        assert_eq!(out, [5, 127, 127, 35]); // e^-4 · 256, both tops saturate, e^-2 · 256
        assert!(t.map(&[0], &mut out).is_err());
    }

    #[test]
    fn exp_on_every_16_bit_argument() {
        for (in_frac, out_frac) in [(8, 16), (11, 12), (15, 20), (12, 15)] {
            for x in i16::MIN..=i16::MAX {
                let want = libm::exp(f64::from(x) * libm::exp2(-f64::from(in_frac)))
                    * libm::exp2(out_frac.into());
                let got = exp(x.into(), in_frac, out_frac);
                let want = want.min(i64::MAX as f64);
                assert!(
                    (got as f64 - want).abs() <= 0.51 + want * 2e-5,
                    "{x} {in_frac}: {got} {want}"
                );
            }
        }
        assert_eq!(exp(i32::MIN, 0, 24), 0);
        assert_eq!(exp(i32::MAX, 0, 24), i64::MAX);
    }

    #[test]
    fn quotients_on_every_16_bit_argument() {
        for x in 1..=i16::MAX {
            let v = f64::from(x);
            let r = reciprocal(x.into(), 9, 14).unwrap() as f64;
            assert!((r - libm::exp2(23.0) / v).abs() <= 0.51, "{x}");
            for f in [8u32, 9] {
                let r = inverse_root(x.into(), f, 14).unwrap() as f64;
                assert!(
                    (r - libm::exp2(14.0 + f64::from(f) / 2.0) / libm::sqrt(v)).abs() <= 0.51,
                    "{x} {f}"
                );
            }
        }
        assert_eq!((reciprocal(0, 8, 8), inverse_root(-1, 8, 8)), (None, None));
        assert_eq!(inverse_root(i64::MAX, 63, 10), Some(1024));
    }

    proptest! {
        #[test]
        fn sigmoid_is_symmetric_enough(x: i16) {
            let d = Domain { lo: -32_768, hi: 32_767, in_frac: 12, out_frac: 15 };
            let t = Table::<258>::new(Function::Sigmoid, d).unwrap();
            let sum = t.quadratic(x.into()) + t.quadratic(-i32::from(x));
            prop_assert!((sum - 32_768).abs() <= 2);
        }
    }
}
