-- Trades as the venue gave them: append-only.
create table ingest.agg_trade_raw (
  symbol         {text} not null,
  agg_id         {i64}  not null,
  price          {f64}  not null,
  qty            {f64}  not null,
  first_id       {i64}  not null,
  last_id        {i64}  not null,
  ts_ms          {i64}  not null,
  is_buyer_maker {i64}  not null,
  primary key (symbol, agg_id)
) /*sqlite*/ without rowid /*end*/;
create index ingest_agg_trade_raw_ts on ingest.agg_trade_raw (symbol, ts_ms);

-- How far each symbol's trades are known: all of [known_from, known_until) is stored, less the gaps.
create table ingest.trades_cursor (
  symbol      {text} primary key not null,
  known_from  {i64}  not null,
  known_until {i64}  not null,
  last_agg_id {i64},
  updated_at  {i64}  not null,
  check (known_from <= known_until)
);

-- Numbers that a page of trades passed over, [from_id, to_id), between the trades of from_at and
-- to_at: pending until the venue has answered often enough that it has none, then a hole.
create table ingest.trade_gaps (
  symbol   {text} not null,
  from_id  {i64}  not null,
  to_id    {i64}  not null,
  from_at  {i64}  not null,
  to_at    {i64}  not null,
  state    {text} not null check (state in ('pending', 'hole')),
  answers  {i64}  not null,
  found_at {i64}  not null,
  tried_at {i64}  not null,
  primary key (symbol, from_id),
  check (from_id < to_id)
);

-- What the venue said of the last 24 hours, each time that it was asked. `change_24h` is a fraction.
create table ingest.ticker_raw (
  symbol       {text} not null,
  ts           {i64}  not null,
  price        {f64}  not null,
  change_24h   {f64}  not null,
  open         {f64}  not null,
  high         {f64}  not null,
  low          {f64}  not null,
  volume       {f64}  not null,
  quote_volume {f64}  not null,
  trades       {i64}  not null,
  primary key (symbol, ts)
) /*sqlite*/ without rowid /*end*/;

-- Order books that someone asked for: [[price, quantity], ...], best first.
create table ingest.orderbook_raw (
  symbol         {text} not null,
  ts             {i64}  not null,
  last_update_id {i64}  not null,
  bids           {json} not null,
  asks           {json} not null,
  primary key (symbol, ts)
) /*sqlite*/ without rowid /*end*/;

-- A session watches the floating mode of each symbol; its thresholds are those of its beginning.
create table str_aux.sessions (
  session_id   {text} primary key not null,
  window_label {text} not null,
  window_ms    {i64}  not null,
  started_at   {i64}  not null,
  epsilon_pct  {f64}  not null,
  streak       {i64}  not null,
  both_ways    {i64}  not null,
  swap_eta_pct {f64}  not null
);

-- Where a session's machine stands for one symbol. `cycle_end` is the last cycle that it has seen.
create table str_aux.stream_state (
  session_id  {text} not null,
  symbol      {text} not null,
  cycle_end   {i64}  not null,
  opening_gfm {f64},
  ref_gfm     {f64},
  delta_pct   {f64},
  streak      {i64},
  shifts      {i64}  not null default 0,
  swaps       {i64}  not null default 0,
  ui_epoch    {i64}  not null default 0,
  fresh_until {i64},
  machine     {json} not null,
  updated_at  {i64}  not null,
  primary key (session_id, symbol)
);

-- The newest 64 shifts of each symbol.
create table str_aux.stamps (
  session_id {text} not null,
  symbol     {text} not null,
  ts         {i64}  not null,
  price      {f64}  not null,
  gfm        {f64}  not null,
  delta_pct  {f64}  not null,
  primary key (session_id, symbol, ts)
);

create table str_aux.stream_events (
  session_id {text} not null,
  symbol     {text} not null,
  ts         {i64}  not null,
  kind       {text} not null check (kind in ('opening', 'swap', 'shift')),
  payload    {json} not null,
  primary key (session_id, symbol, ts, kind)
);

-- One row of the stream table: what the value was at the shift before the last, at the last shift,
-- and at its greatest. prev and cur move only on a shift.
create table str_aux.streams (
  session_id {text} not null,
  symbol     {text} not null,
  stream     {text} not null,
  prev       {f64},
  cur        {f64},
  greatest   {f64},
  cycle_end  {i64}  not null,
  primary key (session_id, symbol, stream)
);

-- Points of a window whose price came from the trades of an empty bucket.
alter table str_aux.window_stats add column trade_fill {i64} not null default 0;

create view settings.v_windows as
  select window_label,
    duration_ms / case when duration_ms % 86400000 = 0 then 86400000
                       when duration_ms % 3600000 = 0 then 3600000
                       when duration_ms % 60000 = 0 then 60000 else 1000 end as amount,
    case when duration_ms % 86400000 = 0 then 'day'
         when duration_ms % 3600000 = 0 then 'hour'
         when duration_ms % 60000 = 0 then 'minute' else 'second' end as unit,
    duration_ms, bins_default, display_order,
    case when duration_ms % 40000 = 0 and duration_ms >= 600000 then 1 else 0 end as is_window
  from settings.windows;

-- Projections of what was ingested.
create view market.ticker_ticks as
  select symbol, ts, price, change_24h from ingest.ticker_raw;
create view market.orderbook_latest as
  select o.* from ingest.orderbook_raw o
  where o.ts = (select max(n.ts) from ingest.orderbook_raw n where n.symbol = o.symbol);
create view market.orderbook_levels as
  select o.symbol, o.ts, 'bid' as side,
    /*sqlite*/ json_extract(l.value, '$[0]') as price, json_extract(l.value, '$[1]') as qty
    from ingest.orderbook_raw o, json_each(o.bids) l /*end*/
    /*pg*/ cast(l.value ->> 0 as double precision) as price,
    cast(l.value ->> 1 as double precision) as qty
    from ingest.orderbook_raw o cross join lateral json_array_elements(o.bids) as l(value) /*end*/
  union all
  select o.symbol, o.ts, 'ask' as side,
    /*sqlite*/ json_extract(l.value, '$[0]') as price, json_extract(l.value, '$[1]') as qty
    from ingest.orderbook_raw o, json_each(o.asks) l /*end*/
    /*pg*/ cast(l.value ->> 0 as double precision) as price,
    cast(l.value ->> 1 as double precision) as qty
    from ingest.orderbook_raw o cross join lateral json_array_elements(o.asks) as l(value) /*end*/;

-- What is to be fetched, and how far it is.
create view ingest.v_targets as
  select symbol, base_asset, quote_asset, sort_order
  from settings.coin_universe where enabled = 1;
create view str_aux.v_enabled_symbols as
  select symbol, base_asset, quote_asset, sort_order
  from settings.coin_universe where enabled = 1;
create view str_aux.v_ingest_targets as
  select u.symbol, w.window_label, c.wanted_from, c.covered_from, c.covered_until, c.last_open_time
  from settings.coin_universe u
  cross join settings.windows w
  left join ingest.klines_cursor c on c.symbol = u.symbol and c.window_label = w.window_label
  where u.enabled = 1 and w.window_label in
    ('1m', '3m', '5m', '15m', '30m', '1h', '2h', '4h', '6h', '8h', '12h', '1d');

-- Windows with their states, as the runtime keeps them: the newest version of each.
create view str_aux.window_runs as
  select replace(w.series, 'window-sampler-', '') as window_label, w.start_at as window_start,
    case w.state when 'open' then 'pending' when 'ready' then 'pending'
                 when 'running' then 'computing' else w.state end as state,
    w.attempts, w.error as reason, w.inputs_hash, w.result_hash, w.scope as symbols,
    w.started_at, w.finished_at, w.version, w.source
  from ops.windows w
  where w.series like 'window-sampler-%' and w.version = (
    select max(n.version) from ops.windows n where n.series = w.series and n.start_at = w.start_at
  );
create view str_aux.window_revisions as
  select replace(w.series, 'window-sampler-', '') as window_label, w.start_at as window_start,
    w.version, w.correction as reason, w.state, w.inputs_hash, w.result_hash, w.finished_at
  from ops.windows w where w.series like 'window-sampler-%' and w.version > 1;

-- One row a cycle of points: the price and the book over its 40 seconds.
create view str_aux.v_marks as
  select m.symbol, m.cycle_start, m.points, m.priced, a.mid as price_open, z.mid as price_close,
    m.price_min, m.price_max, m.price_avg, m.spread_min, m.spread_max, m.spread_avg,
    m.bid_volume_avg, m.ask_volume_avg
  from (
    select symbol, (ts - 1) / 40000 * 40000 as cycle_start, count(*) as points,
      count(mid) as priced, min(mid_min) as price_min, max(mid_max) as price_max,
      avg(mid) as price_avg, min(spread_min) as spread_min, max(spread_max) as spread_max,
      avg(spread_avg) as spread_avg, avg(bid_volume) as bid_volume_avg,
      avg(ask_volume) as ask_volume_avg, min(case when mid is not null then ts end) as first_at,
      max(case when mid is not null then ts end) as last_at
    from str_aux.samples_5s group by symbol, (ts - 1) / 40000
  ) m
  left join str_aux.samples_5s a on a.symbol = m.symbol and a.ts = m.first_at
  left join str_aux.samples_5s z on z.symbol = m.symbol and z.ts = m.last_at;

-- The newest closed cycle of each symbol: eight points are expected, six must have a price.
create view str_aux.v_health as
  select h.symbol, h.newest_sample, h.newest_cycle, h.points, h.priced,
    case when h.newest_cycle is null then 'empty_cycle' when h.priced = 0 then 'no_prices'
         when h.priced < 4 then 'too_few_points' when h.priced < 6 then 'partial_cycle'
         else 'ok' end as code
  from (
    select n.symbol, n.newest_sample, n.newest_cycle,
      (select count(*) from str_aux.samples_5s s where s.symbol = n.symbol
        and s.ts > n.newest_cycle and s.ts <= n.newest_cycle + 40000) as points,
      (select count(s.mid) from str_aux.samples_5s s where s.symbol = n.symbol
        and s.ts > n.newest_cycle and s.ts <= n.newest_cycle + 40000) as priced
    from (
      select u.symbol,
        (select max(s.ts) from str_aux.samples_5s s where s.symbol = u.symbol) as newest_sample,
        (select max(c.cycle_start) from str_aux.cycles_40s c where c.symbol = u.symbol)
          as newest_cycle
      from settings.coin_universe u where u.enabled = 1
    ) n
  ) h;

-- Stretches between two priced points of a symbol that are further apart than one bucket.
create view str_aux.v_flow_gaps as
  select g.symbol, g.prior as from_at, g.ts as to_at, (g.ts - g.prior) / 5000 - 1 as missing,
    {utc:g.prior} as from_utc, {utc:g.ts} as to_utc
  from (
    select symbol, ts, lag(ts) over (partition by symbol order by ts) as prior
    from str_aux.samples_5s where mid is not null
  ) g
  where g.ts - g.prior > 5000;

-- How many windows of each symbol and label there are, and whether each has its rows.
create view str_aux.v_stats_coverage as
  select w.symbol, w.window_label, count(*) as windows, count(s.symbol) as stats,
    count(v.symbol) as vectors, min(w.window_start) as first_start,
    max(w.window_start) as last_start
  from str_aux.windows w
  left join str_aux.window_stats s on s.symbol = w.symbol and s.window_label = w.window_label
    and s.window_start = w.window_start and s.version = w.version
  left join str_aux.window_vectors v on v.symbol = w.symbol and v.window_label = w.window_label
    and v.window_start = w.window_start and v.version = w.version
  group by w.symbol, w.window_label;
