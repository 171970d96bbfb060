//! What commands print when all is well, and their exit codes.

use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::Value;

use crate::{success, undertone};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn help() {
    assert_snapshot!(success(&["--help"]));
    for command in [
        "compare",
        "plan",
        "infer",
        "calibrate",
        "export",
        "party",
        "shape",
        "fit-hash",
        "pack",
        "bench",
        "simulate",
        "explore",
        "keygen",
        "encrypt",
        "infer-encrypted",
        "decrypt",
    ] {
        let text = success(&[command, "--help"]);
        assert!(text.contains("Usage: undertone ") && text.contains("--json"), "{text}");
    }
    let version = success(&["--version"]);
    assert_eq!(version, concat!("undertone ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn plan() {
    assert_snapshot!(success(&["plan", "--model", "models/vit-fmnist"]));
    let json = success(&["plan", "--model", "models/vit-fmnist", "--json"]);
    assert_json_snapshot!(parse(&json));
    let one =
        parse(&success(&["plan", "--model", "models/vit-fmnist", "--world", "fixed", "--json"]));
    let all = parse(&json);
    assert_eq!(one["worlds"].as_array().unwrap()[..], all["worlds"].as_array().unwrap()[1..]);
}

#[test]
fn plan_of_a_target() {
    let call = ["plan", "--model", "models/vit-fmnist", "--target", "cortex-m4"];
    let json = parse(&success(&[&call[..], &["--json"]].concat()));
    let of = |key: &str| json["target"][key].as_f64().unwrap();
    assert!(of("estimated_cycles") > of("estimated_instructions"));
    let ratio = of("estimated_instructions") / of("counted_instructions");
    assert!((ratio - of("ratio")).abs() < 1e-12 && (0.75..1.25).contains(&ratio), "{ratio}");
    let text = success(&call);
    assert!(text.contains("estimated:") && text.contains("counted under emulation"), "{text}");
    assert_eq!(
        undertone(&["plan", "--model", "models/vit-fmnist", "--target", "z80"]).code,
        Some(2)
    );
}

/// Fewer tokens cost less.
#[test]
fn plan_of_a_shorter_text() {
    let operations = |tokens: &str| {
        let text =
            success(&["plan", "--model", "models/recall-softmax", "--tokens", tokens, "--json"]);
        let plan = parse(&text);
        assert_eq!(plan["tokens"].to_string(), tokens);
        plan["worlds"][0]["operations"].as_u64().unwrap()
    };
    assert!(operations("5") < operations("6"));
}

#[test]
fn infer() {
    let images = ["models/images/0000-ankle-boot.png", "models/images/0001-pullover.png"];
    let model = ["infer", "--model", "models/vit-fmnist"];
    let call = |more: &[&str]| success(&[&model[..], more, &images].concat());
    let text = call(&[]);
    assert_snapshot!(text);
    // Every site of these images lies within its calibrated range.
    assert_eq!(call(&["--strict"]), text);
    call(&["--strict", "--world", "fixed"]);

    let (float, fixed) = (parse(&call(&["--json"])), parse(&call(&["--world", "fixed", "--json"])));
    assert_eq!((&float["world"], &fixed["world"]), (&"float".into(), &"fixed-point".into()));
    for (number, class) in [9, 2].into_iter().enumerate() {
        let (float, fixed) = (&float["answers"][number], &fixed["answers"][number]);
        assert_eq!((&float["class"], &fixed["class"]), (&class.into(), &class.into()));
        assert_eq!(float["input"], images[number]);
        let logits = |answer: &Value| -> Vec<f64> {
            answer["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let (float, fixed) = (logits(float), logits(fixed));
        assert_eq!(float.len(), 10);
        assert!(float.iter().zip(&fixed).all(|(a, b)| (a - b).abs() < 1e-2), "{float:?} {fixed:?}");
    }
}

/// A value with every number, string and flag replaced by its type.
fn types(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().take(1).map(types).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), types(value))).collect(),
        Value::Number(n) => if n.is_f64() { "real" } else { "whole" }.into(),
        Value::String(_) => "text".into(),
        other => other.clone(),
    }
}

#[test]
fn compare() {
    let text = success(&["compare", "--only", "recall-softmax", "--limit", "64", "--json"]);
    let comparison = parse(&text);
    assert_json_snapshot!(types(&comparison));
    let task = &comparison["tasks"][0];
    assert_eq!(task["examples"], 64);
    let rows = task["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["world"], &rows[1]["world"]), (&"float".into(), &"fixed-point".into()));
    for row in rows {
        assert_eq!(row["model"], "recall-softmax");
        assert_eq!(row["agree_with_float"], 64);
        assert_eq!(row["saturated"], 0);
        assert!(row["correct"].as_u64().unwrap() >= 60, "{row}");
        assert!(row["max_logit_error"].as_f64().unwrap() < 1e-2, "{row}");
    }
}

/// The default command is `compare`, on the shipped images.
#[test]
fn the_default_command() {
    let text = success(&["--only", "vit-fmnist-he", "--limit", "8"]);
    assert!(text.contains("8 examples") && text.contains("vit-fmnist-hetero"), "{text}");
    assert!(text.contains("float") && text.contains("fixed-point"), "{text}");
}

/// A check that fails is 1, an error is 2.
#[test]
fn exit_codes() {
    let compare = ["compare", "--only", "recall-softmax", "--limit", "32"];
    let agree = |fraction| undertone(&[&compare[..], &["--require-agreement", fraction]].concat());
    assert_eq!(agree("0.9").code, Some(0));
    let failed = agree("1.01");
    assert_eq!(failed.code, Some(1));
    assert!(failed.err.contains("recall-softmax in the fixed-point world agrees on"));
    assert_eq!(undertone(&["frobnicate"]).code, Some(2));
    assert_eq!(undertone(&["infer", "--model", "nowhere", "x.png"]).code, Some(2));
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_undertone"))
        .args(["plan", "--model", "models/vit-fmnist"])
        .current_dir(super::root())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(process.stdout.take());
    let done = process.wait_with_output().unwrap();
    assert_eq!((done.status.code(), done.stderr.as_slice()), (Some(0), &b""[..]));
}
