//! `export`: what it writes, and what it refuses.

use std::path::Path;
use std::process::Command;

use crate::{root, success, undertone};

const HE1: &str = "models/vit-fmnist-he1";

fn export(model: &str, out: &Path, more: &[&str]) -> crate::Run {
    let out = out.to_str().unwrap();
    let model = ["export", "--model", model, "--out", out, "--limit", "5"];
    undertone(&[&model[..], more].concat())
}

/// The crate runs on a host too: its program compares its logits with those of the exporter.
#[test]
fn the_crate_builds_and_its_logits_are_the_worlds() {
    builds_and_equals(HE1, "int8", "fixed8");
    builds_and_equals(HE1, "int16", "fixed");
    // One bit a weight, but for the patches' and the classifier's.
    builds_and_equals("models/one-bit/vit-fmnist-bivit-full", "int8", "fixed8");
}

fn builds_and_equals(model: &str, weights: &str, world: &str) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("board");
    let first = export(model, &out, &["--target", "cortex-m3", "--weights", weights, "--json"]);
    assert_eq!((first.code, first.err.as_str()), (Some(0), ""));
    let figures: serde_json::Value = serde_json::from_str(&first.out).unwrap();
    assert_eq!(figures["examples"], 5);
    let parts = ["weight_bytes", "table_bytes", "code_bytes"];
    let of = |key: &str| figures["figures"][key].as_u64().unwrap();
    assert_eq!(of("flash_bytes"), parts.iter().map(|p| of(p)).sum::<u64>());
    assert!(of("flash_bytes") < figures["flash_available_bytes"].as_u64().unwrap());

    // The same crate for this machine. Its dependencies are those of the firmware.
    std::fs::remove_dir_all(out.join(".cargo")).unwrap();
    let run = |arguments: &[&str]| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .args(["run", "-q"])
            .args(arguments)
            .env("CARGO_TARGET_DIR", root().join("target/export-test"))
            .env_remove("RUSTFLAGS")
            .current_dir(&out)
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        String::from_utf8(output.stdout).unwrap()
    };
    let golden = run(&["--bin", model.rsplit('/').next().unwrap()]);
    assert!(golden.contains("0000-ankle-boot: ") && !golden.contains("DIFFER"), "{golden}");
    assert!(golden.ends_with("examples 4\nequal 4\n"), "{golden}");
    let expected = std::fs::read_to_string(out.join("expected.txt")).unwrap();
    assert_eq!(run(&["--bin", "classify"]), expected);
    assert_eq!(expected.lines().count(), 5);

    // And the logits are those of `infer`, exactly.
    let image = "models/images/0000-ankle-boot.png";
    let infer = ["infer", "--model", model, "--world", world, "--json", image];
    let answer: serde_json::Value = serde_json::from_str(&success(&infer)).unwrap();
    let library = std::fs::read_to_string(out.join("src/lib.rs")).unwrap();
    let frac = library.split("OUTPUT_FRAC: i16 = ").nth(1).unwrap().split(';').next().unwrap();
    let unit = f64::exp2(-frac.parse::<f64>().unwrap());
    let line = expected.lines().next().unwrap();
    let board = line.split(' ').skip(1).map(|l| (l.parse::<f64>().unwrap() * unit) as f32);
    // Printed with as many digits as an f32 needs.
    let host = answer["answers"][0]["logits"].as_array().unwrap().iter();
    let host: Vec<f32> = host.map(|l| l.as_f64().unwrap() as f32).collect();
    assert_eq!(board.collect::<Vec<_>>(), host);

    // Once more into the same folder.
    assert_eq!(export(model, &out, &["--target", "cortex-m4"]).code, Some(0));
}

#[test]
fn what_does_not_fit_or_does_not_belong_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |out: &str, more: &[&str], want: &[&str]| {
        let run = export(HE1, &folder.path().join(out), more);
        assert_eq!(run.code, Some(2), "{more:?}: {}", run.out);
        for part in want {
            assert!(run.err.contains(part), "{more:?}: {}", run.err);
        }
    };
    refused("a", &["--target", "cortex-m0"], &["bytes of RAM", "16384", "--ram SIZE"]);
    refused("a", &["--target", "cortex-m4", "--flash", "64K"], &["bytes of flash", "65536"]);
    refused("a", &["--target", "cortex-m9"], &["cortex-m4", "riscv32"]);
    refused("a", &["--target", "cortex-m4", "--ram", "0"], &["512K"]);
    refused("a", &["--target", "cortex-m4", "--ram", "5G"], &["512K"]);
    let nowhere = ["--target", "cortex-m4", "--checkout", "nowhere"];
    refused("a", &nowhere, &["nowhere", "no checkout"]);
    assert!(!folder.path().join("a").exists());
    std::fs::create_dir(folder.path().join("b")).unwrap();
    std::fs::write(folder.path().join("b/letter.txt"), "mine").unwrap();
    refused("b", &["--target", "cortex-m4"], &["no earlier export"]);
}
