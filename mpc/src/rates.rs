use crate::channel::tls::{Listener, Role, connect};
use crate::channel::{Limits, Link as _, Network};
use crate::cost::{Cost, Work};
use crate::dcf::ComparisonKeys;
use crate::protocol::fit;
use crate::ring::Product;
use crate::{Error, Format, Result, run_locally};
use std::time::{Duration, Instant};
use undertone_core::{Form, Function, Shape};
use undertone_tls::Authority;

/// How fast a machine does the local work of a party, in seconds a unit.
///
/// A plan's seconds of compute are its [`Work`] at these rates: an estimate for this machine, with
/// nothing else on the processor of either party.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// A hash of a comparison tree.
    pub hash: f64,
    /// A multiply-add of a matrix product.
    pub product: f64,
    /// A word of masks or relations, all that is done with it included.
    pub word: f64,
    /// What an exchange takes beyond the network: two processes that wake each other, TLS between
    /// them.
    pub exchange: f64,
}

/// The least of a few runs: what the machine can do when nothing interferes.
fn least<T>(times: usize, mut f: impl FnMut() -> T) -> f64 {
    let once = |f: &mut dyn FnMut() -> T| {
        let start = Instant::now();
        std::hint::black_box(f());
        start.elapsed().as_secs_f64()
    };
    (0..times).map(|_| once(&mut f)).fold(f64::INFINITY, f64::min)
}

/// The mean excess of exchanges over the delay that they are held back for, between two threads
/// over mutual TLS.
fn exchange() -> Result<f64> {
    const ROUNDS: u32 = 40;
    const BYTES: usize = 1 << 14;
    let network = Network { delay: Duration::from_millis(4), bandwidth: 1e12 };
    let authority = Authority::new()?;
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listener =
        Listener::bind(any, &authority.issue(Role::Server.subject())?, Limits::default())?;
    let address = listener.address()?;
    let serving = std::thread::spawn(move || {
        let link = listener.accept()?;
        link.emulate(network);
        for _ in 0..=ROUNDS {
            link.exchange(1, vec![0; BYTES], BYTES)?;
        }
        Ok::<(), Error>(())
    });
    let link = connect(
        address,
        Role::Server,
        &authority.issue(Role::Client.subject())?,
        Limits::default(),
    )?;
    link.emulate(network);
    link.exchange(1, vec![0; BYTES], BYTES)?;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        link.exchange(1, vec![0; BYTES], BYTES)?;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(ROUNDS);
    serving.join().unwrap_or(Err(Error::Closed { operation: "measuring" }))?;
    Ok((each - network.delay.as_secs_f64()).max(0.0))
}

impl Rates {
    /// Measures this machine in about half a second: comparison keys, a matrix product, and for
    /// words a GELU between two threads, whose hashes are taken off.
    ///
    /// # Errors
    /// None that is expected: those of a program in one process.
    pub fn measure() -> Result<Self> {
        const N: usize = 2048;
        const LEVELS: u32 = 40;
        let roots = [0, 1].map(|_| (0..N).map(|_| rand::random()).collect::<Vec<u128>>());
        let points: Vec<u64> = (0..N).map(|_| rand::random()).collect();
        let stored = ComparisonKeys::generate(&points, LEVELS, [&roots[0], &roots[1]]);
        let [root, _] = roots;
        let hash = ComparisonKeys::read(&stored, LEVELS, root).map_or(0.0, |keys| {
            least(7, || keys.evaluate(0, &points)) / (N as f64 * f64::from(LEVELS))
        });
        let of = Product { batch: 1, n: 64, k: 128, m: 128, form: Form::Nn, shared: false };
        let (a, b) = (vec![3; of.left()], vec![5; of.right()]);
        let mut out = vec![0; of.len()];
        let product =
            least(7, || of.accumulate(&a, &b, false, &mut out)) / (of.n * of.k * of.m) as f64;

        let gelu = fit(Function::Gelu, 5e-5)?;
        let shape = Shape::new(1, 64, 128);
        let seconds = std::sync::Mutex::new(f64::INFINITY);
        let mut work = Work::default();
        for _ in 0..3 {
            let local = run_locally("rates", Format::default(), |mpc| {
                let x = mpc.input(0, shape, Some(&vec![0.5; shape.len()]))?;
                let x = mpc.narrow(&mpc.share(&x), 32);
                let start = Instant::now();
                mpc.apply(&x, &gelu)?;
                if mpc.party().is_some() {
                    let took = start.elapsed().as_secs_f64();
                    let mut least =
                        seconds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    *least = least.min(took);
                }
                Ok(())
            })?;
            work = local.plan.works().fold(Work::default(), |sum, (_, _, w)| sum.plus(*w));
        }
        let seconds = seconds.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let rest = (seconds - hash * work.hashes as f64).max(0.0);
        let word = rest / work.words.max(1) as f64;
        Ok(Self { hash, product, word, exchange: exchange()? })
    }

    /// Predicted seconds on a network: depth × (one-way delay + what an exchange takes) + bytes /
    /// bandwidth + compute.
    #[must_use]
    pub fn latency(&self, cost: &Cost, work: &Work, network: &Network) -> f64 {
        let delay = network.delay.as_secs_f64() + self.exchange;
        cost.seconds(delay, network.bandwidth, self.seconds(work))
    }

    /// Seconds that one party computes.
    #[must_use]
    pub fn seconds(&self, work: &Work) -> f64 {
        self.hash * work.hashes as f64
            + self.product * work.products as f64
            + self.word * work.words as f64
    }
}
