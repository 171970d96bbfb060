//! Our half of `mpc/peers/compare.py`: its workloads between two parties over mutual TLS.
//!
//! ```sh
//! cargo run --release -p undertone-mpc --example peers -- RUNS LISTEN CONNECT
//! ```
//!
//! The client connects to CONNECT, which is LISTEN or a relay before it. One line of JSON a
//! workload: bytes that the client sends, exchanges, and the median of RUNS online times, from
//! shared inputs to a shared result.
#![allow(missing_docs)]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use undertone_core::attention::{Context, Heads, Kind};
use undertone_core::{
    Bound, Domains, Full, Function, Mask, Menu as _, Num, Range, Role, Shape, Site,
};
use undertone_model::Model;
use undertone_model::config::Config;
use undertone_model::float::Float;
use undertone_model::host::Host;
use undertone_mpc::channel::tls::{Listener, Role as Peer, connect};
use undertone_mpc::channel::{Limits, Link};
use undertone_mpc::protocol::fit;
use undertone_mpc::{Cost, Format, Fused, Mpc, Result, Secret, run_over};
use undertone_tls::Authority;

type Outcome<T> = std::result::Result<T, Box<dyn Error>>;

/// What is timed: a program between inputs, which are not, and a result, which stays shared.
type Workload = Box<dyn Fn(&mut Mpc) -> Result<(f64, Cost)> + Sync>;

fn timed<T>(mpc: &mut Mpc, run: impl FnOnce(&mut Mpc) -> Result<T>) -> Result<(f64, Cost)> {
    let before = mpc.meter().total();
    let start = Instant::now();
    run(mpc)?;
    let seconds = start.elapsed().as_secs_f64();
    let after = mpc.meter().total();
    let sent = [after.sent[0] - before.sent[0], after.sent[1] - before.sent[1]];
    let exchanges = after.exchanges - before.exchanges;
    Ok((seconds, Cost { exchanges, depth: after.depth - before.depth, sent, ..Cost::default() }))
}

fn values(n: usize, spread: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0 * spread).collect()
}

/// One operation on a shared 64 × 64 tensor.
fn operation(
    run: impl Fn(&mut Mpc, &undertone_mpc::Shared) -> Result<undertone_mpc::Shared> + Sync + 'static,
) -> Workload {
    Box::new(move |mpc| {
        let shape = Shape::new(1, 64, 64);
        let x: Vec<f64> = values(shape.len(), 4.0).into_iter().map(f64::from).collect();
        let x = mpc.input(0, shape, Some(&x))?;
        let x = mpc.share(&x);
        timed(mpc, |mpc| run(mpc, &x))
    })
}

/// Ranges of an attention over values in ±1, with row sums up to this.
struct Wide(i64);

impl Domains for Wide {
    fn bound(&self, site: Site) -> Bound {
        let (lo, hi) = match site.role {
            Role::Scores => (-8, 8),
            Role::Denominator => (1, self.0),
            Role::Numerator => (-self.0, self.0),
            _ => return Bound::unknown(site),
        };
        Bound { site, range: Some(Range::new(Num::int(lo), Num::int(hi))) }
    }
}

fn attention(kind: Kind) -> Workload {
    Box::new(move |mpc| {
        let shape = Shape::new(4, 65, 64);
        let site = |role| Site::layer(0, role);
        let most = if kind == Kind::Softmax { 65 } else { 65 * 64 };
        let one = |role| Bound::known(site(role), Num::int(-1), Num::int(1));
        let secret = |mpc: &mut Mpc, role| mpc.secret(shape, &values(shape.len(), 1.0), one(role));
        let x = Heads {
            q: secret(mpc, Role::Query)?,
            k: secret(mpc, Role::Key)?,
            v: secret(mpc, Role::Value)?,
        };
        let at = Context { mask: Mask::NONE, site: site(Role::Context), domains: &Wide(most) };
        timed(mpc, |mpc| Full::attend(mpc, &kind, x, &at))
    })
}

/// One layer of MPCViT's CIFAR shape, 65 tokens × 256, weights already open.
fn block(kind: &str) -> Outcome<Workload> {
    let eps = if kind == "relu_softmax" { r#", "eps": 1e-3"# } else { "" };
    let heads = vec![format!(r#"{{"kind": "{kind}"{eps}}}"#); 4].join(", ");
    let json = format!(
        r#"{{"model_type": "vit", "image_size": 32, "patch_size": 4, "num_channels": 3,
        "hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
        "intermediate_size": 512, "layer_norm_eps": 1e-6, "id2label": {{"0": "a", "1": "b"}},
        "undertone": {{"version": 1, "layers": [{{"heads": [{heads}], "norm": "layer_norm",
        "activation": "gelu"}}]}}}}"#
    );
    let mut model = Model::random(Config::parse(json.as_bytes(), None)?, 1)?;
    let shape = Shape::new(1, 65, 256);
    let rows = values(shape.len(), 2.0);
    let on = Bound::unknown(Site::outside(Role::Embedding));
    let mut recorder = Float::recording();
    let encoder = model.prepare::<_, Full>(&mut recorder)?;
    let x = recorder.secret(shape, &rows, on)?;
    encoder.layers[0].run::<Full>(&mut recorder, &x, 0, &Mask::NONE, &model.calibration)?;
    model.calibration = recorder.recorded().cloned().unwrap_or_default();
    Ok(Box::new(move |mpc| {
        let encoder = model.prepare::<_, Fused>(mpc)?;
        let on = Bound::known(Site::outside(Role::Embedding), Num::int(-2), Num::int(2));
        let x: Secret = mpc.secret(shape, &rows, on)?;
        let layer = &encoder.layers[0];
        timed(mpc, |mpc| layer.run::<Fused>(mpc, &x, 0, &Mask::NONE, &model.calibration))
    }))
}

fn workloads() -> Outcome<Vec<(String, Workload)>> {
    let gelu = fit(Function::Gelu, 5e-5)?;
    let mut all: Vec<(String, Workload)> = vec![
        ("relu 4096".into(), operation(|mpc, x| mpc.relu(x))),
        ("gelu 4096".into(), operation(move |mpc, x| mpc.apply(x, &gelu))),
        ("layer norm 64x64".into(), operation(|mpc, x| mpc.layer_norm(x, None, 1e-5, (0.1, 20.0)))),
        ("softmax 64x64".into(), operation(|mpc, x| mpc.softmax(x, 4))),
    ];
    let eps = Num::of(1e-3);
    let kinds = [
        Kind::Softmax,
        Kind::ReluSoftmax { eps },
        Kind::TwoQuad { c: Num::int(0), eps },
        Kind::Scaling,
    ];
    for kind in kinds {
        all.push((format!("attention {} 4x65x64", kind.name()), attention(kind)));
    }
    for kind in ["softmax", "relu_softmax", "scaling"] {
        all.push((format!("block {kind}"), block(kind)?));
    }
    Ok(all)
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("wanted: RUNS LISTEN CONNECT");
    let (runs, listen, to) = (next()?.parse::<usize>()?, next()?.parse()?, next()?.parse()?);
    let authority = Authority::new()?;
    for (name, workload) in workloads()? {
        let mut times = Vec::new();
        let mut cost = Cost::default();
        for _ in 0..runs.max(1) {
            let listener = Listener::bind(
                listen,
                &authority.issue(Peer::Server.subject())?,
                Limits::default(),
            )?;
            let serving = std::thread::spawn(move || listener.accept());
            let client = authority.issue(Peer::Client.subject())?;
            let client = connect(to, Peer::Server, &client, Limits::default())?;
            let server = serving.join().map_err(|_| "the server panicked")??;
            let links = [Arc::new(client) as Arc<dyn Link>, Arc::new(server) as Arc<dyn Link>];
            let out = run_over(&name, Format::default(), links, &workload)?;
            let (seconds, counted) = out.results[0];
            times.push(seconds);
            cost = counted;
        }
        times.sort_by(f64::total_cmp);
        println!(
            r#"{{"name": "{name}", "sent_bytes": {}, "exchanges": {}, "wall_seconds": {}}}"#,
            cost.sent[0],
            cost.exchanges,
            times[times.len() / 2]
        );
    }
    Ok(())
}
