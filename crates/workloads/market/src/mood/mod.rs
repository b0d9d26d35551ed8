//! The mood of the market: one coefficient and a class of three characters for each window
//! (section 7).
//!
//! [`formula`] makes a mood of three numbers, [`state`] says what is published of a window (a stable
//! mood, the last stable one again, the neutral one), [`matrix`] reads the matrices' side of it: all
//! three are pure. `inputs` reads what a window's mood is made of, and it is stored rows alone, so a
//! mood can be computed again at any time with the same hashes.

pub mod formula;
mod inputs;
pub mod matrix;
mod refresh;
pub mod state;
mod view;
mod worker;

use watchbell_core::Millis;

pub use formula::{Buckets, Mood, MoodId, Params, ParamsError, Share, Signals};
pub use refresh::MOOD_REFRESH;
pub(crate) use refresh::{Refresh, definition as refresh_definition};
pub use state::{Incoherent, Published, Tier};
pub use view::{LabelMood, MoodState, SymbolMood, moods, symbol_moods};
pub(crate) use worker::{MoodWorker, definition};

/// How moods are made.
#[derive(Debug, Clone, PartialEq)]
pub struct MoodConfig {
    /// The label whose mood stands for the market, where one is asked for without a label.
    pub window: Millis,
    /// Symbols that a mood is made of at most: USDT pairs first, then others, in universe order.
    pub symbol_limit: usize,
    /// Centre and spread of the signals.
    pub params: Params,
}

impl Default for MoodConfig {
    fn default() -> Self {
        Self { window: Millis::from_mins(30), symbol_limit: 12, params: Params::default() }
    }
}

/// The name of the worker and of the series of a label's moods, such as `mood-30m`.
#[must_use]
pub fn series_name(length: Millis) -> String {
    format!("mood-{}", length.exact())
}
