//! Peers that leave, dawdle or differ, and preprocessing that is damaged or used.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use undertone_core::Shape;
use undertone_mpc::channel::tls::{Listener, Role, connect};
use undertone_mpc::channel::{Greeting, Limits, Link, VERSION, memory};
use undertone_mpc::preprocess::{Store, deal, deal_streamed};
use undertone_mpc::{Error, Format, Mpc, Plan, Result, run_over};
use undertone_tls::Authority;

const SHAPE: Shape = Shape::new(1, 1, 8);

fn program(mpc: &mut Mpc) -> Result<Option<Vec<f64>>> {
    let x = mpc.input(0, SHAPE, Some(&[1.0, -2.0, 3.0, -4.0, 0.0, 0.5, -0.5, 9.0]))?;
    let x = mpc.share(&x);
    let y = mpc.relu(&x)?;
    mpc.reveal(&y, 0)
}

fn limits(milliseconds: u64) -> Limits {
    Limits { timeout: Duration::from_millis(milliseconds), ..Limits::default() }
}

fn dealt(folder: &Path, sections: u32) -> (Plan, [PathBuf; 2]) {
    let paths = ["client.prep", "server.prep"].map(|n| folder.join(n));
    let plan = deal([&paths[0], &paths[1]], "relu", Format::default(), sections, &mut |mpc| {
        program(mpc).map(|_| ())
    });
    (plan.unwrap(), paths)
}

/// Both parties in threads; each opens its own store.
fn both(
    plan: &Plan,
    stores: [&mut Store; 2],
    links: [Arc<dyn Link>; 2],
) -> [Result<Option<Vec<f64>>>; 2] {
    let [a, b] = stores;
    let [to_server, to_client] = links;
    let party = |store: &mut Store, link: Arc<dyn Link>| {
        let mut mpc = Mpc::connect(plan, store, link)?;
        program(&mut mpc)
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| party(b, to_client));
        let client = party(a, to_server);
        [client, server.join().unwrap()]
    })
}

fn linked(milliseconds: u64) -> [Arc<dyn Link>; 2] {
    memory::pair(limits(milliseconds)).map(|l| l as Arc<dyn Link>)
}

#[test]
fn files_serve_each_section_once() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, [a, b]) = dealt(folder.path(), 2);
    for round in 0..2 {
        let (mut a, mut b) = (Store::open(&a).unwrap(), Store::open(&b).unwrap());
        assert_eq!(a.next(), round);
        let [client, server] = both(&plan, [&mut a, &mut b], linked(5000));
        assert_eq!(client.unwrap().unwrap(), [1.0, 0.0, 3.0, 0.0, 0.0, 0.5, 0.0, 9.0]);
        assert!(server.unwrap().is_none());
    }
    let (mut a, mut b) = (Store::open(&a).unwrap(), Store::open(&b).unwrap());
    for outcome in both(&plan, [&mut a, &mut b], linked(5000)) {
        assert!(matches!(outcome, Err(Error::Used { section: 2, sections: 2 })));
    }
}

#[test]
fn a_party_that_is_behind_skips_what_the_other_used() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, [a, b]) = dealt(folder.path(), 3);
    let mut store = Store::open(&a).unwrap();
    store.begin(0).unwrap();
    store.begin(1).unwrap();
    let mut other = Store::open(&b).unwrap();
    let [client, server] = both(&plan, [&mut store, &mut other], linked(5000));
    assert!(client.is_ok() && server.is_ok());
    assert_eq!((store.next(), other.next()), (3, 3));
    // A replayed file with its old journal: the peer is ahead, nothing is left.
    std::fs::remove_file(folder.path().join("server.prep.used")).unwrap();
    let mut other = Store::open(&b).unwrap();
    assert_eq!(other.next(), 0);
    for outcome in both(&plan, [&mut store, &mut other], linked(5000)) {
        assert!(matches!(outcome, Err(Error::Used { .. })));
    }
}

#[test]
fn killed_in_the_middle_burns_the_section() {
    let folder = tempfile::tempdir().unwrap();
    let (_, [a, _]) = dealt(folder.path(), 2);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_of_the_kill_test", "--exact", "--nocapture", "--test-threads=1"])
        .env("UNDERTONE_TEST_STORE", &a)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut seen = String::new();
    let mut byte = [0];
    while !seen.contains("begun") {
        assert_eq!(output.read(&mut byte).unwrap(), 1, "the child ended early: {seen}");
        seen.push(char::from(byte[0]));
    }
    // SIGKILL: nothing in the child runs any more.
    child.kill().unwrap();
    child.wait().unwrap();
    let mut store = Store::open(&a).unwrap();
    assert_eq!(store.next(), 1);
    assert!(matches!(store.begin(0), Err(Error::Used { .. })));
    assert!(store.begin(1).is_ok());
}

/// Not a test of its own: without the variable it has nothing to do.
#[test]
fn child_of_the_kill_test() {
    let Some(path) = std::env::var_os("UNDERTONE_TEST_STORE") else { return };
    let mut store = Store::open(Path::new(&path)).unwrap();
    let _section = store.begin(0).unwrap();
    println!("begun");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn damaged_preprocessing_is_refused_before_use() {
    let folder = tempfile::tempdir().unwrap();
    let (_, [a, _]) = dealt(folder.path(), 1);
    let good = std::fs::read(&a).unwrap();
    let broken = folder.path().join("broken.prep");
    let open = |bytes: &[u8]| {
        std::fs::write(&broken, bytes).unwrap();
        Store::open(&broken)
    };
    for len in [0, 3, 67, 100, good.len() - 1] {
        assert!(matches!(open(&good[..len]), Err(Error::Preprocessing { .. })), "{len}");
    }
    for at in 0..150 {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(matches!(open(&bytes), Err(Error::Preprocessing { .. })), "byte {at}");
    }
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    let mut store = open(&bytes).unwrap();
    assert!(matches!(store.begin(0), Err(Error::Preprocessing { .. })));
    assert_eq!(store.next(), 0, "a damaged section is not begun");
    let mut longer = good;
    longer.push(0);
    assert!(matches!(open(&longer), Err(Error::Preprocessing { .. })));
}

#[test]
fn another_program_is_noticed_before_any_secret_moves() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, [a, _]) = dealt(folder.path(), 1);
    let other = tempfile::tempdir().unwrap();
    let (_, [_, b]) = dealt(other.path(), 1);
    // Files of different dealings: another session.
    let (mut a, mut b) = (Store::open(&a).unwrap(), Store::open(&b).unwrap());
    for outcome in both(&plan, [&mut a, &mut b], linked(5000)) {
        assert!(matches!(outcome, Err(Error::Handshake { field: "session", .. })));
    }
    assert_eq!((a.next(), b.next()), (0, 0), "nothing was begun");
    let shorter = Plan::of("relu", Format::default(), |mpc| mpc.input(0, SHAPE, None)).unwrap();
    let refused = Mpc::connect(&shorter, &mut a, linked(100)[0].clone()).err();
    assert!(matches!(refused, Some(Error::Preprocessing { what: "program", .. })));
}

#[test]
fn versions_and_roles_must_go_together() {
    let greet = |party| Greeting { party, session: [7; 16], program: [1; 32], section: 0 };
    let [a, b] = linked(1000);
    let (x, y) = std::thread::scope(|s| {
        let other = s.spawn(|| greet(0).exchange(&*b));
        (greet(0).exchange(&*a), other.join().unwrap())
    });
    for outcome in [x, y] {
        assert!(matches!(outcome, Err(Error::Handshake { field: "role", .. })));
    }
    // A later version: the same greeting with another number.
    let [a, b] = linked(1000);
    let mut greeting = b"UTMPC2PC".to_vec();
    greeting.extend((VERSION + 1).to_le_bytes());
    greeting.resize(68, 0);
    b.send(0, greeting).unwrap();
    let outcome = greet(0).exchange(&*a);
    assert!(matches!(outcome, Err(Error::Handshake { field: "version", .. })));
}

#[test]
fn frames_that_do_not_belong_are_refused() {
    let [a, b] = linked(1000);
    b.send(1, vec![0; 5]).unwrap();
    assert!(matches!(a.receive(1, 4), Err(Error::Desync { expected: 4, got: 5, .. })));
    let small = Limits { frame: 16, ..limits(1000) };
    let [a, _b] = memory::pair(small);
    assert!(matches!(a.send(1, vec![0; 17]), Err(Error::FrameTooLong { got: 17, limit: 16 })));
}

#[test]
fn silence_is_a_timeout_and_departure_is_closed() {
    let start = Instant::now();
    let [a, b] = linked(100);
    assert!(matches!(a.receive(1, 4), Err(Error::Timeout { .. })));
    drop(b);
    assert!(matches!(a.receive(1, 4), Err(Error::Closed { .. })));
    assert!(matches!(a.send(1, vec![0]), Err(Error::Closed { .. })));
    assert!(start.elapsed() < Duration::from_secs(2));
    // In the middle of a protocol: one side stops after its input.
    let outcome = run_over("gone", Format::default(), linked(2000), |mpc| {
        let x = mpc.input(0, SHAPE, Some(&[0.0; 8]))?;
        if mpc.party() == Some(1) {
            return Err(Error::Closed { operation: "leaving" });
        }
        let x = mpc.share(&x);
        mpc.join(|mpc| mpc.relu(&x), |mpc| mpc.relu(&x)).map(|_| ())
    });
    assert!(matches!(outcome, Err(Error::Closed { .. })));
}

#[test]
fn values_outside_the_format_are_refused() {
    let outcome = run_over("range", Format::default(), linked(2000), |mpc| {
        mpc.input(0, Shape::new(1, 1, 1), Some(&[1e18])).map(|_| ())
    });
    assert!(matches!(outcome, Err(Error::Range { .. })));
}

#[test]
fn mutual_tls_over_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, [a, b]) = dealt(folder.path(), 1);
    let authority = Authority::new().unwrap();
    let (client, server) = (
        authority.issue(Role::Client.subject()).unwrap(),
        authority.issue(Role::Server.subject()).unwrap(),
    );
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(any, &server, limits(10_000)).unwrap();
    let address = listener.address().unwrap();
    let serving = std::thread::spawn(move || {
        let link = Arc::new(listener.accept()?) as Arc<dyn Link>;
        let mut mpc = Mpc::connect(&plan, &mut Store::open(&b)?, link)?;
        program(&mut mpc)?;
        Ok::<_, Error>((plan, mpc.into_report().unwrap()))
    });
    let link = connect(address, Role::Server, &client, limits(10_000)).unwrap();
    let plan = Plan::of("relu", Format::default(), program).unwrap();
    let mut mpc = Mpc::connect(&plan, &mut Store::open(&a).unwrap(), Arc::new(link)).unwrap();
    let shown = program(&mut mpc).unwrap().unwrap();
    assert_eq!(shown, [1.0, 0.0, 3.0, 0.0, 0.0, 0.5, 0.0, 9.0]);
    let (planned, report) = serving.join().unwrap().unwrap();
    assert_eq!(report.cost(), planned.cost());
    assert_eq!(mpc.into_report().unwrap().cost(), planned.cost());
}

#[test]
fn strangers_do_not_get_in() {
    let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
    let any = "127.0.0.1:0".parse().unwrap();
    let listener =
        Listener::bind(any, &ours.issue(Role::Server.subject()).unwrap(), limits(3000)).unwrap();
    let address = listener.address().unwrap();
    let serving = std::thread::spawn(move || listener.accept().err());
    let stranger = connect(
        address,
        Role::Server,
        &theirs.issue(Role::Client.subject()).unwrap(),
        limits(3000),
    )
    .err();
    assert!(matches!(stranger, Some(Error::Tls(_))));
    assert!(matches!(serving.join().unwrap(), Some(Error::Tls(_))));
}

#[test]
fn a_dead_socket_is_closed_and_a_silent_one_times_out() {
    let authority = Authority::new().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener =
        Listener::bind(any, &authority.issue(Role::Server.subject()).unwrap(), limits(500))
            .unwrap();
    let address = listener.address().unwrap();
    let serving = std::thread::spawn(move || listener.accept().unwrap());
    let client = connect(
        address,
        Role::Server,
        &authority.issue(Role::Client.subject()).unwrap(),
        limits(500),
    )
    .unwrap();
    let server = serving.join().unwrap();
    let start = Instant::now();
    assert!(matches!(client.receive(1, 1), Err(Error::Timeout { .. })));
    server.send(1, vec![1]).unwrap();
    drop(server);
    assert_eq!(client.receive(1, 1).unwrap(), [1], "what was sent before the end arrives");
    assert!(matches!(client.receive(1, 1), Err(Error::Closed { .. })));
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Forwards bytes both ways; after `after` bytes towards the server it flips one bit.
fn corrupting_relay(to: std::net::SocketAddr, after: usize) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = std::net::TcpStream::connect(to).unwrap();
        let pump = |mut from: std::net::TcpStream, mut to: std::net::TcpStream, after| {
            std::thread::spawn(move || {
                let (mut passed, mut buffer) = (0usize, [0; 4096]);
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    if (passed..passed + n).contains(&after) {
                        buffer[after - passed] ^= 1;
                    }
                    passed += n;
                    if to.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
            })
        };
        pump(client.try_clone().unwrap(), server.try_clone().unwrap(), after);
        pump(server, client, usize::MAX);
    });
    address
}

#[test]
fn a_corrupted_frame_ends_both_sides_within_the_timeout() {
    let authority = Authority::new().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener =
        Listener::bind(any, &authority.issue(Role::Server.subject()).unwrap(), limits(3000))
            .unwrap();
    // The handshake of both certificates takes less than this; the frame after it takes more.
    let relay = corrupting_relay(listener.address().unwrap(), 6000);
    let serving = std::thread::spawn(move || listener.accept().unwrap());
    let identity = authority.issue(Role::Client.subject()).unwrap();
    let client = connect(relay, Role::Server, &identity, limits(3000)).unwrap();
    let server = serving.join().unwrap();
    assert_eq!(server.peer(), Some(Role::Client));
    let start = Instant::now();
    client.send(1, vec![7; 20_000]).unwrap();
    assert!(matches!(server.receive(1, 20_000), Err(Error::Closed { .. })));
    assert!(matches!(client.receive(1, 1), Err(Error::Closed { .. })));
    assert!(start.elapsed() < Duration::from_secs(3));
}

/// What each party was shown.
type Shown = [Result<Option<Vec<f64>>>; 2];

/// Both parties with a dealer on the line; the dealer's program may be another.
fn streamed(dealt: fn(&mut Mpc) -> Result<()>) -> (Shown, Result<Plan>) {
    let plan = Plan::of("relu", Format::default(), program).unwrap();
    let [[a, c], [b, d]] = [linked(2000), linked(2000)];
    std::thread::scope(|scope| {
        let dealer = scope
            .spawn(move || deal_streamed([c, d], "relu", Format::default(), &mut |mpc| dealt(mpc)));
        let [to_server, to_client] = linked(2000);
        let party = |party, dealer, link| {
            let mut mpc = Mpc::connect_streamed(&plan, party, [1; 16], dealer, link)?;
            program(&mut mpc)
        };
        let server = scope.spawn(move || party(1, b, to_client));
        let client = party(0, a, to_server);
        ([client, server.join().unwrap()], dealer.join().unwrap())
    })
}

#[test]
fn a_dealer_on_the_line_serves_one_run() {
    let ([client, server], plan) = streamed(|mpc| program(mpc).map(|_| ()));
    assert_eq!(client.unwrap().unwrap(), [1.0, 0.0, 3.0, 0.0, 0.0, 0.5, 0.0, 9.0]);
    assert!(server.unwrap().is_none());
    assert!(plan.unwrap().cost().preprocessing[0] > 0);
}

#[test]
fn a_dealer_of_another_program_is_noticed() {
    let (outcomes, plan) = streamed(|mpc| mpc.input(0, SHAPE, None).map(|_| ()));
    for outcome in outcomes {
        assert!(matches!(outcome, Err(Error::Handshake { field: "dealer's program", .. })));
    }
    assert!(matches!(plan, Err(Error::Closed { .. } | Error::Timeout { .. })));
}

#[test]
fn a_dealer_that_dies_ends_both_parties() {
    let (outcomes, _) = streamed(|mpc| {
        // The first call is for the plan; the second dies before its chunk is sent.
        static CALLS: AtomicU32 = AtomicU32::new(0);
        program(mpc)?;
        if CALLS.fetch_add(1, Ordering::Relaxed) == 1 {
            return Err(Error::Closed { operation: "dying" });
        }
        Ok(())
    });
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(Error::Closed { .. } | Error::Timeout { .. })),
            "{outcome:?}"
        );
    }
}
