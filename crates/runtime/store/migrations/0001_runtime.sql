-- The runtime's own tables. Instants are epoch milliseconds; the views show them in UTC.
/*pg*/ create schema if not exists ops; /*end*/

-- One row per boot of a node.
create table ops.session_log (
    session_id {text} primary key,
    app_name {text} not null,
    app_version {text} not null,
    host {text} not null,
    pid {i64} not null,
    opened_at {i64} not null,
    closed_at {i64},
    note {text} not null
) /*sqlite*/ strict /*end*/;
create index session_log_by_time on ops.session_log (opened_at);

-- Which schemas are in use, and by which boot.
create table ops.session_flags (
    schema_name {text} primary key,
    is_open {i64} not null check (is_open in (0, 1)),
    opened_at {i64},
    opened_by {text} references ops.session_log (session_id),
    updated_at {i64} not null
) /*sqlite*/ strict /*end*/;

-- The heartbeat of each worker, and its lease.
create table ops.workers (
    name {text} primary key,
    description {text} not null,
    trigger_text {text} not null,
    state {text} not null check (state in ('STOPPED', 'INITIALIZING', 'RUNNING', 'PAUSED',
        'SHUTTING_DOWN', 'FAILED', 'RESTARTING', 'UNAVAILABLE')),
    state_since {i64},
    state_reason {text},
    desired {text} not null default 'RUNNING' check (desired in ('RUNNING', 'PAUSED', 'STOPPED')),
    desired_by {text},
    desired_at {i64},
    last_started_at {i64},
    last_completed_at {i64},
    last_success_at {i64},
    last_error_at {i64},
    last_error {text},
    latency {i64},
    consecutive_errors {i64} not null default 0,
    total_runs {i64} not null default 0,
    total_errors {i64} not null default 0,
    summary {json},
    stale_after {i64},
    next_due {i64},
    last_due {i64},
    lease_owner {text},
    lease_token {i64} not null default 0,
    lease_expires_at {i64},
    blocked {json},
    blocked_kind {text},
    blocked_since {i64},
    restarts {json},
    registered_at {i64} not null,
    check ((lease_owner is null) = (lease_expires_at is null))
) /*sqlite*/ strict /*end*/;
create index workers_by_owner on ops.workers (lease_owner) where lease_owner is not null;

-- Changes of observed state.
create table ops.transitions (
    id {id},
    worker {text} not null,
    from_state {text} not null,
    to_state {text} not null,
    reason {text} not null,
    at {i64} not null,
    session {text} not null
) /*sqlite*/ strict /*end*/;
create index transitions_by_worker on ops.transitions (worker, id);

-- Every execution of a worker. `detail` is the whole cause as JSON.
create table ops.cycles (
    id {id},
    worker {text} not null,
    cause {text} not null,
    detail {json} not null,
    token {i64} not null,
    session {text} not null,
    attempt {i64} not null,
    started_at {i64} not null,
    finished_at {i64},
    outcome {text} not null check (outcome in ('running', 'succeeded', 'failed', 'snoozed',
        'cancelled', 'timed_out', 'fenced', 'lost')),
    error {text},
    summary {json},
    check ((outcome = 'running') = (finished_at is null))
) /*sqlite*/ strict /*end*/;
create index cycles_by_worker on ops.cycles (worker, id);
create index cycles_running on ops.cycles (worker) where outcome = 'running';

-- The ledger: each due instant, or range of them with one fate, exactly once.
create table ops.occurrences (
    worker {text} not null,
    due {i64} not null,
    through {i64} not null,
    count {i64} not null check (count >= 1),
    fate {text} not null check (fate in ('fired', 'skipped', 'merged')),
    cycle {i64},
    recorded_at {i64} not null,
    primary key (worker, due),
    check (due <= through)
) /*sqlite*/ strict, without rowid /*end*/;

-- Aligned windows by version; readers see the newest complete one.
create table ops.windows (
    series {text} not null,
    start_at {i64} not null,
    version {i64} not null check (version >= 1),
    end_at {i64} not null,
    state {text} not null check (state in ('open', 'ready', 'running', 'complete', 'failed',
        'abandoned')),
    attempts {i64} not null default 0 check (attempts >= 0),
    error {text},
    correction {text},
    next_attempt_at {i64},
    scope {json},
    inputs_hash {text},
    result_hash {text},
    source {text},
    cycle {i64},
    started_at {i64},
    finished_at {i64},
    primary key (series, start_at, version),
    check (start_at < end_at),
    check (state <> 'complete' or (inputs_hash is not null and result_hash is not null
        and source is not null and finished_at is not null))
) /*sqlite*/ strict, without rowid /*end*/;
create index windows_by_state on ops.windows (series, state, start_at);
create index windows_unfinished on ops.windows (series, start_at)
    where state in ('open', 'ready', 'running', 'failed');
create index windows_corrected on ops.windows (series, start_at, version) where version > 1;
create index windows_running on ops.windows (cycle) where state = 'running';

/*sqlite*/
create trigger ops_windows_no_update before update on ops.windows when old.state = 'complete'
begin select raise(abort, 'a complete window never changes: open a correction instead'); end;
create trigger ops_windows_no_delete before delete on ops.windows when old.state = 'complete'
begin select raise(abort, 'a complete window is never deleted'); end;
create trigger ops_windows_no_replace before insert on ops.windows
when exists (select 1 from ops.windows w where w.series = new.series
    and w.start_at = new.start_at and w.version = new.version and w.state = 'complete')
begin select raise(abort, 'a complete window never changes: open a correction instead'); end;
/*end*/

-- What is known completely: data, or the knowledge that upstream has none.
create table ops.covers (
    source {text} not null,
    key {text} not null,
    from_at {i64} not null,
    to_at {i64} not null,
    primary key (source, key, from_at),
    check (from_at < to_at)
) /*sqlite*/ strict, without rowid /*end*/;

-- Requests to compute windows of the past.
create table ops.backfills (
    id {id},
    series {text} not null,
    from_at {i64} not null,
    to_at {i64} not null,
    cursor_at {i64} not null,
    requested_by {text} not null,
    requested_at {i64} not null,
    finished_at {i64},
    check (from_at < to_at)
) /*sqlite*/ strict /*end*/;

-- Queued work.
create table ops.jobs (
    id {id},
    kind {text} not null,
    payload {json} not null,
    state {text} not null check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    priority {i64} not null,
    unique_key {text},
    attempts {i64} not null default 0 check (attempts >= 0),
    max_attempts {i64} not null check (max_attempts >= 1),
    reclaims {i64} not null default 0,
    run_at {i64} not null,
    created_at {i64} not null,
    created_by {i64},
    started_at {i64},
    finished_at {i64},
    error {text},
    worker {text},
    cycle {i64},
    lease_owner {text},
    lease_token {i64},
    lease_expires_at {i64},
    check ((state = 'running') = (lease_owner is not null))
) /*sqlite*/ strict /*end*/;
create index jobs_queued on ops.jobs (kind, priority desc, run_at, id) where state = 'queued';
create index jobs_running on ops.jobs (lease_expires_at) where state = 'running';
create index jobs_finished on ops.jobs (finished_at) where finished_at is not null;
create unique index jobs_unique on ops.jobs (unique_key)
    where unique_key is not null and state in ('queued', 'running');

-- Notifications, delivered in the order of their numbers. `only_for` is a redriven one's reader.
create table ops.events (
    id {id},
    at {i64} not null,
    kind {text} not null,
    key {text} not null,
    dedupe {text},
    payload {json} not null,
    cycle {i64},
    only_for {text}
) /*sqlite*/ strict /*end*/;
create unique index events_dedupe on ops.events (dedupe) where dedupe is not null;

-- Where each subscriber stands.
create table ops.subscribers (
    worker {text} primary key,
    kinds {json} not null,
    cursor {i64} not null,
    attempts {i64} not null default 0 check (attempts >= 0),
    next_attempt_at {i64}
) /*sqlite*/ strict /*end*/;

-- Events that a subscriber gave up, whole, since the event itself is pruned one day.
create table ops.dead_letters (
    id {id},
    worker {text} not null,
    event_id {i64} not null,
    event_at {i64} not null,
    kind {text} not null,
    key {text} not null,
    payload {json} not null,
    cycle {i64},
    reason {text} not null,
    at {i64} not null,
    redriven_at {i64}
) /*sqlite*/ strict /*end*/;

-- Named facts that workers require.
create table ops.conditions (
    name {text} primary key,
    met {i64} not null check (met in (0, 1)),
    detail {text} not null,
    until_at {i64},
    changed_at {i64} not null
) /*sqlite*/ strict /*end*/;

-- Published sets of files.
create table ops.artifacts (
    id {id},
    name {text} not null,
    path {text} not null unique,
    manifest_sha256 {text} not null,
    bytes {i64} not null,
    files {i64} not null,
    published_at {i64} not null,
    cycle {i64}
) /*sqlite*/ strict /*end*/;

create table ops.settings (
    key {text} primary key,
    value {json} not null,
    updated_at {i64} not null
) /*sqlite*/ strict /*end*/;

create view ops.v_sessions as
select session_id, app_version, host, pid, {utc:opened_at} as opened, {utc:closed_at} as closed, note
from ops.session_log;
create view ops.v_workers as
select name, state, desired, {utc:last_started_at} as last_started,
    {utc:last_success_at} as last_success, {utc:last_error_at} as last_error_time, last_error,
    latency as latency_ms, consecutive_errors, total_runs, total_errors, {utc:next_due} as next_due,
    lease_owner, lease_token, {utc:lease_expires_at} as lease_expires, blocked_kind,
    {utc:blocked_since} as blocked_since, summary
from ops.workers;
create view ops.v_transitions as
select id, worker, from_state, to_state, reason, {utc:at} as time, session from ops.transitions;
create view ops.v_cycles as
select id, worker, cause, detail, token, attempt, {utc:started_at} as started,
    {utc:finished_at} as finished, finished_at - started_at as took_ms, outcome, error, summary
from ops.cycles;
create view ops.v_occurrences as
select worker, {utc:due} as due, {utc:through} as through, count, fate, cycle,
    {utc:recorded_at} as recorded
from ops.occurrences;
create view ops.v_windows as
select series, {utc:start_at} as start, {utc:end_at} as "end", version, state, attempts, error,
    correction, {utc:next_attempt_at} as next_attempt, source, inputs_hash, result_hash, cycle,
    {utc:finished_at} as finished
from ops.windows;
create view ops.v_covers as
select source, key, {utc:from_at} as "from", {utc:to_at} as "to" from ops.covers;
create view ops.v_backfills as
select id, series, {utc:from_at} as "from", {utc:to_at} as "to", {utc:cursor_at} as cursor,
    requested_by, {utc:requested_at} as requested, {utc:finished_at} as finished
from ops.backfills;
create view ops.v_jobs as
select id, kind, state, priority, attempts, max_attempts, reclaims, {utc:run_at} as run,
    {utc:created_at} as created, {utc:started_at} as started, {utc:finished_at} as finished, worker,
    cycle, unique_key, error, payload
from ops.jobs;
create view ops.v_events as
select id, {utc:at} as time, kind, key, payload, cycle from ops.events;
create view ops.v_dead_letters as
select id, worker, event_id, kind, key, reason, {utc:at} as time, {utc:redriven_at} as redriven,
    payload
from ops.dead_letters;
create view ops.v_conditions as
select name, met, detail, {utc:until_at} as until, {utc:changed_at} as changed from ops.conditions;
create view ops.v_artifacts as
select id, name, path, manifest_sha256, bytes, files, {utc:published_at} as published, cycle
from ops.artifacts;
