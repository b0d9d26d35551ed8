//! The lines that a program prints on standard output. A line that begins with `{` is one JSON
//! object with one key, which names what it is; any other line is text for the log.
//!
//! ```
//! use watchbell_exec::line::{Line, parse};
//!
//! let line = parse(r#"{"progress": {"percent": 40, "message": "12 of 30 files"}}"#);
//! assert_eq!(line, Ok(Line::Progress { percent: 40.0, message: "12 of 30 files".into() }));
//! let wrong = parse(r#"{"progres": {"percent": 40}}"#).unwrap_err();
//! assert!(wrong.starts_with("unknown variant `progres`"), "{wrong}");
//! ```

use serde::Deserialize;
use serde_json::{Map, Value};
use watchbell_core::{Condition, Millis, NewJob, Time, WindowHashes};

/// Longest line of JSON, in bytes, and the length at which a line of text is cut for the log.
pub const MAX_LINE: usize = 1 << 20;

/// Events, jobs, covers and conditions of one cycle at most; a stream may print any number.
pub const MAX_ITEMS: usize = 10_000;

/// Longest pause that a program may ask for.
pub const MAX_SNOOZE: Millis = Millis::from_days(366);

/// One line of the protocol.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// How far it is: 0 to 100, and a few words.
    Progress {
        /// Percent.
        percent: f64,
        /// Words.
        #[serde(default)]
        message: String,
    },
    /// An event to emit.
    Event {
        /// Dotted type.
        kind: String,
        /// What it is about; the worker's name when absent.
        key: Option<String>,
        /// Details.
        #[serde(default)]
        payload: Value,
        /// A second event with the same value is dropped.
        dedupe: Option<String>,
    },
    /// A job to enqueue.
    Job(NewJob),
    /// Everything that `source` will ever say about `key` from `from` until `to` is stored.
    Cover {
        /// Source.
        source: String,
        /// Key.
        key: String,
        /// Start.
        from: Time,
        /// End, exclusive.
        to: Time,
    },
    /// A named fact that workers may require.
    Condition(Condition),
    /// Files of the stage to publish under a name.
    Artifact {
        /// The artifact's name.
        name: String,
        /// A directory in the stage; the whole stage when absent.
        path: Option<String>,
    },
    /// Words for the worker's log.
    Log {
        /// How grave they are.
        #[serde(default)]
        level: Level,
        /// The words.
        message: String,
    },
    /// What status pages show of the cycle. The last one counts.
    Summary(Map<String, Value>),
    /// Not ready: run again later. It counts when the program then exits with 0 or 75, and nothing
    /// else that it printed is published.
    Snooze {
        /// How much later, such as `5m`.
        #[serde(deserialize_with = "duration")]
        after: Millis,
        /// Why.
        why: String,
    },
    /// For a window: hashes of what went in and what came out.
    Window(WindowHashes),
}

/// How grave a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Someone must act.
    Error,
    /// Recovered.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// Why it happened.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
    let text = String::deserialize(deserializer)?;
    Millis::parse(&text).map_err(serde::de::Error::custom)
}

/// Whether a line is meant as JSON.
#[must_use]
pub fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Reads a line that begins with `{`.
///
/// # Errors
/// What is wrong with it, in words for the program's author.
pub fn parse(text: &str) -> Result<Line, String> {
    let line: Line = serde_json::from_str(text).map_err(|e| {
        // There is only one line: its number within the text says nothing.
        e.to_string().replace(" at line 1 column ", " at column ")
    })?;
    let empty = |what: &str, text: &str| match text.trim() {
        "" => Err(format!("the {what} is empty")),
        _ => Ok(()),
    };
    match &line {
        Line::Progress { percent, .. } if !(0.0..=100.0).contains(percent) => {
            Err(format!("progress of {percent} percent: it goes from 0 to 100"))
        }
        Line::Event { kind, .. } => empty("event's kind", kind),
        Line::Job(job) => empty("job's kind", &job.kind),
        Line::Cover { from, to, .. } if from >= to => {
            Err(format!("a cover from {from} to {to} is empty"))
        }
        Line::Cover { source, key, .. } => {
            empty("cover's source", source).and_then(|()| empty("cover's key", key))
        }
        Line::Condition(condition) => empty("condition's name", &condition.name),
        Line::Artifact { name, path } => {
            if !is_plain_name(name) {
                return Err(format!(
                    "`{name}` is no artifact name: use letters, digits, `.`, `_` and `-`, not \
                     beginning with `.`"
                ));
            }
            match path {
                Some(path) if !path.split('/').all(is_plain_name) => {
                    Err(format!("`{path}` is no path of a directory in the stage"))
                }
                _ => Ok(()),
            }
        }
        Line::Snooze { after, .. } if *after > MAX_SNOOZE => {
            Err(format!("a snooze of {after} is too long: {MAX_SNOOZE} at most"))
        }
        Line::Window(hashes) => [("inputs", &hashes.inputs), ("result", &hashes.result)]
            .into_iter()
            .find(|(_, hash)| hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()))
            .map_or(Ok(()), |(what, hash)| {
                Err(format!("`{hash}` is no hash of the {what}: SHA-256 has 64 hex digits"))
            }),
        Line::Progress { .. } | Line::Log { .. } | Line::Summary(_) | Line::Snooze { .. } => Ok(()),
    }
    .map(|()| line)
}

fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

/// Cuts a byte stream into lines, and knows where each began.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// Of the line that is not over yet.
    partial: Vec<u8>,
    /// The offset at which `partial` begins.
    at: u64,
    /// Lines that are over.
    lines: u64,
    /// Pieces of this line were given out already, for it is too long.
    cut: bool,
}

/// A line, or a piece of one that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) bytes: &'a [u8],
    /// Offset of its first byte.
    pub(crate) at: u64,
    /// Line number, from 1.
    pub(crate) number: u64,
    /// Part of a line that is longer than [`MAX_LINE`], and not its first part.
    pub(crate) rest: bool,
    /// It ends with its line.
    pub(crate) whole: bool,
}

impl Splitter {
    /// Goes on at `at`, where `lines` lines were over.
    pub(crate) fn resume(at: u64, lines: u64) -> Self {
        Self { partial: Vec::new(), at, lines, cut: false }
    }

    /// The end of the newest line that is over: where another reader would go on.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Lines that are over.
    pub(crate) const fn lines(&self) -> u64 {
        self.lines
    }

    /// Takes bytes and hands on each line that they end.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            let piece = if self.partial.is_empty() {
                line
            } else {
                self.partial.extend_from_slice(line);
                &self.partial
            };
            each(Piece {
                bytes: piece.strip_suffix(b"\r").unwrap_or(piece),
                at: self.at,
                number: self.lines + 1,
                rest: self.cut,
                whole: true,
            });
            self.at += piece.len() as u64 + 1;
            self.lines += 1;
            self.cut = false;
            self.partial.clear();
            self.partial.shrink_to(1 << 12);
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > MAX_LINE {
            let piece = &self.partial;
            let (at, number) = (self.at, self.lines + 1);
            each(Piece { bytes: piece, at, number, rest: self.cut, whole: false });
            self.at += piece.len() as u64;
            self.cut = true;
            self.partial = Vec::new();
        }
    }

    /// Takes the last line, which nothing ended.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() {
            let (bytes, at, number) = (&self.partial[..], self.at, self.lines + 1);
            each(Piece { bytes, at, number, rest: self.cut, whole: true });
            self.at += bytes.len() as u64;
            self.lines += 1;
            self.partial = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_is_read() {
        for text in [
            r#"{"progress":{"percent":0}}"#,
            r#"{"event":{"kind":"a.b"}}"#,
            r#"{"event":{"kind":"a.b","key":"k","payload":[1],"dedupe":"d"}}"#,
            r#"{"job":{"kind":"fetch","payload":{"symbol":"BTC"},"run_at":"2026-11-22T00:00:00Z"}}"#,
            r#"{"cover":{"source":"s","key":"k","from":0,"to":"1970-01-02T00:00:00Z"}}"#,
            r#"{"condition":{"name":"disk","met":false,"detail":"full"}}"#,
            r#"{"artifact":{"name":"model"}}"#,
            r#"{"artifact":{"name":"model","path":"out/best"}}"#,
            r#"{"log":{"message":"hello"}}"#,
            r#"{"log":{"level":"warn","message":"hello"}}"#,
            r#"{"summary":{"rows":3}}"#,
            r#"  {"snooze":{"after":"5m","why":"too early"}}"#,
        ] {
            parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
        let hash = "ab".repeat(32);
        let window =
            format!(r#"{{"window":{{"inputs":"{hash}","result":"{hash}","source":"csv"}}}}"#);
        assert!(matches!(parse(&window), Ok(Line::Window(_))));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            (r#"{"progress":{"percent":101}}"#, "progress of 101 percent: it goes from 0 to 100"),
            (r#"{"progress":{"percent":"x"}}"#, "invalid type: string \"x\", expected f64"),
            (r#"{"evnt":{"kind":"a"}}"#, "unknown variant `evnt`"),
            (r#"{"event":{"kind":" "}}"#, "the event's kind is empty"),
            (r#"{"event":{"kind":"a","keys":"b"}}"#, "unknown field `keys`"),
            (r#"{"job":{"payload":{}}}"#, "missing field `kind`"),
            (r#"{"cover":{"source":"s","key":"k","from":5,"to":5}}"#, "a cover from"),
            (r#"{"artifact":{"name":"../up"}}"#, "`../up` is no artifact name"),
            (r#"{"artifact":{"name":"a","path":"b/../c"}}"#, "`b/../c` is no path"),
            (r#"{"artifact":{"name":"a","path":"/etc"}}"#, "`/etc` is no path"),
            (r#"{"snooze":{"after":"soon","why":"x"}}"#, "`soon` is not a duration"),
            (r#"{"snooze":{"after":"99999d","why":"x"}}"#, "a snooze of"),
            (r#"{"window":{"inputs":"x","result":"y","source":"z"}}"#, "`x` is no hash"),
            (r#"{"log":{"message":"a"}} trailing"#, "trailing characters at column"),
            (r#"{"log":{"message":"a""#, "EOF while parsing an object at column"),
            ("{}", "expected"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(says) || error.contains(says), "{text}: {error}");
        }
    }

    fn split(chunks: &[&[u8]]) -> (Vec<(String, u64, u64)>, Splitter) {
        let mut splitter = Splitter::default();
        let mut seen = Vec::new();
        let mut each = |p: Piece<'_>| {
            seen.push((String::from_utf8_lossy(p.bytes).into_owned(), p.at, p.number));
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut each);
        }
        splitter.finish(&mut each);
        (seen, splitter)
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = b"one\r\ntwo\n\nlast";
        let whole = split(&[text]).0;
        assert_eq!(
            whole,
            [("one", 0, 1), ("two", 5, 2), ("", 9, 3), ("last", 10, 4)].map(|(t, at, n)| (
                t.to_owned(),
                at,
                n
            ))
        );
        for cut in 0..text.len() {
            assert_eq!(split(&[&text[..cut], &text[cut..]]).0, whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&single).0, whole);
    }

    #[test]
    fn an_endless_line_is_given_out_in_pieces() {
        let long = vec![b'x'; MAX_LINE + 5];
        let mut splitter = Splitter::default();
        let mut seen = Vec::new();
        for chunk in [&long[..], b"rest\nnext\n"] {
            splitter.feed(chunk, |p| seen.push((p.bytes.len(), p.rest, p.whole, p.number)));
        }
        assert_eq!(
            seen,
            [(MAX_LINE + 5, false, false, 1), (4, true, true, 1), (4, false, true, 2)]
        );
        assert_eq!(splitter.at(), long.len() as u64 + 10);
    }
}
