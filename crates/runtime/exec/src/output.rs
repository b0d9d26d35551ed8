//! What a program said, gathered for the commit.

use std::path::{Path, PathBuf};

use serde_json::Value;
use watchbell_core::job::Mask;
use watchbell_core::{
    Commit, Cover, Host, Millis, NewArtifact, NewEvent, WindowHashes, WorkerName,
};

use crate::line::{self, Level, Line, MAX_ITEMS, MAX_LINE, Piece};

/// A line that breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of its output is wrong: {problem}")]
pub(crate) struct LineError {
    pub(crate) number: u64,
    pub(crate) problem: String,
}

/// What a line asks for at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// Nothing: it is gathered.
    Nothing,
    /// To show how far it is.
    Progress(f64, String),
    /// A line of the log: `out` or a level, and the text.
    Log(&'static str, String),
}

/// Everything that a program said and that is to be published.
#[derive(Debug)]
pub(crate) struct Output {
    worker: WorkerName,
    /// Of a stream, whose lines are published as they come: the run's name. A line that was
    /// published and is read again by the next supervisor is known by its place.
    stream: Option<String>,
    pub(crate) commit: Commit,
    pub(crate) summary: Option<Value>,
    pub(crate) window: Option<WindowHashes>,
    pub(crate) artifacts: Vec<(String, Option<String>)>,
    pub(crate) snooze: Option<(Millis, String)>,
    items: usize,
    /// A line was wrong: the rest is only logged.
    broken: bool,
}

impl Output {
    pub(crate) fn new(worker: WorkerName, stream: Option<String>) -> Self {
        Self {
            worker,
            stream,
            commit: Commit::new(),
            summary: None,
            window: None,
            artifacts: Vec::new(),
            snooze: None,
            items: 0,
            broken: false,
        }
    }

    /// What there is to publish now; afterwards there is nothing.
    pub(crate) fn take_commit(&mut self) -> Commit {
        self.items = 0;
        std::mem::take(&mut self.commit)
    }

    /// Takes one line.
    pub(crate) fn take(&mut self, piece: Piece<'_>) -> Result<Said, LineError> {
        let text = String::from_utf8_lossy(piece.bytes);
        if piece.rest || self.broken || !line::is_json(&text) {
            return Ok(Said::Log("out", text.into_owned()));
        }
        self.read(piece, &text).map_err(|problem| {
            self.broken = true;
            LineError { number: piece.number, problem }
        })
    }

    fn read(&mut self, piece: Piece<'_>, text: &str) -> Result<Said, String> {
        if !piece.whole || piece.bytes.len() > MAX_LINE {
            return Err(format!("it is longer than {MAX_LINE} bytes"));
        }
        if std::str::from_utf8(piece.bytes).is_err() {
            return Err("it is not UTF-8".into());
        }
        self.gather(line::parse(text)?, piece.at)
    }

    fn gather(&mut self, line: Line, at: u64) -> Result<Said, String> {
        match line {
            Line::Progress { percent, message } => return Ok(Said::Progress(percent, message)),
            Line::Log { level, message } => return Ok(Said::Log(Level::as_str(level), message)),
            Line::Summary(summary) => self.summary = Some(Value::Object(summary)),
            Line::Snooze { after, why } => self.snooze = Some((after, why)),
            Line::Window(hashes) => self.window = Some(hashes),
            Line::Artifact { name, path } => {
                if self.artifacts.iter().any(|(n, p)| *n == name || overlap(p, &path)) {
                    return Err(format!("the files of artifact `{name}` were named before"));
                }
                self.artifacts.push((name, path));
            }
            Line::Event { kind, key, payload, dedupe } => {
                self.count()?;
                let key = key.unwrap_or_else(|| self.worker.to_string());
                let dedupe = dedupe.or_else(|| self.place(at));
                self.commit.events.push(NewEvent { kind, key, dedupe, payload });
            }
            Line::Job(mut job) => {
                self.count()?;
                if let (None, Some(place)) = (&job.unique_key, self.place(at)) {
                    job.unique_key = Some(place);
                    job.unique_in = Mask::EVER;
                }
                self.commit.jobs.push(job);
            }
            Line::Cover { source, key, from, to } => {
                self.count()?;
                self.commit.covers.push(Cover { source, key, from, to });
            }
            Line::Condition(condition) => {
                self.count()?;
                self.commit.conditions.push(condition);
            }
        }
        Ok(Said::Nothing)
    }

    fn count(&mut self) -> Result<(), String> {
        self.items += 1;
        if self.items > MAX_ITEMS && self.stream.is_none() {
            return Err(format!(
                "it is number {} to publish, and one cycle publishes {MAX_ITEMS} events, jobs, \
                 covers and conditions at most",
                self.items
            ));
        }
        Ok(())
    }

    fn place(&self, at: u64) -> Option<String> {
        self.stream.as_ref().map(|run| format!("exec/{run}/{at}"))
    }
}

/// Whether two paths of the stage share files; the whole stage shares with all.
fn overlap(a: &Option<String>, b: &Option<String>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Path::new(a).starts_with(b) || Path::new(b).starts_with(a),
        _ => true,
    }
}

/// The directory for files to publish. What is not published is removed with it.
#[derive(Debug)]
pub(crate) struct Stage(Option<PathBuf>);

impl Stage {
    pub(crate) fn new(host: &dyn Host) -> std::io::Result<Self> {
        Ok(Self(Some(host.stage()?)))
    }

    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// The named sets of files, each in a directory of its own. What is left is removed, and all of
    /// it when one of them cannot be had.
    pub(crate) fn publish(
        mut self,
        named: Vec<(String, Option<String>)>,
        host: &dyn Host,
    ) -> Result<Vec<NewArtifact>, String> {
        let mut artifacts: Vec<NewArtifact> = Vec::new();
        for (name, path) in named {
            match self.take(&name, path.as_deref(), host) {
                Ok(staged) => artifacts.push(NewArtifact::new(name, staged)),
                Err(problem) => {
                    // Each is removed as a stage of its own.
                    artifacts.into_iter().for_each(|a| drop(Self(Some(a.staged))));
                    return Err(problem);
                }
            }
        }
        Ok(artifacts)
    }

    fn take(&mut self, name: &str, path: Option<&str>, host: &dyn Host) -> Result<PathBuf, String> {
        let Some(stage) = self.0.clone() else {
            return Err(format!(
                "it names the artifact `{name}` and has no stage: configure `stage: true`"
            ));
        };
        let Some(path) = path else {
            self.0 = None;
            return Ok(stage);
        };
        let from = stage.join(path);
        if !from.is_dir() {
            return Err(format!("there is no directory `{path}` in the stage"));
        }
        let to = host.stage();
        to.and_then(|to| std::fs::rename(from, &to).map(|()| to))
            .map_err(|e| format!("cannot stage the artifact `{name}`: {e}"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(e) = std::fs::remove_dir_all(&path)
        {
            tracing::warn!("cannot remove the stage {}: {e}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(output: &mut Output, text: &str, at: u64) -> Result<Said, LineError> {
        let bytes = text.as_bytes();
        output.take(Piece { bytes, at, number: 1, rest: false, whole: true })
    }

    #[test]
    fn what_is_said_is_gathered_in_order() {
        let mut output = Output::new("w".into(), None);
        for (text, said) in [
            ("plain", Said::Log("out", "plain".into())),
            (r#"{"progress":{"percent":5,"message":"m"}}"#, Said::Progress(5.0, "m".into())),
            (r#"{"log":{"level":"warn","message":"m"}}"#, Said::Log("warn", "m".into())),
            (r#"{"event":{"kind":"a.b"}}"#, Said::Nothing),
            (r#"{"job":{"kind":"j"}}"#, Said::Nothing),
            (r#"{"summary":{"n":1}}"#, Said::Nothing),
            (r#"{"summary":{"n":2}}"#, Said::Nothing),
        ] {
            assert_eq!(say(&mut output, text, 0), Ok(said), "{text}");
        }
        assert_eq!(output.summary, Some(serde_json::json!({ "n": 2 })));
        assert_eq!(output.commit.describe(), ["event a.b w", "job j"]);
        assert_eq!(output.commit.events[0].dedupe, None);
        assert_eq!(output.commit.jobs[0].unique_key, None);
        let wrong = say(&mut output, "{oops", 0).unwrap_err().to_string();
        assert!(wrong.starts_with("line 1 of its output is wrong: "), "{wrong}");
        // What follows a wrong line is only logged.
        let after = r#"{"event":{"kind":"a.b"}}"#;
        assert_eq!(say(&mut output, after, 0), Ok(Said::Log("out", after.into())));
    }

    #[test]
    fn a_line_of_a_stream_is_known_by_its_place() {
        let mut output = Output::new("w".into(), Some("run-1".into()));
        say(&mut output, r#"{"event":{"kind":"a"}}"#, 17).unwrap();
        say(&mut output, r#"{"event":{"kind":"a","dedupe":"own"}}"#, 40).unwrap();
        say(&mut output, r#"{"job":{"kind":"j"}}"#, 90).unwrap();
        let commit = output.take_commit();
        assert_eq!(commit.events[0].dedupe.as_deref(), Some("exec/run-1/17"));
        assert_eq!(commit.events[1].dedupe.as_deref(), Some("own"));
        assert_eq!(commit.jobs[0].unique_key.as_deref(), Some("exec/run-1/90"));
        assert_eq!(commit.jobs[0].unique_in, Mask::EVER);
        assert!(output.commit.is_empty());
    }

    #[test]
    fn a_cycle_publishes_a_bounded_number_and_a_stream_any() {
        let event = r#"{"event":{"kind":"a"}}"#;
        let mut one = Output::new("w".into(), None);
        for _ in 0..MAX_ITEMS {
            say(&mut one, event, 0).unwrap();
        }
        assert!(say(&mut one, event, 0).unwrap_err().problem.contains("10000"));
        let mut stream = Output::new("w".into(), Some("r".into()));
        for _ in 0..=MAX_ITEMS {
            say(&mut stream, event, 0).unwrap();
        }
    }

    #[test]
    fn files_are_published_once() {
        let some = |s: &str| Some(s.to_owned());
        for (a, b, shared) in [
            (some("x"), some("y"), false),
            (some("x"), some("xy"), false),
            (some("x"), some("x/y"), true),
            (some("x"), None, true),
            (None, None, true),
        ] {
            assert_eq!(overlap(&a, &b), shared, "{a:?} {b:?}");
        }
        for again in
            [r#"{"artifact":{"name":"b","path":"x/y"}}"#, r#"{"artifact":{"name":"a","path":"z"}}"#]
        {
            let mut output = Output::new("w".into(), None);
            say(&mut output, r#"{"artifact":{"name":"a","path":"x"}}"#, 0).unwrap();
            say(&mut output, again, 0).unwrap_err();
        }
    }
}
