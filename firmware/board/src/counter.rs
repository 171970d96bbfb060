//! Instructions, counted by a clock that the emulator advances with them (`-icount`).
//!
//! RISC-V has `minstret`. Cortex-M0 has no counter of instructions, so there the core's own timer
//! serves: under `-icount shift=6` every instruction takes 64 ns of virtual time. A loop of known
//! length tells how many ticks an instruction takes, whatever clock a board gives the timer.

/// Instructions that `f` takes, the same on every run; `None` on a host.
pub fn instructions(f: impl FnMut()) -> Option<u64> {
    imp::instructions(f)
}

#[cfg(not(target_os = "none"))]
mod imp {
    pub(super) fn instructions(mut f: impl FnMut()) -> Option<u64> {
        f();
        None
    }
}

#[cfg(all(target_os = "none", target_arch = "riscv32"))]
mod imp {
    pub(super) fn instructions(mut f: impl FnMut()) -> Option<u64> {
        let empty = riscv::register::minstret::read64();
        let from = riscv::register::minstret::read64();
        f();
        let to = riscv::register::minstret::read64();
        // What reading the counter takes is not the kernel's.
        Some((to - from).saturating_sub(from - empty))
    }
}

#[cfg(all(target_os = "none", target_arch = "arm"))]
mod imp {
    use core::arch::asm;
    use core::sync::atomic::{AtomicU32, Ordering};
    use cortex_m::peripheral::{Peripherals, SYST, syst::SystClkSource};
    use cortex_m_rt::exception;

    const RELOAD: u32 = 0x00ff_ffff;
    static WRAPS: AtomicU32 = AtomicU32::new(0);

    /// The timer is 24 bits wide; a long run goes round it. The few instructions that this takes
    /// are counted with the kernel's: one in a million.
    #[exception]
    fn SysTick() {
        // No read-modify-write: thumbv6m has none, and nobody else writes.
        WRAPS.store(WRAPS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn ticks(mut f: impl FnMut()) -> u64 {
        WRAPS.store(0, Ordering::Relaxed);
        let from = SYST::get_current();
        f();
        let to = SYST::get_current();
        let wraps = u64::from(WRAPS.load(Ordering::Relaxed));
        (wraps * u64::from(RELOAD + 1) + u64::from(from)).saturating_sub(to.into())
    }

    /// Rounds of the known loop.
    const ROUNDS: u32 = 1 << 17;

    /// Two instructions a round, and one before.
    fn known() {
        // SAFETY: changes nothing but its own register and the flags.
        unsafe {
            asm!("2:", "subs {n}, #1", "bne 2b", n = inout(reg) ROUNDS => _, options(nomem, nostack));
        }
    }

    pub(super) fn instructions(f: impl FnMut()) -> Option<u64> {
        // SAFETY: one core, and only this function uses the timer.
        let mut p = unsafe { Peripherals::steal() };
        p.SYST.set_clock_source(SystClkSource::Core);
        p.SYST.set_reload(RELOAD);
        p.SYST.clear_current();
        p.SYST.enable_interrupt();
        p.SYST.enable_counter();
        let empty = ticks(|| ());
        let known = ticks(known) - empty;
        let counted = ticks(f).saturating_sub(empty);
        p.SYST.disable_counter();
        let of_known = u64::from(2 * ROUNDS + 1);
        // Long runs would overflow a product: whole multiples first.
        let (whole, rest) = (counted / known.max(1), counted % known.max(1));
        Some(whole * of_known + (rest * of_known + known / 2) / known.max(1))
    }
}
