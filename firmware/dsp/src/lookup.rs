//! Bytes looked up in a window of 256 entries: the loops of a softmax by table.
//!
//! Byte `v` selects entry `v + 128`. Arm cores walk the row in `asm!`: compilers unroll these loops
//! on the smallest core, which has eight registers, and spill what the rounds need. The others run
//! [`portable`], whose bits are the same.

#[cfg(target_arch = "arm")]
use core::arch::asm;

/// The same in plain Rust.
pub mod portable {
    /// The greatest byte, −128 for none.
    #[must_use]
    pub fn greatest(x: &[i8]) -> i8 {
        let greater = |max: i8, v: i8| if v > max { v } else { max };
        if crate::LONG {
            // Compilers unroll this one well.
            return x.iter().fold(i8::MIN, |max, &v| greater(max, v));
        }
        // Four a round: a loop costs a small core as much as its work.
        let (fours, last) = x.as_chunks::<4>();
        let max =
            fours.iter().fold(i8::MIN, |max, four| four.iter().fold(max, |m, &v| greater(m, v)));
        last.iter().fold(max, |max, &v| greater(max, v))
    }

    /// The sum of the entries that `x` selects.
    #[must_use]
    pub fn total(window: &[u32; 256], x: &[i8]) -> u64 {
        let entry = |v: i8| u64::from(entry(window, v));
        let (fours, last) = x.as_chunks::<4>();
        let sum = fours
            .iter()
            .fold(0, |sum, &[a, b, c, d]| sum + entry(a) + entry(b) + entry(c) + entry(d));
        last.iter().fold(sum, |sum, &v| sum + entry(v))
    }

    /// The upper half of each selected entry times `factor`, whose upper byte, rounded half up and
    /// less 128, is the output. Outputs beyond the shorter slice keep their value; products wrap.
    pub fn scale(window: &[u32; 256], factor: u32, x: &[i8], out: &mut [i8]) {
        let n = x.len().min(out.len());
        let (fours, last) = x[..n].as_chunks::<4>();
        let (to, to_last) = out[..n].as_chunks_mut::<4>();
        // 2^31 more is −128 in the upper byte.
        let one = |v: i8| {
            let p = (entry(window, v) >> 16).wrapping_mul(factor);
            (p.wrapping_add((1 << 23) + (1 << 31)) >> 24) as u8 as i8
        };
        for (o, four) in to.iter_mut().zip(fours) {
            *o = [one(four[0]), one(four[1]), one(four[2]), one(four[3])];
        }
        for (o, &v) in to_last.iter_mut().zip(last) {
            *o = one(v);
        }
    }

    #[inline(always)]
    fn entry(window: &[u32; 256], v: i8) -> u32 {
        window[(i32::from(v) + 128) as usize]
    }
}

#[cfg(not(target_arch = "arm"))]
pub use portable::{greatest, scale, total};

/// The greatest byte, −128 for none.
#[cfg(target_arch = "arm")]
#[must_use]
pub fn greatest(x: &[i8]) -> i8 {
    if cfg!(long) || x.is_empty() {
        return portable::greatest(x);
    }
    let mut max = -128;
    // SAFETY: reads the bytes of `x`, of which there is one, from the first to the last.
    unsafe {
        asm!(
            "2:",
            "ldrsb {v}, [{end}, {i}]",
            "cmp {v}, {max}",
            "ble 3f",
            "mov {max}, {v}",
            "3:",
            "adds {i}, #1",
            "bne 2b",
            end = in(reg) x.as_ptr_range().end,
            i = inout(reg) -(x.len() as isize) => _,
            max = inout(reg) max,
            v = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    max as i8
}

/// The sum of the entries that `x` selects.
#[cfg(target_arch = "arm")]
#[must_use]
pub fn total(window: &[u32; 256], x: &[i8]) -> u64 {
    let (mut low, mut high) = (0u32, 0u32);
    if x.is_empty() {
        return 0;
    }
    // SAFETY: reads the bytes of `x`, of which there is one, from the first to the last, and for
    // each an entry: from 128 before the middle of the window to 127 after it.
    unsafe {
        asm!(
            "2:",
            "ldrsb {v}, [{end}, {i}]",
            #[cfg(not(long))]
            "lsls {v}, #2",
            #[cfg(not(long))]
            "ldr {v}, [{middle}, {v}]",
            #[cfg(long)]
            "ldr {v}, [{middle}, {v}, lsl #2]",
            "adds {low}, {v}",
            // Carries are rare, and a zero to add them with would take one more register.
            #[cfg(not(long))]
            "bcc 3f",
            #[cfg(not(long))]
            "adds {high}, #1",
            #[cfg(not(long))]
            "3:",
            #[cfg(long)]
            "adc {high}, {high}, #0",
            "adds {i}, #1",
            "bne 2b",
            end = in(reg) x.as_ptr_range().end,
            i = inout(reg) -(x.len() as isize) => _,
            middle = in(reg) &raw const window[128],
            low = inout(reg) low,
            high = inout(reg) high,
            v = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// The upper half of each selected entry times `factor`, whose upper byte, rounded half up and
/// less 128, is the output. Outputs beyond the shorter slice keep their value; products wrap.
#[cfg(target_arch = "arm")]
pub fn scale(window: &[u32; 256], factor: u32, x: &[i8], out: &mut [i8]) {
    let n = x.len().min(out.len());
    if n == 0 {
        return;
    }
    let (x, out) = (&x[..n], &mut out[..n]);
    // SAFETY: reads the `n` bytes of `x`, at least one, from the first to the last, writes as many
    // of `out`, and reads an entry for each: from 128 before the middle of the window to 127 after
    // it. Bytes 2 and 3 of an entry are its upper half.
    unsafe {
        asm!(
            "2:",
            "ldrsb {v}, [{x}, {i}]",
            #[cfg(not(long))]
            "lsls {v}, #2",
            #[cfg(not(long))]
            "ldrh {v}, [{upper}, {v}]",
            #[cfg(not(long))]
            "muls {v}, {factor}, {v}",
            // (p + 2^23) / 2^24 − 128, in a byte.
            #[cfg(not(long))]
            "lsrs {v}, #23",
            #[cfg(not(long))]
            "subs {v}, #255",
            #[cfg(not(long))]
            "lsrs {v}, #1",
            #[cfg(long)]
            "ldrh {v}, [{upper}, {v}, lsl #2]",
            #[cfg(long)]
            "mla {v}, {v}, {factor}, {half}",
            #[cfg(long)]
            "lsrs {v}, #24",
            "strb {v}, [{out}, {i}]",
            "adds {i}, #1",
            "bne 2b",
            x = in(reg) x.as_ptr_range().end,
            i = inout(reg) -(n as isize) => _,
            upper = in(reg) (&raw const window[128]).byte_add(2),
            factor = in(reg) factor,
            #[cfg(long)]
            half = in(reg) (1 << 23) + (1u32 << 31),
            out = in(reg) out.as_mut_ptr_range().end,
            v = out(reg) _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_their_definitions() {
        let window: [u32; 256] = core::array::from_fn(|i| (i as u32 + 1).wrapping_mul(0x9E37_79B9));
        let mut row = [0i8; 300];
        for (i, v) in row.iter_mut().enumerate() {
            *v = (i * i * 7 + i) as u8 as i8;
        }
        for n in [0, 1, 2, 3, 4, 5, 63, 300] {
            let x = &row[..n];
            assert_eq!(greatest(x), x.iter().copied().max().unwrap_or(-128));
            let entries = x.iter().map(|&v| window[usize::from(v as u8 ^ 0x80)]);
            assert_eq!(total(&window, x), entries.clone().map(u64::from).sum());
            // The largest factor that a product of 16 bits leaves room for, and one that wraps.
            for factor in [1, 257, 65_408, u32::MAX] {
                let mut out = [99i8; 301];
                scale(&window, factor, x, &mut out);
                for (o, e) in out.iter().zip(entries.clone()) {
                    let p = u64::from((e >> 16).wrapping_mul(factor));
                    // 256, which only a product near its limit reaches, wraps as well.
                    assert_eq!((i32::from(*o) + 128) as u64, ((p + (1 << 23)) >> 24) & 255);
                }
                assert!(out[n..].iter().all(|&o| o == 99));
            }
        }
    }
}
