//! A PostgreSQL server to measure on: one of our own with PostgreSQL's defaults, or a given one.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};
use watchbell_clock::Clock;
use watchbell_core::Millis;

/// How long a server may take to answer for the first time, and to end.
const PATIENCE: Millis = Millis::from_secs(30);
/// The database of every measurement; it is made anew for each.
pub const DATABASE: &str = "watchbell_bench";

/// A server, and the databases that were made on it.
pub struct Server {
    url: String,
    own: Option<Own>,
}

/// A server of our own, which ends with us.
struct Own {
    child: Child,
    _dir: TempDir,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("own", &self.own.is_some()).finish_non_exhaustive()
    }
}

impl Server {
    /// A given server. The role of `url` must be allowed to make databases and to checkpoint.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), own: None }
    }

    /// A new one in a temporary directory on a free port of the loopback; as root it runs as the
    /// user `postgres`. Every setting is PostgreSQL's default.
    ///
    /// # Errors
    /// When PostgreSQL's programs are not installed or do not start.
    pub async fn start(clock: &Clock) -> anyhow::Result<Self> {
        let programs = programs()?;
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let user = other_user()?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid))?;
        }
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(dir.path()).stdin(Stdio::null());
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let data = dir.path().join("data");
        let made = command("initdb")
            .arg("--pgdata")
            .arg(&data)
            .args(["--username", "bench", "--auth", "trust", "--encoding", "UTF8"])
            .args(["--locale", "C.UTF-8"])
            .output()
            .context("cannot start initdb")?;
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        anyhow::ensure!(made.status.success(), "initdb failed: {}", said.trim());

        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(dir.path().join("log"))?;
        let child = command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-k"])
            .arg(dir.path())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start postgres")?;
        let url = format!("postgres://bench@127.0.0.1:{port}/postgres");
        let log = dir.path().join("log");
        let mut server = Self { url, own: Some(Own { child, _dir: dir }) };
        let give_up = clock.now() + PATIENCE;
        while let Err(error) = server.connect("postgres").await {
            let ended = server.own.as_mut().and_then(|own| own.child.try_wait().transpose());
            if ended.is_some() || clock.now() > give_up {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(error.context(format!("postgres did not start: {}", log.trim())));
            }
            clock.sleep(Millis(20)).await;
        }
        Ok(server)
    }

    /// Where a database of this server is.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let (address, options) = match self.url.split_once('?') {
            Some((address, options)) => (address, format!("?{options}")),
            None => (self.url.as_str(), String::new()),
        };
        let scheme = address.find("://").map_or(0, |at| at + 3);
        let host = address[scheme..].find('/').map_or(address, |at| &address[..scheme + at]);
        format!("{host}/{database}{options}")
    }

    /// A connection to a database.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn connect(&self, database: &str) -> anyhow::Result<Client> {
        connect(&self.url(database)).await
    }

    /// Makes [`DATABASE`] anew and returns its address.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn fresh(&self) -> anyhow::Result<String> {
        let client = self.connect("postgres").await?;
        client.execute(&format!("drop database if exists {DATABASE} with (force)"), &[]).await?;
        client.execute(&format!("create database {DATABASE}"), &[]).await?;
        client.execute("checkpoint", &[]).await?;
        Ok(self.url(DATABASE))
    }

    /// Removes [`DATABASE`].
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn clean(&self) -> anyhow::Result<()> {
        let client = self.connect("postgres").await?;
        client.execute(&format!("drop database if exists {DATABASE} with (force)"), &[]).await?;
        Ok(())
    }

    /// Gathers statistics of [`DATABASE`] and writes a checkpoint, as before each drain.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn settle(&self) -> anyhow::Result<()> {
        let client = self.connect(DATABASE).await?;
        client.execute("analyze", &[]).await?;
        client.execute("checkpoint", &[]).await?;
        Ok(())
    }

    /// Transactions of [`DATABASE`] so far, as the server has counted them. The counts of an idle
    /// session are up to ten seconds behind.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn transactions(&self) -> anyhow::Result<i64> {
        let client = self.connect("postgres").await?;
        let sql = "select xact_commit + xact_rollback from pg_stat_database where datname = $1";
        Ok(client.query_one(sql, &[&DATABASE]).await?.get(0))
    }

    /// Version and the settings that durability depends on, in one line.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn describe(&self) -> anyhow::Result<String> {
        let client = self.connect("postgres").await?;
        let show = async |name: &str| -> anyhow::Result<String> {
            Ok(client.query_one(&format!("show {name}"), &[]).await?.get(0))
        };
        Ok(format!(
            "PostgreSQL {}, fsync {}, synchronous_commit {}, shared_buffers {}",
            show("server_version").await?,
            show("fsync").await?,
            show("synchronous_commit").await?,
            show("shared_buffers").await?,
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(own) = &mut self.own {
            // A fast shutdown; a server that is gone already needs none.
            let asked = Command::new("kill").args(["-INT", &own.child.id().to_string()]).status();
            if !asked.is_ok_and(|status| status.success()) {
                drop(own.child.kill());
            }
            drop(own.child.wait());
        }
    }
}

/// A connection, with the task that serves it.
///
/// # Errors
/// When the server refuses.
pub async fn connect(url: &str) -> anyhow::Result<Client> {
    let config = Config::from_str(url).context("the server's address is not one")?;
    let (client, connection) = config.connect(NoTls).await.context("cannot connect")?;
    tokio::spawn(async move {
        // Whoever uses the client hears of a broken connection.
        drop(connection.await);
    });
    Ok(client)
}

/// Where PostgreSQL's programs are.
fn programs() -> anyhow::Result<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|e| e.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    places.extend(versions.into_iter().rev());
    places.push(PathBuf::from("/usr/local/pgsql/bin"));
    let both = |place: &Path| place.join("initdb").exists() && place.join("postgres").exists();
    places.into_iter().find(|place| both(place)).context(
        "there is no PostgreSQL here: install its server programs, or name a server with --url",
    )
}

/// The user that the server runs as, where this process may not run it itself: root.
fn other_user() -> anyhow::Result<Option<(u32, u32)>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:"));
    let effective = uid.and_then(|l| l.split_whitespace().nth(1)).unwrap_or("");
    if effective != "0" {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    for name in ["postgres", "nobody"] {
        let fields = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name));
        if let Some([_, _, uid, gid, ..]) = fields.as_deref() {
            return Ok(Some((uid.parse()?, gid.parse()?)));
        }
    }
    anyhow::bail!("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_takes_the_place_of_another_in_the_address() {
        for (url, expected) in [
            ("postgres://a@h:1/postgres", "postgres://a@h:1/x"),
            ("postgres://a@h:1", "postgres://a@h:1/x"),
            ("postgresql://h/d?sslmode=disable", "postgresql://h/x?sslmode=disable"),
        ] {
            assert_eq!(Server::at(url).url("x"), expected);
        }
    }
}
