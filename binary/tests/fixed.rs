//! One-bit models in 16-bit fixed point, beside their packed form.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use undertone_binary::model::Encoder;
use undertone_core::{Domains as _, Fault, Site};
use undertone_model::domains::Calibration;
use undertone_model::fixed::{ByteWeights, FixedModel, Source, plan};
use undertone_model::image::{Picture, Resize};
use undertone_model::input::patchify;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("models")
}

fn shipped(name: &str) -> Encoder {
    Encoder::load(&models().join("one-bit").join(name)).unwrap()
}

/// The shipped images as a model reads them.
fn images(model: &Encoder) -> Vec<Vec<f32>> {
    let vit = model.config().vit().unwrap();
    let entries = std::fs::read_dir(models().join("images")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let picture = Picture::load(path).unwrap();
        patchify(&picture.to_input(&vit, Resize::Refuse).unwrap(), &vit)
    };
    paths.iter().map(read).collect()
}

fn class(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

/// On how many of the shipped images fixed point gives the packed form's class; every run counts
/// what was planned and saturates nowhere.
fn agreement(model: &Encoder, source: &impl Source) -> (usize, usize) {
    let planned = plan(source, source.shape()).unwrap();
    let mut fixed = FixedModel::new(source, source.shape()).unwrap();
    let images = images(model);
    let agree = images
        .iter()
        .filter(|rows| {
            let run = fixed.run(rows).unwrap();
            assert_eq!((run.counts, run.saturated), (planned.counts, 0));
            class(&run.output) == class(&model.run(rows).unwrap().0)
        })
        .count();
    (agree, images.len())
}

#[test]
fn bits_in_fixed_point_agree_with_packed_bits() {
    for name in ["vit-fmnist-bivit", "vit-fmnist-bivit-w1", "vit-fmnist-bivit-full"] {
        let model = shipped(name);
        let fixed = model.in_fixed().unwrap();
        assert!(fixed.is_calibrated(), "{name}");
        // A rounded value may change the sign of what lies near zero; bytes round the patch
        // projection, which every sign follows, more coarsely.
        let (agree, images) = agreement(&model, &fixed);
        assert!(images == 40 && agree >= 38, "{name}: {agree} of {images}");
        let (agree, _) = agreement(&model, &ByteWeights(&fixed));
        assert!(agree >= 35, "{name} in bytes: {agree} of {images}");
    }
}

/// No weight is expanded: a sign takes a bit, in the plan's memory and in the operands.
#[test]
fn signs_stay_bits() {
    let model = shipped("vit-fmnist-bivit-full");
    let fixed = model.in_fixed().unwrap();
    let memory = plan(&fixed, fixed.shape()).unwrap().memory;
    // Keys of 16 signs and a query, 16 channels and a mask of 49 keys, 49 distances.
    assert_eq!(memory.words, 50 + 17 * 2 + 49);
    assert!(memory.bytes() < 48 << 10, "{memory:?}");
}

#[test]
fn recorded_sites_are_those_that_ship() {
    let model = shipped("vit-fmnist-bivit-full");
    let mut ranges = Calibration::default();
    for rows in images(&model).iter().take(2) {
        model.record(rows, &mut ranges).unwrap();
    }
    let fixed = model.in_fixed().unwrap();
    let sites = |c: &Calibration| c.iter().map(|(site, _)| site).collect::<Vec<Site>>();
    assert_eq!(sites(&ranges), sites(fixed.calibration()));
    for (site, (lo, hi)) in ranges.iter() {
        assert!(lo <= hi && fixed.calibration().bound(site).range.is_some(), "{site}");
    }
}

#[test]
fn what_has_no_form_in_fixed_point_is_refused() {
    let eco = shipped("vit-fmnist-ecoformer").in_fixed().unwrap();
    assert!(!eco.is_calibrated());
    let error = plan(&eco, eco.shape()).unwrap_err();
    assert!(matches!(error, Fault::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("ecoformer"), "{error}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/bivit-full");
    let bare = Encoder::load(&golden).unwrap().in_fixed().unwrap();
    assert!(matches!(plan(&bare, bare.shape()), Err(Fault::Uncalibrated(_))));
}
