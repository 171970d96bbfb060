//! Where the elements of a matrix stand in the slots.
//!
//! m slots are cut into F *blocks*, one a feature, of B = m/F slots. With h heads of d = F/h
//! features, feature j of head k has block j·h + k, so that a head's features lie h blocks apart
//! and a sum over them is a cyclic sum over all of the ciphertext, which replicates itself.
//!
//! Within a block, queries repeat R times with period G, keys and values so often as needed with
//! period P; ciphertext t of the scores then pairs query i in copy r with key i + shift(t, r):
//!
//! | packing | G | P | shift(t, r) | keys and values come |
//! |---|---|---|---|---|
//! | [`Packing::dense`] | n | n | tR + r | shifted by the client, a ciphertext for each t |
//! | [`Packing::rolling`] | P − 1 | > n, a multiple of R | tR − r mod P | once; the rest are rotations by tR |
//!
//! The second works because the two periods differ by one: every copy of the queries meets the
//! keys at another shift, and a plain rotation of a periodic sequence has no edge to mend.
//!
//! | layout | offset within the block of feature c holds |
//! |---|---|
//! | [`Layout::Spread`] | rG + i: x[i][c] |
//! | [`Layout::Rolling`] | rP + i: x[i][c] |
//! | [`Layout::ShiftedPairs`] | rG + i: x[i + shift(t, r)][c], ciphertexts t and t + T/2 as real and imaginary part |
//! | [`Layout::Scores`] | rG + i: a[i][i + shift(t, r)] of c's head, whatever feature |
//! | [`Layout::Sparse`] | i: x[i][c]; other slots are undefined |
//! | [`Layout::Rows`] | i: x[i] of c's head; other slots lie between zero and the greatest |

use undertone_core::{Fault, Shape};

use crate::ckks::Complex;

/// How a tensor is laid out; the module's table says what each means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Layout {
    /// Repeated with the queries' period.
    Spread,
    /// Repeated with the keys' period.
    Rolling,
    /// Every shift of the tokens, two ciphertexts in one as complex numbers.
    ShiftedPairs,
    /// Scores and weights, replicated over a head's features.
    Scores,
    /// Once: a sum over copies, or the output of a linear layer.
    Sparse,
    /// One value a token and head: row sums.
    Rows,
}

/// The numbers of a packing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packing {
    /// Slots m.
    pub slots: usize,
    /// Tokens n.
    pub tokens: usize,
    /// Blocks F: features of all heads.
    pub features: usize,
    /// Heads h.
    pub heads: usize,
    /// Copies of the queries, R.
    pub copies: usize,
    /// Distance of the copies of queries, G.
    pub query_period: usize,
    /// Distance of the copies of keys and values, P.
    pub key_period: usize,
    /// Ciphertexts that hold all shifts, T.
    pub ciphertexts: usize,
    rolling: bool,
}

fn power_of_two(what: &'static str, got: usize) -> Result<(), Fault> {
    if got.is_power_of_two() { Ok(()) } else { Err(Fault::Parameter { what, got: got as i64 }) }
}

impl Packing {
    /// One head whose keys and values are encrypted in every shift: no slot is wasted.
    ///
    /// # Errors
    /// [`Fault::Parameter`] where n or d is not a power of two, [`Fault::Memory`] where one matrix
    /// does not fit.
    pub fn dense(slots: usize, tokens: usize, features: usize) -> Result<Self, Fault> {
        power_of_two("tokens of a packing", tokens)?;
        power_of_two("features of a packing", features)?;
        if tokens * features > slots {
            return Err(Fault::Memory { needed: tokens * features, available: slots });
        }
        let copies = slots / features / tokens;
        Ok(Self {
            slots,
            tokens,
            features,
            heads: 1,
            copies,
            query_period: tokens,
            key_period: tokens,
            ciphertexts: tokens.div_ceil(copies),
            rolling: false,
        })
    }

    /// Several heads whose keys and values come once and are rotated; any number of tokens.
    ///
    /// R is the greatest number of copies with (2R − 1)·G ≤ B: then a sum over copies that starts
    /// anywhere reads no more than one row's weights, so that no slot's row sum exceeds the
    /// calibrated range of true row sums.
    ///
    /// # Errors
    /// [`Fault::Parameter`] where features or heads are not powers of two, [`Fault::Memory`]
    /// where one copy does not fit.
    pub fn rolling(
        slots: usize,
        tokens: usize,
        features: usize,
        heads: usize,
    ) -> Result<Self, Fault> {
        power_of_two("features of an encrypted model", features)?;
        power_of_two("heads of an encrypted model", heads)?;
        if tokens == 0 || heads > features {
            return Err(Fault::Parameter {
                what: "heads of an encrypted model",
                got: heads as i64,
            });
        }
        let block = slots / features;
        let with = |copies: usize| {
            let key_period = (tokens + 1).next_multiple_of(copies);
            Self {
                slots,
                tokens,
                features,
                heads,
                copies,
                query_period: key_period - 1,
                key_period,
                ciphertexts: key_period / copies,
                rolling: true,
            }
        };
        // Sums over copies go by factors of at most five.
        [16, 15, 12, 10, 9, 8, 6, 5, 4, 3, 2, 1]
            .into_iter()
            .map(with)
            .find(|p| {
                (2 * p.copies - 1) * p.query_period <= block
                    && p.key_copies() * p.key_period <= block
            })
            .ok_or(Fault::Memory { needed: 2 * (tokens + 1) * features, available: slots })
    }

    /// Whether keys and values of all shifts are rotations of one ciphertext.
    #[must_use]
    pub fn rolls(&self) -> bool {
        self.rolling
    }

    /// Slots of a block, B.
    #[must_use]
    pub fn block(&self) -> usize {
        self.slots / self.features
    }

    /// Features of a head, d.
    #[must_use]
    pub fn head_features(&self) -> usize {
        self.features / self.heads
    }

    /// The block of a column of the heads side by side; columns from F on begin anew.
    #[must_use]
    pub fn block_of(&self, column: usize) -> usize {
        let c = column % self.features;
        c % self.head_features() * self.heads + c / self.head_features()
    }

    /// The column below F that has this block.
    #[must_use]
    pub fn column_of(&self, block: usize) -> usize {
        block % self.heads * self.head_features() + block / self.heads
    }

    /// Copies of the queries that meet different keys.
    #[must_use]
    pub fn distinct_copies(&self) -> usize {
        self.copies.min(self.key_period)
    }

    /// Pairs of ciphertexts of shifts, T/2 rounded up.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.ciphertexts.div_ceil(2)
    }

    /// Copies of the keys in rolling layout: as many as rotations reach.
    #[must_use]
    pub fn key_copies(&self) -> usize {
        let last = (self.copies - 1) * self.query_period
            + self.tokens
            + self.copies * (self.ciphertexts - 1);
        last.div_ceil(self.key_period)
    }

    /// The key that query i in copy r meets in ciphertext t; none where there is no such token.
    #[must_use]
    pub fn key(&self, t: usize, r: usize, i: usize) -> Option<usize> {
        let key = if self.rolling {
            (r * self.query_period + i + t * self.copies) % self.key_period
        } else {
            (i + t * self.copies + r) % self.key_period
        };
        (key < self.tokens).then_some(key)
    }

    /// Ciphertexts of a layout that hold at most F columns.
    #[must_use]
    pub fn count(&self, layout: Layout) -> usize {
        match layout {
            Layout::Spread | Layout::Rolling | Layout::Sparse | Layout::Rows => 1,
            Layout::Scores => self.ciphertexts,
            Layout::ShiftedPairs => self.pairs(),
        }
    }

    /// Copy and token at an offset within a block; none where the layout defines nothing.
    pub(super) fn token(&self, layout: Layout, offset: usize) -> Option<(usize, usize)> {
        let (period, copies) = match layout {
            Layout::Rolling => (self.key_period, self.key_copies()),
            Layout::Sparse | Layout::Rows => (self.block(), 1),
            Layout::Spread | Layout::ShiftedPairs | Layout::Scores => {
                (self.query_period, self.copies)
            }
        };
        let (r, i) = (offset / period, offset % period);
        (r < copies && i < self.tokens).then_some((r, i))
    }

    /// All slots, from block, copy and token; zero where the layout defines nothing.
    pub(super) fn fill<T: Copy>(
        &self,
        layout: Layout,
        zero: T,
        at: impl Fn(usize, usize, usize) -> T,
    ) -> Vec<T> {
        let places: Vec<_> = (0..self.block()).map(|o| self.token(layout, o)).collect();
        (0..self.features)
            .flat_map(|f| places.iter().map(move |p| (f, *p)))
            .map(|(f, place)| place.map_or(zero, |(r, i)| at(f, r, i)))
            .collect()
    }

    /// The slots of a row-major matrix with F columns in one of the layouts a client encrypts.
    ///
    /// # Errors
    /// [`Fault::Shape`] for a matrix of another size, [`Fault::Parameter`] for a layout that only
    /// arises in computation.
    pub fn pack(&self, x: &[f64], layout: Layout) -> Result<Vec<Vec<Complex>>, Fault> {
        let (n, width) = (self.tokens, self.features);
        if x.len() != n * width {
            let (left, right) = (Shape::new(1, 1, x.len()), Shape::new(1, n, width));
            return Err(Fault::Shape { op: "pack", left, right });
        }
        let zero = Complex::default();
        let value = |f: usize, i: usize| x[i * width + self.column_of(f)];
        match layout {
            Layout::Spread | Layout::Rolling => {
                Ok(vec![self.fill(layout, zero, |f, _, i| value(f, i).into())])
            }
            Layout::ShiftedPairs => Ok((0..self.pairs())
                .map(|t| {
                    let shifted = |t: usize, f: usize, r: usize, i: usize| {
                        let there = t < self.ciphertexts;
                        self.key(t, r, i).filter(|_| there).map_or(0.0, |key| value(f, key))
                    };
                    self.fill(layout, zero, |f, r, i| {
                        let second = t + self.pairs();
                        Complex::new(shifted(t, f, r, i), shifted(second, f, r, i))
                    })
                })
                .collect()),
            Layout::Scores | Layout::Sparse | Layout::Rows => {
                Err(Fault::Parameter { what: "layout to encrypt", got: layout as i64 })
            }
        }
    }

    /// Adjacent blocks that a column of an input of `columns` columns fills.
    ///
    /// # Errors
    /// [`Fault::Memory`] for more columns than blocks.
    pub fn replicas(&self, columns: usize) -> Result<usize, Fault> {
        if columns == 0 || columns > self.features {
            return Err(Fault::Memory { needed: columns, available: self.features });
        }
        Ok(self.features / columns.next_power_of_two())
    }

    /// The slots of a row-major input of few columns, as
    /// [`Ckks::admit_input`](super::Ckks::admit_input) takes it.
    ///
    /// # Errors
    /// [`Fault::Shape`] for a matrix of other rows, [`Fault::Memory`] for more columns than blocks.
    pub fn pack_input(&self, x: &[f64], columns: usize) -> Result<Vec<Complex>, Fault> {
        let replicas = self.replicas(columns)?;
        if x.len() != self.tokens * columns {
            let (left, right) = (Shape::new(1, 1, x.len()), Shape::new(1, self.tokens, columns));
            return Err(Fault::Shape { op: "pack", left, right });
        }
        let value = |f: usize, i: usize| {
            let c = if replicas > 1 { f / replicas } else { self.column_of(f) };
            if c < columns { x[i * columns + c] } else { 0.0 }
        };
        let re = self.fill(Layout::Spread, 0.0, |f, _, i| value(f, i));
        let im = self.fill(Layout::Rolling, 0.0, |f, _, i| value(f, i));
        Ok(re.into_iter().zip(im).map(|(re, im)| Complex::new(re, im)).collect())
    }

    /// The row-major matrix of decrypted slots in spread or sparse layout, of `columns` columns
    /// and at most `rows` rows.
    #[must_use]
    pub fn unpack(&self, slots: &[f64], rows: usize, columns: usize, factor: f64) -> Vec<f64> {
        let mut out = vec![0.0; rows * columns];
        for i in 0..rows {
            for c in 0..columns {
                out[i * columns + c] = factor * slots[self.block_of(c) * self.block() + i];
            }
        }
        out
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use std::collections::BTreeMap;

    /// Every query meets every key exactly once, in both packings.
    #[test]
    fn shifts_cover_all_pairs_once() {
        let packings = [
            Packing::rolling(1 << 14, 49, 64, 4),
            Packing::rolling(1 << 15, 49, 64, 4),
            Packing::rolling(1 << 11, 4, 16, 2),
            Packing::rolling(1 << 11, 7, 16, 4),
            Packing::dense(1 << 14, 32, 32),
            Packing::dense(1 << 11, 32, 16),
        ];
        for p in packings.map(|p| p.expect("fits")) {
            let mut seen = BTreeMap::new();
            for t in 0..p.ciphertexts {
                for r in 0..p.distinct_copies() {
                    for i in 0..p.tokens {
                        if let Some(key) = p.key(t, r, i) {
                            *seen.entry((i, key)).or_insert(0) += 1;
                        }
                    }
                }
            }
            assert_eq!(seen.len(), p.tokens * p.tokens, "{p:?}");
            assert!(seen.values().all(|&k| k == 1), "{p:?}");
            for c in 0..p.features {
                assert_eq!(p.column_of(p.block_of(c)), c);
            }
        }
    }
}
