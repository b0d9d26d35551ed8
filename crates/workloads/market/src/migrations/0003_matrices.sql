-- What the venue last said of each symbol, and the seven matrices of each instant.

-- The newest price and 24-hour change of each symbol, by the venue's ticker. `change_24h` is a
-- fraction: 0.01 is one per cent.
create table market.ticker_latest (
  symbol     {text} primary key not null,
  ts         {i64}  not null,
  price      {f64}  not null,
  change_24h {f64}
);

-- One slice: all seven matrices of one series at one instant, over the coins in this order. The
-- series of a window's slices is the window's label (`30m`); slices of the live refresh are `cycle`.
create table matrices.slices (
  series     {text} not null,
  ts_ms      {i64}  not null,
  version    {i64}  not null,
  coins      {json} not null,
  opening_ts {i64}  not null,
  summary    {json} not null,
  -- The slice before, and the hash of this one's cells.
  previous_ts {i64},
  result_hash {text} not null,
  primary key (series, ts_ms, version)
);

-- One row of a matrix: the cells of `base` against each coin of the slice, in the slice's order, the
-- diagonal null. `reasons` names, in the same order, why a cell is null; null where none is.
-- (Rows of many coins fill most of a page: such a table wants a rowid, for an index with whole rows in
-- it would spill each into pages of its own.)
create table matrices.rows (
  series      {text} not null,
  ts_ms       {i64}  not null,
  version     {i64}  not null,
  matrix_type {text} not null,
  base        {text} not null,
  cells       {json} not null,
  reasons     {json},
  primary key (series, ts_ms, version, matrix_type, base)
);

-- What the cells of `id_pct` have been doing, slice after slice; lists in the order of the coins.
-- `streaks`: slices in a row without movement. `frozen`: 0 moves, 1 recent, 2 mid, 3 long (or the
-- market of one of the coins against USDT has stood still for long). `flips`: changes of direction
-- since the opening. `flipped`: 1 where this slice is one.
create table matrices.flags (
  series  {text} not null,
  ts_ms   {i64}  not null,
  version {i64}  not null,
  base    {text} not null,
  streaks {json} not null,
  frozen  {json} not null,
  flips   {json} not null,
  flipped {json} not null,
  primary key (series, ts_ms, version, base)
);

-- What each symbol cost at an opening: the close of its first candle from then on, stored when a
-- slice first met it. Prices between coins are derived from these as the benchmark is.
create table matrices.openings (
  series     {text} not null,
  opening_ts {i64}  not null,
  symbol     {text} not null,
  at         {i64}  not null,
  price      {f64}  not null,
  primary key (series, opening_ts, symbol)
) /*sqlite*/ without rowid /*end*/;

-- Allocation. One cycle for each window: started, cooled, and not changed after that. `cycle_id` is
-- LABEL:NUMBER:VERSION, the number being the window's start by its length.
create table mea_dynamics.cycles (
  cycle_id       {text} primary key not null,
  window_label   {text} not null,
  window_start   {i64}  not null,
  version        {i64}  not null,
  engine_cycle   {i64}  not null,
  ts_started     {i64}  not null,
  ts_cooled      {i64},
  cooled         {i64}  not null check (cooled in (0, 1)),
  selected_base  {text},
  selected_quote {text},
  coins          {json} not null,
  balance_source {text} not null check (balance_source in ('session', 'wallet', 'equal')),
  k              {f64}  not null,
  mood_coeff     {f64}  not null,
  mood_id        {text} not null,
  unique (window_label, engine_cycle, version),
  check (cooled = 0 or ts_cooled is not null)
);

-- What one coin is allotted: `mea_value` is the sum of `cells`, in units of the coin; `cells` are those
-- of the coin against each coin of the cycle, null on the diagonal and where there is no route.
create table mea_dynamics.mea_symbol (
  cycle_id     {text} not null,
  symbol       {text} not null,
  coin         {text} not null,
  window_label {text} not null,
  ts           {i64}  not null,
  engine_cycle {i64}  not null,
  wallet_value {f64},
  mea_value    {f64}  not null,
  tier         {text} not null check (tier in ('S', 'A', 'B', 'C', 'D', 'E')),
  mood_id      {text} not null,
  mood_name    {text} not null,
  components   {json} not null,
  cells        {json} not null,
  primary key (cycle_id, coin)
);
create index mea_dynamics_mea_symbol_newest on mea_dynamics.mea_symbol (symbol, ts);

-- The selected pair of a cooled cycle, with what else its coins could be traded for.
create table mea_dynamics.dynamics_snapshot (
  cycle_id       {text} primary key not null,
  window_label   {text} not null,
  ts             {i64}  not null,
  engine_cycle   {i64}  not null,
  base           {text} not null,
  quote          {text} not null,
  coins          {json} not null,
  candidates     {json} not null,
  asset_identity {json} not null,
  arbitrage_rows {json} not null,
  str_available  {i64}  not null,
  str_measures   {json} not null,
  histogram      {json} not null,
  mea_value      {f64},
  mea_tier       {text} not null,
  mood_id        {text} not null,
  mood_name      {text} not null,
  stamps         {json} not null
);

-- Slices of windows stay as they are; those of the live refresh (`cycle`) are removed when they are
-- old, and never changed.
/*sqlite*/
create trigger matrices.slices_no_update before update on matrices.slices
  begin select raise(abort, 'a published slice is immutable: correct it with a new version'); end;
create trigger matrices.slices_no_delete before delete on matrices.slices when old.series <> 'cycle'
  begin select raise(abort, 'a published slice is immutable: correct it with a new version'); end;
create trigger matrices.rows_no_update before update on matrices.rows
  begin select raise(abort, 'a published slice is immutable: correct it with a new version'); end;
create trigger matrices.rows_no_delete before delete on matrices.rows when old.series <> 'cycle'
  begin select raise(abort, 'a published slice is immutable: correct it with a new version'); end;
create trigger matrices.flags_no_update before update on matrices.flags
  begin select raise(abort, 'a published slice is immutable: correct it with a new version'); end;
create trigger matrices.flags_no_delete before delete on matrices.flags when old.series <> 'cycle'
  begin select raise(abort, 'a published slice is immutable: correct it with a new version'); end;
create trigger matrices.openings_no_update before update on matrices.openings
  begin select raise(abort, 'an opening is immutable: a new one begins with the next session or day'); end;
create trigger matrices.openings_no_delete before delete on matrices.openings
  begin select raise(abort, 'an opening is immutable: a new one begins with the next session or day'); end;
create trigger mea_dynamics.cycles_no_update before update on mea_dynamics.cycles when old.cooled = 1
  begin select raise(abort, 'a cooled cycle is immutable: correct its window with a new version'); end;
create trigger mea_dynamics.cycles_no_delete before delete on mea_dynamics.cycles
  begin select raise(abort, 'a cooled cycle is immutable: correct its window with a new version'); end;
create trigger mea_dynamics.mea_symbol_no_update before update on mea_dynamics.mea_symbol
  begin select raise(abort, 'a cooled cycle is immutable: correct its window with a new version'); end;
create trigger mea_dynamics.mea_symbol_no_delete before delete on mea_dynamics.mea_symbol
  begin select raise(abort, 'a cooled cycle is immutable: correct its window with a new version'); end;
create trigger mea_dynamics.dynamics_snapshot_no_update before update on mea_dynamics.dynamics_snapshot
  begin select raise(abort, 'a cooled cycle is immutable: correct its window with a new version'); end;
create trigger mea_dynamics.dynamics_snapshot_no_delete before delete on mea_dynamics.dynamics_snapshot
  begin select raise(abort, 'a cooled cycle is immutable: correct its window with a new version'); end;
create trigger mea_dynamics.dynamics_snapshot_cooled before insert on mea_dynamics.dynamics_snapshot
  when not exists (select 1 from mea_dynamics.cycles c where c.cycle_id = new.cycle_id and c.cooled = 1)
  begin select raise(abort, 'a snapshot is taken of a cooled cycle: cool the cycle first'); end;
/*end*/
/*pg*/
create trigger slices_stay before update on matrices.slices for each row
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger slices_are_kept before delete on matrices.slices for each row
  when (old.series <> 'cycle')
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger slices_remain before truncate on matrices.slices for each statement
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger rows_stay before update on matrices.rows for each row
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger rows_are_kept before delete on matrices.rows for each row
  when (old.series <> 'cycle')
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger rows_remain before truncate on matrices.rows for each statement
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger flags_stay before update on matrices.flags for each row
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger flags_are_kept before delete on matrices.flags for each row
  when (old.series <> 'cycle')
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger flags_remain before truncate on matrices.flags for each statement
  execute function str_aux.refuse('a published slice is immutable: correct it with a new version');
create trigger openings_stay before update or delete on matrices.openings for each row
  execute function str_aux.refuse('an opening is immutable: a new one begins with the next session or day');
create trigger openings_remain before truncate on matrices.openings for each statement
  execute function str_aux.refuse('an opening is immutable: a new one begins with the next session or day');
create trigger cycles_stay before update on mea_dynamics.cycles for each row
  when (old.cooled = 1)
  execute function str_aux.refuse('a cooled cycle is immutable: correct its window with a new version');
create trigger cycles_are_kept before delete on mea_dynamics.cycles for each row
  execute function str_aux.refuse('a cooled cycle is immutable: correct its window with a new version');
create trigger cycles_remain before truncate on mea_dynamics.cycles for each statement
  execute function str_aux.refuse('a cooled cycle is immutable: correct its window with a new version');
create trigger mea_symbol_stay before update or delete on mea_dynamics.mea_symbol for each row
  execute function str_aux.refuse('a cooled cycle is immutable: correct its window with a new version');
create trigger mea_symbol_remain before truncate on mea_dynamics.mea_symbol for each statement
  execute function str_aux.refuse('a cooled cycle is immutable: correct its window with a new version');
create trigger dynamics_snapshot_stay before update or delete on mea_dynamics.dynamics_snapshot for each row
  execute function str_aux.refuse('a cooled cycle is immutable: correct its window with a new version');
create trigger dynamics_snapshot_remain before truncate on mea_dynamics.dynamics_snapshot for each statement
  execute function str_aux.refuse('a cooled cycle is immutable: correct its window with a new version');
create function mea_dynamics.refuse_hot() returns trigger language plpgsql as
'begin
  if not exists (select 1 from mea_dynamics.cycles c where c.cycle_id = new.cycle_id and c.cooled = 1) then
    raise exception using errcode = ''WB001'',
      message = ''a snapshot is taken of a cooled cycle: cool the cycle first'';
  end if;
  return new;
end';
create trigger dynamics_snapshot_cooled before insert on mea_dynamics.dynamics_snapshot for each row
  execute function mea_dynamics.refuse_hot();
/*end*/

-- The newest version of each slice, with readable times.
create view matrices.v_slices as
  select s.*, {utc:s.ts_ms} as at_utc, {utc:s.opening_ts} as opening_utc
  from matrices.slices s
  where s.version = (
    select max(n.version) from matrices.slices n where n.series = s.series and n.ts_ms = s.ts_ms
  );

-- Every cell of every slice off the diagonal, one a row. Ask for a series and an instant: there are
-- many.
create view matrices.dyn_values as
/*sqlite*/
  select r.ts_ms, r.series, r.version, r.matrix_type, r.base, c.value as quote,
         cast(json_extract(r.cells, '$[' || c.key || ']') as real) as value,
         json_extract(r.reasons, '$[' || c.key || ']') as reason
  from matrices.v_slices s
  join matrices.rows r on r.series = s.series and r.ts_ms = s.ts_ms and r.version = s.version
  join json_each(s.coins) c
  where c.value <> r.base
/*end*/
/*pg*/
  select r.ts_ms, r.series, r.version, r.matrix_type, r.base, c.quote,
         cast(c.value as double precision) as value, c.reason
  from matrices.v_slices s
  join matrices.rows r on r.series = s.series and r.ts_ms = s.ts_ms and r.version = s.version
  cross join lateral rows from (
    json_array_elements_text(s.coins), json_array_elements_text(r.cells),
    json_array_elements_text(r.reasons)
  ) as c(quote, value, reason)
  where c.quote <> r.base
/*end*/;

-- The newest slice of each series: all seven matrices of one instant.
create view matrices.v_newest as
  select series, max(ts_ms) as ts_ms from matrices.slices group by series;
create view matrices.v_latest as
  select d.* from matrices.v_newest n
  join matrices.dyn_values d on d.series = n.series and d.ts_ms = n.ts_ms;

-- Weight tiers of the movements (`id_pct`): half-open bands, a weight without sign, and the direction
-- apart: 1 for what fell, -1 for what rose. A cell without movement known has weight 0.
create view matrices.tiers as
  select d.ts_ms, d.series, d.version, d.base, d.quote, d.value as id_pct,
    case when d.value is null then null
         when abs(d.value) >= 0.00121 then 'epsilon'
         when abs(d.value) >= 0.00077 then 'delta'
         when abs(d.value) >= 0.00046 then 'gamma'
         when abs(d.value) >= 0.00033 then 'beta'
         when abs(d.value) >= 0.00016 then 'alpha'
         else 'none' end as tier,
    cast(case when abs(d.value) >= 0.00121 then 0.5
         when abs(d.value) >= 0.00077 then 0.65
         when abs(d.value) >= 0.00046 then 1.15
         when abs(d.value) >= 0.00033 then 0.55
         when abs(d.value) >= 0.00016 then 0.15
         else 0.0 end as {f64}) as weight,
    case when d.value > 0 then -1 when d.value < 0 then 1 else 0 end as direction
  from matrices.dyn_values d
  where d.matrix_type = 'id_pct';

-- The flags, one cell a row.
create view matrices.v_flags as
/*sqlite*/
  select f.ts_ms, f.series, f.version, f.base, c.value as quote,
         json_extract(f.streaks, '$[' || c.key || ']') as streak,
         json_extract(f.frozen, '$[' || c.key || ']') as frozen,
         json_extract(f.flips, '$[' || c.key || ']') as flips,
         json_extract(f.flipped, '$[' || c.key || ']') as flipped
  from matrices.v_slices s
  join matrices.flags f on f.series = s.series and f.ts_ms = s.ts_ms and f.version = s.version
  join json_each(s.coins) c
  where c.value <> f.base
/*end*/
/*pg*/
  select f.ts_ms, f.series, f.version, f.base, c.quote, cast(c.streak as bigint) as streak,
         cast(c.frozen as bigint) as frozen, cast(c.flips as bigint) as flips,
         cast(c.flipped as bigint) as flipped
  from matrices.v_slices s
  join matrices.flags f on f.series = s.series and f.ts_ms = s.ts_ms and f.version = s.version
  cross join lateral rows from (
    json_array_elements_text(s.coins), json_array_elements_text(f.streaks),
    json_array_elements_text(f.frozen), json_array_elements_text(f.flips),
    json_array_elements_text(f.flipped)
  ) as c(quote, streak, frozen, flips, flipped)
  where c.quote <> f.base
/*end*/;

-- The last 1-minute close of each symbol of the universe.
create view matrices.latest as
  select u.symbol, k.open_time, k.close_time, k.close, {utc:k.close_time} as close_utc
  from settings.coin_universe u
  join ingest.kline_raw k on k.symbol = u.symbol and k.interval_label = '1m'
  where k.open_time = (
    select max(m.open_time) from ingest.kline_raw m
    where m.symbol = u.symbol and m.interval_label = '1m'
  );

-- Every base of the universe against every quote of it.
create view matrices.v_pair_universe as
  select distinct b.base_asset, q.quote_asset
  from settings.coin_universe b
  join settings.coin_universe q on q.quote_asset <> b.base_asset
  where b.enabled = 1 and q.enabled = 1;

-- The newest cooled cycle of each label, the newest allotment of each symbol, the newest snapshots.
create view mea_dynamics.v_latest_cycles as
  select c.*, {utc:c.ts_cooled} as cooled_utc
  from mea_dynamics.cycles c
  where c.cooled = 1 and not exists (
    select 1 from mea_dynamics.cycles n
    where n.window_label = c.window_label and n.cooled = 1
      and (n.engine_cycle > c.engine_cycle
        or (n.engine_cycle = c.engine_cycle and n.version > c.version))
  );
create view mea_dynamics.v_latest_mea as
  select m.*, {utc:m.ts} as at_utc
  from mea_dynamics.mea_symbol m
  where m.cycle_id = (
    select n.cycle_id from mea_dynamics.mea_symbol n
    where n.symbol = m.symbol
    order by n.ts desc, n.cycle_id /*pg*/ collate "C" /*end*/ desc limit 1
  );
create view mea_dynamics.v_latest_snapshots as
  select s.* from mea_dynamics.v_latest_cycles c
  join mea_dynamics.dynamics_snapshot s on s.cycle_id = c.cycle_id;
