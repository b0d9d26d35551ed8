//! What is wrong with a configuration, in the one form that an operator meets:
//! `FILE:LINE:COL: key.path: what is wrong; allowed: ...`, and the source line with a caret.

use std::fmt;

use serde::Serialize;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum Origin {
    /// Built in.
    Default,
    /// The configuration file. Lines and columns count from 1, columns in characters.
    File {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
        /// How many characters of the line belong to the value; at least 1.
        width: usize,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
        /// The line of `.env` that sets it; `None` for the process environment.
        dotenv_line: Option<usize>,
    },
    /// A command-line flag.
    Flag {
        /// The flag.
        name: &'static str,
    },
}

impl Origin {
    /// A variable by that name, for `.env` and the process environment alike.
    pub(super) fn env(name: &str, dotenv_line: Option<usize>) -> Self {
        Self::Env { name: name.to_owned(), dotenv_line }
    }
}

/// One file's name, as the operator gave it, and its text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Source {
    /// The name to show.
    pub(crate) name: String,
    /// All of it.
    pub(crate) text: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// `watchbell.yaml:3:7`, `environment variable WATCHBELL_HTTP__BIND`, `flag --http-port`; empty
    /// when no single place is at fault.
    pub(crate) place: String,
    /// The key, such as `market.windows[1]`; empty when the problem is not about one key.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allowed: Option<String>,
    /// The source line and a caret below the place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) excerpt: Option<String>,
    /// For the order of the report: line and column, problems without one last.
    #[serde(skip)]
    order: (usize, usize),
}

impl Problem {
    /// A problem of a value that came from `origin`; `source` is the file behind
    /// [`Origin::File`].
    pub(super) fn new(
        origin: &Origin,
        source: Option<&Source>,
        key: &str,
        message: impl Into<String>,
        allowed: Option<String>,
    ) -> Self {
        let (place, excerpt, order) = match (origin, source) {
            (Origin::File { line, column, width }, Some(source)) => (
                format!("{}:{line}:{column}", source.name),
                excerpt(&source.text, *line, *column, *width),
                (*line, *column),
            ),
            (Origin::Env { name, dotenv_line: Some(line) }, _) => {
                (format!(".env:{line}: {name}"), None, (usize::MAX, 1))
            }
            (Origin::Env { name, dotenv_line: None }, _) => {
                (format!("environment variable {name}"), None, (usize::MAX, 2))
            }
            (Origin::Flag { name }, _) => (format!("flag {name}"), None, (usize::MAX, 3)),
            (Origin::File { .. } | Origin::Default, _) => (String::new(), None, (usize::MAX, 4)),
        };
        Self {
            place,
            key: key.to_owned(),
            message: redact(&message.into()),
            allowed,
            excerpt,
            order,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", self.text())]
pub(crate) struct ConfigError {
    /// In the order of the file; then the environment, the flags, and the rest.
    pub(crate) problems: Vec<Problem>,
}

impl ConfigError {
    /// `Err` with all problems, or `Ok` when there are none.
    pub(super) fn check(mut problems: Vec<Problem>) -> Result<(), Self> {
        problems.sort_by_key(|p| p.order);
        problems.dedup();
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    fn text(&self) -> String {
        self.problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }
}

/// ```text
///   |
/// 3 |   windows: [30m, 45m]
///   |                  ^^^
/// ```
fn excerpt(text: &str, line: usize, column: usize, width: usize) -> Option<String> {
    let shown = redact(text.lines().nth(line.checked_sub(1)?)?.trim_end());
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    // Tabs are kept in the caret line, so that it lines up whatever their width is.
    let indent: String = shown
        .chars()
        .chain(std::iter::repeat(' '))
        .take(column.saturating_sub(1))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let rest = shown.chars().count().saturating_sub(column.saturating_sub(1)).max(1);
    let caret = "^".repeat(width.clamp(1, rest));
    Some(format!("{gutter} |\n{number} | {shown}\n{gutter} | {indent}{caret}"))
}

/// The text with the passwords of its URLs replaced by `***`.
pub(crate) fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        shown.push_str(head);
        let outside = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
        let whole = &tail[..tail.find(outside).unwrap_or(tail.len())];
        // A password of a database may hold a `/` or `?` that should have been written as %2F: what
        // is before the last `@` is not shown, whatever it is.
        let database = ["postgres://", "postgresql://"].iter().any(|s| shown.ends_with(s));
        let end = match whole.rfind('@').filter(|_| database) {
            Some(at) => at + whole[at..].find(['/', '?', '#']).unwrap_or(whole.len() - at),
            None => whole.find(['/', '?', '#']).unwrap_or(whole.len()),
        };
        let (authority, after) = tail.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                let name = user.split(':').next().unwrap_or_default();
                let secret = if user.contains(':') { ":***" } else { "" };
                shown.push_str(&format!("{name}{secret}@{host}"));
            }
            None => shown.push_str(authority),
        }
        rest = after;
    }
    shown.push_str(rest);
    // `?password=...`, as PostgreSQL URLs may carry it.
    match shown.find("password=") {
        Some(at) => {
            let from = at + "password=".len();
            let len = shown[from..]
                .find(|c: char| c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '`'))
                .unwrap_or(shown.len() - from);
            format!("{}***{}", &shown[..from], &shown[from + len..])
        }
        None => shown,
    }
}
