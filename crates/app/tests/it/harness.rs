//! Runs the binary in a directory of its own, and asks it questions.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use watchbell_testkit::Cluster;

/// Names the configuration of [`Home::configured`] to a command that looks for none.
pub(crate) const CONFIG: &str = "--config=watchbell.yaml";

/// The server of all tests that only need a database; each makes one of its own. `None` where tests
/// on PostgreSQL are switched off.
pub(crate) fn server() -> Option<&'static Cluster> {
    static SERVER: OnceLock<Option<Cluster>> = OnceLock::new();
    SERVER.get_or_init(|| watchbell_testkit::postgres_is_wanted().then(Cluster::start)).as_ref()
}

/// A working directory with one data directory in it, removed at the end.
pub(crate) struct Home(tempfile::TempDir);

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The output as JSON; the whole story when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("not JSON ({e}): {self:#?}"))
    }

    /// Itself, if the command succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code(), 0, "{self:#?}");
        self
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// With a configuration in the working directory: `up` and all commands obey it, `demo` only
    /// when it is told to with [`CONFIG`].
    pub(crate) fn configured(yaml: &str) -> Self {
        let home = Self::new();
        std::fs::write(home.path().join("watchbell.yaml"), yaml).expect("a file in our directory");
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// A command on the data directory, in an environment of its own.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchbell"));
        command
            .args(args)
            .arg("--data-dir")
            .arg(self.data())
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        finish(self.command(args))
    }

    /// Starts a command that goes on.
    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().expect("the binary starts"))
    }
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command) -> Ended {
    let output = command.output().expect("the binary runs");
    Ended {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A process of ours; killed when the test is done with it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Reads lines of its error stream until one contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_all(&[text])
    }

    /// As [`wait_for`](Self::wait_for), for several texts one after the other; returns the last line.
    pub(crate) fn wait_for_all(&mut self, texts: &[&str]) -> String {
        self.wait_through(texts, |_| ())
    }

    /// As [`wait_for_all`](Self::wait_for_all); `heard` is told the place of each text as it comes.
    pub(crate) fn wait_through(&mut self, texts: &[&str], heard: impl Fn(usize)) -> String {
        let err = self.0.stderr.take().expect("its error stream is ours");
        let mut lines = BufReader::new(err).lines();
        let (mut seen, mut found) = (Vec::new(), 0);
        for line in &mut lines {
            let line = line.expect("it prints text");
            if line.contains(texts[found]) {
                heard(found);
                found += 1;
                if found == texts.len() {
                    // The rest is read on by a thread, so that the process never waits for us.
                    std::thread::spawn(move || lines.for_each(drop));
                    return line;
                }
            }
            seen.push(line);
        }
        panic!("it ended without saying `{}`; it said: {seen:#?}", texts[found]);
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success(), "the process is there");
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.0.wait().expect("it ends")
    }

    /// Ends it without warning.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
