//! The command line: what can be typed, what is printed, and which exit code follows.
//!
//! [`Cli`] is the whole tree of commands. Those that ask or steer something are an [`Ask`], which
//! [`execute()`] carries out over any [`Control`](watchbell_api::Control): a running node's or the
//! store's. The others ([`Task`]) run something in this process; the binary does that, and prints
//! with [`Out`] and [`Progress`] from here. This crate knows no workload: commands of one are a
//! [`Subcommand`](clap::Subcommand) of the binary, which adds them with [`CliWith`] and prints with the
//! same tables, colours and exit codes.
//!
//! With `--json`, every command that prints data prints exactly the value that the control
//! answered, and nothing else; errors are problem documents on the error stream.

pub mod args;
pub mod exit;
pub mod out;
pub mod print;
pub mod progress;

mod cycle;
mod execute;
mod jobs;

pub use args::{Ask, Cli, CliWith, Command, Global, NoMore, Task, TaskWith, completions};
pub use cycle::{exit_of, run_worker};
pub use execute::execute;
pub use exit::Exit;
pub use out::Out;
pub use progress::{Progress, Step};
