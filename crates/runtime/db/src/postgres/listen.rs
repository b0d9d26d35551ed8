//! Notifications: a connection of its own that comes back by itself.

use std::future::poll_fn;
use std::pin::pin;

use tokio::sync::{mpsc, watch};
use tokio_postgres::{AsyncMessage, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use watchbell_clock::Clock;
use watchbell_core::Millis;

/// Messages that wait for a slow listener before the connection is read no further.
const BUFFER: usize = 256;
/// Pause after the first connection that failed; it doubles.
const PAUSE: Millis = Millis(50);
/// The pause doubles no further.
const DOUBLINGS: u32 = 7;

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// Somebody notified the channel, with this payload.
    Message(String),
    /// The connection listens (again). What was said before is lost: look for yourself.
    Reconnected,
    /// The connection broke; nothing is heard until the next [`Reconnected`](Self::Reconnected).
    Lost,
}

/// What is heard on one channel; see [`Database::listen`](crate::Database::listen).
#[derive(Debug)]
pub struct Notifications(mpsc::Receiver<Notification>);

impl Notifications {
    /// Waits for the next. `None` when the database was closed.
    pub async fn next(&mut self) -> Option<Notification> {
        self.0.recv().await
    }
}

/// One listening task.
pub(super) struct Listener {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    pub(super) server: String,
    /// How long a connection may take to be made.
    pub(super) patience: Millis,
    /// Closed when the database is.
    pub(super) open: watch::Receiver<()>,
}

/// Why a connection ended.
enum End {
    /// Nobody listens any more, or the database was closed.
    Wanted,
    /// It broke. Whether it had listened.
    Broken { listened: bool },
}

impl Listener {
    pub(super) fn start(self, channel: &str) -> Notifications {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let listen = format!("listen \"{}\"", channel.replace('"', "\"\""));
        tokio::spawn(self.serve(listen, sender));
        Notifications(receiver)
    }

    async fn serve(mut self, listen: String, sender: mpsc::Sender<Notification>) {
        let clock = Clock::system();
        let mut failures = 0;
        loop {
            match self.connection(&clock, &listen, &sender).await {
                End::Wanted => return,
                End::Broken { listened } => {
                    if listened {
                        failures = 0;
                        if sender.send(Notification::Lost).await.is_err() {
                            return;
                        }
                    }
                    failures += 1;
                }
            }
            let pause = super::backoff(PAUSE, failures.min(DOUBLINGS));
            tokio::select! {
                () = clock.sleep(pause) => {}
                () = sender.closed() => return,
                _ = self.open.changed() => return,
            }
        }
    }

    /// Listens on one connection until it ends.
    async fn connection(
        &mut self,
        clock: &Clock,
        listen: &str,
        sender: &mpsc::Sender<Notification>,
    ) -> End {
        let mut listened = false;
        let made = tokio::select! {
            made = clock.timeout(self.patience, self.config.connect(self.tls.clone())) => made,
            () = sender.closed() => return End::Wanted,
            _ = self.open.changed() => return End::Wanted,
        };
        let (client, mut connection) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => {
                tracing::debug!(server = self.server, %error, "a listener cannot connect");
                return End::Broken { listened };
            }
            Err(late) => {
                tracing::debug!(server = self.server, %late, "a listener cannot connect");
                return End::Broken { listened };
            }
        };
        let mut asked = pin!(client.batch_execute(listen));
        loop {
            let heard = tokio::select! {
                done = &mut asked, if !listened => match done {
                    Ok(()) => {
                        listened = true;
                        Notification::Reconnected
                    }
                    Err(error) => {
                        tracing::debug!(server = self.server, %error, "a listener was refused");
                        return End::Broken { listened };
                    }
                },
                message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                    Some(Ok(AsyncMessage::Notification(said))) => {
                        Notification::Message(said.payload().to_owned())
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => {
                        tracing::debug!(server = self.server, %error, "a listener lost its connection");
                        return End::Broken { listened };
                    }
                    None => return End::Broken { listened },
                },
                () = sender.closed() => return End::Wanted,
                _ = self.open.changed() => return End::Wanted,
            };
            if sender.send(heard).await.is_err() {
                return End::Wanted;
            }
        }
    }
}
