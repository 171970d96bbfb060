//! Places in a model and the calibrated ranges that belong to them.

use crate::Num;
use core::fmt;

/// What a tensor is within a layer (or around the layers).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// Model input after preprocessing: pixels or embedded tokens.
    Input,
    /// After the patch projection and position embedding, and after the embedding norm if any.
    Embedding,
    /// Output of the norm before (or after) attention.
    Norm1,
    /// Row variance in that norm.
    Variance1,
    /// Queries, scaled by d^-1/2.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Scores q·k of one attention kind.
    Scores,
    /// Unnormalised weights of one attention kind.
    Weights,
    /// Row sums of the weights of one attention kind: the domain of its reciprocal.
    Denominator,
    /// Unnormalised output Σ w·v of one attention kind.
    Numerator,
    /// Normalised output of the heads.
    Context,
    /// After the output projection.
    Attended,
    /// After the first residual connection.
    Residual1,
    /// Output of the second norm.
    Norm2,
    /// Row variance in that norm.
    Variance2,
    /// Input of the activation.
    Hidden,
    /// Output of the activation.
    Activated,
    /// Output of the second linear layer.
    Mlp,
    /// After the second residual connection: the layer's output.
    Residual2,
    /// Output of the norm after the last layer.
    FinalNorm,
    /// Row variance in that norm.
    FinalVariance,
    /// The pooled features.
    Pooled,
    /// The classifier's output.
    Logits,
    /// A value inside an operator. Not calibrated: worlds derive its range from its operands.
    Inner,
}

impl Role {
    /// All calibrated roles, in order of their number.
    pub const ALL: [Self; 24] = [
        Self::Input,
        Self::Embedding,
        Self::Norm1,
        Self::Variance1,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Scores,
        Self::Weights,
        Self::Denominator,
        Self::Numerator,
        Self::Context,
        Self::Attended,
        Self::Residual1,
        Self::Norm2,
        Self::Variance2,
        Self::Hidden,
        Self::Activated,
        Self::Mlp,
        Self::Residual2,
        Self::FinalNorm,
        Self::FinalVariance,
        Self::Pooled,
        Self::Logits,
    ];

    /// The name used in `config.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Embedding => "embedding",
            Self::Norm1 => "norm1",
            Self::Variance1 => "variance1",
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::Scores => "scores",
            Self::Weights => "weights",
            Self::Denominator => "denominator",
            Self::Numerator => "numerator",
            Self::Context => "context",
            Self::Attended => "attended",
            Self::Residual1 => "residual1",
            Self::Norm2 => "norm2",
            Self::Variance2 => "variance2",
            Self::Hidden => "hidden",
            Self::Activated => "activated",
            Self::Mlp => "mlp",
            Self::Residual2 => "residual2",
            Self::FinalNorm => "final_norm",
            Self::FinalVariance => "final_variance",
            Self::Pooled => "pooled",
            Self::Logits => "logits",
            Self::Inner => "inner",
        }
    }
}

/// One place in a model: a role, in a layer, for one group of heads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Layer number from 0; [`Site::OUTSIDE`] around the layers.
    pub layer: u16,
    /// Group of equal heads from 0, for the roles between scores and numerator.
    pub group: u8,
    /// What the tensor is.
    pub role: Role,
}

impl Site {
    /// The layer number of what is in no layer.
    pub const OUTSIDE: u16 = u16::MAX;

    /// A site around the layers.
    #[must_use]
    pub const fn outside(role: Role) -> Self {
        Self { layer: Self::OUTSIDE, group: 0, role }
    }

    /// A site in a layer.
    #[must_use]
    pub const fn layer(layer: u16, role: Role) -> Self {
        Self { layer, group: 0, role }
    }

    /// The same layer and group, another role.
    #[must_use]
    pub const fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layer != Self::OUTSIDE {
            write!(f, "layer {} ", self.layer)?;
        }
        f.write_str(self.role.name())?;
        if self.group > 0 { write!(f, ".{}", self.group) } else { Ok(()) }
    }
}

/// A closed range of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Least value.
    pub lo: Num,
    /// Greatest value.
    pub hi: Num,
}

impl Range {
    /// The range from `lo` to `hi`.
    #[must_use]
    pub const fn new(lo: Num, hi: Num) -> Self {
        Self { lo, hi }
    }

    /// The smallest `e` with every value at most `2^e` in magnitude.
    #[must_use]
    pub const fn ceil_log2(self) -> i16 {
        let (a, b) = (self.lo.ceil_log2(), self.hi.ceil_log2());
        if a > b { a } else { b }
    }
}

/// What is known of a tensor at a site. One bound belongs to one site: sharing bounds between
/// sites is what loses precision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Where.
    pub site: Site,
    /// The calibrated range; `None` where the model has not been calibrated. Worlds of floating
    /// point run without; fixed point and encryption refuse.
    pub range: Option<Range>,
}

impl Bound {
    /// A bound that is not known.
    #[must_use]
    pub const fn unknown(site: Site) -> Self {
        Self { site, range: None }
    }

    /// A value inside the operator that this bound belongs to, of unknown range.
    #[must_use]
    pub const fn inner(self) -> Self {
        Self::unknown(self.site.role(Role::Inner))
    }

    /// A value inside the operator that this bound belongs to, of known range.
    #[must_use]
    pub const fn inner_range(self, range: Option<Range>) -> Self {
        Self { site: self.site.role(Role::Inner), range }
    }

    /// The bound after a public number has been added.
    #[must_use]
    pub const fn offset(self, by: Num) -> Self {
        let range = match self.range {
            Some(r) => Some(Range::new(r.lo.plus(by), r.hi.plus(by))),
            None => None,
        };
        Self { range, ..self }
    }

    /// A known bound.
    #[must_use]
    pub const fn known(site: Site, lo: Num, hi: Num) -> Self {
        Self { site, range: Some(Range::new(lo, hi)) }
    }
}

/// Where bounds are looked up.
pub trait Domains: Sync {
    /// The bound at a site.
    fn bound(&self, site: Site) -> Bound;
}

/// No bound is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uncalibrated;

impl Domains for Uncalibrated {
    fn bound(&self, site: Site) -> Bound {
        Bound::unknown(site)
    }
}

/// Ranges in a table in order of their sites: what an exported model keeps in flash.
///
/// ```
/// use undertone_core::{Domains as _, Num, Range, Ranges, Role, Site};
/// const UNIT: Range = Range::new(Num::int(-1), Num::int(1));
/// static RANGES: Ranges<'static> = Ranges(&[(Site::layer(0, Role::Scores), UNIT)]);
/// assert_eq!(RANGES.bound(Site::layer(0, Role::Scores)).range, Some(UNIT));
/// assert_eq!(RANGES.bound(Site::layer(1, Role::Scores)).range, None);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Ranges<'a>(pub &'a [(Site, Range)]);

impl Domains for Ranges<'_> {
    fn bound(&self, site: Site) -> Bound {
        let find = |site: Site| {
            let at = self.0.binary_search_by_key(&site, |entry| entry.0).ok()?;
            self.0.get(at).map(|entry| entry.1)
        };
        // Attention sites within a layer carry their group; all others stand for the whole layer.
        Bound { site, range: find(site).or_else(|| find(Site { group: 0, ..site })) }
    }
}
