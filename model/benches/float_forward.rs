//! The float forward pass on one thread; `pytorch_peer.py` runs it beside PyTorch.
//!
//! With a model folder as argument it prints the logits of a fixed image, for the comparison of
//! results, and then lines `batch <n> seconds <median>`. Without one it uses the shape of the
//! shipped vision transformer with random weights.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use undertone_core::Mask;
use undertone_model::Model;
use undertone_model::config::Config;
use undertone_model::domains::Calibration;
use undertone_model::float::{Float, Fused};
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
    let calibration = Calibration::from_config(&config)?;
    let model = Model { config, weights, calibration };
    let mut world = Float::new();
    let encoder = model.prepare::<_, Fused>(&mut world)?;
    let image: Vec<f32> = (0..784).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let rows = model.rows(&EncoderInput::Image(&image))?;
    let mut run = |batch: usize, rows: &[f32]| {
        let shape = model.input_shape(batch, model.tokens());
        model.run::<_, Fused>(&mut world, &encoder, shape, rows, &Mask::NONE)
    };
    println!("logits {:?}", run(1, &rows)?);
    for batch in [1, 64] {
        let rows = rows.repeat(batch);
        let seconds = median(|| run(batch, black_box(&rows)).map(drop))?;
        println!("batch {batch} seconds {seconds:.9}");
    }
    Ok(())
}

/// The median time of a call, from a second of calls.
fn median<E>(mut call: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 1.0 {
        let start = Instant::now();
        black_box(call()?);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
