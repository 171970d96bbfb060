//! Generated Verilog against the fixed-point kernels (bit for bit) and the
//! simulator (every pop and push, cycle for cycle), under random stalls.
//!
//! Needs `verilator` with a C++ compiler, and `yosys`. Without them the tests
//! fail where `CI` is set and say so elsewhere.
#![allow(clippy::unwrap_used)]

mod attention;
mod synthesis;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::Command;
use undertone_core::fixed::{
    edge_moe, linear::dot, recip::recip, requant::round_shift, shift::RowSum,
};
use undertone_fpga_sim::engine::Recorder;
use undertone_fpga_sim::graph::{FifoId, Graph, Phase, StageId, Window};
use undertone_fpga_sim::mapping::ScoreStages;
use undertone_fpga_sim::rtl::{self, Array, Bench, Design, Scores};
use undertone_fpga_sim::{stepped, timestamp};

/// Whether a tool runs; panics in CI if not.
fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success())
        || Command::new(tool).arg("-V").output().is_ok_and(|o| o.status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing: apt-get install {tool}");
        eprintln!("### {tool} IS MISSING: THE RTL WAS NOT TESTED. apt-get install {tool} ###");
    }
    found
}

fn gaps(rng: &mut ChaCha8Rng, n: usize, chance: f64, most: u64) -> Vec<u64> {
    (0..n).map(|_| if rng.random_bool(chance) { rng.random_range(1..=most) } else { 0 }).collect()
}

/// A stage that starts iteration i after `gaps[i]` more cycles than its interval asks for.
fn paced(g: &mut Graph, name: &str, gaps: &[u64], fifo: FifoId, source: bool) -> StageId {
    let mut program: Vec<Phase> = Vec::new();
    for gap in gaps {
        match program.last_mut() {
            Some(phase) if *gap == 0 => phase.iterations += 1,
            _ => {
                let (inputs, outputs) = if source {
                    (vec![], vec![Window::ALWAYS])
                } else {
                    (vec![Window::ALWAYS], vec![])
                };
                program.push(Phase { iterations: 1, gap: *gap, inputs, outputs });
            }
        }
    }
    let port = [(fifo, Window::ALWAYS)];
    let (ins, outs): (&[_], &[_]) = if source { (&[], &port) } else { (&port, &[]) };
    let stage = g.stage(name, 1, 1, 1, ins, outs);
    g.stages[stage.0].program = program;
    stage
}

/// A stream: gaps and tokens.
type Stream<T> = (Vec<u64>, Vec<T>);

/// A unit under test: what goes in, what must come out, and its graph.
struct Case {
    bench: Bench,
    inputs: Vec<Stream<u64>>,
    outputs: Vec<Stream<(u64, u64)>>,
    graph: Graph,
    in_fifos: Vec<FifoId>,
    out_fifos: Vec<FifoId>,
}

impl Case {
    /// `unit` adds the unit's stages between the FIFOs of inputs and outputs.
    fn new(
        rng: &mut ChaCha8Rng,
        design: Design,
        inputs: Vec<Vec<u64>>,
        outputs: Vec<Vec<(u64, u64)>>,
        unit: impl Fn(&mut Graph, &Design, &[FifoId], &[FifoId]),
    ) -> Self {
        let depth = |rng: &mut ChaCha8Rng| rng.random_range(1..=4);
        let bench = Bench {
            input_depths: design.inputs.iter().map(|_| depth(rng)).collect(),
            output_depths: design.outputs.iter().map(|_| depth(rng)).collect(),
            design,
        };
        let mut graph = Graph::default();
        let fifo = |g: &mut Graph, name: String, depth: u32| g.fifo(&name, depth.into(), 1);
        let in_fifos: Vec<_> = bench
            .input_depths
            .iter()
            .enumerate()
            .map(|(i, d)| fifo(&mut graph, format!("in{i}"), *d))
            .collect();
        let out_fifos: Vec<_> = bench
            .output_depths
            .iter()
            .enumerate()
            .map(|(o, d)| fifo(&mut graph, format!("out{o}"), *d))
            .collect();
        let inputs: Vec<_> =
            inputs.into_iter().map(|data| (gaps(rng, data.len(), 0.1, 6), data)).collect();
        let longest = inputs.iter().map(|i| i.1.len()).max().unwrap();
        let outputs: Vec<_> = outputs
            .into_iter()
            .map(|data| {
                // A sink now slower, now faster than what comes.
                let pace = 2 * longest.div_ceil(data.len()) as u64 + 1;
                (gaps(rng, data.len(), 0.2, 3 * pace), data)
            })
            .collect();
        for (i, (gaps, _)) in inputs.iter().enumerate() {
            paced(&mut graph, &format!("source{i}"), gaps, in_fifos[i], true);
        }
        unit(&mut graph, &bench.design, &in_fifos, &out_fifos);
        for (o, (gaps, _)) in outputs.iter().enumerate() {
            paced(&mut graph, &format!("sink{o}"), gaps, out_fifos[o], false);
        }
        Self { bench, inputs, outputs, graph, in_fifos, out_fifos }
    }

    /// A unit that answers every input.
    fn map(
        rng: &mut ChaCha8Rng,
        design: Design,
        data: Vec<u64>,
        f: impl Fn(u64) -> (u64, u64),
    ) -> Self {
        let n = data.len() as u64;
        let out = data.iter().map(|x| f(*x)).collect();
        Self::new(rng, design, vec![data], vec![out], |g, d, ins, outs| {
            g.stage(
                "unit",
                1,
                d.latency,
                n,
                &[(ins[0], Window::ALWAYS)],
                &[(outs[0], Window::ALWAYS)],
            );
        })
    }

    /// A unit that answers the last element of every row.
    fn rows(
        rng: &mut ChaCha8Rng,
        design: Design,
        rows: &[Vec<i32>],
        f: impl Fn(&[i32]) -> (u64, u64),
    ) -> Self {
        let data = rows
            .iter()
            .flat_map(|row| {
                let last = row.len() - 1;
                row.iter()
                    .enumerate()
                    .map(move |(i, x)| u64::from(*x as u32) | u64::from(i == last) << 32)
            })
            .collect();
        let out = rows.iter().map(|r| f(r)).collect();
        let lengths: Vec<u64> = rows.iter().map(|r| r.len() as u64).collect();
        Self::new(rng, design, vec![data], vec![out], |g, d, ins, outs| {
            let s = g.stage(
                "unit",
                1,
                d.latency,
                1,
                &[(ins[0], Window::ALWAYS)],
                &[(outs[0], Window::ALWAYS)],
            );
            g.stages[s.0].program = lengths
                .iter()
                .map(|n| Phase {
                    iterations: *n,
                    gap: 0,
                    inputs: vec![Window::ALWAYS],
                    outputs: vec![Window::last_of(*n)],
                })
                .collect();
        })
    }
}

fn random_rows(rng: &mut ChaCha8Rng, rows: usize, spread: i32) -> Vec<Vec<i32>> {
    (0..rows)
        .map(|_| {
            let wide = if rng.random_bool(0.2) { 8 } else { 1 };
            let n = rng.random_range(1..=7);
            (0..n).map(|_| rng.random_range(-spread..=spread) / wide).collect()
        })
        .collect()
}

fn cases(rng: &mut ChaCha8Rng) -> Vec<Case> {
    let rows = 100_000;
    let mut cases = Vec::new();
    let mut octaves = random_rows(rng, rows, 40 << 10);
    octaves.push(vec![i32::MAX, i32::MIN, 0]);
    octaves.push(vec![i32::MIN; 5]);
    cases.push(Case::rows(rng, rtl::shift_sum(), &octaves, |row| {
        let mut sum = RowSum::<10>::EMPTY;
        row.iter().for_each(|x| sum.push(*x));
        // {max[32], sum[40]}
        let max = u64::from(sum.max as u32);
        (sum.sum | max << 40, max >> 24)
    }));
    let naturals = random_rows(rng, rows, 20 << 22);
    cases.push(Case::rows(rng, rtl::edge_moe_sum(), &naturals, |row| {
        let mut sum = edge_moe::SinglePass::EMPTY;
        for x in row {
            sum.push_wrapping(edge_moe::Q10p22::from_bits(*x)).unwrap();
        }
        (u64::from(sum.sum.to_bits() as u32) | u64::from(sum.bias.to_bits() as u32) << 32, 0)
    }));
    let distances =
        (0..rows).map(|_| u64::from(rng.random::<u32>() >> rng.random_range(0..12))).collect();
    cases.push(Case::map(rng, rtl::edge_moe_exp(), distances, |t| {
        (u64::from(edge_moe::exp_neg_floor(t as u32)), 0)
    }));
    let mut sums: Vec<u64> =
        (0..rows).map(|_| rng.random::<u64>() >> rng.random_range(0..64)).collect();
    sums.extend([0, 1, u64::MAX, 1 << 63, 1 << 31, (1 << 32) - 1]);
    cases.push(Case::map(rng, rtl::reciprocal(), sums, |x| match recip(x) {
        Some(r) => (u64::from(r.mantissa) | u64::from(r.exponent as u8) << 32, 0),
        // No reciprocal: mantissa 0, and the exponent of 63 leading zeros.
        None => (u64::from((63i32 - 95) as u8) << 32, 0),
    }));
    let mut args: Vec<u64> = (0..rows)
        .map(|_| u64::from((rng.random::<i32>() >> rng.random_range(0..16)) as u32))
        .collect();
    args.extend([0, 0x8000_0000, 0x7fff_ffff, 0xffff_ffff].map(|x: u32| u64::from(x)));
    // In every segment: its ends, and the position where the product ends in ones, so that a
    // rounding that is not a floor shows.
    for (segment, pair) in edge_moe::GELU_GAP.windows(2).enumerate() {
        let rise = pair[1].wrapping_sub(pair[0]);
        // Newton's inverse modulo a power of two; rises are made odd by dropping zeros.
        let odd = rise >> rise.trailing_zeros().min(31);
        let inverse =
            (0..5).fold(odd, |x, _| x.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(x))));
        for within in [0, 1, 1 << 16, (1 << 17) - 1, inverse.wrapping_neg() & ((1 << 17) - 1)] {
            let x = ((segment as u32) << 17) | within;
            args.extend([u64::from(x), u64::from(x.wrapping_neg())]);
        }
    }
    cases.push(Case::map(rng, rtl::gelu(), args, |x| {
        // The circuit's negation of -512 is itself: beyond the table, so 0 as in the kernel.
        let y = edge_moe::gelu(edge_moe::Q10p22::from_bits(x as u32 as i32));
        (u64::from(y.to_bits() as u32), 0)
    }));
    cases.push(linear_case(rng));
    cases.push(scores_case(rng));
    cases.push(attention::case(rng));
    cases
}

fn linear_case(rng: &mut ChaCha8Rng) -> Case {
    let a = Array {
        rows: 4,
        columns: 4,
        ins: 3,
        outs: 2,
        input_bits: 16,
        weight_bits: 8,
        sum_bits: 32,
    };
    let (inputs, outputs) = ((a.rows * a.ins) as usize, (a.columns * a.outs) as usize);
    let weights: Vec<Vec<i32>> =
        (0..outputs).map(|_| (0..inputs).map(|_| rng.random::<i8>().into()).collect()).collect();
    let tokens: Vec<Vec<i16>> =
        (0..20_000).map(|_| (0..inputs).map(|_| rng.random()).collect()).collect();
    let pack = |words: &[i16]| words.iter().rev().fold(0u64, |p, w| p << 16 | u64::from(*w as u16));
    let data = tokens.iter().flat_map(|t| t.chunks(4).map(pack)).collect();
    let out = tokens
        .iter()
        .flat_map(|t| {
            let sums: Vec<u64> = weights
                .iter()
                .map(|w| {
                    let w: Vec<i8> = w.iter().map(|w| *w as i8).collect();
                    u64::from(dot(t, &w) as i32 as u32)
                })
                .collect();
            sums.chunks(4).map(|s| (s[0] | s[1] << 32, s[2] | s[3] << 32)).collect::<Vec<_>>()
        })
        .collect();
    let (ins, blocks, n) = (u64::from(a.ins), u64::from(a.ins * a.outs), tokens.len() as u64);
    Case::new(rng, rtl::array(a, &weights), vec![data], vec![out], |g, d, i, o| {
        g.stage(
            "linear",
            1,
            d.latency,
            n * blocks,
            &[(i[0], Window::prefix(ins, blocks))],
            &[(o[0], Window::last_of(ins))],
        );
    })
}

fn scores_case(rng: &mut ChaCha8Rng) -> Case {
    let s = Scores { tokens: 7, lanes: 3, blocks: 2, multiplier: 1, shift: 14, depth: 2 };
    let (n, lanes, blocks, runs) = (7usize, 3usize, 2usize, 1500usize);
    let (mut queries, mut keys, mut scores, mut info) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let pack = |words: &[i16]| words.iter().rev().fold(0u64, |p, w| p << 16 | u64::from(*w as u16));
    for _ in 0..runs {
        let mut draw = || -> Vec<Vec<i16>> {
            (0..n).map(|_| (0..4 * blocks).map(|_| rng.random()).collect()).collect()
        };
        let (q, k) = (draw(), draw());
        let score =
            |query: usize, key: usize| round_shift(dot(&q[query], &k[key]), s.shift as i32) as i32;
        queries.extend(q.iter().flat_map(|t| t.chunks(4).map(pack)));
        let rounds = n.div_ceil(lanes);
        let rest = (n + lanes - 1) % lanes;
        let steps: Vec<(usize, usize)> = (0..rounds)
            .flat_map(|r| (0..n).map(move |key| (r, key)))
            .chain((0..rest).map(|key| (rounds, key)))
            .collect();
        // What a lane computes before its first and after its last query is idle work on old
        // blocks; follow the lane's buffer to know it.
        let mut buffer: Vec<Option<usize>> = vec![None; lanes];
        for (round, key) in steps {
            keys.extend(k[key].chunks(4).map(pack));
            if key < lanes && round * lanes + key < n {
                buffer[key] = Some(round * lanes + key);
            }
            for lane in 0..lanes {
                scores.push(buffer[lane].map(|q| score(q, key)));
                let query = if key >= lane {
                    Some(round * lanes + lane)
                } else {
                    (round * lanes + lane).checked_sub(lanes)
                };
                let end = if lane == 0 { n - 1 } else { lane - 1 };
                if let Some(query) =
                    query.filter(|q| *q < n && key == end && (key >= lane || round > 0))
                {
                    let mut sum = RowSum::<10>::EMPTY;
                    for step in 0..n {
                        sum.push(score(query, (lane + step) % n));
                    }
                    let max = u64::from(sum.max as u32);
                    info.push((sum.sum | max << 40, max >> 24));
                }
            }
        }
    }
    // Before a lane's first query of the very first run its buffer is unknown.
    let out = scores.iter().map(|s| (s.map_or(u64::MAX, |s| u64::from(s as u32)), 0)).collect();
    Case::new(rng, rtl::scores(s), vec![queries, keys], vec![out, info], |g, _, i, o| {
        let first = g.stages.len();
        let stages = ScoreStages {
            tokens: 7,
            lanes: 3,
            blocks: 2,
            products: (1, rtl::PRODUCTS),
            statistics: (1, rtl::STATISTICS),
            between: (2, 96),
        };
        stages.add(g, i[0], i[1], o[0], Some(o[1]));
        repeat(g, first, runs);
    })
}

/// Runs the stages from `first` on one program after another.
fn repeat(g: &mut Graph, first: usize, runs: usize) {
    for stage in &mut g.stages[first..] {
        let once = stage.program.clone();
        stage.program = (0..runs).flat_map(|_| once.clone()).collect();
    }
}

struct Reader<'a>(&'a [u8]);
impl Reader<'_> {
    fn words(&mut self) -> Vec<u64> {
        let mut next = || {
            let (head, rest) = self.0.split_first_chunk::<8>().unwrap();
            self.0 = rest;
            u64::from_le_bytes(*head)
        };
        let n = next();
        (0..n).map(|_| next()).collect()
    }
}

fn verilate(benches: &[Bench], dir: &std::path::Path) {
    std::fs::write(dir.join("top.v"), rtl::top(benches)).unwrap();
    std::fs::write(dir.join("main.cpp"), rtl::harness(benches)).unwrap();
    let out = Command::new("verilator")
        .current_dir(dir)
        .args([
            "--cc",
            "top.v",
            "--exe",
            "main.cpp",
            "--top-module",
            "top",
            "--build",
            "-O3",
            "-j",
            "2",
        ])
        .args(["-Wno-fatal", "-Wno-WIDTH", "-Wno-UNUSED", "-CFLAGS", "-O1", "--Mdir", "obj"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn rtl_equals_kernels_and_simulator() {
    if !have("verilator") {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let cases = cases(&mut rng);
    let benches: Vec<Bench> = cases.iter().map(|c| c.bench.clone()).collect();
    let dir = tempfile::tempdir().unwrap();
    verilate(&benches, dir.path());
    let mut input = Vec::new();
    let mut put = |words: &[u64]| words.iter().for_each(|w| input.extend(w.to_le_bytes()));
    for (gaps, data) in cases.iter().flat_map(|c| &c.inputs) {
        put(&[gaps.len() as u64]);
        put(gaps);
        put(data);
    }
    for (gaps, _) in cases.iter().flat_map(|c| &c.outputs) {
        put(&[gaps.len() as u64]);
        put(gaps);
    }
    let (from, to) = (dir.path().join("in.bin"), dir.path().join("out.bin"));
    std::fs::write(&from, &input).unwrap();
    let start = std::time::Instant::now();
    let run = Command::new(dir.path().join("obj/Vtop"))
        .arg(&from)
        .arg(&to)
        .arg("50000000")
        .output()
        .unwrap();
    println!(
        "{} in {:.2} s for all units together",
        String::from_utf8_lossy(&run.stdout).trim(),
        start.elapsed().as_secs_f64()
    );
    assert!(
        run.status.success(),
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    let bytes = std::fs::read(&to).unwrap();
    let mut reader = Reader(&bytes);
    let pops: Vec<Vec<Vec<u64>>> =
        cases.iter().map(|c| c.inputs.iter().map(|_| reader.words()).collect()).collect();
    for (case, pops) in cases.iter().zip(pops) {
        let name = &case.bench.design.name;
        let mut record = Recorder::new(&case.graph);
        let fast =
            timestamp::run_with(&case.graph, timestamp::Options::default(), &mut record).unwrap();
        assert_eq!(fast, stepped::run(&case.graph).unwrap(), "{name}");
        for (i, pops) in pops.iter().enumerate() {
            same(name, "pops", pops, &record.pops[case.in_fifos[i].0]);
        }
        for (o, (_, want)) in case.outputs.iter().enumerate() {
            let (pushes, lo, hi) = (reader.words(), reader.words(), reader.words());
            same(name, "pushes", &pushes, &record.pushes[case.out_fifos[o].0]);
            assert_eq!(lo.len(), want.len(), "{name}: number of outputs");
            for (i, ((lo, hi), (x, y))) in lo.iter().zip(&hi).zip(want).enumerate() {
                if *x != u64::MAX {
                    assert_eq!((lo, hi), (x, y), "{name} output {o}, token {i}");
                }
            }
        }
        println!(
            "{name}: {} results bit for bit, {} pushes and pops cycle for cycle, {} cycles",
            case.outputs.iter().map(|o| o.1.len()).sum::<usize>(),
            pops.iter().map(Vec::len).sum::<usize>()
                + case.outputs.iter().map(|o| o.1.len()).sum::<usize>(),
            fast.cycles
        );
    }
}

fn same(name: &str, what: &str, rtl: &[u64], simulator: &[u64]) {
    assert_eq!(rtl.len(), simulator.len(), "{name}: number of {what}");
    if let Some(i) = (0..rtl.len()).find(|i| rtl[*i] != simulator[*i]) {
        panic!("{name}: {what} differ at {i}: RTL cycle {}, simulator {}", rtl[i], simulator[i]);
    }
}
