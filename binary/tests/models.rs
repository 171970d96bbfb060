//! Whole models against PyTorch: each folder of `golden/models` was initialised at random and
//! exported by the training package, with three images and the logits it gives for them.
#![allow(clippy::unwrap_used, missing_docs)]

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use undertone_binary::Level;
use undertone_binary::model::{Encoder, LoadError, PACKED, Precision, pack};

const CASES: [&str; 6] = [
    "ecoformer-exact",
    "ecoformer-repo-w1",
    "simhash",
    "bivit-mean",
    "bivit-sum-float",
    "bivit-full",
];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(case)
}

fn golden(case: &str) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let bytes = std::fs::read(folder(case).join("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let rows = |name: &str| {
        let tensor = file.tensor(name).unwrap();
        tensor
            .data()
            .chunks_exact(4 * tensor.shape()[1])
            .map(|row| {
                row.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            })
            .collect()
    };
    (rows("pixels"), rows("logits"))
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_equal_those_of_pytorch() {
    for case in CASES {
        let encoder = Encoder::load(&folder(case)).unwrap();
        let (images, logits) = golden(case);
        for level in Level::available() {
            let encoder = encoder.clone().at(level);
            for (image, expected) in images.iter().zip(&logits) {
                let got = encoder.logits(image).unwrap();
                let worst = worst(&got, expected);
                assert!(worst < 2e-4, "{case} {level:?}: {got:?} {expected:?}");
            }
        }
    }
}

/// The float form computes attention from its definition in f64; the packed form has neither a
/// softmax nor an n × n matrix of floats.
#[test]
fn both_arithmetics_agree() {
    for case in CASES {
        let packed = Encoder::load(&folder(case)).unwrap();
        let float = packed.clone().in_floats();
        for image in &golden(case).0 {
            let (a, b) = (packed.logits(image).unwrap(), float.logits(image).unwrap());
            assert!(worst(&a, &b) < 2e-4, "{case}: {a:?} {b:?}");
        }
    }
}

/// What a plan counts without values is what a run counts with them, cell for cell.
#[test]
fn plans_equal_runs() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/one-bit");
    let shipped = ["recall-bivit", "recall-ecoformer", "recall-simhash", "vit-fmnist-ecoformer"]
        .map(|name| shipped.join(name));
    for folder in CASES.map(folder).into_iter().chain(shipped) {
        let packed = Encoder::load(&folder).unwrap();
        for encoder in [packed.clone().in_floats(), packed] {
            let c = encoder.config();
            let tokens = c.tokens();
            let rows: Vec<f32> =
                (0..tokens * c.input_width()).map(|i| (i as f32 * 0.7).sin()).collect();
            let (logits, counted) = encoder.run(&rows).unwrap();
            assert_eq!(logits.len(), c.id2label.len());
            let planned = encoder.plan(tokens).unwrap();
            assert_eq!(planned, counted, "{}", folder.display());
            assert!(planned.total() > 0);
        }
    }
}

#[test]
fn texts_that_a_model_cannot_read_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/one-bit/recall-bivit");
    let encoder = Encoder::load(&folder).unwrap();
    let message = |ids: &[u32]| encoder.embedded(ids).unwrap_err().to_string();
    assert!(message(&[]).contains("the text is empty"), "{}", message(&[]));
    assert!(message(&[1088]).contains("1087"), "{}", message(&[1088]));
    assert!(message(&[0; 26]).contains("25"), "{}", message(&[0; 26]));
    assert!(encoder.plan(0).is_err() && encoder.plan(26).is_err());
    let mut rows = encoder.embedded(&[1024, 3, 17]).unwrap();
    assert!(encoder.run(&rows).is_ok());
    rows[5] = f32::NAN;
    assert!(encoder.run(&rows).is_err() && encoder.run(&rows[..70]).is_err());
}

#[test]
fn packed_checkpoints_give_the_same_logits_and_are_small() {
    for case in CASES {
        let json = std::fs::read(folder(case).join("config.json")).unwrap();
        let config = || undertone_binary::model::Config::parse(&json).unwrap();
        let exact = pack(&folder(case), Precision::Exact).unwrap();
        let small = pack(&folder(case), Precision::Byte).unwrap();
        let whole = Encoder::load(&folder(case)).unwrap();
        let exact = Encoder::from_packed(config(), &json, &exact).unwrap();
        let bytes = Encoder::from_packed(config(), &json, &small).unwrap();
        for image in &golden(case).0 {
            let expected = whole.logits(image).unwrap();
            assert_eq!(exact.logits(image).unwrap(), expected, "{case}");
            println!("{case}: bytes change {:.3}", worst(&bytes.logits(image).unwrap(), &expected));
        }
    }
}

#[test]
fn a_packed_checkpoint_in_the_folder_is_preferred() {
    let dir = tempfile::tempdir().unwrap();
    let case = folder("bivit-full");
    std::fs::copy(case.join("config.json"), dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join(PACKED), pack(&case, Precision::Exact).unwrap()).unwrap();
    let image = &golden("bivit-full").0[0];
    let alone = Encoder::load(dir.path()).unwrap();
    assert_eq!(alone.logits(image).unwrap(), Encoder::load(&case).unwrap().logits(image).unwrap());
}

#[test]
fn damaged_and_foreign_checkpoints_are_refused() {
    let case = folder("bivit-full");
    let json = std::fs::read(case.join("config.json")).unwrap();
    let file = pack(&case, Precision::Byte).unwrap();
    let open = |json: &[u8], file: &[u8]| {
        let config = undertone_binary::model::Config::parse(json).unwrap();
        Encoder::from_packed(config, json, file).map(|_| ())
    };
    assert!(open(&json, &file).is_ok());
    for at in [0, 8, 12, 15, 22, 40, file.len() - 1] {
        let mut bad = file.clone();
        bad[at] ^= 1;
        assert!(matches!(open(&json, &bad), Err(LoadError::Packed { .. })), "byte {at}");
    }
    for length in [0, 10, 36, file.len() - 9] {
        assert!(matches!(open(&json, &file[..length]), Err(LoadError::Packed { .. })));
    }
    let mut other = json.clone();
    other.push(b' ');
    let message = open(&other, &file).unwrap_err().to_string();
    assert!(message.contains("another config.json"), "{message}");
}

#[test]
fn wrong_models_are_refused_by_name() {
    let case = folder("bivit-full");
    let json = std::fs::read_to_string(case.join("config.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let load = |json: String| {
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        Encoder::load(dir.path()).unwrap_err().to_string()
    };
    let missing = load(json.clone());
    assert!(missing.contains("model.safetensors"), "{missing}");
    std::fs::copy(case.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    for (from, to, fragment) in [
        ("\"vit\"", "\"llama\"", "model_type is llama; one-bit models take vit or bert"),
        ("\"kind\": \"bivit\"", "\"kind\": \"power\"", "unknown variant `power`"),
        ("\"hidden_size\": 32", "\"hidden_size\": 33", "a multiple of the heads"),
        ("\"hidden_size\": 32", "\"hidden_size\": 64", "[64, 1, 4, 4]"),
        ("\"weights\": \"sign\"", "\"weights\": \"float\"", "sign, where activations are"),
        ("\"pooling\": \"mean\"", "\"pooling\": \"none\"", "unknown variant `none`"),
        ("\"intermediate_size\": 72", "\"intermediate_size\": 0", "1 to 65536"),
    ] {
        let changed = json.replace(from, to);
        assert_ne!(changed, json, "{from}");
        let message = load(changed);
        assert!(message.contains(fragment), "{message}");
    }
    let encoder = Encoder::load(&case).unwrap();
    assert!(encoder.logits(&[0.5; 10]).is_err());
    let mut pixels = vec![0.5; 576];
    pixels[3] = f32::NAN;
    assert!(encoder.logits(&pixels).unwrap_err().to_string().contains("value 3 is not finite"));
    // Black images: no direction, no variance, still a defined answer.
    assert!(encoder.logits(&[0.286; 576]).unwrap().iter().all(|v| v.is_finite()));
}
