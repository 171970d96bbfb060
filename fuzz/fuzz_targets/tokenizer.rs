//! `tokenizer.json`; what parses must tokenise or refuse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_model::config::Config;
use undertone_model::text::TextEncoder;

fuzz_target!(|bytes: &[u8]| {
    let config = Config::parse(
        br#"{"model_type": "bert", "vocab_size": 9, "max_position_embeddings": 5,
        "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 4}"#,
        None,
    )
    .expect("this is valid");
    if let Ok(encoder) = TextEncoder::parse(bytes, &config) {
        _ = encoder.encode("a man is eating");
    }
});
