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
    ActBody, ActRequest, Action, BackfillLine, BackfillReport, BackfillRequest, CHANGE_LIMIT,
    EmitRequest, Emitted, JOB_ACTIONS, JobChangeBody, MAX_BULK, RunOptions, RunReport, RunRequest,
    Verdict, VerifyReport, VerifyRequest, WindowChanged, WindowOptions, WindowRef, WindowRequest,
    job_action_word,
};
pub use status::{
    CycleProgress, DaemonLine, DaemonStatus, DaemonSummary, DefinitionText, JobDetail, Level,
    NodeInfo, Notice, QueueLine, Readiness, ReadyCheck, ScheduleLine, Status, StoreAnswers,
    StoreInfo, VenueLine, WindowPolicy, WorkerDetail, WorkerHealth, WorkerLine, WorkersHealth,
};
