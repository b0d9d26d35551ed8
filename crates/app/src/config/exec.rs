//! Workers of `type: exec`: programs of the team's own, as they are written and what they come to.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use watchbell_core::job::{Kind, Rate};
use watchbell_core::{
    Definition, Millis, QueueSpec, SeriesName, Time, Trigger, WindowInput, WindowSpec, WorkerName,
};
use watchbell_exec::{EXEC_REAPER, LogPolicy, OnOrphan, Spec};

use super::Catalog;
use super::raw::{Length, Raw, RawWorker};
use super::resolve::Resolver;

/// A worker that runs a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    /// Its definition, before the changes that the same section makes to any worker.
    pub(crate) definition: Definition,
    /// What to run.
    pub(crate) spec: Spec,
}

/// What a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawType {
    /// Runs a program.
    Exec,
}

/// What becomes of the program of a stream whose node was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawOnOrphan {
    /// The next start of the node ends it.
    Kill,
    /// The next start of the node takes it over, with what it printed meanwhile.
    Adopt,
}

/// Size and number of a worker's log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawLog {
    /// A file that would grow beyond so many MiB is put aside.
    #[schemars(range(min = 1, max = 10_000))]
    max_mib: u32,
    /// Files kept, with the one that is written.
    #[schemars(range(min = 1, max = 1_000))]
    keep: u32,
}

impl Default for RawLog {
    fn default() -> Self {
        let LogPolicy { max_bytes, keep } = LogPolicy::default();
        Self { max_mib: (max_bytes >> 20) as u32, keep }
    }
}

/// What starts a program: a word, or a section with one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawTrigger {
    /// Without further keys.
    Word(TriggerWord),
    /// With keys.
    Section(Box<TriggerKeys>),
}

/// A trigger that is a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TriggerWord {
    /// It runs until it is stopped.
    Stream,
    /// Only on an operator's command.
    Manual,
}

impl JsonSchema for RawTrigger {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Trigger".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<TriggerKeys>();
        json_schema!({
            "x-allowed": "stream, manual, or a section with one of the keys every, cron, window, on, queue",
            "oneOf": [{ "type": "string", "enum": ["stream", "manual"] }, keys],
        })
    }
}

/// A trigger with keys: exactly one of them, beside which `time_zone` goes with `cron`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TriggerKeys {
    /// At each multiple of this time since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "100ms"))]
    every: Option<Length>,
    /// By a cron expression of 5 fields, or 6 with the second first.
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    /// The time zone of cron, such as Europe/Berlin; UTC when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    /// For each window of a series, once, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<RawWindow>,
    /// For each event of these kinds, in order. A kind may end in *.
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<Vec<String>>,
    /// For each job of some kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<RawQueue>,
}

/// A series of windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWindow {
    /// Its name; the worker's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<String>,
    /// Length; windows begin at multiples of it since the epoch.
    #[schemars(extend("x-minimum" = "1s"))]
    length: Length,
    /// The first window begins at this instant or after it: a date, or RFC 3339.
    from: String,
    /// Time after the end of a window for late input; none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    settle: Option<Length>,
    /// The keys of each window, such as symbols. Covers among the inputs are for these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scope: Vec<String>,
    /// What must be complete over a window before it is computed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<RawInput>,
    /// Attempts before a failing window is abandoned; 5 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    max_attempts: Option<u32>,
}

/// An input of a window: a cover, or the windows of another series.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawInput {
    /// The source of a cover, such as klines:1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    cover: Option<String>,
    /// How far before the start of the window the cover must reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    lookback: Option<Length>,
    /// Another series, such as window-sampler-30m.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    /// Another series whose windows count when they are given up, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<String>,
}

/// What a program consumes from the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawQueue {
    /// Kinds of jobs, by name. An entry may be empty.
    kinds: BTreeMap<String, RawKind>,
    /// Programs at once on a node; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    concurrency: Option<u32>,
    /// Jobs that a node holds ready beyond those that run; none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    prefetch: Option<u32>,
}

/// A kind of job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawKind {
    /// One sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// A file with the JSON Schema of the payload. Relative to the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    /// Priority of a job that names none; higher runs first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    priority: Option<u32>,
    /// Attempts of a job that names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    max_attempts: Option<u32>,
    /// After this long an attempt is asked to stop, after twice this long it is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "100ms"))]
    timeout: Option<Length>,
    /// At most so many at once, over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    concurrency: Option<u32>,
    /// At most so many at once of each limit key, over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    per_key: Option<u32>,
    /// At most so many begun in a time, over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<RawRate>,
}

/// So many in a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRate {
    /// How many.
    #[schemars(range(min = 1, max = 1_000_000))]
    count: u32,
    /// In this time.
    #[schemars(extend("x-minimum" = "1s"))]
    per: Length,
}

/// Attempts at a window that names none.
const WINDOW_ATTEMPTS: u32 = 5;

/// The keys that only a worker of `type: exec` has, as far as they are set.
pub(super) fn own_keys(raw: &RawWorker) -> Vec<&'static str> {
    [
        ("description", raw.description.is_some()),
        ("command", raw.command.is_some()),
        ("shell", raw.shell.is_some()),
        ("dir", raw.dir.is_some()),
        ("env", raw.env.is_some()),
        ("env_allow", raw.env_allow.is_some()),
        ("trigger", raw.trigger.is_some()),
        ("requires", raw.requires.is_some()),
        ("on_orphan", raw.on_orphan.is_some()),
        ("stage", raw.stage.is_some()),
        ("log", raw.log.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, set)| set.then_some(key))
    .collect()
}

impl Resolver<'_, '_> {
    /// The programs of the `workers` section. Their names become known to `catalog`.
    pub(super) fn programs(
        &mut self,
        raw: &Raw,
        dir: &Path,
        catalog: &mut Catalog,
    ) -> Vec<Program> {
        let mut programs = Vec::new();
        let mut consumed = BTreeSet::new();
        for (name, worker) in &raw.workers {
            let base = format!("workers.{name}");
            if worker.kind.is_none() {
                // One that is written and wrong is reported already.
                let missing = self.tree.find(&format!("{base}.type")).is_none();
                for key in own_keys(worker).into_iter().filter(|_| missing) {
                    let message = format!("`{key}` is for a worker of your own");
                    self.wrong(&format!("{base}.{key}"), message, "`type: exec` beside it");
                }
                continue;
            }
            if let Some(program) = self.program(name, worker, dir, catalog) {
                if let Trigger::Queue(queue) = &program.definition.trigger {
                    for kind in queue.names() {
                        if !consumed.insert(kind.clone()) {
                            let message = format!("another worker consumes `{kind}` already");
                            let path = format!("{base}.trigger.queue.kinds.{kind}");
                            self.wrong(&path, message, "each kind once");
                        }
                    }
                }
                programs.push(program);
            }
        }
        // Also those in which something is wrong: that is said, and they exist.
        let own = raw.workers.iter().filter(|(_, w)| w.kind.is_some());
        let mut names: Vec<WorkerName> = own
            .map(|(name, _)| WorkerName::from(name.as_str()))
            .filter(|name| !catalog.workers.contains(name))
            .collect();
        if !names.is_empty() {
            names.push(EXEC_REAPER.into());
        }
        for profile in ["default", "all"] {
            catalog.profiles.entry(profile.to_owned()).or_default().extend(names.iter().cloned());
        }
        catalog.workers.extend(names);
        programs
    }

    fn program(
        &mut self,
        name: &str,
        raw: &RawWorker,
        dir: &Path,
        catalog: &Catalog,
    ) -> Option<Program> {
        let base = format!("workers.{name}");
        let key = |key: &str| format!("{base}.{key}");
        let own = catalog.workers.iter().any(|w| w.as_str() == name) || name == EXEC_REAPER;
        if own {
            let message = format!("`{name}` is a worker of Watchbell's");
            self.wrong(&key("type"), message, "another name for a worker of your own");
            return None;
        }
        if !is_worker_name(name) {
            let origin = self.tree.key_origin_of(&base);
            let allowed = "small letters, digits and `-`, 60 at most, beginning with a letter";
            let message = format!("`{name}` is no name of a worker");
            self.report.at(&origin, "workers", message, Some(allowed.to_owned()));
            return None;
        }
        let spec = self.command(&base, raw);
        let (trigger, first_window, scope) = self.program_trigger(name, raw, dir);
        for (i, variable) in raw.env_allow.iter().flatten().enumerate() {
            self.variable(&format!("{base}.env_allow[{i}]"), variable);
        }
        for variable in raw.env.iter().flat_map(BTreeMap::keys) {
            self.variable(&format!("{base}.env.{variable}"), variable);
        }
        if raw.on_orphan == Some(RawOnOrphan::Adopt) && trigger != Some(Trigger::Stream) {
            let message = "only the program of a stream can be taken over: any other cycle has \
                           lost its claim by then";
            self.wrong(&key("on_orphan"), message, "kill, or `trigger: stream`");
        }
        let (mut spec, trigger) = (spec?, trigger?);
        spec.dir = raw.dir.as_ref().map(|path| dir.join(path));
        spec.env = raw.env.clone().unwrap_or_default();
        spec.env_allow = raw.env_allow.clone().unwrap_or_default();
        spec.on_orphan = match raw.on_orphan {
            Some(RawOnOrphan::Adopt) => OnOrphan::Adopt,
            Some(RawOnOrphan::Kill) | None => OnOrphan::Kill,
        };
        spec.stage = raw.stage.unwrap_or(false);
        spec.scope = scope;
        spec.first_window = first_window;
        let log = raw.log.unwrap_or_default();
        spec.log = LogPolicy { max_bytes: u64::from(log.max_mib) << 20, keep: log.keep };
        let description = raw.description.clone().unwrap_or_else(|| {
            let words = raw.shell.clone().unwrap_or_else(|| spec.command.join(" "));
            format!("Runs `{}`.", first_line(&words))
        });
        let mut definition = Definition::new(name, trigger).describe(description);
        definition.requires = raw.requires.clone().unwrap_or_default();
        Some(Program { definition, spec })
    }

    fn command(&mut self, base: &str, raw: &RawWorker) -> Option<Spec> {
        let path = |key: &str| format!("{base}.{key}");
        match (&raw.command, &raw.shell) {
            (Some(_), Some(_)) => {
                let message = "`command` and `shell` exclude each other";
                self.wrong(&path("shell"), message, "one of the two");
                None
            }
            (None, None) => {
                let allowed = "command: [PROGRAM, ARGUMENT, ...] or shell: LINE";
                self.wrong(base, "there is nothing to run", allowed);
                None
            }
            (Some(words), None) => {
                if words.first().is_none_or(|word| word.trim().is_empty()) {
                    self.wrong(
                        &path("command"),
                        "the command is empty",
                        "[PROGRAM, ARGUMENT, ...]",
                    );
                    return None;
                }
                if let Some(i) = words.iter().position(|word| word.contains('\0')) {
                    let path = format!("{}[{i}]", path("command"));
                    self.wrong(&path, "a word holds a zero byte", "text without");
                    return None;
                }
                Some(Spec::new(words.clone()))
            }
            (None, Some(line)) => {
                if line.trim().is_empty() || line.contains('\0') {
                    self.wrong(&path("shell"), "the line is empty", "a line for /bin/sh");
                    return None;
                }
                Some(Spec::shell(line))
            }
        }
    }

    fn variable(&mut self, path: &str, name: &str) {
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let message = format!("`{name}` is no name of a variable");
            self.wrong(path, message, "letters, digits and `_`, not beginning with a digit");
        } else if name.starts_with("WATCHBELL_") {
            let message = format!("`{name}` is what Watchbell itself tells a program");
            self.wrong(path, message, "a name that does not begin with WATCHBELL_");
        }
    }

    /// The trigger, and for a window the instant from which there are windows, and its scope.
    fn program_trigger(
        &mut self,
        name: &str,
        raw: &RawWorker,
        dir: &Path,
    ) -> (Option<Trigger>, Option<Time>, Vec<String>) {
        let base = format!("workers.{name}.trigger");
        let keys = match &raw.trigger {
            // The keys `every` and `cron` of any worker may say it too: they are applied later.
            None if raw.every.is_some() || raw.cron.is_some() => {
                return (Some(Trigger::Manual), None, Vec::new());
            }
            None => {
                // One that is written and wrong is reported already.
                if self.tree.find(&base).is_none() {
                    let path = format!("workers.{name}");
                    let allowed =
                        "stream, manual, or one of the keys every, cron, window, on, queue";
                    self.wrong(&path, "the key `trigger` is missing", allowed);
                }
                return (None, None, Vec::new());
            }
            Some(RawTrigger::Word(TriggerWord::Stream)) => {
                return (Some(Trigger::Stream), None, Vec::new());
            }
            Some(RawTrigger::Word(TriggerWord::Manual)) => {
                return (Some(Trigger::Manual), None, Vec::new());
            }
            Some(RawTrigger::Section(keys)) => keys,
        };
        let given = [
            ("every", keys.every.is_some()),
            ("cron", keys.cron.is_some()),
            ("window", keys.window.is_some()),
            ("on", keys.on.is_some()),
            ("queue", keys.queue.is_some()),
        ];
        let given: Vec<&str> = given.iter().filter_map(|(k, set)| set.then_some(*k)).collect();
        if given.len() != 1 {
            let written = ["every", "cron", "window", "on", "queue"]
                .iter()
                .any(|key| self.tree.find(&format!("{base}.{key}")).is_some());
            let message = match given.as_slice() {
                [] if written => return (None, None, Vec::new()), // and wrong: reported already
                [] => "nothing says when it runs".to_owned(),
                several => format!("`{}` exclude each other", several.join("` and `")),
            };
            self.wrong(&base, message, "one of the keys every, cron, window, on, queue");
            return (None, None, Vec::new());
        }
        if let Some(window) = &keys.window {
            let (spec, from) = self.window(name, &format!("{base}.window"), window);
            return (spec.map(Trigger::Window), from, window.scope.clone());
        }
        let trigger = match (&keys.on, &keys.queue) {
            (Some(kinds), _) => self.events(&format!("{base}.on"), kinds),
            (None, Some(queue)) => self.queue(&format!("{base}.queue"), queue, dir),
            (None, None) => {
                let (cron, zone) = (keys.cron.as_deref(), keys.time_zone.as_deref());
                self.trigger(&base, keys.every, cron, zone)
            }
        };
        (trigger, None, Vec::new())
    }

    fn events(&mut self, path: &str, kinds: &[String]) -> Option<Trigger> {
        if kinds.is_empty() {
            self.wrong(path, "the list is empty", "one kind of event or more");
        }
        for (i, kind) in kinds.iter().enumerate() {
            let stem = kind.strip_suffix('*').unwrap_or(kind);
            if kind.trim().is_empty() || stem.contains(['*', ' ']) {
                let message = format!("`{kind}` is no kind of event");
                let allowed = "a dotted word, such as window.completed, or window.*";
                self.wrong(&format!("{path}[{i}]"), message, allowed);
            }
        }
        (!kinds.is_empty()).then(|| Trigger::On { kinds: kinds.to_vec() })
    }

    fn window(
        &mut self,
        name: &str,
        path: &str,
        raw: &RawWindow,
    ) -> (Option<WindowSpec>, Option<Time>) {
        let from = Time::parse(&raw.from).ok();
        if from.is_none() {
            let message = format!("`{}` is not an instant", raw.from);
            let allowed = "a date, such as 2026-01-31, or RFC 3339, such as 2026-01-31T06:00:00Z";
            self.wrong(&format!("{path}.from"), message, allowed);
        }
        let series = raw.series.as_deref().unwrap_or(name);
        if !is_worker_name(series) {
            let message = format!("`{series}` is no name of a series");
            self.wrong(&format!("{path}.series"), message, "small letters, digits and `-`");
        }
        let mut inputs = Vec::new();
        for (i, input) in raw.inputs.iter().enumerate() {
            let path = format!("{path}.inputs[{i}]");
            match (&input.cover, &input.window, &input.settled) {
                (Some(source), None, None) => {
                    let lookback = input.lookback.map_or(Millis::ZERO, |l| l.0);
                    inputs.push(WindowInput::Cover { source: source.clone(), lookback });
                    if raw.scope.is_empty() {
                        let message = "a cover is for the keys of the scope, and it is empty";
                        self.wrong(&path, message, "`scope: [KEY, ...]` beside `inputs`");
                    }
                }
                (None, ..) if input.lookback.is_some() => {
                    let path = format!("{path}.lookback");
                    self.wrong(&path, "it goes with `cover`", "no such key");
                }
                (None, Some(series), None) => {
                    inputs.push(WindowInput::Window { series: SeriesName::from(series.as_str()) });
                }
                (None, None, Some(series)) => {
                    inputs.push(WindowInput::Settled { series: SeriesName::from(series.as_str()) });
                }
                _ => {
                    let allowed = "{cover: SOURCE}, {window: SERIES} or {settled: SERIES}";
                    self.wrong(&path, "an input is one thing to wait for", allowed);
                }
            }
        }
        let spec = WindowSpec {
            series: SeriesName::from(series),
            length: raw.length.0,
            settle: raw.settle.map_or(Millis::ZERO, |l| l.0),
            inputs,
            max_attempts: raw.max_attempts.unwrap_or(WINDOW_ATTEMPTS),
        };
        (from.map(|_| spec), from)
    }

    fn queue(&mut self, path: &str, raw: &RawQueue, dir: &Path) -> Option<Trigger> {
        if raw.kinds.is_empty() {
            self.wrong(&format!("{path}.kinds"), "there is none", "one kind of job or more");
            return None;
        }
        let kinds = raw.kinds.iter().map(|(name, kind)| self.kind(path, name, kind, dir)).collect();
        let concurrency = raw.concurrency.unwrap_or(1);
        Some(Trigger::Queue(QueueSpec { kinds, concurrency, prefetch: raw.prefetch.unwrap_or(0) }))
    }

    fn kind(&mut self, path: &str, name: &str, raw: &RawKind, dir: &Path) -> Kind {
        let path = format!("{path}.kinds.{name}");
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if name.is_empty() || name.len() > 100 || !name.bytes().all(plain) {
            let origin = self.tree.key_origin_of(&path);
            let message = format!("`{name}` is no name of a kind");
            let allowed = "letters, digits, `_` and `-`, 100 at most".to_owned();
            self.report.at(&origin, &path, message, Some(allowed));
        }
        let mut kind = Kind::new(name);
        kind.description = raw.description.clone().unwrap_or_default();
        kind.schema = raw.schema.as_ref().and_then(|file| {
            let read = std::fs::read(dir.join(file)).map_err(|e| e.to_string());
            let parsed = read.and_then(|text| {
                serde_json::from_slice::<serde_json::Value>(&text).map_err(|e| e.to_string())
            });
            parsed
                .map_err(|e| {
                    let message = format!("cannot read `{file}`: {e}");
                    self.wrong(&format!("{path}.schema"), message, "a file with a JSON Schema");
                })
                .ok()
        });
        kind.priority = raw.priority.map_or(kind.priority, |p| p.cast_signed());
        kind.max_attempts = raw.max_attempts.unwrap_or(kind.max_attempts);
        kind.timeout = raw.timeout.map(|l| l.0);
        kind.concurrency = raw.concurrency;
        kind.per_key = raw.per_key;
        kind.rate = raw.rate.map(|r| Rate { count: r.count, per: r.per.0 });
        kind
    }
}

/// The beginning of a command, for a description.
fn first_line(words: &str) -> String {
    const MOST: usize = 100;
    let line = words.trim().lines().next().unwrap_or_default();
    let cut: String = line.chars().take(MOST).collect();
    if cut.len() < words.trim().len() { format!("{cut} ...") } else { cut }
}

/// The name of a log file, too.
fn is_worker_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() <= 60
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().all(plain)
}
