//! `config.json`: parsing, and writing domains into whatever parses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_model::config::{Config, Domains, depth, with_domains};

fuzz_target!(|bytes: &[u8]| {
    let domains = Domains::from([("scores".to_owned(), (-1.0, 1.0))]);
    if Config::parse(bytes, None).is_ok() {
        let written = with_domains(bytes, &domains, &[], depth);
        let config = written.and_then(|bytes| Config::parse(&bytes, None));
        assert_eq!(config.expect("what parses can be written").domains, domains);
    }
    _ = Config::parse(br#"{"model_type": "vit", "image_size": 4, "patch_size": 2,
        "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 4}"#, Some(bytes));
});
