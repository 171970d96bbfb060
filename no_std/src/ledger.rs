//! Counting: what a run costs, by kind and width of operation.

/// A kind of scalar operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Op {
    /// Additions and subtractions, those of multiply-accumulates included.
    Add,
    /// Multiplications, those of multiply-accumulates included.
    Mul,
    /// Comparisons, those of saturation excluded.
    Compare,
    /// Shifts that rescale.
    Shift,
    /// Table look-ups.
    Lookup,
    /// Divisions.
    Divide,
    /// Evaluations of a transcendental function.
    Function,
    /// Elements moved without arithmetic.
    Move,
}

impl Op {
    /// All kinds, in order of their number.
    pub const ALL: [Self; 8] = [
        Self::Add,
        Self::Mul,
        Self::Compare,
        Self::Shift,
        Self::Lookup,
        Self::Divide,
        Self::Function,
        Self::Move,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Compare => "compare",
            Self::Shift => "shift",
            Self::Lookup => "lookup",
            Self::Divide => "divide",
            Self::Function => "function",
            Self::Move => "move",
        }
    }
}

/// The width of an operation's operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Width {
    /// 1-bit codes.
    I1,
    /// 8-bit integers.
    I8,
    /// 16-bit integers.
    I16,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// 32-bit floating point.
    F32,
}

impl Width {
    /// All widths, in order of their number.
    pub const ALL: [Self; 6] = [Self::I1, Self::I8, Self::I16, Self::I32, Self::I64, Self::F32];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::I1 => "i1",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
        }
    }
}

/// Counted operations of a run or a plan. A world counts in its primitives only and counts the
/// same with data as without, so a plan equals its run.
///
/// ```
/// use undertone_core::{Counts, Op, Width};
/// let mut counts = Counts::default();
/// counts.add(Op::Mul, Width::I16, 64);
/// assert_eq!(counts.get(Op::Mul, Width::I16), 64);
/// assert_eq!(counts.total(), 64);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    table: [[u64; Width::ALL.len()]; Op::ALL.len()],
}

impl Counts {
    /// Nothing counted.
    pub const NONE: Self = Self { table: [[0; Width::ALL.len()]; Op::ALL.len()] };

    /// Counts `n` operations.
    pub const fn add(&mut self, op: Op, width: Width, n: u64) {
        let cell = &mut self.table[op as usize][width as usize];
        *cell = cell.saturating_add(n);
    }

    /// Counts `n` multiply-accumulates.
    pub const fn mac(&mut self, width: Width, n: u64) {
        self.add(Op::Mul, width, n);
        self.add(Op::Add, width, n);
    }

    /// Operations of one kind and width.
    #[must_use]
    pub const fn get(&self, op: Op, width: Width) -> u64 {
        self.table[op as usize][width as usize]
    }

    /// Operations of one kind, all widths.
    #[must_use]
    pub fn of(&self, op: Op) -> u64 {
        self.table[op as usize].iter().sum()
    }

    /// All arithmetic: every operation but moves.
    #[must_use]
    pub fn total(&self) -> u64 {
        Op::ALL.iter().filter(|&&op| op != Op::Move).map(|&op| self.of(op)).sum()
    }

    /// The cells that are not zero.
    pub fn iter(&self) -> impl Iterator<Item = (Op, Width, u64)> + '_ {
        Op::ALL
            .into_iter()
            .flat_map(move |op| {
                Width::ALL.into_iter().map(move |width| (op, width, self.get(op, width)))
            })
            .filter(|&(_, _, n)| n > 0)
    }

    /// The sum of two counts.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (op, width, n) in other.iter() {
            self.add(op, width, n);
        }
        self
    }
}
