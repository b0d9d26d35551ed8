//! Where the server is and how to talk to it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::DbError;

/// How to reach a PostgreSQL server. Its `Debug` form has no password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// `postgres://user:password@host:port/database?sslmode=..`. Modes: `disable`; `prefer` (the
    /// default) and `require`, which encrypt; `verify-full`, which also checks the certificate,
    /// against `sslrootcert=FILE` where that is given and the public authorities otherwise.
    pub url: String,
    /// Connections for queries; half as many more for scans and snapshots.
    pub pool_size: usize,
    /// Connections that commit; one more takes the lists that begin with an advisory lock.
    pub writers: usize,
    /// What the server calls our sessions in `pg_stat_activity`.
    pub application_name: String,
    /// `{now:..}` is the caller's instant instead of the server's: for tests with virtual time,
    /// and for clocks that run faster than the wall.
    pub caller_clock: bool,
    /// A transaction pooler such as PgBouncer is in between: no prepared statements, no settings of
    /// the session, no `listen`.
    pub pooler: bool,
    /// How long to wait for a new connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long to wait for a connection of the pool, in milliseconds.
    pub pool_timeout_ms: u64,
    /// How long one statement of a query or a commit may run, in milliseconds; 0 is no limit. Scans
    /// and snapshots have none.
    pub statement_timeout_ms: u64,
    /// How long a commit waits for a row that another session holds, in milliseconds.
    pub lock_timeout_ms: u64,
    /// How long a transaction of ours may stand idle before the server ends it, in milliseconds.
    pub idle_timeout_ms: u64,
}

impl ServerOptions {
    /// The defaults for a server: eight connections for queries, four that commit, a connection
    /// within 10 s, a statement within 60 s, a row within 10 s.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool_size: 8,
            writers: 4,
            application_name: "watchbell".to_owned(),
            caller_clock: false,
            pooler: false,
            connect_timeout_ms: 10_000,
            pool_timeout_ms: 10_000,
            statement_timeout_ms: 60_000,
            lock_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
        }
    }

    /// Where the database is, without any secret: `host:port/database`.
    ///
    /// # Errors
    /// [`DbError::BadUrl`] when the URL cannot be read.
    pub fn location(&self) -> Result<String, DbError> {
        Ok(location(&Address::parse(&self.url)?.config))
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("url", &self.location().unwrap_or_else(|_| "unreadable".to_owned()))
            .field("pool_size", &self.pool_size)
            .field("writers", &self.writers)
            .field("application_name", &self.application_name)
            .field("caller_clock", &self.caller_clock)
            .field("pooler", &self.pooler)
            .finish_non_exhaustive()
    }
}

/// A URL that was read.
pub(super) struct Address {
    config: Config,
    tls: MakeRustlsConnect,
}

/// What a session is for: its settings follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Short reads.
    Query,
    /// Scans and snapshots.
    Read,
    /// Commits. `lock_ms` is how long they wait for a lock.
    Write { lock_ms: u64 },
    /// Hears notifications.
    Listen,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, DbError> {
        let bad = |detail: &str| DbError::BadUrl { detail: detail.to_owned() };
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if !base.starts_with("postgres://") && !base.starts_with("postgresql://") {
            return Err(bad("it does not begin with postgres://"));
        }
        let (mut verify, mut root, mut rest) = (false, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", "verify-full" | "verify-ca")) => {
                    verify = true;
                    rest.push("sslmode=require");
                }
                Some(("sslmode", "disable" | "prefer" | "require")) => rest.push(pair),
                Some(("sslmode", _)) => {
                    return Err(bad("sslmode is none of disable, prefer, require, verify-full"));
                }
                Some(("sslrootcert", file)) => {
                    verify = true;
                    root = Some(file);
                }
                _ => rest.push(pair),
            }
        }
        // The parser's own words may repeat parts of the text, and so of the password.
        let config: Config = format!("{base}?{}", rest.join("&")).parse().map_err(|_| {
            bad("a part of it is wrong; special characters of a password are written as %XX")
        })?;
        if config.get_hosts().is_empty() {
            return Err(bad("it names no host"));
        }
        if verify && config.get_ssl_mode() != SslMode::Require {
            return Err(bad("sslrootcert needs sslmode=verify-full"));
        }
        let tls = MakeRustlsConnect::new(tls(verify, root.map(Path::new))?);
        Ok(Self { config, tls })
    }

    pub(super) fn location(&self) -> String {
        location(&self.config)
    }

    /// The settings of a connection for this purpose.
    pub(super) fn config(&self, options: &ServerOptions, purpose: Purpose) -> Config {
        let mut config = self.config.clone();
        config
            .application_name(&options.application_name)
            .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
            // A peer that is gone without a word is noticed within a minute.
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(60));
        if options.pooler {
            return config;
        }
        // Given with the start of the session: no further round trip.
        let mut settings = config.get_options().unwrap_or_default().to_owned();
        let mut set = |name: &str, value: &str| {
            settings.push_str(" -c ");
            settings.push_str(name);
            settings.push('=');
            settings.push_str(value);
        };
        set("idle_in_transaction_session_timeout", &options.idle_timeout_ms.to_string());
        if options.caller_clock {
            set("watchbell.clock", "caller");
        }
        let statement = options.statement_timeout_ms.to_string();
        match purpose {
            Purpose::Query => {
                set("default_transaction_read_only", "on");
                set("statement_timeout", &statement);
            }
            Purpose::Read => set("default_transaction_read_only", "on"),
            Purpose::Write { lock_ms } => {
                set("statement_timeout", &statement);
                set("lock_timeout", &lock_ms.to_string());
            }
            Purpose::Listen => {}
        }
        config.options(settings);
        config
    }

    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// A pool of connections, which are made when they are needed.
    pub(super) fn pool(
        &self,
        options: &ServerOptions,
        purpose: Purpose,
        size: usize,
    ) -> Result<Pool, DbError> {
        let manager = Manager::from_config(
            self.config(options, purpose),
            self.tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let connect = Duration::from_millis(options.connect_timeout_ms);
        Pool::builder(manager)
            .max_size(size.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_millis(options.pool_timeout_ms)))
            .create_timeout(Some(connect))
            .recycle_timeout(Some(connect))
            .build()
            .map_err(|e| DbError::BadUrl { detail: e.to_string() })
    }
}

fn location(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) if name.contains(':') => format!("[{name}]"),
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "?".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let name = config.get_dbname().or(config.get_user()).unwrap_or("?");
    format!("{host}:{port}/{name}")
}

/// With `verify` the server's certificate must be signed by a known authority and name the host;
/// without, the connection is encrypted, as `sslmode=require` means elsewhere.
fn tls(verify: bool, root: Option<&Path>) -> Result<ClientConfig, DbError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad = |detail: String| DbError::BadUrl { detail };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?;
    if !verify {
        let trusting = Arc::new(Trusting(provider));
        let builder = builder.dangerous().with_custom_certificate_verifier(trusting);
        return Ok(builder.with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match root {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let wrong = |e: &dyn fmt::Display| bad(format!("sslrootcert {}: {e}", file.display()));
            for certificate in CertificateDer::pem_file_iter(file).map_err(|e| wrong(&e))? {
                let certificate = certificate.map_err(|e| wrong(&e))?;
                roots.add(certificate).map_err(|e| wrong(&e))?;
            }
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes any certificate; the handshake's signatures are still checked.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_has_no_secret() {
        for (url, at) in [
            ("postgres://u:s%40cret@db.example:6543/w?sslmode=disable", "db.example:6543/w"),
            ("postgresql://u:secret@[::1]/w", "[::1]:5432/w"),
            ("postgres://me@localhost", "localhost:5432/me"),
            ("postgres://u:se?cret@h/w", "h:5432/w"),
        ] {
            let options = ServerOptions::new(url);
            assert_eq!(options.location().unwrap(), at);
            assert!(!format!("{options:?}").contains("cret"));
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_it() {
        for url in [
            "mysql://u:secret@h/w",
            "postgres://u:secret@h:port/w",
            "postgres://u:secret@h/w?sslmode=sometimes",
            "postgres://u:secret@h/w?secret=1",
            "postgres://u:secret@h/w?sslrootcert=/none.pem",
            "postgres://u:secret@h/w?sslmode=verify-full&sslrootcert=/none.pem",
        ] {
            let options = ServerOptions::new(url);
            let error = options.location().expect_err(url).to_string();
            assert!(!error.contains("cret@") && !error.contains("secret="), "{error}");
            assert!(!format!("{options:?}").contains("cret"), "{options:?}");
        }
    }
}
