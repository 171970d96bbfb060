//! The text of an exported crate.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use undertone_core::attention::{Kind, Variant};
use undertone_core::encoder::{Activation, Groups, Layer, Norm, NormPosition, Pooling};
use undertone_core::fixed::{Operand, Weight};
use undertone_core::{Num, Shape, Site};

use super::target::Target;
use super::weights::{Values, Weights};
use super::{EMBEDDED, Example, Figures, Host};
use crate::build::Prepared;
use crate::config::VitInput;
use crate::domains::Calibration;
use crate::fixed::{Owned, Plan};

/// Everything that the files are made from.
pub(super) struct Parts<'a> {
    pub(super) name: &'a str,
    pub(super) target: &'a Target,
    pub(super) checkout: &'a Path,
    pub(super) examples: &'a [Example],
    pub(super) vit: Option<&'a VitInput>,
    pub(super) labels: &'a [String],
    pub(super) calibration: &'a Calibration,
    pub(super) figures: &'a Figures,
    pub(super) plan: &'a Plan,
    pub(super) encoder: &'a Prepared<Host>,
    pub(super) weights: &'a Weights,
    pub(super) input: Shape,
    /// Bytes of one input.
    pub(super) sample: usize,
    /// The value of each pixel, for each channel.
    pub(super) tables: Vec<Vec<i16>>,
    /// The logits of each example.
    pub(super) golden: Vec<Vec<i16>>,
    /// The inputs of all examples.
    pub(super) inputs: Vec<u8>,
    pub(super) output_frac: i16,
}

/// The files of the crate.
pub(super) fn files(p: &Parts<'_>) -> Vec<(PathBuf, Vec<u8>)> {
    let embedded = p.golden.len().min(EMBEDDED) * p.sample;
    let text: Vec<(&str, String)> = vec![
        ("Cargo.toml", manifest(p)),
        ("build.rs", BUILD.to_owned()),
        ("memory.x", p.target.memory_x()),
        (".cargo/config.toml", p.target.cargo_config()),
        (".gitignore", "/target\n".to_owned()),
        ("README.md", readme(p)),
        ("src/lib.rs", library(p)),
        ("src/encoder.rs", encoder(p)),
        ("src/main.rs", MAIN.replace("CRATE", &krate(p))),
        ("src/golden.rs", golden(p)),
        ("src/bin/classify.rs", CLASSIFY.replace("CRATE", &krate(p))),
        ("expected.txt", expected(p)),
        ("undertone.json", figures(p)),
    ];
    let mut files: Vec<(PathBuf, Vec<u8>)> =
        text.into_iter().map(|(path, text)| (path.into(), text.into_bytes())).collect();
    files.push(("src/weights.bin".into(), p.weights.file.clone()));
    files.push(("src/golden.bin".into(), p.inputs[..embedded].to_vec()));
    files.push(("inputs.bin".into(), p.inputs.clone()));
    files
}

fn krate(p: &Parts<'_>) -> String {
    p.name.replace('-', "_")
}

fn figures(p: &Parts<'_>) -> String {
    let target = p.target;
    let value = serde_json::json!({
        "version": 1,
        "model": p.name,
        "target": target.name,
        "core": target.core,
        "flash_available_bytes": target.flash.bytes,
        "ram_available_bytes": target.ram.bytes,
        "figures": p.figures,
        "examples": p.golden.len(),
    });
    format!("{value:#}\n")
}

fn manifest(p: &Parts<'_>) -> String {
    let at = |folder: &str| p.checkout.join(folder).display().to_string();
    format!(
        r#"[package]
name = "{name}"
description = "{name} in fixed point for {target}"
version = "0.1.0"
edition = "2024"
publish = false

# Stands by itself, wherever it lies.
[workspace]

[[bin]]
name = "{name}"
path = "src/main.rs"

[dependencies]
undertone-core = {{ path = {core:?} }}
undertone-board = {{ path = {board:?} }}

# `3` instead of "s" takes 60 KB of flash more for 4 % fewer instructions.
[profile.release]
opt-level = "s"
lto = "fat"
codegen-units = 1
panic = "abort"
debug = false
"#,
        name = p.name,
        target = p.target,
        core = at("no_std"),
        board = at("firmware/board"),
    )
}

const BUILD: &str = r#"//! Tells the linker where memory.x is.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-search={here}");
    println!("cargo::rerun-if-changed=memory.x");
}
"#;

fn library(p: &Parts<'_>) -> String {
    let labels = p.labels;
    let f = p.figures;
    let pixels = match p.vit {
        Some(vit) => format!(
            "/// How pixels become the encoder's input.\nstatic PIXELS: Pixels<'static> = Pixels {{ side: {}, patch: {}, class_token: {}, tables: &TABLES }};\n\
             static TABLES: [[i16; 256]; {}] = {:?};\n",
            vit.image_size,
            vit.patch_size,
            vit.class_token,
            p.tables.len(),
            p.tables
        ),
        None => String::new(),
    };
    let (use_pixels, what, at) = match p.vit {
        Some(_) => (
            "use undertone_core::fixed::pixels::Pixels;\n",
            "the 8-bit pixels of an image, line by line, the channels of a pixel side by side",
            "i64::from(PIXELS.at(sample, i))",
        ),
        None => (
            "",
            "the embedded tokens, 16-bit little-endian numbers",
            "match sample.get(2 * i..2 * i + 2) {\n            Some(&[low, high]) => i16::from_le_bytes([low, high]).into(),\n            _ => 0,\n        }",
        ),
    };
    format!(
        r#"//! {name} in fixed point for {target}, written by `undertone export`.
//!
//! {flash} bytes of flash (weights {weights}, tables {tables}, code up to {code}), {ram} bytes of
//! RAM (activations and accumulators {scratch}, stack up to {stack}, input {sample}).
//!
//! The code is `undertone-core`'s fixed-point world: logits equal a host's bit for bit.
#![no_std]

mod encoder;

use encoder::{{ENCODER, RANGES}};
{use_pixels}use undertone_core::fixed::{{Fixed, Flash, Inline, Needed, Online}};
use undertone_core::{{Domains as _, Fault, Mask, Role, Shape, Site}};

/// Activations held at once, wide accumulators and words of signs: exactly what the model needs.
pub const SCRATCH: Needed = Needed {{ tensors: {tensors}, wide: {wide}, words: {words} }};
/// Bytes of an input: {what}.
pub const SAMPLE: usize = {sample};
/// Logits.
pub const OUTPUTS: usize = {outputs};
/// Fraction bits of a logit: `l` stands for l · 2^-frac.
pub const OUTPUT_FRAC: i16 = {output_frac};
/// The names of the classes.
pub static LABELS: [&str; {classes}] = {labels:?};

pub(crate) type World =
    Fixed<Inline<{{ SCRATCH.tensors }}, {{ SCRATCH.wide }}, {{ SCRATCH.words }}>, Flash>;
const INPUT: Shape = Shape::new({batch}, {rows}, {cols});
{pixels}
/// The model with its scratch: keep it in a static.
pub struct Model {{
    world: World,
}}

impl Model {{
    /// Ready to run.
    #[allow(clippy::new_without_default)]
    #[must_use]
    pub const fn new() -> Self {{
        Self {{ world: Fixed::over(Inline::EMPTY) }}
    }}

    /// The logits of an input: {what}.
    ///
    /// # Errors
    /// None for the model as exported; [`Fault`] tells what has been changed.
    pub fn run(&mut self, sample: &[u8; SAMPLE]) -> Result<[i16; OUTPUTS], Fault> {{
        let w = &mut self.world;
        w.clear();
        let on = RANGES.bound(Site::outside(Role::Input));
        let input = w.input(INPUT, on, |i, _| {at})?;
        let output = ENCODER.run::<Online>(w, input, &Mask::NONE, &RANGES)?;
        let mut logits = [0; OUTPUTS];
        for (row, to) in logits.chunks_exact_mut({columns}).enumerate() {{
            to.copy_from_slice(w.row(&output, 0, row)?);
        }}
        Ok(logits)
    }}

    /// Values of the last run that left their format and were clamped: none on inputs like those
    /// that the model was calibrated on.
    #[must_use]
    pub const fn saturated(&self) -> u64 {{
        self.world.saturated()
    }}

    /// The scratch that runs have needed: [`SCRATCH`].
    #[must_use]
    pub const fn needed(&self) -> Needed {{
        self.world.needed()
    }}
}}

/// The class of the greatest logit.
#[must_use]
pub fn class(logits: &[i16; OUTPUTS]) -> usize {{
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {{
        if Some(logit) > logits.get(best) {{
            best = i;
        }}
    }}
    best
}}
"#,
        name = p.name,
        target = p.target,
        flash = f.flash_bytes,
        weights = f.weight_bytes,
        tables = f.table_bytes,
        code = f.code_bytes,
        ram = f.ram_bytes,
        scratch = f.scratch_bytes,
        stack = f.stack_bytes,
        sample = p.sample,
        tensors = p.plan.memory.tensors,
        wide = p.plan.memory.wide,
        words = p.plan.memory.words,
        outputs = p.plan.output.len(),
        columns = p.plan.output.cols,
        output_frac = p.output_frac,
        classes = labels.len(),
        batch = p.input.batch,
        rows = p.input.rows,
        cols = p.input.cols,
    )
}

fn encoder(p: &Parts<'_>) -> String {
    let e = p.encoder;
    let mut out = String::from(
        r#"//! Weights, ranges and the encoder, all in flash. Written by `undertone export`.

use undertone_core::attention::{Kind, Variant};
use undertone_core::encoder::{Activation, Encoder, Group, Groups, Layer, Norm, NormPosition, Pooling};
use undertone_core::fixed::{Block, Flash, Operand, Quad, Weight};
use undertone_core::{Function, Num, Range, Ranges, Role, Shape, Site};

use crate::World;

/// Words on a multiple of four bytes.
#[repr(C, align(4))]
struct Words<const N: usize>([i16; N]);

// Read when the crate is compiled.
const FILE: &[u8] = include_bytes!("weights.bin");

/// The words from a byte of the file on.
const fn words<const N: usize>(at: usize) -> Words<N> {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = i16::from_le_bytes([FILE[at + 2 * i], FILE[at + 2 * i + 1]]);
        i += 1;
    }
    Words(out)
}

/// Signs, 32 to a word.
#[allow(unused)]
const fn signs<const N: usize>(at: usize) -> [u32; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        let b = at + 4 * i;
        out[i] = u32::from_le_bytes([FILE[b], FILE[b + 1], FILE[b + 2], FILE[b + 3]]);
        i += 1;
    }
    out
}

/// Bytes, four rows side by side.
#[allow(unused)]
const fn blocks<const N: usize>(at: usize) -> [Block; N] {
    let mut out = [Block([Quad([0; 4]); 4]); N];
    let mut i = 0;
    while i < 16 * N {
        out[i / 16].0[i / 4 % 4].0[i % 4] = FILE[at + i] as i8;
        i += 1;
    }
    out
}

#[allow(unused)]
const fn halves(values: &'static [i16]) -> Weight<Flash> {
    Weight::Halves(values)
}

#[allow(unused)]
const fn in_bytes(blocks: &'static [Block], scale: &'static [i16]) -> Weight<Flash> {
    Weight::Bytes { blocks, scale }
}

#[allow(unused)]
const fn in_signs(words: &'static [u32], scale: &'static [i16], of_signs: bool) -> Weight<Flash> {
    Weight::Signs { words, scale, of_signs }
}

#[allow(unused)]
const fn linear(
    inputs: usize,
    outputs: usize,
    weight: Weight<Flash>,
    frac: i16,
    bias: Option<(&'static [i16], i16)>,
) -> Operand<Flash> {
    Operand::Linear { inputs, outputs, weight, frac, bias }
}

#[allow(unused)]
const fn vector(shape: Shape, values: &'static [i16], frac: i16) -> Operand<Flash> {
    Operand::Vector { shape, values, frac }
}

const fn range(lo: Num, hi: Num) -> Range {
    Range::new(lo, hi)
}

"#,
    );
    out = out.replace(
        "use undertone_core::attention::{Kind, Variant};\n",
        "#[allow(unused_imports)]\nuse undertone_core::attention::{Kind, Variant};\n",
    );
    out = out.replace(
        "use undertone_core::{Function, Num",
        "#[allow(unused_imports)]\nuse undertone_core::{Function, Num",
    );
    for array in &p.weights.arrays {
        let n = array.values.len();
        let (kind, read) = match array.values {
            Values::Halves(_) => (format!("Words<{n}>"), "words"),
            Values::Words(_) => (format!("[u32; {n}]"), "signs"),
            Values::Blocks(_) => (format!("[Block; {n}]"), "blocks"),
        };
        _ = writeln!(out, "static {}: {kind} = {read}({});", array.name, array.at);
    }
    let calibration = p.calibration;
    _ = writeln!(out, "\n/// The calibrated ranges, in order of their sites.");
    _ = writeln!(out, "pub(crate) static RANGES: Ranges<'static> = Ranges(&[");
    for (site, (lo, hi)) in calibration.iter() {
        let (lo, hi) = (num(Num::of(lo)), num(Num::of(hi)));
        _ = writeln!(out, "    ({}, range({lo}, {hi})),", self::site(site));
    }
    _ = writeln!(out, "]);\n");
    let option = |x: Option<String>| x.map_or_else(|| "None".to_owned(), |x| format!("Some({x})"));
    _ = writeln!(out, "/// The encoder.");
    _ = writeln!(
        out,
        "pub(crate) static ENCODER: Encoder<World, [Layer<World>; {}]> = Encoder {{",
        e.layers.len()
    );
    _ = writeln!(out, "    embed: {},", option(e.embed.as_ref().map(|o| operand("EMBED", o))));
    let position = e.position.as_ref().map(|o| operand("POSITION", o));
    _ = writeln!(out, "    position: {},", option(position));
    let embed_norm = e.embed_norm.as_ref().map(|n| norm("EMBED_NORM", n));
    _ = writeln!(out, "    embed_norm: {},", option(embed_norm));
    _ = writeln!(out, "    layers: [");
    for (i, layer) in e.layers.iter().enumerate() {
        out.push_str(&self::layer(i, layer));
    }
    _ = writeln!(out, "    ],");
    let final_norm = e.final_norm.as_ref().map(|n| norm("FINAL_NORM", n));
    _ = writeln!(out, "    final_norm: {},", option(final_norm));
    let pooling = match e.pooling {
        Pooling::Mean => "Mean",
        Pooling::First => "First",
        Pooling::None => "None",
    };
    _ = writeln!(out, "    pooling: Pooling::{pooling},");
    let classifier = e.classifier.as_ref().map(|o| operand("CLASSIFIER", o));
    _ = writeln!(out, "    classifier: {},", option(classifier));
    out.push_str("};\n");
    out
}

fn num(x: Num) -> String {
    format!("Num::new({}, {})", x.mantissa(), x.exponent())
}

fn site(site: Site) -> String {
    let layer = match site.layer {
        Site::OUTSIDE => "Site::OUTSIDE".to_owned(),
        layer => layer.to_string(),
    };
    format!("Site {{ layer: {layer}, group: {}, role: Role::{:?} }}", site.group, site.role)
}

fn operand(name: &str, operand: &Operand<Owned>) -> String {
    match operand {
        Operand::Linear { inputs, outputs, weight, frac, bias } => {
            let weight = match weight {
                Weight::Halves(_) => format!("halves(&{name}.0)"),
                Weight::Bytes { .. } => format!("in_bytes(&{name}, &{name}_SCALE.0)"),
                Weight::Signs { of_signs, .. } => {
                    format!("in_signs(&{name}, &{name}_SCALE.0, {of_signs})")
                }
            };
            let bias = match bias {
                Some((_, frac)) => format!("Some((&{name}_BIAS.0, {frac}))"),
                None => "None".to_owned(),
            };
            format!("linear({inputs}, {outputs}, {weight}, {frac}, {bias})")
        }
        Operand::Vector { shape, frac, .. } => {
            let Shape { batch, rows, cols } = shape;
            format!("vector(Shape::new({batch}, {rows}, {cols}), &{name}.0, {frac})")
        }
    }
}

fn norm(name: &str, norm: &Norm<Host>) -> String {
    let both = |gain, bias| {
        let gain = operand(&format!("{name}_GAIN"), gain);
        format!("gain: {gain}, bias: {}", operand(&format!("{name}_BIAS"), bias))
    };
    match norm {
        Norm::Layer { gain, bias, eps } => {
            format!("Norm::Layer {{ {}, eps: {} }}", both(gain, bias), num(*eps))
        }
        Norm::Affine { gain, bias } => format!("Norm::Affine {{ {} }}", both(gain, bias)),
    }
}

fn groups(groups: &Groups) -> String {
    let one = |group: &undertone_core::encoder::Group| {
        format!("Group {{ heads: {}, kind: {} }}", group.heads, kind(&group.kind))
    };
    let all: Vec<String> = groups.iter().map(one).collect();
    // Checked when the crate is compiled.
    format!("Groups::new(&[{}]).unwrap()", all.join(", "))
}

fn kind(kind: &Kind) -> String {
    let variant = |v: &Variant| match v {
        Variant::Plain => "Variant::Plain".to_owned(),
        Variant::Stable { delta } => format!("Variant::Stable {{ delta: {} }}", num(*delta)),
        Variant::Lipschitz { eps } => format!("Variant::Lipschitz {{ eps: {} }}", num(*eps)),
        Variant::LengthAgnostic { eps } => {
            format!("Variant::LengthAgnostic {{ eps: {} }}", num(*eps))
        }
    };
    match kind {
        Kind::Power { p, variant: v } => {
            format!("Kind::Power {{ p: {p}, variant: {} }}", variant(v))
        }
        Kind::ReluSoftmax { eps } => format!("Kind::ReluSoftmax {{ eps: {} }}", num(*eps)),
        Kind::TwoQuad { c, eps } => {
            format!("Kind::TwoQuad {{ c: {}, eps: {} }}", num(*c), num(*eps))
        }
        // The others have no constants, so their name is their text.
        other => format!("Kind::{other:?}"),
    }
}

fn layer(i: usize, layer: &Layer<Host>) -> String {
    let name = |part: &str| format!("L{i}_{part}");
    let mut out = String::from("        Layer {\n");
    for (field, part, operand_) in [
        ("query", "QUERY", &layer.query),
        ("key", "KEY", &layer.key),
        ("value", "VALUE", &layer.value),
        ("out", "OUT", &layer.out),
        ("up", "UP", &layer.up),
    ] {
        _ = writeln!(out, "            {field}: {},", operand(&name(part), operand_));
    }
    for (field, part, maybe) in
        [("down", "DOWN", &layer.down), ("context_scale", "CONTEXT_SCALE", &layer.context_scale)]
    {
        let text = match maybe {
            Some(some) => format!("Some({})", operand(&name(part), some)),
            None => "None".to_owned(),
        };
        _ = writeln!(out, "            {field}: {text},");
    }
    _ = writeln!(out, "            norm1: {},", norm(&name("NORM1"), &layer.norm1));
    _ = writeln!(out, "            norm2: {},", norm(&name("NORM2"), &layer.norm2));
    let activation = match &layer.activation {
        Activation::Identity => "Activation::Identity".to_owned(),
        Activation::Relu => "Activation::Relu".to_owned(),
        Activation::Map(function) => format!("Activation::Map(Function::{function:?})"),
        Activation::Quadratic { a, b } => format!(
            "Activation::Quadratic {{ a: {}, b: {} }}",
            operand(&name("QUADRATIC_A"), a),
            operand(&name("QUADRATIC_B"), b)
        ),
    };
    _ = writeln!(out, "            activation: {activation},");
    _ = writeln!(out, "            groups: {},", groups(&layer.groups));
    let position = match layer.position {
        NormPosition::Pre => "Pre",
        NormPosition::Post => "Post",
    };
    _ = writeln!(out, "            position: NormPosition::{position},\n        }},");
    out
}

fn golden(p: &Parts<'_>) -> String {
    let n = p.golden.len().min(EMBEDDED);
    let names: Vec<&str> = p.examples.iter().take(n).map(|e| e.name.as_str()).collect();
    let outputs = p.plan.output.len();
    format!(
        "//! Inputs and the logits that a host's fixed-point world gives for them.\n\n\
         /// Examples.\npub const EXAMPLES: usize = {n};\n\
         /// Their names.\npub static NAMES: [&str; EXAMPLES] = {names:?};\n\
         /// Their inputs.\npub static INPUTS: &[u8; EXAMPLES * {sample}] = include_bytes!(\"golden.bin\");\n\
         /// Their logits.\npub static LOGITS: [[i16; {outputs}]; EXAMPLES] = {logits:?};\n",
        sample = p.sample,
        logits = &p.golden[..n],
    )
}

/// The class and the logits of every example, a line each.
fn expected(p: &Parts<'_>) -> String {
    let mut out = String::new();
    for logits in &p.golden {
        let mut class = 0;
        for (i, logit) in logits.iter().enumerate() {
            if *logit > logits[class] {
                class = i;
            }
        }
        _ = write!(out, "{class}");
        for logit in logits {
            _ = write!(out, " {logit}");
        }
        out.push('\n');
    }
    out
}

const MAIN: &str = r#"//! Runs the golden examples and compares their logits with the host's, bit for bit.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod golden;

use CRATE::{LABELS, Model, SAMPLE, SCRATCH, class};
use undertone_board::{Place, exit, instructions, print, print_number, print_signed, stack};

static MODEL: Place<Model> = Place::new(Model::new());

fn figure(name: &str, value: u64) {
    print(name);
    print(" ");
    print_number(value);
    print("\n");
}

fn run() {
    let Some(model) = MODEL.take() else { exit(1) };
    let (mut counted, mut painted, mut equal, mut saturated) = (None, None, 0, 0);
    let samples = golden::INPUTS.as_chunks::<SAMPLE>().0;
    for (i, ((sample, want), name)) in
        samples.iter().zip(&golden::LOGITS).zip(golden::NAMES).enumerate()
    {
        let mut logits = None;
        // One run each: the first is counted, the second paints the stack.
        match i {
            0 => counted = instructions(|| logits = model.run(sample).ok()),
            1 => painted = stack::used(|| logits = model.run(sample).ok()),
            _ => logits = model.run(sample).ok(),
        }
        let Some(logits) = logits else {
            print("the model refused to run\n");
            exit(1)
        };
        saturated += model.saturated();
        let same = logits == *want;
        equal += u64::from(same);
        print(name);
        print(": ");
        print(LABELS.get(class(&logits)).copied().unwrap_or("class"));
        print(if same { ", logits equal the host's:" } else { ", logits DIFFER from the host's:" });
        for logit in logits {
            print(" ");
            print_signed(logit.into());
        }
        print("\n");
    }
    if let Some(n) = counted {
        figure("instructions", n);
    }
    if let Some(n) = painted {
        figure("stack_bytes", n as u64);
    }
    figure("scratch_bytes", model.needed().bytes() as u64);
    figure("saturated", saturated);
    figure("examples", golden::EXAMPLES as u64);
    figure("equal", equal);
    if equal != golden::EXAMPLES as u64 || (equal > 0 && model.needed() != SCRATCH) {
        exit(1);
    }
}

undertone_board::main!(run);
"#;

const CLASSIFY: &str = r#"//! Classifies every input of `inputs.bin` in the emulator's working directory: a line each with the
//! class and the logits, as in `expected.txt`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use CRATE::{Model, SAMPLE, class};
use undertone_board::{Input, Place, exit, print, print_number, print_signed};

static MODEL: Place<Model> = Place::new(Model::new());
static SAMPLES: Place<[u8; SAMPLE]> = Place::new([0; SAMPLE]);

fn run() {
    let (Some(model), Some(sample)) = (MODEL.take(), SAMPLES.take()) else { exit(1) };
    let Some(mut file) = Input::open(c"inputs.bin") else {
        print("no inputs.bin here\n");
        exit(1)
    };
    while file.read(sample) {
        let Ok(logits) = model.run(sample) else { exit(1) };
        print_number(class(&logits) as u64);
        for logit in logits {
            print(" ");
            print_signed(logit.into());
        }
        print("\n");
    }
}

undertone_board::main!(run);
"#;

fn readme(p: &Parts<'_>) -> String {
    let (f, t) = (p.figures, p.target);
    format!(
        "# {name}\n\nIn 16-bit fixed point for {t}, written by `undertone export`.\n\n\
         ```sh\nrustup target add {triple}\ncargo run --release                  # the golden examples, under QEMU\n\
         cargo run --release --bin classify   # every input of inputs.bin; compare with expected.txt\n```\n\n\
         | memory | bytes |\n|---|---|\n\
         | flash: weights | {weights} |\n| flash: tables and golden results | {tables} |\n\
         | flash: code, at most | {code} |\n| flash in all | {flash} of {flash_there} |\n\
         | RAM: activations and accumulators, exactly | {scratch} |\n\
         | RAM: stack, at most | {stack} |\n| RAM in all | {ram} of {ram_there} |\n\n\
         {operations} arithmetic operations an input. `cargo run --release` prints the counted \
         instructions and the painted stack.\n\n\
         On a chip: put its memory into `memory.x`; `src/lib.rs` needs no board support, \
         `src/main.rs` speaks through semihosting.\n",
        name = p.name,
        triple = t.triple,
        weights = f.weight_bytes,
        tables = f.table_bytes,
        code = f.code_bytes,
        flash = f.flash_bytes,
        flash_there = t.flash.bytes,
        scratch = f.scratch_bytes,
        stack = f.stack_bytes,
        ram = f.ram_bytes,
        ram_there = t.ram.bytes,
        operations = f.operations,
    )
}
