//! What a program is told: its environment, and its input.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use watchbell_core::{Cause, Cycle, CycleInput, Token};

use crate::proc::RUN_MARK;
use crate::spec::Spec;

/// Variables that every program gets from the node's own environment.
const ALWAYS: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// A payload up to this length is also a variable; a longer one is only in the input file.
const VARIABLE_MOST: usize = 32 << 10;

/// The cycle's input as the program reads it: a job's payload, an event, or the keys of a window's
/// scope. `None` when there is nothing to tell.
pub(crate) fn document(input: &CycleInput) -> Option<String> {
    let json = match input {
        CycleInput::None => return None,
        CycleInput::Scope(keys) => serde_json::json!(keys),
        CycleInput::Event(event) => serde_json::json!(event),
        CycleInput::Job { payload, .. } => payload.clone(),
    };
    Some(json.to_string())
}

/// Where the program finds things.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    pub(crate) data_dir: &'a Path,
    /// The file with [`document`].
    pub(crate) input: Option<&'a Path>,
    pub(crate) stage: Option<&'a Path>,
}

/// The whole environment of the program. What Watchbell says wins over what is configured, and that
/// over what the node's own environment has.
pub(crate) fn environment(
    cycle: &Cycle,
    run: &str,
    spec: &Spec,
    places: &Places<'_>,
    own: impl Fn(&str) -> Option<OsString>,
) -> BTreeMap<String, OsString> {
    let mut all = BTreeMap::new();
    for name in ALWAYS.into_iter().chain(spec.env_allow.iter().map(String::as_str)) {
        if let Some(value) = own(name) {
            all.insert(name.to_owned(), value);
        }
    }
    all.extend(spec.env.iter().map(|(name, value)| (name.clone(), value.into())));
    let mut say = |name: &str, value: &dyn std::fmt::Display| {
        all.insert(format!("WATCHBELL_{name}"), value.to_string().into());
    };
    say("WORKER", &cycle.worker);
    say("CYCLE_ID", &cycle.id);
    say("TOKEN", &cycle.token.0);
    say("ATTEMPT", &cycle.attempt);
    say("CAUSE", &cycle.cause.kind());
    if cycle.token == Token(0) {
        // Only a rehearsal has no token.
        say("DRY_RUN", &1);
    }
    match &cycle.cause {
        Cause::Tick { due } => say("DUE", due),
        Cause::Window { series, start, end, version } => {
            say("WINDOW_SERIES", series);
            say("WINDOW_START", start);
            say("WINDOW_END", end);
            say("WINDOW_VERSION", version);
        }
        Cause::Event { id } => say("EVENT_ID", id),
        Cause::Job { id } => say("JOB_ID", id),
        Cause::Stream | Cause::Manual => {}
    }
    match &cycle.input {
        CycleInput::Event(event) => {
            say("EVENT_KIND", &event.kind);
            say("EVENT_KEY", &event.key);
        }
        CycleInput::Job { kind, payload } => {
            say("JOB_KIND", kind);
            let payload = payload.to_string();
            // A variable cannot hold a zero byte; JSON never has one, for it is escaped.
            if payload.len() <= VARIABLE_MOST {
                say("JOB_PAYLOAD", &payload);
            }
        }
        CycleInput::None | CycleInput::Scope(_) => {}
    }
    all.insert(RUN_MARK.to_owned(), run.into());
    all.insert("WATCHBELL_DATA_DIR".to_owned(), places.data_dir.into());
    if let Some(path) = places.input {
        all.insert("WATCHBELL_INPUT".to_owned(), path.into());
    }
    if let Some(path) = places.stage {
        all.insert("WATCHBELL_STAGE".to_owned(), path.into());
    }
    all
}

/// The file behind the first word of a command: looked up in the program's own `PATH`.
pub(crate) fn find_program(
    word: &str,
    dir: Option<&Path>,
    environment: &BTreeMap<String, OsString>,
) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if word.contains('/') {
        // As the kernel would find it: from the working directory of the program.
        let path = dir.map_or_else(|| PathBuf::from(word), |dir| dir.join(word));
        return if runs(&path) {
            Ok(path)
        } else {
            let problem =
                if path.exists() { "is not a program that may be run" } else { "does not exist" };
            Err(io::Error::new(io::ErrorKind::NotFound, format!("`{}` {problem}", path.display())))
        };
    }
    let path = environment.get("PATH").cloned().unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(word)).find(|p| runs(p)).ok_or_else(|| {
        let shown = path.to_string_lossy();
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no program `{word}` in PATH ({shown}): name its whole path, or set PATH in its env"),
        )
    })
}
