-- Artifacts that are kept for a while only: housekeeping removes them after this instant, but never
-- the newest of a name.
alter table ops.artifacts add column expires_at {i64};

create index artifacts_by_expiry on ops.artifacts (expires_at) where expires_at is not null;
