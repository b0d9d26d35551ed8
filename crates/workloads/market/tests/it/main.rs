//! The market's workers against the venue simulator, on a clock that the test moves.

mod sync;
mod world;
