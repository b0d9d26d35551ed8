//! Throw-away PostgreSQL servers, made from the installed programs.
//!
//! A server lives in a temporary directory and listens on a free port of the loopback. A small shell
//! stands between it and the test: it holds the reading end of a pipe, so that it notices when the
//! test's process ends, however that happens; it then ends the server and removes the directory.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Reads orders, one a line, and answers each with one line.
const WATCHER: &str = r#"
trap '' INT HUP TERM
dir=$1 bin=$2 port=$3
cd "$dir" || exit 1
start() {
  "$bin/postgres" -D "$dir/data" -p "$port" -k "$dir" -c listen_addresses=127.0.0.1 \
    -c max_connections=200 -c shared_buffers=64MB -c max_wal_size=256MB -c log_line_prefix='%m %p ' \
    >>"$dir/log" 2>&1 </dev/null &
  pid=$!
  tries=0
  until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U watchbell -d postgres; do
    kill -0 $pid 2>/dev/null || { echo failed; return; }
    tries=$((tries + 1))
    [ $tries -lt 1500 ] || { echo failed; return; }
    sleep 0.02
  done
  echo done
}
stop() { kill -$1 $pid 2>/dev/null; wait $pid; echo done; }
"$bin/initdb" -D "$dir/data" -U watchbell --auth=trust --encoding=UTF8 --locale=C --no-sync \
  >"$dir/log" 2>&1 || { echo failed; cat >/dev/null; rm -rf "$dir"; exit 1; }
start
while read -r order; do
  case $order in
    start) start ;;
    fast) stop INT ;;
    immediate) stop QUIT ;;
    freeze) kill -STOP $pid; echo done ;;
    thaw) kill -CONT $pid; echo done ;;
  esac
done
kill -CONT $pid 2>/dev/null
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$dir"
"#;

/// A private PostgreSQL server. It ends with this value, or with the process.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
    watcher: Mutex<Watcher>,
    databases: AtomicU64,
}

#[derive(Debug)]
struct Watcher {
    child: Child,
    /// `None` once the order to end was given.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Whether tests on PostgreSQL are wanted: not where `WATCHBELL_TEST_POSTGRES=off` says so.
#[must_use]
pub fn postgres_is_wanted() -> bool {
    std::env::var_os("WATCHBELL_TEST_POSTGRES").is_none_or(|v| v != "off")
}

/// The folder of the newest installed server.
fn programs() -> PathBuf {
    let all = ["postgres", "initdb", "pg_isready", "createdb", "dropdb", "psql"];
    let holds = |dir: &Path| all.iter().all(|program| dir.join(program).is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A link stands beside its target's other programs.
    let real = |dir: PathBuf| Some(dir.join("postgres").canonicalize().ok()?.parent()?.to_owned());
    let mut found: Vec<PathBuf> =
        std::env::split_paths(&path).filter_map(real).filter(|dir| holds(dir)).collect();
    for root in ["/usr/lib/postgresql", "/usr/local/pgsql"] {
        let root = Path::new(root);
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| (entry.file_name(), entry.path().join("bin")))
            .filter(|(_, bin)| holds(bin))
            .map(|(name, bin)| (name.to_string_lossy().parse().unwrap_or(0), bin))
            .collect();
        versions.sort();
        found.extend(versions.pop().map(|(_, bin)| bin));
        found.extend(Some(root.join("bin")).filter(|bin| holds(bin)));
    }
    found.into_iter().next().unwrap_or_else(|| {
        panic!(
            "PostgreSQL's programs are not installed: run `./test`, which installs Debian's \
             package `postgresql`, or set WATCHBELL_TEST_POSTGRES=off to test SQLite alone"
        )
    })
}

/// The number after a flag of `id`, such as the user's or the group's.
fn id(arguments: &[&str]) -> Option<u32> {
    let out = Command::new("id").args(arguments).output().ok()?;
    if !out.status.success() {
        return None;
    }
    String::from_utf8(out.stdout).ok()?.trim().parse().ok()
}

/// PostgreSQL refuses to run as root: the user and the group that it runs as instead.
fn servant() -> Option<(u32, u32)> {
    (id(&["-u"])? == 0).then_some(())?;
    ["postgres", "nobody"].iter().find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?)))
}

impl Cluster {
    /// Makes a server and starts it. Takes a second or two.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        let bin = programs();
        for _ in 0..5 {
            if let Some(cluster) = Self::try_start(&bin) {
                return cluster;
            }
        }
        panic!("PostgreSQL in {} did not start in five tries", bin.display())
    }

    /// `None` when somebody else took the port first.
    fn try_start(bin: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port of the loopback")
            .port();
        let temp = tempfile::Builder::new()
            .prefix("watchbell-pg-")
            .tempdir()
            .expect("a temporary directory");
        // From here on the watcher removes it.
        let dir = temp.keep();
        let mut command = match servant() {
            None => Command::new("sh"),
            Some((user, group)) => {
                std::os::unix::fs::chown(&dir, Some(user), Some(group))
                    .expect("a directory to give");
                let mut command = Command::new("setpriv");
                command
                    .args([format!("--reuid={user}"), format!("--regid={group}")])
                    .args(["--clear-groups", "sh"]);
                command
            }
        };
        let arguments: [OsString; 6] = [
            "-c".into(),
            WATCHER.into(),
            "watcher".into(),
            dir.clone().into(),
            bin.into(),
            port.to_string().into(),
        ];
        let mut child = command
            .args(arguments)
            .current_dir("/")
            // Not in our group: what interrupts the test does not interrupt the clearing up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell (and `setpriv` for root)");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let watcher = Mutex::new(Watcher { child, orders: Some(orders), answers });
        let (bin, databases) = (bin.to_owned(), AtomicU64::new(0));
        let cluster = Self { dir, bin, port, watcher, databases };
        if cluster.answer() {
            return Some(cluster);
        }
        let log = std::fs::read_to_string(cluster.dir.join("log")).unwrap_or_default();
        eprintln!("PostgreSQL did not start; its log:\n{log}");
        None
    }

    fn watcher(&self) -> std::sync::MutexGuard<'_, Watcher> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) -> bool {
        let mut line = String::new();
        self.watcher().answers.read_line(&mut line).expect("the watcher answers");
        line.trim() == "done"
    }

    fn order(&self, order: &str) {
        let given = self.watcher().orders.as_mut().map(|orders| writeln!(orders, "{order}"));
        assert!(matches!(given, Some(Ok(()))), "the watcher of the server is gone");
        assert!(
            self.answer(),
            "the server did not {order}: see {}",
            self.dir.join("log").display()
        );
    }

    /// The URL of a database on it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://watchbell@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where its programs are, such as `psql`.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.bin
    }

    /// Makes an empty database with a name of its own, and returns the name.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.program("createdb", &["--template=template0", &name]);
        name
    }

    /// Removes a database, and ends the sessions that use it.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn drop_database(&self, name: &str) {
        self.program("dropdb", &["--force", "--if-exists", name]);
    }

    /// Runs SQL with `psql` in a database, and returns what it printed: unaligned, without heads.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.program(
            "psql",
            &["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql],
        )
    }

    fn program(&self, name: &str, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let out = Command::new(self.bin.join(name))
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "watchbell", "-w"])
            .args(arguments)
            .output()
            .expect("a program of PostgreSQL");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{name} {arguments:?} failed: {error}");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Ends the sessions and the server in good order; blocks until it has ended.
    ///
    /// # Panics
    /// When it is stopped already.
    pub fn stop_fast(&self) {
        self.order("fast");
    }

    /// Ends the server as a crash would; blocks until it has ended.
    ///
    /// # Panics
    /// When it is stopped already.
    pub fn stop_immediate(&self) {
        self.order("immediate");
    }

    /// Starts it after a stop; blocks until it accepts connections.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        self.order("start");
    }

    /// Stops it as a crash would, and starts it again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&self) {
        self.stop_immediate();
        self.start_again();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let watcher = self.watcher.get_mut().unwrap_or_else(PoisonError::into_inner);
        watcher.orders = None;
        // Nothing to report to: the watcher clears up by itself.
        drop(watcher.child.wait());
    }
}

/// The server that all tests of this process share.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}
