//! Encryption with the public key: for anyone.

use zeroize::Zeroizing;

use super::buffer::Rows;
use super::cipher::{Ciphertext, Degree, Plaintext};
use super::context::Context;
use super::error::CkksError;
use super::evalkeys::PublicKey;
use super::kernels::{Add, AddMulMontgomery};
use super::sample::{Gaussian, from_os, ternary};

type Result<T> = std::result::Result<T, CkksError>;

impl PublicKey {
    /// Encrypts with the public key.
    ///
    /// # Errors
    /// [`CkksError::ScaleMismatch`], [`CkksError::WrongParameters`], [`CkksError::Randomness`].
    pub fn encrypt(&self, ctx: &Context, message: &Plaintext) -> Result<Ciphertext> {
        check_message(ctx, message)?;
        if self.parameters != ctx.hash {
            return Err(CkksError::WrongParameters { operation: "encrypt" });
        }
        let n = ctx.n();
        let mut rng = from_os()?;
        let mut small: [Zeroizing<Vec<i8>>; 3] =
            std::array::from_fn(|_| Zeroizing::new(vec![0; n]));
        let [v, e0, e1] = &mut small;
        ternary(&mut rng, v);
        let gaussian = Gaussian::new();
        gaussian.fill(&mut rng, e0);
        gaussian.fill(&mut rng, e1);
        let count = message.level + 1;
        let (mut c0, mut c1) = (Rows::scratch(n, count), Rows::scratch(n, count));
        let mut ephemeral = Zeroizing::new(vec![0; n]);
        for prime in 0..count {
            let m = ctx.modulus(prime);
            small_row(ctx, prime, v, &mut ephemeral);
            for (rows, key, e) in [(&mut c0, &self.b, &*e0), (&mut c1, &self.a, &*e1)] {
                let dst = rows.row_mut(prime);
                small_row(ctx, prime, e, dst);
                ctx.backend.run(AddMulMontgomery { dst, a: &ephemeral, b: key.row(prime), m });
            }
            let dst = c0.row_mut(prime);
            ctx.backend.run(Add { dst, b: message.rows.row(prime), m });
        }
        Ok(Ciphertext {
            parts: vec![c0, c1],
            level: message.level,
            degree: Degree::One,
            key: self.key,
            parameters: ctx.hash,
        })
    }
}

pub(super) fn check_message(ctx: &Context, message: &Plaintext) -> Result<()> {
    if message.parameters != ctx.hash {
        return Err(CkksError::WrongParameters { operation: "encrypt" });
    }
    if message.degree != Degree::One {
        return Err(CkksError::ScaleMismatch {
            operation: "encrypt",
            expected: Degree::One,
            found: message.degree,
        });
    }
    Ok(())
}

/// The transformed row of a polynomial with small coefficients.
pub(super) fn small_row(ctx: &Context, prime: usize, small: &[i8], row: &mut [u64]) {
    let p = ctx.modulus(prime).p as i64;
    for (r, &x) in row.iter_mut().zip(small) {
        let x = i64::from(x);
        *r = (x + ((x >> 63) & p)) as u64;
    }
    ctx.forward(prime, row);
}
