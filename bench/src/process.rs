//! Processes that a measurement starts, and that end with it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use watchbell_clock::Clock;
use watchbell_core::Millis;

/// How long a start or a stop may take before the measurement is given up.
pub const PATIENCE: Millis = Millis::from_secs(60);

/// A process that we started, and that ends with us.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it; what it says is added to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started, or the file not be written.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(mut self, clock: &Clock) -> anyhow::Result<()> {
        let asked = Command::new("kill").args(["-INT", &self.id().to_string()]).status()?;
        anyhow::ensure!(asked.success(), "cannot interrupt process {}", self.id());
        let give_up = clock.now() + PATIENCE;
        while self.ended()?.is_none() {
            anyhow::ensure!(clock.now() < give_up, "process {} did not stop", self.id());
            clock.sleep(Millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already needs no end; nobody is left to hear of another failure.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
