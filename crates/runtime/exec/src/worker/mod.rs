//! A worker that runs a program for each cycle: how it begins and how it ends. What happens between
//! is in [`follow`].

mod follow;

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::process::Command;
use tokio::sync::OnceCell;
use watchbell_core::{
    BoxError, BoxFuture, Cause, Commit, Cycle, Definition, Done, Fault, Time, Trigger, Worker,
};

use self::follow::{Channel, Run, Stop};
use crate::exit::{self, Ending};
use crate::input::{Places, document, environment, find_program};
use crate::line::Splitter;
use crate::log::Log;
use crate::output::{Output, Stage};
use crate::proc::Identity;
use crate::program::Program;
use crate::programs::{Programs, Watched, absolute};
use crate::record::{Record, RecordFile};
use crate::source::{Source, Spool};
use crate::spec::{OnOrphan, Spec};

/// Runs a program for each cycle.
#[derive(Debug)]
pub struct ExecWorker {
    definition: Definition,
    spec: Spec,
    fingerprint: String,
    programs: Arc<Programs>,
    log: Log,
    /// What an earlier supervisor left was ended.
    cleared: OnceCell<()>,
}

impl ExecWorker {
    /// A worker that runs `spec` when and as `definition` says.
    #[must_use]
    pub fn new(definition: Definition, mut spec: Spec, programs: Arc<Programs>) -> Self {
        spec.dir = spec.dir.map(absolute);
        let fingerprint = spec.fingerprint();
        let log = Log::new(&programs.logs(), &definition.name, spec.log);
        let this = Self { definition, spec, fingerprint, programs, log, cleared: OnceCell::new() };
        if this.adopts() {
            this.programs.adopts(&this.definition.name);
        }
        this
    }

    /// Whether its programs outlive their supervisor.
    fn adopts(&self) -> bool {
        self.spec.on_orphan == OnOrphan::Adopt
            && matches!(self.definition.trigger, Trigger::Stream)
            && self.programs.unavailable().is_none()
    }

    async fn cycle(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let mut run = match self.take_over(cycle).await? {
            Some(mut left) if left.leftover.is_some() => {
                if let (_, Some(Stop::Store(error))) = self.follow(cycle, &mut left).await? {
                    return Err(Fault::Store(error));
                }
                if cycle.cancelled() {
                    return Err(Fault::Cancelled);
                }
                drop(left);
                self.start(cycle)?
            }
            Some(run) => run,
            None => self.start(cycle)?,
        };
        let (status, stop) = self.follow(cycle, &mut run).await?;
        self.conclude(cycle, run, status, stop)
    }

    /// Takes over the program that an earlier supervisor started for this stream, and ends every
    /// other one of this worker that nobody watches.
    async fn take_over(&self, cycle: &Cycle) -> Result<Option<Run>, Fault> {
        let worker = &self.definition.name;
        if !(self.adopts() && cycle.cause == Cause::Stream) {
            self.cleared.get_or_try_init(|| self.programs.end_orphans_of(worker)).await?;
            return Ok(None);
        }
        let mut taken = None;
        for record in self.programs.orphans()?.into_iter().filter(|r| r.worker == *worker) {
            let resumed = match (&taken, record.adopt) {
                (None, true) => self.resume(cycle, record.clone()).map(Some),
                _ => Ok(None),
            };
            match resumed {
                Ok(Some(run)) => taken = Some(run),
                Ok(None) => self.programs.end(&record, "its supervisor died").await,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.programs.end(&record, "the files of its output are gone").await;
                }
                Err(e) => return Err(e.into()),
            }
        }
        if let Some(run) = &mut taken {
            let (pid, name) = (run.program.leader().pid, run.watched.run.clone());
            let end = run.leftover.map_or_else(String::new, |why| format!(", and ends: {why}"));
            self.note(cycle, run, &format!("taken over: process {pid}{end}"));
            tracing::info!(
                worker.name = %worker,
                "{worker} took over its running program, process {pid}{end}"
            );
            let payload = serde_json::json!({
                "worker": worker, "run": name, "process": pid, "ends": run.leftover,
            });
            let mut commit = Commit::new();
            commit.emit("exec.adopted", worker.as_str(), payload);
            self.publish(cycle, commit).await?;
        }
        Ok(taken)
    }

    /// A program of another command, or one that has ended meanwhile, is only heard to its end.
    fn resume(&self, cycle: &Cycle, record: Record) -> io::Result<Run> {
        let programs = &self.programs;
        let this_boot = programs.me().is_some_and(|(_, boot)| *boot == record.boot);
        let alive = this_boot.then(|| Program::take_over(record.leader, &record.run)).flatten();
        let leftover = match &alive {
            None => Some("it ended while nobody watched"),
            Some(_) if record.fingerprint != self.fingerprint => Some("its command was changed"),
            Some(_) => None,
        };
        let program =
            alive.unwrap_or_else(|| Program::ended(record.leader, &record.run, !this_boot));
        let watched = programs.watch(record.run.clone());
        let spool =
            |kind, at| Spool::open(&programs.runs.file(&record.run, kind), at, &programs.watcher);
        let out = Channel {
            source: Source::Spool(spool("out", record.out)?),
            splitter: Splitter::resume(record.out, record.lines),
        };
        let err = Channel {
            source: Source::Spool(spool("err", record.err)?),
            splitter: Splitter::resume(record.err, 0),
        };
        let supervisor = programs.me().map_or(record.supervisor, |(me, _)| *me);
        let record = RecordFile::take_over(&programs.runs, Record { supervisor, ..record })?;
        let run = self.run_of(cycle, program, Some(record), [out, err], Stage::none(), watched);
        Ok(Run { leftover, ..run })
    }

    /// Starts the program.
    fn start(&self, cycle: &Cycle) -> Result<Run, Fault> {
        let (programs, spec) = (&self.programs, &self.spec);
        let watched = programs.begin(&self.definition.name, programs.clock.now());
        let run = watched.run.as_str();
        if let Some(dir) = spec.dir.as_deref().filter(|dir| !dir.is_dir()) {
            return Err(Fault::transient(format!(
                "its working directory {} does not exist",
                dir.display()
            )));
        }
        let stage = if spec.stage { Stage::new(&*cycle.host)? } else { Stage::none() };
        let input = match document(&cycle.input) {
            Some(text) => {
                use std::io::Write as _;
                let mut file = programs.runs.create(run, "in")?;
                file.write_all(text.as_bytes())?;
                Some(programs.runs.file(run, "in"))
            }
            None => None,
        };
        let places =
            Places { data_dir: programs.data_dir(), input: input.as_deref(), stage: stage.path() };
        let variables = environment(cycle, run, spec, &places, |name| std::env::var_os(name));
        let (word, arguments) = spec
            .command
            .split_first()
            .ok_or_else(|| Fault::permanent("its command is empty".to_owned()))?;
        let mut command = Command::new(find_program(word, spec.dir.as_deref(), &variables)?);
        command.arg0(word).args(arguments).env_clear().envs(&variables);
        if let Some(dir) = &spec.dir {
            command.current_dir(dir);
        }
        command.stdin(match &input {
            Some(path) => Stdio::from(std::fs::File::open(path)?),
            None => Stdio::null(),
        });
        let channel = |source| Channel { source, splitter: Splitter::default() };
        let (out, err) = if self.adopts() {
            let spool = |kind| {
                let file = programs.runs.create(run, kind)?;
                let path = programs.runs.file(run, kind);
                Spool::open(&path, 0, &programs.watcher).map(|spool| (Source::Spool(spool), file))
            };
            let ((out, out_end), (err, err_end)) = (spool("out")?, spool("err")?);
            command.stdout(out_end).stderr(err_end);
            (channel(out), channel(err))
        } else {
            let ((out, out_end), (err, err_end)) = (Source::pipe()?, Source::pipe()?);
            command.stdout(out_end).stderr(err_end);
            (channel(out), channel(err))
        };
        // Written before there is a process: a supervisor that dies between the two leaves a record
        // by whose mark the process is found.
        let mut record = self.record(run)?;
        let program = Program::start(command, run)
            .map_err(|e| Fault::transient(format!("cannot start `{}`: {e}", spec.shown())))?;
        if let Some(file) = &mut record {
            file.record.leader = program.leader();
            file.save()?;
        }
        let mut run = self.run_of(cycle, program, record, [out, err], stage, watched);
        let pid = run.program.leader().pid;
        self.note(cycle, &mut run, &format!("started: process {pid}: {}", spec.shown()));
        if cycle.cause == Cause::Stream {
            let name = &self.definition.name;
            tracing::info!(worker.name = %name, "{name} started its program, process {pid}");
        }
        if let (OnOrphan::Adopt, Some(why)) = (spec.on_orphan, programs.unavailable()) {
            self.note(cycle, &mut run, &format!("taking it over is {why}"));
        }
        Ok(run)
    }

    fn record(&self, run: &str) -> io::Result<Option<RecordFile>> {
        let Some((me, boot)) = self.programs.me() else { return Ok(None) };
        let record = Record {
            worker: self.definition.name.clone(),
            run: run.to_owned(),
            leader: Identity { pid: 0, started: 0 },
            boot: boot.clone(),
            supervisor: *me,
            at: self.programs.clock.now(),
            command: self.spec.shown(),
            fingerprint: self.fingerprint.clone(),
            adopt: self.adopts(),
            out: 0,
            lines: 0,
            err: 0,
        };
        RecordFile::create(&self.programs.runs, record).map(Some)
    }

    fn run_of(
        &self,
        cycle: &Cycle,
        program: Program,
        record: Option<RecordFile>,
        [out, err]: [Channel; 2],
        stage: Stage,
        watched: Watched,
    ) -> Run {
        let stream = (cycle.cause == Cause::Stream).then(|| watched.run.clone());
        Run {
            program,
            record,
            out,
            err,
            output: Output::new(self.definition.name.clone(), stream),
            stage,
            whose: match &cycle.cause {
                Cause::Job { id } => format!("job {id}"),
                _ => format!("cycle {}", cycle.id),
            },
            leftover: None,
            last_words: String::new(),
            words_from_err: false,
            watched,
        }
    }

    /// From how the program ended to what is published of it.
    fn conclude(
        &self,
        cycle: &Cycle,
        mut run: Run,
        status: Option<ExitStatus>,
        stop: Option<Stop>,
    ) -> Result<Done, Fault> {
        let ending = status.map(exit::ending);
        let how = match &ending {
            Some(Ending::Success) => "exited with 0".to_owned(),
            Some(Ending::NotNow) => format!("exited with {} (not now)", exit::TEMPFAIL),
            Some(Ending::Failed(how) | Ending::Hopeless(how)) => how.clone(),
            None => "ended; only the supervisor that started it knew its exit code".to_owned(),
        };
        let took = cycle.now() - cycle.started_at;
        self.note(cycle, &mut run, &format!("{how} after {took}"));
        let how = if run.last_words.is_empty() {
            how
        } else {
            format!("{how}; its last words: {}", run.last_words)
        };
        match (stop, ending) {
            (Some(Stop::Line(error)), _) => Err(Fault::transient(error)),
            (Some(Stop::Store(error)), _) => Err(Fault::Store(error)),
            // What it did is done, asked to stop or not.
            (_, Some(Ending::Success)) => self.done(cycle, run),
            (Some(Stop::Asked | Stop::Leftover(_)), _) => Err(Fault::Cancelled),
            (Some(Stop::TooLong(limit)), _) => Err(Fault::transient(format!(
                "ran longer than its soft timeout of {limit}, and was asked to stop: {how}"
            ))),
            (None, Some(Ending::NotNow)) => Err(match run.output.snooze.take() {
                Some((after, why)) => Fault::Snooze { after, why },
                None => Fault::transient(how),
            }),
            (None, Some(Ending::Hopeless(_))) => Err(Fault::permanent(how)),
            (None, Some(Ending::Failed(_)) | None) => Err(Fault::transient(how)),
        }
    }

    fn done(&self, cycle: &Cycle, run: Run) -> Result<Done, Fault> {
        let lines = run.out.splitter.lines();
        let Output { commit, summary, window, artifacts, snooze, .. } = run.output;
        if let Some((after, why)) = snooze {
            return Err(Fault::Snooze { after, why });
        }
        if matches!(cycle.cause, Cause::Window { .. }) && window.is_none() {
            return Err(Fault::transient(
                "it printed no `window` line with the hashes of its input and its result",
            ));
        }
        let artifacts = run.stage.publish(artifacts, &*cycle.host).map_err(Fault::transient)?;
        let summary = summary.unwrap_or_else(|| serde_json::json!({ "lines": lines }));
        Ok(Done { summary, commit, window, artifacts })
    }
}

impl Worker for ExecWorker {
    fn define(&self) -> Definition {
        self.definition.clone()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.cycle(cycle))
    }

    fn scope<'a>(&'a self, _start: Time) -> BoxFuture<'a, Result<Vec<String>, BoxError>> {
        Box::pin(async { Ok(self.spec.scope.clone()) })
    }

    fn first_window<'a>(&'a self, from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        let first = match &self.definition.trigger {
            Trigger::Window(spec) => {
                self.spec.first_window.map(|first| first.max(from).ceil(spec.length))
            }
            _ => None,
        };
        Box::pin(async move { Ok(first) })
    }
}
