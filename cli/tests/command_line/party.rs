//! `party`: three roles as processes, over real sockets.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{root, success, undertone};

const BOOT: &str = "models/images/0000-ankle-boot.png";

/// A role in the background that ends with the test.
struct Role {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Where it listens.
    address: String,
}

impl Role {
    /// Starts a dealer or server and reads the address that it says first.
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_undertone"))
            .args(["party", "--json", "--timeout", "60"])
            .args(arguments)
            .current_dir(root())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let address = said.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        Self { address: address.to_owned(), child, out }
    }

    /// What it says next.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keys for a shipped model.
fn keys(model: &str) -> (TempDir, impl Fn(&str) -> String) {
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys");
    let model = format!("models/{model}");
    let role = ["party", "--role", "authority", "--model", &model, "--dir"];
    success(&[&role[..], &[keys.to_str().unwrap()]].concat());
    (folder, move |role: &str| keys.join(role).to_str().unwrap().to_owned())
}

#[test]
fn three_processes_agree_with_float_and_with_the_plan() {
    let (_folder, dir) = keys("vit-fmnist-hetero");
    let any = "127.0.0.1:0";
    let role = |name| ["--role", name, "--sessions", "2", "--dealer", any, "--server", any];
    let mut dealer = Role::start(&[&role("dealer")[..], &["--dir", &dir("dealer")]].concat());
    let mut server = Role::start(&[
        "--role",
        "server",
        "--dir",
        &dir("server"),
        "--model",
        "models/vit-fmnist-hetero",
        "--sessions",
        "2",
        "--server",
        any,
        "--dealer",
        &dealer.address,
    ]);
    let ask = |more: &[&str]| -> Value {
        let client = dir("client");
        let call = [
            "party",
            "--json",
            "--role",
            "client",
            "--dir",
            &client,
            "--server",
            &server.address,
            "--dealer",
            &dealer.address,
            "--check",
            "models/vit-fmnist-hetero",
            "--require-agreement",
            "1",
            BOOT,
        ];
        serde_json::from_str(&success(&[&call[..], more].concat())).unwrap()
    };
    let shown = ask(&["models/images/0001-pullover.png"]);
    assert_eq!(shown["answers"][0]["label"], "Ankle boot");
    assert_eq!(shown["answers"][1]["label"], "Pullover");
    assert!(shown["check"]["max_error"].as_f64().unwrap() < 5e-3, "{}", shown["check"]);

    // The class alone.
    let class = ask(&["--argmax"]);
    assert_eq!(class["answers"][0]["label"], "Ankle boot");
    assert!(class["answers"][0].get("logits").is_none());

    // What `plan` says is what client, server and dealer count.
    let plan = |more: &[&str]| -> Value {
        let call = ["plan", "--json", "--model", "models/vit-fmnist-hetero", "--world", "mpc"];
        serde_json::from_str(&success(&[&call[..], more].concat())).unwrap()
    };
    for (counted, planned) in [(&shown, plan(&["--inputs", "2"])), (&class, plan(&["--argmax"]))] {
        let (cost, setup, online) = (&counted["cost"], &planned["setup"], &planned["online"]);
        let sum = |key: &str, side: &str| {
            setup[key][side].as_u64().unwrap() + online[key][side].as_u64().unwrap()
        };
        assert_eq!(cost["as_planned"], true);
        for key in ["sent_bytes", "preprocessing_bytes"] {
            for side in ["client", "server"] {
                assert_eq!(cost[key][side].as_u64().unwrap(), sum(key, side), "{key} {side}");
            }
        }
        let exchanges =
            setup["exchanges"].as_u64().unwrap() + online["exchanges"].as_u64().unwrap();
        assert_eq!(cost["exchanges"].as_u64().unwrap(), exchanges);
        assert_eq!(server.line()["cost"]["sent_bytes"], cost["sent_bytes"]);
        let dealt = dealer.line();
        assert_eq!(dealt["sent_bytes"], cost["preprocessing_bytes"]);
    }
    assert_eq!((dealer.code(), server.code()), (Some(0), Some(0)));
}

#[test]
fn a_killed_client_burns_its_section_and_the_next_run_works() {
    let (folder, dir) = keys("vit-fmnist-he1");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (file("client.prep"), file("server.prep"));
    let deal = [
        "party",
        "--role",
        "dealer",
        "--sessions",
        "2",
        "--dir",
        &dir("dealer"),
        "--files",
        &a,
        &b,
    ];
    success(&deal);
    // Files are never overwritten.
    assert_eq!(undertone(&deal).code, Some(2));
    let server = |more: &[&str]| {
        let base = [
            "--role",
            "server",
            "--dir",
            &dir("server"),
            "--model",
            "models/vit-fmnist-he1",
            "--server",
            "127.0.0.1:0",
            "--sessions",
            "1",
            "--prep",
            &b,
        ];
        Role::start(&[&base[..], more].concat())
    };
    let client = |address: &str, more: &[&str]| {
        let base = ["party", "--role", "client", "--dir", &dir("client"), "--prep", &a, BOOT];
        let mut command = Command::new(env!("CARGO_BIN_EXE_undertone"));
        command.args(base).args(["--server", address]).args(more).current_dir(root());
        command
    };
    // A slow network, so that the run is far from over when the client dies.
    let slow = ["--emulate", "1000,1000"];
    let first = server(&slow);
    let mut dying = client(&first.address, &slow).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !Path::new(&format!("{a}.used")).exists() || !Path::new(&format!("{b}.used")).exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "no section was begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    // SIGKILL.
    dying.kill().unwrap();
    dying.wait().unwrap();
    let died = Instant::now();
    assert_eq!(first.code(), Some(2), "the server notices");
    assert!(died.elapsed() < Duration::from_secs(30), "and does not wait for its timeout");

    let second = server(&[]);
    let out = client(&second.address, &[]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        out.status.success() && text.contains("Ankle boot") && text.contains("as planned"),
        "{text}"
    );
    assert_eq!(second.code(), Some(0));

    // Both sections are used now, also for someone who brings the old journal back.
    std::fs::remove_file(format!("{a}.used")).unwrap();
    let third = server(&[]);
    let out = client(&third.address, &[]).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.contains("was used already"), "{text}");
    assert_eq!((out.status.code(), third.code()), (Some(2), Some(2)));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let (folder, dir) = keys("vit-fmnist-he1");
    let (_other, strange) = keys("vit-fmnist-he1");
    let refused = |arguments: &[&str], words: &[&str]| {
        let run = undertone(arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.out);
        for word in words {
            assert!(run.err.contains(word), "`{word}` is missing in {}", run.err);
        }
    };
    let client = dir("client");
    refused(&["party", "--role", "client", "--dir", &client], &["nothing to do"]);
    refused(&["party", "--role", "server", "--dir", &dir("server")], &["--model"]);
    refused(
        &["party", "--role", "dealer", "--dir", &dir("dealer"), BOOT],
        &["inputs are the client's"],
    );
    let nowhere = folder.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    refused(&["party", "--role", "client", "--dir", nowhere, BOOT], &["config.json"]);
    // Nobody listens.
    let silent = ["--server", "127.0.0.1:9", "--timeout", "1", BOOT];
    refused(
        &[&["party", "--role", "client", "--dir", &client][..], &silent].concat(),
        &["connecting"],
    );
    // A server of another authority, and the dealer's certificate at the server's door.
    let mut server = Role::start(&[
        "--role",
        "server",
        "--dir",
        &dir("server"),
        "--model",
        "models/vit-fmnist-he1",
        "--server",
        "127.0.0.1:0",
        "--sessions",
        "2",
    ]);
    let to = ["--server", &server.address, "--timeout", "3", BOOT];
    refused(
        &[&["party", "--role", "client", "--dir", &strange("client")][..], &to].concat(),
        &["TLS"],
    );
    refused(&[&["party", "--role", "client", "--dir", &dir("dealer")][..], &to].concat(), &[]);
    assert_eq!(server.child.wait().unwrap().code(), Some(2));
    let plan = ["plan", "--model", "models/vit-fmnist", "--network", "wan"];
    refused(&plan, &["--world mpc"]);
}

#[test]
fn shapes_with_random_weights_are_planned() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("vit");
    let out = out.to_str().unwrap();
    let kinds = "relu_softmax,relu_softmax,scaling,scaling";
    success(&["shape", "vit_7_4_32", "--out", out, "--heads", kinds]);
    let plan: Value = serde_json::from_str(&success(&[
        "plan",
        "--json",
        "--model",
        out,
        "--world",
        "mpc",
        "--network",
        "40,352",
    ]))
    .unwrap();
    let online = &plan["online"];
    assert!(online["sent_bytes"]["client"].as_u64().unwrap() < 14_000_000, "{online}");
    // Depth times one-way delay, and bytes: 12 s are wanted, compute included.
    assert!(online["depth"].as_u64().unwrap() <= 300, "{online}");
    let heads = plan["phases"].as_array().unwrap().iter();
    let heads = heads.filter(|p| p["phase"].as_str().unwrap().contains("2 × relu_softmax"));
    assert_eq!(heads.count(), 7);
    let wrong = undertone(&["shape", "vit_7_4_32", "--out", out, "--heads", "softmax,softmax"]);
    assert_eq!(wrong.code, Some(2));
}
