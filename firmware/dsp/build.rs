//! Tells the crate whether its target has the DSP extension: stable Rust has no `cfg` for it.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(dsp, long)");
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    // Armv7E-M always has it; Armv8-M Mainline where the core is named.
    let m33 = target.starts_with("thumbv8m.main") && flags.contains("cortex-m33");
    // Everything but Armv6-M and Armv8-M Baseline multiplies into 64 bits.
    if target.starts_with("thumbv7") || target.starts_with("thumbv8m.main") {
        println!("cargo::rustc-cfg=long");
    }
    if target.starts_with("thumbv7em") || m33 {
        println!("cargo::rustc-cfg=dsp");
    }
}
