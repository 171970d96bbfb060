//! A static that is handed out once: where a program keeps what is too large for its stack.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value in static memory that one part of the program takes for itself.
pub struct Place<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through `take`, which gives it to one caller.
unsafe impl<T: Send> Sync for Place<T> {}

impl<T> Place<T> {
    /// A place that holds a value.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The value, the first time; `None` afterwards.
    #[allow(clippy::mut_from_ref)] // What the cell and the flag are for.
    pub fn take(&'static self) -> Option<&'static mut T> {
        // Cortex-M0 has no atomic exchange; it has one core, and no interrupt of this crate takes.
        #[cfg(target_has_atomic = "8")]
        let taken = self.taken.swap(true, Ordering::Acquire);
        #[cfg(not(target_has_atomic = "8"))]
        let taken = {
            let taken = self.taken.load(Ordering::Acquire);
            self.taken.store(true, Ordering::Relaxed);
            taken
        };
        if taken {
            return None;
        }
        // SAFETY: nobody else has had or will get this reference.
        Some(unsafe { &mut *self.value.get() })
    }
}
