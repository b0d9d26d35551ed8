//! What the measuring programs share: processor time and memory of a process, percentiles, the
//! machine in one line, aligned tables ([`Table`]), seeded candles ([`candles`]), processes
//! ([`process`]), and the parts of the queue's measurement ([`queue`]).
//!
//! The programs state what they measured beside a floor of the same run; they never judge a time.

pub mod candles;
pub mod process;
pub mod queue;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;

/// Ticks of `/proc/PID/stat` in a second: 100 on every Linux that we know of.
const TICKS: u64 = 100;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time, user and system, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in KiB.
    pub rss_kib: u64,
    /// Most resident memory so far, in KiB.
    pub peak_kib: u64,
    /// Resident memory that is not of a file, in KiB: heap and stacks.
    pub anon_kib: u64,
}

impl Usage {
    /// Of this process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn own() -> anyhow::Result<Self> {
        Self::read("self")
    }

    /// Of the process with this number.
    ///
    /// # Errors
    /// When it is gone, or `/proc` cannot be read.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        Self::read(&pid.to_string())
    }

    fn read(process: &str) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The name in parentheses may hold anything, so the fields are counted behind it.
        let (_, rest) = stat.rsplit_once(')').with_context(|| format!("{path} has no name"))?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        let cpu = Duration::from_millis((ticks(11) + ticks(12)) * (1000 / TICKS));
        let path = format!("/proc/{process}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self {
            cpu,
            rss_kib: kib(&status, "VmRSS:"),
            peak_kib: kib(&status, "VmHWM:"),
            anon_kib: kib(&status, "RssAnon:"),
        })
    }

    /// Cores used between `earlier` and this reading, `wall` apart.
    #[must_use]
    pub fn cores_since(&self, earlier: &Self, wall: Duration) -> f64 {
        self.cpu.saturating_sub(earlier.cpu).as_secs_f64() / wall.as_secs_f64()
    }

    /// Resident memory in MB (a million bytes).
    #[must_use]
    pub fn rss_mb(&self) -> f64 {
        self.rss_kib as f64 * 1024.0 / 1e6
    }
}

fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The machine and how busy it is, in one line.
#[must_use]
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown", |l| l.trim_start_matches([' ', '\t', ':']).trim());
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    format!(
        "machine: {cores} cores, {model}, Linux {}, load average {}",
        kernel.trim(),
        load.join(" ")
    )
}

/// The value below which `share` (0 to 1) of the values lie: nearest rank. Zero when there is none.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// The middle one of several measurements.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 0.5)
}

/// A number with thousands separators: `1,234,567`.
#[must_use]
pub fn grouped(n: f64) -> String {
    let digits = format!("{:.0}", n.abs());
    let mut text = String::from(if n <= -0.5 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An aligned table under a title: the first column to the left, the others to the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    /// An empty one.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let head = columns.iter().map(ToString::to_string).collect();
        Self { title: title.into(), rows: vec![head], notes: Vec::new() }
    }

    /// Adds a row; missing cells stay empty.
    pub fn row<const N: usize>(&mut self, cells: [&dyn std::fmt::Display; N]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    /// Adds a line below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Writes it to standard output.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self) -> io::Result<()> {
        say(&self.to_string())
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows[0].len();
        let cell = |row: &[String], c: usize| row.get(c).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|c| self.rows.iter().map(|r| cell(r, c).chars().count()).max().unwrap_or(0))
            .collect();
        writeln!(f, "\n{}", self.title)?;
        for (i, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (c, width) in widths.iter().enumerate() {
                let text = cell(row, c);
                if c == 0 {
                    write!(line, "{text:<width$}")?;
                } else {
                    write!(line, "  {text:>width$}")?;
                }
            }
            writeln!(f, "{}", line.trim_end())?;
            if i == 0 {
                writeln!(f, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1)))?;
            }
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

/// Writes a line to standard output.
///
/// # Errors
/// When standard output is closed.
pub fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// What is going on, on standard error: the tables alone are the result.
pub fn progress(text: &str) {
    // A closed standard error is no reason to stop measuring.
    drop(writeln!(io::stderr(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        for (share, expected) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert_eq!(percentile(&values, share), expected);
        }
        assert_eq!(percentile(&[], 0.5), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn tables_align_and_numbers_are_grouped() {
        let mut table = Table::new("speed", &["what", "rows/s"]);
        table.row([&"floor", &grouped(1_234_567.0)]);
        table.row([&"ours", &grouped(999.0)]);
        table.note("more is better");
        assert_eq!(
            table.to_string(),
            "\nspeed\nwhat      rows/s\n----------------\nfloor  1,234,567\nours         999\n\
             more is better\n"
        );
    }

    #[test]
    fn this_process_has_memory() {
        let usage = Usage::own().unwrap();
        assert!(usage.rss_kib > 0 && usage.peak_kib >= usage.rss_kib);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
