//! Stack use by painting: memory below the stack is filled with a pattern, and what a function has
//! overwritten is what it used.

/// Bytes that are painted, unless less is free.
#[cfg(target_os = "none")]
const PAINT: usize = 64 << 10;
#[cfg(target_os = "none")]
const PATTERN: u32 = 0xc5a3_96d1;

/// Bytes of stack that `f` uses below its caller, up to 64 KiB; `None` on a host.
#[cfg(not(target_os = "none"))]
pub fn used(mut f: impl FnMut()) -> Option<usize> {
    f();
    None
}

/// Bytes of stack that `f` uses below its caller, up to 64 KiB; `None` on a host.
#[cfg(target_os = "none")]
#[inline(never)]
pub fn used(mut f: impl FnMut()) -> Option<usize> {
    let top = pointer();
    // Statics end where a heap would start.
    let end_of_statics = &raw const __sheap as usize;
    let floor = top.saturating_sub(PAINT).max(end_of_statics).next_multiple_of(4);
    // The painter's own frame lies just below `top`.
    paint(floor, top.saturating_sub(RED_ZONE));
    f();
    Some(top - first_overwritten(floor, top))
}

#[cfg(target_os = "none")]
const RED_ZONE: usize = 64;

#[cfg(target_os = "none")]
unsafe extern "C" {
    static __sheap: u8;
}

#[cfg(target_os = "none")]
#[inline(always)]
fn pointer() -> usize {
    let sp: usize;
    #[cfg(target_arch = "arm")]
    // SAFETY: only reads the stack pointer.
    unsafe {
        core::arch::asm!("mov {}, sp", out(reg) sp, options(nomem, nostack));
    }
    #[cfg(target_arch = "riscv32")]
    // SAFETY: only reads the stack pointer.
    unsafe {
        core::arch::asm!("mv {}, sp", out(reg) sp, options(nomem, nostack));
    }
    sp
}

#[cfg(target_os = "none")]
#[inline(never)]
fn paint(from: usize, to: usize) {
    let mut at = from;
    while at + 4 <= to {
        // SAFETY: between the statics and the stack; nothing lives there.
        unsafe { (at as *mut u32).write_volatile(PATTERN) };
        at += 4;
    }
}

#[cfg(target_os = "none")]
#[inline(never)]
fn first_overwritten(from: usize, to: usize) -> usize {
    let mut at = from;
    // SAFETY: as in `paint`.
    while at + 4 <= to && unsafe { (at as *const u32).read_volatile() } == PATTERN {
        at += 4;
    }
    at
}
