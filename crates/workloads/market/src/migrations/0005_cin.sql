-- The ledger of trading sessions. Money is decimal text: 38 digits, 18 of them after the point.

create table cin_aux.rt_session (
  session_id    {id},
  owner         {text} not null,
  window_label  {text} not null,
  status        {text} not null check (status in ('OPEN', 'CLOSED', 'ERROR')),
  mode          {text} not null check (mode in ('ledger', 'parity')),
  started_at    {i64}  not null,
  ended_at      {i64},
  opening_stamp {i64}  not null,
  note          {text}
);

create table cin_aux.rt_balance (
  session_id        {i64}  not null,
  asset             {text} not null,
  opening_principal {text} not null,
  opening_profit    {text} not null,
  principal_usdt    {text} not null,
  profit_usdt       {text} not null,
  units             {text} not null,
  closing_principal {text},
  closing_profit    {text},
  primary key (session_id, asset)
) /*sqlite*/ without rowid /*end*/;

-- What the account holds, as the venue said last.
create table market.wallet_balances_latest (
  asset     {text} primary key not null,
  ts        {i64}  not null,
  free_amt  {text} not null,
  locked_amt {text} not null
);
