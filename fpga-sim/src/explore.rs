//! Design-space exploration: a grid over an architecture's keys, every point
//! simulated, the Pareto front of latency, energy and resources. Results are
//! lines of JSON, so that a run can be resumed and shards can be merged.

use crate::arch::{Arch, parse_toml};
use crate::error::{Error, Result};
use crate::simulate::{Loads, Mode, Options, simulate};
use crate::workload::Workload;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Points of a grid at most.
pub const MAX_POINTS: u64 = 10_000_000;

/// What is explored.
///
/// ```
/// use undertone_fpga_sim::explore::Grid;
/// let grid = Grid::parse(r#"
/// base = "edge-moe-zcu102"
/// workload = "m3vit"
/// [grid]
/// "linear.rows" = [8, 16]
/// "memory.width_bits" = [128, 256]
/// "#)?;
/// assert_eq!(grid.points(), 4);
/// # Ok::<(), undertone_fpga_sim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Preset to start from; ignored where `arch` stands.
    #[serde(default)]
    pub base: String,
    /// Architecture to start from.
    #[serde(default)]
    pub arch: Option<Arch>,
    /// Built-in workload.
    pub workload: String,
    /// Model of the hardware.
    #[serde(default)]
    pub mode: Mode,
    /// Weight loads.
    #[serde(default)]
    pub loads: Loads,
    /// Dotted keys and the values that each takes.
    pub grid: BTreeMap<String, Vec<toml::Value>>,
}

/// One simulated point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its number in the grid, the last key varying fastest.
    pub index: u64,
    /// Its settings.
    pub settings: BTreeMap<String, toml::Value>,
    /// Its costs, or why it has none.
    pub costs: core::result::Result<Costs, String>,
}

/// What is traded off; less is better in each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Cycles.
    pub latency_cycles: u64,
    /// Milliseconds, at the point's clock.
    pub latency_ms: f64,
    /// Picojoules.
    pub energy_pj: f64,
    /// DSP slices.
    pub dsp: u64,
    /// Block RAMs.
    pub bram36: u64,
}

/// First line of a result file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    undertone_explore: u32,
    grid: String,
    points: u64,
}

/// A part of the grid: points whose index is `index` modulo `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part.
    pub index: u64,
    /// Of how many.
    pub of: u64,
}

impl Shard {
    /// The whole grid.
    pub const ALL: Self = Self { index: 0, of: 1 };
}

impl core::str::FromStr for Shard {
    type Err = Error;
    /// `i/N`, i from 0.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Explore {
            reason: format!("shard `{text}`: write i/N with i from 0 to N - 1"),
        };
        let (i, n) = text.split_once('/').ok_or_else(bad)?;
        let (index, of) = (i.parse().map_err(|_| bad())?, n.parse().map_err(|_| bad())?);
        if index < of { Ok(Self { index, of }) } else { Err(bad()) }
    }
}

impl Grid {
    /// Reads a grid.
    ///
    /// # Errors
    /// [`Error::Parse`] with the line, or [`Error::Explore`].
    pub fn parse(text: &str) -> Result<Self> {
        let grid: Self = parse_toml("grid", text)?;
        if let Some((key, _)) = grid.grid.iter().find(|(_, v)| v.is_empty()) {
            return Err(Error::Explore { reason: format!("`{key}` has no values") });
        }
        let points = grid.grid.values().try_fold(1u64, |n, v| n.checked_mul(v.len() as u64));
        if points.is_none_or(|n| n > MAX_POINTS) {
            return Err(Error::Explore {
                reason: format!("more than {MAX_POINTS} points: shorten a list"),
            });
        }
        Workload::builtin(&grid.workload)?;
        // A wrong key shows at once, not in every point.
        grid.arch_of(&grid.settings(0))?;
        Ok(grid)
    }

    /// Number of points.
    pub fn points(&self) -> u64 {
        self.grid.values().map(|v| v.len() as u64).product()
    }

    /// Fingerprint of everything that decides the results.
    pub fn fingerprint(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        // FNV-1a: it tells grids apart, it need not resist anyone.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    fn settings(&self, index: u64) -> BTreeMap<String, toml::Value> {
        let mut rest = index;
        let mut out = BTreeMap::new();
        for (key, values) in self.grid.iter().rev() {
            let n = values.len() as u64;
            if let Some(value) = usize::try_from(rest % n).ok().and_then(|i| values.get(i)) {
                out.insert(key.clone(), value.clone());
            }
            rest /= n;
        }
        out
    }

    /// The architecture with some settings changed.
    fn arch_of(&self, settings: &BTreeMap<String, toml::Value>) -> Result<Arch> {
        let base = match &self.arch {
            Some(arch) => arch.clone(),
            None => Arch::preset(&self.base)?,
        };
        let odd = |reason: String| Error::Explore { reason };
        let mut root = toml::Value::try_from(&base).map_err(|e| odd(e.to_string()))?;
        for (key, value) in settings {
            let mut at = &mut root;
            for part in key.split('.') {
                at = at
                    .get_mut(part)
                    .ok_or_else(|| odd(format!("`{key}` is no key of an architecture")))?;
            }
            *at = value.clone();
        }
        let arch: Arch =
            root.try_into().map_err(|e: toml::de::Error| odd(e.message().to_owned()))?;
        Ok(arch)
    }

    /// Simulates one point; a point that cannot be built keeps its reason.
    pub fn point(&self, index: u64) -> Point {
        let settings = self.settings(index);
        let costs = self.costs(&settings).map_err(|e| e.to_string());
        Point { index, settings, costs }
    }

    fn costs(&self, settings: &BTreeMap<String, toml::Value>) -> Result<Costs> {
        let arch = self.arch_of(settings)?;
        let options = Options { mode: self.mode, loads: self.loads, plain: false };
        let report = simulate(&arch, &Workload::builtin(&self.workload)?, &options)?;
        Ok(Costs {
            latency_cycles: report.latency_cycles,
            latency_ms: report.latency_ms,
            energy_pj: report.energy.total_pj,
            dsp: report.resources.dsp,
            bram36: report.resources.bram36,
        })
    }

    /// Simulates the points of a shard that `done` (an earlier, perhaps broken
    /// off, result file) lacks, in parallel; `keep` gets each new line as soon
    /// as it is known, in no particular order, after the head line if the file is new.
    ///
    /// # Errors
    /// [`Error::Explore`] if `done` belongs to another grid; whatever `keep` returns.
    pub fn run(
        &self,
        shard: Shard,
        done: &str,
        keep: impl FnMut(&str) -> Result<()> + Send,
    ) -> Result<Vec<Point>> {
        let mut points = self.read(done)?;
        points.retain(|index, _| index % shard.of == shard.index);
        let keep = std::sync::Mutex::new(keep);
        let put = |line: &str| match keep.lock() {
            Ok(mut keep) => keep(line),
            Err(_) => Err(Error::Explore { reason: "another thread failed while it wrote".into() }),
        };
        if done.is_empty() {
            put(&serde_json::to_string(&self.head()).unwrap_or_default())?;
        }
        let open: Vec<u64> = (0..self.points())
            .filter(|i| i % shard.of == shard.index && !points.contains_key(i))
            .collect();
        let fresh = open
            .into_par_iter()
            .map(|index| {
                let point = self.point(index);
                put(&serde_json::to_string(&point).unwrap_or_default())?;
                Ok(point)
            })
            .collect::<Result<Vec<Point>>>()?;
        points.extend(fresh.into_iter().map(|p| (p.index, p)));
        Ok(points.into_values().collect())
    }

    fn head(&self) -> Head {
        Head { undertone_explore: 1, grid: self.fingerprint(), points: self.points() }
    }

    /// Points of a result file. A last line without an end was being written
    /// when the run broke off: it is dropped.
    fn read(&self, text: &str) -> Result<BTreeMap<u64, Point>> {
        let mut points = BTreeMap::new();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines();
        let Some(first) = lines.next() else {
            return Ok(points);
        };
        let head: Head = serde_json::from_str(first)
            .map_err(|e| Error::Explore { reason: format!("not a result file: {e}") })?;
        if head != self.head() {
            return Err(Error::Explore {
                reason: "the results belong to another grid: give them another file name".into(),
            });
        }
        for (n, line) in lines.enumerate() {
            let point: Point = serde_json::from_str(line)
                .map_err(|e| Error::Explore { reason: format!("result line {}: {e}", n + 2) })?;
            points.insert(point.index, point);
        }
        Ok(points)
    }

    /// Joins result files of shards.
    ///
    /// # Errors
    /// [`Error::Explore`] if a file belongs to another grid or points are missing.
    pub fn merge(&self, files: &[String]) -> Result<Vec<Point>> {
        let mut all = BTreeMap::new();
        for text in files {
            all.extend(self.read(text)?);
        }
        let missing = self.points() - all.len() as u64;
        if missing > 0 {
            return Err(Error::Explore {
                reason: format!("{missing} of {} points are missing", self.points()),
            });
        }
        Ok(all.into_values().collect())
    }
}

/// Points that no other is at least as good as in latency, energy, DSP and BRAM
/// and better in one, by latency.
pub fn pareto(points: &[Point]) -> Vec<&Point> {
    let costs = |p: &Point| {
        p.costs.as_ref().ok().map(|c| [c.latency_ms, c.energy_pj, c.dsp as f64, c.bram36 as f64])
    };
    let dominates = |a: &[f64; 4], b: &[f64; 4]| a.iter().zip(b).all(|(x, y)| x <= y) && a != b;
    let mut front: Vec<(&Point, [f64; 4])> = Vec::new();
    for (point, c) in points.iter().filter_map(|p| Some((p, costs(p)?))) {
        if front.iter().any(|(_, f)| dominates(f, &c)) {
            continue;
        }
        front.retain(|(_, f)| !dominates(&c, f));
        front.push((point, c));
    }
    front.sort_by(|a, b| a.1[0].total_cmp(&b.1[0]));
    front.into_iter().map(|x| x.0).collect()
}
