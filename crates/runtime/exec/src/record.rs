//! The record of a running program: one small file in `DATA_DIR/run`, with what a later supervisor
//! must know to take the program over or to end it. Next to it are the files of the run: its input,
//! and the output of a program that may be taken over.
//!
//! The record is padded to a whole number of kilobytes and written in place with one call, so a
//! supervisor that is killed leaves the old words or the new ones. It is not synced: after a crash of
//! the machine the program is gone too, and the boot id tells.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use watchbell_core::{Time, WorkerName};

use crate::proc::Identity;

/// What is known of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Whose program it is.
    pub(crate) worker: WorkerName,
    /// Its name: unique over all time.
    pub(crate) run: String,
    /// The leader of its group; with number 0 until it is started.
    pub(crate) leader: Identity,
    /// The boot in which the numbers mean something.
    pub(crate) boot: String,
    /// Who watches it.
    pub(crate) supervisor: Identity,
    /// When it was started.
    pub(crate) at: Time,
    /// The command, shortened, for people.
    pub(crate) command: String,
    /// What must be the same for another supervisor to take it over.
    pub(crate) fingerprint: String,
    /// Whether another supervisor may take it over.
    pub(crate) adopt: bool,
    /// How far its output was taken in: bytes and lines of standard output, bytes of standard error.
    pub(crate) out: u64,
    /// Lines.
    pub(crate) lines: u64,
    /// Standard error.
    pub(crate) err: u64,
}

const PAGE: usize = 1 << 10;
const RECORD: &str = "json";

/// The directory of all runs.
#[derive(Debug, Clone)]
pub(crate) struct Runs(PathBuf);

impl Runs {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("run"))
    }

    /// A file of a run: `json`, `in`, `out` or `err`.
    pub(crate) fn file(&self, run: &str, kind: &str) -> PathBuf {
        self.0.join(format!("{run}.{kind}"))
    }

    /// Creates a file that only this user may read, for payloads may be secret.
    pub(crate) fn create(&self, run: &str, kind: &str) -> io::Result<File> {
        let open = || {
            let mut options = OpenOptions::new();
            options.create_new(true).append(kind != RECORD).write(true).mode(0o600);
            options.open(self.file(run, kind))
        };
        match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
                open()
            }
            other => other,
        }
    }

    /// All records that can be read. One that cannot is reported and left.
    pub(crate) fn all(&self) -> io::Result<Vec<Record>> {
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != RECORD) {
                continue;
            }
            match read(&path) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(e) => tracing::warn!("cannot read the run record {}: {e}", path.display()),
            }
        }
        records.sort_by(|a, b| a.run.cmp(&b.run));
        Ok(records)
    }

    /// Removes all files of a run; the record last, so that a crash between leaves it to the next.
    pub(crate) fn remove(&self, run: &str) {
        for kind in ["in", "out", "err", RECORD] {
            let path = self.file(run, kind);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("cannot remove {}: {e}", path.display());
                }
                _ => {}
            }
        }
    }
}

/// `None` when it is gone by now, or was never finished.
fn read(path: &Path) -> io::Result<Option<Record>> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(text) if text.trim().is_empty() => Ok(None),
        text => Ok(Some(serde_json::from_str(&text?)?)),
    }
}

/// A record and its file.
#[derive(Debug)]
pub(crate) struct RecordFile {
    pub(crate) record: Record,
    file: File,
}

impl RecordFile {
    /// Writes a new one.
    pub(crate) fn create(runs: &Runs, record: Record) -> io::Result<Self> {
        let file = runs.create(&record.run, RECORD)?;
        let new = Self { record, file };
        new.save()?;
        Ok(new)
    }

    /// Goes on with one that another supervisor wrote.
    pub(crate) fn take_over(runs: &Runs, record: Record) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(runs.file(&record.run, RECORD))?;
        let taken = Self { record, file };
        taken.save()?;
        Ok(taken)
    }

    /// Writes it as it is now.
    pub(crate) fn save(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec(&self.record)?;
        text.resize((text.len() + 1).next_multiple_of(PAGE), b' ');
        if let Some(last) = text.last_mut() {
            *last = b'\n';
        }
        self.file.write_all_at(&text, 0)
    }
}
