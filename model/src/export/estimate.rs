//! What a core will take for counted operations, before anything is built.
//!
//! Prices are instructions an operation, solved from the counted kernels of `firmware` (QEMU,
//! Cortex-M4F, `opt-level = 3`): the linear layer, both attention heads, the norm and GELU. What
//! the world does around its kernels, and `opt-level = "s"` of an exported crate, is one factor,
//! [`AROUND`], fitted on `vit-fmnist`; other models check it.
//!
//! Cycles are assumed, not counted: 1.35 an instruction in products, which are mostly loads, and
//! 1.25 elsewhere, since on this core loads and taken branches take more than one cycle and most
//! else takes one. No timing table was applied instruction by instruction, and memory is taken to
//! answer at once.

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

/// Prices on a Cortex-M4. Additions of products are part of their product.
const CORTEX_M4: [Price; 8] = [
    // Two rows a round: three loads and two SMLALD for four products.
    price(Op::Mul, Width::I16, 1.4, 1.9),
    // A product's way back to 16 bits: bias, shift, rounding, saturation, the loop around it.
    price(Op::Shift, Width::I16, 69.0, 86.0),
    // A weight times a value, into 64 bits.
    price(Op::Mul, Width::I32, 4.2, 5.6),
    // A score's requantization, its weight, the running maximum and sum.
    price(Op::Lookup, Width::I32, 136.0, 170.0),
    // A normalised element of attention or of a norm.
    price(Op::Mul, Width::I64, 49.0, 61.0),
    // GELU by table.
    price(Op::Function, Width::I16, 25.5, 32.0),
    // A root or a reciprocal a row.
    price(Op::Function, Width::I64, 250.0, 310.0),
    price(Op::Divide, Width::I64, 250.0, 310.0),
];

/// Additions that are part of no product: those of biases are in their shift's price, those of
/// residual connections are not.
const SEPARATE_ADD: Price = price(Op::Add, Width::I16, 25.0, 31.0);

/// What whole models take more than their kernels. Fitted.
const AROUND: f64 = 1.35;

/// Dynamic energy of a cycle of the core alone: an assumed constant, the 12.26 µW/MHz by which a
/// Cortex-M4 at 40 nm is known, not checked against a data sheet. Memories and regulators come on
/// top.
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
/// assert_eq!(estimate(&counts).instructions, 1890); // 1.4 each, and what is around kernels
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
    instructions *= AROUND;
    cycles *= AROUND;
    Estimate {
        instructions: instructions.round() as u64,
        cycles: cycles.round() as u64,
        energy_pj: (cycles * PICOJOULES_A_CYCLE).round() as u64,
    }
}

/// The counted instructions of one input of a whole model of 16-bit weights on an emulated Cortex-M4, where the
/// project has counted it: from `firmware/models.tsv`, which its tests keep within 1 %.
#[must_use]
pub fn counted(model: &str) -> Option<u64> {
    include_str!("../../../firmware/models.tsv").lines().find_map(|line| {
        let mut fields = line.split('\t');
        let found =
            fields.next()? == "an386" && fields.next()?.strip_suffix("-int16") == Some(model);
        if found { fields.next()?.parse().ok() } else { None }
    })
}
