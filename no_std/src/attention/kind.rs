use crate::{Fault, Num};

/// How Power-Softmax divides (arXiv 2410.09457, section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// xᵖ / Σxᵖ.
    Plain,
    /// Scores divided by their greatest magnitude plus δ first; needs comparisons. Same value as
    /// the plain form; keeps intermediate powers small.
    Stable {
        /// δ
        delta: Num,
    },
    /// xᵖ / (ε + Σxᵖ): Lipschitz, and defined for a row of zeros.
    Lipschitz {
        /// ε
        eps: Num,
    },
    /// xᵖ / (ε + mean xᵖ), and the sum over values divided by the number of keys: the same range
    /// for every length.
    LengthAgnostic {
        /// ε
        eps: Num,
    },
}

/// Which attention a head uses, with its constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// Softmax attention.
    Softmax,
    /// Power-Softmax with an even exponent.
    Power {
        /// The exponent: even, at least 2.
        p: u8,
        /// How it divides.
        variant: Variant,
    },
    /// ReLU-softmax (MPCViT).
    ReluSoftmax {
        /// ε added to the row sum.
        eps: Num,
    },
    /// Scaling attention (MPCViT): s/n, computed as Q(KᵀV)/n.
    Scaling,
    /// 2Quad (MPCFormer; MPCViT's code has c = 0).
    TwoQuad {
        /// c
        c: Num,
        /// ε added to the row sum.
        eps: Num,
    },
    /// max(s, 0)²/n (MPCViT's search space).
    ReluSquared,
    /// The mean of the values: the control that attends to nothing.
    Uniform,
    /// BiViT's attention on signs (arXiv 2211.07091): the values' signs of the keys whose signs lie
    /// within `margin` of the nearest key's distance. Worlds on bits alone.
    Bivit {
        /// How much farther than the nearest a key may be.
        margin: u32,
        /// Whether the chosen values are averaged, or added up as published.
        mean: bool,
    },
}

impl Kind {
    /// The name used in `config.json`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Power { .. } => "power",
            Self::ReluSoftmax { .. } => "relu_softmax",
            Self::Scaling => "scaling",
            Self::TwoQuad { .. } => "two_quad",
            Self::ReluSquared => "relu_squared",
            Self::Uniform => "uniform",
            Self::Bivit { .. } => "bivit",
        }
    }

    /// Checks the constants.
    ///
    /// # Errors
    /// [`Fault::Parameter`] for an odd or zero exponent and for a negative ε or δ.
    pub const fn check(&self) -> Result<(), Fault> {
        let eps = match self {
            Self::Power { p, .. } if *p == 0 || *p % 2 == 1 => {
                return Err(Fault::Parameter {
                    what: "exponent of power attention",
                    got: *p as i64,
                });
            }
            Self::Power {
                variant: Variant::Lipschitz { eps } | Variant::LengthAgnostic { eps },
                ..
            }
            | Self::ReluSoftmax { eps }
            | Self::TwoQuad { eps, .. } => *eps,
            Self::Power { variant: Variant::Stable { delta }, .. } => *delta,
            _ => Num::ZERO,
        };
        if eps.is_negative() {
            return Err(Fault::Parameter { what: "eps of attention", got: eps.mantissa() });
        }
        Ok(())
    }
}
