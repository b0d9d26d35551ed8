//! Reading threads: started when first needed, each with its own connection and prepared
//! statements, and handed out most recently used first, so that caches stay warm.

use std::fmt;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::connection::{Connection, Opener};
use crate::error::DbError;

type Task = Box<dyn for<'c> FnOnce(&mut Connection<'c>) + Send>;

/// A bounded set of reading threads.
pub(crate) struct Readers {
    permits: Arc<Semaphore>,
    home: Arc<Home>,
}

/// Where idle threads wait.
struct Home {
    opener: Arc<Opener>,
    idle: Mutex<Vec<Sender<Task>>>,
}

impl Home {
    fn idle(&self) -> MutexGuard<'_, Vec<Sender<Task>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> Result<Sender<Task>, DbError> {
        let raw = self.opener.reader()?;
        let opener = Arc::clone(&self.opener);
        let (seat, tasks) = mpsc::channel::<Task>();
        std::thread::Builder::new()
            .name("db-reader".to_owned())
            .spawn(move || {
                let mut connection = Connection::new(&raw, &opener);
                while let Ok(task) = tasks.recv() {
                    task(&mut connection);
                }
            })
            .map_err(|source| DbError::Io {
                action: "start a reader of",
                path: self.opener.path.clone(),
                source,
            })?;
        Ok(seat)
    }
}

impl Readers {
    pub(crate) fn new(opener: &Arc<Opener>, most: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(most)),
            home: Arc::new(Home { opener: Arc::clone(opener), idle: Mutex::default() }),
        }
    }

    /// Ends the idle threads, and the others when they finish.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.home.idle().clear();
    }

    /// A thread of one's own until the session is dropped.
    pub(crate) async fn lease(&self) -> Result<Session, DbError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| DbError::Closed)?;
        let known = self.home.idle().pop();
        let seat = match known {
            Some(seat) => seat,
            None => self.home.start()?,
        };
        let home = Arc::clone(&self.home);
        let permits = Arc::clone(&self.permits);
        Ok(Session { seat, back: Back { home, permits, _permit: permit } })
    }

    /// Runs one task on a reading thread. The thread itself goes back when the task is done, also
    /// when the caller no longer waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl for<'c> FnOnce(&mut Connection<'c>, &dyn Fn() -> bool) -> Result<T, DbError>
        + Send
        + 'static,
    ) -> Result<T, DbError> {
        let Session { seat, back } = self.lease().await?;
        let (answer, answered) = oneshot::channel();
        let returned = seat.clone();
        let work: Task = Box::new(move |c| {
            let outcome = task(c, &|| answer.is_closed());
            back.receive(returned);
            // The caller may have gone away.
            drop(answer.send(outcome));
        });
        seat.send(work).map_err(|_| DbError::ReaderLost)?;
        answered.await.map_err(|_| DbError::ReaderLost)?
    }
}

/// Returns a thread and the right to one.
struct Back {
    home: Arc<Home>,
    permits: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
}

impl Back {
    fn receive(self, seat: Sender<Task>) {
        if !self.permits.is_closed() {
            self.home.idle().push(seat);
        }
    }
}

/// A reading thread of one's own.
pub(crate) struct Session {
    seat: Sender<Task>,
    back: Back,
}

impl Session {
    /// Runs one task on it.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        task: impl for<'c> FnOnce(&mut Connection<'c>, &dyn Fn() -> bool) -> Result<T, DbError>
        + Send
        + 'static,
    ) -> Result<T, DbError> {
        let (answer, answered) = oneshot::channel();
        let work: Task = Box::new(move |c| {
            let outcome = task(c, &|| answer.is_closed());
            drop(answer.send(outcome));
        });
        self.seat.send(work).map_err(|_| DbError::ReaderLost)?;
        answered.await.map_err(|_| DbError::ReaderLost)?
    }

    /// Ends its transaction and gives the thread back.
    pub(crate) fn finish(self) {
        let Self { seat, back } = self;
        let returned = seat.clone();
        let work: Task = Box::new(move |c| match c.rollback() {
            Ok(()) => back.receive(returned),
            Err(error) => tracing::warn!(%error, "a reader was discarded"),
        });
        // A thread that is gone has nothing to end.
        drop(seat.send(work));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}
