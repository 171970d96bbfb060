//! Where the elements of a matrix stand in the slots.
//!
//! With m slots, n tokens and d features, slot c·(m/d) + s·n + i belongs to feature c, shift s and
//! token i; a ciphertext holds S = m/(n·d) shifts, and T = n/S ciphertexts hold all n of them (one
//! ciphertext where S ≥ n).
//!
//! | layout | slot (c, s, i) of ciphertext t holds |
//! |---|---|
//! | [`Layout::Spread`] | x[i][c], whatever s |
//! | [`Layout::Shifted`] | x[(i + tS + s) mod n][c] |
//! | [`Layout::ShiftedPairs`] | the same of ciphertexts 2t and 2t + 1, as real and imaginary part |
//! | [`Layout::Scores`] | a[i][(i + tS + s) mod n], whatever c |
//! | [`Layout::Sparse`] | x[i][c] where s = 0; other slots are undefined |
//! | [`Layout::Rows`] | x[i], whatever c and s |
//!
//! Features have the largest stride, so a sum over them is a cyclic sum that replicates itself.

use undertone_core::{Fault, Shape};

use crate::ckks::Complex;

/// How a tensor is laid out; the module's table says what each means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Replicated over shifts: queries.
    Spread,
    /// Every shift of the tokens: values.
    Shifted,
    /// Two shifted ciphertexts in one, as complex numbers: keys.
    ShiftedPairs,
    /// Scores and weights, replicated over features.
    Scores,
    /// As spread, valid in the first shift only: a sum over shifts.
    Sparse,
    /// One value a token, replicated everywhere: row sums.
    Rows,
}

/// The numbers of a packing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packing {
    /// Slots m.
    pub slots: usize,
    /// Tokens n.
    pub tokens: usize,
    /// Features d.
    pub features: usize,
}

impl Packing {
    /// The packing of n×d matrices in m slots.
    ///
    /// # Errors
    /// [`Fault::Parameter`] where n or d is not a power of two, [`Fault::Memory`] where one matrix
    /// does not fit.
    pub fn new(slots: usize, tokens: usize, features: usize) -> Result<Self, Fault> {
        for (what, got) in [("tokens of a packing", tokens), ("features of a packing", features)] {
            if !got.is_power_of_two() {
                return Err(Fault::Parameter { what, got: got as i64 });
            }
        }
        if tokens * features > slots {
            return Err(Fault::Memory { needed: tokens * features, available: slots });
        }
        Ok(Self { slots, tokens, features })
    }

    /// Stride of a feature, m/d.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.slots / self.features
    }

    /// Shifts in a ciphertext, S.
    #[must_use]
    pub fn shifts(&self) -> usize {
        self.stride() / self.tokens
    }

    /// Ciphertexts that hold all shifts, T.
    #[must_use]
    pub fn ciphertexts(&self) -> usize {
        self.tokens.div_ceil(self.shifts())
    }

    /// Different shifts in one ciphertext.
    #[must_use]
    pub fn distinct_shifts(&self) -> usize {
        self.shifts().min(self.tokens)
    }

    /// Ciphertexts of a layout.
    #[must_use]
    pub fn count(&self, layout: Layout) -> usize {
        match layout {
            Layout::Spread | Layout::Sparse | Layout::Rows => 1,
            Layout::Shifted | Layout::Scores => self.ciphertexts(),
            Layout::ShiftedPairs => self.ciphertexts().div_ceil(2),
        }
    }

    fn fill(&self, at: impl Fn(usize, usize, usize) -> Complex) -> Vec<Complex> {
        let mut out = Vec::with_capacity(self.slots);
        for c in 0..self.features {
            for s in 0..self.shifts() {
                for i in 0..self.tokens {
                    out.push(at(c, s, i));
                }
            }
        }
        out
    }

    /// The slots of a row-major n×d matrix in one of the layouts a client encrypts.
    ///
    /// # Errors
    /// [`Fault::Shape`] for a matrix of another size, [`Fault::Parameter`] for a layout that only
    /// arises in computation.
    pub fn pack(&self, x: &[f64], layout: Layout) -> Result<Vec<Vec<Complex>>, Fault> {
        let (n, d) = (self.tokens, self.features);
        if x.len() != n * d {
            let (left, right) = (Shape::new(1, 1, x.len()), Shape::new(1, n, d));
            return Err(Fault::Shape { op: "pack", left, right });
        }
        let shifted =
            |t: usize, c: usize, s: usize, i: usize| x[(i + t * self.shifts() + s) % n * d + c];
        match layout {
            Layout::Spread => Ok(vec![self.fill(|c, _, i| x[i * d + c].into())]),
            Layout::Shifted => Ok((0..self.ciphertexts())
                .map(|t| self.fill(|c, s, i| shifted(t, c, s, i).into()))
                .collect()),
            Layout::ShiftedPairs => Ok((0..self.ciphertexts().div_ceil(2))
                .map(|t| {
                    let second = 2 * t + 1 < self.ciphertexts();
                    self.fill(|c, s, i| {
                        let im = if second { shifted(2 * t + 1, c, s, i) } else { 0.0 };
                        Complex::new(shifted(2 * t, c, s, i), im)
                    })
                })
                .collect()),
            Layout::Scores | Layout::Sparse | Layout::Rows => {
                Err(Fault::Parameter { what: "layout to encrypt", got: layout as i64 })
            }
        }
    }

    /// The row-major n×d matrix of decrypted slots in spread or sparse layout; the n values in
    /// rows layout.
    #[must_use]
    pub fn unpack(&self, slots: &[f64], layout: Layout, factor: f64) -> Vec<f64> {
        let d = if layout == Layout::Rows { 1 } else { self.features };
        let mut out = vec![0.0; self.tokens * d];
        for i in 0..self.tokens {
            for c in 0..d {
                out[i * d + c] = factor * slots[c * self.stride() + i];
            }
        }
        out
    }
}
