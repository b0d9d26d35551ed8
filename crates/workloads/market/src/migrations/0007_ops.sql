-- What the scans found: a pack is complete or absent.
create table ops.smoke_pack (
  pack_id {id},
  scope   {text} not null,
  ts      {i64}  not null,
  level   {text} not null check (level in ('ok', 'warn', 'err')),
  items   {json} not null,
  summary {json} not null
);
