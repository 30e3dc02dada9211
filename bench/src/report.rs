//! Tables for people, JSON for programs.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// All that was measured in one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Seconds since the epoch.
    started_at: u64,
    /// `--quick`: not to quote from.
    quick: bool,
    machine: Machine,
    tables: Vec<Table>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
}

/// Contenders in one unit.
#[derive(Debug, Serialize)]
pub struct Table {
    /// What was measured.
    pub title: String,
    /// `ms`, `per second`, `KiB`, ...
    pub unit: &'static str,
    /// The row that the others are divided by.
    pub baseline: Option<String>,
    /// What the project wants, in words.
    pub goal: Option<&'static str>,
    /// One per contender.
    pub rows: Vec<Row>,
    /// Contenders that were left out, and why; remarks.
    pub notes: Vec<String>,
}

/// One contender.
#[derive(Debug, Serialize)]
pub struct Row {
    name: String,
    count: usize,
    median: f64,
    p10: f64,
    p90: f64,
    p99: f64,
    /// Median divided by the baseline's.
    ratio: Option<f64>,
}

impl Table {
    /// A table of samples; ratios are to the contender named `baseline`.
    pub fn new(
        title: impl Into<String>,
        unit: &'static str,
        baseline: Option<&str>,
        samples: Vec<(String, Vec<f64>)>,
    ) -> Self {
        let base = baseline.and_then(|name| {
            samples
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, s)| quantile(s, 0.5))
        });
        let rows = samples
            .into_iter()
            .filter(|(_, s)| !s.is_empty())
            .map(|(name, s)| {
                let median = quantile(&s, 0.5);
                Row {
                    name,
                    count: s.len(),
                    median,
                    p10: quantile(&s, 0.1),
                    p90: quantile(&s, 0.9),
                    p99: quantile(&s, 0.99),
                    ratio: base.map(|b| median / b),
                }
            })
            .collect();
        Table {
            title: title.into(),
            unit,
            baseline: baseline.map(str::to_owned),
            goal: None,
            rows,
            notes: Vec::new(),
        }
    }

    /// With the project's goal beside it.
    pub fn goal(mut self, goal: &'static str) -> Self {
        self.goal = Some(goal);
        self
    }

    /// With remarks.
    pub fn notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }

    fn print(&self) {
        println!("\n{} ({})", self.title, self.unit);
        let width = self.rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
        println!(
            "  {:width$}  {:>10} {:>10} {:>10} {:>10} {:>6} {:>8}",
            "", "median", "p10", "p90", "p99", "n", "ratio"
        );
        for r in &self.rows {
            let ratio = r.ratio.map_or(String::new(), |x| format!("{x:.2}"));
            println!(
                "  {:width$}  {:>10.3} {:>10.3} {:>10.3} {:>10.3} {:>6} {:>8}",
                r.name, r.median, r.p10, r.p90, r.p99, r.count, ratio
            );
        }
        if let Some(goal) = self.goal {
            println!("  goal: {goal}");
        }
        for note in &self.notes {
            println!("  note: {note}");
        }
    }
}

/// The `q`-quantile by the nearest rank; 0 of nothing.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index below the length of a vector, from a quantile between 0 and 1"
    )]
    let index = (q * last as f64).round() as usize;
    sorted.get(index.min(last)).copied().unwrap_or(0.0)
}

impl Report {
    /// An empty report of this machine.
    pub fn new(quick: bool) -> Self {
        let first = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let line = text
                .lines()
                .find(|l| l.starts_with(key))
                .unwrap_or_default();
            line.rsplit(": ")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let machine = Machine {
            kernel: first("/proc/sys/kernel/osrelease", ""),
            cpu: first("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        };
        println!(
            "{}, {} cpus, Linux {}",
            machine.cpu, machine.cpus, machine.kernel
        );
        let started_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Report {
            started_at,
            quick,
            machine,
            tables: Vec::new(),
        }
    }

    /// Prints a table and keeps it.
    pub fn add(&mut self, table: Table) {
        table.print();
        self.tables.push(table);
    }

    /// Writes everything; the file's path.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join(format!("{}.json", self.started_at));
        std::fs::write(&file, serde_json::to_string_pretty(self)?)?;
        Ok(file)
    }
}
