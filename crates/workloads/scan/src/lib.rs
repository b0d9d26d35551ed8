//! Signal scans over the markets of a few exchanges.
//!
//! A scan reads bars and books of a universe of symbols ([`input`]), scores each against the others,
//! and lets those pass that meet every gate; what it publishes tells of every symbol why. The
//! computation is a pure function of what was read and of the instant ([`pipeline`], [`regime`]); the
//! workers around it read, keep what may be used again, and publish ([`run`]). [`config`] is what they
//! are told, [`view`] what commands show of them.

pub mod bars;
pub mod config;
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
pub mod run;
mod schema;
pub mod settings;
pub mod universe;
pub mod vadr;
mod verdict;
pub mod view;

pub use config::Config;
pub use run::{definitions, workers};
pub use schema::LINE;
