use super::{Request, Task};
use crate::channel::tls::{Listener, Role, Tcp, connect};
use crate::channel::{Limits, Link, Network};
use crate::mpc::{Format, Mpc, Plan, Report};
use crate::preprocess::{Store, deal, deal_streamed};
use crate::{Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use undertone_tls::Identity;

/// Where a party's preprocessing comes from.
#[derive(Clone, Debug)]
pub enum Preparation {
    /// A dealer on the line.
    Dealer(SocketAddr),
    /// A file that a dealer wrote.
    File(PathBuf),
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// What it was going to cost.
    pub plan: Plan,
    /// What this party counted.
    pub report: Report,
    /// From the agreement on the program to the first input: weights are opened.
    pub setup: Duration,
    /// From the first input to the last output.
    pub online: Duration,
}

fn other(role: &'static str, peer: Option<Role>) -> Error {
    let theirs = peer.map_or("no role", Role::name).to_owned();
    Error::Handshake { field: "certificate", ours: role.into(), theirs }
}

/// One session of the server: waits for a client, up to the limit, and answers its request.
/// `network` emulates one.
///
/// # Errors
/// [`Error::Timeout`] where no client came; refused requests; the channel's and the
/// preprocessing's.
pub fn serve_one(
    task: &Task,
    listener: &Listener,
    identity: &Identity,
    limits: Limits,
    preparation: &Preparation,
    network: Option<Network>,
) -> Result<Finished> {
    let link = listener.accept()?;
    if link.peer() != Some(Role::Client) {
        return Err(other("client", link.peer()));
    }
    if let Some(network) = network {
        link.emulate(network);
    }
    let request = Request::receive(&link)?;
    run(task, &request, 1, link, identity, limits, preparation, &[], &mut |_, _| ())
}

/// The client: sends `inputs` (rows and number of tokens) to a server; `answer` gets what comes
/// back, in order.
///
/// # Errors
/// The channel's, the preprocessing's; a peer with another model.
pub fn ask(
    task: &Task,
    server: SocketAddr,
    identity: &Identity,
    limits: Limits,
    preparation: &Preparation,
    network: Option<Network>,
    (request, inputs): (&Request, &[Vec<f32>]),
    answer: &mut dyn FnMut(usize, Vec<f32>),
) -> Result<Finished> {
    task.check(request)?;
    let link = connect(server, Role::Server, identity, limits)?;
    if let Some(network) = network {
        link.emulate(network);
    }
    request.send(&link)?;
    run(task, request, 0, link, identity, limits, preparation, inputs, answer)
}

fn run(
    task: &Task,
    request: &Request,
    party: usize,
    link: Tcp,
    identity: &Identity,
    limits: Limits,
    preparation: &Preparation,
    inputs: &[Vec<f32>],
    answer: &mut dyn FnMut(usize, Vec<f32>),
) -> Result<Finished> {
    let plan = task.plan(request)?;
    let link = Arc::new(link) as Arc<dyn Link>;
    let mut mpc = match preparation {
        Preparation::File(path) => Mpc::connect(&plan, &mut Store::open(path)?, link)?,
        Preparation::Dealer(address) => {
            let dealer = connect(*address, Role::Dealer, identity, limits)?;
            request.send(&dealer)?;
            let dealer = Arc::new(dealer) as Arc<dyn Link>;
            Mpc::connect_streamed(&plan, party, request.session, dealer, link)?
        }
    };
    let start = Instant::now();
    let mut ready = start;
    task.run(&mut mpc, request, inputs, &mut ready, answer)?;
    let online = ready.elapsed();
    let report = mpc.into_report().ok_or(Error::Closed { operation: "reporting" })?;
    Ok(Finished { plan, report, setup: ready - start, online })
}

/// Deals `sections` runs of a request into a file a party.
///
/// # Errors
/// A refused request; files that exist or cannot be written.
pub fn deal_files(
    task: &Task,
    request: &Request,
    paths: [&Path; 2],
    sections: u32,
) -> Result<Plan> {
    task.check(request)?;
    deal(paths, &task.label(request), Format::default(), sections, &mut |mpc| {
        task.run(mpc, request, &[], &mut Instant::now(), &mut |_, _| ())
    })
}

/// A session that a dealer has served.
#[derive(Debug)]
pub struct Dealing {
    /// How many inputs.
    pub inputs: usize,
    /// The program's plan.
    pub plan: Plan,
    /// How long it took, waiting for the parties included.
    pub took: Duration,
}

/// A dealer on the line: pairs client and server that name the same session and deals for them,
/// one thread a session. Ends after `sessions` of them, or with an error of the socket.
///
/// # Errors
/// The operating system's.
pub fn serve_dealer(
    task: &Task,
    listener: &Listener,
    sessions: Option<u32>,
    done: &(dyn Fn(Result<Dealing>) + Sync),
) -> Result<()> {
    /// Parties that wait for their peer; the oldest gives way.
    const WAITING: usize = 64;
    let mut waiting: Vec<(usize, Request, Tcp)> = Vec::new();
    let mut begun = 0;
    std::thread::scope(|scope| {
        while sessions.is_none_or(|n| begun < n) {
            let (party, request, link) = match greet(listener) {
                Ok(met) => met,
                Err(Error::Timeout { operation: "accepting", .. }) => {
                    // Who still waits has been waiting for longer than the limit.
                    waiting.clear();
                    continue;
                }
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => {
                    done(Err(error));
                    continue;
                }
            };
            let peer = waiting.iter().position(|(p, r, _)| *p != party && *r == request);
            let Some(peer) = peer else {
                waiting.truncate(WAITING - 1);
                waiting.insert(0, (party, request, link));
                continue;
            };
            let (_, _, other) = waiting.remove(peer);
            let links = if party == 0 { [link, other] } else { [other, link] };
            begun += 1;
            scope.spawn(move || {
                let start = Instant::now();
                let links = links.map(|l| Arc::new(l) as Arc<dyn Link>);
                let label = task.label(&request);
                let plan = task.check(&request).and_then(|()| {
                    deal_streamed(links, &label, Format::default(), &mut |mpc| {
                        task.run(mpc, &request, &[], &mut Instant::now(), &mut |_, _| ())
                    })
                });
                let inputs = request.tokens.len();
                done(plan.map(|plan| Dealing { inputs, plan, took: start.elapsed() }));
            });
        }
        Ok(())
    })
}

fn greet(listener: &Listener) -> Result<(usize, Request, Tcp)> {
    let link = listener.accept()?;
    let party = match link.peer() {
        Some(Role::Client) => 0,
        Some(Role::Server) => 1,
        peer => return Err(other("client or server", peer)),
    };
    let request = Request::receive(&link)?;
    Ok((party, request, link))
}
