//! SMLAL multiplies two words and adds the product to a 64-bit sum: every Arm core but the smallest has it.

use core::arch::asm;

use crate::portable;

/// `acc_c += Σ_k weights_k · v[k·stride + c]`, exact while 64 bits hold it.
#[inline(never)]
pub fn weigh(acc: &mut [i64], weights: &[i32], v: &[i16], stride: usize) {
    let rounds = weights.len() / 2;
    let needed = (weights.len().saturating_sub(1)).saturating_mul(stride).saturating_add(acc.len());
    let columns = acc.len();
    if rounds == 0 || v.len() < needed || stride < columns {
        return portable::weigh(acc, weights, v, stride);
    }
    for (c, pair) in acc.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let [a, b] = *pair;
        let (mut a_low, mut a_high) = (a as u32, (a >> 32) as i32);
        let (mut b_low, mut b_high) = (b as u32, (b >> 32) as i32);
        let v = v.get(2 * c..).unwrap_or_default();
        // SAFETY: `w` walks two of the weights a round, and there are `rounds` pairs of them; `v`
        // reads two elements of a row of V for each, and `needed` has shown that the last row
        // holds all columns. After its last row it points beyond, and is not read. Nothing is
        // written but registers.
        unsafe {
            asm!(
                "2:",
                "ldrd {w0}, {w1}, [{w}], #8",
                "ldrsh {t}, [{v}]",
                "smlal {al}, {ah}, {t}, {w0}",
                "ldrsh {t}, [{v}, #2]",
                "smlal {bl}, {bh}, {t}, {w0}",
                "add {v}, {v}, {step}",
                "ldrsh {t}, [{v}]",
                "smlal {al}, {ah}, {t}, {w1}",
                "ldrsh {t}, [{v}, #2]",
                "smlal {bl}, {bh}, {t}, {w1}",
                "add {v}, {v}, {step}",
                "subs {n}, #1",
                "bne 2b",
                w = inout(reg) weights.as_ptr() => _,
                v = inout(reg) v.as_ptr() => _,
                n = inout(reg) rounds => _,
                step = in(reg) 2 * stride,
                t = out(reg) _, w0 = out(reg) _, w1 = out(reg) _,
                al = inout(reg) a_low, ah = inout(reg) a_high,
                bl = inout(reg) b_low, bh = inout(reg) b_high,
                options(nostack, readonly),
            );
        }
        let join = |low: u32, high: i32| (i64::from(high) << 32) | i64::from(low);
        *pair = [join(a_low, a_high), join(b_low, b_high)];
    }
    // An odd key, and an odd column.
    let odd = 2 * rounds;
    if let (Some(&w), Some(row)) = (weights.get(odd), v.get(odd * stride..)) {
        for (sum, &x) in acc.iter_mut().zip(row).take(columns & !1) {
            *sum += i64::from(w) * i64::from(x);
        }
    }
    if columns % 2 == 1
        && let (Some(sum), Some(v)) = (acc.last_mut(), v.get(columns - 1..))
    {
        portable::weigh(core::slice::from_mut(sum), weights, v, stride);
    }
}

/// `top − x`, brought into 0 … 2^(F + I) − 1: USAT.
#[inline(always)]
#[must_use]
pub fn distance<const F: u32, const I: u32>(top: i32, x: i32) -> u32 {
    let d: u32;
    // SAFETY: writes one register and the saturation flag.
    unsafe {
        asm!(
            "usat {d}, #{bits}, {x}",
            d = lateout(reg) d,
            x = in(reg) top.saturating_sub(x),
            bits = const F + I,
            options(pure, nomem, nostack),
        );
    }
    d
}

/// The reference itself, whose address the compiler must keep in a register: it cannot know it.
#[inline(always)]
#[must_use]
pub fn keep<T>(table: &T) -> &T {
    let mut address = core::ptr::from_ref(table);
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {} */", inout(reg) address, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: the same address, for the same lifetime.
    unsafe { &*address }
}
