-- In SQLite a table without rowid is an index with whole rows in it. A row that is longer than a quarter
-- of a page spills into pages of its own, and each comparison on the way to another row reads those. The
-- statistics of a window are that long, and its vectors fill the pages with few rows. In tables with
-- rowids both lie one after the other as they were written, and half of the pages are saved.
/*sqlite*/
drop view str_aux.v_stats_coverage;
drop view str_aux.v_latest_vectors;

create table str_aux.window_stats_by_rowid (
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
  trade_fill          {i64}  not null default 0,
  primary key (symbol, window_label, window_start, version)
);
insert into str_aux.window_stats_by_rowid select * from str_aux.window_stats;
drop table str_aux.window_stats;
alter table str_aux.window_stats_by_rowid rename to str_aux.window_stats;
create trigger str_aux.window_stats_no_update before update on str_aux.window_stats
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;
create trigger str_aux.window_stats_no_delete before delete on str_aux.window_stats
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;

create table str_aux.window_vectors_by_rowid (
  symbol       {text} not null,
  window_label {text} not null,
  window_start {i64}  not null,
  version      {i64}  not null,
  vec          {json} not null,
  primary key (symbol, window_label, window_start, version)
);
insert into str_aux.window_vectors_by_rowid select * from str_aux.window_vectors;
drop table str_aux.window_vectors;
alter table str_aux.window_vectors_by_rowid rename to str_aux.window_vectors;
create trigger str_aux.window_vectors_no_update before update on str_aux.window_vectors
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;
create trigger str_aux.window_vectors_no_delete before delete on str_aux.window_vectors
  begin select raise(abort, 'a published window is immutable: correct it with a new version'); end;

-- As 0006 and 0007 have them.
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
create view str_aux.v_latest_vectors as
  select v.symbol, v.window_label, v.window_start, {utc:v.window_start} as window_start_utc,
         v.version, v.vec
  from settings.coin_universe u
  cross join settings.windows w
  join str_aux.window_vectors v on v.symbol = u.symbol and v.window_label = w.window_label
   and v.window_start = (select max(n.window_start) from str_aux.window_vectors n
     where n.symbol = u.symbol and n.window_label = w.window_label)
   and v.version = (select max(n.version) from str_aux.window_vectors n
     where n.symbol = u.symbol and n.window_label = w.window_label
       and n.window_start = v.window_start);
/*end*/
