//! The conformance suite of the runtime's store: what `port::Store` promises, on every engine.
//!
//! A case is a function of a [`Rig`] that says nothing about the engine; [`conform!`] lists the
//! cases once and makes a test of each for every engine.

mod claims;
mod events;
mod faults;
mod jobs;
mod nodes;
mod order;
mod publishing;
mod queue_limits;
mod queue_model;
mod queue_races;
mod schema;
mod shared;
mod upkeep;
mod windows;

use std::sync::Arc;

use watchbell_core::job::Kind;
use watchbell_core::port::{
    Claim, ClaimRequest, CycleEnd, FollowUp, Grant, JobClaim, Outcome, Publication, Registration,
    Result, Store, Target,
};
use watchbell_core::{BoxFuture, Commit, Millis, SessionId, Statement, Time, WorkerName, values};
use watchbell_db::{Database, Engine, Line, Migration};
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
    let fresh = |lines: Vec<Line>| -> BoxFuture<'static, TempDb> {
        Box::pin(async move { TempDb::sqlite(&lines).await })
    };
    rig(TempDb::sqlite(&[LINE, DOMAIN]).await, fresh).await
}

async fn postgres() -> Rig {
    rig(TempDb::postgres(&[LINE, DOMAIN]).await, fresh_on_postgres).await
}

/// On PostgreSQL, with the server's own clock.
async fn postgres_by_its_clock() -> Rig {
    rig(TempDb::postgres_with(&[LINE, DOMAIN], |_| {}).await, fresh_on_postgres).await
}

fn fresh_on_postgres(lines: Vec<Line>) -> BoxFuture<'static, TempDb> {
    Box::pin(async move { TempDb::postgres(&lines).await })
}

async fn rig(temp: TempDb, fresh: fn(Vec<Line>) -> BoxFuture<'static, TempDb>) -> Rig {
    let db = temp.db.clone();
    Rig { store: store(&db).await, db, temp, fresh }
}

/// A store with two boots, two workers and the kinds of jobs that the second consumes.
async fn store(db: &Database) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(SqlStore::new(db.clone()));
    for id in ["one", "two"] {
        store.open_session(session(id, NOW)).await.expect("a session");
    }
    let kinds = ["count", "sum", "x", "y"].map(Kind::new).to_vec();
    let workers = [registration("bell"), Registration { kinds, ..registration("watch") }];
    store.register(&workers, NOW).await.expect("two workers");
    store
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
        mod on_postgres {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    if watchbell_testkit::postgres_is_wanted() {
                        crate::$module::$case(crate::postgres().await).await;
                    }
                }
            )+)+
        }
    };
}

conform! {
    claims: one_of_sixteen_gets_a_tick a_held_lease_is_named an_expired_lease_is_taken_over
        an_occurrence_happens_once passed_ranges_never_overlap renewal_keeps_only_live_leases
        a_standing_lease_has_no_cycle a_standing_lease_is_given_back an_unknown_worker_is_named;
    publishing: a_stale_token_is_refused_and_recorded an_expired_lease_cannot_publish
        a_failing_statement_leaves_nothing a_cycle_publishes_everything_at_once
        steps_publish_and_keep_the_claim a_burnt_claim_cannot_publish
        a_quiet_cycle_writes_its_row_with_its_publication failures_are_counted
        an_end_is_published_once_however_often_it_is_asked_for a_quiet_end_is_published_once;
    windows: a_complete_window_is_immutable retries_back_off_and_end corrections_are_new_versions
        a_person_retries_and_abandons
        a_window_is_ready_when_its_covers_are covers_join the_frontier_is_the_lowest_unfinished
        a_lost_window_is_claimed_again series_are_counted backfills_widen_and_finish
        windows_over_a_stretch_are_found_however_long_they_are;
    events: events_keep_their_order_and_drop_duplicates a_subscriber_gets_each_event_in_order
        a_cursor_moves_with_the_commit a_dead_letter_is_given_back
        a_subscription_starts_at_the_newest_event kinds_match_by_prefix
        an_idle_subscriber_is_moved_on;
    jobs: jobs_run_by_priority_and_time a_job_for_later_comes_when_it_is_due
        a_failed_job_is_retried_and_ends a_dead_holders_job_is_reclaimed_and_counted
        a_busy_claim_reclaims_too a_job_is_fenced an_end_may_be_told_again
        a_job_publishes_with_its_commit given_back_jobs_spend_no_attempt
        a_holder_hears_what_it_holds progress_is_shown_while_it_runs
        a_unique_key_counts_in_its_states a_key_that_was_taken_meanwhile_stays_taken
        bad_jobs_are_refused_by_place a_kind_says_what_a_job_leaves_out
        what_is_kept_of_a_job_is_bounded an_operator_changes_jobs_by_filter
        a_redriven_job_needs_its_key a_cancelled_job_of_a_dead_holder_ends
        jobs_are_found_by_filter_and_page a_queue_is_counted old_jobs_go_with_all_that_was_theirs
        a_node_that_ends_gives_its_jobs_back;
    queue_limits: a_kind_runs_so_many_at_once a_key_runs_so_many_at_once
        a_kind_starts_so_many_in_a_time kinds_with_limits_keep_the_order;
    queue_model: any_sequence_does_what_the_model_does;
    queue_races: eight_claimers_share_the_jobs one_of_many_takes_the_key a_key_is_never_held_twice
        limits_hold_at_every_instant a_rate_holds_for_all_together
        priorities_hold_while_others_add what_is_done_leaves_the_live_table
        a_long_stretch_hears_of_what_comes_first many_ends_with_rows_are_each_their_own;
    upkeep: sessions_and_flags_follow_the_boots recovery_takes_back_what_the_dead_held
        registration_keeps_history the_first_registration_is_remembered
        what_another_node_runs_is_available states_desires_and_gates beats_add_up settings_are_kept
        conditions_know_since_when pruning_spares_what_is_needed
        artifacts_go_when_their_time_is_over_but_the_newest_of_a_name;
    nodes: nodes_show_what_they_hold a_silent_node_is_lost_and_may_come_back
        a_node_that_leaves_says_nothing_of_what_others_run a_schema_is_in_use_while_any_node_is;
    order: numbers_follow_commits;
    schema: every_earlier_version_migrates a_store_of_the_first_version_keeps_its_rows
        views_are_readable;
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

    /// Whether there can be other nodes.
    fn is_shared(&self) -> bool {
        self.db.engine() == Engine::Postgres
    }

    /// At most `most` jobs for boot `one`, consumed by the worker `watch`.
    async fn jobs(&self, kinds: &[&str], most: u32, now: Time) -> Vec<Grant> {
        let kinds = kinds.iter().map(|k| (*k).to_owned()).collect();
        let (worker, session) = ("watch".into(), "one".into());
        let claim = JobClaim { worker, session, kinds, most, now, ttl: TTL };
        self.store.claim_jobs(claim).await.expect("a claim of jobs").grants
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
