//! Architecture descriptions in TOML. Unknown keys, wrong types and impossible
//! values are errors with the line they stand on. [`Arch::preset`] holds the
//! shipped ones.

use crate::error::{Error, Result};
use crate::graph::{Dram, Port};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Bytes of TOML that are read at most.
pub const MAX_TOML_BYTES: u64 = 1 << 20;

/// A device and the units on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arch {
    /// Name, for reports.
    pub name: String,
    /// Clock of the fabric in MHz.
    pub clock_mhz: f64,
    /// Matrix unit.
    pub linear: Linear,
    /// Attention unit.
    pub attention: Attention,
    /// Unit of softmax statistics.
    pub softmax: Softmax,
    /// Unit of elementwise work: norms, residual sums, GELU.
    pub vector: Vector,
    /// Number formats.
    pub formats: Formats,
    /// On-chip buffers.
    pub buffers: Buffers,
    /// Memory ports and DRAM.
    pub memory: Memory,
    /// Energy constants that no table gives.
    pub energy: Energy,
    /// What the device has.
    pub device: Device,
}

/// How a matrix unit is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataflow {
    /// Every input word goes to a whole column at once (Edge-MoE's unified linear unit).
    Broadcast,
    /// A weight-stationary systolic array (SCALE-Sim's `ws`).
    WeightStationary,
}

/// The matrix unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// How it is fed.
    pub dataflow: Dataflow,
    /// Inputs taken in one cycle.
    pub rows: u64,
    /// Outputs computed in one cycle.
    pub columns: u64,
    /// Cycles between two starts.
    pub interval: u64,
    /// Cycles from start to result.
    pub latency: u64,
    /// Depth of the input FIFO in blocks.
    pub fifo_depth: u64,
    /// Depth of the FIFO of patch indices.
    pub index_depth: u64,
}

/// The attention unit: reordered so that one key block a cycle serves all lanes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Queries under way at once.
    pub lanes: u64,
    /// Words of a block, one block a cycle.
    pub block_words: u64,
    /// Cycles between two starts.
    pub interval: u64,
    /// Cycles from start to result.
    pub latency: u64,
    /// Depth of its FIFOs.
    pub fifo_depth: u64,
}

/// Form of the softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoftmaxForm {
    /// Maximum first, then the sum: the scores are read twice.
    TwoPass,
    /// Running maximum and sum in floating point.
    Online,
    /// Edge-MoE's single pass: `s·e + 1` or `s + e`.
    SinglePass,
    /// Integer maximum, sums rescaled by shifts.
    Shift,
}

/// The unit of softmax statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Softmax {
    /// Its form.
    pub form: SoftmaxForm,
    /// Cycles between two starts of one row's recurrence.
    pub interval: u64,
    /// Cycles from start to result.
    pub latency: u64,
}

/// The elementwise unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// Words a cycle.
    pub words: u64,
    /// Cycles from start to result.
    pub latency: u64,
    /// Cycles between two exponentials of the router.
    pub gate_softmax_interval: u64,
    /// Cycles lost between two tokens of a norm or a router.
    pub token_gap: u64,
}

/// Number formats in bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Formats {
    /// Activations.
    pub activation_bits: u32,
    /// Weights.
    pub weight_bits: u32,
}

/// On-chip buffers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffers {
    /// Bytes of one weight buffer; ping-pong has two.
    pub weight_bytes: u64,
    /// Whether weights have two buffers, so that a load hides behind work.
    pub ping_pong: bool,
}

/// Ports and what lies behind them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Ports; streams beyond their number share.
    pub ports: u64,
    /// Width of a port in bits.
    pub width_bits: u64,
    /// Largest burst in beats.
    pub burst_beats: u64,
    /// Boundary in bytes that no burst crosses (AXI: 4096).
    pub burst_boundary_bytes: u64,
    /// Bursts under way for each stream.
    pub outstanding: u64,
    /// Cycles from a read request to its first beat.
    pub read_overhead: u64,
    /// Cycles from the last beat written to the response.
    pub write_overhead: u64,
    /// External memory in bytes.
    pub bytes: u64,
    /// Row timing in cycles; zero banks switch it off.
    pub dram_banks: u64,
    /// Bytes of a row.
    pub dram_row_bytes: u64,
    /// Cycles of an open row.
    pub dram_hit: u64,
    /// Cycles of another row.
    pub dram_miss: u64,
    /// Cycles between refreshes; 0 for none.
    pub dram_refresh_interval: u64,
    /// Cycles of a refresh.
    pub dram_refresh: u64,
}

/// Energy constants beside the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// Power that flows whatever runs, in mW.
    pub static_mw: f64,
    /// Where `static_mw` comes from; begins with `measured`, `published`, `fitted` or `assumed`.
    pub static_source: String,
    /// Factor on every dynamic entry of the 45 nm table.
    pub scale: f64,
    /// Where `scale` comes from.
    pub scale_source: String,
}

/// Resources of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Look-up tables.
    pub lut: u64,
    /// Flip-flops.
    pub ff: u64,
    /// DSP slices.
    pub dsp: u64,
    /// 36 Kb block RAMs.
    pub bram36: u64,
}

/// Names of the presets.
pub const PRESETS: [&str; 3] = ["edge-moe-zcu102", "systolic-16x16", "small-edge"];

impl Arch {
    /// A shipped description by name.
    ///
    /// # Errors
    /// [`Error::Value`] if there is none of that name.
    ///
    /// ```
    /// use undertone_fpga_sim::arch::Arch;
    /// assert_eq!(Arch::preset("edge-moe-zcu102")?.linear.rows, 16);
    /// # Ok::<(), undertone_fpga_sim::Error>(())
    /// ```
    pub fn preset(name: &str) -> Result<Self> {
        let text = match name {
            "edge-moe-zcu102" => include_str!("../presets/edge-moe-zcu102.toml"),
            "systolic-16x16" => include_str!("../presets/systolic-16x16.toml"),
            "small-edge" => include_str!("../presets/small-edge.toml"),
            _ => {
                return Err(Error::Value {
                    key: "preset".into(),
                    line: None,
                    found: name.into(),
                    reason: "presets are edge-moe-zcu102, systolic-16x16 and small-edge",
                });
            }
        };
        Self::parse(text)
    }

    /// Reads and checks a description.
    ///
    /// # Errors
    /// [`Error::Parse`] or [`Error::Value`], with the line; [`Error::TooLarge`].
    ///
    /// ```
    /// use undertone_fpga_sim::arch::Arch;
    /// let text = include_str!("../presets/small-edge.toml").replace("lanes = 2", "lanes = 0");
    /// let message = Arch::parse(&text).unwrap_err().to_string();
    /// assert!(message.contains("line") && message.contains("attention.lanes"), "{message}");
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let arch: Self = parse_toml("architecture", text)?;
        arch.check().map_err(|e| match e {
            Error::Value { key, found, reason, .. } => {
                Error::Value { line: line_of(text, &key), key, found, reason }
            }
            other => other,
        })?;
        Ok(arch)
    }

    /// A preset by name, or else a description from a file.
    ///
    /// # Errors
    /// As [`Arch::parse`], or [`Error::Io`] for what is neither.
    pub fn open(name: &str) -> Result<Self> {
        if PRESETS.contains(&name) {
            return Self::preset(name);
        }
        let text = read_text("architecture", Path::new(name), MAX_TOML_BYTES)?;
        Self::parse(&text).map_err(|e| e.in_file(name))
    }

    /// The description with some dotted keys changed, checked again.
    ///
    /// ```
    /// use undertone_fpga_sim::arch::Arch;
    /// let narrow = Arch::preset("edge-moe-zcu102")?.with([("memory.width_bits", 128.into())])?;
    /// assert_eq!(narrow.memory.width_bits, 128);
    /// # Ok::<(), undertone_fpga_sim::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] for a key that does not exist or a value of the wrong type;
    /// [`Error::Value`] for an impossible one.
    pub fn with<'a>(
        &self,
        settings: impl IntoIterator<Item = (&'a str, toml::Value)>,
    ) -> Result<Self> {
        let odd = |key: &str, reason: String| Error::Setting { key: key.into(), reason };
        let mut root = toml::Value::try_from(self).map_err(|e| odd("", e.to_string()))?;
        let mut arch = self.clone();
        for (key, value) in settings {
            let mut at = &mut root;
            for part in key.split('.') {
                at = at
                    .get_mut(part)
                    .ok_or_else(|| odd(key, "an architecture has no such key".into()))?;
            }
            *at = value;
            arch = root
                .clone()
                .try_into()
                .map_err(|e: toml::de::Error| odd(key, e.message().to_owned()))?;
        }
        arch.check()?;
        Ok(arch)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Value`] for the first impossible one.
    pub fn check(&self) -> Result<()> {
        let bad = |key: &str, found: &dyn core::fmt::Display, reason| {
            Err(Error::Value { key: key.into(), line: None, found: found.to_string(), reason })
        };
        let (l, a, s, v, m) =
            (&self.linear, &self.attention, &self.softmax, &self.vector, &self.memory);
        if !(self.clock_mhz.is_finite() && self.clock_mhz > 0.0 && self.clock_mhz <= 10_000.0) {
            return bad(
                "clock_mhz",
                &self.clock_mhz,
                "a clock lies above 0 and at most at 10000 MHz",
            );
        }
        for (key, value, most) in [
            ("linear.rows", l.rows, 1 << 12),
            ("linear.columns", l.columns, 1 << 12),
            ("linear.interval", l.interval, 1 << 16),
            ("linear.latency", l.latency, 1 << 16),
            ("linear.fifo_depth", l.fifo_depth, 1 << 20),
            ("linear.index_depth", l.index_depth, 1 << 20),
            ("attention.lanes", a.lanes, 1 << 10),
            ("attention.block_words", a.block_words, 1 << 10),
            ("attention.interval", a.interval, 1 << 16),
            ("attention.latency", a.latency, 1 << 16),
            ("attention.fifo_depth", a.fifo_depth, 1 << 20),
            ("softmax.interval", s.interval, 1 << 16),
            ("softmax.latency", s.latency, 1 << 16),
            ("vector.words", v.words, 1 << 12),
            ("vector.latency", v.latency, 1 << 16),
            ("vector.gate_softmax_interval", v.gate_softmax_interval, 1 << 16),
            ("buffers.weight_bytes", self.buffers.weight_bytes, 1 << 40),
            ("memory.ports", m.ports, 1 << 10),
            ("memory.width_bits", m.width_bits, 1 << 14),
            ("memory.burst_beats", m.burst_beats, 1 << 12),
            ("memory.burst_boundary_bytes", m.burst_boundary_bytes, 1 << 24),
            ("memory.outstanding", m.outstanding, 1 << 12),
            ("memory.bytes", m.bytes, 1 << 50),
        ] {
            if value == 0 {
                return bad(key, &value, "must be at least 1");
            }
            if value > most {
                return bad(key, &value, "is larger than any device");
            }
        }
        for (key, value) in [
            ("vector.token_gap", v.token_gap),
            ("memory.read_overhead", m.read_overhead),
            ("memory.write_overhead", m.write_overhead),
            ("memory.dram_hit", m.dram_hit),
            ("memory.dram_miss", m.dram_miss),
        ] {
            if value > 1 << 20 {
                return bad(key, &value, "more than 2^20 cycles");
            }
        }
        for (key, bits) in [
            ("formats.activation_bits", self.formats.activation_bits),
            ("formats.weight_bits", self.formats.weight_bits),
        ] {
            if !(1..=64).contains(&bits) {
                return bad(key, &bits, "a word has 1 to 64 bits");
            }
        }
        if !m.width_bits.is_multiple_of(8) {
            return bad("memory.width_bits", &m.width_bits, "must be whole bytes");
        }
        if m.burst_beats * (m.width_bits / 8) > m.burst_boundary_bytes {
            return bad(
                "memory.burst_beats",
                &m.burst_beats,
                "a burst must fit the burst boundary",
            );
        }
        if m.dram_banks > 0 && (m.dram_row_bytes == 0 || m.dram_banks > 1 << 16) {
            return bad(
                "memory.dram_row_bytes",
                &m.dram_row_bytes,
                "banks need rows of at least one byte",
            );
        }
        if m.dram_miss < m.dram_hit {
            return bad(
                "memory.dram_miss",
                &m.dram_miss,
                "a row miss takes at least as long as a hit",
            );
        }
        if m.dram_refresh_interval > 0 && m.dram_refresh >= m.dram_refresh_interval {
            return bad("memory.dram_refresh", &m.dram_refresh, "refresh would never end");
        }
        for (key, value) in
            [("energy.static_mw", self.energy.static_mw), ("energy.scale", self.energy.scale)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return bad(key, &value, "must be finite and not negative");
            }
        }
        for (key, text) in [
            ("energy.static_source", &self.energy.static_source),
            ("energy.scale_source", &self.energy.scale_source),
        ] {
            if !["measured", "published", "fitted", "assumed"].iter().any(|w| text.starts_with(w)) {
                return bad(key, text, "begin with measured, published, fitted or assumed");
            }
        }
        Ok(())
    }

    /// The port of this description as a graph part.
    pub(crate) fn port(&self, name: &str) -> Port {
        let m = &self.memory;
        Port {
            name: name.into(),
            beat_bytes: m.width_bits / 8,
            burst_beats: m.burst_beats,
            outstanding: m.outstanding,
            read_overhead: m.read_overhead,
            write_overhead: m.write_overhead,
            dram: Dram {
                banks: m.dram_banks,
                row_bytes: m.dram_row_bytes,
                hit: m.dram_hit,
                miss: m.dram_miss,
                refresh_interval: m.dram_refresh_interval,
                refresh: m.dram_refresh,
            },
        }
    }

    /// Milliseconds of a number of cycles.
    pub fn milliseconds(&self, cycles: u64) -> f64 {
        cycles as f64 / (self.clock_mhz * 1e3)
    }
}

/// A text file of at most `limit` bytes.
pub(crate) fn read_text(what: &'static str, path: &Path, limit: u64) -> Result<String> {
    use std::io::Read as _;
    let io =
        |e: std::io::Error| Error::Io { path: path.display().to_string(), reason: e.to_string() };
    let mut text = String::new();
    // One byte more than the limit shows that there is more.
    std::fs::File::open(path).map_err(io)?.take(limit + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > limit {
        return Err(Error::TooLarge { what, found: text.len() as u64, limit });
    }
    Ok(text)
}

/// Parses TOML behind a size limit; errors carry the line.
pub(crate) fn parse_toml<T: serde::de::DeserializeOwned>(
    what: &'static str,
    text: &str,
) -> Result<T> {
    if text.len() as u64 > MAX_TOML_BYTES {
        return Err(Error::TooLarge { what, found: text.len() as u64, limit: MAX_TOML_BYTES });
    }
    toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |s| s.start).min(text.len());
        let line = 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
        Error::Parse { what, line, reason: e.message().to_owned() }
    })
}

/// Line of a dotted key in a TOML text.
pub(crate) fn line_of(text: &str, key: &str) -> Option<usize> {
    let root = toml::de::DeTable::parse(text).ok()?;
    let (mut table, mut at) = (root.get_ref(), None);
    for part in key.split('.') {
        let (found, value) = table.iter().find(|(k, _)| k.get_ref() == part)?;
        at = Some(found.span().start);
        match value.get_ref() {
            toml::de::DeValue::Table(t) => table = t,
            _ => break,
        }
    }
    at.map(|at| 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count())
}
