//! The whole attention pipeline.

use crate::{Case, repeat};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use undertone_fpga_sim::mapping::{AttentionTail, ScoreStages};
use undertone_fpga_sim::rtl::{self, Scores};

/// One whole head of the attention that the tests generate: eight tokens on three lanes end
/// with a partial round.
pub(crate) const ATTENTION: Scores =
    Scores { tokens: 8, lanes: 3, blocks: 2, multiplier: 1_518_500_250, shift: 47, depth: 2 };

/// Q, K and V in, attention out: equal to the core's kernel over the keys in each lane's order.
pub(crate) fn case(rng: &mut ChaCha8Rng) -> Case {
    use undertone_core::fixed::{Requant, attention};
    let (n, lanes, blocks, runs) = (8usize, 3usize, 2usize, 13_000usize);
    let score = Requant { multiplier: ATTENTION.multiplier as i32, shift: ATTENTION.shift as i32 };
    let pack = |words: &[i16]| words.iter().rev().fold(0u64, |p, w| p << 16 | u64::from(*w as u16));
    let (mut queries, mut keys, mut values, mut out) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        let mut draw = |columns: usize, shift: u32| -> Vec<Vec<i16>> {
            (0..n).map(|_| (0..columns).map(|_| rng.random::<i16>() >> shift).collect()).collect()
        };
        // From weights that are all alike to one key that takes all.
        let (q, k) = (draw(4 * blocks, run as u32 % 7), draw(4 * blocks, run as u32 % 3));
        let mut v = draw(4, 0);
        if run % 11 == 0 {
            // Quotients at the ends of their format.
            v.iter_mut().for_each(|row| row.copy_from_slice(&[i16::MAX, i16::MIN, -1, 1]));
        }
        queries.extend(q.iter().flat_map(|t| t.chunks(4).map(pack)));
        let steps = (0..n.div_ceil(lanes)).flat_map(|_| 0..n).chain(0..(n + lanes - 1) % lanes);
        for key in steps {
            keys.extend(k[key].chunks(4).map(pack));
            values.push(pack(&v[key]));
        }
        for (query, row) in q.iter().enumerate() {
            let around = |m: &[Vec<i16>]| -> Vec<i16> {
                (0..n).flat_map(|i| m[(query % lanes + i) % n].clone()).collect()
            };
            let (k, v) = (around(&k), around(&v));
            let rows = |data, rows, columns| attention::Rows::new(data, rows, columns, columns);
            let head = attention::Head {
                q: rows(row, 1, 4 * blocks).unwrap(),
                k: rows(&k, n, 4 * blocks).unwrap(),
                v: rows(&v, n, 4).unwrap(),
                score,
                mask: attention::Mask::default(),
            };
            let (mut scratch, mut y) = ([0i64; 4], [0i16; 4]);
            attention::softmax::<10, i16>(&head, 0, &mut scratch, &mut y, 4).unwrap();
            out.push((pack(&y), 0));
        }
    }
    let design = rtl::attention(ATTENTION);
    Case::new(rng, design, vec![queries, keys, values], vec![out], |g, _, i, o| {
        let first = g.stages.len();
        let stages = ScoreStages {
            tokens: n as u64,
            lanes: lanes as u64,
            blocks: blocks as u64,
            products: (1, rtl::PRODUCTS),
            statistics: (1, rtl::STATISTICS),
            between: (ATTENTION.depth.into(), 96),
        };
        let tail =
            AttentionTail { mix: rtl::MIX, reciprocal: rtl::RECIPROCAL, divide: rtl::DIVIDE };
        stages.add_attention(g, [i[0], i[1], i[2]], o[0], tail);
        repeat(g, first, runs);
    })
}
