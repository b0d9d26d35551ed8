-- The newest mood of each label: label by label, from one to the next in the order of the key. What
-- 0004 says the same with looks at every mood there is, which takes longer with each window.
drop view mea_dynamics.v_latest_moods;
create view mea_dynamics.v_latest_moods as
  with recursive labels (label) as (
    select min(f.window_label) from mea_dynamics.moods f
    union all
    select (select min(n.window_label) from mea_dynamics.moods n where n.window_label > l.label)
    from labels l where l.label is not null
  )
  select m.*
  from labels l cross join mea_dynamics.v_moods m
  where m.window_label = l.label and m.window_start = (
    select max(n.window_start) from mea_dynamics.moods n where n.window_label = l.label
  );
