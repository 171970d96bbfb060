//! Bad input through the binary: exit code 2 and one line that names what is wrong and where.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{root, undertone};

const BOOT: &str = "models/images/0000-ankle-boot.png";
const QUERY: &str = "vit.encoder.layer.0.attention.attention.query.weight";

/// Runs the binary and wants one line of error with these words.
pub(crate) fn refused(arguments: &[&str], words: &[&str]) {
    let run = undertone(arguments);
    assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{arguments:?}: {}", run.err);
    assert_eq!(run.err.lines().count(), 1, "one line: {}", run.err);
    assert!(run.err.starts_with("error: "), "{}", run.err);
    for word in words {
        assert!(run.err.contains(word), "`{word}` is missing in {}", run.err);
    }
}

/// A copy of a shipped model.
struct Copy(TempDir);

impl Copy {
    fn of(model: &str) -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["config.json", "model.safetensors"] {
            let from = root().join("models").join(model).join(name);
            std::fs::copy(from, folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Changes `config.json`.
    fn config(&self, change: impl FnOnce(&mut Value)) -> &Self {
        let bytes = std::fs::read(self.file("config.json")).unwrap();
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        change(&mut value);
        std::fs::write(self.file("config.json"), value.to_string()).unwrap();
        self
    }

    /// Changes the bytes of `model.safetensors`.
    fn bytes(&self, change: impl FnOnce(&mut Vec<u8>)) -> &Self {
        let mut bytes = std::fs::read(self.file("model.safetensors")).unwrap();
        change(&mut bytes);
        std::fs::write(self.file("model.safetensors"), bytes).unwrap();
        self
    }

    /// Changes the tensors of `model.safetensors`.
    fn tensors(&self, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> &Self {
        self.bytes(|bytes| {
            let file = SafeTensors::deserialize(bytes).unwrap();
            let mut tensors: BTreeMap<String, Tensor> = file
                .tensors()
                .into_iter()
                .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
                .collect();
            change(&mut tensors);
            let views = tensors.iter().map(|(name, (dtype, shape, data))| {
                (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
            });
            *bytes = safetensors::serialize(views, None).unwrap();
        })
    }

    /// The model must be refused with these words, and its folder be named.
    fn refused(&self, words: &[&str]) {
        refused(&["infer", "--model", self.path(), BOOT], &[words, &[self.path()]].concat());
    }
}

type Tensor = (Dtype, Vec<usize>, Vec<u8>);

#[test]
fn files_of_the_wrong_length() {
    let file = "model.safetensors";
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    Copy::of("vit-fmnist").bytes(cut).refused(&[file, "truncated"]);
    Copy::of("vit-fmnist").bytes(|b| b.truncate(5)).refused(&[file, "truncated"]);
    Copy::of("vit-fmnist").bytes(|b| b.truncate(100)).refused(&[file, "truncated"]);
    Copy::of("vit-fmnist").bytes(|b| b.push(0)).refused(&[file, "bytes"]);
    // A header that says it is longer than any header may be.
    let long = |bytes: &mut Vec<u8>| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    Copy::of("vit-fmnist").bytes(long).refused(&[file, "header", "limit"]);
    let broken = |bytes: &mut Vec<u8>| bytes[8] = b'!';
    Copy::of("vit-fmnist").bytes(broken).refused(&[file, "header"]);
}

#[test]
fn wrong_tensors() {
    let file = "model.safetensors";
    let model = || Copy::of("vit-fmnist");
    model().tensors(|t| _ = t.remove(QUERY)).refused(&[file, QUERY, "missing", "[64, 64]"]);
    let extra = |t: &mut BTreeMap<String, Tensor>| {
        t.insert("vit.surplus".to_owned(), (Dtype::F32, vec![1], vec![0; 4]));
    };
    model().tensors(extra).refused(&[file, "vit.surplus", "unknown"]);
    let reshaped = |t: &mut BTreeMap<String, Tensor>| t.get_mut(QUERY).unwrap().1 = vec![32, 128];
    model().tensors(reshaped).refused(&[file, QUERY, "[32, 128]", "[64, 64]"]);
    let whole = |t: &mut BTreeMap<String, Tensor>| t.get_mut(QUERY).unwrap().0 = Dtype::I32;
    model().tensors(whole).refused(&[file, QUERY, "I32", "F32"]);
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let set = |t: &mut BTreeMap<String, Tensor>| {
            t.get_mut(QUERY).unwrap().2[12..16].copy_from_slice(&value.to_le_bytes());
        };
        model().tensors(set).refused(&[file, QUERY, name, "index 3", "finite"]);
    }
}

#[test]
fn wrong_configurations() {
    let model = |change: fn(&mut Value)| {
        let copy = Copy::of("vit-fmnist");
        copy.config(change);
        copy
    };
    model(|c| c["num_attention_heads"] = json!(5)).refused(&[
        "config.json",
        "num_attention_heads = 5",
        "hidden_size = 64",
    ]);
    model(|c| c["patch_size"] = json!(5)).refused(&["config.json", "patch_size = 5"]);
    model(|c| c["hidden_size"] = json!(0)).refused(&["config.json", "hidden_size", "0"]);
    model(|c| c["model_type"] = json!("gpt2")).refused(&["config.json", "gpt2", "`vit` or `bert`"]);
    model(|c| c["undertone"]["layers"][1]["heads"][2] = json!({"kind": "sofmax"})).refused(&[
        "config.json",
        "layer 1, head 2",
        "sofmax",
        "softmax",
    ]);
    model(|c| c["undertone"]["colour"] = json!(1)).refused(&["config.json", "colour"]);
    // Ranges of sites that do not exist, in a layer and around the layers.
    model(|c| c["undertone"]["domains"]["embeding"] = json!([0, 1])).refused(&[
        "config.json",
        "`embeding`",
        "domains",
    ]);
    model(|c| c["undertone"]["layers"][0]["domains"]["scores.x"] = json!([0, 1])).refused(&[
        "config.json",
        "`scores.x`",
        "domains",
    ]);
    model(|c| c["undertone"]["domains"]["embedding"] = json!([1, 0])).refused(&[
        "config.json",
        "embedding",
        "lo <= hi",
    ]);
    let copy = Copy::of("vit-fmnist");
    std::fs::write(copy.file("config.json"), "{").unwrap();
    copy.refused(&["config.json", "line 1"]);
    let copy = Copy::of("vit-fmnist");
    std::fs::write(copy.file("config.json"), vec![b' '; (8 << 20) + 1]).unwrap();
    copy.refused(&["config.json", "larger than the limit of 8388608 bytes"]);
}

#[test]
fn ranges() {
    let strict = |copy: &Copy, more: &[&str], words: &[&str]| {
        let call = ["infer", "--model", copy.path(), BOOT, "--strict"];
        refused(&[&call[..], more].concat(), words);
    };
    // A site that every form of a run passes, one that only exists inside attention, the input.
    for (site, words) in [("norm1", "layer 0"), ("scores", "layer 0")] {
        let copy = Copy::of("vit-fmnist");
        copy.config(|c| c["undertone"]["layers"][0]["domains"][site] = json!([-0.01, 0.01]));
        strict(&copy, &[], &[BOOT, words, site, "outside the calibrated range", "calibrate"]);
    }
    let copy = Copy::of("vit-fmnist");
    copy.config(|c| c["undertone"]["domains"]["input"] = json!([-0.1, 0.1]));
    strict(&copy, &[], &[BOOT, "input", "outside the calibrated range"]);
    strict(&copy, &["--world", "fixed"], &[BOOT, "saturated"]);

    let uncalibrated = Copy::of("vit-fmnist");
    uncalibrated.config(|c| {
        let block = c["undertone"].as_object_mut().unwrap();
        block.remove("domains");
        for layer in block["layers"].as_array_mut().unwrap() {
            layer.as_object_mut().unwrap().remove("domains");
        }
    });
    let folder = uncalibrated.path();
    let fixed = ["infer", "--model", folder, BOOT, "--world", "fixed"];
    refused(&fixed, &["no calibrated range", "calibrate the model first"]);
    refused(&["plan", "--model", folder], &["no calibrated range", "calibrate the model first"]);
    strict(&uncalibrated, &[], &["--strict", "calibrate"]);
    // In the float world it runs.
    assert_eq!(undertone(&["infer", "--model", folder, BOOT]).code, Some(0));
    assert_eq!(undertone(&["plan", "--model", folder, "--world", "float"]).code, Some(0));
}

#[test]
fn wrong_images() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let small = path("small.png");
    image::GrayImage::new(20, 28).save(&small).unwrap();
    let infer = ["infer", "--model", "models/vit-fmnist"];
    let call = |image: &str, words: &[&str]| refused(&[&infer[..], &[image]].concat(), words);
    call(&small, &[&small, "20", "28", "resize"]);
    assert_eq!(undertone(&[&infer[..], &[&small, "--resize"]].concat()).code, Some(0));
    let (text, cut, none) = (path("text.png"), path("cut.png"), path("none.png"));
    std::fs::write(&text, "not an image").unwrap();
    call(&text, &[&text]);
    let whole = std::fs::read(root().join(BOOT)).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    call(&cut, &[&cut]);
    call(&none, &[&none, "No such file"]);
    refused(&infer, &["name images", "--text"]);
    refused(&["infer", "--model", "models/recall-softmax", BOOT], &["does not read images"]);
}

#[test]
fn wrong_texts() {
    let copy = Copy::of("recall-softmax");
    let text = |words: &str, wanted: &[&str]| {
        refused(&["infer", "--model", copy.path(), "--text", words], wanted);
    };
    text("a", &["tokenizer.json", "No such file"]);
    let tokenizer = root().join("fuzz/seeds/tokenizer/wordpiece.json");
    std::fs::copy(tokenizer, copy.file("tokenizer.json")).unwrap();
    text("", &["the text is empty"]);
    text(" \n ", &["the text is empty"]);
    std::fs::write(copy.file("tokenizer.json"), "{}").unwrap();
    text("a", &["tokenizer.json"]);
    refused(&["infer", "--model", "models/vit-fmnist", "--text", "a"], &["reads images"]);
}

#[test]
fn wrong_sizes() {
    let plan = |model, tokens, words: &[&str]| {
        refused(&["plan", "--model", model, "--tokens", tokens], words);
    };
    plan("models/recall-softmax", "0", &["--tokens 0", "1 to 25"]);
    plan("models/recall-softmax", "26", &["--tokens 26", "1 to 25"]);
    plan("models/vit-fmnist", "7", &["reads images of 49 tokens"]);
    refused(&["bench", "--model", "models/vit-fmnist", "--batch", "0"], &["no elements"]);
    refused(&["compare", "--limit", "0"], &["--limit"]);
}

#[test]
fn missing_folders() {
    refused(&["infer", "--model", "nowhere", BOOT], &["nowhere", "config.json", "No such file"]);
    refused(&["compare", "--models", "nowhere"], &["nowhere", "--models", "No such file"]);
    refused(&["compare", "--only", "nothing"], &["models", "no model folder matches"]);
    let data = ["compare", "--only", "vit-fmnist", "--data", "nowhere"];
    refused(&data, &["data set nowhere"]);
    let copy = Copy::of("vit-fmnist");
    std::fs::remove_file(copy.file("model.safetensors")).unwrap();
    copy.refused(&["model.safetensors", "No such file"]);
    assert!(!Path::new("nowhere").exists());
}
