//! The async shell that carries out core's decisions.
//!
//! [`Node::start`] registers workers and supervises them; [`Runner::attempt`] is the one path by
//! which anything runs: gate, claim, compute, commit. The supervisor is a single task that owns all
//! state and does no I/O; cycles are tasks that report to it; the store is reached through
//! [`watchbell_core::port::Store`] and nothing else.

mod artifacts;
mod cycle;
mod gauge;
pub mod health;
mod host;
mod node;
mod pulse;
mod queue;
mod recorder;
mod slot;
mod supervisor;
mod windows;

pub use artifacts::{ArtifactError, Artifacts, Reconciled};
pub use cycle::{EVENT_ATTEMPTS, Intent, Ran, Rehearsal, Report, Runner, Unit};
pub use gauge::StoreView;
pub use host::{Asked, Signals};
pub use node::{
    Action, Handle, Node, Options, RunningView, StartError, WorkerView, registration,
    rehearse_once, run_once,
};
pub use pulse::NodeView;
pub use watchbell_core::effects::{Effects, matches};
pub use windows::WindowInputs;
