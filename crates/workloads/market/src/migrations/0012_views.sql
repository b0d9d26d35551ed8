-- The coins that symbols of the market are made of.
create view market.assets as
  select a.asset_code, a.asset_code as name, 8 as precision_dp
  from (select base_asset as asset_code from market.symbols
        union select quote_asset from market.symbols) a;

-- The universe beside what the market and the venue say of each symbol.
create view market.v_symbols_universe as
  select u.symbol, u.enabled, u.sort_order, u.base_asset, u.quote_asset, m.status, m.price_tick,
    m.qty_step, m.min_notional, l.status as venue_status, l.is_spot
  from settings.coin_universe u
  left join market.symbols m on m.symbol = u.symbol
  left join ingest.listings l on l.symbol = u.symbol;
