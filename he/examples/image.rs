//! Whole images classified under encryption, with the evidence.
//!
//! `cargo run --release -p undertone-he --example image -- MODEL DATA [ENCRYPTED [CLEAR]]`
//!
//! MODEL is a model folder, DATA a folder with the files of its data set. The first CLEAR test
//! images (all, if not given) go through the exact polynomial circuit in plain `f64`; the first
//! ENCRYPTED (twenty) are encrypted, classified on ciphertexts and decrypted. Errors are the
//! greatest over all logits: of the polynomial circuit against a true division, and of the
//! scheme against that circuit. Threads as `RAYON_NUM_THREADS` says.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use rayon::prelude::*;
use undertone_he::Classifier;
use undertone_he::ckks::{Artefact, Evaluator, SecretKey};
use undertone_model::Model;
use undertone_model::dataset::{Dataset, Split};
use undertone_model::image::Resize;
use undertone_model::input::EncoderInput;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, data, rest @ ..] = &args[..] else {
        return Err("usage: image MODEL DATA [ENCRYPTED [CLEAR]]".into());
    };
    let number = |at: usize, default| rest.get(at).map_or(Ok(default), |x| x.parse());
    let (encrypted, clear): (usize, usize) = (number(0, 20)?, number(1, usize::MAX)?);

    let model = Model::load(Path::new(folder))?;
    let vit = model.config.vit().ok_or("the model does not read images")?.clone();
    let set = Dataset::open(Path::new(data), Split::Test, model.config.labels.as_deref())?;
    let mut examples = Vec::new();
    for item in set.iter().take(clear.max(encrypted)) {
        let (picture, label) = item?;
        let picture = picture.to_input(&vit, Resize::Refuse)?;
        examples.push((model.rows(&EncoderInput::Image(&picture))?, label));
    }
    let classifier = Classifier::new(model)?;
    let (ctx, plan) = (classifier.context().clone(), classifier.plan());

    row("parameters", &format!("{}, logQP {:.0}", ctx.params().name, ctx.chain().log_qp));
    row("packing", &format!("{:?}", classifier.packing()));
    row("levels", &plan.levels.to_string());
    row("planned", &format!("{:?}", plan.counts));

    if clear > 0 {
        let checked = &examples[..clear.min(examples.len())];
        let results = checked
            .par_iter()
            .map(|(rows, label)| {
                let (exact, circuit) = (classifier.exact(rows)?, classifier.polynomial(rows)?);
                let right = |x: &[f64]| usize::from(argmax(x) == *label);
                let same = usize::from(argmax(&exact) == argmax(&circuit));
                Ok((right(&exact), right(&circuit), same, worst(&exact, &circuit)))
            })
            .collect::<Result<Vec<_>, undertone_he::ClassifierError>>()?;
        let percent = |hits: usize| format!("{:.2} %", 100.0 * hits as f64 / results.len() as f64);
        let images = format!("of {} test images", results.len());
        row(
            "accuracy, true division",
            &format!("{} {images}", percent(results.iter().map(|r| r.0).sum())),
        );
        row(
            "accuracy, polynomial circuit",
            &format!("{} {images}", percent(results.iter().map(|r| r.1).sum())),
        );
        row("their classes agree", &percent(results.iter().map(|r| r.2).sum()));
        let mut errors: Vec<f64> = results.iter().map(|r| r.3).collect();
        errors.sort_by(f64::total_cmp);
        let at = |q: f64| errors[((errors.len() - 1) as f64 * q) as usize];
        let outside = errors.iter().filter(|e| **e > 1.0).count();
        row("images with a row sum beyond the domain", &outside.to_string());
        row(
            "approximation error",
            &format!("median {:.3}, 99 % {:.3}, greatest {:.3}", at(0.5), at(0.99), at(1.0)),
        );
    }
    if encrypted == 0 {
        return Ok(());
    }

    let start = ProcessTime::now();
    let secret = SecretKey::generate(&ctx)?;
    let keys = classifier.evaluation_keys(&secret)?;
    row("key generation", &format!("{:.1} CPU s", start.elapsed().as_secs_f64()));
    row("switching keys", &keys.count().to_string());
    row("keys, sent", &megabytes(keys.to_bytes(&ctx).len()));
    row("keys, expanded", &megabytes(keys.size_bytes(&ctx)));
    let server = Arc::new(Evaluator::new(ctx.clone(), Arc::new(keys))?);
    let (mut agreed, mut right, mut planned) = (0, 0, true);
    let [mut scheme, mut off] = [0.0f64; 2];
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    let (mut up, mut down) = (0, 0);
    for (number, (rows, label)) in examples.iter().take(encrypted).enumerate() {
        let sent = secret.encrypt(&classifier.pack(rows)?)?;
        up = sent.to_bytes(&ctx).len();
        let image = sent.expand(&ctx)?;
        let before = ctx.counters().snapshot();
        let (start, clock) = (ProcessTime::now(), Instant::now());
        let out = classifier.run(&server, &image)?;
        wall.push(clock.elapsed());
        cpu.push(start.elapsed());
        planned &= ctx.counters().snapshot() - before == plan.counts;
        down = out.to_bytes(&ctx).len();
        let found = classifier.unpack(&secret.decrypt_real(&out)?);
        let circuit = classifier.polynomial(rows)?;
        agreed += usize::from(argmax(&found) == argmax(&circuit));
        right += usize::from(argmax(&found) == *label);
        let error = worst(&found, &circuit);
        scheme = scheme.max(error);
        if number == 0 {
            // The estimate is for the root mean square of an error.
            let (_, deviations) = classifier.clear(rows)?;
            let mean = |x: f64| (x / found.len() as f64).sqrt();
            let square = |(a, b): (&f64, &f64)| (a - b).powi(2);
            let measured = mean(found.iter().zip(&circuit).map(square).sum());
            off = (measured / mean(deviations.iter().map(|d| d * d).sum())).log2();
        }
        eprintln!(
            "{number}: {:.1} s, {:.1} CPU s",
            wall[number].as_secs_f64(),
            cpu[number].as_secs_f64()
        );
    }
    wall.sort();
    cpu.sort();
    let median = |times: &[Duration]| times[times.len() / 2].as_secs_f64();
    row("images encrypted", &encrypted.to_string());
    row("agree with the polynomial circuit", &format!("{agreed}/{encrypted}"));
    row("right", &format!("{right}/{encrypted}"));
    row("scheme error, greatest", &format!("2^{:.1}", scheme.log2()));
    row("scheme error, measured over predicted", &format!("{off:+.1} bits"));
    row("counts equal the plan", &planned.to_string());
    row(
        "time of an image",
        &format!(
            "{:.2} CPU s, {:.2} s, {} threads (medians)",
            median(&cpu),
            median(&wall),
            rayon::current_num_threads()
        ),
    );
    row("up", &megabytes(up));
    row("down", &megabytes(down));
    row("peak memory", &peak().map_or("unknown".into(), megabytes));
    if agreed < encrypted || !planned {
        return Err("encrypted results differ from the circuit or the plan".into());
    }
    Ok(())
}

fn row(what: &str, value: &str) {
    println!("| {what} | {value} |");
}

fn megabytes(bytes: usize) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

fn argmax(x: &[f64]) -> usize {
    (0..x.len()).max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap_or(0)
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

/// Greatest resident size so far, where the system tells it (Linux). Client and server together.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kb| kb * 1024)
}
