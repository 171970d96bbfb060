//! Shapes, product forms and public masks.

use core::fmt;

/// A batch of matrices. Heads and images are both folded into `batch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Shape {
    /// Number of matrices.
    pub batch: usize,
    /// Rows of each: tokens.
    pub rows: usize,
    /// Columns of each: features.
    pub cols: usize,
}

impl Shape {
    /// A batch of `batch` matrices of `rows` × `cols`.
    #[must_use]
    pub const fn new(batch: usize, rows: usize, cols: usize) -> Self {
        Self { batch, rows, cols }
    }

    /// Number of elements, saturating.
    #[must_use]
    pub const fn len(self) -> usize {
        self.batch.saturating_mul(self.rows).saturating_mul(self.cols)
    }

    /// Whether there is no element.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The same batch and rows with other columns.
    #[must_use]
    pub const fn with_cols(self, cols: usize) -> Self {
        Self { cols, ..self }
    }

    /// The same batch and columns with other rows.
    #[must_use]
    pub const fn with_rows(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    /// Whether `self` equals `to` or is one row, one column or one matrix wide where it differs.
    #[must_use]
    pub const fn broadcasts_to(self, to: Self) -> bool {
        (self.batch == to.batch || self.batch == 1)
            && (self.rows == to.rows || self.rows == 1)
            && (self.cols == to.cols || self.cols == 1)
    }

    /// The shape of `self · other` in the given form, if it exists.
    #[must_use]
    pub const fn product(self, other: Self, form: Form) -> Option<Self> {
        let (rows, inner) = match form {
            Form::Nn | Form::Nt => (self.rows, self.cols),
            Form::Tn => (self.cols, self.rows),
        };
        let (other_inner, cols) = match form {
            Form::Nn | Form::Tn => (other.rows, other.cols),
            Form::Nt => (other.cols, other.rows),
        };
        if self.batch == other.batch && inner == other_inner {
            Some(Self::new(self.batch, rows, cols))
        } else {
            None
        }
    }

    /// Heads moved from columns into the batch: (b, n, h·d) → (b·h, n, d).
    #[must_use]
    pub const fn split(self, heads: usize) -> Option<Self> {
        if heads == 0 || !self.cols.is_multiple_of(heads) {
            None
        } else {
            Some(Self::new(self.batch * heads, self.rows, self.cols / heads))
        }
    }

    /// Heads moved back from the batch into columns: (b·h, n, d) → (b, n, h·d).
    #[must_use]
    pub const fn merge(self, heads: usize) -> Option<Self> {
        if heads == 0 || !self.batch.is_multiple_of(heads) {
            None
        } else {
            Some(Self::new(self.batch / heads, self.rows, self.cols * heads))
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.batch, self.rows, self.cols)
    }
}

/// Which operand of a matrix product is transposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Form {
    /// A·B
    Nn,
    /// A·Bᵀ
    Nt,
    /// Aᵀ·B
    Tn,
}

/// The dimension that a sum runs over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Axis {
    /// Over rows: (b, n, m) → (b, 1, m).
    Rows,
    /// Over columns: (b, n, m) → (b, n, 1).
    Cols,
}

/// Which keys a query may see. Public: lengths and causality are not hidden in any world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mask<'a> {
    /// Query i sees keys 0..=i only.
    pub causal: bool,
    /// Number of real keys of each sequence; the rest is padding. Scores hold a whole number of
    /// heads for each sequence, sequence-major.
    pub lengths: Option<&'a [usize]>,
}

impl Mask<'_> {
    /// Every query sees every key.
    pub const NONE: Mask<'static> = Mask { causal: false, lengths: None };

    /// Whether nothing is hidden.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        !self.causal && self.lengths.is_none()
    }

    /// How many keys (a prefix) the query `row` of matrix `batch` sees, in scores of shape `of`.
    #[must_use]
    pub fn visible(&self, of: Shape, batch: usize, row: usize) -> usize {
        let keys = match self.lengths {
            Some(lengths) if !lengths.is_empty() && of.batch > 0 => {
                let sequence = batch * lengths.len() / of.batch;
                lengths.get(sequence).copied().unwrap_or(of.cols).min(of.cols)
            }
            _ => of.cols,
        };
        if self.causal { keys.min(row + 1) } else { keys }
    }

    /// Whether the mask fits scores of this shape: each sequence has at least one key, no more
    /// than there are columns, and the batch is a whole number of heads per sequence.
    #[must_use]
    pub fn fits(&self, of: Shape) -> bool {
        let square = !self.causal || of.rows == of.cols;
        square
            && self.lengths.is_none_or(|lengths| {
                !lengths.is_empty()
                    && of.batch.is_multiple_of(lengths.len())
                    && lengths.iter().all(|&n| n >= 1 && n <= of.cols)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_follow_their_form() {
        let a = Shape::new(2, 3, 4);
        assert_eq!(a.product(Shape::new(2, 4, 5), Form::Nn), Some(Shape::new(2, 3, 5)));
        assert_eq!(a.product(Shape::new(2, 5, 4), Form::Nt), Some(Shape::new(2, 3, 5)));
        assert_eq!(a.product(Shape::new(2, 3, 5), Form::Tn), Some(Shape::new(2, 4, 5)));
        assert_eq!(a.product(Shape::new(1, 4, 5), Form::Nn), None);
    }

    #[test]
    fn masks_hide_suffixes() {
        let scores = Shape::new(4, 3, 3);
        let mask = Mask { causal: true, lengths: Some(&[3, 2]) };
        assert!(mask.fits(scores));
        assert_eq!(mask.visible(scores, 0, 2), 3);
        assert_eq!(mask.visible(scores, 1, 2), 3);
        assert_eq!(mask.visible(scores, 2, 2), 2);
        assert_eq!(mask.visible(scores, 3, 0), 1);
        assert!(!Mask { causal: false, lengths: Some(&[0]) }.fits(scores));
    }
}
