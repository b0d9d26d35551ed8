-- Signal scans: what they found, why, and what they keep between runs.

-- One row per run of a job.
create table scan.runs (
    id {id},
    job {text} not null,
    kind {text} not null,
    -- The timestamp of the run's artifacts.
    started_at {i64} not null,
    finished_at {i64} not null,
    regime {text} not null,
    -- Where the weights came from: the newest refresh, or the default since it is too old.
    regime_source {text} not null,
    scanned {i64} not null,
    passed {i64} not null,
    -- The cycle, which its artifacts name, too.
    cycle {i64} not null,
    -- The exchanges as they were at its end: health, latency, sources.
    header {json} not null
) /*sqlite*/ strict /*end*/;

create index runs_by_job on scan.runs (job, started_at);
create index runs_by_time on scan.runs (started_at);

-- What a run says of each symbol, in the words of explain.json.
create table scan.verdicts (
    job {text} not null,
    started_at {i64} not null,
    symbol {text} not null,
    rank {i64} not null,
    decision {text} not null,
    score {f64},
    primary_reason {text} not null,
    explanation {json} not null,
    primary key (job, started_at, symbol)
) /*sqlite*/ strict, without rowid /*end*/;

create index verdicts_by_symbol on scan.verdicts (symbol, started_at);
create index verdicts_by_time on scan.verdicts (started_at);

-- Regimes, newest last; the newest is what scans weigh by.
create table scan.regimes (
    computed_at {i64} primary key,
    valid_until {i64} not null,
    regime {text} not null,
    confidence {f64} not null,
    document {json} not null
) /*sqlite*/ strict /*end*/;

-- Closed bars as they were fetched last: exact until the next one closes.
create table scan.bars (
    venue {text} not null,
    symbol {text} not null,
    length {text} not null,
    fetched_at {i64} not null,
    bars {json} not null,
    primary key (venue, symbol, length)
) /*sqlite*/ strict, without rowid /*end*/;

-- What an exchange lists.
create table scan.listings (
    venue {text} primary key,
    fetched_at {i64} not null,
    listings {json} not null
) /*sqlite*/ strict /*end*/;

-- The newest universe of each primary exchange.
create table scan.universe (
    venue {text} primary key,
    taken_at {i64} not null,
    members_sha256 {text} not null,
    universe {json} not null
) /*sqlite*/ strict /*end*/;

-- Requests that an exchange was sent, so that a budget outlives the process.
create table scan.spending (
    venue {text} primary key,
    noted_at {i64} not null,
    spent {json} not null
) /*sqlite*/ strict /*end*/;

create view scan.v_runs as
select r.id, r.job, {utc:r.started_at} as started, r.finished_at - r.started_at as took_ms,
    r.regime, r.regime_source, r.scanned, r.passed, a.path as artifact
from scan.runs r
left join ops.artifacts a on a.cycle = r.cycle and a.name <> 'schemas';

-- Who passed, newest first.
create view scan.v_signals as
select v.job, {utc:v.started_at} as run, v.symbol, v.rank, v.score, r.regime
from scan.verdicts v join scan.runs r on r.job = v.job and r.started_at = v.started_at
where v.decision = 'included';

-- Why the others did not.
create view scan.v_rejections as
select job, {utc:started_at} as run, symbol, score, primary_reason
from scan.verdicts
where decision = 'excluded';
