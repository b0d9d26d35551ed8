-- The mood of each window: one row, new or the last stable one published again.
create table mea_dynamics.moods (
  window_label {text} not null,
  window_start {i64}  not null,
  version      {i64}  not null,
  ts_ms        {i64}  not null,
  coeff        {f64}  not null,
  mood_id      {text} not null,
  tier         {text} not null check (tier in ('S', 'A', 'B', 'C', 'D', 'E')),
  is_fallback  {i64}  not null,
  is_stale     {i64}  not null,
  stable_ts_ms {i64},
  payload      {json} not null,
  primary key (window_label, window_start, version)
) /*sqlite*/ without rowid /*end*/;
