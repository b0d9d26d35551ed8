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
