//! The captured log of a worker: plain lines with their time and cycle, rotated by size. A disk that
//! refuses costs lines, which are counted, and never holds up or ends the program.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use watchbell_core::{Time, WorkerName};

/// Size and number of log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    /// A file that would grow beyond so many bytes is put aside.
    pub max_bytes: u64,
    /// Files kept, with the one that is written; 1 or more.
    pub keep: u32,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { max_bytes: 10 << 20, keep: 5 }
    }
}

/// The log of one worker, shared by its cycles.
#[derive(Debug)]
pub(crate) struct Log {
    worker: WorkerName,
    path: PathBuf,
    policy: LogPolicy,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    size: u64,
    /// Lines that could not be written since the last that could.
    lost: u64,
}

/// Lines to write together, all of one cycle.
#[derive(Debug)]
pub(crate) struct Lines {
    text: String,
    count: u64,
    /// `2026-11-22T03:30:00.125Z cycle 12 `.
    head: String,
}

impl Lines {
    /// Lines of the cycle that `whose` names, such as `cycle 12`.
    pub(crate) fn new(now: Time, whose: &str) -> Self {
        Self { text: String::new(), count: 0, head: format!("{} {whose} ", stamp(now)) }
    }

    /// Adds a line; `what` says where it comes from: `out`, `err`, `info`, `run`.
    pub(crate) fn push(&mut self, what: &str, text: &str) {
        // Without line breaks of its own, so that each begins with its time. Control characters
        // would let a program write over an operator's terminal.
        for part in text.split('\n') {
            self.text.push_str(&self.head);
            self.text.push_str(what);
            self.text.push(' ');
            for c in part.chars() {
                if c.is_control() && c != '\t' {
                    self.text.push_str(&format!("\\x{:02x}", c as u32));
                } else {
                    self.text.push(c);
                }
            }
            self.text.push('\n');
            self.count += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// An instant with milliseconds always, so that columns line up.
fn stamp(now: Time) -> String {
    let text = now.rfc3339();
    match text.strip_suffix('Z') {
        Some(whole) if !whole.contains('.') => format!("{whole}.000Z"),
        Some(part) => {
            let digits = part.rsplit('.').next().map_or(0, str::len);
            format!("{part}{}Z", "0".repeat(3_usize.saturating_sub(digits)))
        }
        None => text,
    }
}

impl Log {
    /// `DIR/NAME.log`, opened at the first line.
    pub(crate) fn new(dir: &Path, worker: &WorkerName, policy: LogPolicy) -> Self {
        Self {
            worker: worker.clone(),
            path: dir.join(format!("{worker}.log")),
            policy,
            state: Mutex::default(),
        }
    }

    /// Writes what it can.
    pub(crate) fn append(&self, lines: &Lines) {
        if lines.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = state.lost;
        let written = if lost == 0 {
            self.write(&mut state, &lines.text)
        } else {
            let note =
                format!("{}run {lost} lines were lost: the log could not be written\n", lines.head);
            self.write(&mut state, &(note + &lines.text))
        };
        match written {
            Ok(()) => state.lost = 0,
            Err(error) => {
                state.file = None;
                state.lost += lines.count;
                if lost == 0 {
                    tracing::warn!(
                        worker.name = %self.worker,
                        "cannot write {}, what {} prints is lost until it can be: {error}",
                        self.path.display(),
                        self.worker
                    );
                }
            }
        }
    }

    fn write(&self, state: &mut State, text: &str) -> io::Result<()> {
        let size = text.len() as u64;
        if state.file.is_some() && state.size > 0 && state.size + size > self.policy.max_bytes {
            state.file = None;
            self.rotate()?;
        }
        let file = match &mut state.file {
            Some(file) => file,
            none => {
                if let Some(dir) = self.path.parent() {
                    fs::create_dir_all(dir)?;
                }
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                state.size = file.metadata()?.len();
                none.insert(file)
            }
        };
        file.write_all(text.as_bytes())?;
        state.size += size;
        Ok(())
    }

    /// `NAME.log` becomes `NAME.log.1`, that `NAME.log.2`, and so on; the oldest goes.
    fn rotate(&self) -> io::Result<()> {
        let aside = |n: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{n}"));
            PathBuf::from(path)
        };
        if self.policy.keep <= 1 {
            return fs::remove_file(&self.path);
        }
        for n in (1..self.policy.keep - 1).rev() {
            match fs::rename(aside(n), aside(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.path, aside(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(log: &Log, text: &str) {
        let mut lines = Lines::new(Time(1_500), "cycle 7");
        lines.push("out", text);
        log.append(&lines);
    }

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap_or_default()
    }

    #[test]
    fn a_line_begins_with_time_and_cycle() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path(), &"w".into(), LogPolicy::default());
        put(&log, "plain\ttext\x1b[2J");
        put(&log, "two\nlines");
        assert_eq!(
            read(dir.path(), "w.log"),
            "1970-01-01T00:00:01.500Z cycle 7 out plain\ttext\\x1b[2J\n\
             1970-01-01T00:00:01.500Z cycle 7 out two\n\
             1970-01-01T00:00:01.500Z cycle 7 out lines\n"
        );
        for (ms, shown) in [(0, "00.000Z"), (20, "00.020Z"), (7, "00.007Z"), (900, "00.900Z")] {
            assert!(stamp(Time(ms)).ends_with(shown), "{}", stamp(Time(ms)));
        }
    }

    #[test]
    fn files_are_rotated_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let policy = LogPolicy { max_bytes: 100, keep: 3 };
        let log = Log::new(dir.path(), &"w".into(), policy);
        for n in 0..5 {
            put(&log, &format!("{n} {}", "x".repeat(60)));
        }
        for (name, begins) in [("w.log", "4"), ("w.log.1", "3"), ("w.log.2", "2")] {
            let text = read(dir.path(), name);
            assert!(text.contains(&format!("out {begins} ")), "{name}: {text}");
            assert_eq!(text.lines().count(), 1);
        }
        assert!(!dir.path().join("w.log.3").exists());
    }

    #[test]
    fn what_could_not_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let log = Log::new(&logs, &"w".into(), LogPolicy::default());
        // A file where the directory should be: nothing can be written below it.
        fs::write(&logs, "").unwrap();
        put(&log, "a");
        put(&log, "b");
        fs::remove_file(&logs).unwrap();
        put(&log, "c");
        let text = read(&logs, "w.log");
        assert!(text.contains("run 2 lines were lost"), "{text}");
        assert!(text.ends_with("out c\n"), "{text}");
    }
}
