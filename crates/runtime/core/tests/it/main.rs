//! Behaviour of the pure core through its public interface.

mod schedule;
mod simulated_scheduler;
mod states;
