-- What to observe: the universe, in processing order.
create table settings.coin_universe (
  symbol      {text} primary key not null,
  enabled     {i64}  not null default 1,
  sort_order  {i64},
  base_asset  {text} not null,
  quote_asset {text} not null,
  metadata    {json} not null default '{}',
  updated_at  {i64}  not null
);

create table settings.windows (
  window_label  {text} primary key not null,
  duration_ms   {i64}  not null unique,
  bins_default  {i64}  not null,
  display_order {i64}  not null
);

-- What the venue says about each symbol.
create table market.symbols (
  symbol       {text} primary key not null,
  base_asset   {text} not null,
  quote_asset  {text} not null,
  status       {text} not null,
  price_tick   {text},
  qty_step     {text},
  min_notional {text},
  updated_at   {i64} not null
);

-- Closed candles as the venue gave them: append-only, one row for each open time.
create table ingest.kline_raw (
  symbol          {text} not null,
  interval_label  {text} not null,
  open_time       {i64}  not null,
  close_time      {i64}  not null,
  open            {f64}  not null,
  high            {f64}  not null,
  low             {f64}  not null,
  close           {f64}  not null,
  volume          {f64}  not null,
  quote_volume    {f64}  not null,
  trades          {i64}  not null,
  taker_buy_base  {f64}  not null,
  taker_buy_quote {f64}  not null,
  primary key (symbol, interval_label, open_time)
) /*sqlite*/ without rowid /*end*/;

-- The earlier values of a candle that the venue changed after its close.
create table ingest.kline_revisions (
  id             {id},
  symbol         {text} not null,
  interval_label {text} not null,
  open_time      {i64}  not null,
  open           {f64}  not null,
  high           {f64}  not null,
  low            {f64}  not null,
  close          {f64}  not null,
  volume         {f64}  not null,
  replaced_at    {i64}  not null
);

-- How far each series of candles is known.
create table ingest.klines_cursor (
  symbol         {text} not null,
  window_label   {text} not null,
  wanted_from    {i64}  not null,
  covered_from   {i64},
  covered_until  {i64},
  last_open_time {i64},
  updated_at     {i64}  not null,
  primary key (symbol, window_label)
);

-- Missing candles: pending until the venue has answered twice that it has none, then a hole.
create table ingest.kline_gaps (
  symbol         {text} not null,
  interval_label {text} not null,
  from_at        {i64}  not null,
  to_at          {i64}  not null,
  state          {text} not null check (state in ('pending', 'hole', 'repaired')),
  answers        {i64}  not null,
  found_at       {i64}  not null,
  tried_at       {i64}  not null,
  primary key (symbol, interval_label, from_at)
);

-- Every request of the synchronisation.
create table ops.market_sync_log (
  id          {id},
  ts          {i64}  not null,
  symbol      {text},
  endpoint    {text} not null,
  rows        {i64}  not null,
  weight_used {i64},
  status      {text} not null,
  http_code   {i64},
  latency_ms  {i64}  not null,
  message     {text}
);
create index ops_market_sync_log_ts on ops.market_sync_log (ts);

-- Five-second points, forty-second cycles.
create table str_aux.samples_5s (
  symbol              {text} not null,
  ts                  {i64}  not null,
  mid                 {f64},
  mid_min             {f64},
  mid_max             {f64},
  best_bid            {f64},
  best_ask            {f64},
  spread              {f64},
  spread_min          {f64},
  spread_max          {f64},
  spread_avg          {f64},
  bid_volume          {f64}  not null,
  ask_volume          {f64}  not null,
  bucket_count        {i64}  not null,
  tick_ms_min         {i64},
  tick_ms_max         {i64},
  tick_ms_avg         {i64},
  liquidity_imbalance {f64},
  quality_flags       {json} not null,
  v_inner             {f64},
  v_outer             {f64},
  v_swap              {f64},
  v_tendency          {f64},
  disruption          {f64},
  amp                 {f64},
  volt                {f64},
  inertia             {f64},
  mode_general        {i64},
  mode_b              {i64},
  primary key (symbol, ts)
) /*sqlite*/ without rowid /*end*/;
create view str_aux.sampling as select * from str_aux.samples_5s;

create table str_aux.cycles_40s (
  symbol             {text} not null,
  cycle_start        {i64}  not null,
  points             {i64}  not null,
  v_inner_min        {f64},
  v_inner_max        {f64},
  v_inner_avg        {f64},
  v_inner_close      {f64},
  v_outer_min        {f64},
  v_outer_max        {f64},
  v_outer_avg        {f64},
  v_outer_close      {f64},
  v_swap_avg         {f64},
  v_swap_close       {f64},
  v_tend_avg         {f64},
  v_tend_close       {f64},
  disruption_avg     {f64},
  amp_avg            {f64},
  volt_avg           {f64},
  inertia_avg        {f64},
  mode_general_close {i64},
  mode_b_close       {i64},
  primary key (symbol, cycle_start)
) /*sqlite*/ without rowid /*end*/;

-- Windows. `version` is that of ops.windows; readers join the newest complete one (v_windows).
create table str_aux.windows (
  symbol             {text} not null,
  window_label       {text} not null,
  window_start       {i64}  not null,
  version            {i64}  not null,
  source             {text} not null check (source in ('points', 'klines')),
  samples            {i64}  not null,
  cycles_count       {i64}  not null,
  v_inner_min        {f64},
  v_inner_max        {f64},
  v_inner_avg        {f64},
  v_inner_close      {f64},
  v_outer_min        {f64},
  v_outer_max        {f64},
  v_outer_avg        {f64},
  v_outer_close      {f64},
  v_swap_avg         {f64},
  v_swap_close       {f64},
  v_tend_avg         {f64},
  v_tend_close       {f64},
  disruption_avg     {f64},
  amp_avg            {f64},
  volt_avg           {f64},
  inertia_avg        {f64},
  mode_general_close {i64},
  mode_b_close       {i64},
  primary key (symbol, window_label, window_start, version)
) /*sqlite*/ without rowid /*end*/;

create table str_aux.window_stats (
  symbol              {text} not null,
  window_label        {text} not null,
  window_start        {i64}  not null,
  version             {i64}  not null,
  mean_inner          {f64},
  var_inner           {f64},
  skew_inner          {f64},
  mean_outer          {f64},
  var_outer           {f64},
  skew_outer          {f64},
  spread_avg          {f64},
  spread_p95          {f64},
  opening             {f64}  not null,
  last_price          {f64}  not null,
  price_min           {f64}  not null,
  price_max           {f64}  not null,
  gfm                 {f64}  not null,
  delta_gfm_pct       {f64}  not null,
  bfm                 {f64}  not null,
  disruption_systemic {f64}  not null,
  stats               {json} not null,
  primary key (symbol, window_label, window_start, version)
) /*sqlite*/ without rowid /*end*/;

create table str_aux.window_vectors (
  symbol       {text} not null,
  window_label {text} not null,
  window_start {i64}  not null,
  version      {i64}  not null,
  vec          {json} not null,
  primary key (symbol, window_label, window_start, version)
) /*sqlite*/ without rowid /*end*/;

/*sqlite*/
create trigger str_aux.windows_no_update before update on str_aux.windows
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;
create trigger str_aux.windows_no_delete before delete on str_aux.windows
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;
create trigger str_aux.window_stats_no_update before update on str_aux.window_stats
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;
create trigger str_aux.window_stats_no_delete before delete on str_aux.window_stats
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;
create trigger str_aux.window_vectors_no_update before update on str_aux.window_vectors
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;
create trigger str_aux.window_vectors_no_delete before delete on str_aux.window_vectors
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;
/*end*/

-- Typed projections and readable times.
create view market.klines as
  select symbol, interval_label as window_label, open_time, close_time, open, high, low, close,
         volume, trades, quote_volume, taker_buy_base, taker_buy_quote
  from ingest.kline_raw;
create view str_aux.v_windows as
  select w.*, {utc:w.window_start} as window_start_utc
  from str_aux.windows w
  where w.version = (
    select max(n.version) from str_aux.windows n
    where n.symbol = w.symbol and n.window_label = w.window_label and n.window_start = w.window_start
  );
create view str_aux.v_latest_windows as
  select w.* from str_aux.v_windows w
  where w.window_start = (
    select max(n.window_start) from str_aux.windows n
    where n.symbol = w.symbol and n.window_label = w.window_label
  );
create view ingest.v_holes as
  select symbol, interval_label, {utc:from_at} as from_utc, {utc:to_at} as to_utc,
         (to_at - from_at) / 60000 as minutes, {utc:tried_at} as tried_utc
  from ingest.kline_gaps where state = 'hole';
