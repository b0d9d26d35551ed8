//! While a program runs: what it says is taken in, and it is asked to stop when it must.

use std::future::pending;
use std::io;
use std::process::ExitStatus;

use watchbell_core::port::StoreError;
use watchbell_core::retry::Backoff;
use watchbell_core::{Cause, Commit, Cycle, CycleInput, Fault, Millis, Time, Trigger, chain};

use super::ExecWorker;
use crate::line::{Piece, Splitter};
use crate::log::Lines;
use crate::output::{LineError, Output, Said, Stage};
use crate::program::Program;
use crate::programs::Watched;
use crate::record::RecordFile;
use crate::source::Source;

/// How long a program may take to end after TERM where no hard timeout tells.
const GRACE: Millis = Millis::from_secs(10);

/// Pause before a stream's lines are published again after the store failed.
const PUBLISH_AGAIN: Backoff = Backoff::doubling(1, 30);

/// Words of a program in the error of its cycle, at most.
const LAST_WORDS: usize = 300;

/// A program under way, and what it has said so far.
pub(super) struct Run {
    // Declared first, so that it is dead before its files go.
    pub(super) program: Program,
    pub(super) record: Option<RecordFile>,
    pub(super) out: Channel,
    pub(super) err: Channel,
    pub(super) output: Output,
    pub(super) stage: Stage,
    pub(super) whose: String,
    /// Taken over to be heard to its end only, for this reason.
    pub(super) leftover: Option<&'static str>,
    /// The newest line of text, from standard error if there was one: what an error ends with.
    pub(super) last_words: String,
    pub(super) words_from_err: bool,
    pub(super) watched: Watched,
}

/// One of the two outputs.
pub(super) struct Channel {
    pub(super) source: Source,
    pub(super) splitter: Splitter,
}

/// Why a program was asked to stop.
#[derive(Debug)]
pub(super) enum Stop {
    /// By the engine: an operator, the end of the node, a lost lease.
    Asked,
    /// It ran longer than its soft timeout.
    TooLong(Millis),
    /// A line of it breaks the protocol.
    Line(LineError),
    /// What it said could not be published.
    Store(StoreError),
    /// It was taken over to be heard to its end only.
    Leftover(&'static str),
}

/// What happens next to a running program.
enum Turn {
    Exited(io::Result<()>),
    Cancelled,
    OutOfTime,
    Out(io::Result<Vec<u8>>),
    Err(io::Result<Vec<u8>>),
}

impl ExecWorker {
    /// Follows the program to its end: takes in what it says, and asks it to stop when it must.
    pub(super) async fn follow(
        &self,
        cycle: &Cycle,
        run: &mut Run,
    ) -> Result<(Option<ExitStatus>, Option<Stop>), Fault> {
        let clock = &self.programs.clock;
        let mut cancelled = cycle.host.until_cancelled();
        let (mut heard, mut stop, mut kill_at) = (false, None, None::<Time>);
        if let Some(why) = run.leftover {
            run.program.terminate();
            kill_at = Some(clock.now() + GRACE);
            stop = Some(Stop::Leftover(why));
        }
        loop {
            let out_of_time = async {
                match kill_at {
                    Some(at) => clock.sleep_until(at).await,
                    None => pending().await,
                }
            };
            let turn = tokio::select! {
                biased;
                exited = run.program.exited() => Turn::Exited(exited),
                () = &mut cancelled, if !heard => Turn::Cancelled,
                () = out_of_time => Turn::OutOfTime,
                bytes = run.out.source.next() => Turn::Out(bytes),
                bytes = run.err.source.next() => Turn::Err(bytes),
            };
            let trouble = match turn {
                Turn::Exited(exited) => {
                    exited?;
                    break;
                }
                Turn::Cancelled => {
                    heard = true;
                    Some(self.why_asked(cycle))
                }
                Turn::OutOfTime => {
                    self.note(cycle, run, "does not end: KILL");
                    run.program.kill();
                    kill_at = None;
                    None
                }
                Turn::Out(bytes) => self.hear(cycle, run, &bytes?).await,
                Turn::Err(bytes) => {
                    self.log_err(cycle, run, &bytes?);
                    None
                }
            };
            if let (Some(reason), None | Some(Stop::Leftover(_))) = (trouble, &stop) {
                self.note(cycle, run, &format!("asked to stop: TERM ({reason})"));
                run.program.terminate();
                kill_at = Some(clock.now() + self.grace(cycle, &reason));
                stop = Some(reason);
            }
        }
        let status = run.program.finish().await?;
        loop {
            let bytes = run.err.source.rest()?;
            if bytes.is_empty() {
                break;
            }
            self.log_err(cycle, run, &bytes);
        }
        loop {
            let bytes = run.out.source.rest()?;
            let over = bytes.is_empty();
            let trouble = if over {
                self.hear_last(cycle, run).await
            } else {
                self.hear(cycle, run, &bytes).await
            };
            let torn = over && !status.is_some_and(|s| s.success());
            // A program that died in the middle of a line has a better reason than that.
            let trouble = trouble.filter(|t| !(torn && matches!(t, Stop::Line(_))));
            if let (Some(reason), None | Some(Stop::Leftover(_))) = (trouble, &stop) {
                stop = Some(reason);
            }
            if over {
                break;
            }
        }
        Ok((status, stop))
    }

    /// Takes in standard output. The lines of a stream are published before more is read.
    async fn hear(&self, cycle: &Cycle, run: &mut Run, bytes: &[u8]) -> Option<Stop> {
        let mut told = Told::new(cycle, &run.whose);
        let Run { out, output, last_words, words_from_err, .. } = run;
        out.splitter.feed(bytes, |piece| told.take(cycle, output, piece));
        told.remember(last_words, *words_from_err);
        self.told(cycle, run, told).await
    }

    /// Takes in the last line, which nothing ended.
    async fn hear_last(&self, cycle: &Cycle, run: &mut Run) -> Option<Stop> {
        let mut told = Told::new(cycle, &run.whose);
        let Run { out, output, last_words, words_from_err, .. } = run;
        out.splitter.finish(|piece| told.take(cycle, output, piece));
        told.remember(last_words, *words_from_err);
        let mut lines = Lines::new(cycle.now(), &run.whose);
        run.err.splitter.finish(|piece| lines.push("err", &String::from_utf8_lossy(piece.bytes)));
        self.log.append(&lines);
        self.told(cycle, run, told).await
    }

    async fn told(&self, cycle: &Cycle, run: &mut Run, told: Told) -> Option<Stop> {
        self.log.append(&told.lines);
        if let Some(error) = told.error {
            return Some(Stop::Line(error));
        }
        if cycle.cause == Cause::Stream && !run.output.commit.is_empty() {
            let commit = run.output.take_commit();
            if let Err(error) = self.publish(cycle, commit).await {
                return Some(Stop::Store(error));
            }
        }
        self.taken_in(run);
        None
    }

    /// Publishes lines of a stream. While the database fails the program goes on, and waits in its
    /// next write once its pipe is full; lines that were published are known by their place.
    pub(super) async fn publish(&self, cycle: &Cycle, commit: Commit) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            match cycle.step(commit.clone()).await {
                Err(error @ StoreError::Database(_)) if !cycle.cancelled() => {
                    tries += 1;
                    let worker = self.definition.name.as_str();
                    let pause = PUBLISH_AGAIN.delay(tries, worker);
                    tracing::warn!(
                        worker.name = worker,
                        "what the program of {worker} said cannot be published, again in {pause}: {}",
                        chain(&error)
                    );
                    tokio::select! {
                        biased;
                        () = cycle.host.until_cancelled() => return Err(error),
                        () = self.programs.clock.sleep(pause) => {}
                    }
                }
                done => return done,
            }
        }
    }

    /// Notes how far the output was taken in.
    fn taken_in(&self, run: &mut Run) {
        let Some(file) = run.record.as_mut().filter(|f| f.record.adopt) else { return };
        let (out, err) = (&run.out.splitter, &run.err.splitter);
        (file.record.out, file.record.lines, file.record.err) = (out.at(), out.lines(), err.at());
        if let Err(e) = file.save() {
            let worker = &self.definition.name;
            tracing::warn!(
                worker.name = %worker,
                "cannot note how far the output of {worker} was read: after a crash some of it is \
                 read again: {e}"
            );
        }
        for channel in [&mut run.out, &mut run.err] {
            if let Source::Spool(spool) = &mut channel.source {
                spool.forget(channel.splitter.at());
            }
        }
    }

    fn log_err(&self, cycle: &Cycle, run: &mut Run, bytes: &[u8]) {
        let mut lines = Lines::new(cycle.now(), &run.whose);
        let Run { err, last_words, words_from_err, .. } = run;
        err.splitter.feed(bytes, |piece| {
            let text = String::from_utf8_lossy(piece.bytes);
            if !text.trim().is_empty() {
                *words_from_err = true;
                *last_words = short(&text);
            }
            lines.push("err", &text);
        });
        self.log.append(&lines);
        self.taken_in(run);
    }

    /// A line of the supervisor's own in the worker's log.
    pub(super) fn note(&self, cycle: &Cycle, run: &mut Run, text: &str) {
        let mut lines = Lines::new(cycle.now(), &run.whose);
        lines.push("run", text);
        self.log.append(&lines);
    }

    fn why_asked(&self, cycle: &Cycle) -> Stop {
        let (soft, _) = self.limits(cycle);
        match self.definition.trigger {
            Trigger::Stream => Stop::Asked,
            _ if cycle.now() - cycle.started_at >= soft => Stop::TooLong(soft),
            _ => Stop::Asked,
        }
    }

    /// The soft and the hard limit of a cycle: those of its job's kind, if it has one with any.
    fn limits(&self, cycle: &Cycle) -> (Millis, Millis) {
        if let (Trigger::Queue(queue), CycleInput::Job { kind, .. }) =
            (&self.definition.trigger, &cycle.input)
            && let Some(soft) = queue.kind(kind).and_then(|k| k.timeout)
        {
            return (soft, soft * 2);
        }
        let soft = self.definition.soft_timeout;
        (soft, self.definition.hard_timeout.max(soft))
    }

    /// How long the program may take to end once it was asked to.
    fn grace(&self, cycle: &Cycle, reason: &Stop) -> Millis {
        match (&self.definition.trigger, reason) {
            (Trigger::Stream, _) | (_, Stop::Line(_) | Stop::Store(_)) => GRACE,
            (_, Stop::Asked | Stop::TooLong(_) | Stop::Leftover(_)) => {
                let age = cycle.now() - cycle.started_at;
                (self.limits(cycle).1 - age).max(Millis::ZERO)
            }
        }
    }
}

/// What one read of standard output said.
struct Told {
    lines: Lines,
    last: Option<String>,
    error: Option<LineError>,
}

impl Told {
    fn new(cycle: &Cycle, whose: &str) -> Self {
        Self { lines: Lines::new(cycle.now(), whose), last: None, error: None }
    }

    fn take(&mut self, cycle: &Cycle, output: &mut Output, piece: Piece<'_>) {
        if self.error.is_some() {
            // Nothing of it is published any more; its words may still explain.
            self.lines.push("out", &String::from_utf8_lossy(piece.bytes));
            return;
        }
        match output.take(piece) {
            Ok(Said::Nothing) => {}
            Ok(Said::Progress(percent, message)) => cycle.progress(percent, &message),
            Ok(Said::Log(what, text)) => {
                if !text.trim().is_empty() {
                    self.last = Some(short(&text));
                }
                self.lines.push(what, &text);
            }
            Err(error) => {
                self.lines.push("out", &String::from_utf8_lossy(piece.bytes));
                self.lines.push("run", &error.to_string());
                self.error = Some(error);
            }
        }
    }

    fn remember(&mut self, last_words: &mut String, from_err: bool) {
        if let Some(last) = self.last.take().filter(|_| !from_err) {
            *last_words = last;
        }
    }
}

/// The beginning of a line, for an error.
fn short(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(LAST_WORDS).collect()
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => f.write_str("on request"),
            Self::Leftover(why) => f.write_str(why),
            Self::TooLong(limit) => write!(f, "its soft timeout of {limit} has passed"),
            Self::Line(error) => error.fmt(f),
            Self::Store(error) => f.write_str(&chain(error)),
        }
    }
}
