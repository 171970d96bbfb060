//! A file of the machine that emulates the board, read through semihosting; on a host an ordinary file.

use core::ffi::CStr;

/// A file that is read from its start to its end.
pub struct Input(Inner);

#[cfg(target_os = "none")]
type Inner = semihosting::fs::File;
#[cfg(not(target_os = "none"))]
type Inner = std::fs::File;

impl Input {
    /// Opens a file of the emulator's working directory; `None` where there is none.
    #[must_use]
    pub fn open(name: &CStr) -> Option<Self> {
        #[cfg(target_os = "none")]
        return semihosting::fs::File::open(name).ok().map(Self);
        #[cfg(not(target_os = "none"))]
        return std::fs::File::open(name.to_str().ok()?).ok().map(Self);
    }

    /// Fills `to`; `false` where less is left.
    pub fn read(&mut self, mut to: &mut [u8]) -> bool {
        #[cfg(target_os = "none")]
        use semihosting::io::Read as _;
        #[cfg(not(target_os = "none"))]
        use std::io::Read as _;
        while !to.is_empty() {
            match self.0.read(to) {
                Ok(n) if n > 0 => to = to.get_mut(n..).unwrap_or_default(),
                _ => return false,
            }
        }
        true
    }
}
