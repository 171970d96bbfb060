//! A Power-Softmax head on exact encrypted integers, and the argmax of its first row.
//!
//! `cargo run --release -p undertone-he --features tfhe --example tfhe [bits n d [input bits]]`
//!
//! For both forms of products: bootstraps planned and counted, time (of all processors together,
//! and on the clock), whether every integer equals
//! the circuit in the clear, the error against the exact head, the probability of a failure.

use std::sync::Arc;
use std::time::Instant;

use cpu_time::ProcessTime;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use undertone_core::Shape;
use undertone_he::tfhe::{Clear, Engine, Head, Integers, Keys, Ledger, Precision, Products, Tfhe};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let given: Vec<usize> =
        std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let at = |i: usize, or: usize| given.get(i).copied().unwrap_or(or);
    let (bits, tokens, features, input) = (at(0, 6), at(1, 4), at(2, 2), at(3, 3));
    let precision = Precision::of(bits as u32).ok_or("bits: 4, 6 or 8")?;
    let end = 1i64 << (input.clamp(1, 8) - 1);
    let mut head = Head {
        tokens,
        features,
        exponent: 2,
        input: (-end, end - 1),
        unit: 0,
        row_sums: (1.0, 1.0),
    };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    // The greatest row sum is calibrated on public data. Those below a quarter of it are taken as a
    // quarter: tables of this size do not divide over a wider range.
    let mut most = 0.0f64;
    for _ in 0..200 {
        most = most.max(head.measure_row_sums(&draw(&head, &mut rng)?).1);
    }
    head.row_sums = (most / 4.0, most);
    let [lo, hi] = [most / 4.0, most];

    let start = Instant::now();
    let (keys, server) = Keys::generate(precision);
    let server = Arc::new(server);
    println!(
        "n = {tokens}, d = {features}, p = 2, {input}-bit inputs, tables of 2^{bits}, row sums \
         {lo}..={hi}; keys in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    println!(
        "{:>8} {:>9} {:>9} {:>8} {:>8} {:>10} {:>6} {:>10} {:>14}",
        "products",
        "planned",
        "counted",
        "cpu s",
        "wall s",
        "ms each",
        "equal",
        "worst",
        "log2 p(fail)"
    );
    // An input of which the calibration is true.
    let x = loop {
        let x = draw(&head, &mut rng)?;
        let (least, most) = head.measure_row_sums(&x);
        if (lo..=hi).contains(&least) && most <= hi {
            break x;
        }
    };
    for products in [Products::Tables, Products::Squares] {
        let ledger = Arc::new(Ledger::new(precision.bits(), precision.noise_limit()));
        head.run(&ledger, products, head.planned_inputs())?;
        let clear = Arc::new(Clear::new(precision.bits(), precision.noise_limit()));
        let again = head.admit(x.q.clone(), x.k.clone(), x.v.clone())?;
        let wanted = head.run(&clear, products, again)?;
        let encrypted = keys.encrypt_head(&server, &x, head.input)?;
        let before = server.bootstraps();
        let (start, on_cpu) = (Instant::now(), ProcessTime::now());
        let out = head.run(&server, products, encrypted)?;
        let (wall, seconds) = (start.elapsed().as_secs_f64(), on_cpu.elapsed().as_secs_f64());
        let counted = server.bootstraps() - before;
        let found = keys.decrypt(&server, &out);
        let real = reals(&out, &found);
        let errors = real.iter().zip(head.exact(&x)).map(|(a, b)| (a - b).abs());
        println!(
            "{:>8} {:>9} {:>9} {:>8.1} {:>8.1} {:>10.1} {:>6} {:>10.3} {:>14.1}",
            format!("{products:?}").to_lowercase(),
            ledger.bootstraps(),
            counted,
            seconds,
            wall,
            1e3 * seconds / counted as f64,
            if found == wanted.cells() { "yes" } else { "NO" },
            errors.fold(0.0, f64::max),
            precision.log2_failure() + (counted as f64).log2(),
        );
        if counted != ledger.bootstraps() || found != wanted.cells() {
            return Err("the encrypted run differs from its plan or from the integers".into());
        }
    }

    // Which feature of the first token is largest, found under encryption.
    let row = &x.v[..features];
    let cells = row.iter().map(|&x| keys.encrypt(&server, x, head.input));
    let mut world = Tfhe::new(server.clone(), Products::Tables);
    let row_shape = Shape::new(1, 1, features);
    let values = world.admit(row_shape, head.input, 0, cells.collect::<Result<_, _>>()?)?;
    let (before, on_cpu) = (server.bootstraps(), ProcessTime::now());
    let index = world.argmax(&values)?;
    let seconds = on_cpu.elapsed().as_secs_f64();
    println!(
        "argmax of {row:?}: {} ({} bootstraps, {seconds:.2} s of processor time)",
        keys.decrypt(&server, &index)[0],
        server.bootstraps() - before,
    );
    Ok(())
}

fn draw(head: &Head, rng: &mut ChaCha20Rng) -> Result<undertone_he::tfhe::HeadInputs<i64>, Error> {
    let mut some = || {
        let count = head.tokens * head.features;
        (0..count).map(|_| rng.random_range(head.input.0..=head.input.1)).collect::<Vec<i64>>()
    };
    Ok(head.admit(some(), some(), some())?)
}

fn reals<C>(x: &Integers<C>, integers: &[i64]) -> Vec<f64> {
    integers.iter().map(|&i| i as f64 * f64::from(x.unit()).exp2()).collect()
}
