//! How far a run is: what an operator sees while it goes on, and how long each part took.

use serde::Serialize;
use watchbell_core::{Cycle, Millis, Time};

/// A part of a run, in the order in which they follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    Init,
    Universe,
    Fetch,
    Analyze,
    Orthogonalize,
    Filter,
    Write,
}

impl Stage {
    /// Its name, and what part of a run lies before it and at its end, in percent.
    const fn span(self) -> (&'static str, f64, f64) {
        match self {
            Self::Init => ("init", 0.0, 2.0),
            Self::Universe => ("universe", 2.0, 5.0),
            Self::Fetch => ("fetch", 5.0, 70.0),
            Self::Analyze => ("analyze", 70.0, 73.0),
            Self::Orthogonalize => ("orthogonalize", 73.0, 75.0),
            Self::Filter => ("filter", 75.0, 95.0),
            Self::Write => ("write", 95.0, 100.0),
        }
    }
}

/// One stage that is over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Took {
    stage: Stage,
    took_ms: i64,
    detail: String,
}

/// The stages of a run.
pub(crate) struct Stages<'a> {
    cycle: &'a Cycle,
    over: Vec<Took>,
    now: Option<(Stage, Time, String)>,
}

impl<'a> Stages<'a> {
    pub(crate) const fn new(cycle: &'a Cycle) -> Self {
        Self { cycle, over: Vec::new(), now: None }
    }

    /// Begins a stage; the one before is over.
    pub(crate) fn begin(&mut self, stage: Stage, detail: impl Into<String>) {
        self.end();
        let detail = detail.into();
        let (name, percent, _) = stage.span();
        self.cycle.progress(percent, &format!("{name}: {detail}"));
        self.now = Some((stage, self.cycle.now(), detail));
    }

    /// What the stage under way has to tell at its end.
    pub(crate) fn found(&mut self, detail: impl Into<String>) {
        if let Some((_, _, told)) = &mut self.now {
            *told = detail.into();
        }
    }

    /// How far a stage is.
    pub(crate) fn at(cycle: &Cycle, stage: Stage, done: usize, of: usize, what: &str) {
        let (name, from, to) = stage.span();
        let share = if of == 0 { 1.0 } else { done as f64 / of as f64 };
        cycle.progress(from + (to - from) * share.min(1.0), &format!("{name}: {done}/{of} {what}"));
    }

    fn end(&mut self) {
        if let Some((stage, since, detail)) = self.now.take() {
            let took: Millis = self.cycle.now() - since;
            self.over.push(Took { stage, took_ms: took.0, detail });
        }
    }

    /// All of them.
    pub(crate) fn finish(mut self) -> Vec<Took> {
        self.end();
        self.over
    }
}
