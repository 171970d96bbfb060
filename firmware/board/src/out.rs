//! Text and exit code through semihosting, or through the host's own.

/// Writes text.
pub fn print(text: &str) {
    #[cfg(target_os = "none")]
    if let Ok(mut out) = semihosting::io::stdout() {
        use semihosting::io::Write as _;
        // There is nobody to tell of a failure.
        let _ = out.write_all(text.as_bytes());
    }
    #[cfg(not(target_os = "none"))]
    std::print!("{text}");
}

/// Writes a decimal number.
pub fn print_number(n: u64) {
    if n >= 10 {
        print_number(n / 10);
    }
    print(DIGITS.get((n % 10) as usize..).and_then(|d| d.get(..1)).unwrap_or("?"));
}

/// Writes a decimal number with its sign.
pub fn print_signed(n: i64) {
    if n < 0 {
        print("-");
    }
    print_number(n.unsigned_abs());
}

const DIGITS: &str = "0123456789abcdef";

/// Ends the program; the emulator exits with the code.
pub fn exit(code: i32) -> ! {
    #[cfg(target_os = "none")]
    semihosting::process::exit(code);
    #[cfg(not(target_os = "none"))]
    std::process::exit(code)
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    print("panicked\n");
    exit(101)
}

/// FNV-1a over results: equal results, equal digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of nothing.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// With these values after those before, each as its 64-bit two's complement.
    #[must_use]
    pub fn with<T: Copy + Into<i64>>(mut self, values: &[T]) -> Self {
        for &value in values {
            for byte in value.into().to_le_bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        self
    }

    /// Writes it as 16 hexadecimal digits.
    pub fn print(self) {
        for place in (0..16).rev() {
            let digit = (self.0 >> (4 * place)) as usize & 15;
            print(DIGITS.get(digit..=digit).unwrap_or("?"));
        }
    }
}
