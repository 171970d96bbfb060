//! `certificates`, `serve` and `query`, two processes that talk over TLS.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{root, success, undertone};

struct Serving {
    process: Child,
    address: String,
}

impl Serving {
    /// A small head.
    fn start(folder: &Path) -> Self {
        let shape = ["--tokens", "4", "--features", "4", "--exponent", "2"];
        let rest = ["--row-sums", "0.05", "4", "--tolerance", "1e-5"];
        Self::with(folder, &[&shape[..], &rest, &["--parameters", "test-n12-deep"]].concat())
    }

    fn with(folder: &Path, job: &[&str]) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        let mut process = Command::new(env!("CARGO_BIN_EXE_undertone"))
            .args(["serve", "--json", "--address", "127.0.0.1:0"])
            .args(job)
            .args(["--certificates", &at("certificates/server"), "--keys", &at("keys")])
            .current_dir(root())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        Self { process, address: said["address"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_client_queries_a_server_that_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    success(&["certificates", "--out", &at("certificates"), "--client", "alice"]);
    let again = undertone(&["certificates", "--out", &at("certificates")]);
    assert_eq!(again.code, Some(2), "certificates are not overwritten");
    let rows = "[[0.5,-0.25,1,0.75],[-0.5,1,0.25,-1],[1,0.5,-0.75,0.5],[0.25,-1,0.5,1]]";
    let input = format!("{{\"q\":{rows},\"k\":{rows},\"v\":{rows}}}");
    std::fs::write(at("input.json"), &input).unwrap();
    std::fs::write(at("short.json"), input.replacen("[0.5,-0.25,1,0.75],", "", 1)).unwrap();
    std::fs::write(at("large.json"), input.replacen("0.75", "75", 2)).unwrap();
    let query = |server: &str, input: &str, more: &[&str]| {
        let (certificates, secret, input) = (at("certificates/alice"), at("secret"), at(input));
        let mut arguments = vec!["query", "--json", "--certificates", &certificates];
        arguments.extend(["--secret", &secret, "--input", &input, "--server", server]);
        arguments.extend(more);
        undertone(&arguments)
    };

    for registered in [true, false] {
        let server = Serving::start(folder.path());
        let run = query(&server.address, "input.json", &["--insecure"]);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
        let answer: Value = serde_json::from_str(&run.out).unwrap();
        // The second server finds the keys that the first was given.
        assert_eq!(answer["registered"], registered);
        assert!(answer["worst_error"].as_f64().unwrap() < 1e-3, "{answer}");
        assert_eq!(answer["output"].as_array().unwrap().len(), 4);
    }

    let server = Serving::start(folder.path());
    for (input, more, said) in [
        ("input.json", &[][..], "claims no security"),
        ("short.json", &["--insecure"], "takes 4 rows of 4 numbers"),
        ("large.json", &["--insecure"], "calibrated range"),
        ("missing.json", &["--insecure"], "missing.json"),
    ] {
        let run = query(&server.address, input, more);
        assert_eq!(run.code, Some(2), "{input}");
        assert!(run.err.contains(said), "{}", run.err);
    }
    let nobody = query("127.0.0.1:1", "input.json", &["--insecure"]);
    assert_eq!(nobody.code, Some(2));
    let mut secret = std::fs::read(at("secret")).unwrap();
    secret[80] ^= 1;
    std::fs::write(at("secret"), secret).unwrap();
    let damaged = query(&server.address, "input.json", &["--insecure"]);
    assert!(damaged.err.contains("corrupted"), "{}", damaged.err);
}

#[test]
fn an_image_is_classified_by_a_server_that_cannot_see_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    success(&["certificates", "--out", &at("certificates"), "--client", "alice"]);
    let model = "models/vit-fmnist-he1";
    let server = Serving::with(folder.path(), &["--model", model]);
    let (certificates, secret) = (at("certificates/alice"), at("secret"));
    let asked = ["query", "--json", "--certificates", &certificates, "--secret", &secret];
    let image = "models/images/0000-ankle-boot.png";
    let query =
        |input: &[&str]| undertone(&[&asked[..], &["--server", &server.address], input].concat());
    let run = query(&[image]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    let found: Value = serde_json::from_str(&run.out).unwrap();
    let float = success(&["infer", "--json", "--model", model, image]);
    let float: Value = serde_json::from_str(&float).unwrap();
    let (found, float) = (&found["answers"][0], &float["answers"][0]);
    assert_eq!(found["label"], "Ankle boot");
    for (a, b) in
        found["logits"].as_array().unwrap().iter().zip(float["logits"].as_array().unwrap())
    {
        let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
        assert!((a - b).abs() < 0.2, "{found} {float}");
    }
    // Asked for what the server does not do, or not given what it needs.
    std::fs::write(at("input.json"), r#"{"q":[[1.0]],"k":[[1.0]],"v":[[1.0]]}"#).unwrap();
    assert!(
        query(&["--input", &at("input.json")]).err.contains("the server's job is a classifier")
    );
    assert_eq!(query(&[]).code, Some(2));
}
