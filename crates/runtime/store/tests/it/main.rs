//! The conformance suite of the runtime's store: what `port::Store` promises, on every engine.
//!
//! A case is a function of a [`Rig`] that says nothing about the engine; [`conform!`] lists the
//! cases once and makes a test of each for every engine.

mod claims;
mod events;
mod jobs;
mod publishing;
mod schema;
mod upkeep;
mod windows;

use std::sync::Arc;

use watchbell_core::port::{
    Claim, ClaimRequest, CycleEnd, FollowUp, Grant, Outcome, Publication, Result, Store, Target,
};
use watchbell_core::{BoxFuture, Commit, Millis, SessionId, Statement, Time, WorkerName, values};
use watchbell_db::{Database, Line, Migration};
use watchbell_store::{LINE, SqlStore};
use watchbell_testkit::{NOW, TempDb, registration, session};

/// A domain of one table, for what a commit publishes besides the runtime's rows.
const DOMAIN: Line = Line {
    name: "test",
    migrations: &[Migration {
        number: 1,
        name: "rows",
        sql: "create table market.rows (id {i64} primary key, worker {text} not null)",
    }],
};
const TTL: Millis = Millis::from_secs(30);

/// A store, its database, and two boots: `one` and `two`.
struct Rig {
    store: Arc<dyn Store>,
    db: Database,
    temp: TempDb,
    /// An empty database of the same engine, with these lines applied.
    fresh: fn(Vec<Line>) -> BoxFuture<'static, TempDb>,
}

async fn sqlite() -> Rig {
    let temp = TempDb::sqlite(&[LINE, DOMAIN]).await;
    let db = temp.db.clone();
    let store: Arc<dyn Store> = Arc::new(SqlStore::new(db.clone()));
    for id in ["one", "two"] {
        store.open_session(session(id, NOW)).await.expect("a session");
    }
    let workers = [registration("bell"), registration("watch")];
    store.register(&workers, NOW).await.expect("two workers");
    Rig { store, db, temp, fresh: |lines| Box::pin(async move { TempDb::sqlite(&lines).await }) }
}

macro_rules! conform {
    ($($module:ident: $($case:ident)+;)+) => {
        mod on_sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$module::$case(crate::sqlite().await).await;
                }
            )+)+
        }
    };
}

conform! {
    claims: one_of_sixteen_gets_a_tick a_held_lease_is_named an_expired_lease_is_taken_over
        an_occurrence_happens_once passed_ranges_never_overlap renewal_keeps_only_live_leases
        a_standing_lease_has_no_cycle an_unknown_worker_is_named;
    publishing: a_stale_token_is_refused_and_recorded an_expired_lease_cannot_publish
        a_failing_statement_leaves_nothing a_cycle_publishes_everything_at_once
        steps_publish_and_keep_the_claim a_burnt_claim_cannot_publish
        a_quiet_cycle_writes_its_row_with_its_publication failures_are_counted;
    windows: a_complete_window_is_immutable retries_back_off_and_end corrections_are_new_versions
        a_window_is_ready_when_its_covers_are covers_join the_frontier_is_the_lowest_unfinished
        a_lost_window_is_claimed_again series_are_counted backfills_widen_and_finish;
    events: events_keep_their_order_and_drop_duplicates a_subscriber_gets_each_event_in_order
        a_cursor_moves_with_the_commit a_dead_letter_is_given_back
        a_subscription_starts_at_the_newest_event kinds_match_by_prefix
        an_idle_subscriber_is_moved_on;
    jobs: jobs_run_by_priority_and_time a_unique_key_is_taken_while_its_job_lives
        sixteen_claimers_share_the_jobs a_failed_job_is_retried_and_ends
        a_dead_holders_job_is_reclaimed_and_counted a_job_is_fenced;
    upkeep: sessions_and_flags_follow_the_boots recovery_takes_back_what_the_dead_held
        registration_keeps_history the_first_registration_is_remembered states_desires_and_gates beats_add_up settings_are_kept
        conditions_know_since_when pruning_spares_what_is_needed;
    schema: every_earlier_version_migrates views_are_readable;
}

impl Rig {
    async fn ask(&self, by: &str, worker: &str, target: Target, now: Time) -> Result<Claim> {
        let (worker, session) = (WorkerName::from(worker), SessionId::from(by));
        let request = ClaimRequest { worker, session, now, ttl: TTL, target, passed: vec![] };
        self.store.claim(request).await
    }

    /// A claim by boot `one` that must be granted.
    async fn grant(&self, worker: &str, target: Target, now: Time) -> Grant {
        match self.ask("one", worker, target, now).await {
            Ok(Claim::Granted(grant)) => grant,
            other => panic!("the claim must be granted: {other:?}"),
        }
    }

    async fn rows(&self) -> i64 {
        let count = "select count(*) from market.rows";
        self.db.query_one(count, vec![]).await.expect("a count").i64(0).expect("a number")
    }
}

/// The publication of a cycle of boot `one` that goes on.
fn step(worker: &str, grant: &Grant, now: Time, commit: Commit) -> Publication {
    Publication {
        worker: worker.into(),
        session: "one".into(),
        token: grant.token,
        cycle: grant.cycle,
        cause: grant.cause.clone(),
        now,
        commit,
        end: None,
    }
}

/// The publication of a cycle that ended so.
fn ended(
    worker: &str,
    grant: &Grant,
    now: Time,
    outcome: Outcome,
    follow_up: FollowUp,
) -> Publication {
    let failed = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
    let end = CycleEnd {
        outcome,
        summary: serde_json::json!({"at": now}),
        error: failed.then(|| "the test failed it".to_owned()),
        started_at: now - Millis(5),
        follow_up,
        window: None,
        artifacts: vec![],
        next_due: None,
        keep_lease: false,
    };
    Publication { end: Some(end), ..step(worker, grant, now, Commit::new()) }
}

/// The publication of a cycle that succeeded.
fn done(worker: &str, grant: &Grant, now: Time) -> Publication {
    ended(worker, grant, now, Outcome::Succeeded, FollowUp::Finish)
}

/// A domain row.
fn row(id: i64, worker: &str) -> Statement {
    Statement::new("insert into market.rows (id, worker) values ($1, $2)", values![id, worker])
}

/// `NOW` and some seconds.
fn at(seconds: i64) -> Time {
    NOW + Millis::from_secs(seconds)
}
