//! The gates that a symbol has to pass, in their order, and the words for each verdict (section 6.2).

use serde::Serialize;

/// A gate's verdict. What has no value, or none that is a number, fails.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// Whether it blocks an entry, or is told only.
    pub enforced: bool,
    /// The verdict; none where it was not evaluated.
    pub passed: Option<bool>,
    /// What was measured, not rounded.
    pub value: Option<f64>,
    /// What it was compared with.
    pub threshold: Option<f64>,
    /// How: the value is to be this of the threshold.
    pub op: &'static str,
    /// Why it failed, or a word for how it passed.
    pub reason: String,
}

impl Gate {
    /// Whether it blocks.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.enforced && self.passed == Some(false)
    }
}
