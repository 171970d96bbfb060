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

/// The plan of an image is what the run counts (tests of the library); here, what is shown.
#[test]
fn an_image_is_planned_by_layer() {
    let call = ["plan", "--model", MODEL, "--world", "ckks"];
    let json: Value = serde_json::from_str(&success(&[&call[..], &["--json"]].concat())).unwrap();
    let of = |v: &Value, key: &str| v[key].as_u64().unwrap_or_else(|| panic!("{key}: {v}"));
    assert_eq!(
        (&json["world"], &json["parameters"]["security"]),
        (&"ckks".into(), &"128 bits".into())
    );
    let phases = json["phases"].as_array().unwrap();
    let names: Vec<&str> = phases.iter().map(|p| p["phase"].as_str().unwrap()).collect();
    assert_eq!(names, ["input", "layer 0 attention", "layer 0 mlp", "head"]);
    for key in ["levels", "products", "plain_products", "rotations", "key_switches", "transforms"] {
        let sum: u64 = phases.iter().map(|p| of(p, key)).sum();
        assert_eq!(sum, of(&json["total"], key), "{key}");
    }
    // docs/he.md has these numbers.
    let total = ["products", "plain_products", "rotations", "key_switches"];
    assert_eq!(total.map(|key| of(&json["total"], key)), [50, 416, 170, 212]);
    assert_eq!((of(&json, "levels"), of(&json["parameters"], "levels")), (14, 14));
    let bits = json["predicted_error_log2"].as_f64().unwrap();
    assert!((-20.0..-12.0).contains(&bits), "{bits}");
    let seconds = json["total"]["estimated_seconds"].as_f64().unwrap();
    assert!(seconds > 0.1, "{seconds}");

    let text = success(&[&call[..], &["--image", BOOT]].concat());
    for word in ["n15-levels14", "128 bits", "layer 0 attention", "estimate", "one image"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let of = |model, more: &[&str], words: &[&str]| {
        refused(&[&["plan", "--model", model, "--world", "ckks"], more].concat(), words);
    };
    of("models/vit-fmnist", &[], &["encrypted inference", "power"]);
    of("models/recall-power2", &[], &["encrypted inference", "images"]);
    of(MODEL, &["--params", "n15-levels11"], &["levels"]);
    of(MODEL, &["--tokens", "49"], &["--tokens"]);
    refused(&["plan", "--model", MODEL, "--image", BOOT], &["--world ckks"]);
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
