//! Signal scans over the markets of a few exchanges.
//!
//! A scan reads bars and books of a universe of symbols ([`input`]), scores each against the others,
//! and lets those pass that meet every gate; what it publishes tells of every symbol why. The
//! computation is a pure function of what was read and of the instant.

pub mod bars;
pub mod csv;
pub mod decimal;
pub mod explain;
pub mod factors;
pub mod gates;
pub mod indicators;
pub mod input;
pub mod micro;
pub mod momentum;
pub mod pipeline;
pub mod premove;
pub mod regime;
pub mod settings;
pub mod universe;
pub mod vadr;
mod verdict;
