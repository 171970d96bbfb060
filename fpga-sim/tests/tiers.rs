//! The engines agree, start by start, on random networks.
#![allow(clippy::unwrap_used)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use undertone_fpga_sim::engine::Recorder;
use undertone_fpga_sim::graph::{Access, Direction, Dram, Graph, Port, StageId, Window};
use undertone_fpga_sim::timestamp::Options;
use undertone_fpga_sim::{Error, stepped, timestamp};

fn window(rng: &mut ChaCha8Rng, iterations: u64, longest: u64) -> Window {
    let period = rng.random_range(1..=longest);
    let from = rng.random_range(0..period);
    let to = rng.random_range(from + 1..=period);
    let until = if rng.random_bool(0.3) { rng.random_range(1..=iterations) } else { u64::MAX };
    Window { period, from, to, step: rng.random_range(1..=3), until }
}

/// A random network: layers of stages, every FIFO's reader given a program
/// that takes exactly the tokens its writer makes.
fn network(rng: &mut ChaCha8Rng, most_iterations: u64, longest: u64) -> Graph {
    let mut g = Graph::default();
    let layers = rng.random_range(2..=5);
    // Tokens not yet read: FIFO and how many tokens it carries.
    let mut open: Vec<(undertone_fpga_sim::graph::FifoId, u64)> = Vec::new();
    for layer in 0..layers {
        let width = rng.random_range(1..=2);
        for w in 0..width {
            let take = if layer == 0 { 0 } else { open.len().min(rng.random_range(1..=2)) };
            let inputs: Vec<_> =
                (0..take).map(|_| open.remove(rng.random_range(0..open.len()))).collect();
            // One phase per input keeps the balance: read all of one input in its own pattern,
            // or all inputs at once where their counts are equal.
            let most = inputs.iter().map(|x| x.1).max().unwrap_or(0);
            let iterations = if most == 0 {
                rng.random_range(1..=most_iterations)
            } else {
                most * rng.random_range(1..=3) + rng.random_range(0..4)
            };
            let ins: Vec<_> = inputs
                .iter()
                .map(|(f, n)| {
                    let stretch = iterations / n;
                    let w = if stretch > 1 && rng.random_bool(0.5) {
                        Window::first_of(stretch).until((n - 1) * stretch + 1)
                    } else {
                        Window::ALWAYS.until(*n)
                    };
                    (*f, w)
                })
                .collect();
            let mut outs = Vec::new();
            if layer + 1 < layers {
                for o in 0..rng.random_range(1..=2) {
                    let w_out = window(rng, iterations, longest);
                    let n = w_out.count(iterations);
                    if n > 0 {
                        let f = g.fifo(&format!("f{layer}.{w}.{o}"), rng.random_range(1..=5), 32);
                        outs.push((f, w_out));
                        open.push((f, n));
                    }
                }
            }
            let s = g.stage(
                &format!("s{layer}.{w}"),
                rng.random_range(1..=4),
                rng.random_range(1..=9),
                iterations,
                &ins,
                &outs,
            );
            memory(rng, &mut g, s);
        }
    }
    // Whatever is still open gets a sink.
    for (k, (f, n)) in open.into_iter().enumerate() {
        let s = g.stage(
            &format!("sink{k}"),
            rng.random_range(1..=3),
            1,
            n,
            &[(f, Window::ALWAYS)],
            &[],
        );
        memory(rng, &mut g, s);
    }
    g
}

fn memory(rng: &mut ChaCha8Rng, g: &mut Graph, s: StageId) {
    if !rng.random_bool(0.4) {
        return;
    }
    let timed = rng.random_bool(0.5);
    let port = g.port(Port {
        name: format!("p{}", s.0),
        beat_bytes: 32,
        burst_beats: rng.random_range(1..=16),
        outstanding: rng.random_range(1..=4),
        read_overhead: rng.random_range(0..=20),
        write_overhead: rng.random_range(0..=20),
        dram: if timed {
            Dram { banks: 4, row_bytes: 256, hit: 3, miss: 11, refresh_interval: 97, refresh: 13 }
        } else {
            Dram::default()
        },
    });
    let direction = if rng.random_bool(0.5) { Direction::Read } else { Direction::Write };
    g.bind(s, Access { port, direction, address: 64, region_bytes: 4096 });
}

#[test]
fn timestamp_equals_stepped_start_by_start() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut agreed, mut stuck) = (0, 0);
    while agreed < 6000 {
        let g = network(&mut rng, 200, 6);
        let (mut a, mut b) = (Recorder::new(&g), Recorder::new(&g));
        let slow = stepped::run_with(&g, &mut a);
        let fast = timestamp::run_with(&g, Options::default(), &mut b);
        match (slow, fast) {
            (Ok(slow), Ok(fast)) => {
                assert_eq!(a.starts, b.starts, "starts of {g:?}");
                assert_eq!(a.pushes, b.pushes, "pushes of {g:?}");
                assert_eq!(slow, fast, "{g:?}");
                let leapt = timestamp::run(&g).unwrap();
                assert_eq!(slow, leapt, "leaps of {g:?}");
                agreed += 1;
            }
            (
                Err(Error::Deadlock { at_cycle: x, .. }),
                Err(Error::Deadlock { at_cycle: y, .. }),
            ) => {
                assert_eq!(x, y, "{g:?}");
                stuck += 1;
            }
            (slow, fast) => panic!("{slow:?} against {fast:?} on {g:?}"),
        }
    }
    assert!(stuck > 0, "the generator should also make networks that deadlock");
}

/// Networks that run long enough to repeat themselves, with windows inside windows: leaps change
/// no count of any stage.
#[test]
fn leaps_change_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for round in 0..3000 {
        let longest = [6, 40, 300][round % 3];
        let g = network(&mut rng, 4000, longest);
        let plain = timestamp::run_with(
            &g,
            Options { leap: false },
            &mut undertone_fpga_sim::engine::Blind,
        );
        match (plain, timestamp::run(&g)) {
            (Ok(plain), Ok(leapt)) => assert_eq!(plain, leapt, "{g:?}"),
            (
                Err(Error::Deadlock { at_cycle: x, .. }),
                Err(Error::Deadlock { at_cycle: y, .. }),
            ) => {
                assert_eq!(x, y, "{g:?}");
            }
            (plain, leapt) => panic!("{plain:?} against {leapt:?} on {g:?}"),
        }
    }
}
