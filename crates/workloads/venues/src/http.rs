//! How the HTTP client is built, in one place.

use std::sync::Once;
use std::time::Duration;

static PROVIDER: Once = Once::new();

/// Installs the TLS implementation of this process, once. Without it the first `https` or `wss`
/// connection would panic, for the HTTP library is built without one of its own.
pub fn install_tls() {
    PROVIDER.call_once(|| {
        // An error means that another part of the process installed one first: just as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

/// A client with the limits that every venue gets: 5 s to connect, no redirects (a venue does not
/// redirect; a portal that asks for a password does), and `backstop` on a whole exchange.
///
/// The time limit that a caller sees is the clock's; `backstop` only frees a connection that hangs
/// while the clock of a test stands still.
///
/// # Errors
/// When the user agent is no valid header value, or the system's certificates cannot be read.
pub fn client(user_agent: &str, backstop: Duration) -> Result<reqwest::Client, reqwest::Error> {
    install_tls();
    reqwest::Client::builder()
        .user_agent(user_agent)
        .connect_timeout(Duration::from_secs(5))
        .timeout(backstop)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}
