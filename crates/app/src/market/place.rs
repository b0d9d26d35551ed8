//! Where a command of the market works: beside a node that runs, or alone.

use watchbell_api::{Control, ControlError, HttpControl, RunOptions, RunRequest, discovery};
use watchbell_core::lifecycle::State;
use watchbell_core::{BoxFuture, Millis, Time, WorkerName};
use watchbell_db::Database;
use watchbell_market::ops::Outside;
use watchbell_market::view::Feed;

use super::Result;
use crate::compose;
use crate::config::Config;
use crate::demo::Marker;
use crate::installation::{self, Held, trouble};
use crate::local::LocalControl;

/// The store, who answers for it, and the present.
pub(crate) struct Place {
    who: Who,
    db: Database,
    market: watchbell_market::Config,
    now: Time,
    /// The market is a demonstration's, which has a venue only while it runs.
    demonstrated: bool,
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
        let demonstrated = Marker::read(&config.data_dir)?.is_some();
        let market = compose::market_and_account(&config);
        if let Some(node) = discovery::connect(&config.data_dir, crate::PROBE).await {
            let db = installation::open_beside(&config).await?;
            let now = node.node().await?.now;
            return Ok(Self { who: Who::Node(node), db, market, now, demonstrated, _held: None });
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
        let who = Who::Alone(Box::new(control));
        Ok(Self { who, db, market, now, demonstrated, _held: held })
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
            let ready = node.ready().await.map_err(|e| sentence(&e))?;
            let bad = ready.checks.iter().find(|c| !c.ok);
            match bad {
                None => Ok("the node's API answers, and it is ready".to_owned()),
                Some(check) => Err(format!("{} is not ready: {}", check.name, check.detail)),
            }
        })
    }

    fn has_venue(&self) -> bool {
        !self.demonstrated || matches!(self.who, Who::Node(_))
    }

    fn rehearse<'a>(
        &'a self,
        worker: &'a str,
    ) -> BoxFuture<'a, Option<std::result::Result<serde_json::Value, String>>> {
        Box::pin(async move {
            let name = WorkerName::from(worker);
            match self.control().worker(name.clone()).await {
                // Such as one that needs the key of an account, where none is configured.
                Ok(known) if known.line.record.state == State::Unavailable => return None,
                Ok(_) => {}
                Err(ControlError::NotFound { .. }) => return None,
                Err(e) => return Some(Err(sentence(&e))),
            }
            let options = RunOptions { dry_run: true, force: false, window: None };
            let report = self.control().run(RunRequest { worker: name, options }).await;
            Some(report.map(|report| report.summary).map_err(|e| sentence(&e)))
        })
    }
}

/// An error and its causes in one sentence.
fn sentence(error: &ControlError) -> String {
    let reason = error.reason();
    let causes = reason.causes.iter().map(String::as_str);
    std::iter::once(reason.text.as_str()).chain(causes).collect::<Vec<_>>().join(": ")
}
