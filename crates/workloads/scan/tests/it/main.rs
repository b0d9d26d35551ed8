//! Scans against simulated exchanges, on virtual time.

mod scans;
mod world;
