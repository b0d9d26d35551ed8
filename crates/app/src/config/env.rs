//! The environment as a value: the process's variables over those of `.env`. Nothing here changes
//! the process; what needs a variable is given this map.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use super::problem::{ConfigError, Origin, Problem, Source};

/// A variable's value, and the line of `.env` that set it.
#[derive(Clone, PartialEq, Eq)]
struct Variable {
    value: String,
    dotenv_line: Option<usize>,
}

/// The variables that a configuration is read from.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Env(BTreeMap<String, Variable>);

impl fmt::Debug for Env {
    /// The names alone: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Env {
    /// The process environment over `.env` in `dir`, when there is one.
    ///
    /// # Errors
    /// A `.env` that cannot be read, or whose lines are not `KEY=VALUE`.
    pub(crate) fn load(dir: &Path) -> Result<Self, ConfigError> {
        // A value that is not UTF-8 can be none of ours: a path in it would be refused later.
        let process = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let dotenv = match std::fs::read_to_string(dir.join(".env")) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(e) => {
                let message = format!("cannot read .env: {e}");
                return Err(ConfigError {
                    problems: vec![Problem::new(&Origin::Default, None, "", message, None)],
                });
            }
        };
        Self::merged(process, &dotenv)
    }

    /// The variables `process` over those in `dotenv`, the text of a `.env`.
    ///
    /// # Errors
    /// Lines of `dotenv` that are not `KEY=VALUE`, all of them.
    pub(crate) fn merged(
        process: impl IntoIterator<Item = (String, String)>,
        dotenv: &str,
    ) -> Result<Self, ConfigError> {
        let mut vars = BTreeMap::new();
        for (key, value, line) in parse_dotenv(dotenv)? {
            vars.insert(key, Variable { value, dotenv_line: Some(line) });
        }
        for (key, value) in process {
            vars.insert(key, Variable { value, dotenv_line: None });
        }
        Ok(Self(vars))
    }

    /// The value of a variable, if it is set; it may be empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|v| v.value.as_str())
    }

    /// The variables that are set to something, with where they were set.
    pub(super) fn set(&self) -> impl Iterator<Item = (&str, &str, Origin)> {
        self.0
            .iter()
            .filter(|(_, v)| !v.value.trim().is_empty())
            .map(|(k, v)| (k.as_str(), v.value.as_str(), Origin::env(k, v.dotenv_line)))
    }

    /// One variable of [`Env::set`].
    pub(super) fn set_one(&self, name: &str) -> Option<(&str, Origin)> {
        self.set().find(|(k, ..)| *k == name).map(|(_, value, origin)| (value, origin))
    }
}

/// What a variable of a predecessor says, as a key of ours and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Older {
    /// This key has this value.
    Key(&'static [&'static str], String),
    /// It says nothing, for this reason: the default holds.
    Nothing(String),
}

/// The shortest interval of the live refresh.
const SHORTEST_INTERVAL_MS: i64 = 5_000;

/// The variables that the founding documents name, beside `RUN_JOBS` and `DATABASE_URL`.
pub(super) const OLDER: [&str; 5] = [
    "STR_AUX_RUNNER_INTERVAL_MS",
    "STR_AUX_RUNNER_SESSION_ID",
    "STR_SAMPLER_POLL_MS",
    "MOO_AUX_STR_WINDOW",
    "MOO_AUX_SYMBOL_LIMIT",
];

/// What one of [`OLDER`] says. A number of milliseconds that is none leaves the default, as it always
/// did; an interval that is too short becomes the shortest.
pub(super) fn older(name: &str, value: &str) -> Option<Older> {
    let value = value.trim();
    let millis = |path: &'static [&'static str], least: i64| match value.parse::<i64>() {
        Ok(ms) => Older::Key(path, format!("{}ms", ms.max(least))),
        Err(_) => Older::Nothing(format!("`{value}` is no number of milliseconds")),
    };
    Some(match name {
        "STR_AUX_RUNNER_INTERVAL_MS" => {
            millis(&["market", "runner", "interval"], SHORTEST_INTERVAL_MS)
        }
        "STR_AUX_RUNNER_SESSION_ID" => {
            Older::Key(&["market", "runner", "session"], value.to_owned())
        }
        "STR_SAMPLER_POLL_MS" => millis(&["market", "sampling", "poll"], i64::MIN),
        "MOO_AUX_STR_WINDOW" => Older::Key(&["market", "mood", "window"], value.to_owned()),
        "MOO_AUX_SYMBOL_LIMIT" => Older::Key(&["market", "mood", "symbols"], value.to_owned()),
        _ => return None,
    })
}

/// Whether background work may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It may.
    Run,
    /// Print this line and exit with 0, before anything is opened.
    Exit(&'static str),
}

/// The `RUN_JOBS` gate. Set to anything but `1`, it keeps background work from starting. The
/// orchestrator (`run-all`) also needs it set; `up` runs without it.
pub(crate) fn run_jobs_gate(env: &Env, orchestrator: bool) -> Gate {
    match env.get("RUN_JOBS") {
        Some("1") => Gate::Run,
        None if !orchestrator => Gate::Run,
        _ => Gate::Exit("jobs: starting (set RUN_JOBS=1 to enable background workers)"),
    }
}

/// The entries of a `.env`: `(key, value, line)` in order.
///
/// A line is `KEY=VALUE`, with an optional `export ` before it and spaces around `=`. `'...'` is
/// taken as it is; `"..."` knows `\n`, `\r`, `\t`, `\"`, `\\` and `\$`; a value without quotes ends
/// before ` #` and is trimmed. Nothing is substituted.
fn parse_dotenv(text: &str) -> Result<Vec<(String, String, usize)>, ConfigError> {
    let source = Source { name: ".env".to_owned(), text: text.to_owned() };
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    // A byte-order mark is what some editors leave; it is no part of the first key.
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let stripped = line.trim();
        if stripped.is_empty() || stripped.starts_with('#') {
            continue;
        }
        match parse_line(stripped) {
            Ok((key, value)) => entries.push((key, value, index + 1)),
            Err(message) => {
                let column = 1 + line.chars().take_while(|c| c.is_whitespace()).count();
                let place =
                    Origin::File { line: index + 1, column, width: stripped.chars().count() };
                let allowed = Some("KEY=VALUE, KEY='VALUE', KEY=\"VALUE\" or # comment".to_owned());
                let mut problem = Problem::new(&place, Some(&source), "", message, allowed);
                // The line may hold a secret: its number is enough.
                problem.excerpt = None;
                problems.push(problem);
            }
        }
    }
    ConfigError::check(problems).map(|()| entries)
}

fn parse_line(line: &str) -> Result<(String, String), String> {
    let body = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (key, value) = body.split_once('=').ok_or("there is no `=`")?;
    let key = key.trim_end();
    let mut chars = key.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("`{key}` is not a name: use letters, digits and `_`"));
    }
    Ok((key.to_owned(), parse_value(value.trim_start())?))
}

fn parse_value(text: &str) -> Result<String, String> {
    let mut chars = text.chars();
    let quote = match chars.next() {
        Some(q @ ('"' | '\'')) => q,
        Some('#') | None => return Ok(String::new()),
        Some(_) => {
            let end = text.find(" #").or_else(|| text.find("\t#")).unwrap_or(text.len());
            return Ok(text[..end].trim_end().to_owned());
        }
    };
    let mut value = String::new();
    loop {
        match chars.next() {
            None => return Err(format!("the quote {quote} is not closed on this line")),
            Some(c) if c == quote => break,
            Some('\\') if quote == '"' => match chars.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(c @ ('"' | '\\' | '$')) => value.push(c),
                Some(c) => return Err(format!("`\\{c}` is no escape: write `\\\\{c}`")),
                None => return Err("the line ends within an escape".to_owned()),
            },
            Some(c) => value.push(c),
        }
    }
    let rest = chars.as_str().trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(value)
    } else {
        Err(format!("text follows the closing quote {quote}"))
    }
}
