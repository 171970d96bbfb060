//! Models with one-bit attention: compared, planned, run, and fitted.

use serde_json::Value;
use tempfile::TempDir;

use crate::{root, success, undertone};

const ECO: &str = "models/one-bit/vit-fmnist-ecoformer";
const BOOT: &str = "models/images/0000-ankle-boot.png";

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What `compare` counts is what `plan` says, in every world; the packed form agrees with float.
#[test]
fn plans_equal_runs() {
    // EcoFormer has no form in fixed point.
    for (model, limit, worlds) in [("vit-fmnist-ecoformer", "4", 2), ("recall-bivit", "32", 3)] {
        let compared = success(&["compare", "--only", model, "--limit", limit, "--json"]);
        let compared = parse(&compared);
        let rows = compared["tasks"][0]["rows"].as_array().unwrap();
        let planned = success(&["plan", "--model", &format!("models/one-bit/{model}"), "--json"]);
        let planned = parse(&planned);
        assert_eq!(rows.len(), worlds, "{compared}");
        for (row, plan) in rows.iter().zip(planned["worlds"].as_array().unwrap()) {
            assert_eq!(row["world"], plan["world"]);
            assert_eq!(row["operations_per_example"], plan["operations"]);
            if row["world"] == "fixed-point" {
                continue;
            }
            let energy = |v: &Value| v.as_f64().unwrap();
            let (a, b) = (energy(&row["energy_pj_per_example"]), energy(&plan["energy_pj"]));
            assert!((a - b).abs() < 1e-6 * b, "{a} {b}");
            assert_eq!(row["agree_with_float"], compared["tasks"][0]["examples"]);
            assert!(row["max_logit_error"].as_f64().unwrap() < 1e-2, "{row}");
        }
        let energy = |i: usize| rows[i]["energy_pj_per_example"].as_f64().unwrap();
        assert!(energy(1) < energy(0), "packed bits cost less");
    }
}

#[test]
fn energy_by_any_table() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("prices.toml");
    let table = "name = 'mine'\n[picojoules]\nadd = { i1 = 0, i8 = 0, i32 = 0, f32 = 1 }\n\
                 mul = { i1 = 0, i32 = 0, f32 = 0 }\n";
    std::fs::write(&path, table).unwrap();
    let path = path.to_str().unwrap();
    let text = success(&["plan", "--model", ECO, "--energy", path]);
    assert!(text.contains("mine") && text.contains("without the squarings"), "{text}");
    let plan = parse(&success(&["plan", "--model", ECO, "--energy", path, "--json"]));
    let world = &plan["worlds"][1];
    let adds = world["counts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["operation"] == "add" && c["width"] == "f32")
        .unwrap();
    assert_eq!(world["energy_pj"].as_f64(), adds["count"].as_f64());
    std::fs::write(path, "name = 'mine'\n[picojoules]\nadd = { f99 = 1 }\n").unwrap();
    let run = undertone(&["plan", "--model", ECO, "--energy", path]);
    assert_eq!(run.code, Some(2));
    assert!(run.err.contains("no operation `add` of width `f99`"), "{}", run.err);
    let none = undertone(&["compare", "--only", "recall-bivit", "--energy", "nowhere.toml"]);
    assert!(none.code == Some(2) && none.err.contains("nowhere.toml"), "{}", none.err);
}

#[test]
fn infer_in_both_worlds() {
    let call = |world: &str| success(&["infer", "--model", ECO, BOOT, "--world", world, "--json"]);
    for world in ["float", "binary"] {
        let answer = &parse(&call(world))["answers"][0];
        assert_eq!(answer["label"], "Ankle boot");
        assert!(answer["energy_pj"].as_f64().unwrap() > 0.0);
    }
    let text = success(&["infer", "--model", ECO, BOOT, "--world", "binary"]);
    assert!(text.contains("energy") && text.contains("µJ"), "{text}");
    let refused = |arguments: &[&str], words: &str| {
        let run = undertone(arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}");
        assert!(run.err.contains(words), "{}", run.err);
    };
    refused(&["infer", "--model", ECO, BOOT, "--world", "fixed"], "ecoformer needs floating point");
    refused(&["infer", "--model", "models/vit-fmnist", BOOT, "--world", "binary"], "one-bit");
    refused(&["plan", "--model", "models/vit-fmnist", "--world", "binary"], "one-bit");
    refused(&["infer", "--model", ECO, BOOT, "--strict"], "--strict");
    refused(&["infer", "--model", ECO, "--text", "a"], "tokenizer");
}

/// A packed folder runs without its safetensors, exactly or nearly as before.
#[test]
fn pack() {
    let folder = TempDir::new().unwrap();
    let model = "models/one-bit/vit-fmnist-bivit-w1";
    let pack = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let out = out.to_str().unwrap();
        parse(&success(&[&["pack", "--model", model, "--out", out, "--json"], more].concat()))
    };
    let (exact, small) = (pack("exact", &[]), pack("small", &["--bytes"]));
    assert!(exact["ratio"].as_f64().unwrap() > 8.0, "{exact}");
    assert!(small["ratio"].as_f64().unwrap() > 20.0, "{small}");
    let logits = |folder: &str| -> Vec<f64> {
        let text = success(&["infer", "--model", folder, BOOT, "--world", "binary", "--json"]);
        let logits = parse(&text)["answers"][0]["logits"].clone();
        logits.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let at = |name: &str| logits(folder.path().join(name).to_str().unwrap());
    let whole = logits(model);
    assert_eq!(at("exact"), whole);
    assert!(at("small").iter().zip(&whole).all(|(a, b)| (a - b).abs() < 0.5));
    let models = folder.path().to_str().unwrap();
    let plain = ["pack", "--model", "models/vit-fmnist", "--out", models];
    let run = undertone(&plain);
    assert!(run.code == Some(2) && run.err.contains("one-bit"), "{}", run.err);
}

/// A softmax model becomes an EcoFormer that runs; the seed alone decides the result.
#[test]
fn fit_hash() {
    let folder = TempDir::new().unwrap();
    let fit = |name: &str, seed: &str| {
        let out = folder.path().join(name);
        let text = success(&[
            "fit-hash",
            "--model",
            "models/recall-softmax",
            "--limit",
            "16",
            "--iterations",
            "10",
            "--seed",
            seed,
            "--out",
            out.to_str().unwrap(),
            "--json",
        ]);
        (parse(&text), std::fs::read(out.join("model.safetensors")).unwrap())
    };
    let ((report, first), (_, again), (_, other)) = (fit("a", "0"), fit("b", "0"), fit("c", "1"));
    assert!(first == again && first != other);
    let heads = report["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 4);
    for head in heads {
        let loss = |key: &str| head[key].as_f64().unwrap();
        assert!(loss("loss_after") <= loss("loss_before"), "{head}");
        assert!(loss("loss_after") < 0.0, "better than no code: {head}");
    }
    let models = folder.path().to_str().unwrap();
    let compared =
        success(&["compare", "--models", models, "--only", "a", "--limit", "64", "--json"]);
    let compared = parse(&compared);
    let rows = compared["tasks"][0]["rows"].as_array().unwrap();
    assert_eq!((&rows[0]["attention"], &rows[1]["world"]), (&"ecoformer".into(), &"binary".into()));
    assert_eq!(rows[1]["agree_with_float"], 64);
    // Refusals.
    let own = root().join("models/recall-softmax");
    let own = own.to_str().unwrap();
    for (arguments, words) in [
        (&["--model", own, "--out", own][..], "own folder"),
        (&["--model", own, "--out", models, "--bits", "17"], "bits"),
        (&["--model", "models/vit-fmnist", "--out", models], "--data DIR"),
        (&["--model", own, "--out", models, "--limit", "0"], "--limit"),
    ] {
        let run = undertone(&[&["fit-hash"][..], arguments].concat());
        assert_eq!(run.code, Some(2), "{arguments:?}");
        assert!(run.err.contains(words), "{words}: {}", run.err);
    }
}
