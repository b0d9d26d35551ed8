//! Applies the `workers` section to the workers' own definitions.

use watchbell_core::graph::{GraphError, order};
use watchbell_core::worker::Dependency;
use watchbell_core::{Definition, Trigger, WorkerName};

use super::Config;
use super::check::Report;
use super::problem::{ConfigError, Origin};
use super::raw::Length;
use super::resolve::WorkerOverride;

impl Config {
    /// The definitions with the configured changes. A disabled worker stays, marked unavailable, so
    /// that its state can say why it does not run.
    ///
    /// # Errors
    /// Changes that do not go with the worker's own definition, and dependencies that form a circle,
    /// as `a -> b -> a`.
    pub(crate) fn apply_overrides(
        &self,
        mut definitions: Vec<Definition>,
    ) -> Result<Vec<Definition>, ConfigError> {
        let mut report = Report { source: self.source.as_ref(), problems: Vec::new() };
        for change in &self.workers {
            if let Some(definition) = definitions.iter_mut().find(|d| d.name == change.name) {
                self.apply(change, definition, &mut report);
            }
        }
        let all = definitions.iter().map(|d| d.name.clone()).collect();
        if let Err(error) = order(&definitions, &all) {
            self.report_graph(&error, &mut report);
        }
        ConfigError::check(report.problems)?;
        Ok(definitions)
    }

    fn apply(&self, change: &WorkerOverride, definition: &mut Definition, report: &mut Report<'_>) {
        let place = |key: &str| {
            let path = format!("workers.{}.{key}", change.name);
            (self.tree.origin_of(&path), path)
        };
        if !change.enabled {
            let (origin, path) = place("enabled");
            let by = match (&origin, self.file()) {
                (Origin::File { line, .. }, Some(file)) => format!("{}:{line}", file.display()),
                (Origin::Env { name, .. }, _) => name.clone(),
                _ => "the configuration".to_owned(),
            };
            definition.unavailable = Some(format!("{path} is false ({by})"));
        }
        match (&change.trigger, &definition.trigger) {
            (None, _) => {}
            (Some(Trigger::Every { period, .. }), Trigger::Every { offset, .. }) => {
                definition.trigger = Trigger::Every { period: *period, offset: *offset % *period };
            }
            (Some(new), Trigger::Every { .. } | Trigger::Cron(_) | Trigger::Manual) => {
                definition.trigger = new.clone();
            }
            (Some(new), own) => {
                let (origin, path) = place(new.kind());
                let message = format!("{} runs by `{}`, not by time", change.name, own.kind());
                report.at(&origin, &path, message, Some("no such key".to_owned()));
            }
        }
        if let Some(missed) = change.missed {
            definition.missed = missed;
        }
        if let Some(jitter) = change.jitter {
            definition.jitter = jitter;
        }
        for (names, soft) in [(&change.needs, false), (&change.after, true)] {
            if let Some(names) = names {
                definition.needs.retain(|d| d.soft != soft);
                definition
                    .needs
                    .extend(names.iter().map(|n| Dependency { worker: n.clone(), soft }));
            }
        }
        definition.soft_timeout = change.soft_timeout.unwrap_or(definition.soft_timeout);
        definition.hard_timeout = change.hard_timeout.unwrap_or(definition.hard_timeout);
        if definition.soft_timeout > definition.hard_timeout {
            let key = if change.soft_timeout.is_some() { "soft_timeout" } else { "hard_timeout" };
            let (soft, hard) =
                (Length(definition.soft_timeout).exact(), Length(definition.hard_timeout).exact());
            let (origin, path) = place(key);
            let message = format!("a soft timeout of {soft} is longer than the hard one, {hard}");
            let allowed = format!("soft_timeout up to hard_timeout; set both for {}", change.name);
            report.at(&origin, &path, message, Some(allowed));
        }
        if change.lane.is_some() {
            definition.lane.clone_from(&change.lane);
        }
        if change.stale_after.is_some() {
            definition.stale_after = change.stale_after;
        }
    }

    /// A circle is reported at the first of its workers whose dependencies the file changes.
    fn report_graph(&self, error: &GraphError, report: &mut Report<'_>) {
        let names: Vec<&WorkerName> = match error {
            GraphError::Circle(names) => names.iter().collect(),
            GraphError::Unknown { worker, .. } => vec![worker],
            GraphError::Duplicate(name) | GraphError::NotDefined { name, .. } => vec![name],
        };
        let written = names.iter().find_map(|name| {
            ["needs", "after"]
                .map(|key| format!("workers.{name}.{key}"))
                .into_iter()
                .find(|path| self.tree.find(path).is_some())
        });
        let origin = written.as_ref().map_or(Origin::Default, |path| self.tree.origin_of(path));
        report.at(&origin, written.as_deref().unwrap_or_default(), error.to_string(), None);
    }
}
