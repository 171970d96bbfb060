//! Design-space exploration: a grid over an architecture's keys, every point
//! simulated, the Pareto front of latency, energy and resources. Results are
//! lines of JSON, so that a run can be resumed and shards can be merged.

use crate::arch::{Arch, MAX_TOML_BYTES, parse_toml, read_text};
use crate::error::{Error, Result};
use crate::resources;
use crate::simulate::{Loads, Mode, Options, simulate};
use crate::workload::Workload;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

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
    /// Built-in workload; from [`Grid::open`] also a file, relative to the grid's.
    #[serde(default)]
    pub workload: String,
    /// What is simulated.
    #[serde(skip_deserializing)]
    steps: Option<Workload>,
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
        let mut grid = Self::parse_shape(text)?;
        grid.steps = Some(Workload::builtin(&grid.workload)?);
        Ok(grid)
    }

    /// Reads a grid from a file. `base` may name a file too, and `workload` one
    /// of the kinds that [`Workload::open`] reads, both relative to the grid's.
    ///
    /// # Errors
    /// As [`Grid::parse`], or [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let text = read_text("grid", path, MAX_TOML_BYTES)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let beside = |name: &str| {
            let file = folder.join(name);
            if file.is_file() { file.display().to_string() } else { name.to_owned() }
        };
        let read = || {
            let mut raw: Self = parse_toml("grid", &text)?;
            if raw.arch.is_none() && beside(&raw.base) != raw.base {
                raw.arch = Some(Arch::open(&beside(&raw.base))?);
            }
            let mut grid = raw.checked()?;
            if !grid.workload.is_empty() {
                grid.steps = Some(Workload::open(&beside(&grid.workload))?);
            }
            Ok(grid)
        };
        read().map_err(|e: Error| e.in_file(&path.display().to_string()))
    }

    /// The grid with another workload, such as a traced model.
    #[must_use]
    pub fn with_workload(self, workload: Workload) -> Self {
        Self { steps: Some(workload), ..self }
    }

    fn parse_shape(text: &str) -> Result<Self> {
        parse_toml::<Self>("grid", text)?.checked()
    }

    fn checked(self) -> Result<Self> {
        let grid = self;
        if let Some((key, _)) = grid.grid.iter().find(|(_, v)| v.is_empty()) {
            return Err(Error::Explore { reason: format!("`{key}` has no values") });
        }
        let points = grid.grid.values().try_fold(1u64, |n, v| n.checked_mul(v.len() as u64));
        if points.is_none_or(|n| n > MAX_POINTS) {
            return Err(Error::Explore {
                reason: format!("more than {MAX_POINTS} points: shorten a list"),
            });
        }
        grid.base_arch()?;
        // A wrong key shows at once, not in every point; an impossible value is that point's own.
        match grid.arch_of(&grid.settings(0)) {
            Ok(_) | Err(Error::Value { .. }) => Ok(grid),
            Err(e) => Err(e),
        }
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

    fn base_arch(&self) -> Result<Arch> {
        self.arch.clone().map_or_else(|| Arch::preset(&self.base), Ok)
    }

    /// The architecture with some settings changed.
    fn arch_of(&self, settings: &BTreeMap<String, toml::Value>) -> Result<Arch> {
        self.base_arch()?.with(settings.iter().map(|(key, value)| (key.as_str(), value.clone())))
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
        let Some(workload) = &self.steps else {
            return Err(Error::Explore { reason: "no workload: name one in the grid".into() });
        };
        let needs = resources::estimate(&arch);
        for (what, need, have) in
            [("DSP", needs.dsp, arch.device.dsp), ("BRAM36", needs.bram36, arch.device.bram36)]
        {
            if need > have {
                let reason = format!("needs {need} {what}; the device has {have}");
                return Err(Error::Explore { reason });
            }
        }
        let report = simulate(&arch, workload, &options)?;
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
    /// as it is known, in no particular order, after the head line if `done` is empty.
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

    /// [`Grid::run`] with its results in a file: what an earlier run left there
    /// is not simulated again. `seen` is called after each new point.
    ///
    /// # Errors
    /// As [`Grid::run`], or [`Error::Io`].
    pub fn run_file(
        &self,
        shard: Shard,
        path: &Path,
        mut seen: impl FnMut() + Send,
    ) -> Result<Vec<Point>> {
        use std::io::{Seek as _, Write as _};
        let io = |e: std::io::Error| Error::Io {
            path: path.display().to_string(),
            reason: e.to_string(),
        };
        let done = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(io(e)),
        };
        // A last line without an end was being written when the run broke off: it goes.
        let whole = &done[..done.rfind('\n').map_or(0, |end| end + 1)];
        // Checked before the file is touched: it may be another grid's.
        self.read(whole)?;
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(io)?;
        file.set_len(whole.len() as u64).map_err(io)?;
        file.seek(std::io::SeekFrom::End(0)).map_err(io)?;
        self.run(shard, whole, |line| {
            writeln!(file, "{line}").map_err(io)?;
            seen();
            Ok(())
        })
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
            if point.index >= self.points() {
                return Err(Error::Explore {
                    reason: format!("result line {}: the grid has no point {}", n + 2, point.index),
                });
            }
            points.insert(point.index, point);
        }
        Ok(points)
    }

    /// [`Grid::merge`] of files.
    ///
    /// # Errors
    /// As [`Grid::merge`], or [`Error::Io`].
    pub fn merge_files(&self, files: &[impl AsRef<Path>]) -> Result<Vec<Point>> {
        let texts = files.iter().map(|file| {
            let path = file.as_ref();
            std::fs::read_to_string(path)
                .map_err(|e| Error::Io { path: path.display().to_string(), reason: e.to_string() })
        });
        self.merge(&texts.collect::<Result<Vec<_>>>()?)
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

/// Threads for [`Grid::run`]: call it inside [`rayon::ThreadPool::install`].
///
/// # Errors
/// [`Error::Explore`] if the system gives no threads.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::Explore { reason: e.to_string() })
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
