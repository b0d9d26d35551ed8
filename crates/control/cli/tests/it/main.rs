//! What commands print, compared with files under `tests/golden`. `UPDATE_GOLDEN=1` writes them.

#[path = "../../../api/tests/fixture/mod.rs"]
mod fixture;

mod golden;
mod help;
mod outputs;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::Parser;
use fixture::Fake;
use watchbell_cli::{Cli, Exit, Out, Task, execute};
use watchbell_clock::Clock;

/// A stream that a test can read.
#[derive(Clone, Default)]
pub(crate) struct Paper {
    text: Arc<Mutex<Vec<u8>>>,
    /// The reader has gone.
    pub(crate) gone: bool,
}

impl Paper {
    pub(crate) fn read(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) exit: Exit,
}

/// Types a command, as the binary would carry it out.
pub(crate) async fn typed(line: &str, fake: &Fake) -> Ran {
    typed_with(line, fake, |_| {}).await
}

pub(crate) async fn typed_with(line: &str, fake: &Fake, change: impl FnOnce(&mut Out)) -> Ran {
    let words = line.split_whitespace().map(str::to_owned);
    let cli = Cli::try_parse_from(std::iter::once("watchbell".to_owned()).chain(words))
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    let (paper, errors) = (Paper::default(), Paper::default());
    let mut out = Out::to(Box::new(paper.clone()), Box::new(errors.clone()), &cli.global);
    out.clock = Clock::manual(fixture::NOW);
    out.user = "ada".into();
    change(&mut out);
    let Task::Ask(ask) = Task::from(cli.command) else { panic!("{line} is no question") };
    let exit = match execute(&ask, fake, &mut out).await {
        Ok(exit) => exit,
        Err(error) => {
            out.error(&error);
            Exit::from(&error)
        }
    };
    Ran { out: paper.read(), err: errors.read(), exit }
}
