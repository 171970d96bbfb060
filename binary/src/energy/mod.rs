//! The energy ledger: counted operations, priced.
//!
//! Counts are [`undertone_core::Counts`], so whatever world counts can be priced. Prices are a
//! table; Horowitz's 45 nm figures come along and any other is a TOML file. The published figures of
//! EcoFormer and BiViT, derived from the shapes of their models, are the ledger's oracle
//! ([`pyramid`], [`ops`]).

pub mod ops;
pub mod pyramid;

use serde::Deserialize;
use std::collections::BTreeMap;
use undertone_core::{Counts, Op, Width};

/// Bytes of the longest price table that is read.
pub const MOST_TABLE_BYTES: usize = 64 * 1024;

/// What is wrong with a price table, or missing from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriceError {
    /// The text is not a price table.
    #[error(
        "price table: {0}; expected `name` and `[picojoules]` with rows like add = {{ f32 = 0.9 }}"
    )]
    Parse(#[from] toml::de::Error),
    /// The file cannot be read.
    #[error("price table {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is too long.
    #[error(
        "price table: {got} bytes, at most {MOST_TABLE_BYTES} are read; keep one number a price"
    )]
    Long {
        /// Bytes found.
        got: usize,
    },
    /// A row or a column that no counted operation has.
    #[error(
        "price table: no operation `{op}` of width `{width}`; operations and widths are those of the ledger (add, mul, …; i8, f32, …)"
    )]
    Unknown {
        /// The row.
        op: String,
        /// The column.
        width: String,
    },
    /// A price that is no price.
    #[error("price table: {op} {width} costs {got} pJ; prices are finite and not negative")]
    Value {
        /// The operation.
        op: &'static str,
        /// The width.
        width: &'static str,
        /// The number found.
        got: f64,
    },
    /// An operation was counted that the table does not price.
    #[error(
        "table `{table}` has no price for {op} {width}, counted {count} times; add it to the table"
    )]
    Unpriced {
        /// The table's name.
        table: String,
        /// The operation.
        op: &'static str,
        /// The width.
        width: &'static str,
        /// How often it was counted.
        count: u64,
    },
}

/// Picojoules an operation, by kind and width.
///
/// ```
/// use undertone_binary::energy::Prices;
/// use undertone_core::{Counts, Width};
/// let mut counts = Counts::default();
/// counts.mac(Width::F32, 1000);
/// assert!((Prices::horowitz().picojoules(&counts)? - 4600.0).abs() < 1e-9);
/// # Ok::<(), undertone_binary::energy::PriceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Prices {
    name: String,
    table: Vec<(Op, Width, f64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    picojoules: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Prices {
    /// Reads a table: `name`, and `[picojoules]` with one row an operation and one column a width.
    ///
    /// # Errors
    /// [`PriceError`] for text that is no table, unknown rows or columns, negative prices.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        if text.len() > MOST_TABLE_BYTES {
            return Err(PriceError::Long { got: text.len() });
        }
        let Table { name, picojoules } = toml::from_str(text)?;
        let mut table = Vec::new();
        for (row, columns) in picojoules {
            for (column, price) in columns {
                let op = Op::ALL.into_iter().find(|o| o.name() == row);
                let width = Width::ALL.into_iter().find(|w| w.name() == column);
                let (Some(op), Some(width)) = (op, width) else {
                    return Err(PriceError::Unknown { op: row, width: column });
                };
                if !(price.is_finite() && price >= 0.0) {
                    let (op, width) = (op.name(), width.name());
                    return Err(PriceError::Value { op, width, got: price });
                }
                table.push((op, width, price));
            }
        }
        Ok(Self { name, table })
    }

    /// Horowitz's 45 nm prices: float32 addition 0.9 pJ, multiplication 3.7 pJ.
    pub fn horowitz() -> Self {
        Self::parse(include_str!("45nm.toml")).expect("a table of this crate, parsed by a test")
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a table from a file, or Horowitz's where none is given.
    ///
    /// # Errors
    /// As [`Prices::parse`]; [`PriceError::File`] for a file that cannot be read.
    pub fn load(path: Option<&std::path::Path>) -> Result<Self, PriceError> {
        use std::io::Read;
        let Some(path) = path else { return Ok(Self::horowitz()) };
        let fail = |source| PriceError::File { path: path.into(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(MOST_TABLE_BYTES as u64 + 1).read_to_string(&mut text).map_err(fail)?;
        Self::parse(&text)
    }

    /// The energy of counted operations in picojoules as published tables count: additions and
    /// multiplications must have a price (else `None`), any other operation is free where it has
    /// none.
    ///
    /// ```
    /// use undertone_binary::energy::Prices;
    /// use undertone_core::{Counts, Op, Width};
    /// let mut counts = Counts::default();
    /// counts.mac(Width::F32, 10);
    /// counts.add(Op::Function, Width::F32, 1);
    /// assert_eq!(Prices::horowitz().arithmetic(&counts), Some(46.0));
    /// counts.mac(Width::I16, 1);
    /// assert_eq!(Prices::horowitz().arithmetic(&counts), None);
    /// ```
    pub fn arithmetic(&self, counts: &Counts) -> Option<f64> {
        let mut sum = 0.0;
        for (op, width, count) in counts.iter() {
            match self.price(op, width) {
                Some(price) => sum += count as f64 * price,
                None if matches!(op, Op::Add | Op::Mul) => return None,
                None => {}
            }
        }
        Some(sum)
    }

    fn price(&self, op: Op, width: Width) -> Option<f64> {
        self.table.iter().find(|(o, w, _)| (*o, *w) == (op, width)).map(|(.., price)| *price)
    }

    /// The energy of counted operations, in picojoules. Moves are free: no published table of
    /// arithmetic prices them.
    ///
    /// # Errors
    /// [`PriceError::Unpriced`] where an operation was counted that the table lacks.
    pub fn picojoules(&self, counts: &Counts) -> Result<f64, PriceError> {
        let mut sum = 0.0;
        for (op, width, count) in counts.iter().filter(|(op, ..)| *op != Op::Move) {
            let Some(price) = self.price(op, width) else {
                return Err(PriceError::Unpriced {
                    table: self.name.clone(),
                    op: op.name(),
                    width: width.name(),
                    count,
                });
            };
            sum += count as f64 * price;
        }
        Ok(sum)
    }
}
