//! Encrypted inference on files, from keys to the class, at 128 bits.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::bad_inputs::refused;
use crate::success;

const MODEL: &str = "models/vit-fmnist-he1";
const BOOT: &str = "models/images/0000-ankle-boot.png";

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn an_image_goes_up_encrypted_and_its_class_comes_down() {
    let folder = TempDir::new().unwrap();
    let of = |name| path(folder.path(), name);
    let out = of("");
    let keys = success(&["keygen", "--model", MODEL, "--out", &out, "--json"]);
    let keys: Value = serde_json::from_str(&keys).unwrap();
    assert_eq!(keys["security"], "128 bits");
    let (secret, evaluation) = (of("secret.key"), of("evaluation.keys"));
    let size = std::fs::metadata(&evaluation).unwrap().len();
    assert_eq!(keys["evaluation_keys_bytes"], size);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    }
    refused(&["keygen", "--model", MODEL, "--out", &out], &["secret.key", "never replaced"]);

    success(&["encrypt", "--model", MODEL, "--secret", &secret, "--out", &out, BOOT]);
    let image = of("0000-ankle-boot.encrypted");
    // The server holds no secret: it is given none.
    success(&["infer-encrypted", "--model", MODEL, "--keys", &evaluation, "--out", &out, &image]);
    let answer = of("0000-ankle-boot.answer");
    let classes = success(&["decrypt", "--model", MODEL, "--secret", &secret, "--json", &answer]);
    let classes: Value = serde_json::from_str(&classes).unwrap();
    assert_eq!(classes["answers"][0]["label"], "Ankle boot");
    assert_eq!(classes["answers"][0]["logits"].as_array().unwrap().len(), 10);

    // Files that are something else, damaged or cut short.
    let infer = |keys: &str, image: &str, words: &[&str]| {
        refused(
            &["infer-encrypted", "--model", MODEL, "--keys", keys, "--out", &out, image],
            words,
        );
    };
    infer(&secret, &image, &["secret.key", "kind"]);
    infer(&image, &image, &["kind"]);
    let bytes = std::fs::read(&image).unwrap();
    let damaged = of("damaged.encrypted");
    let mut flipped = bytes.clone();
    flipped[1000] ^= 1;
    std::fs::write(&damaged, &flipped).unwrap();
    infer(&evaluation, &damaged, &["damaged.encrypted", "checksum"]);
    std::fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    infer(&evaluation, &damaged, &["damaged.encrypted", "truncated"]);
    std::fs::write(&damaged, [&bytes[..], &[0]].concat()).unwrap();
    infer(&evaluation, &damaged, &["damaged.encrypted", "bytes after"]);
    refused(
        &["decrypt", "--model", MODEL, "--secret", &secret, &image],
        &["0000-ankle-boot.encrypted", "kind"],
    );
    // Another parameter set, by its hash.
    refused(
        &["decrypt", "--model", MODEL, "--params", "n16-levels27", "--secret", &secret, &answer],
        &["secret.key", "parameter"],
    );
}

#[test]
fn models_and_sets_that_do_not_fit_are_refused() {
    let folder = TempDir::new().unwrap();
    let out = path(folder.path(), "keys");
    refused(&["keygen", "--model", "models/vit-fmnist", "--out", &out], &["encrypted inference"]);
    refused(
        &["keygen", "--model", MODEL, "--out", &out, "--params", "n99"],
        &["n99", "n15-levels14"],
    );
    refused(&["keygen", "--model", MODEL, "--out", &out, "--params", "n15-levels11"], &["levels"]);
    assert!(!Path::new(&out).exists());
}
