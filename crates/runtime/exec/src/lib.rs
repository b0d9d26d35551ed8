//! Workers that are programs: any language, environment in, JSON lines out.
//!
//! An [`ExecWorker`] runs a program for each cycle, in a process group of its own:
//!
//! - what the cycle is about is in its environment, and its input (a job's payload, an event, a
//!   window's scope) is a file that is also its standard input;
//! - on standard output it prints JSON lines: progress, events, jobs, covers, a summary
//!   ([`line::Line`]). They are gathered into the one commit of the cycle, which is published only
//!   when the program ends with success. The lines of a stream, which is not meant to end, are
//!   published as they come;
//! - everything else that it prints goes to a log file of the worker, rotated by size;
//! - asked to stop, the group hears TERM; out of time, KILL. Nothing of the group outlives its
//!   leader;
//! - its exit code is the outcome ([`exit`]).
//!
//! Each running program has a record in `DATA_DIR/run`, so that a supervisor that died leaves
//! nothing unknown: the next one takes a stream's program over where that is configured, and the
//! [`Reaper`] ends and reports all others. A process whose start time or boot differs from the
//! record is never touched.
//!
//! [`Programs`] is what the workers of a node share.

pub mod exit;
mod handle;
mod input;
pub mod line;
mod log;
mod output;
mod proc;
mod program;
mod programs;
mod reaper;
mod record;
mod source;
mod spec;
mod watcher;
mod worker;

pub use log::LogPolicy;
pub use programs::Programs;
pub use reaper::{EXEC_REAPER, Reaped, Reaper};
pub use spec::{OnOrphan, Spec};
pub use worker::ExecWorker;
