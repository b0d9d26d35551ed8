//! Pure decisions and contracts of Watchbell: no I/O, no async runtime, no clock of its own.
//!
//! Everything that the system decides is a function of `(state, now)` in this crate, so that
//! production, `explain`, simulation and the tests all run the same code. Read it in this order:
//!
//! 1. [`units`]: instants, durations, names, tokens;
//! 2. [`commit`]: what a cycle publishes, as a value;
//! 3. [`trigger`] and [`schedule`]: what starts a cycle, and when it is due;
//! 4. [`worker`]: what a workload implements;
//! 5. [`port`]: what the engine asks of a store;
//! 6. [`lifecycle`], [`graph`], [`restart`], [`retry`], [`window`], [`job`], [`freshness`],
//!    [`pressure`]: the state machines and policies;
//! 7. [`lane`]: who goes first where only one may run;
//! 8. [`gate`]: why something may not run now;
//! 9. [`math`]: logarithms and the like that are the same to the bit on every machine.

pub mod commit;
pub mod effects;
pub mod freshness;
pub mod gate;
pub mod graph;
pub mod job;
pub mod lane;
pub mod lifecycle;
pub mod math;
pub mod port;
pub mod pressure;
pub mod restart;
pub mod retry;
pub mod schedule;
pub mod trigger;
pub mod units;
pub mod window;
pub mod worker;

pub use commit::{Commit, Condition, Cover, Expect, NewEvent, NewJob, Statement, Value};
pub use effects::Effects;
pub use trigger::{Cause, Missed, QueueSpec, Trigger, WindowInput, WindowSpec};
pub use units::{Bps, CycleId, Frac, Millis, Pct, SeriesName, SessionId, Time, Token, WorkerName};
pub use worker::{
    BoxError, BoxFuture, Cycle, CycleInput, Definition, Done, EventRecord, Fault, Host, Ledger,
    NewArtifact, Refusal, WindowHashes, Worker, chain,
};
