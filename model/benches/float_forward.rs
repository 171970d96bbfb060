//! The float forward pass on one thread; `pytorch_peer.py` runs it beside PyTorch.
//!
//! With a model folder as argument it prints the logits of a fixed image, for the comparison of
//! results, and then one line a batch size: `batch <n> seconds <median>`. Without one it uses
//! the shape of the shipped vision transformer with random weights.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use undertone_model::config::Config;
use undertone_model::float::FastEncoder;
use undertone_model::input::EncoderInput;
use undertone_model::weights::EncoderWeights;

const CONFIG: &[u8] = br#"{
    "model_type": "vit", "image_size": 28, "patch_size": 4, "num_channels": 1,
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 128, "layer_norm_eps": 1e-6,
    "id2label": {"0":"0","1":"1","2":"2","3":"3","4":"4","5":"5","6":"6","7":"7","8":"8","9":"9"},
    "undertone": {"version": 1, "class_token": false}
}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo passes `--bench` to every benchmark.
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let (config, weights) = match folder.as_deref().map(Path::new) {
        Some(folder) => {
            let config = Config::load(folder)?;
            let weights = EncoderWeights::load(folder, &config)?;
            (config, weights)
        }
        None => {
            let config = Config::parse(CONFIG, None)?;
            let weights = EncoderWeights::random(&config, 1);
            (config, weights)
        }
    };
    let encoder = FastEncoder::new(&config, &weights);
    let image: Vec<f32> = (0..784).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let logits = encoder.forward(&[EncoderInput::Image(&image)])?;
    println!("logits {:?}", logits.data);
    for batch in [1, 64] {
        let inputs = vec![EncoderInput::Image(&image); batch];
        let mut times = Vec::new();
        let begin = Instant::now();
        while begin.elapsed().as_secs_f64() < 1.0 {
            let start = Instant::now();
            black_box(encoder.forward(black_box(&inputs))?);
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        println!("batch {batch} seconds {:.9}", times[times.len() / 2]);
    }
    Ok(())
}
