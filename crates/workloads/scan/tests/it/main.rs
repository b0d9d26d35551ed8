//! Scans: the computation on data put together by hand, and whole runs against simulated exchanges on
//! virtual time.

mod market;
mod pipeline;
mod scans;
mod world;
