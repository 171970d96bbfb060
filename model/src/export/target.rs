//! Cores that models are exported for, and the emulated boards that stand for them.

use std::fmt;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first address.
    pub origin: u32,
    /// How many bytes.
    pub bytes: u32,
}

/// A core with the memory of a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name on the command line.
    pub name: &'static str,
    /// The core, in words.
    pub core: &'static str,
    /// The compiler's target.
    pub triple: &'static str,
    /// Further flags of the compiler.
    pub flags: &'static [&'static str],
    /// QEMU's program and machine.
    pub emulator: (&'static str, &'static str),
    /// Where code and weights go.
    pub flash: Region,
    /// Where scratch and stack go.
    pub ram: Region,
    /// Bytes of code and of the core's tables, measured on shipped models and rounded up.
    pub code_bytes: usize,
    /// Bytes of stack, measured by painting on shipped models and rounded up.
    pub stack_bytes: usize,
}

const fn kib(n: u32) -> u32 {
    n << 10
}

const fn region(origin: u32, bytes: u32) -> Region {
    Region { origin, bytes }
}

/// Every target, with the memory of a usual chip of its core.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "cortex-m4",
        core: "Cortex-M4F",
        triple: "thumbv7em-none-eabihf",
        flags: &[],
        emulator: ("qemu-system-arm", "mps2-an386"),
        flash: region(0, kib(512)),
        ram: region(0x2000_0000, kib(128)),
        code_bytes: 128 << 10,
        stack_bytes: 6 << 10,
    },
    Target {
        name: "cortex-m7",
        core: "Cortex-M7",
        triple: "thumbv7em-none-eabihf",
        flags: &["-Ctarget-cpu=cortex-m7"],
        emulator: ("qemu-system-arm", "mps2-an500"),
        flash: region(0, kib(512)),
        ram: region(0x2000_0000, kib(128)),
        code_bytes: 128 << 10,
        stack_bytes: 6 << 10,
    },
    Target {
        name: "cortex-m33",
        core: "Cortex-M33",
        triple: "thumbv8m.main-none-eabihf",
        flags: &["-Ctarget-cpu=cortex-m33"],
        emulator: ("qemu-system-arm", "mps2-an505"),
        flash: region(0x1000_0000, kib(512)),
        ram: region(0x3800_0000, kib(128)),
        code_bytes: 128 << 10,
        stack_bytes: 6 << 10,
    },
    Target {
        name: "cortex-m3",
        core: "Cortex-M3",
        triple: "thumbv7m-none-eabi",
        flags: &[],
        emulator: ("qemu-system-arm", "lm3s6965evb"),
        flash: region(0, kib(256)),
        ram: region(0x2000_0000, kib(64)),
        code_bytes: 128 << 10,
        stack_bytes: 6 << 10,
    },
    Target {
        name: "cortex-m0",
        core: "Cortex-M0",
        triple: "thumbv6m-none-eabi",
        flags: &[],
        emulator: ("qemu-system-arm", "microbit"),
        flash: region(0, kib(256)),
        ram: region(0x2000_0000, kib(16)),
        code_bytes: 128 << 10,
        stack_bytes: 6 << 10,
    },
    Target {
        name: "riscv32",
        core: "RV32IMAC",
        triple: "riscv32imac-unknown-none-elf",
        flags: &[],
        emulator: ("qemu-system-riscv32", "virt"),
        flash: region(0x8000_0000, kib(512)),
        ram: region(0x8040_0000, kib(128)),
        code_bytes: 128 << 10,
        stack_bytes: 6 << 10,
    },
];

impl Target {
    /// The target of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|t| t.name == name)
    }

    /// The same core with other memory. Where the emulated board of that core has less, one with
    /// more that runs the same instructions stands in.
    #[must_use]
    pub fn with_memory(self, flash: Option<u32>, ram: Option<u32>) -> Self {
        let (was_flash, was_ram) = (self.flash.bytes, self.ram.bytes);
        let flash = Region { bytes: flash.unwrap_or(was_flash), ..self.flash };
        let ram = Region { bytes: ram.unwrap_or(was_ram), ..self.ram };
        let small = matches!(self.emulator.1, "microbit" | "lm3s6965evb");
        let grown = flash.bytes > was_flash || ram.bytes > was_ram;
        let emulator =
            if small && grown { ("qemu-system-arm", "mps2-an385") } else { self.emulator };
        Self { flash, ram, emulator, ..self }
    }

    /// Whether the core is Arm's.
    #[must_use]
    pub fn is_arm(&self) -> bool {
        self.triple.starts_with("thumb")
    }

    /// The linker script's memory.
    #[must_use]
    pub fn memory_x(&self) -> String {
        let line = |r: Region| format!("ORIGIN = {:#010x}, LENGTH = {}", r.origin, r.bytes);
        let mut text = format!(
            "/* {}: change both lines to those of your chip. */\nMEMORY {{\n  FLASH : {}\n  RAM : {}\n}}\n",
            self.core,
            line(self.flash),
            line(self.ram)
        );
        if !self.is_arm() {
            for (region, memory) in [
                ("TEXT", "FLASH"),
                ("RODATA", "FLASH"),
                ("DATA", "RAM"),
                ("BSS", "RAM"),
                ("HEAP", "RAM"),
                ("STACK", "RAM"),
            ] {
                text.push_str(&format!("REGION_ALIAS(\"REGION_{region}\", {memory});\n"));
            }
        }
        text
    }

    /// What the linker is told, and how the program is run under emulation.
    #[must_use]
    pub fn cargo_config(&self) -> String {
        let scripts: &[&str] = if self.is_arm() {
            &["-Clink-arg=-Tlink.x"]
        } else {
            &["-Clink-arg=-Tmemory.x", "-Clink-arg=-Tlink.x"]
        };
        let flags: Vec<String> =
            scripts.iter().chain(self.flags).map(|flag| format!("{flag:?}")).collect();
        let (program, machine) = self.emulator;
        let bios = if self.is_arm() { "" } else { "-bios none " };
        format!(
            "[build]\ntarget = \"{triple}\"\n\n[target.{triple}]\nrustflags = [{flags}]\n\
             # Every instruction takes 64 ns of virtual time: instructions are counted by the clock.\n\
             runner = \"{program} {bios}-M {machine} -nographic -monitor none -serial none \
             -semihosting-config enable=on,target=native -icount shift=6 -kernel\"\n",
            triple = self.triple,
            flags = flags.join(", "),
        )
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with {} KiB of flash and {} KiB of RAM",
            self.core,
            self.flash.bytes >> 10,
            self.ram.bytes >> 10
        )
    }
}
