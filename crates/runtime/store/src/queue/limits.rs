//! Leases jobs of a kind that has limits.
//!
//! All claims of such a kind take turns at the kind's row, from the first statement to the commit.
//! So what runs can only become less while one of them counts it, and the rate is spent by one at a
//! time: the limits hold at every instant, over all nodes.
//!
//! The rate is the generic cell rate algorithm. `rate_step` is the time that one start costs,
//! `rate_used` the instant up to which all starts so far have used up the time, and a start is
//! allowed as long as that is not more than `rate_count` steps ahead.

use watchbell_core::port::{JobClaim, Result};
use watchbell_core::{Expect, Time};
use watchbell_core::{Statement, values};
use watchbell_db::{Database, Row};

use super::claim::{due, in_order, lease, leased, params};
use crate::sql::apply;

/// Jobs that are looked at for one claim of a kind with a limit per key.
macro_rules! seen {
    () => {
        "1000"
    };
}

/// How many more may start, `$6` at most.
macro_rules! allowed {
    () => {
        "(select /*sqlite*/ max( /*end*/ /*pg*/ greatest( /*end*/ 0,
            /*sqlite*/ min( /*end*/ /*pg*/ least( /*end*/ $6,
                coalesce(concurrency - (select count(*) from ops.jobs r
                    where r.kind = $1 and r.state = 'running'), $6),
                coalesce(({now:$2} * 1000 + rate_count * rate_step
                    - case when rate_used > {now:$2} * 1000 then rate_used
                        else {now:$2} * 1000 end) / rate_step, $6)))
            from ops.job_kinds where kind = $1)"
    };
}

/// Rows up to priority `$7` and time `$8`, in order.
macro_rules! bounded {
    () => {
        concat!(due!(1), " and (priority > $7 or (priority = $7 and run_at <= $8))")
    };
}

macro_rules! take {
    ($ids:expr) => {
        concat!(
            "/*pg*/ with took as ( /*end*/ ",
            lease!(),
            $ids,
            " ",
            in_order!(),
            " limit ",
            allowed!(),
            leased!(),
            "/*pg*/ ), spent as (update ops.job_kinds
                set rate_used = greatest(rate_used, {now:$2} * 1000) + rate_step * c.n
                from (select count(*) as n from took) c
                where kind = $1 and rate_step is not null and c.n > 0)
            select * from took /*end*/"
        )
    };
}

const TAKE: &str = take!(concat!("select id from ops.jobs where ", bounded!()));

/// Keys that run as much as they may are left out before anything is counted, so that a key with a
/// long queue does not keep the others waiting.
const TAKE_PER_KEY: &str = take!(concat!(
    "select id from (
        select c.id, c.priority, c.run_at, c.limit_key, c.running,
            row_number() over (partition by c.limit_key
                order by c.priority desc, c.run_at, c.id) as nth
        from (select j.id, j.priority, j.run_at, j.limit_key, coalesce(b.running, 0) as running
            from ops.jobs j left join (select limit_key as busy, count(*) as running
                from ops.jobs where kind = $1 and state = 'running' and limit_key is not null
                group by limit_key) b on b.busy = j.limit_key
            where ",
    bounded!(),
    " and (j.limit_key is null or coalesce(b.running, 0)
                    < (select per_key from ops.job_kinds where kind = $1))
            ",
    in_order!(),
    " limit ",
    seen!(),
    ") c) ranked
    where limit_key is null
        or running + nth <= (select per_key from ops.job_kinds where kind = $1)"
));

/// Spends the rate for what the statement before has leased.
const SPEND: &str = "/*sqlite*/ update ops.job_kinds
    set rate_used = max(rate_used, {now:$2} * 1000) + rate_step * changes()
    where kind = $1 and rate_step is not null and changes() > 0 /*end*/";

/// Leases at most `most` jobs of `kind`, none of them after `bound`. Where it leases any, there may
/// be more.
pub(super) async fn take(
    db: &Database,
    claim: &JobClaim,
    kind: &str,
    per_key: bool,
    most: u32,
    bound: (i64, Time),
) -> Result<Vec<Row>> {
    let turn = "select 1 from ops.job_kinds where kind = $1 /*pg*/ for update /*end*/";
    let mut params = params(claim, kind, most);
    params.extend(values![bound.0, bound.1]);
    let take = if per_key { TAKE_PER_KEY } else { TAKE };
    let list = vec![
        Statement::new(turn, values![kind]).expect(Expect::Exactly(1)),
        Statement::new(take, params),
        Statement::new(SPEND, values![kind, claim.now]),
    ];
    Ok(apply(db, list).await?.rows.remove(1))
}
