//! For tests only: throw-away databases and servers, waits on facts, fixtures.

mod cluster;

use std::fmt;
use std::future::Future;

use tempfile::TempDir;
use watchbell_clock::Clock;
use watchbell_core::port::{Registration, SessionRecord};
use watchbell_core::{Millis, SessionId, Time};
use watchbell_db::{Database, Line, Options, ServerOptions};

pub use cluster::{Cluster, postgres_is_wanted};

/// The present of tests that have no clock: 2026-11-22T03:00:00Z, a whole hour.
pub const NOW: Time = Time(1_795_316_400_000);

/// How long [`until`] waits in real time before it gives up.
const PATIENCE: Millis = Millis::from_secs(20);

/// A throw-away database, gone with this value: a SQLite file, or a database on a PostgreSQL server
/// that the tests of a process share.
#[derive(Debug)]
pub struct TempDb {
    /// The database.
    pub db: Database,
    home: Home,
    /// Goes after the handle.
    _on_server: Option<OnServer>,
    dir: TempDir,
}

#[derive(Debug)]
enum Home {
    File(Options),
    Server(ServerOptions),
}

/// A database on the shared server.
#[derive(Debug)]
struct OnServer(String);

impl Drop for OnServer {
    fn drop(&mut self) {
        // A test that failed may have left the server in any state.
        if !std::thread::panicking() {
            cluster::shared().drop_database(&self.0);
        }
    }
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
        Self { db, home: Home::File(options), _on_server: None, dir }
    }

    /// A new database on PostgreSQL with `lines` applied at [`NOW`]. It goes by its callers' clock,
    /// as a file does.
    ///
    /// # Panics
    /// When it cannot be made: PostgreSQL is not installed, say.
    pub async fn postgres(lines: &[Line]) -> Self {
        Self::postgres_with(lines, |options| options.caller_clock = true).await
    }

    /// The same with other options than the defaults.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn postgres_with(lines: &[Line], set: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = tokio::task::spawn_blocking(|| {
            let cluster = cluster::shared();
            let name = cluster.create_database();
            (cluster.url(&name), OnServer(name))
        });
        let (url, on_server) = made.await.expect("a database on the shared server");
        let mut options = ServerOptions::new(url);
        set(&mut options);
        let db = Database::connect(&options).await.expect("a new database");
        db.migrate(lines, NOW).await.expect("the migrations apply to an empty database");
        Self { db, home: Home::Server(options), _on_server: Some(on_server), dir }
    }

    /// The same database through another handle, as a second process would have it.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn second(&self) -> Database {
        match &self.home {
            Home::File(options) => {
                Database::open(options).expect("the database opens a second time")
            }
            Home::Server(options) => {
                Database::connect(options).await.expect("the server takes a second handle")
            }
        }
    }

    /// How the server is reached; `None` for a file.
    #[must_use]
    pub const fn server(&self) -> Option<&ServerOptions> {
        match &self.home {
            Home::File(_) => None,
            Home::Server(options) => Some(options),
        }
    }

    /// A directory of its own; that of the file, where it is one.
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
        kinds: Vec::new(),
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
        temp.second().await.query("select 1", vec![]).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_makes_databases() {
        if !postgres_is_wanted() {
            return;
        }
        let (a, b) = tokio::join!(TempDb::postgres(&[]), TempDb::postgres(&[]));
        assert_ne!(a.db.location(), b.db.location());
        a.second().await.query("select ops.now_ms(1)", vec![]).await.unwrap();
    }
}
