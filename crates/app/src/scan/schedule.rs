//! `schedule list | run | status` for the jobs of scans, in the frame that operators of scans know.

use serde::Serialize;
use serde_json::Value;
use watchbell_api::{ControlError, RunReport, ScheduleLine, discovery};
use watchbell_cli::args::{RunArgs, ScheduleAsk};
use watchbell_cli::{Exit, Out, exit_of, run_worker};
use watchbell_clock::Clock;
use watchbell_core::graph::nearest;
use watchbell_core::port::Outcome;
use watchbell_core::{Millis, Time};
use watchbell_scan::config::{Job, Kind};
use watchbell_scan::view;

use super::print;
use crate::compose;
use crate::config::Config;
use crate::installation::{self, trouble};
use crate::market::Place;

type Result<T> = std::result::Result<T, ControlError>;

/// Whether a command is about the jobs of scans; the others are about every worker that a clock starts.
pub(crate) fn is_ours(ask: &ScheduleAsk, config: &Config) -> bool {
    match ask {
        ScheduleAsk::List { all } | ScheduleAsk::Status { all } => !all,
        ScheduleAsk::Run(args) => {
            let workers = compose::definitions(config);
            let known = workers.is_ok_and(|all| all.iter().any(|d| d.name == args.name));
            job(&args.name, config).is_some() || !known
        }
    }
}

fn job<'a>(name: &watchbell_core::WorkerName, config: &'a Config) -> Option<&'a Job> {
    config.scan.config.jobs.iter().find(|job| job.name == *name)
}

/// Carries one out.
pub(crate) async fn run(ask: &ScheduleAsk, config: Config, out: &mut Out) -> Result<Exit> {
    match ask {
        ScheduleAsk::List { .. } => list(&config, out),
        ScheduleAsk::Run(args) => Box::pin(run_job(args, config, out)).await,
        ScheduleAsk::Status { .. } => Box::pin(status(config, out)).await,
    }
}

/// A job as it is listed.
#[derive(Serialize)]
pub(super) struct Listed<'a> {
    pub(super) name: &'a str,
    pub(super) schedule: &'a str,
    pub(super) enabled: bool,
    pub(super) description: &'a str,
}

/// Every configured job: nothing has to run, or to exist, for this.
fn list(config: &Config, out: &mut Out) -> Result<Exit> {
    let disabled = config.disabled();
    let jobs = config.scan.config.jobs.iter();
    let jobs: Vec<Listed<'_>> = jobs
        .map(|job| Listed {
            name: job.name.as_str(),
            schedule: job.schedule.expression(),
            enabled: job.enabled && !disabled.contains(&job.name),
            description: &job.description,
        })
        .collect();
    out.data(&jobs, |jobs, _| print::listed(jobs))?;
    Ok(Exit::Ok)
}

/// One run of a job, now.
async fn run_job(args: &RunArgs, config: Config, out: &mut Out) -> Result<Exit> {
    let name = args.name.clone();
    let Some(job) = job(&name, &config).cloned() else {
        let known: Vec<&str> =
            config.scan.config.jobs.iter().map(|job| job.name.as_str()).collect();
        let near = nearest(name.as_str(), known.iter().copied())
            .map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        return Err(ControlError::invalid(format!("job not found: {name}"))
            .help(format!("{near}`watchbell schedule list` names the jobs")));
    };
    let exists = exists(&config).await?;
    if args.dry_run && !exists {
        // Nothing is made for a look: what is known without a store is all that there is.
        let plan = watchbell_scan::run::plan(&job, None, None, Clock::system().now());
        out.data(&plan, |plan, style| print::planned(name.as_str(), plan, style))?;
        return Ok(Exit::Ok);
    }
    if !exists {
        // As `up` does: the first run of a job may be the first of all.
        let held = installation::hold(&config.data_dir)?;
        let opener = installation::Opener::Command;
        let opened = installation::open(&config, opener, Clock::system().now()).await?;
        opened.db.close().await.map_err(|e| trouble(&e))?;
        drop(held);
    }
    let place = Place::find(config, !args.dry_run).await?;
    let ran = run_at(args, &place, out).await;
    place.leave().await?;
    let ran = ran.map_err(|e| failed(name.as_str(), e))?;
    let (report, artifacts) = ran;
    if args.dry_run {
        out.data(&report.summary, |plan, style| print::planned(name.as_str(), plan, style))?;
        return Ok(Exit::Ok);
    }
    if report.outcome != Outcome::Succeeded {
        let error = report.cycle.as_ref().and_then(|c| c.error.clone());
        let error = error.unwrap_or_else(|| report.outcome.as_str().replace('_', " "));
        return Err(ControlError::internal(format!("❌ Job '{name}' failed: {error}")));
    }
    let finished = Finished { report: &report, artifacts: &artifacts };
    out.data(&finished, |finished, style| print::finished(finished, style))?;
    Ok(exit_of(&report))
}

/// A run that has ended well.
#[derive(Serialize)]
pub(super) struct Finished<'a> {
    #[serde(flatten)]
    pub(super) report: &'a RunReport,
    /// Paths below the data directory.
    pub(super) artifacts: &'a [String],
}

async fn run_at(args: &RunArgs, place: &Place, out: &mut Out) -> Result<(RunReport, Vec<String>)> {
    let report = run_worker(args, place.control(), out).await?;
    let mut artifacts = Vec::new();
    if let Some(cycle) = &report.cycle {
        let runs = view::runs(place.db(), Some(args.name.as_str()), 1).await;
        let newest = runs.map_err(|e| trouble(&e))?.pop();
        let newest = newest.filter(|run| run.cycle == cycle.id.0);
        let files = report.summary["files"].as_array().into_iter().flatten();
        if let Some(directory) = newest.and_then(|run| run.artifact) {
            let files = files.filter_map(Value::as_str);
            artifacts = files.map(|file| format!("artifacts/{directory}/{file}")).collect();
        }
    }
    Ok((report, artifacts))
}

/// Keeps what to do about an error, and says whose it is.
fn failed(job: &str, error: ControlError) -> ControlError {
    error.within(&format!("❌ Job '{job}' failed"))
}

/// The scheduler and its jobs at one moment.
#[derive(Serialize)]
pub(super) struct SchedulerStatus {
    pub(super) running: bool,
    pub(super) node: Option<String>,
    pub(super) jobs_enabled: usize,
    pub(super) jobs_disabled: usize,
    pub(super) next_run: Option<Time>,
    pub(super) last_run: Option<Time>,
    pub(super) uptime: Option<Millis>,
    pub(super) regime: Option<String>,
    pub(super) jobs: Vec<JobStatus>,
    pub(super) header: Option<Value>,
    pub(super) now: Time,
}

/// One job.
#[derive(Serialize)]
pub(super) struct JobStatus {
    pub(super) name: String,
    pub(super) enabled: bool,
    pub(super) state: String,
    pub(super) last_run: Option<Time>,
    pub(super) took: Option<Millis>,
    pub(super) passed: Option<(i64, i64)>,
    pub(super) runs: i64,
    pub(super) errors: i64,
    pub(super) next_run: Option<Time>,
    pub(super) artifact: Option<String>,
    pub(super) last_error: Option<String>,
}

async fn status(config: Config, out: &mut Out) -> Result<Exit> {
    let disabled = config.disabled();
    let jobs = config.scan.config.jobs.clone();
    if !exists(&config).await? {
        out.data(&nothing(&jobs, &disabled, Clock::system().now()), print::scheduler)?;
        return Ok(Exit::Ok);
    }
    let place = Place::find(config, false).await?;
    let status = look(&jobs, &disabled, &place).await;
    place.leave().await?;
    out.data(&status?, print::scheduler)?;
    Ok(Exit::Ok)
}

/// Whether there is anything to look at: a node, or a store.
async fn exists(config: &Config) -> Result<bool> {
    Ok(discovery::connect(&config.data_dir, crate::PROBE).await.is_some()
        || installation::exists(config).await?)
}

/// The scheduler of an installation that does not exist yet.
fn nothing(jobs: &[Job], disabled: &[watchbell_core::WorkerName], now: Time) -> SchedulerStatus {
    let never = |job: &Job| JobStatus {
        name: job.name.to_string(),
        enabled: job.enabled && !disabled.contains(&job.name),
        state: "-".to_owned(),
        last_run: None,
        took: None,
        passed: None,
        runs: 0,
        errors: 0,
        next_run: None,
        artifact: None,
        last_error: None,
    };
    let jobs: Vec<JobStatus> = jobs.iter().map(never).collect();
    let enabled = jobs.iter().filter(|job| job.enabled).count();
    SchedulerStatus {
        running: false,
        node: None,
        jobs_enabled: enabled,
        jobs_disabled: jobs.len() - enabled,
        next_run: None,
        last_run: None,
        uptime: None,
        regime: None,
        jobs,
        header: None,
        now,
    }
}

async fn look(
    jobs: &[Job],
    disabled: &[watchbell_core::WorkerName],
    place: &Place,
) -> Result<SchedulerStatus> {
    let now = place.now();
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    let newest = view::newest_runs(place.db(), &names).await.map_err(|e| trouble(&e))?;
    let regime = view::newest_regime(place.db()).await.map_err(|e| trouble(&e))?;
    let lines: Vec<ScheduleLine> = place.control().schedules().await?;
    let node = place.control().node().await?;
    let status = place.control().status().await?;
    let mut all = Vec::new();
    for job in jobs {
        let enabled = job.enabled && !disabled.contains(&job.name);
        let record = status.workers.iter().find(|w| w.record.name == job.name);
        let run = newest.get(job.name.as_str());
        let due = lines.iter().find(|l| l.worker == job.name);
        all.push(JobStatus {
            name: job.name.to_string(),
            enabled,
            state: record.map_or_else(|| "-".to_owned(), |w| w.record.state.as_str().to_owned()),
            last_run: run.map(|r| r.started_at),
            took: run.map(|r| r.took),
            // Nobody passes a regime.
            passed: run.filter(|_| job.kind != Kind::Regime).map(|r| (r.passed, r.scanned)),
            runs: record.map_or(0, |w| w.record.total_runs),
            errors: record.map_or(0, |w| w.record.consecutive_errors),
            next_run: due.filter(|_| enabled).and_then(|l| l.next_due.first().copied()),
            artifact: run.and_then(|r| r.artifact.clone()),
            last_error: record.and_then(|w| w.record.last_error.clone()),
        });
    }
    let running = place.node_runs().await?;
    let enabled = all.iter().filter(|job| job.enabled).count();
    let newest = newest.into_values().max_by_key(|run| run.started_at);
    Ok(SchedulerStatus {
        running,
        node: node.url.clone(),
        jobs_enabled: enabled,
        jobs_disabled: all.len() - enabled,
        next_run: all.iter().filter_map(|job| job.next_run).min().filter(|_| running),
        last_run: newest.as_ref().map(|run| run.started_at),
        uptime: node.started_at.filter(|_| running).map(|since| now - since),
        regime: regime.map(|r| watchbell_scan::run::in_use(Some(&r), now).headline(now)),
        jobs: all,
        header: newest.map(|run| run.header),
        now,
    })
}
