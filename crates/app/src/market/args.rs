//! What can be typed of the market, beside the commands that know no workload.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use watchbell_core::{Millis, Time};

/// The commands of the workloads.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Own {
    /// Run named checks of the market, and show their evidence
    #[command(subcommand)]
    Smoke(SmokeCommand),
    /// Show and steer the market
    #[command(subcommand, after_long_help = MARKET_HELP)]
    Market(MarketCommand),
}

const MARKET_HELP: &str = "\
Examples:
  watchbell market status                         how fresh is everything?
  watchbell market window BTCUSDT 30m             the newest window, with a histogram
  watchbell market universe disable DOGEUSDT      do not observe a symbol any more
  watchbell market jobs                           what waits, and what failed";

/// `smoke ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SmokeCommand {
    /// List the checks
    List,
    /// Run checks, or all of them, and store what they found as a pack
    ///
    /// Exit code 1 when one of them finds an error.
    #[command(
        after_long_help = "Examples:\n  watchbell smoke run\n  watchbell smoke run universe \
              window --json\n  watchbell smoke run --dry-run"
    )]
    Run(SmokeArgs),
}

/// Options of `smoke run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SmokeArgs {
    /// Which; all of them unless given
    pub(crate) names: Vec<String>,
    /// Write nothing: no pack, no heartbeat
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `market ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MarketCommand {
    /// Show how fresh each symbol is, its newest vectors, tier and mood, and how the venue is doing
    Status,
    /// Show one window of one symbol: prices, vectors, floating modes, and a histogram
    #[command(after_long_help = "Examples:\n  watchbell market window BTCUSDT 30m\n  watchbell \
              market window ETHUSDT 1h 2026-11-22T03:00:00Z")]
    Window {
        /// Symbol
        symbol: String,
        /// Length of the window, such as 30m
        #[arg(value_parser = duration)]
        label: Millis,
        /// Its start [default: the newest]
        #[arg(value_parser = time)]
        start: Option<Time>,
    },
    /// List the symbols, or change which of them are observed
    #[command(
        visible_alias = "symbols",
        args_conflicts_with_subcommands = true,
        after_long_help = "Examples:\n  watchbell market universe\n  watchbell market universe \
              enable LINKUSDT AVAXUSDT\n  watchbell market universe sync BTC ETH SOL --quote USDT \
              --preview"
    )]
    Universe {
        /// What to change
        #[command(subcommand)]
        command: Option<UniverseCommand>,
    },
    /// Show the newest five-second point of each symbol
    Samples,
    /// Show the newest vectors of each symbol and label
    Vectors,
    /// Count the jobs of each kind by status, and show the newest that failed
    Jobs,
    /// Show the windows of the last day
    #[command(after_long_help = "Examples:\n  watchbell market windows --incomplete\n  watchbell \
              market windows --within 3d --limit 500")]
    Windows(WindowsArgs),
    /// Show what the newest health scan and the newest smokes found
    Packs {
        /// Only this scope, with all of its items
        scope: Option<String>,
    },
    /// Show which boot has which schema open, or set a flag
    #[command(subcommand)]
    Flags(FlagsCommand),
    /// Show, open and close the ledger's trading sessions
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Show one matrix of the newest slice
    #[command(after_long_help = "Examples:\n  watchbell market matrix\n  watchbell market matrix \
              30m benchmark\n  watchbell market matrix cycle pct24h")]
    Matrix {
        /// Series: `cycle`, or a label of windows [default: the newest]
        series: Option<String>,
        /// Which of the seven
        #[arg(value_name = "TYPE", default_value = "id_pct", value_parser = TYPES)]
        matrix_type: String,
    },
    /// Show the newest moods
    Mood {
        /// Only of this label
        #[arg(value_parser = duration)]
        label: Option<Millis>,
        /// At most this many of each label
        #[arg(long, value_name = "N", default_value = "5",
              value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
    },
    /// Bring account trades into the ledger
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Bring the newest tickers and the symbols of the market to what was ingested
    ///
    /// All else of the market is a view of what was ingested. Doing it twice changes nothing the second
    /// time.
    Rebuild,
    /// Fetch the past of a symbol and compute its windows; prints `cycles=.., windows=..`
    #[command(after_long_help = "Examples:\n  watchbell market backfill BTCUSDT 2026-11-01 \
              2026-11-08\n  watchbell market backfill BTCUSDT 2026-11-01 2026-11-08 --preview")]
    Backfill(BackfillArgs),
}

/// The seven matrices.
const TYPES: [&str; 7] = ["benchmark", "pct24h", "id_pct", "pct_drv", "pct_ref", "ref", "delta"];

/// `market universe ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum UniverseCommand {
    /// Observe symbols from the next window on
    Enable(SymbolsArgs),
    /// Observe symbols no more, until a person enables them
    Disable(SymbolsArgs),
    /// Observe every pair of some coins that the venue lists
    Sync(SyncArgs),
}

/// Which symbols.
#[derive(Debug, Clone, Args)]
pub(crate) struct SymbolsArgs {
    /// Symbols, such as BTCUSDT
    #[arg(required = true, value_parser = symbol)]
    pub(crate) symbols: Vec<String>,
}

/// Options of `market universe sync`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SyncArgs {
    /// Coins, such as BTC
    #[arg(required = true, value_parser = symbol)]
    pub(crate) coins: Vec<String>,
    /// Coin that all of them are quoted in, too
    #[arg(long, value_name = "COIN", default_value = "USDT", value_parser = symbol)]
    pub(crate) quote: String,
    /// Leave what the venue does not list of them as it is
    #[arg(long)]
    pub(crate) keep: bool,
    /// Only store what the venue lists, for a look; change nothing
    #[arg(long)]
    pub(crate) preview: bool,
}

/// Options of `market windows`.
#[derive(Debug, Clone, Args)]
pub(crate) struct WindowsArgs {
    /// Only those that are not complete
    #[arg(long)]
    pub(crate) incomplete: bool,
    /// Begun within this time
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = duration)]
    pub(crate) within: Millis,
    /// At most this many, newest first
    #[arg(long, value_name = "N", default_value = "50",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// `market flags ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum FlagsCommand {
    /// List the schemas
    List,
    /// Say that a schema is open
    Open {
        /// Schema
        schema: String,
    },
    /// Say that a schema is closed
    Close {
        /// Schema
        schema: String,
    },
}

/// `market sessions ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SessionsCommand {
    /// List the newest
    List {
        /// At most this many
        #[arg(long, value_name = "N", default_value = "20",
              value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
    },
    /// Show one
    Show {
        /// Its number
        id: i64,
    },
    /// Open one with the account's balances
    #[command(
        after_long_help = "Examples:\n  watchbell market sessions open --label 1h\n  watchbell \
              market sessions open --owner ada --mode parity"
    )]
    Open(OpenArgs),
    /// Close one, and sum it up
    Close(CloseArgs),
}

/// Options of `market sessions open`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OpenArgs {
    /// Whose [default: $USER, or somebody]
    #[arg(long, value_name = "WHO")]
    pub(crate) owner: Option<String>,
    /// Label of its windows
    #[arg(long, value_name = "LABEL", default_value = "1h", value_parser = duration)]
    pub(crate) label: Millis,
    /// What it holds, as ASSET=UNITS; may be given several times [default: what the account holds]
    #[arg(long, value_name = "ASSET=UNITS", value_parser = balance)]
    pub(crate) balance: Vec<(String, String)>,
    /// How trades are booked
    #[arg(long, default_value = "ledger", value_parser = ["ledger", "parity"])]
    pub(crate) mode: String,
    /// A remark
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

/// Options of `market sessions close`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CloseArgs {
    /// Its number
    pub(crate) id: i64,
    /// Close it although trades could not be booked
    #[arg(long)]
    pub(crate) accept_unbooked: bool,
    /// Try again a close that failed
    #[arg(long)]
    pub(crate) retry: bool,
}

/// `market ledger ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Import account trades from a CSV file; what is there already stays as it is
    Import {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Options of `market backfill`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BackfillArgs {
    /// Symbol
    #[arg(value_parser = symbol)]
    pub(crate) symbol: String,
    /// First instant
    #[arg(value_parser = time)]
    pub(crate) from: Time,
    /// End, exclusive
    #[arg(value_parser = time)]
    pub(crate) to: Time,
    /// Only tell what would be computed
    #[arg(long, visible_alias = "dry-run")]
    pub(crate) preview: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) no_wait: bool,
}

fn time(text: &str) -> Result<Time, String> {
    Time::parse(text)
}

fn duration(text: &str) -> Result<Millis, String> {
    Millis::parse(text)
}

fn balance(text: &str) -> Result<(String, String), String> {
    let (asset, units) = text.split_once('=').ok_or("use ASSET=UNITS, such as BTC=0.5")?;
    if units.is_empty() || !units.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(format!("`{units}` is no amount: use digits, such as BTC=0.5"));
    }
    Ok((symbol(asset)?, units.to_owned()))
}

fn symbol(text: &str) -> Result<String, String> {
    let plain = text.trim().to_ascii_uppercase();
    if !plain.is_empty() && plain.chars().all(|c| c.is_ascii_alphanumeric()) {
        Ok(plain)
    } else {
        Err(format!("`{text}` is no symbol: use letters and digits, such as BTCUSDT"))
    }
}
