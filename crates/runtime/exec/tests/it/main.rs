//! Workers that are programs, tried with small shell scripts: real processes, real signals.

mod adoption;
mod fixture;
mod protocol;
mod stopping;
