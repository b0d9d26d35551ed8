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
  note          {text},
  -- Whose trades are booked; null is every account's.
  account       {text},
  -- Why the last close failed, while the status is ERROR.
  error         {text},
  -- Grows with each change: a change that was computed from an older state is refused.
  revision      {i64}  not null default 0
);
create unique index rt_session_one_open on cin_aux.rt_session (owner, window_label)
  where status = 'OPEN';

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
  opening_units     {text} not null default '0',
  primary key (session_id, asset)
) /*sqlite*/ without rowid /*end*/;

-- What a session means to hold of each asset, in USDT.
create table cin_aux.rt_reference (
  session_id {i64}  not null,
  asset      {text} not null,
  ref_usdt   {text} not null,
  source_tag {text} not null,
  primary key (session_id, asset)
) /*sqlite*/ without rowid /*end*/;

-- What an asset was worth: `bulk_usdt` is all of its units.
create table cin_aux.rt_mark (
  session_id {i64}  not null,
  asset      {text} not null,
  ts         {i64}  not null,
  price_usdt {text} not null,
  bulk_usdt  {text} not null,
  primary key (session_id, asset, ts)
) /*sqlite*/ without rowid /*end*/;

-- Moves, numbered from 1 within a session in the order of their instants. Booking a trade that
-- arrives late numbers them anew; a trade is known by its symbol and id.
create table cin_aux.rt_move (
  session_id           {i64}  not null,
  move_id              {i64}  not null,
  ts                   {i64}  not null,
  from_asset           {text} not null,
  to_asset             {text} not null,
  executed_usdt        {text} not null,
  fee_usdt             {text} not null,
  fee_asset            {text},
  fee_units            {text},
  slippage_usdt        {text} not null,
  ref_usdt_target      {text},
  available_usdt       {text},
  planned_usdt         {text},
  dev_ref_usdt         {text} not null,
  comp_principal_usdt  {text} not null,
  comp_profit_usdt     {text} not null,
  p_bridge_in_usdt     {text} not null,
  p_bridge_out_usdt    {text} not null,
  p_in_usdt            {text},
  from_units           {text} not null,
  lot_units_used       {text} not null,
  trace_usdt           {text} not null,
  fee_trace_usdt       {text} not null,
  profit_consumed_usdt {text} not null,
  principal_hit_usdt   {text} not null,
  to_units_received    {text} not null,
  residual_from_after  {text} not null,
  imprint_usdt         {text} not null,
  luggage_usdt         {text} not null,
  tau_usdt             {text} not null,
  realized_usdt        {text} not null,
  overdrawn            {i64}  not null,
  notes                {text} not null,
  src_symbol           {text},
  src_trade_id         {i64},
  src_side             {text} check (src_side in ('BUY', 'SELL')),
  primary key (session_id, move_id),
  unique (session_id, src_symbol, src_trade_id)
) /*sqlite*/ without rowid /*end*/;

-- What came in together, and what of it is left. Lots without a move are those of the opening.
create table cin_aux.rt_lot (
  session_id     {i64}  not null,
  lot_id         {i64}  not null,
  asset          {text} not null,
  created_at     {i64}  not null,
  origin_move_id {i64},
  p_in_usdt      {text} not null,
  units_total    {text} not null,
  units_free     {text} not null check (units_free not like '-%'),
  cost_total     {text} not null,
  cost_free      {text} not null,
  primary key (session_id, lot_id)
) /*sqlite*/ without rowid /*end*/;

-- Which parts of which lots a move used; `use` is what for.
create table cin_aux.rt_move_lotlink (
  session_id {i64}  not null,
  move_id    {i64}  not null,
  use        {text} not null check (use in ('move', 'fee')),
  lot_id     {i64}  not null,
  units_used {text} not null,
  cost_usdt  {text} not null,
  p_in_usdt  {text} not null,
  primary key (session_id, move_id, use, lot_id)
) /*sqlite*/ without rowid /*end*/;

-- Trades that could not be booked, and why. They are tried again at each import.
create table cin_aux.rt_move_error (
  session_id   {i64}  not null,
  src_symbol   {text} not null,
  src_trade_id {i64}  not null,
  ts           {i64}  not null,
  reason       {text} not null,
  seen_at      {i64}  not null,
  primary key (session_id, src_symbol, src_trade_id)
) /*sqlite*/ without rowid /*end*/;

-- What a closed session came to.
create table cin_aux.rt_imprint_luggage (
  session_id         {i64}  primary key not null,
  principal_churn    {text} not null,
  profit_churn       {text} not null,
  generated_profit   {text} not null,
  trace_sum          {text} not null,
  devref_sum         {text} not null,
  luggage_principal  {text} not null,
  luggage_profit     {text} not null,
  fee_sum            {text} not null,
  slippage_sum       {text} not null,
  imprint_sum        {text} not null,
  luggage_sum        {text} not null,
  tau_sum            {text} not null,
  realized_pnl       {text} not null,
  moves              {i64}  not null,
  unbooked           {i64}  not null,
  closed_at          {i64}  not null
);

-- What the allocation suggests for each open session.
create table cin_aux.mea_result (
  session_id {i64}  not null,
  symbol     {text} not null,
  ts_ms      {i64}  not null,
  value      {f64}  not null,
  components {json} not null,
  primary key (session_id, symbol)
) /*sqlite*/ without rowid /*end*/;

-- A closed session stays as it is.
/*sqlite*/
create trigger cin_aux.rt_session_closed before update on cin_aux.rt_session
  when old.status = 'CLOSED'
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_session_remains before delete on cin_aux.rt_session
  begin select raise(abort, 'a session is never deleted: close it'); end;
/*end*/
/*pg*/
create function cin_aux.refuse() returns trigger language plpgsql as
'begin raise exception using errcode = ''WB001'', message = tg_argv[0]; end';
create trigger rt_session_closed before update on cin_aux.rt_session for each row
  when (old.status = 'CLOSED') execute function cin_aux.refuse('a closed session is immutable');
create trigger rt_session_remains before delete on cin_aux.rt_session for each row
  execute function cin_aux.refuse('a session is never deleted: close it');
create trigger rt_session_stays before truncate on cin_aux.rt_session for each statement
  execute function cin_aux.refuse('a session is never deleted: close it');
create function cin_aux.refuse_closed() returns trigger language plpgsql as
'begin
  if (tg_op <> ''INSERT'' and exists (select 1 from cin_aux.rt_session s
        where s.session_id = old.session_id and s.status = ''CLOSED''))
     or (tg_op <> ''DELETE'' and exists (select 1 from cin_aux.rt_session s
        where s.session_id = new.session_id and s.status = ''CLOSED'')) then
    raise exception using errcode = ''WB001'', message = ''a closed session is immutable'';
  end if;
  if tg_op = ''DELETE'' then return old; end if;
  return new;
end';
/*end*/
/*sqlite*/
create trigger cin_aux.rt_balance_insert before insert on cin_aux.rt_balance
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = new.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_balance_update before update on cin_aux.rt_balance
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_balance_delete before delete on cin_aux.rt_balance
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_reference_insert before insert on cin_aux.rt_reference
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = new.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_reference_update before update on cin_aux.rt_reference
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_reference_delete before delete on cin_aux.rt_reference
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_mark_insert before insert on cin_aux.rt_mark
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = new.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_mark_update before update on cin_aux.rt_mark
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_mark_delete before delete on cin_aux.rt_mark
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_insert before insert on cin_aux.rt_move
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = new.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_update before update on cin_aux.rt_move
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_delete before delete on cin_aux.rt_move
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_lot_insert before insert on cin_aux.rt_lot
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = new.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_lot_update before update on cin_aux.rt_lot
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_lot_delete before delete on cin_aux.rt_lot
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_lotlink_insert before insert on cin_aux.rt_move_lotlink
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = new.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_lotlink_update before update on cin_aux.rt_move_lotlink
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_lotlink_delete before delete on cin_aux.rt_move_lotlink
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_error_insert before insert on cin_aux.rt_move_error
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = new.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_error_update before update on cin_aux.rt_move_error
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_move_error_delete before delete on cin_aux.rt_move_error
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_imprint_luggage_insert before insert on cin_aux.rt_imprint_luggage
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = new.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_imprint_luggage_update before update on cin_aux.rt_imprint_luggage
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
create trigger cin_aux.rt_imprint_luggage_delete before delete on cin_aux.rt_imprint_luggage
  when exists (select 1 from cin_aux.rt_session s
               where s.session_id = old.session_id and s.status = 'CLOSED')
  begin select raise(abort, 'a closed session is immutable'); end;
/*end*/
/*pg*/
create trigger rt_balance_closed before insert or update or delete on cin_aux.rt_balance for each row
  execute function cin_aux.refuse_closed();
create trigger rt_balance_stays before truncate on cin_aux.rt_balance for each statement
  execute function cin_aux.refuse('a closed session is immutable');
create trigger rt_reference_closed before insert or update or delete on cin_aux.rt_reference for each row
  execute function cin_aux.refuse_closed();
create trigger rt_reference_stays before truncate on cin_aux.rt_reference for each statement
  execute function cin_aux.refuse('a closed session is immutable');
create trigger rt_mark_closed before insert or update or delete on cin_aux.rt_mark for each row
  execute function cin_aux.refuse_closed();
create trigger rt_mark_stays before truncate on cin_aux.rt_mark for each statement
  execute function cin_aux.refuse('a closed session is immutable');
create trigger rt_move_closed before insert or update or delete on cin_aux.rt_move for each row
  execute function cin_aux.refuse_closed();
create trigger rt_move_stays before truncate on cin_aux.rt_move for each statement
  execute function cin_aux.refuse('a closed session is immutable');
create trigger rt_lot_closed before insert or update or delete on cin_aux.rt_lot for each row
  execute function cin_aux.refuse_closed();
create trigger rt_lot_stays before truncate on cin_aux.rt_lot for each statement
  execute function cin_aux.refuse('a closed session is immutable');
create trigger rt_move_lotlink_closed before insert or update or delete on cin_aux.rt_move_lotlink for each row
  execute function cin_aux.refuse_closed();
create trigger rt_move_lotlink_stays before truncate on cin_aux.rt_move_lotlink for each statement
  execute function cin_aux.refuse('a closed session is immutable');
create trigger rt_move_error_closed before insert or update or delete on cin_aux.rt_move_error for each row
  execute function cin_aux.refuse_closed();
create trigger rt_move_error_stays before truncate on cin_aux.rt_move_error for each statement
  execute function cin_aux.refuse('a closed session is immutable');
create trigger rt_imprint_luggage_closed before insert or update or delete on cin_aux.rt_imprint_luggage for each row
  execute function cin_aux.refuse_closed();
create trigger rt_imprint_luggage_stays before truncate on cin_aux.rt_imprint_luggage for each statement
  execute function cin_aux.refuse('a closed session is immutable');
/*end*/
-- What the account holds, as the venue said last.
create table market.wallet_balances_latest (
  asset     {text} primary key not null,
  ts        {i64}  not null,
  free_amt  {text} not null,
  locked_amt {text} not null
);
-- What it held before: one row for each change.
create table market.wallet_balances (
  asset      {text} not null,
  ts         {i64}  not null,
  free_amt   {text} not null,
  locked_amt {text} not null,
  primary key (asset, ts)
) /*sqlite*/ without rowid /*end*/;

-- The account's trades: as the venue gave them, conversions in the same form, and imported files.
create table market.account_trades (
  symbol           {text} not null,
  trade_id         {i64}  not null,
  order_id         {i64},
  price            {text} not null,
  qty              {text} not null,
  quote_qty        {text} not null,
  commission       {text} not null,
  commission_asset {text} not null,
  trade_time       {i64}  not null,
  is_buyer         {i64}  not null,
  is_maker         {i64}  not null,
  is_best_match    {i64}  not null,
  account_email    {text},
  source           {text} not null check (source in ('venue', 'convert', 'file')),
  base_asset       {text} not null,
  quote_asset      {text} not null,
  raw              {json} not null,
  added_at         {i64}  not null,
  primary key (symbol, trade_id)
) /*sqlite*/ without rowid /*end*/;
create index account_trades_time on market.account_trades (trade_time);

-- How far each part of the account was read: for trades by symbol the next id to ask for, for
-- conversions the instant up to which they are known.
create table market.account_feed (
  feed       {text} primary key not null,
  position   {i64},
  checked_at {i64}  not null
);

-- What each owner's runs of the ledger did.
create table audit.user_cycle_log (
  owner_user_id {text} not null,
  cycle_seq     {i64}  not null,
  ts            {i64}  not null,
  session_id    {i64},
  status        {text} not null check (status in ('ok', 'warn', 'idle', 'error')),
  summary       {text} not null,
  payload       {json} not null,
  primary key (owner_user_id, cycle_seq)
) /*sqlite*/ without rowid /*end*/;

-- For people. Sums are doubles: the amounts themselves are in the tables.
create view cin_aux.v_sessions as
  select s.session_id, s.owner, s.window_label, s.status,
         case when s.status = 'OPEN' then 0 else 1 end as closed, s.mode, s.account,
         {utc:s.started_at} as started, {utc:s.ended_at} as ended, s.error, s.note,
         (select count(*) from cin_aux.rt_move m where m.session_id = s.session_id) as moves,
         (select count(*) from cin_aux.rt_move_error e where e.session_id = s.session_id)
           as unbooked
  from cin_aux.rt_session s;
create view cin_aux.v_session_open as select * from cin_aux.v_sessions where status = 'OPEN';
create view cin_aux.v_pnl as
  select m.session_id, m.to_asset, count(*) as moves, sum(m.overdrawn) as overdrawn,
         sum(cast(m.executed_usdt as {f64})) as executed_usdt,
         sum(cast(m.fee_usdt as {f64})) as fee_usdt,
         sum(cast(m.slippage_usdt as {f64})) as slippage_usdt,
         sum(cast(m.trace_usdt as {f64})) as trace_usdt,
         sum(cast(m.realized_usdt as {f64})) as realized_pnl,
         sum(cast(m.imprint_usdt as {f64})) as imprint_usdt,
         sum(cast(m.luggage_usdt as {f64})) as luggage_usdt,
         sum(cast(m.tau_usdt as {f64})) as tau_usdt
  from cin_aux.rt_move m group by m.session_id, m.to_asset;
create view cin_aux.v_latest_marks as
  select k.session_id, k.asset, k.ts, {utc:k.ts} as ts_utc, k.price_usdt, k.bulk_usdt
  from cin_aux.rt_mark k
  where k.ts = (select max(n.ts) from cin_aux.rt_mark n
    where n.session_id = k.session_id and n.asset = k.asset);
create view cin_aux.v_open_lots as
  select l.session_id, l.lot_id, l.asset, {utc:l.created_at} as created, l.origin_move_id,
         l.p_in_usdt, l.units_free, l.units_total, l.cost_free
  from cin_aux.rt_lot l where l.units_free <> '0';
