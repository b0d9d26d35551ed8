//! The size of the queue's tables on PostgreSQL while many jobs pass through, and beside a
//! transaction that stays open and so keeps every dead row alive.

use anyhow::Context as _;
use tokio_postgres::Client;
use watchbell_clock::Clock;

use super::Stamps;
use super::ours::{Consumer, Engine, Site, Work};
use super::server::{DATABASE, Server};
use crate::{Table, grouped, progress};

/// Jobs that may wait while more are enqueued.
const AHEAD: usize = 20_000;
/// Where the flow is halted and the hot table vacuumed, as a server does by itself in a run that is
/// longer than its pause between two looks of a minute.
const TENTHS: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Live rows and dead rows of the hot table, once all jobs are done and it was vacuumed; then its
/// size and the size of the others, each with its indexes.
struct Sizes {
    live: i64,
    dead: i64,
    hot: i64,
    others: i64,
}

async fn sizes(client: &Client) -> anyhow::Result<Sizes> {
    client.execute("vacuum (analyze) ops.jobs", &[]).await?;
    let live = client.query_one("select count(*) from ops.jobs", &[]).await?.get(0);
    let row = client
        .query_one(
            "select pg_stat_get_dead_tuples('ops.jobs'::regclass),
                pg_total_relation_size('ops.jobs'),
                (select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_class c
                 where c.relnamespace = 'ops'::regnamespace and c.relkind in ('r', 'p')
                     and c.relname like 'job%' and c.oid <> 'ops.jobs'::regclass)",
            &[],
        )
        .await?;
    Ok(Sizes { live, dead: row.get(0), hot: row.get(1), others: row.get(2) })
}

fn megabytes(bytes: i64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// The third table: `jobs` in a flow, then a tenth of them beside an open transaction.
///
/// # Errors
/// When a job is missing, or the tables keep rows of jobs that have ended.
pub async fn table(
    server: &Server,
    jobs: usize,
    consumer: Consumer,
    stamps: Stamps,
    clock: &Clock,
) -> anyhow::Result<Table> {
    let mut table = Table::new(
        format!(
            "size of the tables while {} jobs pass through, at most {} waiting",
            grouped(jobs as f64),
            grouped(AHEAD as f64)
        ),
        &[
            "what",
            "jobs done",
            "jobs/s",
            "live rows",
            "dead after vacuum",
            "hot table MB",
            "history MB",
        ],
    );
    for (what, jobs, held) in
        [("nothing beside it", jobs, false), ("a transaction held open", jobs / 10, true)]
    {
        progress(&format!("size: {what} ..."));
        let url = server.fresh().await?;
        let site = Site::open(&Engine::Server(url), stamps, clock).await?;
        site.know_kind(Work::Nothing, consumer).await?;
        let client = server.connect(DATABASE).await?;
        let holder = server.connect(DATABASE).await?;
        if held {
            // It wrote, so it has a transaction number, and nothing that dies later is removed.
            holder.batch_execute("create table held (i bigint)").await?;
            let hold = "begin isolation level repeatable read;
                insert into held values (1); select count(*) from ops.jobs";
            holder.batch_execute(hold).await.context("cannot hold a transaction open")?;
        }
        let mut bounded = true;
        site.flow(jobs, AHEAD, consumer, &TENTHS, async |done, rate| {
            let s = sizes(&client).await?;
            bounded &= s.live == 0 && (held || s.dead == 0);
            if ![1, 5, 10].contains(&(done * 10 / jobs)) {
                return Ok(());
            }
            table.row([
                &what,
                &grouped(done as f64),
                &grouped(rate),
                &s.live,
                &grouped(s.dead as f64),
                &megabytes(s.hot),
                &megabytes(s.others),
            ]);
            Ok(())
        })
        .await?;
        if held {
            holder.batch_execute("rollback").await?;
            let s = sizes(&client).await?;
            bounded &= s.live == 0 && s.dead == 0;
            table.row([
                &"and after its end",
                &grouped(jobs as f64),
                &"",
                &s.live,
                &grouped(s.dead as f64),
                &megabytes(s.hot),
                &megabytes(s.others),
            ]);
        }
        site.close().await?;
        anyhow::ensure!(bounded, "the hot table keeps rows of jobs that have ended:\n{table}");
    }
    table.note("jobs/s: of the last tenth, enqueue and run together; vacuumed at each tenth");
    Ok(table)
}
