-- What the venue said of the account's balances: each answer that differed from the one before it.
create table ingest.account_balance_raw (
  account_scope {text} not null,
  ts            {i64}  not null,
  payload       {json} not null,
  primary key (account_scope, ts)
);

-- What the account holds, and what that is worth by the newest 1-minute closes; stablecoins are worth one.
-- For people: sums are doubles, the amounts themselves are in the table.
create view market.v_wallet as
  select p.asset, {utc:p.ts} as ts_utc, p.free_amt, p.locked_amt, p.total, p.price_usdt,
         p.total * p.price_usdt as worth_usdt
  from (
    select w.asset, w.ts, w.free_amt, w.locked_amt,
           cast(w.free_amt as {f64}) + cast(w.locked_amt as {f64}) as total,
           case when w.asset in ('USDT', 'USDC', 'FDUSD', 'BUSD', 'TUSD', 'DAI')
             then cast(1 as {f64})
             else (select k.close from ingest.kline_raw k
                   where k.symbol = w.asset || 'USDT' and k.interval_label = '1m'
                   order by k.open_time desc limit 1)
           end as price_usdt
    from market.wallet_balances_latest w
  ) p;
