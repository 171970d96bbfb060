//! Prints the table of docs/mpc.md from the declarations that the tests check.
//!
//! ```sh
//! cargo run -p undertone-mpc --example costs
//! ```
#![allow(missing_docs)]

use undertone_core::Function;
use undertone_mpc::protocol::{declared, fit};
use undertone_mpc::{Cost, Format};

fn row(name: &str, n: usize, cost: Cost) {
    let [client, server] = cost.preprocessing;
    println!(
        "| {name} | {} | {} | {:.3} | {:.1} | {:.1} |",
        cost.exchanges,
        cost.sent[0],
        cost.sent[0] as f64 / n as f64,
        client as f64 / n as f64,
        server as f64 / n as f64,
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let f = Format::default().fraction;
    let (r, c) = (64, 64);
    let n = r * c;
    let gelu = fit(Function::Gelu, 5e-5)?;
    let missing = "no protocol for this domain";
    println!(
        "| protocol, 64 × 64 | exchanges | bytes a party | bytes an element | preprocessing an element: client | server |"
    );
    println!("|---|---|---|---|---|---|");
    row("open", n, declared::open(&[(n, 64)]));
    row("product of open tensors", n, declared::mul(n, 64));
    row("settle (truncate, ±1 unit)", n, declared::settle(n, 64, 2 * f, f));
    row("floor (truncate exactly)", n, declared::floor(n, 64, f));
    row("x ≥ 0", n, declared::is_nonnegative(n, 64));
    row("ReLU", n, declared::relu(n, 64));
    row("ReLU, 32 bits", n, declared::relu(n, 32));
    row("row maximum, 64 bits", n, declared::max_rows(r, c, 64));
    row("row maximum, 32 bits", n, declared::max_rows(r, c, 32));
    row("row argmax", n, declared::argmax_rows(r, c, 64));
    row("exp, 32 bits", n, declared::exp(n, 32, f));
    row("GELU", n, declared::apply(n, 64, f, &gelu));
    let (reciprocal, _) =
        declared::inverse(n, Function::Reciprocal, (1.0, 64.0), 3e-5, f).ok_or(missing)?;
    row("reciprocal on [1, 64]", n, reciprocal);
    let (root, _) = declared::inverse(n, Function::Rsqrt, (0.01, 100.0), 3e-5, f).ok_or(missing)?;
    row("x^−1/2 on [0.01, 100]", n, root);
    row("softmax", n, declared::softmax(r, c, 4, f).ok_or(missing)?);
    row("ReLU-softmax", n, declared::relu_softmax(r, c, 4, 1e-5, f).ok_or(missing)?);
    row("2Quad", n, declared::two_quad(r, c, 4, 1e-5, f).ok_or(missing)?);
    row("scaling", n, Cost::default());
    let norm = declared::layer_norm(r, c, true, (0.1, 20.0), f).ok_or(missing)?;
    row("LayerNorm with gain and bias", n, norm);
    Ok(())
}
