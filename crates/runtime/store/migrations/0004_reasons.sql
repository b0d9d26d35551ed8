-- Why a due instant was skipped, where that was not its worker's missed-run policy: it gave way, or
-- the store was slow.
alter table ops.occurrences add column reason {text};

drop view ops.v_occurrences;
create view ops.v_occurrences as
select worker, {utc:due} as due, {utc:through} as through, count, fate, reason, cycle,
    {utc:recorded_at} as recorded
from ops.occurrences;
