//! Fits EcoFormer hashes to activations and writes them as safetensors.
//!
//! `cargo run --release -p undertone-binary --example fit-hash -- IN.safetensors OUT.safetensors
//! [--tensor activations] [--bits 16] [--anchors 25] [--iterations 100] [--rate 0.0005] [--eigen]
//! [--layer] [--seed 0]`
//!
//! The input tensor is f32, heads × images × tokens × width: what the shared query-key projection of
//! one layer gives. The output holds `anchors` [heads, m, width], `planes` [heads, bits, m], `means`
//! [heads, m] and `sigma` [heads].

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use undertone_binary::fit::{Activations, Keep, Options, Start, fit};

/// Bytes of the largest file that is read.
const MOST_BYTES: u64 = 2 << 30;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut paths = Vec::new();
    let mut name = "activations".to_owned();
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--tensor" => name = value()?.clone(),
            "--bits" => options.bits = value()?.parse()?,
            "--anchors" => options.anchors = value()?.parse()?,
            "--iterations" => options.iterations = value()?.parse()?,
            "--rate" => options.rate = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--layer" => options.keep = Keep::Layer,
            "--eigen" => options.start = Start::Eigen,
            path => paths.push(path.to_owned()),
        }
    }
    let [input, output] = &paths[..] else {
        return Err("usage: fit-hash IN.safetensors OUT.safetensors [options]".into());
    };
    let bytes = std::fs::metadata(input)?.len();
    if bytes > MOST_BYTES {
        return Err(format!("{input}: {bytes} bytes; at most {MOST_BYTES} are read").into());
    }
    let file = std::fs::read(input)?;
    let tensors = SafeTensors::deserialize(&file)?;
    let tensor = tensors.tensor(&name)?;
    let &[heads, images, tokens, dim] = tensor.shape() else {
        return Err(format!(
            "{name}: shape {:?}; wanted heads, images, tokens, width",
            tensor.shape()
        )
        .into());
    };
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("{name}: {:?}; wanted F32", tensor.dtype()).into());
    }
    let values: Vec<f32> = tensor
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let each: Vec<Activations<'_>> = values
        .chunks_exact((images * tokens * dim).max(1))
        .map(|values| Activations { values, tokens, dim })
        .collect();
    let (mut anchors, mut planes, mut means, mut sigma) = (vec![], vec![], vec![], vec![]);
    for (head, fitted) in fit(&each, &options)?.iter().enumerate() {
        let kept = fitted.bits.iter().filter(|b| b.kept).count();
        let loss = |f: fn(&undertone_binary::fit::Bit) -> f64| {
            fitted.bits.iter().map(f).sum::<f64>() / fitted.bits.len() as f64
        };
        eprintln!(
            "head {head}: {kept} of {} planes improved, mean loss {:.4} -> {:.4}, σ {:.4}",
            options.bits,
            loss(|b| b.before),
            loss(|b| b.after.min(b.before)),
            fitted.sigma,
        );
        let hash = fitted.dynamic()?;
        anchors.extend_from_slice(hash.anchors());
        planes.extend_from_slice(hash.planes());
        means.extend_from_slice(hash.means());
        sigma.push(fitted.sigma as f32);
    }
    let bytes = |x: &[f32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let data = [bytes(&anchors), bytes(&planes), bytes(&means), bytes(&sigma)];
    let (m, b) = (options.anchors, options.bits);
    let shapes = [vec![heads, m, dim], vec![heads, b, m], vec![heads, m], vec![heads]];
    let mut out = Vec::new();
    for ((name, shape), data) in
        ["anchors", "planes", "means", "sigma"].into_iter().zip(shapes).zip(&data)
    {
        out.push((name, TensorView::new(Dtype::F32, shape, data)?));
    }
    safetensors::serialize_to_file(out, None, std::path::Path::new(output))?;
    Ok(())
}
