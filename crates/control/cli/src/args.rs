//! What can be typed.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use watchbell_api::CHANGE_LIMIT;
use watchbell_core::{Millis, SeriesName, Time, WorkerName, job, window};

use crate::exit;

/// Runs the background work of a team that lives on data.
///
/// Watchbell runs workers on schedules, aligned windows, queues and events, and publishes what each
/// cycle computed whole or not at all.
#[derive(Debug, Parser)]
#[command(
    verbatim_doc_comment,
    name = "watchbell",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_long_help = format!("{TOP_HELP}\n\n{}", exit::HELP)
)]
pub struct CliWith<More: Subcommand> {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: CommandWith<More>,
}

/// The commands of this crate alone.
pub type Cli = CliWith<NoMore>;
/// What can be asked for with the commands of this crate alone.
pub type Command = CommandWith<NoMore>;
/// A command of this crate, by who carries it out.
pub type Task = TaskWith<NoMore>;

/// No commands beside those of this crate: a workload has some of its own, and the binary that
/// knows it brings them in.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum NoMore {}

const TOP_HELP: &str = "\
Examples:
  watchbell demo                              see it work, with no configuration and no network
  watchbell up                                run the default profile until Ctrl-C
  watchbell status                            how is it going?
  watchbell explain window-sampler-30m/2026-11-22T03:00:00Z
                                              why is this window not there yet?
  watchbell run market-sync --dry-run         what would one cycle write?

Commands ask the running node of the data directory, or the store itself when none runs; both give
the same answer.";

/// What holds for every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the store and everything else of this installation is
    #[arg(long, global = true, value_name = "DIR", env = "WATCHBELL_DATA_DIR",
          hide_env_values = true, value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", env = "WATCHBELL_CONFIG",
          hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print data as JSON, and errors as problem documents
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more; twice, even more
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Print only what was asked for: no progress, no log below errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// Everything that can be asked for, with the commands that the binary adds.
#[derive(Debug, Subcommand)]
pub enum CommandWith<More: Subcommand> {
    /// Run the main job on a simulated market: no configuration, no network
    #[command(after_long_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Run workers until Ctrl-C
    ///
    /// With RUN_JOBS set to anything but 1, it says so and exits at once.
    #[command(after_long_help = UP_HELP)]
    Up(UpArgs),
    /// Like `up`, but only with RUN_JOBS=1: an unset RUN_JOBS runs nothing either
    RunAll(UpArgs),
    /// Show the schedules, or run them
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Asks and steers.
    #[command(flatten)]
    Ask(Ask),
    /// What the binary adds.
    #[command(flatten)]
    More(More),
    /// Look after the store
    #[command(subcommand)]
    Db(DbCommand),
    /// Check, show and describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Serve a simulated venue: Binance, Kraken, OKX or Coinbase
    #[command(after_long_help = VENUE_HELP)]
    VenueSim(VenueSimArgs),
    /// Print the completions of a shell
    #[command(after_long_help = "Examples:\n  watchbell completions bash > \
              ~/.local/share/bash-completion/completions/watchbell\n  watchbell completions zsh > \
              ~/.zfunc/_watchbell")]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// What is asked or steered, over a [`Control`](watchbell_api::Control).
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Show how it is going: node, store, series, workers, and what you should know
    Status(StatusArgs),
    /// Show workers, and start, stop, pause, resume or restart them
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Run one cycle of a worker now, and wait for its end
    #[command(after_long_help = RUN_HELP)]
    Run(RunArgs),
    /// Schedules: reached through [`ScheduleCommand`].
    #[command(skip)]
    Schedule(ScheduleAsk),
    /// Show, verify and backfill windows, try them again, or give them up
    #[command(subcommand)]
    Window(WindowCommand),
    /// Show, follow and emit events
    #[command(subcommand)]
    Event(EventCommand),
    /// Enqueue, show and change jobs
    #[command(subcommand)]
    Job(JobCommand),
    /// Show the nodes that share the store
    #[command(subcommand)]
    Node(NodeCommand),
    /// Say why something runs or does not
    ///
    /// Names the first gate that is closed, since when, what clears it, and what stands behind it.
    #[command(after_long_help = "Examples:\n  watchbell explain market-sync\n  watchbell explain \
              window-sampler-30m\n  watchbell explain window-sampler-30m/2026-11-22T03:00:00Z\n  watchbell explain \
              job/7\n  watchbell explain kind/export")]
    Explain {
        /// A worker, a series, SERIES/START of a window, job/ID, or kind/NAME
        thing: String,
    },
}

impl Ask {
    /// Whether it goes on until Ctrl-C, which is then its orderly end.
    #[must_use]
    pub const fn follows(&self) -> bool {
        match self {
            Self::Status(args) => args.watch,
            Self::Event(EventCommand::Tail(args)) => args.follow,
            _ => false,
        }
    }
}

/// A command, by who carries it out.
#[derive(Debug)]
pub enum TaskWith<More> {
    /// [`execute()`](crate::execute()) does.
    Ask(Ask),
    /// The binary that brought it in.
    More(More),
    /// Run the demonstration.
    Demo(DemoArgs),
    /// Run workers.
    Up(UpArgs, UpMode),
    /// Look after the store.
    Db(DbCommand),
    /// Look after the configuration.
    Config(ConfigCommand),
    /// Serve a venue.
    VenueSim(VenueSimArgs),
    /// Print completions: [`completions`] does.
    Completions(Shell),
}

/// Under which name workers were started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpMode {
    /// `up`: runs unless `RUN_JOBS` says no.
    Up,
    /// `run-all`: runs only if `RUN_JOBS` says yes.
    RunAll,
    /// `schedule start`: as `up`, but only the workers that a clock starts.
    Schedules,
}

impl<More: Subcommand> From<CommandWith<More>> for TaskWith<More> {
    fn from(command: CommandWith<More>) -> Self {
        use CommandWith as Command;
        match command {
            Command::Demo(args) => Self::Demo(args),
            Command::Up(args) => Self::Up(args, UpMode::Up),
            Command::RunAll(args) => Self::Up(args, UpMode::RunAll),
            Command::Schedule(ScheduleCommand::Start(args)) => Self::Up(args, UpMode::Schedules),
            Command::Schedule(ScheduleCommand::Ask(ask)) => Self::Ask(Ask::Schedule(ask)),
            Command::Ask(ask) => Self::Ask(ask),
            Command::More(more) => Self::More(more),
            Command::Db(command) => Self::Db(command),
            Command::Config(command) => Self::Config(command),
            Command::VenueSim(args) => Self::VenueSim(args),
            Command::Completions { shell } => Self::Completions(shell),
        }
    }
}

const DEMO_HELP: &str = "\
Starts the venue simulator on loopback, fills a store with several days of 1-minute klines of seven
symbols, computes their 30m, 1h and 3h windows, and goes on live until Ctrl-C.

It looks for no configuration: no watchbell.yaml, no .env, no variables of keys. With --config FILE
the file is read as elsewhere, with .env and the environment over it.

Examples:
  watchbell demo                              catch up, then run live
  watchbell demo --once                       catch up, print the status, and exit
  watchbell demo --klines ./klines            the same job on recorded klines
  watchbell demo --speed 600 --seed 7         another market, ten minutes a second";

/// Options of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Catch up, print the status, and exit
    #[arg(long)]
    pub once: bool,
    /// Replay recorded klines from this directory instead of the synthetic market
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub klines: Option<PathBuf>,
    /// How many times faster than the wall the live market runs
    #[arg(long, value_name = "N", default_value = "60", value_parser = speed)]
    pub speed: f64,
    /// The synthetic market's seed: the same seed gives the same market
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How many days to catch up; with --klines, all of them unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: Option<u32>,
    /// Have the venue misbehave; may be given several times (see `venue-sim --help`)
    #[arg(long, value_name = "SPEC")]
    pub fault: Vec<String>,
    /// Where the API answers
    #[command(flatten)]
    pub http: HttpArgs,
}

/// Where the API answers.
#[derive(Debug, Clone, Default, Args)]
pub struct HttpArgs {
    /// Port of the HTTP API on 127.0.0.1 [default: 8770]; 0 takes a free one
    #[arg(long, value_name = "N")]
    pub http_port: Option<u16>,
    /// Do not serve the HTTP API
    #[arg(long, conflicts_with = "http_port")]
    pub no_http: bool,
}

const UP_HELP: &str = "\
Examples:
  watchbell up                                run the default profile
  watchbell up --profile market --watch       run another one, and show the status as it changes
  watchbell up --config ./watchbell.yaml --data-dir /var/lib/watchbell";

/// Options of `up`.
#[derive(Debug, Clone, Default, Args)]
pub struct UpArgs {
    /// Which workers: the name of a profile in the configuration [default: default]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Show the status as it changes
    #[arg(long)]
    pub watch: bool,
    /// Go on with a store that was moved away
    #[arg(long)]
    pub force: bool,
    /// Where the API answers
    #[command(flatten)]
    pub http: HttpArgs,
}

/// Options of `status`.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Print it again every two seconds until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `worker ...`
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// List all workers
    List,
    /// Show one worker: definition, heartbeat, recent cycles, due instants and changes of state
    Show {
        /// Its name
        name: WorkerName,
    },
    /// Let workers run, after a stop or a failure
    Start(ActArgs),
    /// Stop workers; they stay stopped until started, even when the node restarts
    Stop(ActArgs),
    /// Have workers finish their cycle and then start none
    Pause(ActArgs),
    /// Have workers go on after a pause
    Resume(ActArgs),
    /// Stop and start workers, and forget their failures
    Restart(ActArgs),
}

/// Options of what is done to workers.
#[derive(Debug, Clone, Args)]
pub struct ActArgs {
    /// Their names
    #[arg(required = true)]
    pub names: Vec<WorkerName>,
    /// Who asks, for the record [default: $USER, or somebody]
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
}

const RUN_HELP: &str = "\
Examples:
  watchbell run market-sync                   one cycle, now
  watchbell run market-sync --dry-run         what would it write?
  watchbell run window-sampler-30m --window window-sampler-30m/2026-11-22T03:00:00Z";

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The worker
    pub name: WorkerName,
    /// One cycle: what `run` always does, said aloud in scripts
    #[arg(long)]
    pub once: bool,
    /// Compute, print what would be written, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Run even if it is paused, stopped or not due; never before its inputs are complete
    #[arg(long)]
    pub force: bool,
    /// Which window, for a worker that computes windows [default: the next one that is ready]
    #[arg(long, value_name = "SERIES/START", value_parser = window_ref)]
    pub window: Option<(SeriesName, Time)>,
    /// How its progress is shown, on the error stream
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressMode,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere, nothing with --quiet
    #[default]
    Auto,
    /// A line for each stage
    Plain,
    /// A JSON object a line
    Json,
}

/// `schedule ...`
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Asks and steers.
    #[command(flatten)]
    Ask(ScheduleAsk),
    /// Run the workers that a clock starts until Ctrl-C
    Start(UpArgs),
}

/// `schedule ...`, but for `start`.
#[derive(Debug, Subcommand)]
pub enum ScheduleAsk {
    /// List the scheduled jobs
    List {
        /// Every worker that a clock starts, with its next due instants
        #[arg(long)]
        all: bool,
    },
    /// Run one scheduled worker now, and wait for its end
    Run(RunArgs),
    /// Show whether the scheduler runs, and how its jobs are
    Status {
        /// What became of the newest due instants of every worker that a clock starts
        #[arg(long)]
        all: bool,
    },
}

/// `window ...`
#[derive(Debug, Subcommand)]
pub enum WindowCommand {
    /// List windows, newest first
    #[command(
        after_long_help = "Examples:\n  watchbell window list --failed\n  watchbell window list \
              --series window-sampler-30m --state ready\n  watchbell window list --from \
              2026-11-21 --to 2026-11-22"
    )]
    List {
        /// Only this series
        #[arg(long)]
        series: Option<SeriesName>,
        /// Only this state
        #[arg(long, value_parser = window_state())]
        state: Option<window::State>,
        /// Only those that failed and wait for another attempt, and those that were given up
        #[arg(long, conflicts_with = "state")]
        failed: bool,
        /// Starting at or after
        #[arg(long, value_name = "TIME", value_parser = time)]
        from: Option<Time>,
        /// Starting before
        #[arg(long, value_name = "TIME", value_parser = time)]
        to: Option<Time>,
        /// All versions instead of the newest of each
        #[arg(long)]
        all_versions: bool,
        /// At most this many
        #[arg(long, value_name = "N", default_value = "50", value_parser = limit())]
        limit: u32,
    },
    /// Show every version of one window
    Show {
        /// Series
        series: SeriesName,
        /// Start
        #[arg(value_parser = time)]
        start: Time,
    },
    /// Compute windows again, write nothing, and compare the results
    ///
    /// Exit code 1 when a result differs.
    #[command(after_long_help = "Examples:\n  watchbell window verify                            \
              every complete window\n  watchbell window verify window-sampler-30m 2026-11-22T03:00:00Z\n  \
              watchbell window verify window-sampler-3h --from 2026-11-01")]
    Verify {
        /// Only this series
        series: Option<SeriesName>,
        /// Only the window that starts then
        #[arg(value_parser = time, conflicts_with_all = ["from", "to"])]
        start: Option<Time>,
        /// Starting at or after
        #[arg(long, value_name = "TIME", value_parser = time)]
        from: Option<Time>,
        /// Starting before
        #[arg(long, value_name = "TIME", value_parser = time)]
        to: Option<Time>,
    },
    /// Ask for windows of the past; without a span, show the backfills and how far they are
    #[command(after_long_help = "Examples:\n  watchbell window backfill\n  watchbell window \
              backfill --from 2026-11-01 --to 2026-11-08 --preview\n  watchbell window backfill \
              window-sampler-3h --from 2026-11-01 --to 2026-11-08")]
    Backfill(BackfillArgs),
    /// Try a window again: at once after a failure, as a new version where it was given up
    ///
    /// A window that was given up is tried again only if everything that it is computed from is
    /// stored, for all that follow in its series wait for it. A complete one never changes.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  watchbell window retry window-sampler-30m \
              2026-11-22T03:00:00Z\n  watchbell window retry window-sampler-30m \
              2026-11-22T03:00:00Z --preview"
    )]
    Retry {
        /// Which, and who asks
        #[command(flatten)]
        which: SteerArgs,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Give a window up, so that its series goes on without it
    ///
    /// Whatever is computed from it is given up too. A complete window is not given up, and one that
    /// is being computed neither.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  watchbell window abandon window-sampler-30m \
              2026-11-22T03:00:00Z --reason 'no candles'"
    )]
    Abandon {
        /// Which, and who asks
        #[command(flatten)]
        which: SteerArgs,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// One window, and how it is changed.
#[derive(Debug, Clone, Args)]
pub struct SteerArgs {
    /// Series
    pub series: SeriesName,
    /// Start
    #[arg(value_parser = time)]
    pub start: Time,
    /// Only tell what would be done
    #[arg(long, visible_alias = "dry-run")]
    pub preview: bool,
    /// Who asks, for the record [default: $USER, or somebody]
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
}

/// Options of `window backfill`.
#[derive(Debug, Clone, Args)]
pub struct BackfillArgs {
    /// Only this series
    #[arg(requires = "from")]
    pub series: Option<SeriesName>,
    /// First start
    #[arg(long, value_name = "TIME", value_parser = time, requires = "to")]
    pub from: Option<Time>,
    /// End, exclusive
    #[arg(long, value_name = "TIME", value_parser = time, requires = "from")]
    pub to: Option<Time>,
    /// Only tell what would be computed
    #[arg(long, visible_alias = "dry-run", requires = "from")]
    pub preview: bool,
    /// Compute complete windows again, as new versions, for this reason
    #[arg(long, value_name = "REASON", requires = "from")]
    pub recompute: Option<String>,
    /// Who asks, for the record [default: $USER, or somebody]
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
}

/// `event ...`
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// List the newest events, or those after a number
    List {
        /// Only these kinds; may end in `*`
        #[arg(long, value_name = "KIND")]
        kind: Vec<String>,
        /// Only events with a greater number
        #[arg(long, value_name = "ID", conflicts_with = "dead")]
        after: Option<i64>,
        /// At most this many
        #[arg(long, value_name = "N", default_value = "50", value_parser = limit())]
        limit: u32,
        /// Those that a subscriber gave up, and why
        #[arg(long, conflicts_with = "kind")]
        dead: bool,
    },
    /// Print the newest events, and with --follow those that come, until Ctrl-C
    #[command(
        after_long_help = "Examples:\n  watchbell event tail --follow\n  watchbell event tail \
              --kind 'window.*' --last 50\n  watchbell event tail --since 4711 --follow --json"
    )]
    Tail(TailArgs),
    /// Emit an event; prints its number
    #[command(after_long_help = "Examples:\n  watchbell event emit deploy.finished --key api \
              --payload '{\"version\": \"1.2\"}'")]
    Emit {
        /// Its kind: dotted words
        kind: String,
        /// What it is about
        #[arg(long, default_value = "")]
        key: String,
        /// Details, as JSON
        #[arg(long, value_name = "JSON", default_value = "null", value_parser = json)]
        payload: serde_json::Value,
    },
}

/// Options of `event tail`.
#[derive(Debug, Clone, Args)]
pub struct TailArgs {
    /// Only these kinds; may end in `*`
    #[arg(long, value_name = "KIND")]
    pub kind: Vec<String>,
    /// Begin after this number
    #[arg(long, value_name = "ID", conflicts_with = "last")]
    pub since: Option<i64>,
    /// Begin with the newest N
    #[arg(long, value_name = "N", default_value = "10",
          value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub last: u32,
    /// Go on with those that come, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// End after this many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// `node ...`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes: since when they run, when they were heard of, what they hold
    List,
}

const ENQUEUE_HELP: &str = "\
A job that fails the schema of its kind, or is wrong in another way, is refused with the place of
the mistake, and nothing is added. With --bulk, each line of the file is a job of its own:

  {\"kind\": \"export\", \"payload\": {\"series\": \"window-sampler-30m\"}, \"unique_key\": \"a\", \"priority\": 3}

Examples:
  watchbell job enqueue export '{\"series\": \"window-sampler-30m\"}'
  watchbell job enqueue export --file payload.json --in 10m --priority 5
  watchbell job enqueue export --key window-sampler-30m --unique-in queued
  watchbell job enqueue --bulk jobs.jsonl";

const CHANGE_HELP: &str = "\
Which jobs: numbers, or a filter; what is given must all hold. A filter is shown first with what it
would change, and confirmed on a terminal; scripts say --yes.";

/// `job ...`
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Add a job, or many from a file; all of them or none
    #[command(after_long_help = ENQUEUE_HELP)]
    Enqueue(EnqueueArgs),
    /// List jobs, live and finished, newest first
    #[command(after_long_help = "Examples:\n  watchbell job list --state failed --error \
              timeout\n  watchbell job list --kind export --before 4711")]
    List {
        /// Which
        #[command(flatten)]
        filter: FilterArgs,
        /// Only jobs with a smaller number: the next page
        #[arg(long, value_name = "ID")]
        before: Option<i64>,
        /// At most this many
        #[arg(long, value_name = "N", default_value = "50", value_parser = limit())]
        limit: u32,
    },
    /// Show one job: its row, the attempts that did not succeed, and why it does not run
    Show {
        /// Its number
        id: i64,
    },
    /// End jobs that are queued, and ask those that run to end
    #[command(after_long_help = CHANGE_HELP)]
    Cancel(ChangeArgs),
    /// Run jobs now that are queued for later, such as after a failed attempt
    #[command(after_long_help = CHANGE_HELP)]
    Retry(ChangeArgs),
    /// Give jobs that failed or were cancelled a fresh set of attempts, now
    #[command(after_long_help = CHANGE_HELP)]
    Redrive(ChangeArgs),
    /// Delete jobs that have ended
    #[command(after_long_help = CHANGE_HELP)]
    Purge(ChangeArgs),
    /// List the kinds of jobs, or show one with the schema of its payload
    Kinds {
        /// Only this one
        kind: Option<String>,
    },
    /// Count the jobs of each kind by state
    Stats,
}

/// Options of `job enqueue`.
#[derive(Debug, Clone, Args)]
pub struct EnqueueArgs {
    /// Kind of work
    #[arg(required_unless_present = "bulk", conflicts_with = "bulk")]
    pub kind: Option<String>,
    /// Input, as JSON; `-` reads it from the input stream [default: {}]
    #[arg(conflicts_with_all = ["file", "bulk"])]
    pub payload: Option<String>,
    /// Read the payload from this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "bulk")]
    pub file: Option<PathBuf>,
    /// Read jobs from this file, one JSON object a line; `-` is the input stream
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["key", "limit_key", "priority", "at", "delay", "max_attempts"])]
    pub bulk: Option<PathBuf>,
    /// Unique key: not added while a job of this kind with the same key is in --unique-in
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// The states in which the key counts; `queued` always does [default: queued,running]
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = job_state(),
          requires = "key")]
    pub unique_in: Vec<job::State>,
    /// What the kind's limit per key counts by, such as a user or a symbol
    #[arg(long, value_name = "KEY")]
    pub limit_key: Option<String>,
    /// Higher runs first [default: the kind's]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(0..))]
    pub priority: Option<i32>,
    /// Not before this instant
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "delay")]
    pub at: Option<Time>,
    /// Not before this long from now, such as 10m
    #[arg(long = "in", value_name = "DURATION", value_parser = duration)]
    pub delay: Option<Millis>,
    /// Attempts before the job is dead [default: the kind's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: Option<u32>,
}

/// Which jobs.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only this kind
    #[arg(long)]
    pub kind: Option<String>,
    /// Only this state
    #[arg(long, value_parser = job_state())]
    pub state: Option<job::State>,
    /// Only those whose newest error contains this
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// Only this unique key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Only this limit key
    #[arg(long, value_name = "KEY")]
    pub limit_key: Option<String>,
    /// Only those that were enqueued before
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub created_before: Option<Time>,
    /// Only those that ended before
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub finished_before: Option<Time>,
}

/// Options of what is done to jobs.
#[derive(Debug, Clone, Args)]
pub struct ChangeArgs {
    /// Their numbers
    pub ids: Vec<i64>,
    /// Which
    #[command(flatten)]
    pub filter: FilterArgs,
    /// All of them, where nothing else says which
    #[arg(long)]
    pub all: bool,
    /// Only show what would change
    #[arg(long, alias = "dry-run")]
    pub preview: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// At most this many, oldest first
    #[arg(long, value_name = "N", default_value_t = CHANGE_LIMIT, value_parser = limit())]
    pub limit: u32,
    /// Who asks, for the record [default: $USER, or somebody]
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
}

/// `db ...`
#[derive(Debug, Clone, Subcommand)]
pub enum DbCommand {
    /// Bring the tables up to this version
    Migrate,
    /// Check the store: engine, schema, and the promises that its rows must keep
    Check,
    /// Copy the store to a file, while it is in use
    Backup {
        /// The copy; must not exist
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Replace the store by a backup; no node may run
    Restore {
        /// The backup
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Replace a store that exists; what it has is kept in a file of its own
        #[arg(long)]
        force: bool,
    },
    /// Move everything in the store to a store of the other engine; no node may run
    #[command(after_long_help = "Examples:\n  watchbell db move --to \
              postgres://watchbell@db.internal/watchbell\n  watchbell db move --to sqlite:back.db")]
    Move {
        /// An empty PostgreSQL database, or a SQLite file that is not there yet, as in store.url
        #[arg(long, value_name = "URL")]
        to: String,
    },
}

/// `config ...`
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Read the configuration as `up` would, and say what is wrong with it
    Check,
    /// Show the configuration that holds, defaults and environment included
    Show {
        /// Print the default configuration instead, with comments: a file to begin with
        #[arg(long)]
        default: bool,
    },
    /// Print its JSON Schema
    Schema,
}

const VENUE_HELP: &str = "\
Serves a venue from a market that follows from a seed, or from recorded klines: Binance's spot REST
paths and combined streams, or the public REST paths of Kraken, OKX or Coinbase Exchange. Several
venues of one seed and number of assets show one market.

Faults are TARGET:KIND or TARGET:KIND:OPTIONS, such as klines:429:p=0.05 (one in twenty requests for
candles), and may be given several times; an unknown one is refused with the list of those that
there are.

Examples:
  watchbell venue-sim --bind 127.0.0.1:9443
  watchbell venue-sim --klines ./klines --speed 60
  watchbell venue-sim --venue kraken --assets 300 --bind 127.0.0.1:9444
  watchbell venue-sim --seed 7 --fault klines:429:p=0.05 --fault '*:latency:ms=300,p=0.01'";

/// Options of `venue-sim`.
#[derive(Debug, Clone, Args)]
pub struct VenueSimArgs {
    /// Where to serve; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9443")]
    pub bind: SocketAddr,
    /// Whose protocol it speaks
    #[arg(long, value_name = "VENUE", default_value = "binance",
          value_parser = ["binance", "kraken", "okx", "coinbase"])]
    pub venue: String,
    /// The synthetic market's seed: the same seed gives the same market
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Serve a universe of so many assets, up to 400 [default: 300; at binance the usual 7]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=400))]
    pub assets: Option<u16>,
    /// Serve recorded klines from this directory instead of the synthetic market
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "assets")]
    pub klines: Option<PathBuf>,
    /// How many times faster than the wall its market runs
    #[arg(long, value_name = "N", default_value = "1", value_parser = speed)]
    pub speed: f64,
    /// Misbehave; may be given several times
    #[arg(long, value_name = "SPEC")]
    pub fault: Vec<String>,
}

/// Writes the completions of a shell.
pub fn completions<More: Subcommand>(shell: Shell, out: &mut dyn Write) {
    let mut tree = CliWith::<More>::command();
    clap_complete::generate(shell, &mut tree, "watchbell", &mut { out });
}

fn time(text: &str) -> Result<Time, String> {
    Time::parse(text)
}

fn duration(text: &str) -> Result<Millis, String> {
    Millis::parse(text)
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|e| format!("it is not JSON: {e}"))
}

fn window_ref(text: &str) -> Result<(SeriesName, Time), String> {
    let (series, start) = text
        .split_once('/')
        .filter(|(s, _)| !s.is_empty())
        .ok_or("use SERIES/START, such as window-sampler-30m/2026-11-22T03:00:00Z")?;
    Ok((series.into(), Time::parse(start)?))
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 && n <= 100_000.0 => Ok(n),
        _ => Err("use a number above 0 and up to 100000, such as 60".to_owned()),
    }
}

fn limit() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=10_000)
}

fn window_state() -> impl TypedValueParser<Value = window::State> {
    PossibleValuesParser::new(window::State::ALL.map(window::State::as_str))
        .try_map(|s| window::State::parse(&s).ok_or("not a state"))
}

fn job_state() -> impl TypedValueParser<Value = job::State> {
    PossibleValuesParser::new(job::State::ALL.map(job::State::as_str))
        .try_map(|s| job::State::parse(&s).ok_or("not a state"))
}
