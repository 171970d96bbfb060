//! What a core will take for counted operations, before anything is built.
//!
//! Prices are instructions an operation, from the counted kernels of `firmware` (QEMU, Cortex-M4F):
//! the linear layer, the attention heads, the norm and GELU. The whole model then adds what the
//! world does around its kernels, so an estimate of a model is a check of the prices and no fit.
//!
//! Cycles are an estimate by the Cortex-M4's timing table (Technical Reference Manual, DDI 0439,
//! section 3.3): loads take two cycles but for those that follow a load, taken branches three,
//! 32- and 64-bit products one, divisions up to twelve. Memory is taken to answer without waiting.

use undertone_core::{Counts, Op, Width};

/// Instructions and cycles of an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Price {
    op: Op,
    width: Width,
    instructions: f64,
    cycles: f64,
}

const fn price(op: Op, width: Width, instructions: f64, cycles: f64) -> Price {
    Price { op, width, instructions, cycles }
}

/// Prices on a Cortex-M4. Additions of products are part of their product: they are free, and
/// [`SEPARATE_ADD`] prices the others.
const CORTEX_M4: [Price; 8] = [
    // Two rows a round: three loads and two SMLALD for four products.
    price(Op::Mul, Width::I16, 1.4, 1.9),
    // A product's way back to 16 bits: bias, shift, rounding, saturation, the loop around it.
    price(Op::Shift, Width::I16, 75.0, 95.0),
    // A weight times a value, into 64 bits.
    price(Op::Mul, Width::I32, 4.5, 6.0),
    // A score's requantization, its weight, the running maximum and sum.
    price(Op::Lookup, Width::I32, 135.0, 175.0),
    // A normalised element of attention or of a norm.
    price(Op::Mul, Width::I64, 75.0, 95.0),
    // GELU by table.
    price(Op::Function, Width::I16, 26.0, 34.0),
    // A root or a reciprocal a row.
    price(Op::Function, Width::I64, 250.0, 300.0),
    price(Op::Divide, Width::I64, 250.0, 300.0),
];

/// A sum of two tensors' elements: two alignments, rounding, saturation.
const SEPARATE_ADD: Price = price(Op::Add, Width::I16, 45.0, 58.0);

/// Dynamic energy of a cycle of the core alone: Arm's 12.26 µW/MHz for a Cortex-M4 in a 40 nm
/// low-power process, 1.1 V. A chip's memories and regulators come on top.
pub const PICOJOULES_A_CYCLE: f64 = 12.26;

/// Estimated costs on a Cortex-M4.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Instructions.
    pub instructions: u64,
    /// Cycles without wait states.
    pub cycles: u64,
    /// Dynamic energy of the core.
    pub energy_pj: u64,
}

/// The estimate for counted operations.
///
/// ```
/// use undertone_core::{Counts, Width};
/// use undertone_model::export::estimate;
/// let mut counts = Counts::default();
/// counts.mac(Width::I16, 1000);
/// assert_eq!(estimate(&counts).instructions, 1400);
/// ```
#[must_use]
pub fn estimate(counts: &Counts) -> Estimate {
    let separate = counts.get(Op::Add, Width::I16).saturating_sub(counts.get(Op::Mul, Width::I16));
    let (mut instructions, mut cycles) =
        (separate as f64 * SEPARATE_ADD.instructions, separate as f64 * SEPARATE_ADD.cycles);
    for p in CORTEX_M4 {
        let n = counts.get(p.op, p.width) as f64;
        instructions += n * p.instructions;
        cycles += n * p.cycles;
    }
    Estimate {
        instructions: instructions.round() as u64,
        cycles: cycles.round() as u64,
        energy_pj: (cycles * PICOJOULES_A_CYCLE).round() as u64,
    }
}

/// The counted instructions of one input of a whole model on an emulated Cortex-M4, where the
/// project has counted it: from `firmware/models.tsv`, which its tests keep within 1 %.
#[must_use]
pub fn counted(model: &str) -> Option<u64> {
    include_str!("../../../firmware/models.tsv").lines().find_map(|line| {
        let mut fields = line.split('\t');
        let found = fields.next()? == "an386" && fields.next()? == model;
        if found { fields.next()?.parse().ok() } else { None }
    })
}
