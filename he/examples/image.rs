//! Whole images classified under encryption, with the evidence.
//!
//! `cargo run --release -p undertone-he --example image -- MODEL [IMAGE.png]…`

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use undertone_he::Classifier;
use undertone_he::ckks::{Evaluator, SecretKey};
use undertone_model::Model;
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("name a model folder")?;
    let model = Model::load(Path::new(&folder))?;
    let start = Instant::now();
    let classifier = Classifier::new(model)?;
    let ctx = classifier.context().clone();
    println!("{} {:?} planned in {:?}", ctx.params().name, classifier.packing(), start.elapsed());
    println!("{:?}", classifier.plan());
    let start = Instant::now();
    let secret = SecretKey::generate(&ctx)?;
    let each: Vec<_> = classifier.plan().automorphisms.iter().copied().collect();
    let keys = secret.evaluation_keys(&each)?;
    println!("{} keys, {} MB, {:?}", keys.count(), keys.size_bytes(&ctx) / 1_000_000, start.elapsed());
    let server = Arc::new(Evaluator::new(ctx.clone(), Arc::new(keys))?);
    for path in args {
        let model = classifier.model();
        let vit = model.config.vit().ok_or("not an image model")?;
        let picture = Picture::load(Path::new(&path))?.to_input(vit, Resize::Refuse)?;
        let rows = model.rows(&EncoderInput::Image(&picture))?;
        let exact = classifier.exact(&rows)?;
        let polynomial = classifier.polynomial(&rows)?;
        let (clear, deviation) = classifier.clear(&rows)?;
        let image = secret.encrypt(&classifier.pack(&rows)?)?.expand(&ctx)?;
        let before = ctx.counters().snapshot();
        let start = Instant::now();
        let out = classifier.run(&server, &image)?;
        let time = start.elapsed();
        let counts = ctx.counters().snapshot() - before;
        let found = classifier.unpack(&secret.decrypt_real(&out)?);
        let worst = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
        };
        println!(
            "{path}: {time:.2?} planned {} approx {:.2e} clear-poly {:.2e} scheme {:.2e} predicted {:.2e}",
            counts == classifier.plan().counts,
            worst(&exact, &polynomial),
            worst(&clear, &polynomial),
            worst(&found, &clear),
            deviation.iter().fold(0.0f64, |m, &x| m.max(x)),
        );
        println!("{found:.3?}\n{polynomial:.3?}\n{exact:.3?}");
    }
    Ok(())
}
