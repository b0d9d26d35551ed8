//! What to run, as data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use sha2::{Digest, Sha256};
use watchbell_core::Time;

use crate::log::LogPolicy;

/// The shell behind [`Spec::shell`].
const SHELL: &str = "/bin/sh";

/// A program and how it is run. When it runs, and for how long, is the worker's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The program and its arguments, 1 or more words. A name without `/` is looked up in the
    /// `PATH` that the program gets.
    pub command: Vec<String>,
    /// Working directory; `None` is the node's.
    pub dir: Option<PathBuf>,
    /// Variables to set.
    pub env: BTreeMap<String, String>,
    /// Variables of the node's own environment to hand on, beside `PATH`, `HOME`, `LANG` and `TZ`.
    pub env_allow: Vec<String>,
    /// What becomes of a stream's program whose supervisor died.
    pub on_orphan: OnOrphan,
    /// Whether the program gets a directory for files to publish.
    pub stage: bool,
    /// For a window worker: the keys of each window.
    pub scope: Vec<String>,
    /// For a window worker: the start of its first window, rounded up to an aligned instant.
    /// `None`: it has no window yet.
    pub first_window: Option<Time>,
    /// Size and number of log files.
    pub log: LogPolicy,
}

/// What becomes of a program whose supervisor died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOrphan {
    /// The next supervisor ends it.
    #[default]
    Kill,
    /// The next supervisor takes it over, with all that it printed meanwhile. Only for a stream:
    /// any other cycle has lost its claim by then.
    Adopt,
}

impl Spec {
    /// A program by its words.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            dir: None,
            env: BTreeMap::new(),
            env_allow: Vec::new(),
            on_orphan: OnOrphan::default(),
            stage: false,
            scope: Vec::new(),
            first_window: None,
            log: LogPolicy::default(),
        }
    }

    /// A line for `/bin/sh`.
    #[must_use]
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(vec![SHELL.to_owned(), "-c".to_owned(), line.into()])
    }

    /// What makes one run the same program as another: SHA-256 (hex) of words, directory and
    /// variables.
    pub(crate) fn fingerprint(&self) -> String {
        #[derive(Serialize)]
        struct Identity<'a>(&'a [String], Option<&'a PathBuf>, &'a BTreeMap<String, String>);
        let identity = Identity(&self.command, self.dir.as_ref(), &self.env);
        // A directory that is not UTF-8 does not serialise: its lossy form identifies it too.
        let text = serde_json::to_vec(&identity)
            .unwrap_or_else(|_| format!("{:?} {:?} {:?}", self.command, self.dir, self.env).into());
        Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The words in one short line, for people.
    pub(crate) fn shown(&self) -> String {
        const MOST: usize = 120;
        let mut text = self.command.join(" ").replace(char::is_control, " ");
        if let Some((cut, _)) = text.char_indices().nth(MOST) {
            text.truncate(cut);
            text.push_str("...");
        }
        text
    }
}
