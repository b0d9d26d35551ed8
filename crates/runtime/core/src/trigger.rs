//! What starts a cycle, as data. The instants that follow from a trigger are computed in
//! [`schedule`](crate::schedule).

use serde::{Deserialize, Serialize};

use crate::job::Kind;
use crate::schedule::Cron;
use crate::units::{Millis, SeriesName, Time};

/// What starts a cycle of a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Every `period`, at multiples of it since the epoch, shifted by `offset`.
    Every {
        /// Time between due instants.
        period: Millis,
        /// Shift of the grid, `0 <= offset < period`.
        offset: Millis,
    },
    /// A cron expression in a time zone.
    Cron(Cron),
    /// Each aligned window of a series, once, in order.
    Window(WindowSpec),
    /// Events of the named kinds, in order, from a durable cursor. A kind may end in `*`.
    On {
        /// Event kinds, such as `window.completed` or `window.*`.
        kinds: Vec<String>,
    },
    /// Jobs of some kinds, leased in batches.
    Queue(QueueSpec),
    /// Runs until it is stopped; a return that nobody asked for is a failure.
    Stream,
    /// Only when an operator says so.
    Manual,
}

impl Trigger {
    /// The trigger's kind, as an operator types it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Every { .. } => "every",
            Self::Cron(_) => "cron",
            Self::Window(_) => "window",
            Self::On { .. } => "on",
            Self::Queue(_) => "queue",
            Self::Stream => "stream",
            Self::Manual => "manual",
        }
    }

    /// The longest time between two due instants; `None` for what no clock starts.
    #[must_use]
    pub fn longest_pause(&self) -> Option<Millis> {
        match self {
            Self::Every { period, .. } => Some(*period),
            Self::Cron(cron) => cron.longest_pause(),
            Self::Window(_) | Self::On { .. } | Self::Queue(_) | Self::Stream | Self::Manual => {
                None
            }
        }
    }
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Every { period, offset } if offset.0 == 0 => write!(f, "every {period}"),
            Self::Every { period, offset } => write!(f, "every {period} at +{offset}"),
            Self::Cron(cron) => write!(f, "cron {cron}"),
            Self::Window(w) => write!(f, "window {}", w.length),
            Self::On { kinds } => write!(f, "on {}", kinds.join(", ")),
            Self::Queue(q) => {
                let kinds: Vec<_> = q.kinds.iter().map(|k| k.name.as_str()).collect();
                write!(f, "queue {} x{}", kinds.join(", "), q.concurrency)
            }
            Self::Stream => f.write_str("stream"),
            Self::Manual => f.write_str("manual"),
        }
    }
}

/// What a worker consumes from the queue, and how much of it at a time on one node.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSpec {
    /// Kinds.
    pub kinds: Vec<Kind>,
    /// Jobs that may run at once on a node.
    pub concurrency: u32,
    /// Jobs that a node may lease beyond those that run, so that the next one begins without a
    /// round trip. They count as running for limits, and are given back when the worker stops.
    pub prefetch: u32,
}

impl QueueSpec {
    /// One job at a time of one kind, nothing leased ahead.
    #[must_use]
    pub fn one(kind: Kind) -> Self {
        Self { kinds: vec![kind], concurrency: 1, prefetch: 0 }
    }

    /// The names of the kinds.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.kinds.iter().map(|k| k.name.clone()).collect()
    }

    /// The kind of that name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|k| k.name == name)
    }
}

/// An aligned window series: which windows there are, and what each needs before it may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowSpec {
    /// The series, such as `window-sampler-30m`.
    pub series: SeriesName,
    /// Length; windows start at multiples of it since the epoch.
    pub length: Millis,
    /// Time after the end before the window may be ready, for late input.
    pub settle: Millis,
    /// What must be complete over the window (from `lookback` before its start).
    pub inputs: Vec<WindowInput>,
    /// Attempts before a failing window is abandoned.
    pub max_attempts: u32,
}

/// An input that a window waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum WindowInput {
    /// Covers of `source` for every key that the window's scope names.
    Cover {
        /// Cover source, such as `klines:1m`.
        source: String,
        /// How far before the start the cover must reach.
        lookback: Millis,
    },
    /// Complete windows of another series over the whole of this one.
    Window {
        /// The other series.
        series: SeriesName,
    },
    /// Windows of another series over the whole of this one, each complete or given up: the worker
    /// says what one that was given up means.
    Settled {
        /// The other series.
        series: SeriesName,
    },
    /// Windows of another series over the whole of the window *before* this one in its own series,
    /// each complete or given up: for what feeds back, where that series is made of this one. The
    /// first window of a series has none before it, and waits for nothing.
    Previous {
        /// The other series.
        series: SeriesName,
    },
}

impl WindowInput {
    /// The series that it is made of, window by window.
    #[must_use]
    pub const fn series(&self) -> Option<&SeriesName> {
        match self {
            Self::Cover { .. } | Self::Previous { .. } => None,
            Self::Window { series } | Self::Settled { series } => Some(series),
        }
    }

    /// The windows that a window of `length` at `start` waits for: of which series, from when and
    /// until when. `previous` is the start of the window before it in its own series. None for a
    /// cover, and for the first window of a series that looks back.
    #[must_use]
    pub fn stretch(
        &self,
        start: Time,
        length: Millis,
        previous: Option<Time>,
    ) -> Option<(&SeriesName, Time, Time)> {
        let (series, start) = match self {
            Self::Cover { .. } => return None,
            Self::Window { series } | Self::Settled { series } => (series, start),
            Self::Previous { series } => (series, previous?),
        };
        Some((series, start, start + length))
    }
}

impl WindowSpec {
    /// Whether one of its inputs depends on the window before in its own series.
    #[must_use]
    pub fn looks_back(&self) -> bool {
        self.inputs.iter().any(|input| matches!(input, WindowInput::Previous { .. }))
    }
}

/// What to do with due instants that passed while nothing could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Run none of them.
    Skip,
    /// Run the newest, once.
    #[default]
    Latest,
    /// Run each, oldest first, at most `cap` of them (the newest `cap`); the rest are skipped.
    All {
        /// How many at most.
        cap: u32,
    },
}

/// Why a cycle runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cause {
    /// A due instant of an `every` or `cron` trigger.
    Tick {
        /// The instant.
        due: Time,
    },
    /// A window.
    Window {
        /// Its series.
        series: SeriesName,
        /// Its start.
        start: Time,
        /// Its end, exclusive.
        end: Time,
        /// 1 for the first computation, higher for corrections.
        version: i64,
    },
    /// An event.
    Event {
        /// Its number.
        id: i64,
    },
    /// A job.
    Job {
        /// Its number.
        id: i64,
    },
    /// The continuous run of a `stream` worker.
    Stream,
    /// An operator's command.
    Manual,
}

impl Cause {
    /// The trigger kind behind it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tick { .. } => "tick",
            Self::Window { .. } => "window",
            Self::Event { .. } => "event",
            Self::Job { .. } => "job",
            Self::Stream => "stream",
            Self::Manual => "manual",
        }
    }
}
