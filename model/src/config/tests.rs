#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn vit() -> Value {
    json!({
        "model_type": "vit", "image_size": 28, "patch_size": 4, "num_channels": 1,
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
        "id2label": {"0": "a", "1": "b"}, "torch_dtype": "float32",
        "undertone": {
            "version": 1, "class_token": false, "pooling": "mean",
            "pixel_mean": [0.286], "pixel_std": [0.353],
            "layers": [
                {"heads": [{"kind": "softmax"}, {"kind": "power", "p": 4, "eps": 0.001},
                           {"kind": "relu_softmax"}, {"kind": "two_quad", "c": 5.0}],
                 "norm": "affine", "mlp": "fused", "activation": "quadratic", "domains": {"x": [-1.5, 2.0]}},
                {"heads": [{"kind": "scaling"}, {"kind": "relu_squared"}, {"kind": "uniform"},
                           {"kind": "power", "p": 2, "mean": true}]}
            ]
        }
    })
}

fn bert() -> Value {
    json!({
        "model_type": "bert", "vocab_size": 72, "max_position_embeddings": 9,
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 64,
        "undertone": {"version": 1, "pooling": "first",
                      "task": {"name": "recall", "keys": 8, "values": 8, "pairs": 6}}
    })
}

fn parse(value: &Value) -> Result<Config, ConfigError> {
    Config::parse(&serde_json::to_vec(value).unwrap(), None)
}

/// The message of the refusal after setting the JSON pointer's target.
fn refusal(mut value: Value, pointer: &str, to: Value) -> String {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match value.pointer_mut(parent).unwrap() {
        Value::Object(map) => _ = map.insert(key.to_owned(), to),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = to,
        _ => unreachable!("the pointers of these tests lead to containers"),
    }
    parse(&value).unwrap_err().to_string()
}

#[test]
fn reads_every_field_of_the_contract() {
    let config = parse(&vit()).unwrap();
    let Input::Vit(input) = &config.input else { panic!("a vit was given") };
    assert_eq!((input.patches(), input.patch_len(), config.tokens()), (49, 16, 49));
    assert_eq!((config.head_width(), config.depth()), (16, 2));
    assert_eq!(input.pixel_mean, [0.286]);
    assert_eq!(config.norm_position, NormPosition::Pre);
    assert_eq!(config.pooling, Pooling::Mean);
    let [first, second] = &config.layers[..] else { panic!("two layers were given") };
    assert_eq!(first.heads[1], HeadKind::Power { p: 4, eps: 0.001, mean: false });
    assert_eq!(first.heads[2], HeadKind::ReluSoftmax { eps: 1e-5 });
    assert_eq!(first.heads[3], HeadKind::TwoQuad { c: 5.0, eps: 1e-5 });
    assert_eq!((first.norm, first.activation), (NormKind::Affine, Activation::Quadratic));
    assert_eq!((first.mlp, second.mlp), (Mlp::Fused, Mlp::Full));
    assert_eq!(first.domains["x"], (-1.5, 2.0));
    assert_eq!(second.heads[3], HeadKind::Power { p: 2, eps: 1e-3, mean: true });
    assert_eq!((second.norm, second.activation), (NormKind::LayerNorm, Activation::Gelu));
    assert_eq!(config.labels.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));

    let config = parse(&bert()).unwrap();
    assert_eq!(config.task, Some(Task::Recall { keys: 8, values: 8, pairs: 6 }));
    assert_eq!(config.norm_position, NormPosition::Post);
    assert_eq!(config.layers[0].heads, [HeadKind::Softmax; 2]);
    assert!(config.has_embedding_norm() && !config.has_final_norm());
}

#[test]
fn preprocessor_gives_way_to_the_block() {
    let mut value = vit();
    let preprocessor = br#"{"image_mean": [0.1], "image_std": [0.2], "size": 28}"#;
    let read = |value: &Value| {
        let config = Config::parse(&serde_json::to_vec(value).unwrap(), Some(preprocessor));
        config.unwrap().vit().unwrap().pixel_mean[0]
    };
    assert_eq!(read(&value), 0.286);
    value["undertone"].as_object_mut().unwrap().remove("pixel_mean");
    assert_eq!(read(&value), 0.1);
}

#[test]
fn refuses_what_contradicts_itself_and_says_why() {
    let head = "/undertone/layers/0/heads/1";
    let cases: &[(Value, &str, Value, &str)] = &[
        (vit(), "/num_attention_heads", json!(5), "num_attention_heads = 5 does not divide"),
        (vit(), "/patch_size", json!(5), "patch_size = 5 does not divide image_size = 28"),
        (vit(), "/model_type", json!("gpt2"), "`gpt2` is not supported"),
        (vit(), "/hidden_size", json!(0), "`hidden_size` is 0"),
        (vit(), "/hidden_size", json!(1u64 << 40), "`hidden_size` is 1099511627776"),
        (vit(), "/hidden_size", json!(-4), "invalid value"),
        (vit(), "/num_hidden_layers", json!(100_000), "`num_hidden_layers` is 100000"),
        (vit(), "/image_size", Value::Null, "`image_size` is missing"),
        (vit(), "/num_channels", json!(4), "num_channels = 4"),
        (vit(), "/hidden_act", json!("gelu_new"), "activation `gelu_new`"),
        (vit(), "/layer_norm_eps", json!(-1.0), "`layer_norm_eps` is -1"),
        (vit(), "/id2label", json!({"0": "a", "2": "b"}), "none for class 1"),
        (vit(), "/undertone/version", json!(2), "version is 2"),
        (vit(), "/undertone/colour", json!(1), "unknown field `colour`"),
        (vit(), "/undertone/layers/0/colour", json!(1), "unknown field `colour`"),
        (vit(), "/undertone/layers", json!([{}]), "`undertone.layers` has 1 entries; expected 2"),
        (vit(), "/undertone/layers/0/heads", json!([{"kind": "softmax"}]), "has 1 entries"),
        (vit(), "/undertone/layers/0/domains", json!({"s": [2, 1]}), "domain `s` is [2, 1]"),
        (vit(), "/undertone/domains", json!({"e": [1, 0]}), "domain `e` is [1, 0]"),
        (vit(), "/undertone/pixel_std", json!([0.0]), "`pixel_std` is 0"),
        (vit(), "/undertone/pixel_mean", json!([0.1, 0.2]), "`pixel_mean` has 2 entries"),
        (vit(), head, json!({"kind": "power", "p": 3}), "power p = 3; expected an even p"),
        (vit(), head, json!({"kind": "power", "p": 0}), "power p = 0"),
        (vit(), head, json!({"kind": "power", "p": 66}), "power p = 66"),
        (vit(), head, json!({"kind": "power"}), "needs the parameter `p`"),
        (vit(), head, json!({"kind": "power", "p": 2, "eps": -1}), "has eps = -1"),
        (vit(), head, json!({"kind": "softmax", "p": 2}), "takes no parameter `p`"),
        (vit(), head, json!({"kind": "power", "p": 2, "colour": 2}), "unknown field `colour`"),
        (vit(), head, json!({"kind": "cosine"}), "layer 0, head 1: unknown attention kind"),
        (vit(), "/undertone/task", bert()["undertone"]["task"].clone(), "expected a bert"),
        (bert(), "/vocab_size", json!(71), "needs vocab_size = 72, found 71"),
        (bert(), "/max_position_embeddings", json!(6), "needs max_position_embeddings = 7"),
        (bert(), "/undertone/task/pairs", json!(9), "`undertone.task.pairs` is 9"),
        (bert(), "/undertone/task/colour", json!(9), "unknown field `colour`"),
        (bert(), "/undertone/class_token", json!(true), "class_token"),
        (bert(), "/position_embedding_type", json!("relative_key"), "relative_key"),
        (bert(), "/is_decoder", json!(true), "is_decoder"),
    ];
    for (value, pointer, to, wanted) in cases {
        let message = refusal(value.clone(), pointer, to.clone());
        assert!(message.contains(wanted), "{pointer} = {to}: {message}");
    }
}

#[test]
fn domains_are_written_without_touching_the_rest() {
    let before = serde_json::to_vec(&vit()).unwrap();
    let model = Domains::from([("embedding".to_owned(), (-3.0, 3.0))]);
    let layers = vec![Domains::from([("scores".to_owned(), (0.1, 0.3))]); 2];
    let after = with_domains(&before, &model, &layers, depth).unwrap();
    let config = Config::parse(&after, None).unwrap();
    assert_eq!(config.domains, model);
    assert!(config.layers.iter().zip(&layers).all(|(layer, domains)| layer.domains == *domains));

    // Take the domains out again: what is left must be what was there.
    let strip = |bytes: &[u8]| {
        let mut value: Value = serde_json::from_slice(bytes).unwrap();
        value["undertone"].as_object_mut().unwrap().remove("domains");
        for layer in value["undertone"]["layers"].as_array_mut().unwrap() {
            layer.as_object_mut().unwrap().remove("domains");
        }
        serde_json::to_string(&value).unwrap()
    };
    assert_eq!(strip(&before), strip(&after));

    let wrong = with_domains(&before, &model, &layers[..1], depth).unwrap_err();
    assert!(matches!(wrong, ConfigError::DomainLayers { found: 1, expected: 2 }));
    let nan = Domains::from([("s".to_owned(), (f64::NAN, 1.0))]);
    assert!(matches!(with_domains(&before, &nan, &[], depth), Err(ConfigError::Domain { .. })));
}

#[test]
fn domains_make_a_block_where_there_is_none() {
    let mut value = bert();
    value.as_object_mut().unwrap().remove("undertone");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, serde_json::to_vec(&value).unwrap()).unwrap();
    let layers = [Domains::from([("scores".to_owned(), (-1.0, 1.0))])];
    update_domains(folder.path(), &Domains::new(), &layers, depth).unwrap();
    assert_eq!(Config::load(folder.path()).unwrap().layers[0].domains, layers[0]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_oversized_file_is_refused_before_it_is_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("config.json")).unwrap();
    file.set_len(limits::CONFIG_BYTES + 1).unwrap();
    let error = Config::load(folder.path()).unwrap_err();
    assert!(matches!(error, ConfigError::Read(limits::ReadError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn never_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        _ = Config::parse(&bytes, Some(&bytes));
    }

    /// Valid JSON with one value replaced reaches far deeper than random bytes do.
    #[test]
    fn never_panics_on_a_mutated_value(
        key in "(image_size|patch_size|hidden_size|num_attention_heads|num_channels|id2label)",
        number in any::<i64>(),
    ) {
        let mut value = vit();
        value[&key] = json!(number);
        _ = parse(&value);
    }
}

#[test]
fn fields_of_others_must_be_json_too() {
    for field in [&b"\"\xff\": 0"[..], b"\"x\": \"\\ud800\"", b"\"x\": 1e999"] {
        let valid = br#"{"model_type": "bert", "vocab_size": 9, "max_position_embeddings": 5,
            "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 4"#;
        let json = [&valid[..], b", ", field, b"}"].concat();
        assert!(matches!(Config::parse(&json, None), Err(ConfigError::Json { .. })), "{field:?}");
        let json = [&valid[..], b"}"].concat();
        assert!(Config::parse(&json, None).is_ok());
    }
}
