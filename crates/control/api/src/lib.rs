//! The control plane's contract: what one can ask of Watchbell, and what it answers.
//!
//! [`Control`] is the contract. There are two implementations with the same answers: the one over
//! the store (and the engine, when it runs in the same process), and [`HttpControl`], which asks a
//! running node over HTTP. The HTTP server turns requests into calls of the first and serialises
//! what it returns; the command line takes either and cannot tell which it has.
//!
//! - [`status`]: the answers to "how is it going?";
//! - [`request`]: what an operator asks for, and the reports on it;
//! - [`error`]: the one error type, with its exit codes, HTTP statuses and problem document;
//! - [`client`], which is [`HttpControl`];
//! - [`discovery`]: how a command finds the node that serves a data directory.

pub mod client;
pub mod discovery;
pub mod error;
pub mod request;
pub mod status;

mod control;

pub use client::HttpControl;
pub use control::{Control, Result};
pub use error::{ControlError, Problem, Reason};
pub use request::{
    ActBody, ActRequest, Action, BackfillLine, BackfillReport, BackfillRequest, EmitRequest,
    Emitted, RunOptions, RunReport, RunRequest, Verdict, VerifyReport, VerifyRequest, WindowRef,
};
pub use status::{
    DaemonLine, DaemonStatus, DaemonSummary, DefinitionText, Level, NodeInfo, Notice, Readiness,
    ReadyCheck, ScheduleLine, Status, StoreInfo, VenueLine, WindowPolicy, WorkerDetail,
    WorkerHealth, WorkerLine, WorkersHealth,
};
