//! Client and server over TLS: the way through, and everybody who must not get through.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use undertone_he::ckks::{
    Artefact, Automorphism, Ciphertext, Context, Degree, Evaluator, KeyId, Params, SecretKey,
};
use undertone_he::service::{
    Client, FRAME_MAGIC, FrameKind, HeadJob, Job, KeyStore, Limits, PROTOCOL_VERSION, Refusal,
    Running, SERVER_NAME, Server, ServiceError,
};
use undertone_he::world::{HeError, Head, Packing};
use undertone_tls::{Authority, Identity};

/// x² shifted by one slot.
struct Shifted(Arc<Context>);

impl Job for Shifted {
    fn context(&self) -> &Arc<Context> {
        &self.0
    }

    fn description(&self) -> &str {
        "{\"job\":\"shifted square\"}"
    }

    fn automorphisms(&self) -> &[Automorphism] {
        &[Automorphism::Rotate(1)]
    }

    fn inputs(&self) -> usize {
        1
    }

    fn outputs(&self) -> usize {
        1
    }

    fn evaluate(
        &self,
        server: &Arc<Evaluator>,
        x: Vec<Ciphertext>,
    ) -> Result<Vec<Ciphertext>, HeError> {
        Ok(vec![server.rotate(&server.square(&x[0])?, 1)?])
    }
}

static CTX: LazyLock<Arc<Context>> =
    LazyLock::new(|| Context::new(Params { levels: 2, digits: 2, ..Params::TEST_N12 }).unwrap());

struct Site {
    folder: tempfile::TempDir,
    server: Identity,
    client: Identity,
}

impl Site {
    fn new() -> Self {
        let authority = Authority::new().unwrap();
        let [server, client] = [SERVER_NAME, "client"].map(|n| authority.issue(n).unwrap());
        Self { folder: tempfile::tempdir().unwrap(), server, client }
    }

    fn start_with(&self, job: Arc<dyn Job>, limits: Limits) -> Running {
        let store =
            KeyStore::open(self.folder.path(), job.context().clone(), limits.stored_keys).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        Server::bind(address, &self.server, job, store, limits).unwrap().spawn().unwrap()
    }

    fn start(&self, limits: Limits) -> Running {
        self.start_with(Arc::new(Shifted(CTX.clone())), limits)
    }

    fn connect(&self, to: &Running) -> Client {
        Client::connect(to.address(), &self.client, Limits::default()).unwrap()
    }

    /// A connection whose bytes are the test's own, greeted.
    fn raw(&self, to: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let connection = ClientConnection::new(self.client.client_config().unwrap(), name).unwrap();
        let socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(&frame(FrameKind::Hello, &[0; 64])).unwrap();
        let (kind, _) = receive(&mut stream);
        assert_eq!(kind, FrameKind::Hello as u8);
        stream
    }
}

fn header(kind: u8, length: u64) -> Vec<u8> {
    let mut out = FRAME_MAGIC.to_vec();
    out.extend(PROTOCOL_VERSION.to_le_bytes());
    out.extend([kind, 0]);
    out.extend(length.to_le_bytes());
    out
}

fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut out = header(kind as u8, payload.len() as u64);
    out.extend(payload);
    out
}

fn receive(from: &mut impl Read) -> (u8, Vec<u8>) {
    let mut header = [0; 16];
    from.read_exact(&mut header).unwrap();
    let mut payload = vec![0; u64::from_le_bytes(header[8..].try_into().unwrap()) as usize];
    from.read_exact(&mut payload).unwrap();
    (header[6], payload)
}

fn refused(from: &mut impl Read) -> (u8, String) {
    let (kind, payload) = receive(from);
    assert_eq!(kind, FrameKind::Refused as u8);
    (payload[0], String::from_utf8(payload[1..].to_vec()).unwrap())
}

fn why<T>(result: Result<T, ServiceError>) -> Refusal {
    match result.err().unwrap() {
        ServiceError::Refused { why, .. } => why,
        other => panic!("not a refusal: {other}"),
    }
}

fn encrypted(secret: &SecretKey, x: &[f64]) -> undertone_he::ckks::SeededCiphertext {
    secret.encrypt(&CTX.encode_as(x, 2, Degree::One).unwrap()).unwrap()
}

fn keys(secret: &SecretKey) -> undertone_he::ckks::EvaluationKeys {
    secret.evaluation_keys(&[Automorphism::Rotate(1)]).unwrap()
}

#[test]
fn two_clients_at_once_each_get_their_own() {
    let site = Site::new();
    let server = site.start(Limits::default());
    std::thread::scope(|scope| {
        for who in 0..2 {
            let (site, server) = (&site, &server);
            scope.spawn(move || {
                let secret = SecretKey::generate(&CTX).unwrap();
                let mut client = site.connect(server);
                assert!(!client.knows(secret.key_id()).unwrap());
                client.register(&CTX, &keys(&secret)).unwrap();
                assert!(client.knows(secret.key_id()).unwrap());
                for round in 0..3 {
                    let x = f64::from(who + 2 * round) / 4.0;
                    let input = encrypted(&secret, &[0.0, x, 0.5]);
                    let out = client.evaluate(&CTX, secret.key_id(), &[input], 1).unwrap();
                    let out = secret.decrypt_real(&out[0]).unwrap();
                    assert!((out[0] - x * x).abs() < 1e-6, "{} {x}", out[0]);
                    assert!((out[1] - 0.25).abs() < 1e-6);
                }
            });
        }
    });
}

#[test]
fn registered_keys_survive_a_restart_and_damage_is_noticed() {
    let site = Site::new();
    let secret = SecretKey::generate(&CTX).unwrap();
    let id = secret.key_id();
    let set = keys(&secret);
    let server = site.start(Limits::default());
    site.connect(&server).register(&CTX, &set).unwrap();
    drop(server);

    let server = site.start(Limits::default());
    let mut client = site.connect(&server);
    assert!(client.knows(id).unwrap());
    let ask =
        |client: &mut Client| client.evaluate(&CTX, id, &[encrypted(&secret, &[0.0, 0.5])], 1);
    let out = ask(&mut client).unwrap();
    assert!((secret.decrypt_real(&out[0]).unwrap()[0] - 0.25).abs() < 1e-6);
    // The same keys again are no offence; others under this identifier are.
    client.register(&CTX, &set).unwrap();
    let other = secret.evaluation_keys(&[Automorphism::Rotate(1)]).unwrap();
    assert_eq!(why(client.register(&CTX, &other)), Refusal::KeyTaken);
    drop(server);

    let inner = std::fs::read_dir(site.folder.path()).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(&inner).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    // What a crash in the middle of a registration leaves.
    std::fs::write(inner.join("00.part"), b"half").unwrap();
    let server = site.start(Limits::default());
    assert_eq!(why(ask(&mut site.connect(&server))), Refusal::UnknownKey);
    let mut client = site.connect(&server);
    client.register(&CTX, &set).unwrap();
    assert!(ask(&mut client).is_ok());
    assert!(!inner.join("00.part").exists());
}

#[test]
fn wrong_keys_parameters_and_jobs_are_refused() {
    let site = Site::new();
    let server = site.start(Limits::default());
    let (ours, theirs) = (SecretKey::generate(&CTX).unwrap(), SecretKey::generate(&CTX).unwrap());
    let x = encrypted(&ours, &[0.5]).to_bytes(&CTX);
    let limit = 1 << 20;
    // Nobody registered.
    let result = site.connect(&server).evaluate_bytes(ours.key_id(), &[&x], limit);
    assert_eq!(why(result), Refusal::UnknownKey);
    site.connect(&server).register(&CTX, &keys(&theirs)).unwrap();
    // A ciphertext of one key under another's identifier.
    let result = site.connect(&server).evaluate_bytes(theirs.key_id(), &[&x], limit);
    assert_eq!(why(result), Refusal::Artefact);
    // Keys without the rotation.
    let bare = ours.evaluation_keys(&[]).unwrap();
    assert_eq!(why(site.connect(&server).register(&CTX, &bare)), Refusal::MissingKey);
    // Other parameters, by the greeting and by the artefact.
    let other = Context::new(Params { levels: 1, digits: 1, ..Params::TEST_N12 }).unwrap();
    let connect = |hash, job| {
        Client::connect_expecting(server.address(), &site.client, Limits::default(), hash, job)
    };
    assert_eq!(why(connect(other.parameter_hash(), [0; 32])), Refusal::Different);
    assert_eq!(why(connect([0; 32], [7; 32])), Refusal::Different);
    assert!(connect(CTX.parameter_hash(), Shifted(CTX.clone()).digest()).is_ok());
    let secret = SecretKey::generate(&other).unwrap();
    let small = secret.evaluation_keys(&[Automorphism::Rotate(1)]).unwrap();
    let result = site.connect(&server).register_bytes(secret.key_id(), &small.to_bytes(&other));
    assert_eq!(why(result), Refusal::Artefact);
}

#[test]
fn broken_artefacts_are_refused_and_the_server_lives_on() {
    let site = Site::new();
    let server = site.start(Limits::default());
    let secret = SecretKey::generate(&CTX).unwrap();
    let set = keys(&secret).to_bytes(&CTX);
    let x = encrypted(&secret, &[0.5]).to_bytes(&CTX);
    let flipped = |bytes: &[u8], at: usize| {
        let mut out = bytes.to_vec();
        out[at] ^= 16;
        out
    };
    let register = |bytes: &[u8]| site.connect(&server).register_bytes(secret.key_id(), bytes);
    assert_eq!(why(register(&set[..set.len() - 1])), Refusal::Artefact);
    assert_eq!(why(register(&[])), Refusal::Artefact);
    for at in [0, 5, 9, 45, 60, 200, set.len() / 2, set.len() - 1] {
        assert_eq!(why(register(&flipped(&set, at))), Refusal::Artefact, "bit at {at}");
    }
    register(&set).unwrap();
    let ask =
        |input: &[&[u8]]| site.connect(&server).evaluate_bytes(secret.key_id(), input, 1 << 20);
    assert_eq!(why(ask(&[])), Refusal::Artefact);
    assert_eq!(why(ask(&[&x[..100]])), Refusal::Artefact);
    assert_eq!(why(ask(&[&x, &[0]])), Refusal::Artefact);
    for at in [0, 6, 50, 70, x.len() / 2, x.len() - 1] {
        assert_eq!(why(ask(&[&flipped(&x, at)])), Refusal::Artefact, "bit at {at}");
    }
    assert!(ask(&[&x]).is_ok());
}

#[test]
fn frames_are_checked_before_memory_is_taken() {
    let site = Site::new();
    let server = site.start(Limits::default());
    // An exabyte is announced; nothing of it is sent.
    for kind in [FrameKind::Register, FrameKind::Evaluate, FrameKind::Known] {
        let mut raw = site.raw(server.address());
        raw.write_all(&header(kind as u8, 1 << 60)).unwrap();
        let (code, message) = refused(&mut raw);
        assert_eq!(code, Refusal::Oversized as u8, "{message}");
    }
    let mut wrong = vec![
        header(FrameKind::Hello as u8, 64),
        header(FrameKind::Refused as u8, 1),
        header(99, 1),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ];
    for at in [4, 7] {
        let mut bytes = header(FrameKind::Known as u8, 16);
        bytes[at] += 1;
        wrong.push(bytes);
    }
    wrong.push(frame(FrameKind::Evaluate, &[1, 2, 3]));
    for bytes in wrong {
        let mut raw = site.raw(server.address());
        raw.write_all(&bytes).unwrap();
        assert_eq!(refused(&mut raw).0, Refusal::Protocol as u8, "{bytes:?}");
    }
    assert!(!site.connect(&server).knows(KeyId([0; 16])).unwrap());
}

#[test]
fn slow_clients_time_out_and_hold_nobody_up() {
    let site = Site::new();
    let limits = Limits {
        patience: Duration::from_millis(300),
        idle: Duration::from_millis(400),
        // A whole registration takes less than a second at this rate.
        bytes_per_second: 32 << 20,
        ..Limits::default()
    };
    let server = site.start(limits);
    let start = Instant::now();
    // Silent after the greeting; silent in the middle of a header; in the middle of a payload.
    let mut silent = site.raw(server.address());
    let mut half = site.raw(server.address());
    half.write_all(&FRAME_MAGIC).unwrap();
    let mut trickle = site.raw(server.address());
    trickle.write_all(&header(FrameKind::Known as u8, 16)).unwrap();
    trickle.write_all(&[0; 3]).unwrap();
    // And one that never shakes hands.
    let mut mute = TcpStream::connect(server.address()).unwrap();
    mute.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Meanwhile another client is served.
    let secret = SecretKey::generate(&CTX).unwrap();
    assert!(!site.connect(&server).knows(secret.key_id()).unwrap());
    for raw in [&mut silent, &mut half, &mut trickle] {
        assert_eq!(refused(raw).0, Refusal::Slow as u8);
    }
    assert_eq!(mute.read(&mut [0; 8]).unwrap_or(0), 0, "closed");
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn crowds_and_hoards_meet_their_limits() {
    let site = Site::new();
    let limits = Limits {
        connections: 1,
        stored_keys: 1,
        bytes_in_flight: 1 << 16,
        patience: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = site.start(limits);
    let first = site.connect(&server);
    assert!(Client::connect(server.address(), &site.client, Limits::default()).is_err());
    drop(first);
    let secret = SecretKey::generate(&CTX).unwrap();
    let retry = || {
        // The place is free once the server has noticed.
        (0..100).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Client::connect(server.address(), &site.client, Limits::default()).ok()
        })
    };
    // More than the whole budget.
    assert_eq!(why(retry().unwrap().register(&CTX, &keys(&secret))), Refusal::Full);
    drop(server);
    let server = site.start(Limits { stored_keys: 1, ..Limits::default() });
    site.connect(&server).register(&CTX, &keys(&secret)).unwrap();
    let another = SecretKey::generate(&CTX).unwrap();
    assert_eq!(why(site.connect(&server).register(&CTX, &keys(&another))), Refusal::Full);
}

#[test]
fn strangers_are_not_let_in() {
    let site = Site::new();
    let server = site.start(Limits::default());
    let stranger = Authority::new().unwrap().issue("client").unwrap();
    assert!(Client::connect(server.address(), &stranger, Limits::default()).is_err());
    // A client's certificate does not make a server.
    let job = Arc::new(Shifted(CTX.clone()));
    let store = KeyStore::open(&site.folder.path().join("other"), CTX.clone(), 1).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let posing = Server::bind(address, &site.client, job, store, Limits::default()).unwrap();
    let posing = posing.spawn().unwrap();
    assert!(Client::connect(posing.address(), &site.client, Limits::default()).is_err());
}

#[test]
fn a_head_through_the_wire() {
    let site = Site::new();
    let params = Params::TEST_N12_DEEP;
    let packing = Packing::dense(params.slots(), 4, 4).unwrap();
    let head = Head { packing, exponent: 2, row_sums: (0.05, 4.0), tolerance: 1e-5 };
    let job = Arc::new(HeadJob::new(head, &[Params::TEST_N12, params]).unwrap());
    let server = site.start_with(job, Limits::default());

    let mut client = site.connect(&server);
    assert!(HeadJob::from_description(client.description(), false).is_err(), "insecure");
    let job = HeadJob::from_description(client.description(), true).unwrap();
    let ctx = job.context();
    assert_eq!(client.parameter_hash(), ctx.parameter_hash());
    let secret = SecretKey::generate(ctx).unwrap();
    client.register(ctx, &secret.evaluation_keys(job.automorphisms()).unwrap()).unwrap();
    let x: Vec<f64> = (0..16).map(|i| f64::from(i * 7 % 11) / 6.0 - 0.8).collect();
    let y: Vec<f64> = (0..16).map(|i| f64::from(i * 5 % 13) / 8.0 - 0.7).collect();
    let slots = job.head().pack(&x, &y, &x).unwrap();
    let inputs: Vec<_> = [slots.q, slots.k, slots.v]
        .iter()
        .flatten()
        .map(|x| secret.encrypt(&ctx.encode_as(x, job.level(), Degree::One).unwrap()).unwrap())
        .collect();
    let out = client.evaluate(ctx, secret.key_id(), &inputs, job.outputs()).unwrap();
    let found = job.unpack(&secret.decrypt_real(&out[0]).unwrap()).unwrap();
    for (a, b) in found.iter().zip(job.head().exact(&x, &y, &x)) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
    let bad = client.description().replace("tokens\":4", "tokens\":3");
    assert!(HeadJob::from_description(&bad, true).is_err());
}
