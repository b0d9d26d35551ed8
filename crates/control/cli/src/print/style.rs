//! Colours, or none.

/// How text is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// With colours.
    Colour,
}

/// What a piece of text says about the thing: decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Look at it some time.
    Warn,
    /// Look at it now.
    Bad,
    /// Not the point here.
    Faint,
    /// The point here.
    Strong,
}

impl Style {
    /// Dresses text.
    #[must_use]
    pub fn paint(self, text: &str, tone: Tone) -> String {
        let code = match (self, tone) {
            (Self::Plain, _) | (_, Tone::Plain) => return text.to_owned(),
            (Self::Colour, Tone::Good) => "32",
            (Self::Colour, Tone::Warn) => "33",
            (Self::Colour, Tone::Bad) => "1;31",
            (Self::Colour, Tone::Faint) => "2",
            (Self::Colour, Tone::Strong) => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// All is well.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint(text, Tone::Good)
    }
    /// Look at it now.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint(text, Tone::Bad)
    }
    /// Not the point here.
    #[must_use]
    pub fn faint(self, text: &str) -> String {
        self.paint(text, Tone::Faint)
    }
    /// The point here.
    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.paint(text, Tone::Strong)
    }
}
