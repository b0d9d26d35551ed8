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

-- The classes of mood that have been seen, with the ranges that their three characters stand for.
create table mea_dynamics.mood_registry (
  mood_id   {text} primary key not null,
  mood_name {text} not null unique,
  formula   {text} not null,
  buckets   {json} not null
);

-- The mood of each symbol in a window, by quote and base asset.
create table mea_dynamics.symbol_moods (
  window_label {text} not null,
  window_start {i64}  not null,
  version      {i64}  not null,
  quote        {text} not null,
  base         {text} not null,
  symbol       {text} not null,
  g            {f64}  not null,
  t            {f64}  not null,
  v            {f64}  not null,
  weight       {f64}  not null,
  v_t          {f64}  not null,
  gfm          {f64}  not null,
  v_s          {f64}  not null,
  coeff        {f64}  not null,
  mood_id      {text} not null,
  primary key (window_label, window_start, version, quote, base)
) /*sqlite*/ without rowid /*end*/;

-- What was observed and when: each window's mood, and each look after a change of the universe.
-- `app_session_id` names the observer, such as `mood-30m`; `version` is that of the window, or the
-- number of the event.
create table mea_dynamics.mea_mood_observations (
  app_session_id {text} not null,
  ts_ms          {i64}  not null,
  version        {i64}  not null,
  mn_label       {text} not null,
  weight         {f64}  not null,
  payload        {json} not null,
  primary key (app_session_id, ts_ms, version)
) /*sqlite*/ without rowid /*end*/;

create view mea_dynamics.v_moods as
  select m.*, {utc:m.ts_ms} as ts_utc
  from mea_dynamics.moods m
  where m.version = (
    select max(n.version) from mea_dynamics.moods n
    where n.window_label = m.window_label and n.window_start = m.window_start
  );
create view mea_dynamics.v_latest_moods as
  select m.* from mea_dynamics.v_moods m
  where m.window_start = (
    select max(n.window_start) from mea_dynamics.moods n where n.window_label = m.window_label
  );

-- Settings of pages and of the metronome: one row. Everything is derived from the cycle of 40 s, so the
-- cycles of the windows are facts and no settings.
create table settings.params (
  id                  {i64}  primary key not null check (id = 1),
  primary_interval_ms {i64}  not null check (primary_interval_ms = 40000),
  str_cycles_m30      {i64}  not null check (str_cycles_m30 = 45),
  str_cycles_h1       {i64}  not null check (str_cycles_h1 = 90),
  str_cycles_h3       {i64}  not null check (str_cycles_h3 = 270),
  app                 {json} not null,
  updated_at          {i64}  not null
);

-- Which symbols were in the universe at any time, and in which place: the scope of a window is what
-- held at its start. Append-only.
create table settings.universe_changes (
  id         {id},
  symbol     {text} not null,
  at         {i64}  not null,
  enabled    {i64}  not null,
  sort_order {i64},
  by_whom    {text} not null,
  reason     {text}
);
create index settings_universe_changes_symbol on settings.universe_changes (symbol, at, id);
insert into settings.universe_changes (symbol, at, enabled, sort_order, by_whom, reason)
  select symbol, 0, 1, sort_order, 'config', 'before there was a history of changes'
  from settings.coin_universe where enabled = 1;

-- What clients ask for: the newest row at an instant holds; null asks for everything. Append-only.
create table settings.universe_requests (
  id      {id},
  at      {i64}  not null,
  symbols {json},
  by_whom {text} not null
);

-- Changes of many symbols at once. A row that is written by hand with the state `pending` is carried
-- out by the next validation; jobs note here what they did.
create table settings.universe_batch_ops (
  id           {id},
  at           {i64}  not null,
  symbols      {json} not null,
  auto_disable {i64}  not null default 1,
  by_whom      {text} not null default 'user',
  state        {text} not null default 'pending' check (state in ('pending', 'done', 'refused')),
  done_at      {i64},
  enabled      {i64},
  disabled     {i64},
  error        {text}
);

-- How the validation sees each symbol: one step of a streak for each run.
create table settings.universe_validation (
  symbol     {text} primary key not null,
  ok_streak  {i64}  not null,
  bad_streak {i64}  not null,
  capable    {i64},
  codes      {json} not null,
  checked_at {i64}  not null
);

-- Where settings and reality part: when a drift begins, when it ends, and what was done about it.
create table ops.universe_drift (
  id       {id},
  ts       {i64}  not null,
  symbol   {text} not null,
  code     {text} not null,
  severity {text} not null check (severity in ('info', 'warn', 'err')),
  action   {text} not null
);
create index ops_universe_drift_ts on ops.universe_drift (ts);

-- What the venue lists of the symbols of the universe; `status` is its own word, or NOT_LISTED.
create table ingest.listings (
  symbol     {text} primary key not null,
  status     {text} not null,
  is_spot    {i64}  not null,
  fetched_at {i64}  not null
);

-- What a synchronisation with the venue would enable: shown, never computed with.
create table ext.binance_symbols_preview (
  symbol      {text} primary key not null,
  base_asset  {text} not null,
  quote_asset {text} not null,
  status      {text} not null,
  is_spot     {i64}  not null,
  raw         {json} not null,
  fetched_at  {i64}  not null
);

-- Published moods and the history of the universe stay as they are.
/*sqlite*/
create trigger mea_dynamics.moods_no_update before update on mea_dynamics.moods
  begin select raise(abort, 'a published mood is immutable: correct it with a new version'); end;
create trigger mea_dynamics.moods_no_delete before delete on mea_dynamics.moods
  begin select raise(abort, 'a published mood is immutable: correct it with a new version'); end;
create trigger mea_dynamics.symbol_moods_no_update before update on mea_dynamics.symbol_moods
  begin select raise(abort, 'a published mood is immutable: correct it with a new version'); end;
create trigger mea_dynamics.symbol_moods_no_delete before delete on mea_dynamics.symbol_moods
  begin select raise(abort, 'a published mood is immutable: correct it with a new version'); end;
create trigger settings.universe_changes_no_update before update on settings.universe_changes
  begin select raise(abort, 'the history of the universe is only ever added to'); end;
create trigger settings.universe_changes_no_delete before delete on settings.universe_changes
  begin select raise(abort, 'the history of the universe is only ever added to'); end;
/*end*/
/*pg*/
create trigger moods_stay before update or delete on mea_dynamics.moods for each row
  execute function str_aux.refuse('a published mood is immutable: correct it with a new version');
create trigger moods_remain before truncate on mea_dynamics.moods for each statement
  execute function str_aux.refuse('a published mood is immutable: correct it with a new version');
create trigger symbol_moods_stay before update or delete on mea_dynamics.symbol_moods for each row
  execute function str_aux.refuse('a published mood is immutable: correct it with a new version');
create trigger symbol_moods_remain before truncate on mea_dynamics.symbol_moods for each statement
  execute function str_aux.refuse('a published mood is immutable: correct it with a new version');
create trigger universe_changes_stay before update or delete on settings.universe_changes
  for each row execute function str_aux.refuse('the history of the universe is only ever added to');
create trigger universe_changes_remain before truncate on settings.universe_changes
  for each statement
  execute function str_aux.refuse('the history of the universe is only ever added to');
/*end*/
