-- object: view pgops.silences
-- requires: silence_active
CREATE OR REPLACE VIEW pgops.silences AS
SELECT
    s.silence_id,
    s.kind,
    s.labels,
    pgops.silence_active(s, pg_catalog.now()) AS is_active,
    s.starts_at,
    s.ends_at,
    s.weekdays,
    s.days_of_month,
    s.start_time,
    s.duration,
    s.time_zone,
    s.comment,
    s.created_by,
    s.source,
    s.created_at,
    s.name
FROM pgops.silence AS s;

REVOKE ALL ON pgops.silences FROM PUBLIC;
GRANT SELECT ON pgops.silences TO pgops, pgops_reader, pgops_operator;
