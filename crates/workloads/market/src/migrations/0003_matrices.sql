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
  primary key (series, ts_ms, version)
) /*sqlite*/ without rowid /*end*/;

-- One row of a matrix: the cells of `base` against each coin of the slice, in the slice's order, the
-- diagonal null. `reasons` names, in the same order, why a cell is null; null where none is.
create table matrices.rows (
  series      {text} not null,
  ts_ms       {i64}  not null,
  version     {i64}  not null,
  matrix_type {text} not null,
  base        {text} not null,
  cells       {json} not null,
  reasons     {json},
  primary key (series, ts_ms, version, matrix_type, base)
) /*sqlite*/ without rowid /*end*/;
