//! One party of a private inference, or the dealer, as a process of its own.
//!
//! ```sh
//! P="cargo run --release -p undertone-mpc --example party --"
//! $P authority --dir keys
//! $P dealer --model models/vit-fmnist --client client.prep --server server.prep
//! $P server --model models/vit-fmnist --prep server.prep --dir keys --address 127.0.0.1:7310 &
//! $P client --model models/vit-fmnist --prep client.prep --dir keys --address 127.0.0.1:7310 \
//!     --image models/images/0000-ankle-boot.png
//! ```
//!
//! The client needs the model's `config.json` only for its shapes; its copy of the weights is not
//! looked at. `--argmax` shows the client nothing but the class.
#![allow(missing_docs)]

use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use undertone_core::{Domains as _, Mask, Role, Site};
use undertone_model::Model;
use undertone_model::host::Host as _;
use undertone_model::image::{Picture, Resize};
use undertone_model::input::EncoderInput;
use undertone_mpc::channel::tls::{Authority, Identity, Listener, connect};
use undertone_mpc::channel::{Limits, Link};
use undertone_mpc::preprocess::{Store, deal};
use undertone_mpc::{Format, Fused, Mpc, Plan};

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Options(HashMap<String, String>);

impl Options {
    fn get(&self, name: &str) -> Outcome<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.ok_or_else(|| format!("--{name} is missing").into())
    }

    fn path(&self, name: &str) -> Outcome<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
}

/// What all three roles run. The client's answer: logits, or one class.
fn infer(
    mpc: &mut Mpc,
    model: &Model,
    rows: &[f32],
    argmax: bool,
) -> undertone_mpc::Result<Vec<f32>> {
    mpc.phase("weights");
    let encoder = model.prepare::<_, Fused>(mpc)?;
    mpc.phase("input");
    let shape = model.input_shape(1, model.tokens());
    let on = model.calibration.bound(Site::outside(Role::Input));
    let input = mpc.secret(shape, rows, on)?;
    let logits = encoder.run::<Fused>(mpc, input, &Mask::NONE, &model.calibration)?;
    mpc.phase("output");
    if argmax {
        let class = mpc.reveal_argmax(&logits)?.unwrap_or_default();
        return Ok(class.iter().map(|c| *c as f32).collect());
    }
    undertone_model::host::Host::reveal(mpc, &logits)
}

fn identity(folder: &Path, name: &str) -> Outcome<Identity> {
    let read = |file: String| std::fs::read_to_string(folder.join(file));
    Ok(Identity {
        certificate: read(format!("{name}.pem"))?,
        key: read(format!("{name}.key"))?.into(),
        authority: read("authority.pem".into())?,
    })
}

fn authority(options: &Options) -> Outcome<()> {
    let folder = options.path("dir")?;
    std::fs::create_dir_all(&folder)?;
    let authority = Authority::new()?;
    for (party, name) in ["client", "server"].into_iter().enumerate() {
        let identity = authority.issue(party)?;
        std::fs::write(folder.join("authority.pem"), &identity.authority)?;
        std::fs::write(folder.join(format!("{name}.pem")), &identity.certificate)?;
        std::fs::write(folder.join(format!("{name}.key")), identity.key.as_bytes())?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let role = words.next().ok_or("a role: authority, dealer, server or client")?;
    let mut options = Options(HashMap::new());
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--").ok_or_else(|| format!("what is {word}?"))?;
        let flag = name == "argmax";
        let value = if flag { Some(String::new()) } else { words.next() };
        options.0.insert(name.into(), value.ok_or_else(|| format!("--{name} wants a value"))?);
    }
    if role == "authority" {
        return authority(&options);
    }
    let model = Model::load(&options.path("model")?)?;
    let argmax = options.0.contains_key("argmax");
    let label = format!("{} argmax={argmax}", label_of(&options.path("model")?)?);
    let format = Format::default();
    let nothing = vec![0.0; model.input_shape(1, model.tokens()).len()];
    if role == "dealer" {
        let (client, server) = (options.path("client")?, options.path("server")?);
        let sections = options.0.get("runs").map_or(Ok(1), |n| n.parse())?;
        let mut program = |mpc: &mut Mpc| infer(mpc, &model, &nothing, argmax).map(|_| ());
        let plan = deal([&client, &server], &label, format, sections, &mut program)?;
        println!("{:#?}", plan.cost());
        return Ok(());
    }
    let plan = Plan::of(&label, format, |mpc| infer(mpc, &model, &nothing, argmax))?;
    let mut store = Store::open(&options.path("prep")?)?;
    let limits = Limits { timeout: Duration::from_secs(120), ..Limits::default() };
    let keys = identity(&options.path("dir")?, &role)?;
    let address = options.get("address")?.parse()?;
    let (link, rows): (Arc<dyn Link>, Vec<f32>) = match role.as_str() {
        "server" => (Arc::new(Listener::bind(address, &keys, limits)?.accept()?), nothing),
        "client" => {
            let picture = Picture::load(&options.path("image")?)?;
            let vit = model.config.vit().ok_or("the model does not read images")?;
            let image = picture.to_input(vit, Resize::Refuse)?;
            let rows = model.rows(&EncoderInput::Image(&image))?;
            (Arc::new(connect(address, &keys, limits)?), rows)
        }
        other => return Err(format!("what is {other}?").into()),
    };
    let start = Instant::now();
    let mut mpc = Mpc::connect(&plan, &mut store, link)?;
    let answer = infer(&mut mpc, &model, &rows, argmax)?;
    let seconds = start.elapsed().as_secs_f64();
    if role == "client" {
        println!("answer: {answer:?}");
    }
    let report = mpc.into_report().ok_or("not a run")?;
    for (phase, cost) in report.phases() {
        println!("{phase}: {cost:?}");
    }
    println!("as planned: {}, {seconds:.3} s", report.cost() == plan.cost());
    Ok(())
}

/// The digest of config.json: both parties must have the same shapes, kinds and ranges.
fn label_of(folder: &Path) -> Outcome<String> {
    let hash = Sha256::digest(std::fs::read(folder.join("config.json"))?);
    Ok(hash.iter().map(|b| format!("{b:02x}")).collect())
}
