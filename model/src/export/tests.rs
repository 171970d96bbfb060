#![allow(clippy::unwrap_used)]

use std::path::Path;

use proptest::prelude::*;
use undertone_core::fixed::pixels::Pixels;

use super::*;
use crate::image::{Picture, Resize};
use crate::input::EncoderInput;

fn shipped(name: &str) -> Model {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    Model::load(&root.join("models").join(name)).unwrap()
}

fn example(model: &Model, seed: u8) -> Example {
    let vit = model.config.vit().unwrap();
    let pixels: Vec<u8> =
        (0..vit.image_len()).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    let picture = Picture::gray(vit.image_size, vit.image_size, &pixels).unwrap();
    let values = picture.to_input(vit, Resize::Refuse).unwrap();
    let rows = model.rows(&EncoderInput::Image(&values)).unwrap();
    Example { name: format!("pattern-{seed}"), pixels, rows }
}

fn text<'a>(export: &'a Export, path: &str) -> &'a str {
    let (_, bytes) = export.files.iter().find(|(p, _)| p == Path::new(path)).unwrap();
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_model_that_fits_is_exported_with_its_exact_scratch() {
    let model = shipped("vit-fmnist-he1");
    let target = Target::named("cortex-m4").unwrap();
    let examples: Vec<Example> = (0..6).map(|seed| example(&model, seed)).collect();
    let request = Request {
        model: &model,
        name: "vit-fmnist-he1",
        target: &target,
        examples: &examples,
        checkout: Path::new("/checkout"),
    };
    let export = export(&request).unwrap();
    let plan = fixed::plan(&model, model.input_shape(1, model.task_tokens())).unwrap();
    assert_eq!(export.figures.scratch_bytes, plan.memory.bytes());
    let library = text(&export, "src/lib.rs");
    assert!(library.contains(&format!("tensors: {},", plan.memory.tensors)), "{library}");
    assert_eq!(text(&export, "expected.txt").lines().count(), 6);
    assert!(text(&export, "src/golden.rs").contains("EXAMPLES: usize = 4;"));
    // 16 bits a parameter, but for padding and the folded class token.
    let weights = export.figures.weight_bytes.abs_diff(2 * model.weights.parameters());
    assert!(weights < 200, "{weights}");
    let file = export.files.iter().find(|(p, _)| p == Path::new("src/weights.bin")).unwrap();
    assert_eq!(file.1.len(), export.figures.weight_bytes);
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_it_needs() {
    let model = shipped("vit-fmnist");
    let small = Target::named("cortex-m0").unwrap();
    let error = figures(&model, &small, 0).unwrap_err().to_string();
    assert!(error.contains("bytes of flash") && error.contains("262144"), "{error}");
    let flash = small.clone().with_memory(Some(512 << 10), None);
    let error = figures(&model, &flash, 0).unwrap_err().to_string();
    assert!(error.contains("bytes of RAM") && error.contains("16384"), "{error}");
    assert!(figures(&model, &flash.with_memory(None, Some(64 << 10)), 0).is_ok());
}

/// One factor is fitted on the first model; the others check it.
#[test]
fn estimates_are_near_the_counts() {
    for name in ["vit-fmnist", "vit-fmnist-hetero", "vit-fmnist-he1"] {
        let model = shipped(name);
        let plan = fixed::plan(&model, model.input_shape(1, model.task_tokens())).unwrap();
        let (estimate, counted) = (estimate(&plan.counts), counted(name).unwrap());
        let ratio = estimate.instructions as f64 / counted as f64;
        // Polynomial attention has no price of its own: 0.72 where half the heads are.
        assert!((0.65..1.25).contains(&ratio), "{name}: {estimate:?} against {counted}");
        assert!(estimate.cycles > estimate.instructions);
    }
    assert_eq!(super::counted("an386"), None);
}

#[test]
fn names_and_examples_are_checked() {
    let model = shipped("vit-fmnist-he1");
    let target = Target::named("riscv32").unwrap();
    let examples = [example(&model, 1)];
    let request = |name, examples| Request {
        model: &model,
        name,
        target: &target,
        examples,
        checkout: Path::new("/checkout"),
    };
    for name in ["", "4you", "a b", "a\"\n[dependencies]"] {
        assert!(matches!(export(&request(name, &examples)), Err(ExportError::Name(_))), "{name}");
    }
    let mut short = examples.clone();
    short[0].pixels.pop();
    let error = export(&request("a", &short)).unwrap_err().to_string();
    assert!(error.contains("783 pixels") && error.contains("784"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// The board's pixels are the host's: same values, same order.
    #[test]
    fn pixels_equal_the_hosts_rows(
        across in 1usize..4,
        patch in 1usize..5,
        color: bool,
        class_token: bool,
        seed: u8,
    ) {
        let (side, channels) = (across * patch, if color { 3 } else { 1 });
        let vit = VitInput {
            image_size: side,
            patch_size: patch,
            channels,
            class_token,
            pixel_mean: vec![0.5, 0.25, 0.0][..channels].to_vec(),
            pixel_std: vec![0.5, 0.25, 1.0][..channels].to_vec(),
        };
        let image: Vec<u8> = (0..side * side * channels)
            .map(|i| (i as u8).wrapping_mul(37).wrapping_add(seed))
            .collect();
        let fixed = |x: f32| to_fixed(x, 10) as i16;
        let tables: Vec<[i16; 256]> = normalised(&vit).iter().map(|t| t.map(fixed)).collect();
        let mut planes = Vec::new();
        for (channel, table) in normalised(&vit).iter().enumerate() {
            planes.extend(image.iter().skip(channel).step_by(channels).map(|&p| table[usize::from(p)]));
        }
        let mut want = vec![0i16; if class_token { vit.patch_len() } else { 0 }];
        want.extend(crate::input::patchify(&planes, &vit).into_iter().map(fixed));
        let pixels = Pixels { side, patch, class_token, tables: &tables };
        prop_assert_eq!(pixels.image_len(), image.len());
        let got: Vec<i16> = (0..want.len()).map(|i| pixels.at(&image, i)).collect();
        prop_assert_eq!(got, want);
    }
}
