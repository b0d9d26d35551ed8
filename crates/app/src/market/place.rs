//! Where a command of the market works: beside a node that runs, or alone.

use watchbell_api::{Control, ControlError, HttpControl, discovery};
use watchbell_core::{BoxFuture, Millis, Time, WorkerName};
use watchbell_db::Database;
use watchbell_market::ops::Outside;
use watchbell_market::view::Feed;

use super::Result;
use crate::compose;
use crate::config::Config;
use crate::installation::{self, Held, trouble};
use crate::local::LocalControl;

/// The store, who answers for it, and the present.
pub(crate) struct Place {
    who: Who,
    db: Database,
    market: watchbell_market::Config,
    now: Time,
    _held: Option<Held>,
}

enum Who {
    /// The node that serves the data directory.
    Node(HttpControl),
    /// Nobody: this process over the store.
    Alone(Box<LocalControl>),
}

impl Place {
    /// Finds the node of the data directory, or opens its store; to itself where it `writes`.
    pub(crate) async fn find(config: Config, writes: bool) -> Result<Self> {
        let market = compose::market_and_account(&config);
        if let Some(node) = discovery::connect(&config.data_dir, crate::PROBE).await {
            let db = installation::open_beside(&config).await?;
            let now = node.node().await?.now;
            return Ok(Self { who: Who::Node(node), db, market, now, _held: None });
        }
        let held = if writes && config.data_dir.exists() {
            Some(installation::hold(&config.data_dir)?)
        } else {
            None
        };
        // A node that serves no API is known by the directory that it holds.
        let elsewhere = held.is_none() && installation::in_use(&config.data_dir);
        let control = compose::offline(config, elsewhere).await?;
        let (db, now) = (control.db().clone(), control.node().await?.now);
        Ok(Self { who: Who::Alone(Box::new(control)), db, market, now, _held: held })
    }

    /// Closes what was opened.
    pub(crate) async fn leave(&self) -> Result<()> {
        match &self.who {
            Who::Node(_) => self.db.close().await.map_err(|e| trouble(&e)),
            Who::Alone(control) => control.close().await,
        }
    }

    pub(crate) fn control(&self) -> &dyn Control {
        match &self.who {
            Who::Node(node) => node,
            Who::Alone(control) => &**control,
        }
    }

    pub(crate) const fn db(&self) -> &Database {
        &self.db
    }

    /// The present by the clock of the node, or of the market that the store is for.
    pub(crate) const fn now(&self) -> Time {
        self.now
    }

    pub(crate) const fn market(&self) -> &watchbell_market::Config {
        &self.market
    }

    /// Lengths of the windows.
    pub(crate) fn lengths(&self) -> &[Millis] {
        &self.market.windows
    }

    /// Whether a node carries out what is asked for: the one of this directory, or another on the
    /// same store.
    pub(crate) async fn node_runs(&self) -> Result<bool> {
        Ok(match &self.who {
            Who::Node(_) => true,
            Who::Alone(control) => control.nodes().await?.iter().any(|n| !n.overdue),
        })
    }

    /// What only the node knows of the venue.
    pub(crate) async fn ask_about_the_venue(&self, feed: &mut Feed) -> Result<()> {
        let Who::Node(node) = &self.who else { return Ok(()) };
        if let Some(venue) = node.status().await?.venue {
            feed.state = venue.state;
            feed.detail = venue.reason.or_else(|| feed.detail.take());
            feed.weight_used = venue.used_weight.or(feed.weight_used);
            feed.weight_limit = venue.limit;
        }
        Ok(())
    }
}

impl Outside for Place {
    fn api(&self) -> BoxFuture<'_, std::result::Result<String, String>> {
        Box::pin(async {
            let Who::Node(node) = &self.who else {
                return Err("no node serves its API here".to_owned());
            };
            let ready = node.ready().await.map_err(|e| e.reason().text)?;
            let bad = ready.checks.iter().find(|c| !c.ok);
            match bad {
                None => Ok("the node's API answers, and it is ready".to_owned()),
                Some(check) => Err(format!("{} is not ready: {}", check.name, check.detail)),
            }
        })
    }

    fn rehearse<'a>(
        &'a self,
        worker: &'a str,
    ) -> BoxFuture<'a, Option<std::result::Result<serde_json::Value, String>>> {
        Box::pin(async move {
            let options = watchbell_api::RunOptions { dry_run: true, force: false, window: None };
            let request = watchbell_api::RunRequest { worker: WorkerName::from(worker), options };
            match self.control().run(request).await {
                Ok(report) => Some(Ok(report.summary)),
                Err(ControlError::NotFound { .. }) => None,
                Err(e) => Some(Err(e.reason().text)),
            }
        })
    }
}
