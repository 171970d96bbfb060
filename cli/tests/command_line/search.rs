//! `price` and `search`: figures equal the plans', and requests that cannot be met are named.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bad_inputs::refused;
use crate::{success, undertone};

const RATES: &str = "1e-8,2e-10,1e-8,2e-4";

fn parsed(arguments: &[&str]) -> Value {
    serde_json::from_str(&success(arguments)).unwrap()
}

fn price(model: &str, cost: &str, more: &[&str]) -> Value {
    let folder = format!("models/{model}");
    let arguments = ["price", "--model", &folder, "--cost", cost, "--json"];
    parsed(&[&arguments, more].concat())
}

#[test]
fn prices_are_the_figures_of_plans() {
    let plan = parsed(&[
        "plan",
        "--model",
        "models/vit-fmnist",
        "--world",
        "mpc",
        "--network",
        "wan",
        "--rates",
        RATES,
        "--json",
    ]);
    let online = &plan["online"];
    let figure = |cost, more| price("vit-fmnist", cost, more)["value"].as_f64();
    assert_eq!(figure("mpc-exchanges", &[]), online["depth"].as_f64());
    assert_eq!(figure("mpc-bytes", &[]), online["sent_bytes"]["client"].as_f64());
    assert_eq!(figure("mpc-wan", &["--rates", RATES]), online["latency_seconds"][0].as_f64());
    let own = figure("mpc", &["--network", "40,352", "--rates", RATES]);
    assert_eq!(own, online["latency_seconds"][0].as_f64());
    assert!(figure("mpc-lan", &["--rates", RATES]) < own);
    let measured = price("vit-fmnist", "mpc-wan", &[]);
    let again = price("vit-fmnist", "mpc-wan", &["--rates", measured["rates"].as_str().unwrap()]);
    assert_eq!(measured["value"], again["value"]);

    let local =
        parsed(&["plan", "--model", "models/vit-fmnist", "--target", "cortex-m4", "--json"]);
    assert_eq!(figure("operations", &[]), local["worlds"][1]["operations"].as_f64());
    assert_eq!(figure("energy", &[]), local["worlds"][0]["energy_pj"].as_f64());
    let instructions = &local["target"]["estimated_instructions"];
    assert_eq!(figure("mcu-instructions", &[]), instructions.as_f64());
    let fpga =
        parsed(&["simulate", "--model", "models/vit-fmnist", "--arch", "small-edge", "--json"]);
    let cycles = figure("fpga-cycles", &["--arch", "small-edge"]);
    assert_eq!(cycles, fpga["latency_cycles"].as_f64());
    let binary = price("one-bit/vit-fmnist-bivit-full", "energy", &[]);
    assert!(binary["value"].as_f64() < figure("energy", &[]) && binary["unit"] == "pj");
    let ckks = parsed(&["plan", "--model", "models/vit-fmnist-he1", "--world", "ckks", "--json"]);
    let levels = price("vit-fmnist-he1", "he-levels", &[]);
    assert_eq!(levels["unit"], "count");
    assert_eq!(levels["value"].as_f64(), ckks["levels"].as_f64());
    let text = success(&["price", "--model", "models/vit-fmnist", "--cost", "mpc-bytes"]);
    assert!(text.trim().ends_with(" kB") || text.trim().ends_with(" MB"), "{text}");
}

#[test]
fn what_has_no_price_is_named() {
    let of = |cost: &'static str| ["price", "--model", "models/vit-fmnist", "--cost", cost];
    refused(&of("mpc"), &["--cost mpc needs --network"]);
    refused(&[&of("mpc-wan")[..], &["--network", "lan"]].concat(), &["belongs to --cost mpc"]);
    let one_bit = ["price", "--model", "models/one-bit/recall-bivit", "--cost"];
    refused(&of("he-levels"), &["encrypted"]);
    refused(&[&one_bit[..], &["mpc-bytes"]].concat(), &["mpc-bytes", "one-bit attention"]);
    refused(&[&one_bit[..], &["mcu-instructions"]].concat(), &["one-bit attention"]);
    let run = undertone(&[&of("mpc-wan")[..], &["--rates", "1,2,3"]].concat());
    assert!(run.code == Some(2) && run.err.contains("four numbers"), "{}", run.err);
}

/// A program in place of Python: it keeps its arguments, answers with a file or fails.
struct Stand(TempDir);

impl Stand {
    fn new(script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("python");
        std::fs::write(
            &path,
            format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$0.said\"\n{script}\n"),
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// `search` on the shipped recall model with this stand-in.
    fn search(&self, more: &[&str]) -> Vec<String> {
        let fixed = ["search", "--model", "models/recall-softmax", "--out", "found", "--python"];
        let all = fixed.iter().map(ToString::to_string).chain([self.path("python")]);
        all.chain(more.iter().map(ToString::to_string)).collect()
    }
}

fn strings(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[test]
fn a_request_reaches_undertone_train_and_its_front_is_shown() {
    let model = |name: &str, cost: f64, accuracy: f64, dominated: bool| {
        json!({"name": name, "kinds": "srrs", "cost": cost, "accuracy_percent": accuracy,
               "dominated": dominated, "assignment": [[0, 1, 1, 0]]})
    };
    let front = json!({"plot": "runs/front.svg", "models": [
        model("recall-softmax-mu0.5", 0.912_34, 98.5, false),
        model("recall-softmax-mu1", 1.25, 98.0, true),
    ]});
    let stand = Stand::new(&format!("echo progress >&2\ncat <<'END'\n{front}\nEND"));
    let request = [
        "--cost",
        "mpc-wan",
        "--budget",
        "900ms, 1.5s",
        "--mu",
        "0.5",
        "--kinds",
        "scaling,relu",
        "--rates",
        RATES,
        "--seed",
        "3",
        "--",
        "--weight",
        "0.1",
    ];
    let text = success(&strings(&stand.search(&request)));
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[1].contains("912.3 ms") && rows[1].trim_end().ends_with("front"), "{text}");
    assert!(rows[2].contains("1.250 s") && rows[2].trim_end().ends_with("dominated"), "{text}");
    let said = std::fs::read_to_string(stand.path("python.said")).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[..4], ["-m", "undertone_train.cli", "search", "recall-softmax"]);
    for pair in [
        ["--teacher", "models/recall-softmax"],
        ["--cost", "mpc-wan"],
        ["--budget", "0.9,1.5"],
        ["--mu", "0.5"],
        ["--kinds", "scaling,relu"],
        ["--seed", "3"],
        ["--models", "found"],
        ["--weight", "0.1"],
    ] {
        assert!(said.windows(2).any(|w| w == pair), "{pair:?} in {said:?}");
    }
    // What undertone-train passes back prices with the same speeds.
    let rates = said.iter().find_map(|w| w.strip_prefix("--price=--rates=")).unwrap();
    let again = price("recall-softmax", "mpc-wan", &["--rates", rates]);
    assert_eq!(again["value"], price("recall-softmax", "mpc-wan", &["--rates", RATES])["value"]);
    let json = stand.search(&["--cost", "mpc-bytes", "--mu", "1", "--json"]);
    let answer: Value = serde_json::from_str(&success(&strings(&json))).unwrap();
    assert_eq!(answer, front);
}

#[test]
fn requests_that_cannot_be_met_are_named() {
    let stand =
        Stand::new("echo 'error: budget 0.1 cannot be met: the cheapest is 0.9' >&2; exit 2");
    let refuse = |more: &[&str], words: &[&str]| refused(&strings(&stand.search(more)), words);
    refuse(&["--cost", "mpc-wan", "--budget", "0.1s"], &["budget 0.1 cannot be met"]);
    refuse(&["--cost", "mpc-wan", "--budget", "10kB"], &["--budget", "10kB", "10s or 250ms"]);
    refuse(&["--cost", "energy", "--budget=-1J"], &["above zero"]);
    refuse(&["--cost", "energy", "--budget", "1xJ"], &["30uJ"]);
    refuse(&["--cost", "mpc-wan", "--mu", "1.5"], &["--mu 1.5", "from 0 to 1"]);
    refuse(&["--cost", "mpc", "--mu", "1"], &["needs --network"]);
    let folder = ["search", "--out", "found", "--cost", "energy", "--mu", "1", "--model"];
    refused(&[&folder[..], &["models/absent"]].concat(), &["models/absent"]);
    let fails = Stand::new("echo \"No module named 'undertone_train'\" >&2; exit 1");
    let all = fails.search(&["--cost", "energy", "--mu", "1"]);
    refused(&strings(&all), &["has no undertone-train", "pip install -e train", "--python"]);
    let absent = [&folder[..], &["models/recall-softmax", "--python", "no-such-python"]].concat();
    refused(&absent, &["no-such-python is not there", "pip install -e train"]);
    let broken = Stand::new("echo Traceback >&2; exit 1");
    let all = broken.search(&["--cost", "energy", "--mu", "1"]);
    refused(&strings(&all), &["undertone-train ended with", "Traceback"]);
}

#[test]
fn a_plan_of_another_model_is_refused() {
    let stand = Stand::new("echo '{\"plot\": \"\", \"models\": []}'");
    let plan = |model: &str| {
        let folder = format!("models/{model}");
        let text =
            success(&["plan", "--model", &folder, "--world", "mpc", "--rates", RATES, "--json"]);
        std::fs::write(stand.path(model), text).unwrap();
        stand.path(model)
    };
    let own = plan("recall-softmax");
    success(&strings(&stand.search(&["--cost", "mpc-wan", "--mu", "1", "--plan", &own])));
    let said = std::fs::read_to_string(stand.path("python.said")).unwrap();
    assert!(said.contains("--price=--rates=1e-8,2e-10,1e-8,2e-4"), "{said}");
    let other = plan("recall-hetero");
    let refuse = |cost: &str, plan: &str, words: &[&str]| {
        refused(&strings(&stand.search(&["--cost", cost, "--mu", "1", "--plan", plan])), words);
    };
    refuse("mpc-wan", &other, &["a plan of another model than models/recall-softmax"]);
    refuse("energy", &own, &["--plan tells the speed"]);
    std::fs::write(stand.path("broken"), "{}").unwrap();
    refuse("mpc-wan", &stand.path("broken"), &["plan --world mpc --json"]);
}
