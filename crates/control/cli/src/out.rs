//! Where commands print.

use std::io::{self, BufRead, IsTerminal, Write};

use serde::Serialize;
use watchbell_api::{ControlError, Problem, Reason};
use watchbell_clock::Clock;

use crate::args::Global;
use crate::print::style::Style;

/// The streams of a command, and how to write on them.
pub struct Out {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Where input comes from.
    pub input: Box<dyn BufRead + Send>,
    /// Somebody is there to answer a question.
    pub asks: bool,
    /// Data is printed as JSON.
    pub json: bool,
    /// Nothing is printed but what was asked for.
    pub quiet: bool,
    /// How data is dressed.
    pub style: Style,
    /// How errors are dressed.
    pub err_style: Style,
    /// The wall, for what is printed again and again.
    pub clock: Clock,
    /// Who is at the keyboard, for the record.
    pub user: String,
    closed: bool,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Out {
    /// The process's own streams: colours only on a terminal, and not where `NO_COLOR` is set.
    #[must_use]
    pub fn process(global: &Global) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let style = |terminal: bool| if terminal && !plain { Style::Colour } else { Style::Plain };
        let name = |key| std::env::var(key).ok().filter(|n| !n.is_empty());
        let user = name("USER").or_else(|| name("LOGNAME"));
        Self {
            style: style(io::stdout().is_terminal()),
            err_style: style(io::stderr().is_terminal()),
            user: user.unwrap_or_else(|| "somebody".to_owned()),
            input: Box::new(io::BufReader::new(io::stdin())),
            asks: io::stdin().is_terminal() && io::stderr().is_terminal(),
            ..Self::to(Box::new(io::stdout()), Box::new(io::stderr()), global)
        }
    }

    /// Other streams, without colours, without input, and with nobody to answer.
    #[must_use]
    pub fn to(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, global: &Global) -> Self {
        Self {
            out,
            err,
            input: Box::new(io::empty()),
            asks: false,
            json: global.json,
            quiet: global.quiet,
            style: Style::Plain,
            err_style: Style::Plain,
            clock: Clock::system(),
            user: "somebody".to_owned(),
            closed: false,
        }
    }

    /// Whether the reader has gone: then there is no use in printing on.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Prints text as it is.
    pub fn text(&mut self, text: &str) {
        if self.closed {
            return;
        }
        // A reader that closes early (`| head`) is no failure of ours; nor is there anyone left to
        // tell about any other.
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        self.closed = written.is_err();
    }

    /// Prints a line.
    pub fn line(&mut self, text: &str) {
        self.text(&format!("{text}\n"));
    }

    /// Prints data: as JSON where that was asked for, else as `form` writes it.
    ///
    /// # Errors
    /// When the value has no JSON form.
    pub fn data<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        form: impl FnOnce(&T, Style) -> String,
    ) -> Result<(), ControlError> {
        if self.json {
            let text = serde_json::to_string_pretty(value);
            let text = text.map_err(|e| ControlError::internal("no JSON form").because(&e))?;
            self.line(&text);
        } else {
            self.text(&form(value, self.style));
        }
        Ok(())
    }

    /// Prints data on one line of its own: for streams of values.
    ///
    /// # Errors
    /// When the value has no JSON form.
    pub fn data_line<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        form: impl FnOnce(&T, Style) -> String,
    ) -> Result<(), ControlError> {
        let text = if self.json {
            let text = serde_json::to_string(value);
            text.map_err(|e| ControlError::internal("no JSON form").because(&e))?
        } else {
            form(value, self.style)
        };
        self.line(&text);
        Ok(())
    }

    /// Prints a remark on the error stream, unless only data was asked for.
    pub fn remark(&mut self, text: &str) {
        if !self.quiet {
            self.err_text(&format!("{text}\n"));
        }
    }

    /// Asks for a yes on the error stream. Anything else, and no answer, is a no.
    pub fn confirm(&mut self, question: &str) -> bool {
        self.err_text(&format!("{question} [y/N] "));
        let mut answer = String::new();
        // An answer that cannot be read is none.
        let read = self.input.read_line(&mut answer);
        read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }

    /// Prints an error: what failed, what lies behind it, what to do.
    pub fn error(&mut self, error: &ControlError) {
        if self.json
            && let Ok(text) = serde_json::to_string_pretty(&Problem::from(error))
        {
            self.err_text(&format!("{text}\n"));
            return;
        }
        self.failure(&error.reason());
    }

    /// Prints an error that no control gave.
    pub fn failure(&mut self, reason: &Reason) {
        let text = failure(reason, self.err_style);
        self.err_text(&text);
    }

    fn err_text(&mut self, text: &str) {
        // Nobody reads the error stream: there is no third one to say so on.
        drop(self.err.write_all(text.as_bytes()).and_then(|()| self.err.flush()));
    }
}

/// An error, its causes and its remedy, as people read them.
#[must_use]
pub fn failure(reason: &Reason, style: Style) -> String {
    let mut text = format!("{} {}\n", style.bad("error:"), reason.text);
    for cause in &reason.causes {
        text.push_str(&format!("  because: {cause}\n"));
    }
    if let Some(help) = &reason.help {
        text.push_str(&format!("{} {help}\n", style.good("help:")));
    }
    text
}
