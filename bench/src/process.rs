//! Processes that a measurement starts, and that end with it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use watchbell_clock::Clock;
use watchbell_core::Millis;

/// How long a start or a stop may take before the measurement is given up.
pub const PATIENCE: Millis = Millis::from_secs(60);

/// Ends a process when its own input ends, and the input ends with whoever holds the other side. What
/// interrupts a terminal's programs does not reach it.
const GUARD: &str = r#"trap '' INT HUP TERM; read -r _; kill -KILL "$1""#;

/// A process that we started, and that ends with us, however we end: a program that is killed has no
/// time to end others.
#[derive(Debug)]
pub struct Process {
    child: Child,
    guard: Guard,
}

/// A shell that ends the process in our place where we no longer can. Nothing is ever written to its
/// input, which is closed when we are gone.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn of(process: u32) -> anyhow::Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", GUARD, "guard", &process.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start sh")?;
        Ok(Self(shell))
    }

    /// Whom it guards is not its business any more.
    fn dismiss(&mut self) {
        // Before its input ends, which ends the process.
        end(&mut self.0);
    }
}

impl Process {
    /// Starts it; what it says is added to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started, or the file not be written.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = fs::File::options().create(true).append(true).open(log)?;
        let mut child =
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        match Guard::of(child.id()) {
            Ok(guard) => Ok(Self { child, guard }),
            Err(e) => {
                end(&mut child);
                Err(e)
            }
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
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

/// Ends a process at once.
fn end(child: &mut Child) {
    // One that has ended already needs no end; nobody is left to hear of another failure.
    drop(child.kill());
    drop(child.wait());
}

impl Drop for Process {
    fn drop(&mut self) {
        self.guard.dismiss();
        end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn sleeper(dir: &tempfile::TempDir) -> Process {
        Process::start(Command::new("sleep").arg("60"), &dir.path().join("log")).unwrap()
    }

    #[test]
    fn a_process_ends_when_we_are_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(&dir);
        // The system closes our side when we end, however that is.
        drop(process.guard.0.stdin.take());
        assert_eq!(process.child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_guard_that_is_dismissed_ends_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(&dir);
        process.guard.dismiss();
        let asked = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
        assert!(asked.unwrap().success());
        // The first signal counts.
        assert_eq!(process.child.wait().unwrap().signal(), Some(15));
    }
}
