-- How far points have been removed for their age: nothing of `symbol` is stored at or before `until_at`,
-- whatever there was. A window looks here first, for a part of its points would give another result than
-- all of them did.
create table str_aux.removed_points (
  symbol     {text} primary key not null,
  until_at   {i64}  not null,
  removed_at {i64}  not null
);

-- What was asked for: the interval of candles, and the span.
alter table ops.market_sync_log add column window_label {text};
alter table ops.market_sync_log add column from_ms {i64};
alter table ops.market_sync_log add column to_ms {i64};
-- One set of words for the outcome, whoever reads it.
update ops.market_sync_log set status = case status
    when 'ok' then case when rows = 0 then 'empty' else 'ok' end
    when 'rate_limited' then 'throttled' when 'transient' then 'retry' when 'banned' then 'banned'
    else 'error' end;

-- What asks the venue or the clock by itself, and how its newest run went.
create view settings.poller_state as
  select name as poller_id, last_started_at as last_run_at,
    case when last_completed_at is null then 'never'
         when consecutive_errors > 0 then 'error' else 'success' end as last_status,
    case when consecutive_errors > 0 then last_error end as last_error, latency as duration_ms,
    last_due as cursor, {utc:last_started_at} as last_run_utc
  from ops.workers;

-- How points become cycles and windows.
create view str_aux.sampling_specs as
  select 'default' as label, 5 as base_step_seconds, primary_interval_ms / 1000 as cycle_seconds,
    (select /*sqlite*/ json_group_array(w.window_label) /*end*/
       /*pg*/ json_agg(w.window_label order by w.duration_ms) /*end*/
     from (select window_label, duration_ms from settings.v_windows where is_window = 1
           order by duration_ms) w) as windows
  from settings.params where id = 1;
