-- Nodes that share the store, and what only PostgreSQL still lacked of 0001.

-- The newest sign of life of each open session. Where there can be one node only, `seen_at` is when
-- it last said something new about itself.
create table ops.nodes (
    session {text} primary key,
    seen_at {i64} not null,
    ttl {i64} not null,
    skew {i64},
    round_trip {i64},
    api {text},
    profile {text} not null
) /*sqlite*/ strict /*end*/;
insert into ops.nodes (session, seen_at, ttl, profile)
select session_id, opened_at, 60000, '' from ops.session_log where closed_at is null;

-- A transition that is told twice, since the answer was lost, is written once.
create index transitions_by_time on ops.transitions (worker, at);

create view ops.v_nodes as
select s.session_id as session, s.host, s.pid, s.app_version, {utc:s.opened_at} as opened,
    {utc:n.seen_at} as seen, n.ttl as ttl_ms, n.skew as skew_ms, n.round_trip as round_trip_ms,
    n.profile, n.api
from ops.session_log s left join ops.nodes n on n.session = s.session_id
where s.closed_at is null;

/*pg*/
create function ops.refuse() returns trigger language plpgsql as
'begin raise exception using errcode = ''WB001'', message = tg_argv[0]; end';
create trigger ops_windows_no_update before update on ops.windows
for each row when (old.state = 'complete')
execute function ops.refuse('a complete window never changes: open a correction instead');
create trigger ops_windows_no_delete before delete on ops.windows
for each row when (old.state = 'complete')
execute function ops.refuse('a complete window is never deleted');
create trigger ops_windows_no_truncate before truncate on ops.windows
for each statement execute function ops.refuse('a complete window is never deleted');
/*end*/
