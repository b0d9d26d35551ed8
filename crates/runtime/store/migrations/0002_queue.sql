-- The queue. `ops.jobs` holds what is queued or running and nothing else, so that it stays small
-- however much has been done; what has ended is in `ops.job_history`.
/*pg*/ create schema if not exists ingest; /*end*/

drop view ops.v_jobs;
drop index /*pg*/ ops. /*end*/ jobs_queued;
drop index /*pg*/ ops. /*end*/ jobs_running;
drop index /*pg*/ ops. /*end*/ jobs_finished;
drop index /*pg*/ ops. /*end*/ jobs_unique;
alter table ops.jobs rename to /*pg*/ jobs_before /*end*/ /*sqlite*/ ops_jobs_before /*end*/;

-- What jobs there are. The last columns serve the claim: the limits of the definition, and the
-- instant (in microseconds) up to which the rate is used up.
create table ops.job_kinds (
    kind {text} primary key,
    definition {json} not null,
    worker {text} not null,
    registered_at {i64} not null,
    concurrency {i64},
    per_key {i64},
    rate_count {i64},
    rate_step {i64},
    rate_used {i64} not null default 0
) /*sqlite*/ strict, without rowid /*end*/;

-- Live jobs. `ready` is 1 from shortly before `run_at`: the claim looks at no other. `token` counts
-- the grants. Who holds a job and until when is null unless it runs.
create table ops.jobs (
    id {id},
    kind {text} not null,
    state {text} not null check (state in ('queued', 'running')),
    ready {i64} not null,
    priority {i64} not null,
    run_at {i64} not null,
    attempts {i64} not null default 0,
    max_attempts {i64} not null,
    reclaims {i64} not null default 0,
    token {i64} not null default 0,
    created_at {i64} not null,
    created_by {i64},
    started_at {i64},
    lease_expires_at {i64},
    unique_in {i64},
    percent {f64},
    lease_owner {text},
    worker {text},
    unique_key {text},
    limit_key {text},
    message {text},
    error {text},
    cancelled_by {text},
    payload {json} not null,
    check ((state = 'running') = (lease_owner is not null))
) /*sqlite*/ strict /*end*/;
-- Ascending throughout on PostgreSQL, so that a claim can begin behind what is done.
create index jobs_ready on ops.jobs (kind,
    /*sqlite*/ priority desc /*end*/ /*pg*/ (- priority) /*end*/, run_at, id)
    where state = 'queued' and ready = 1;
create index jobs_waiting on ops.jobs (kind, run_at) where state = 'queued' and ready = 0;
create index jobs_running on ops.jobs (kind, lease_expires_at) where state = 'running';
create index jobs_cancelled on ops.jobs (id) where cancelled_by is not null;

-- Jobs that have ended. `token` is the last grant; `by_holder` says whether its holder ended it,
-- who may then say so again, or somebody else did, to whom the holder lost it.
create table ops.job_history (
    id {i64} primary key,
    kind {text} not null,
    state {text} not null check (state in ('succeeded', 'failed', 'cancelled')),
    priority {i64} not null,
    run_at {i64} not null,
    attempts {i64} not null,
    max_attempts {i64} not null,
    reclaims {i64} not null,
    token {i64} not null,
    by_holder {i64} not null,
    created_at {i64} not null,
    created_by {i64},
    started_at {i64},
    finished_at {i64} not null,
    unique_in {i64},
    session {text},
    worker {text},
    unique_key {text},
    limit_key {text},
    error {text},
    payload {json} not null,
    result {json}
) /*sqlite*/ strict /*end*/;
create index job_history_by_time on ops.job_history /*pg*/ using brin /*end*/ (finished_at);
create index job_history_dead on ops.job_history (kind, state, id) where state <> 'succeeded';

-- Attempts that did not succeed, the newest of each job.
create table ops.job_attempts (
    id {id},
    job {i64} not null,
    attempt {i64} not null,
    outcome {text} not null check (outcome in ('failed', 'timed_out', 'snoozed', 'lost',
        'cancelled')),
    token {i64} not null,
    by_holder {i64} not null,
    started_at {i64},
    finished_at {i64} not null,
    session {text},
    error {text}
) /*sqlite*/ strict /*end*/;
create index job_attempts_by_job on ops.job_attempts (job, id);

-- Unique keys: a row exists exactly while its job is in a state that its mask names. Enqueueing
-- takes the key; the triggers below follow the job. A job that comes back to a state of its mask
-- and finds its key taken goes on without it.
create table ops.job_keys (
    kind {text} not null,
    key {text} not null,
    job {i64} not null,
    primary key (kind, key)
) /*sqlite*/ strict, without rowid /*end*/;

/*sqlite*/
create trigger ops_jobs_key_taken after insert on ops.jobs when new.unique_key is not null
begin
    insert or ignore into ops.job_keys (kind, key, job) values (new.kind, new.unique_key, new.id);
end;
create trigger ops_jobs_key_follows after update of state on ops.jobs
when new.unique_key is not null and new.state <> old.state
begin
    insert or ignore into ops.job_keys (kind, key, job)
    select new.kind, new.unique_key, new.id
    where (new.unique_in & (case new.state when 'queued' then 1 else 2 end)) <> 0;
    delete from ops.job_keys where kind = new.kind and key = new.unique_key and job = new.id
        and (new.unique_in & (case new.state when 'queued' then 1 else 2 end)) = 0;
end;
create trigger ops_job_history_key_follows after insert on ops.job_history
when new.unique_key is not null
begin
    insert or ignore into ops.job_keys (kind, key, job)
    select new.kind, new.unique_key, new.id where (new.unique_in
        & (case new.state when 'succeeded' then 4 when 'failed' then 8 else 16 end)) <> 0;
    delete from ops.job_keys where kind = new.kind and key = new.unique_key and job = new.id
        and (new.unique_in
            & (case new.state when 'succeeded' then 4 when 'failed' then 8 else 16 end)) = 0;
end;
create trigger ops_job_history_key_goes after delete on ops.job_history
when old.unique_key is not null
begin
    delete from ops.job_keys where kind = old.kind and key = old.unique_key and job = old.id
        and not exists (select 1 from ops.jobs j where j.id = old.id);
end;
/*end*/
/*pg*/
create function ops.job_key_follows() returns trigger language plpgsql as $$
begin
    if (new.unique_in & (case new.state when 'queued' then 1 when 'running' then 2
        when 'succeeded' then 4 when 'failed' then 8 else 16 end)) <> 0 then
        insert into ops.job_keys (kind, key, job) values (new.kind, new.unique_key, new.id)
        on conflict do nothing;
    else
        delete from ops.job_keys k
        where k.kind = new.kind and k.key = new.unique_key and k.job = new.id;
    end if;
    return null;
end $$;
create function ops.job_key_goes() returns trigger language plpgsql as $$
begin
    delete from ops.job_keys k where k.kind = old.kind and k.key = old.unique_key
        and k.job = old.id and not exists (select 1 from ops.jobs j where j.id = old.id);
    return null;
end $$;
create trigger ops_jobs_key_taken after insert on ops.jobs
for each row when (new.unique_key is not null) execute function ops.job_key_follows();
create trigger ops_jobs_key_follows after update of state on ops.jobs
for each row when (new.unique_key is not null and new.state <> old.state)
execute function ops.job_key_follows();
create trigger ops_job_history_key_follows after insert on ops.job_history
for each row when (new.unique_key is not null) execute function ops.job_key_follows();
create trigger ops_job_history_key_goes after delete on ops.job_history
for each row when (old.unique_key is not null) execute function ops.job_key_goes();
-- Rows come and go fast here: the space of the gone is wanted back soon.
alter table ops.jobs set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
/*end*/

insert into ops.job_history (id, kind, state, priority, run_at, attempts, max_attempts, reclaims,
    token, by_holder, created_at, created_by, started_at, finished_at, unique_in, worker,
    unique_key, error, payload)
select id, kind, state, priority, run_at, attempts, max_attempts, reclaims,
    coalesce(lease_token, 0), 0, created_at, created_by, started_at,
    coalesce(finished_at, created_at), case when unique_key is not null then 3 end, worker,
    unique_key, error, payload
from ops.jobs_before where state not in ('queued', 'running');
-- The number of the newest job is taken, so that no number is given twice.
insert into ops.jobs (id, kind, state, ready, priority, run_at, max_attempts, created_at, payload)
select id, kind, 'queued', 0, 0, 0, 1, 0, '{}' from ops.jobs_before
order by id desc limit 1;
delete from ops.jobs;
/*pg*/ select setval(pg_get_serial_sequence('ops.jobs', 'id'), max(id)) from ops.jobs_before
having max(id) is not null; /*end*/
insert into ops.jobs (id, kind, state, ready, priority, run_at, attempts, max_attempts, reclaims,
    token, created_at, created_by, started_at, lease_expires_at, unique_in, lease_owner, worker,
    unique_key, error, payload)
select id, kind, state, 1, priority, run_at, attempts, max_attempts, reclaims,
    coalesce(lease_token, 0), created_at, created_by, started_at, lease_expires_at,
    case when unique_key is not null then 3 end, lease_owner, worker, unique_key, error, payload
from ops.jobs_before where state in ('queued', 'running') order by id;
drop table ops.jobs_before;

create view ops.v_jobs as
select id, kind, state, priority, attempts, max_attempts, reclaims, {utc:run_at} as run,
    {utc:created_at} as created, {utc:started_at} as started, null as finished, worker,
    lease_owner as session, unique_key, limit_key, error, percent, message, payload, null as result
from ops.jobs
union all
select id, kind, state, priority, attempts, max_attempts, reclaims, {utc:run_at},
    {utc:created_at}, {utc:started_at}, {utc:finished_at}, worker, session, unique_key, limit_key,
    error, null, null, payload, result
from ops.job_history;
create view ops.v_job_kinds as
select kind, worker, {utc:registered_at} as registered, concurrency, per_key, rate_count,
    definition
from ops.job_kinds;
create view ops.v_job_attempts as
select job, attempt, outcome, {utc:started_at} as started, {utc:finished_at} as finished, session,
    error
from ops.job_attempts;
-- The queue under the names of the founding documents.
create view ingest.jobs as
select id as job_id, kind, payload, state as status, attempts, {utc:run_at} as scheduled_for,
    {utc:started_at} as started_at, null as finished_at, error, unique_key as dedupe_key,
    max_attempts, priority
from ops.jobs
union all
select id, kind, payload, state, attempts, {utc:run_at}, {utc:started_at}, {utc:finished_at},
    error, unique_key, max_attempts, priority
from ops.job_history;
