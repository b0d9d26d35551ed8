//! The market's workers against the venue simulator, on a clock that the test moves.

mod cin;
mod engines;
mod matrices;
mod mood;
mod sampling;
mod sync;
mod universe;
mod world;
