-- What the scans found: a pack is complete or absent.
create table ops.smoke_pack (
  pack_id {id},
  scope   {text} not null,
  ts      {i64}  not null,
  level   {text} not null check (level in ('ok', 'warn', 'err')),
  items   {json} not null,
  summary {json} not null
);
create index smoke_pack_scope on ops.smoke_pack (scope, ts);
-- The newest pack of each scope.
create view ops.v_smoke_packs as
  select p.pack_id, p.scope, p.ts, {utc:p.ts} as ts_utc, p.level, p.items, p.summary
  from ops.smoke_pack p
  where p.pack_id = (select max(n.pack_id) from ops.smoke_pack n where n.scope = p.scope);

-- What the last health scan found wrong, and what it once did: `cleared_at` is null while it holds.
create table ops.risk_flags (
  flag_key   {text} primary key not null,
  category   {text} not null check (category in ('data', 'structural', 'ledger', 'session')),
  type       {text} not null,
  severity   {text} not null check (severity in ('warn', 'err')),
  cause      {text} not null,
  action     {text} not null,
  raised_at  {i64}  not null,
  seen_at    {i64}  not null,
  cleared_at {i64}
);
create view ops.v_risk_flags as
  select flag_key, category, type, severity, cause, action, {utc:raised_at} as raised,
         {utc:seen_at} as seen
  from ops.risk_flags where cleared_at is null;

-- Notes of the application, each key once: boots, stops, heartbeats.
create table ops.app_ledger (
  id              {id},
  topic           {text} not null,
  event           {text} not null,
  payload         {json} not null,
  session_id      {text},
  idempotency_key {text} not null unique,
  ts_epoch_ms     {i64}  not null
);
create index app_ledger_topic on ops.app_ledger (topic, ts_epoch_ms);

-- The state of everything, once a scan.
create table audit.vitals_log (
  snapshot_ts {i64}  primary key not null,
  payload     {json} not null
);
create view vitals.status_snapshot as
  select snapshot_ts, {utc:snapshot_ts} as snapshot_utc, payload
  from audit.vitals_log
  where snapshot_ts = (select max(snapshot_ts) from audit.vitals_log);

-- The operator's questions.
create view str_aux.v_newest_samples as
  select s.*, {utc:s.ts} as ts_utc
  from settings.coin_universe u
  join str_aux.samples_5s s on s.symbol = u.symbol
   and s.ts = (select max(n.ts) from str_aux.samples_5s n where n.symbol = u.symbol);
create view str_aux.v_latest_vectors as
  select v.symbol, v.window_label, v.window_start, {utc:v.window_start} as window_start_utc,
         v.version, v.vec
  from settings.coin_universe u
  cross join settings.windows w
  join str_aux.window_vectors v on v.symbol = u.symbol and v.window_label = w.window_label
   and v.window_start = (select max(n.window_start) from str_aux.window_vectors n
     where n.symbol = u.symbol and n.window_label = w.window_label)
   and v.version = (select max(n.version) from str_aux.window_vectors n
     where n.symbol = u.symbol and n.window_label = w.window_label
       and n.window_start = v.window_start);
