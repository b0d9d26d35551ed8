//! What can be typed of the scans, beside `schedule`.

use clap::{Args, Subcommand};

/// `scan ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ScanCommand {
    /// Tell from the last run why a symbol is in or out: each gate with its value and threshold
    #[command(
        after_long_help = "Examples:\n  watchbell scan explain BTC/USD\n  watchbell scan explain \
              sol --job scan.warm --json"
    )]
    Explain(ExplainArgs),
    /// List the newest runs: when, how long, what passed, and where their artifacts are
    Runs {
        /// Only this job
        #[arg(long, value_name = "NAME")]
        job: Option<String>,
        /// How many
        #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show the regime that scans weigh by: indicators, votes and weights
    Regime,
    /// Show the symbols by their rank in value traded, and who is left out
    Universe {
        /// Also those that are left out, and why
        #[arg(long)]
        excluded: bool,
    },
}

/// Options of `scan explain`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// The symbol: BTC/USD, or just BTC
    pub(crate) symbol: String,
    /// By the last run of this job [default: the last that looked at it]
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
}
