//! The market's workers against the venue simulator, on a clock that the test moves.

mod acceptance;
mod cin;
mod engines;
mod jobs;
mod keeping;
mod matrices;
mod mea;
mod mood;
mod mortal;
mod outage;
mod sampling;
mod streams;
mod sync;
mod trades;
mod universe;
mod world;
