//! The commands of the workloads, beside those that know none.

use clap::Subcommand;

use crate::{market, scan};

/// The commands of the workloads.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Own {
    /// Of the market.
    #[command(flatten)]
    Market(market::Own),
    /// Show what scans found, and why
    #[command(subcommand)]
    Scan(scan::ScanCommand),
}
