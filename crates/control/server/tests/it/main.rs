//! The server on a real port, over a control with fixed answers.

#[path = "../../../api/tests/fixture/mod.rs"]
mod fixture;

mod http;
mod metrics;
mod same;

use std::net::SocketAddr;
use std::sync::Arc;

use fixture::Fake;
use tokio::sync::oneshot;
use watchbell_api::HttpControl;
use watchbell_core::Millis;
use watchbell_server::{Bound, Options, serve};

/// A server of a fake.
pub(crate) struct Server {
    pub(crate) fake: Arc<Fake>,
    pub(crate) bound: Bound,
    pub(crate) stop: oneshot::Sender<()>,
}

pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

impl Server {
    pub(crate) async fn of(fake: Fake) -> Self {
        Self::with(fake, Options::default()).await
    }

    pub(crate) async fn with(fake: Fake, options: Options) -> Self {
        let fake = Arc::new(fake);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        let bound = serve(ANY_PORT, fake.clone(), options, shutdown).await.unwrap();
        Self { fake, bound, stop }
    }

    pub(crate) fn client(&self) -> HttpControl {
        HttpControl::new(&self.bound.url(), Millis::from_secs(10)).unwrap()
    }
}
