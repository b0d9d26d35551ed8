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

-- The coins that symbols of the market are made of.
create view market.assets as
  select a.asset_code, a.asset_code as name, 8 as precision_dp
  from (select base_asset as asset_code from market.symbols
        union select quote_asset from market.symbols) a;

-- The universe beside what the market says of each symbol.
create view market.v_symbols_universe as
  select u.symbol, u.enabled, u.sort_order, u.base_asset, u.quote_asset, m.status, m.price_tick,
    m.qty_step, m.min_notional, l.status as venue_status, l.is_spot
  from settings.coin_universe u
  left join market.symbols m on m.symbol = u.symbol
  left join ingest.listings l on l.symbol = u.symbol;

-- What the account holds, free and locked together, and what that is worth. For people: sums are doubles,
-- the amounts themselves are in the table. An asset without a ticker against USDT has no price.
create view market.v_wallet as
  select w.asset, w.units, w.price_usdt, w.units * w.price_usdt as value_usdt, w.free_amt,
    w.locked_amt, w.ts, {utc:w.ts} as ts_utc
  from (
    select b.asset, cast(b.free_amt as {f64}) + cast(b.locked_amt as {f64}) as units,
      case when b.asset in ('USDT', 'USDC', 'FDUSD', 'BUSD', 'TUSD', 'DAI') then 1.0
           else t.price end as price_usdt, b.free_amt, b.locked_amt, b.ts
    from market.wallet_balances_latest b
    left join market.ticker_latest t on t.symbol = b.asset || 'USDT'
  ) w;
