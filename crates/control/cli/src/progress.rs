//! Progress of long work: bars on a terminal, a few plain lines elsewhere, nothing when quiet.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use watchbell_core::Millis;

use crate::print::thousands;
use crate::print::time::span;

/// Where progress is shown. Cheap to clone; all clones share the screen.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Kind>);

enum Kind {
    Bars(MultiProgress),
    Lines(Sink),
    Silent,
}

/// Where plain lines go.
type Sink = Mutex<Box<dyn FnMut(&str) + Send>>;

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bars(_) => "Bars",
            Self::Lines(_) => "Lines",
            Self::Silent => "Silent",
        })
    }
}

impl Progress {
    /// Bars on the error stream.
    #[must_use]
    pub fn bars() -> Self {
        Self(Arc::new(Kind::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))))
    }

    /// A line at each quarter of a step, given to `sink` without its line end.
    pub fn lines(sink: impl FnMut(&str) + Send + 'static) -> Self {
        Self(Arc::new(Kind::Lines(Mutex::new(Box::new(sink)))))
    }

    /// Nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self(Arc::new(Kind::Silent))
    }

    /// What suits the error stream: bars on a terminal, lines elsewhere, nothing when quiet.
    #[must_use]
    pub fn fitting(quiet: bool) -> Self {
        use std::io::{IsTerminal, Write as _};
        if quiet {
            Self::silent()
        } else if std::io::stderr().is_terminal() {
            Self::bars()
        } else {
            // Progress that cannot be shown must not stop the work.
            Self::lines(|line| drop(writeln!(std::io::stderr(), "{line}")))
        }
    }

    /// Begins the one step of a worker's cycle, which says itself how far it is.
    #[must_use]
    pub fn cycle(&self, worker: &str) -> Stage {
        let bar = match &*self.0 {
            Kind::Bars(all) => {
                let bar = all.add(ProgressBar::new(100));
                if let Ok(style) = ProgressStyle::with_template(
                    "{prefix:<20} {bar:24} {percent:>3} %  {elapsed}  {msg}",
                ) {
                    bar.set_style(style.progress_chars("━━╌"));
                }
                bar.set_prefix(worker.to_owned());
                Some(bar)
            }
            Kind::Lines(_) | Kind::Silent => None,
        };
        Stage { progress: self.clone(), bar, worker: worker.to_owned(), newest: String::new() }
    }

    /// Begins a step of `total` units, such as `candles`.
    #[must_use]
    pub fn step(&self, name: &str, total: u64, unit: &str) -> Step {
        let bar = match &*self.0 {
            Kind::Bars(all) => {
                let bar = all.add(ProgressBar::new(total));
                let form = "{prefix:<24} {bar:24} {percent:>3} %  {human_pos}/{human_len} {msg}  \
                            {pace}";
                if let Ok(style) = ProgressStyle::with_template(form) {
                    let pace = |state: &ProgressState, text: &mut dyn Write| {
                        let left =
                            Millis(i64::try_from(state.eta().as_millis()).unwrap_or(i64::MAX));
                        // What the screen does not take is not shown.
                        text.write_str(&pace(state.per_sec(), left)).unwrap_or_default();
                    };
                    bar.set_style(style.with_key("pace", pace).progress_chars("━━╌"));
                }
                bar.set_prefix(name.to_owned());
                bar.set_message(unit.to_owned());
                Some(bar)
            }
            Kind::Lines(_) | Kind::Silent => None,
        };
        let state = StepState { total, done: 0, quarter: 0 };
        Step {
            progress: self.clone(),
            bar,
            name: name.to_owned(),
            unit: unit.to_owned(),
            state: Mutex::new(state),
        }
    }

    /// Prints a line, above the bars where there are some.
    pub fn say(&self, line: &str) {
        match &*self.0 {
            // A line that cannot be shown must not stop the work.
            Kind::Bars(all) => drop(all.println(line)),
            Kind::Lines(sink) => {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                (*sink)(line);
            }
            Kind::Silent => {}
        }
    }
}

/// How far the cycle of a worker is. A message is `stage: words`; without a terminal each stage has
/// one line.
#[derive(Debug)]
pub struct Stage {
    progress: Progress,
    bar: Option<ProgressBar>,
    worker: String,
    newest: String,
}

impl Stage {
    /// It says this now.
    pub fn told(&mut self, percent: f64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(percent.clamp(0.0, 100.0) as u64);
            bar.set_message(message.to_owned());
            return;
        }
        let stage = message.split(':').next().unwrap_or(message);
        if stage != self.newest {
            stage.clone_into(&mut self.newest);
            self.progress.say(&format!("{:<20} {percent:>3.0} %  {message}", self.worker));
        }
    }

    /// It has ended.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// One step of long work.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    bar: Option<ProgressBar>,
    name: String,
    unit: String,
    state: Mutex<StepState>,
}

#[derive(Debug)]
struct StepState {
    total: u64,
    done: u64,
    /// The newest quarter that a line was printed for.
    quarter: u64,
}

impl Step {
    /// So many units are done.
    pub fn set(&self, done: u64) {
        self.update(|state| state.done = done);
    }

    /// So many more units are done.
    pub fn add(&self, more: u64) {
        self.update(|state| state.done = state.done.saturating_add(more));
    }

    /// There are so many units after all.
    pub fn total(&self, total: u64) {
        self.update(|state| state.total = total);
    }

    /// The step is over; what there is to say about it stays on the screen.
    pub fn finish(self, said: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.progress.say(&format!("{:<24} {said}", self.name));
    }

    fn update(&self, change: impl FnOnce(&mut StepState)) {
        let line = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            if let Some(bar) = &self.bar {
                bar.set_length(state.total);
                bar.set_position(state.done);
                return;
            }
            let quarter = (state.done * 4).checked_div(state.total).unwrap_or(0).min(4);
            if quarter <= state.quarter {
                return;
            }
            state.quarter = quarter;
            let (done, total) = (state.done, state.total);
            format!("{:<24} {:>3} %  {done}/{total} {}", self.name, quarter * 25, self.unit)
        };
        self.progress.say(&line);
    }
}

/// How fast it goes and how long it will take: `1,204/s  2m3s left`. Nothing while neither is known.
fn pace(per_second: f64, left: Millis) -> String {
    let rate = match per_second {
        n if !n.is_finite() || n <= 0.0 => return String::new(),
        n if n < 10.0 => format!("{n:.1}/s"),
        n => format!("{}/s", thousands(n as i64)),
    };
    if left.0 <= 0 { rate } else { format!("{rate}  {} left", span(left)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_a_rate_and_the_time_that_is_left() {
        for (rate, left, text) in [
            (0.0, 5_000, ""),
            (f64::NAN, 5_000, ""),
            (0.42, 61_500, "0.4/s  1m1s left"),
            (1_204.7, 123_000, "1,204/s  2m3s left"),
            (33.0, 0, "33/s"),
        ] {
            assert_eq!(pace(rate, Millis(left)), text);
        }
    }

    #[test]
    fn plain_progress_is_sparse_and_never_goes_back() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let progress = Progress::lines(move |l| sink.lock().unwrap().push(l.to_owned()));
        let step = progress.step("sync BTCUSDT", 1_000, "candles");
        for _ in 0..600 {
            step.add(1);
        }
        step.set(100);
        step.total(0);
        step.total(1_000);
        step.set(2_000);
        step.finish("1000 candles");
        assert_eq!(
            *said.lock().unwrap(),
            [
                "sync BTCUSDT              25 %  250/1000 candles",
                "sync BTCUSDT              50 %  500/1000 candles",
                "sync BTCUSDT             100 %  2000/1000 candles",
                "sync BTCUSDT             1000 candles",
            ]
        );
    }
}
