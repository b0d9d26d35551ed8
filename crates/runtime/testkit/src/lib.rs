//! For tests only: throw-away databases, waits on facts, fixtures.

use std::fmt;
use std::future::Future;

use tempfile::TempDir;
use watchbell_clock::Clock;
use watchbell_core::port::{Registration, SessionRecord};
use watchbell_core::{Millis, SessionId, Time};
use watchbell_db::{Database, Line, Options};

/// The present of tests that have no clock: 2026-11-22T03:00:00Z, a whole hour.
pub const NOW: Time = Time(1_795_316_400_000);

/// How long [`until`] waits in real time before it gives up.
const PATIENCE: Millis = Millis::from_secs(20);

/// A database in a temporary directory that goes with it.
#[derive(Debug)]
pub struct TempDb {
    /// The database.
    pub db: Database,
    options: Options,
    dir: TempDir,
}

impl TempDb {
    /// A new SQLite file with `lines` applied at [`NOW`].
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn sqlite(lines: &[Line]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new(dir.path().join("watchbell.db"));
        let db = Database::open(&options).expect("a new database");
        db.migrate(lines, NOW).await.expect("the migrations apply to an empty database");
        Self { db, options, dir }
    }

    /// The same file through another handle, as a second process would have it.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn second(&self) -> Database {
        Database::open(&self.options).expect("the database opens a second time")
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

/// Asks `probe` again and again until its fact satisfies `holds`, and returns it.
///
/// # Panics
/// After 20 seconds, with the fact that was seen last.
pub async fn until<T, F>(what: &str, mut probe: impl FnMut() -> F, holds: impl Fn(&T) -> bool) -> T
where
    T: fmt::Debug,
    F: Future<Output = T>,
{
    let clock = Clock::system();
    let give_up = clock.now() + PATIENCE;
    let mut pause = Millis(1);
    loop {
        let seen = probe().await;
        if holds(&seen) {
            return seen;
        }
        assert!(clock.now() < give_up, "waited {PATIENCE} for {what}; last seen: {seen:?}");
        clock.sleep(pause).await;
        pause = Millis((pause.0 * 2).min(50));
    }
}

/// A boot named `id` at `at`.
#[must_use]
pub fn session(id: &str, at: Time) -> SessionRecord {
    SessionRecord {
        id: SessionId::from(id),
        app_name: "watchbell".to_owned(),
        app_version: "0.0.0-test".to_owned(),
        host: "testhost".to_owned(),
        pid: 1,
        opened_at: at,
        closed_at: None,
        note: "test".to_owned(),
    }
}

/// A worker named `name` that subscribes to nothing.
#[must_use]
pub fn registration(name: &str) -> Registration {
    Registration {
        name: name.into(),
        description: format!("the {name} of a test"),
        trigger: "manual".to_owned(),
        stale_after: None,
        subscribes: Vec::new(),
        unavailable: None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_when_its_fact_holds() {
        let asked = Cell::new(0);
        let probe = || async {
            asked.set(asked.get() + 1);
            asked.get()
        };
        assert_eq!(until("three questions", probe, |n| *n == 3).await, 3);
    }

    #[tokio::test]
    async fn a_database_has_two_handles() {
        let temp = TempDb::sqlite(&[]).await;
        assert!(temp.dir().join("watchbell.db").exists());
        temp.second().query("select 1", vec![]).await.unwrap();
    }
}
