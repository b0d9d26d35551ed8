-- The runtime's tables under the names of the founding documents, beside `ingest.jobs` of 0002.

-- One row per execution: cycles, and jobs, whose cycles have no row of their own.
create view ops.job_run as
select 'cycle:' || id as run_id, worker as job_name, cause as job_type,
    case outcome when 'succeeded' then 'success' when 'running' then 'running'
        when 'snoozed' then 'skipped' when 'cancelled' then 'skipped' else 'error' end as status,
    started_at, finished_at, finished_at - started_at as duration_ms, error as error_message,
    cast(null as {text}) as error_stack, summary as meta
from ops.cycles
union all
select 'job:' || id, kind, 'job', state, started_at, cast(null as {i64}), cast(null as {i64}),
    error, cast(null as {text}), payload
from ops.jobs
union all
select 'job:' || id, kind, 'job',
    case state when 'succeeded' then 'success' when 'cancelled' then 'skipped' else 'error' end,
    started_at, finished_at, finished_at - started_at, error, cast(null as {text}),
    coalesce(result, payload)
from ops.job_history;

-- Boots, and which schemas each has open.
create view ops.v_session_flags as
select f.schema_name, f.is_open, {utc:f.opened_at} as opened, f.opened_by, s.host, s.pid,
    s.app_version, {utc:s.closed_at} as session_closed, s.note
from ops.session_flags f left join ops.session_log s on s.session_id = f.opened_by;
