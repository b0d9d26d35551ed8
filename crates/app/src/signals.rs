//! SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use watchbell_api::ControlError;

/// Whether somebody asked this process to stop.
#[derive(Debug, Clone)]
pub(crate) struct Signals(watch::Receiver<bool>);

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, ControlError> {
        let failed =
            |e: std::io::Error| ControlError::internal("cannot listen for signals").because(&e);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (tx, rx) = watch::channel(false);
        tokio::spawn(async move {
            let mut asked = false;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if asked {
                    // Nothing is half done by this: what is not committed does not exist.
                    std::process::exit(130);
                }
                asked = true;
                tracing::info!("stopping; once more to stop at once");
                // Nobody may be waiting yet, and will see it when they do.
                tx.send_replace(true);
            }
        });
        Ok(Self(rx))
    }

    /// Waits until a stop is asked for.
    pub(crate) async fn stop(&self) {
        let mut asked = self.0.clone();
        // An error means that the listener is gone, and the process with it.
        drop(asked.wait_for(|asked| *asked).await);
    }
}
