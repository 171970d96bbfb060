//! What runs: a list of operators with shapes. Built-in shapes, SCALE-Sim
//! topology files, and lists of any other origin.

use crate::arch::read_text;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Bytes of a topology file that are read at most.
pub const MAX_CSV_BYTES: u64 = 1 << 24;

/// What weighs the values in attention, as far as the hardware differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// exp, in the form of the architecture's softmax unit.
    Softmax,
    /// An even power: multipliers, no table.
    Power,
    /// max(s, 0): a comparator.
    ReluSoftmax,
    /// s itself over N.
    Scaling,
    /// EcoFormer: codes of `bits` bits, keys and values summed first.
    EcoFormer {
        /// Bits of a code.
        bits: u32,
    },
    /// BiViT: one-bit keys, queries and weights, XNOR and population count.
    BiVit,
}

/// An operator and its shape. Shapes are in elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Operator {
    /// [tokens, inputs] × [inputs, outputs], bias, optionally GELU on the way out.
    Linear {
        /// Rows of the left matrix.
        tokens: u64,
        /// Inner dimension.
        inputs: u64,
        /// Columns of the result.
        outputs: u64,
        /// Whether the result passes the GELU unit.
        gelu: bool,
        /// Whether the weights stay on chip from one image to the next.
        #[serde(default)]
        resident: bool,
    },
    /// QKᵀ of all heads, with the statistics that the weighting needs.
    Scores {
        /// Tokens (queries and keys).
        tokens: u64,
        /// Heads.
        heads: u64,
        /// Model dimension, over all heads.
        dim: u64,
        /// Weighting.
        weighting: Weighting,
    },
    /// Σ w·v of all heads, divided at the end.
    Mix {
        /// Tokens.
        tokens: u64,
        /// Heads.
        heads: u64,
        /// Model dimension, over all heads.
        dim: u64,
        /// Weighting.
        weighting: Weighting,
    },
    /// Layer norm of [tokens, dim].
    Norm {
        /// Rows.
        tokens: u64,
        /// Columns.
        dim: u64,
    },
    /// Sum of two [tokens, dim].
    Add {
        /// Rows.
        tokens: u64,
        /// Columns.
        dim: u64,
    },
    /// A function or a public operand applied to each element of [tokens, dim].
    Elementwise {
        /// Rows.
        tokens: u64,
        /// Columns.
        dim: u64,
    },
    /// Router: scores of `experts`, softmax, the best `chosen`; clears the sums of the experts.
    Gate {
        /// Tokens.
        tokens: u64,
        /// Model dimension.
        dim: u64,
        /// Experts.
        experts: u64,
        /// Experts for each token.
        chosen: u64,
    },
    /// Experts one after another, each over its queue of tokens.
    Experts {
        /// Tokens in the queue of each expert; empty queues are skipped.
        queues: Vec<u64>,
        /// Model dimension.
        dim: u64,
        /// Hidden dimension of an expert.
        hidden: u64,
        /// Tokens of the model: activations in external memory.
        tokens: u64,
    },
}

/// An operator with its place in the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// `layer.operator`.
    pub name: String,
    /// The operator.
    #[serde(flatten)]
    pub operator: Operator,
}

/// A model as the simulator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Name, for reports.
    pub name: String,
    /// Operators in order.
    pub steps: Vec<Step>,
}

/// Shape of a transformer encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoder {
    /// Tokens, class token included.
    pub tokens: u64,
    /// Words of a patch (0: no patch embedding) and number of patches.
    pub patch: (u64, u64),
    /// Model dimension.
    pub dim: u64,
    /// Heads.
    pub heads: u64,
    /// Layers.
    pub layers: u64,
    /// Hidden dimension of dense layers.
    pub hidden: u64,
    /// Mixture of experts in odd layers: experts, chosen, hidden.
    pub experts: Option<(u64, u64, u64)>,
    /// Weighting of every head.
    pub weighting: Weighting,
}

impl Encoder {
    /// M³ViT as Edge-MoE runs it: 128 × 256 image, 129 tokens, 16 experts of which 2.
    pub const fn m3vit() -> Self {
        Self {
            tokens: 129,
            patch: (768, 128),
            dim: 192,
            heads: 3,
            layers: 12,
            hidden: 768,
            experts: Some((16, 2, 384)),
            weighting: Weighting::Softmax,
        }
    }

    /// DeiT-Tiny, 224 × 224.
    pub const fn deit_t() -> Self {
        Self { experts: None, ..Self::m3vit().at_224() }
    }

    /// DeiT-Small, 224 × 224.
    pub const fn deit_s() -> Self {
        Self { dim: 384, heads: 6, hidden: 1536, ..Self::deit_t() }
    }

    /// MiniLM-L6 over `tokens` tokens.
    pub const fn minilm(tokens: u64) -> Self {
        Self {
            tokens,
            patch: (0, 0),
            dim: 384,
            heads: 12,
            layers: 6,
            hidden: 1536,
            experts: None,
            weighting: Weighting::Softmax,
        }
    }

    /// The same network on a 224 × 224 image: 197 tokens.
    pub const fn at_224(self) -> Self {
        Self { tokens: 197, patch: (768, 196), ..self }
    }

    /// The list of operators, in Edge-MoE's order.
    ///
    /// ```
    /// use undertone_fpga_sim::workload::Encoder;
    /// // 1.56 GOP of the published configuration, two for each product and sum.
    /// let gop = 2.0 * Encoder::m3vit().workload("m3vit").products() as f64 / 1e9;
    /// assert!((gop - 1.56).abs() < 0.01);
    /// ```
    pub fn workload(&self, name: &str) -> Workload {
        let Self { tokens, dim, heads, weighting, .. } = *self;
        let mut steps = Vec::new();
        let mut push = |name: String, operator| steps.push(Step { name, operator });
        let linear = |tokens, inputs, outputs, gelu| Operator::Linear {
            tokens,
            inputs,
            outputs,
            gelu,
            resident: false,
        };
        if self.patch.1 > 0 {
            let (words, patches) = self.patch;
            push(
                "patches".into(),
                Operator::Linear {
                    tokens: patches,
                    inputs: words,
                    outputs: dim,
                    gelu: false,
                    resident: true,
                },
            );
        }
        for layer in 0..self.layers {
            push(format!("{layer}.norm1"), Operator::Norm { tokens, dim });
            push(format!("{layer}.query"), linear(tokens, dim, dim, false));
            push(format!("{layer}.key"), linear(tokens, dim, dim, false));
            push(format!("{layer}.scores"), Operator::Scores { tokens, heads, dim, weighting });
            push(format!("{layer}.value"), linear(tokens, dim, dim, false));
            push(format!("{layer}.mix"), Operator::Mix { tokens, heads, dim, weighting });
            push(format!("{layer}.projection"), linear(tokens, dim, dim, false));
            push(format!("{layer}.add1"), Operator::Add { tokens, dim });
            push(format!("{layer}.norm2"), Operator::Norm { tokens, dim });
            match self.experts {
                Some((experts, chosen, hidden)) if layer % 2 == 1 => {
                    push(format!("{layer}.gate"), Operator::Gate { tokens, dim, experts, chosen });
                    // Even queues unless a trace says otherwise: the first take the remainder.
                    let total = tokens * chosen;
                    let queues = (0..experts)
                        .map(|e| total / experts + u64::from(e < total % experts))
                        .collect();
                    push(
                        format!("{layer}.experts"),
                        Operator::Experts { queues, dim, hidden, tokens },
                    );
                }
                _ => {
                    push(format!("{layer}.ffn1"), linear(tokens, dim, self.hidden, true));
                    push(format!("{layer}.ffn2"), linear(tokens, self.hidden, dim, false));
                }
            }
            push(format!("{layer}.add2"), Operator::Add { tokens, dim });
        }
        Workload { name: name.into(), steps }
    }
}

impl Operator {
    /// Multiply-accumulates.
    pub fn products(&self) -> u64 {
        let mul = |xs: &[u64]| xs.iter().fold(1u64, |a, b| a.saturating_mul(*b));
        match self {
            Self::Linear { tokens, inputs, outputs, .. } => mul(&[*tokens, *inputs, *outputs]),
            Self::Scores { tokens, dim, weighting, .. }
            | Self::Mix { tokens, dim, weighting, .. } => match weighting {
                Weighting::EcoFormer { bits } => mul(&[*tokens, *dim, u64::from(*bits)]),
                _ => mul(&[*tokens, *tokens, *dim]),
            },
            Self::Gate { tokens, dim, experts, .. } => mul(&[*tokens, *dim, *experts]),
            Self::Experts { queues, dim, hidden, .. } => {
                mul(&[queues.iter().fold(0, |a: u64, b| a.saturating_add(*b)), *dim, *hidden, 2])
            }
            Self::Norm { .. } | Self::Add { .. } | Self::Elementwise { .. } => 0,
        }
    }

    /// Every dimension is at least 1 and all products fit.
    ///
    /// # Errors
    /// [`Error::Workload`] or [`Error::Overflow`].
    pub fn check(&self, name: &str) -> Result<()> {
        let bad = |reason| Err(Error::Workload { operator: name.into(), reason });
        let dims: Vec<u64> = match self {
            Self::Linear { tokens, inputs, outputs, .. } => vec![*tokens, *inputs, *outputs],
            Self::Scores { tokens, heads, dim, .. } | Self::Mix { tokens, heads, dim, .. } => {
                if *heads == 0 || !dim.is_multiple_of(*heads) {
                    return bad("heads must divide the model dimension");
                }
                vec![*tokens, *heads, *dim]
            }
            Self::Norm { tokens, dim }
            | Self::Add { tokens, dim }
            | Self::Elementwise { tokens, dim } => {
                vec![*tokens, *dim]
            }
            Self::Gate { tokens, dim, experts, chosen } => {
                if chosen > experts {
                    return bad("more experts are chosen than there are");
                }
                vec![*tokens, *dim, *experts, *chosen]
            }
            Self::Experts { queues, dim, hidden, tokens } => {
                if queues.iter().any(|q| q > tokens) {
                    return bad("an expert's queue holds more tokens than there are");
                }
                vec![*dim, *hidden, *tokens]
            }
        };
        if dims.contains(&0) {
            return bad("a dimension is zero");
        }
        if dims.iter().any(|d| *d > 1 << 40) || self.products() >= 1 << 62 {
            return Err(Error::Overflow { at: name.into() });
        }
        Ok(())
    }
}

impl Workload {
    /// Multiply-accumulates of all steps.
    pub fn products(&self) -> u64 {
        self.steps.iter().map(|s| s.operator.products()).fold(0, u64::saturating_add)
    }

    /// A built-in shape by name: `m3vit`, `m3vit-224`, `deit-t`, `deit-s`, `minilm`.
    ///
    /// # Errors
    /// [`Error::Workload`] if there is none of that name.
    pub fn builtin(name: &str) -> Result<Self> {
        let encoder = match name {
            "m3vit" => Encoder::m3vit(),
            "m3vit-224" => Encoder::m3vit().at_224(),
            "deit-t" => Encoder::deit_t(),
            "deit-s" => Encoder::deit_s(),
            "minilm" => Encoder::minilm(128),
            _ => {
                return Err(Error::Workload {
                    operator: name.into(),
                    reason: "neither .csv nor .json, and built-in shapes are m3vit, m3vit-224, deit-t, deit-s and minilm",
                });
            }
        };
        Ok(encoder.workload(name))
    }

    /// A built-in shape by name, or else a file: a SCALE-Sim topology (`.csv`)
    /// or a list of operators as this type serializes (`.json`).
    ///
    /// # Errors
    /// As [`Workload::builtin`], [`Workload::scale_sim`] and [`Workload::json`],
    /// or [`Error::Io`].
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(name);
        let stem = path.file_stem().map_or_else(|| name.into(), |s| s.to_string_lossy());
        let text = || read_text("workload", path, MAX_CSV_BYTES);
        match path.extension().and_then(|e| e.to_str()) {
            Some("csv") => Self::scale_sim(&stem, &text()?).map_err(|e| e.in_file(name)),
            Some("json") => Self::json(&text()?).map_err(|e| e.in_file(name)),
            _ => Self::builtin(name),
        }
    }

    /// Reads a list of operators in JSON, as `serde_json` writes this type.
    ///
    /// ```
    /// use undertone_fpga_sim::workload::Workload;
    /// let w = Workload::json(r#"{"name": "one layer", "steps": [
    ///     {"name": "up", "kind": "linear", "tokens": 197, "inputs": 192, "outputs": 768, "gelu": true},
    ///     {"name": "scores", "kind": "scores", "tokens": 197, "heads": 3, "dim": 192, "weighting": "softmax"}
    /// ]}"#)?;
    /// assert_eq!(w.steps.len(), 2);
    /// # Ok::<(), undertone_fpga_sim::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parse`] with the line, [`Error::TooLarge`], or a shape's own error.
    pub fn json(text: &str) -> Result<Self> {
        const WHAT: &str = "workload";
        let found = text.len() as u64;
        if found > MAX_CSV_BYTES {
            return Err(Error::TooLarge { what: WHAT, found, limit: MAX_CSV_BYTES });
        }
        let workload: Self = serde_json::from_str(text).map_err(|e| Error::Parse {
            what: WHAT,
            line: e.line(),
            reason: e.to_string(),
        })?;
        for step in &workload.steps {
            step.operator.check(&step.name)?;
        }
        Ok(workload)
    }

    /// Reads a SCALE-Sim topology: either `Layer, M, N, K,` or the convolution
    /// columns `Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter
    /// Width, Channels, Num Filter, Strides,`, told apart by their number.
    ///
    /// # Errors
    /// [`Error::Parse`] with the line, [`Error::TooLarge`], or a shape's own error.
    ///
    /// ```
    /// use undertone_fpga_sim::workload::Workload;
    /// let w = Workload::scale_sim("rows", "Layer, M, N, K,\nqkv, 129, 192, 192,\n")?;
    /// assert_eq!(w.products(), 129 * 192 * 192);
    /// # Ok::<(), undertone_fpga_sim::Error>(())
    /// ```
    pub fn scale_sim(name: &str, text: &str) -> Result<Self> {
        const WHAT: &str = "topology";
        if text.len() as u64 > MAX_CSV_BYTES {
            return Err(Error::TooLarge {
                what: WHAT,
                found: text.len() as u64,
                limit: MAX_CSV_BYTES,
            });
        }
        let mut steps = Vec::new();
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .trim(csv::Trim::All)
            .has_headers(true)
            .from_reader(text.as_bytes());
        for record in reader.records() {
            let fail = |line: Option<u64>, reason: String| Error::Parse {
                what: WHAT,
                line: line.and_then(|l| usize::try_from(l).ok()).unwrap_or(0),
                reason,
            };
            let record =
                record.map_err(|e| fail(e.position().map(csv::Position::line), e.to_string()))?;
            let line = record.position().map(csv::Position::line);
            // Trailing commas and sparsity ratios (`1:1`) are not dimensions.
            let fields: Vec<&str> =
                record.iter().filter(|f| !f.is_empty() && !f.contains(':')).collect();
            let Some((layer, numbers)) = fields.split_first() else { continue };
            let dims = numbers
                .iter()
                .map(|f| {
                    f.parse::<u64>().map_err(|_| fail(line, format!("`{f}` is not a whole number")))
                })
                .collect::<Result<Vec<u64>>>()?;
            let operator = match dims[..] {
                [m, n, k] => Operator::Linear {
                    tokens: m,
                    inputs: k,
                    outputs: n,
                    gelu: false,
                    resident: false,
                },
                [h, w, fh, fw, channels, filters, stride] => {
                    if stride == 0 || fh > h || fw > w || fh == 0 || fw == 0 {
                        return Err(fail(
                            line,
                            "a filter must fit its input and stride must be at least 1".into(),
                        ));
                    }
                    let size = |a: u64, b: u64| (a - b) / stride + 1;
                    Operator::Linear {
                        tokens: size(h, fh).saturating_mul(size(w, fw)),
                        inputs: fh.saturating_mul(fw).saturating_mul(channels),
                        outputs: filters,
                        gelu: false,
                        resident: false,
                    }
                }
                _ => {
                    return Err(fail(
                        line,
                        format!("{} numbers; a GEMM has 3 (M, N, K), a convolution 7", dims.len()),
                    ));
                }
            };
            operator.check(layer)?;
            steps.push(Step { name: (*layer).into(), operator });
        }
        Ok(Self { name: name.into(), steps })
    }
}
